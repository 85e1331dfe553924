"""States of a run to disk and back, and who may write into a folder. The one module that knows orbax.

Its `CheckpointManager` is filed as legacy in favour of an API that is still experimental: a move touches this file.
"""

import contextlib
import fcntl
import functools
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from o2o_jax import registry
from o2o_jax.reading import NULL, Record, brief, local, quiet, read_json
from o2o_jax.runtime import files
from o2o_jax.runtime.comparison import MOST, differences, in_words, plain

_CONFIG = "config.json"
_ADDED = {
    "first_seed": 0,
    "clip_actions": False,
    "eval_every": 0,
    "eval_sampled": False,
}  # settings that runs of older versions do not name -> what those runs had
PATTERN = frozenset("*?[]")  # orbax looks for its own files by pattern, and its folder is part of it
WAY_OUT = "choose another --out, or resume it with --resume"
WAY_OUT_ANEW = "start over with another --out"
SAME_SETTINGS = "Use the same settings, or another --out"
# what a run's settings are, as far as its command has them
KINDS = {
    "script": str,
    "algorithm": str,
    "config": dict,
    "env": str,
    "task": (dict, NULL),
    "spec": dict,
    "dataset": (str, NULL),
    "clip_actions": bool,
    "seeds": int,
    "first_seed": int,
    "policy": (str, NULL),
    "schedule": str,
    "clone": (dict, NULL),
    "reconstruction": (str, NULL),
    "source": dict,
}
META = {"step": int, "config": dict, "layout": dict, "notes": dict}  # what a checkpoint says of itself


def has_checkpoint(directory: str | Path) -> bool:
    """Returns whether a folder holds a finished checkpoint. Impure: reads the disk."""
    # one that is being written has a longer name until it is whole
    return Path(directory).is_dir() and any(child.name.isdigit() for child in Path(directory).iterdir())


