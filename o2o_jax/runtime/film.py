"""Films of episodes, several beside each other: played again, a frame now and then. Impure: renders, writes files."""

import contextlib
import ctypes
import dataclasses
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from o2o_jax.envs.registered import require
from o2o_jax.runtime.playing import Episode

SUFFIX = ".mp4"
SIZE = 320  # pixels of a panel's edge
BAR = 48  # pixels above it, for two lines
FRAMES_PER_SECOND = 30.0  # about: a whole number of environment steps lies between two frames
SCENE_FRAMES = 300  # the most of a scene: longer episodes are shown faster
HOLD_SECONDS = 1.0  # that a scene's last frame stays
RENDERERS = ("egl", "osmesa", "glfw", "glx", "cgl", "wgl")  # that MUJOCO_GL takes, and the words for none of them
SWITCHED_OFF = ("off", "0", "false", "disable", "disabled")
BACKGROUND, INK, FADED = (24, 26, 31), (236, 239, 244), (150, 156, 168)
NO_RENDERER = (
    "install what renders without a screen (on Debian and Ubuntu: apt install libegl1 libgl1 libgl1-mesa-dri, or "
    "libosmesa6 with MUJOCO_GL=osmesa), or leave the film out"
)


@dataclasses.dataclass(frozen=True)
class Panel:
    """One policy's part of a film.

    Attributes:
      label: its first line.
      episodes: one per scene.
    """

    label: str
    episodes: Sequence[Episode]


@dataclasses.dataclass(frozen=True)
class Film:
    """A film that was written.

    Attributes:
      path: of the file.
      frames: how many.
      fps: frames per second.
      speed: of simulated time; 1 is real time.
      replayed: whether every episode earned again what it had earned when it was played.
    """

    path: Path
    frames: int
    fps: float
    speed: float
    replayed: bool

    @property
    def seconds(self) -> float:
        """Length of the film."""
        return self.frames / self.fps


def check(path: str | os.PathLike, overwrite: bool = False) -> Path:
    """Checks what can be checked before anything is played: the file's name, and the packages that write it.

    Args:
      path: of the film.
      overwrite: whether it may replace a file.

    Returns:
      The path.

    Raises:
      FileExistsError: there is something of that name.
      FileNotFoundError, NotADirectoryError, PermissionError: there is no folder to write it in.
      ValueError: no name of a film, or a package is missing.
    """
    target = Path(path)
    if target.suffix != SUFFIX:
        raise ValueError(f"a film is an {SUFFIX} file, got {target}: name it {target.with_suffix(SUFFIX)}")
    if target.exists() and (not overwrite or not target.is_file()):
        raise FileExistsError(f"{target} already exists: choose another name, or pass --overwrite")
    if not target.parent.is_dir():
        above = next(path for path in target.absolute().parents if path.exists())
        if not above.is_dir():
            raise NotADirectoryError(f"{target} can't be written: {above} is a file, not a folder, choose another name")
        raise FileNotFoundError(f"{target.parent} does not exist: make this folder first")
    try:
        with tempfile.TemporaryFile(dir=target.parent):  # which leaves no name
            pass
    except OSError as error:
        raise PermissionError(f"{target} can't be written ({error.strerror}): choose another folder") from None
    for package in ("imageio_ffmpeg", "PIL"):
        require(package, "video")
    return target


def write(
    path: str | os.PathLike,
    make_env: Callable[..., Any],
    panels: Sequence[Panel],
    score: Callable[[float], float] | None = None,
    overwrite: bool = False,
) -> Film:
    """Films episodes, a scene after another, in each of which the panels' episodes are beside each other.

    The episodes are played again in environments that render, by the actions that were taken. A panel whose episode has
    ended keeps its last frame.

    Args:
      path: of the film, which appears whole or not at all.
      make_env: (render_mode=…) -> environment of the episodes.
      panels: at least one, each with as many episodes.
      score: return -> normalised score, to be shown beside it; None for returns alone.
      overwrite: whether the film may replace a file.

    Returns:
      The film.

    Raises:
      FileExistsError, FileNotFoundError: see `check`.
      ValueError: see `check`; or nothing can be rendered here, or an environment fails.
    """
    target = check(path, overwrite)
    choose_renderer()
    draft = target.with_name(f".{target.stem}.part{SUFFIX}")
    with contextlib.ExitStack() as stack:
        stack.callback(draft.unlink, missing_ok=True)
        envs = []
        for _ in panels:
            envs.append(stack.enter_context(contextlib.closing(_make(make_env))))
            _prepare(envs[-1])
        stage = _Stage(envs, panels, score)
        frames, replayed, writer = 0, True, None
        try:
            for episodes in zip(*(panel.episodes for panel in panels), strict=True):
                for frame in stage.scene(episodes):
                    writer = writer or _writer(draft, stage)  # once there is something to write
                    writer.send(frame)
                    frames += 1
                replayed &= stage.replayed(episodes)
        finally:
            if writer is not None:
                writer.close()
        os.replace(draft, target)
    return Film(target, frames, stage.fps, stage.speed, replayed)


