"""experiments.play: scores and films of the policies of a run."""

import dataclasses
import itertools
import os
import signal

import gymnasium
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import demo, play
from o2o_jax.jobs.policies import load_policy, save_policy
from o2o_jax.runtime import evaluate, film, playing
from o2o_jax.runtime.deployed import DeployedPolicy
from tests import tiny

TASK = envs.get_task(tiny.ENV)
FAMILY = envs.family(tiny.ENV)


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Folders of three policies that fall after different numbers of steps."""
    folder = tmp_path_factory.mktemp("policies")
    return [save_policy(tiny.make_policy("deterministic", seed=s), folder / f"policy{s}", tiny.ENV) for s in range(3)]


def frames_of(path):
    """Frames [T, H, W, 3] of a film."""
    import imageio_ffmpeg

    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames])


def can_render():
    """Tells whether this machine can render."""
    film.choose_renderer()
    try:
        env = FAMILY.make_env(TASK, render_mode="rgb_array")
        env.reset(seed=0)
        env.render()
        env.close()
    except Exception:
        return False
    return True


def test_episodes_are_those_of_the_environment(policies):
    loaded = [load_policy(folder) for folder in policies[:2]]
    found = playing.play(FAMILY, TASK, loaded, seed=3, episodes=2)
    assert [episode.start for episode in found[0]] == [episode.start for episode in found[1]]
    for policy, played in zip(loaded, found, strict=True):
        for episode in played:
            env = FAMILY.make_env(TASK)
            observation, _ = env.reset(seed=episode.start)
            for action, reward in zip(episode.actions, episode.rewards, strict=True):
                np.testing.assert_allclose(policy.act(observation), action, atol=1e-5)
                observation, earned, terminated, truncated, _ = env.step(action)
                assert earned == pytest.approx(reward, rel=1e-5)
            assert terminated or truncated


def test_few_simulators_play_the_same_episodes(policies, monkeypatch):
    loaded = [load_policy(folder) for folder in policies[:2]] + [DeployedPolicy(tiny.make_sequence_policy(), TASK)]
    many = playing.play(FAMILY, TASK, loaded, seed=3, episodes=5)
    monkeypatch.setattr(evaluate, "SIMULATORS", 6)
    few = playing.play(FAMILY, TASK, loaded, seed=3, episodes=5)
    assert [len(played) for played in few] == [5] * 3
    for one, other in zip(itertools.chain(*many), itertools.chain(*few), strict=True):
        assert one.start == other.start
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.rewards, other.rewards)


def test_a_policy_on_histories_plays_from_its_rewards():
    policy = DeployedPolicy(tiny.make_sequence_policy(), TASK)
    ((first,),) = playing.play(FAMILY, TASK, [policy], 0, 1)
    env = FAMILY.make_env(TASK)
    observation, reward = env.reset(seed=first.start)[0], 0.0
    for action in first.actions:
        np.testing.assert_allclose(policy.act(observation, reward), action, atol=1e-4)
        observation, reward, *_ = env.step(action)


@pytest.mark.filterwarnings("ignore:os.fork")  # of the process that decodes the film
def test_a_film_shows_what_the_table_says(policies, tmp_path, capsys):
    if not can_render():
        pytest.skip("nothing renders on this machine")
    path = tmp_path / "film.mp4"
    others = ",".join(str(folder) for folder in policies)
    arguments = [f"--run={policies[0]}", f"--compare={others}", "--episodes=2", "--film_episodes=2", f"--video={path}"]
    tiny.call(play, *arguments)
    out = capsys.readouterr().out
    labels = ["policy", "policy of policy1", "policy of policy2"]
    rows = [line.removeprefix(label).split() for line, label in zip(out.splitlines()[2:], labels, strict=False)]
    assert "film: " in out
    assert "note:" not in out  # every episode earned the same again
    episodes = playing.play(FAMILY, TASK, [load_policy(folder) for folder in policies], 0, 2)
    for row, played in zip(rows, episodes, strict=True):
        totals = np.array([episode.total for episode in played])
        assert float(row[0]) == pytest.approx(totals.mean(), abs=0.06)
        assert float(row[2]) == pytest.approx(TASK.score(totals).mean(), abs=0.06)
    frames = frames_of(path)
    longest = [max(played[e].length for played in episodes) for e in range(2)]
    hold = round(film.HOLD_SECONDS * 31.25)
    assert len(frames) == sum(length // 4 + 1 + hold for length in longest)  # 125 steps a second, every fourth
    assert frames.shape[1:] == (film.SIZE + film.BAR, 3 * film.SIZE, 3)
    views = frames[: longest[0] // 4 + 1, film.BAR :].astype(int)
    for p, played in enumerate(episodes):
        panel = views[:, :, p * film.SIZE : (p + 1) * film.SIZE]
        changes = np.abs(np.diff(panel, axis=0)).mean(axis=(1, 2, 3))  # between frames 4 k and 4 (k + 1)
        over = -(-played[0].length // 4)
        assert changes[: over - 1].max() > 0.3  # it moves
        assert changes[over:].max(initial=0.0) < 0.3  # and stays when its episode has ended
    tiny.call(play, *arguments, status=1)
    assert "already exists: choose another name, or pass --overwrite" in capsys.readouterr().err
    tiny.call(play, f"--run={policies[0]}", "--episodes=1", f"--video={path}", "--overwrite")
    assert frames_of(path).shape[2] == film.SIZE


@pytest.mark.parametrize("folder", ["file.npz", "file.npz/deeper", "/proc"])
def test_a_film_that_cannot_be_written_is_refused_before_anything_is_played(
    folder, policies, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(playing, "play", lambda *_: pytest.fail("nothing is to be played"))
    (tmp_path / "file.npz").touch()
    path = tmp_path / folder / "film.mp4"
    tiny.call(play, f"--run={policies[0]}", f"--video={path}", status=1)
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path} can't be written")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.npz"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("off", "MUJOCO_GL=off switches rendering off: unset it"),
        ("bogus", "MUJOCO_GL=bogus is none of egl, osmesa, glfw, glx, cgl, wgl: unset it"),
        ("glfw", "MUJOCO_GL=glfw needs a screen, and there is none: unset it"),
        ("", "MuJoCo finds nothing that renders without a screen: install what renders without a screen (on Debian"),
    ],
)
def test_a_missing_renderer_is_missed_before_anything_is_played(
    chosen, message, policies, tmp_path, monkeypatch, capsys
):
    def missing(library):
        raise OSError(library)

    monkeypatch.setattr(playing, "play", lambda *_: pytest.fail("nothing is to be played"))
    monkeypatch.setattr(film.ctypes, "CDLL", missing)
    monkeypatch.setattr(film.sys, "platform", "linux")
    monkeypatch.setenv("MUJOCO_GL", chosen)
    for screen in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(screen, raising=False)
    tiny.call(play, f"--run={policies[0]}", f"--video={tmp_path / 'film.mp4'}", status=1)
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_is_stopped_leaves_nothing(policies, tmp_path, monkeypatch, capsys):
    frames = np.zeros((film.SIZE, film.SIZE, 3), np.uint8)
    monkeypatch.setattr(film, "check_renderer", lambda make_env: None)
    stopped = []

    def view(env):
        if list(tmp_path.glob(".film.part*")) and not stopped:  # the encoder is at work
            stopped.append(True)
            signal.raise_signal(signal.SIGTERM)
        return frames

    monkeypatch.setattr(film, "_view", view)
    tiny.call(play, f"--run={policies[0]}", "--episodes=1", f"--video={tmp_path / 'film.mp4'}", status=143)
    assert capsys.readouterr().err.endswith("error: stopped by SIGTERM\n")
    assert stopped
    assert list(tmp_path.iterdir()) == []


class Quits(gymnasium.Env):
    """An environment that draws its own pictures, and ends the process at its third step."""

    observation_space = action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    steps = 0

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3:
            raise SystemExit("enough")
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


def test_an_environment_that_fails_in_a_film_is_named(tmp_path):
    episode = playing.Episode(0, np.zeros((5, 1), np.float32), np.zeros(5, np.float32))
    with pytest.raises(ValueError, match="Quits failed at step 3 of an episode: step raised SystemExit: enough"):
        film.write(tmp_path / "film.mp4", Quits, [film.Panel("policy", [episode])])
    assert not list(tmp_path.iterdir())


def test_policies_of_a_run(offline_run, policies, capsys):
    tiny.call(play, f"--run={offline_run}", f"--compare=last,{policies[1]},{offline_run}:offline", "--episodes=1")
    labels = [line.split("  ")[0].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert labels == ["last", "policy of policy1", "offline"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare=bets"], "unknown policy 'bets'. Did you mean 'best'?"),
        (["--compare=nothing:best"], "nothing holds no run"),
        (["--compare=aligned"], "holds one policy, not the aligned one"),
        (["--video=film.avi"], "a film is an .mp4 file, got film.avi: name it film.mp4"),
        (["--video=no/folder/film.mp4"], "no/folder does not exist: make this folder first"),
        (
            ["--env=mujoco/walker2d"],
            "the policy policy takes 11 observations and 3 actions, but mujoco/walker2d has 17 observations and 6 "
            "actions: choose an --env with as many",
        ),
        (
            ["--video=film.mp4", "--film_episodes=2"],
            "--film_episodes=2 are more than the 1 that are played: lower it, or raise --episodes",
        ),
    ],
)
def test_what_cannot_be_played(arguments, message, policies, capsys):
    tiny.call(play, f"--run={policies[0]}", "--episodes=1", *arguments, status=1)
    assert message in capsys.readouterr().err


def test_a_policy_without_an_environment_is_asked_for_one(tmp_path, capsys):
    folder = save_policy(tiny.make_policy(), tmp_path / "policy")
    tiny.call(play, f"--run={folder}", status=1)
    assert "the policy knows no environment: pass --env, the task to play in" in capsys.readouterr().err
    tiny.call(play, f"--run={folder}", f"--env={tiny.ENV}", "--episodes=1")


def test_a_machine_that_cannot_render_says_what_to_install(policies, tmp_path, monkeypatch):
    def broken(**settings):
        env = FAMILY.make_env(TASK)
        monkeypatch.setattr(type(env), "render", lambda self: 1 / 0)
        return env

    ((episode,),) = playing.play(FAMILY, TASK, [load_policy(policies[0])], 0, 1)
    with pytest.raises(ValueError, match=r"Hopper-v5 can't be rendered here \(division by zero\): install .*libegl1"):
        film.write(tmp_path / "film.mp4", broken, [film.Panel("policy", [episode])])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "goes_along"), [("mujoco/walker2d", True), ("pointmaze/umaze", False)])
def test_the_camera_goes_along_with_a_robot_that_walks(name, goes_along):
    env = envs.family(name).make_env(envs.get_task(name), render_mode="rgb_array")
    film._prepare(env)
    (renderer,) = film._renderers(env)
    assert (renderer.camera_id >= 0) == goes_along
    assert (renderer.width, renderer.height) == (film.SIZE, film.SIZE)
    env.close()


def test_a_demo_ends_well_without_a_film(tmp_path):
    (reason,) = demo._missing_film(tmp_path / "demo.mp4", tmp_path, dict(os.environ)).splitlines()
    run = tmp_path / "o2td3"
    assert reason == f"{run} holds no run: {run / 'config.json'} does not exist; there is no such folder"


@pytest.mark.parametrize(
    ("variables", "libraries", "expected"),
    [
        ({}, ["libEGL.so.1", "libOSMesa.so.8"], "egl"),
        ({}, ["libOSMesa.so.8"], "osmesa"),
        ({}, [], None),
        ({"DISPLAY": ":0"}, ["libEGL.so.1"], None),
        ({"MUJOCO_GL": "glfw"}, ["libEGL.so.1"], "glfw"),
    ],
)
def test_a_renderer_without_a_screen_is_chosen(variables, libraries, expected, monkeypatch):
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def load(name):
        if name not in libraries:
            raise OSError(name)

    monkeypatch.setattr(film.ctypes, "CDLL", load)
    monkeypatch.setattr(film.sys, "platform", "linux")
    film.choose_renderer()
    assert os.environ.get("MUJOCO_GL") == expected


def test_the_table_by_hand():
    actions = np.zeros((2, 1))
    episodes = [playing.Episode(0, actions, np.array([1.0, 2.0])), playing.Episode(1, actions[:1], np.array([5.0]))]
    task = dataclasses.replace(TASK, random_score=0.0, expert_score=10.0)
    header, row = play.table(task, ["a"], [episodes]).splitlines()[1:]
    assert header.split() == ["policy", "return", "±", "score", "±", "length"]
    assert row.split() == ["a", "4.0", "1.0", "40.0", "10.0", "2"]
    row = play.table(dataclasses.replace(task, expert_score=100.0), ["a"], [episodes]).splitlines()[2]
    assert row.split() == ["a", "4.0", "1.0", "2"]