class Checkpoints:
    """Checkpoints of one run in one folder; a context manager; impure.

    A checkpoint is one folder `<directory>/<step>` and appears at once or not at all, so a killed save leaves the one
    before. It holds the state and the run's configuration. `save` returns when all is on disk, which
    makes it safe to donate the state's buffers next.

    Args:
      directory: folder for the checkpoints alone; made by the first `save`.
      config: JSON-like settings of the run. A checkpoint written with other settings is not restored.
      keep: how many of the latest checkpoints stay.
      advice: what to do where one was written with other settings, for the message.
    """

    def __init__(
        self, directory: str | os.PathLike, config: Mapping[str, Any], keep: int = 1, advice: str = SAME_SETTINGS
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self._directory = Path(directory).absolute()
        self._config = plain(config)
        self._keep = keep
        self._advice = advice

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the folder."""
        if "_manager" in self.__dict__:
            self._manager.close()
            del self._manager

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint; None where there is none."""
        return self._manager.latest_step() if self._directory.is_dir() else None

    def all_steps(self) -> list[int]:
        """Steps of all checkpoints that stayed, the oldest first."""
        return sorted(self._manager.all_steps()) if self._directory.is_dir() else []

    def save(self, step: int, state: Any, notes: Mapping[str, Any] | None = None) -> None:
        """Writes a checkpoint, reads back that it is whole, then deletes those beyond the latest `keep`.

        Args:
          step: counter of the run, above that of every checkpoint in the folder.
          state: a pytree of arrays, typed PRNG keys, numpy arrays and Python numbers; no array may be empty.
          notes: JSON-like, to be kept beside it.

        Raises:
          ValueError: the folder has this step or a later one.
          OSError: what is on the disk afterwards is not whole; the checkpoints before it are left alone.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        latest = self.latest_step()
        meta: dict[str, Any] = {
            "step": step,
            "config": self._config,
            "layout": _layout(state),
            "notes": dict(notes or {}),
        }
        items = ocp.args.Composite(state=ocp.args.StandardSave(_named(state)), meta=ocp.args.JsonSave(meta))
        path = self._directory / str(step)
        # orbax returns False and writes nothing where a checkpoint is not newer than the latest.
        way_out = "Look after the disk, then " + (
            f"resume from the one of step {latest}" if latest is not None else "start over, since none is before it"
        )
        if (latest is not None and step <= latest) or not self._write(step, items, way_out):
            raise ValueError(f"{self._directory} has a checkpoint of step {latest}, so step {step} was not saved")
        missing = meta["layout"].keys() - _stored(path)
        if missing:
            raise OSError(
                f"the checkpoint {path} was not written whole: {len(missing)} of its {len(meta['layout'])} arrays are "
                f"missing. {way_out}"
            )
        for old in self.all_steps()[: -self._keep]:
            self._manager.delete(old)

    def notes(self) -> dict[str, Any]:
        """Returns what was noted beside the newest checkpoint, which is there; nothing of older versions."""
        return self._meta(max(self.all_steps())).at("notes", dict, {})

    def restore(self, template: Any, step: int | None = None, free: str = "") -> Any:
        """Reads a checkpoint.

        Args:
          template: a pytree of the saved structure, shapes and dtypes, with arrays or `jax.ShapeDtypeStruct` (as
            `jax.eval_shape` gives). Arrays come back placed as the template's are; without a placement, on the first
            device.
          step: which one; None for the latest.
          free: field of the template whose shapes only the checkpoint knows: nested dictionaries, which come back as
            numpy arrays, or None where none were saved. The template's is None.

        Returns:
          The state that was saved.

        Raises:
          FileNotFoundError: there is no checkpoint, or not that one.
          ValueError: it was written with other settings, has another structure, or cannot be read.
        """
        steps = self.all_steps()
        if not steps or (step is not None and step not in steps):
            wanted = "" if step is None else f" of step {step}"
            raise FileNotFoundError(f"no checkpoint{wanted} in {self._directory}: run the command that writes it first")
        step = max(steps) if step is None else step
        path = self._directory / str(step)
        meta = self._meta(step)
        compare_configs(meta["config"], self._config, f"the checkpoint {path}", self._advice)
        if free:
            with meta.blamed():
                template = template.replace(**{free: _arrays(meta["layout"], free)})
        _compare_layouts(meta["layout"], _layout(template), path)
        found = self._read(step, state=ocp.args.StandardRestore(_named(_placed(template)))).state
        return jax.tree.structure(template).unflatten(found[name] for name in _layout(template))

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(create=False, enable_async_checkpointing=False)
        with _silent():
            return ocp.CheckpointManager(self._directory, options=options)

    def _write(self, step: int, items: Any, way_out: str) -> bool:
        try:
            with _silent():
                return self._manager.save(step, args=items)
        except Exception as error:  # whatever the storage layers raise where a disk is full
            reason = str(error).rpartition(": ")[2]  # before it come names of files within the checkpoint
            path = self._directory / str(step)
            raise OSError(f"the checkpoint {path} could not be written ({brief(reason, 60)}). {way_out}") from error

    def _read(self, step: int, **items: Any) -> Any:
        try:
            with _silent():
                return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # whatever the storage layers raise on damaged files
            raise self._record(step, {}).refusal(error) from error

    def _meta(self, step: int) -> Record:
        """A checkpoint's own account of itself: settings and layout."""
        found = self._read(step, meta=ocp.args.JsonRestore()).meta
        meta = self._record(step, found if isinstance(found, dict) else {}).check(META)
        if meta.get("step", step) != step:
            raise meta.refusal(f"it is the one of step {meta['step']}, under another name")
        for path, description in meta["layout"].items():
            if not isinstance(description, str):
                raise meta.refusal(f"{path} is {description!r}")
        return meta

    def _record(self, step: int, values: Mapping[str, Any]) -> Record:
        before = max((other for other in self.all_steps() if other < step), default=None)
        aside = "" if before is None else f"move it aside to resume from the one of step {before}, or "
        return Record(values, f"the checkpoint {self._directory / str(step)}", f"{aside}{WAY_OUT_ANEW}")


def claim(
    directory: str | os.PathLike,
    config: Mapping[str, Any],
    resume: bool = False,
    way_out: str = WAY_OUT,
) -> Path:
    """Makes a folder the output of one run, or finds the run to resume; impure. Nothing is ever overwritten.

    Args:
      directory: a folder that does not exist or is empty; with `resume` the folder of the run, if there is one.
      config: JSON-like settings, kept in `<directory>/config.json`.
      resume: continue the run in `directory`; if there is none, start it.
      way_out: what to do where the folder holds a run and `resume` is off.

    Returns:
      The folder.

    Raises:
      FileExistsError: the folder holds something and `resume` is off.
      ValueError: the run in the folder has other settings, or the path can't be used.
      OSError: the folder can't be made or written, or is a link to nothing.
    """
    folder = check_claim(directory, config, resume, way_out)
    if resume and (folder / _CONFIG).exists():
        return folder
    files.make_folder(folder)
    with locked(folder):
        check_claim(directory, config, resume, way_out)  # again: another process may have been faster
        if not (folder / _CONFIG).exists():
            files.replace(folder / _CONFIG, json.dumps(plain(config), indent=2) + "\n")
    return folder


def check_claim(
    directory: str | os.PathLike,
    config: Mapping[str, Any],
    resume: bool = False,
    way_out: str = WAY_OUT,
) -> Path:
    """Checks whether `claim` would have a folder, and writes nothing.

    Args, Returns and Raises: as `claim`.
    """
    folder = Path(local(directory))
    if set(str(folder.absolute())) & PATTERN:
        raise ValueError(
            f"{folder} has one of {' '.join(sorted(PATTERN))} in its path, under which orbax doesn't finish "
            "checkpoints: choose another --out"
        )
    if folder.is_symlink() and not folder.exists():
        raise FileNotFoundError(f"{folder} is a link to nothing: make {os.readlink(folder)}, or choose another --out")
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if above.is_dir() and not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} can't be written: {above} is not writable, choose another --out")
    if resume and (folder / _CONFIG).exists():
        compare_configs(read_config(folder), plain(config), f"the run in {folder}")
        return folder
    if (folder / _CONFIG).exists():
        raise FileExistsError(f"{folder} already holds a run: {way_out}")
    if resume and any((folder / name).exists() for name in ("provenance.jsonl", "checkpoints")):
        raise FileExistsError(f"{folder} holds a run that has lost its {_CONFIG}: bring it back, or {WAY_OUT_ANEW}")
    if folder.exists() and (not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())):
        raise FileExistsError(f"{folder} is not an empty folder: choose another --out")
    return folder