def _writer(path: Path, stage: "_Stage") -> Any:
    """A generator that takes frames, and encodes them in a process of its own."""
    import imageio_ffmpeg

    writer = imageio_ffmpeg.write_frames(
        str(path), stage.size, fps=stage.fps, quality=7, macro_block_size=2, output_params=["-preset", "veryfast"]
    )
    with warnings.catch_warnings():  # JAX warns of a process that goes on in a copy of this one
        warnings.filterwarnings("ignore", r"os\.fork", RuntimeWarning)
        writer.send(None)
    return writer


def check_renderer(make_env: Callable[..., Any]) -> None:
    """Renders one picture, before anything is played for a film. Impure.

    Args:
      make_env: (render_mode=…) -> environment.

    Raises:
      ValueError: nothing can be rendered here, or the environment fails.
    """
    choose_renderer()
    wrong = _wrong_choice()
    try:
        env = _make(make_env)
    except ValueError as error:  # MuJoCo refuses to be imported with a name that it doesn't know
        raise ValueError(wrong or str(error)) from error
    with contextlib.closing(env):
        if wrong and _renderers(env):
            raise ValueError(wrong)
        _prepare(env)
        env.reset(seed=0)
        _view(env)


def _wrong_choice() -> str:
    """Says what is wrong with MUJOCO_GL as it is set, and what to do; "" where nothing is."""
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    way_out = "unset it, and what there is gets chosen, or leave the film out"
    if chosen in SWITCHED_OFF:
        return f"MUJOCO_GL={chosen} switches rendering off: {way_out}"
    if chosen and chosen not in RENDERERS:
        return f"MUJOCO_GL={chosen} is none of {', '.join(RENDERERS)}: {way_out}"
    on_screen = chosen in ("glfw", "glx") or (not chosen and sys.platform == "linux")
    if on_screen and sys.platform == "linux" and not _has_screen():
        if chosen:
            return f"MUJOCO_GL={chosen} needs a screen, and there is none: {way_out}"
        return f"MuJoCo finds nothing that renders without a screen: {NO_RENDERER}"
    return ""


def _has_screen() -> bool:
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def choose_renderer() -> None:
    """Lets MuJoCo render without a screen where there is none and nobody has said how (MUJOCO_GL). Impure."""
    if os.environ.get("MUJOCO_GL") or sys.platform != "linux" or _has_screen():
        return
    for name, library in (("egl", "libEGL.so.1"), ("osmesa", "libOSMesa.so.8")):
        with contextlib.suppress(OSError):
            ctypes.CDLL(library)
            os.environ["MUJOCO_GL"] = name
            return