def check_there(directory: str | os.PathLike) -> None:
    """Refuses to go on with a run whose folder somebody has emptied: it could not be resumed.

    Args:
      directory: that `claim` has made the run's.

    Raises:
      FileNotFoundError: it has lost its config.json.
    """
    if not (Path(directory) / _CONFIG).is_file():
        raise FileNotFoundError(
            f"{directory} has lost its {_CONFIG} while the run was under way, and could not be resumed: {WAY_OUT_ANEW}"
        )


@contextlib.contextmanager
def locked(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes from the output of a run, for as long as the context lasts; impure.

    The system releases the lock where a process dies, so that a killed run needs nothing but a restart.

    Args:
      directory: of the run, which exists.

    Raises:
      BlockingIOError: a live process works on the run.
    """
    folder = Path(directory)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BlockingIOError(
                f"{folder} belongs to a live run ({file.read().strip() or 'unknown'}): wait until it ends or stop it, "
                "or choose another --out"
            ) from None
        except OSError as error:  # some network file systems have no locks
            print(f"note: {folder} can't be locked ({error.strerror}): start no second run in it")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def read_config(directory: str | os.PathLike) -> Record:
    """Settings of the run in a folder, as `claim` wrote them.

    Raises:
      FileNotFoundError: the folder holds no run.
      ValueError: its config.json is damaged, or says of itself what no run does.
    """
    path = Path(local(directory)) / _CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{directory} holds no run: {path} does not exist{_hint(Path(directory))}")
    settings = read_json(path, "bring it back, or start the run again in another folder", KINDS)
    if not (settings.get("seeds", 1) >= 1 and settings.get("first_seed", 0) >= 0):
        raise settings.refusal(f"it has {settings['seeds']} seeds from {settings.get('first_seed', 0)} on")
    return settings


def _hint(directory: Path) -> str:
    """Says, where a path holds no run, which one may be meant."""
    above = next((path for path in directory.parents if (path / _CONFIG).is_file()), None)
    if above is not None:
        return f"; pass the run's own folder, {above}"
    if not directory.exists():
        return f"; there is no such folder{'' if directory.is_absolute() else f' in {Path.cwd()}'}"
    if directory.is_file():
        return "; pass the --out of a run, and what another library trained by o2o_jax.clone (docs/policies.md)"
    below = [path.parent for path in sorted(directory.glob(f"*/{_CONFIG}"))] if directory.is_dir() else []
    return f"; pass one of the runs in it: {registry.listed(below, MOST)}" if below else ""


def compare_configs(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    owner: str,
    advice: str = SAME_SETTINGS,
) -> None:
    """Makes sure that two settings, JSON-like and nested, are the same.

    Args:
      saved: those of `owner`. Of an older version they have what it left unsaid.
      current: those of now.
      owner: how the message names what has the saved ones.
      advice: what the message says to do.

    Raises:
      ValueError: they differ; the message names every setting that does.
    """
    found = differences(_ADDED | dict(saved), _ADDED | dict(current))
    if found:
        raise ValueError(f"{owner} has other settings: {in_words(found, ' there', ' now')}. {advice}")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps what the storage layers say of their work to themselves: what goes wrong there is raised.

    Once it is, their threads may go on failing, for want of the event loop of that work, and results that nobody
    fetched may be reported. This stays unsaid later too.
    """
    say, asynchronous = sys.unraisablehook, logging.getLogger("asyncio")

    def say_others(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            say(found)

    sys.unraisablehook = say_others
    asynchronous.addFilter(_is_of_others)
    with quiet("absl", "asyncio"):
        yield
    sys.unraisablehook = say
    asynchronous.removeFilter(_is_of_others)


def _is_of_others(record: logging.LogRecord) -> bool:
    """Returns whether what asyncio logs is of other work than that of the storage layers."""
    text = logging.Formatter().format(record).lower()
    return not any(name in text for name in ("orbax", "tensorstore", "ocdbt"))


def _stored(path: Path) -> set[str]:
    """Paths of the arrays that a checkpoint really holds, as `_layout` names them."""
    base = {"driver": "file", "path": f"{path / 'state'}/"}
    keys = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result().list().result()
    return {key.decode().removesuffix("/.zarray") for key in keys if key.endswith(b"/.zarray")}


def _named(tree: Any) -> dict[str, Any]:
    """Path -> every leaf, in the order of the tree.

    This is what is stored: a field without leaves, which another version may lack or have, leaves no trace.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _layout(tree: Any) -> dict[str, str]:
    """Path -> "dtype[shape]" of every leaf, to name what differs: orbax casts other dtypes without a word."""
    return {path: _describe(leaf) for path, leaf in _named(tree).items()}


def _describe(leaf: Any) -> str:
    if hasattr(leaf, "dtype"):
        return f"{leaf.dtype}{list(leaf.shape)}"
    return type(leaf).__name__


def _arrays(layout: dict[str, str], field: str) -> dict[str, Any] | None:
    """Nested dictionaries of numpy arrays as a layout describes them below a field; None where it has no such field."""
    found: dict[str, Any] = {}
    for path, description in layout.items():
        top, *names = path.split(".")
        if top == field:
            dtype, _, shape = description.removesuffix("]").partition("[")
            below = functools.reduce(lambda branch, name: branch.setdefault(name, {}), names[:-1], found)
            below[names[-1]] = np.zeros([int(size) for size in shape.split(",") if size], dtype)
    return found or None


def _compare_layouts(saved: dict[str, str], template: dict[str, str], path: Path) -> None:
    names = sorted(saved.keys() | template.keys())
    pairs = {name: (saved.get(name, "absent"), template.get(name, "absent")) for name in names}
    found = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if found:
        raise ValueError(
            f"the checkpoint {path} does not fit this state: {in_words(found, ' there', ' now')}. "
            "Use the version and settings that wrote it, or start over with another --out"
        )


def _placed(template: Any) -> Any:
    """Gives every array of a template a device: without one orbax asks for those of the machine that saved."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def place(leaf: Any) -> Any:
        if isinstance(leaf, (np.ndarray, np.generic, int, float)):
            return leaf
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = jax.eval_shape(jax.random.key_data, leaf)  # keys are stored as their data
            return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=getattr(leaf, "sharding", None) or here)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or here)

    return jax.tree.map(place, template)