class _Stage:
    """Environments that play beside each other, and the frames of it."""

    def __init__(self, envs: Sequence[Any], panels: Sequence[Panel], score: Callable[[float], float] | None) -> None:
        from PIL import ImageFont

        self._envs, self._score = envs, score
        self._font = ImageFont.load_default(size=15)
        steps_per_second = float(envs[0].metadata.get("render_fps") or FRAMES_PER_SECOND)
        in_real_time = max(1, round(steps_per_second / FRAMES_PER_SECOND))
        longest = max(episode.length for panel in panels for episode in panel.episodes)
        self._every = max(in_real_time, -(-longest // SCENE_FRAMES))
        self.fps = steps_per_second / in_real_time
        self.speed = self._every / in_real_time
        faster = "" if self.speed == 1 else f"   × {self.speed:g}"
        self._labels = [panel.label + faster for panel in panels]
        self.size = (SIZE * len(envs), SIZE + BAR)
        self._returns = np.zeros(len(envs))

    def scene(self, episodes: Sequence[Episode]) -> Iterator[np.ndarray]:
        """Yields frames [H, W, 3] of episodes, one per panel, the last one for a while."""
        for env, episode in zip(self._envs, episodes, strict=True):
            env.reset(seed=episode.start)
        self._returns[:] = 0.0
        views = [_view(env) for env in self._envs]
        for step in range(max(episode.length for episode in episodes) + 1):
            shown = step % self._every == 0
            for p, (env, episode) in enumerate(zip(self._envs, episodes, strict=True)):
                if 0 < step <= episode.length:
                    self._returns[p] += float(env.step(episode.actions[step - 1])[1])
                if step and (step == episode.length or (shown and step < episode.length)):
                    views[p] = _view(env)
            if shown:
                frame = self._frame(views, step, episodes)
                yield frame
        frame = self._frame(views, step, episodes)
        for _ in range(round(HOLD_SECONDS * self.fps)):
            yield frame

    def replayed(self, episodes: Sequence[Episode]) -> bool:
        """Returns whether the scene that has ended earned what the episodes had earned."""
        return bool(np.allclose(self._returns, [episode.total for episode in episodes], rtol=1e-4, atol=1e-4))

    def _frame(self, views: Sequence[np.ndarray], step: int, episodes: Sequence[Episode]) -> np.ndarray:
        from PIL import Image, ImageDraw

        image = Image.new("RGB", self.size, BACKGROUND)
        draw = ImageDraw.Draw(image)
        for p, (view, label, episode) in enumerate(zip(views, self._labels, episodes, strict=True)):
            left, over = p * SIZE, step >= episode.length
            image.paste(Image.fromarray(view), (left, BAR))
            numbers = f"return {self._returns[p]:,.0f}"
            if self._score is not None:
                numbers += f"   score {self._score(self._returns[p]):.1f}"
            numbers += f"   step {min(step, episode.length):,}" + ("   ended" if over else "")
            draw.text((left + 8, 5), label, fill=INK, font=self._font)
            draw.text((left + 8, 25), numbers, fill=FADED if over else INK, font=self._font)
            if p:
                draw.line([(left, 0), (left, self.size[1])], fill=BACKGROUND, width=2)
        return np.ascontiguousarray(image)


def _view(env: Any) -> np.ndarray:
    """Picture of an environment [SIZE, SIZE, 3], scaled and centred."""
    from PIL import Image

    try:
        frame = env.render()
    except Exception as error:  # whatever the graphics libraries of a machine raise
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        way_out = NO_RENDERER if _renderers(env) else "install what it needs, or leave the film out"
        raise ValueError(f"{_name(env)} can't be rendered here ({reason}): {way_out}") from error
    if frame is None or np.ndim(frame) != 3:
        raise ValueError(f"{_name(env)} renders no pictures (rgb_array): leave the film out")
    picture = Image.fromarray(np.asarray(frame, np.uint8)).convert("RGB")
    if picture.size == (SIZE, SIZE):
        return np.asarray(picture)
    picture.thumbnail((SIZE, SIZE))
    canvas = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
    canvas.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    return np.asarray(canvas)


def _make(make_env: Callable[..., Any]) -> Any:
    """An environment that renders, as those that the episodes were played in."""
    from o2o_jax.envs.border import Border  # which needs gymnasium

    return Border(make_env(render_mode="rgb_array"))


def _prepare(env: Any) -> None:
    """Lets MuJoCo render small pictures by a camera that goes along with the robot.

    Without shadows and reflections they take a tenth of the time on a processor.
    """
    for renderer in _renderers(env):
        renderer.width = renderer.height = SIZE
        renderer.model.vis.quality.shadowsize = 0
        renderer.model.mat_reflectance[:] = 0.0
        if "trackbodyid" in (renderer.default_cam_config or {}):  # which gymnasium's free camera doesn't follow
            renderer.camera_id = _camera(renderer.model, "track")


def _camera(model: Any, name: str) -> int:
    """Number of a model's camera; -1, the free one, where it has none of that name."""
    import mujoco

    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)


def _renderers(env: Any) -> list[Any]:
    """MuJoCo's renderers in an environment; none in one of another make."""
    from o2o_jax.envs.recorder import environments_inside  # which needs gymnasium

    renderers = [getattr(inside, "mujoco_renderer", None) for inside in environments_inside(env)]
    return [renderer for renderer in renderers if renderer is not None]


def _name(env: Any) -> str:
    return env.spec.id if env.spec else str(env)
