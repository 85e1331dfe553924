"""Readers of datasets: Minari, local or remote, D4RL's HDF5 files, npz files. Impure: reads disk and network."""

import contextlib
import os
import pathlib
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from o2o_jax import registry
from o2o_jax.data.dataset import Dataset, check_columns, to_float32, validate
from o2o_jax.interfaces import Task
from o2o_jax.reading import ANYTHING, NULL, Kinds, Record, brief, local, parse_json, quiet, read_json, read_npz
from o2o_jax.types import Transition

MINARI_ID = re.compile(r"[\w-]+(/[\w-]+)*-v\d+")
UNVERSIONED_ID = re.compile(r"[\w-]+(/[\w-]+)+")
MINARI_FILE = "main_data.hdf5"
HDF5_SUFFIXES = (".hdf5", ".h5")
# what flat files call the arguments of `Dataset.from_arrays`, in their order
D4RL_KEYS = ("observations", "actions", "rewards", "terminals", "timeouts")
FLAGS = ("terminations", "truncations")
NPZ_KEYS = ("observations", "actions", "rewards", "terminations", "truncations")
COPY = "download it where there is a network (minari download <id>) and copy its folder there"
MAKE_AGAIN = "download or make the dataset again"
# what Minari's metadata.json says, as far as this reads it; two of these are JSON in a text
METADATA = {
    "data_format": str,
    "dataset_id": str,
    "total_episodes": int,
    "env_spec": (str, NULL),
    "action_space": str,
}
MADE_HERE = "o2o/"  # namespace of what experiments.dataset makes; no remote has it


class Episode(NamedTuple):
    """One recorded episode of T steps, as Minari stores it.

    Attributes:
      observations: [T + 1, O], the last one included; of a goal environment a dictionary of such arrays.
      actions: [T, A].
      rewards: [T].
      terminations: [T] float32, 0 or 1.
      truncations: [T] float32, 0 or 1.
    """

    observations: Any
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray


class Origin(NamedTuple):
    """A dataset's own account of where it comes from; empty for what it doesn't say.

    Attributes:
      dataset_id: its Minari id.
      env_id: gymnasium id of the environment that it was recorded in.
      env_spec: gymnasium's specification of that, as JSON: `kwargs`, `max_episode_steps`, `additional_wrappers`.
    """

    dataset_id: str = ""
    env_id: str = ""
    env_spec: Mapping[str, Any] = types.MappingProxyType({})


Convert = Callable[[Episode, int], Episode | None]  # (as recorded, its number) -> as the task has it; None: left out


def load(source: str, task: Task | None = None, convert: Convert | None = None, clip_actions: bool = False) -> Dataset:
    """Loads a dataset and checks it against the task's environment.

    Args:
      source: an npz file of `Dataset.from_arrays`' arguments, a D4RL HDF5 file, the folder of a Minari dataset, or a
        Minari id, local or remote; without `-v<n>` it means the newest version (`newest`).
      task: what the data has to fit; None for data alone, without an environment.
      convert: applied to every episode of a Minari dataset: how a family flattens, cuts or relabels what others
        recorded.
      clip_actions: whether actions beyond their bounds are clipped to [-1, 1], rather than refused.

    Returns:
      The dataset: transitions [N], actions in [-1, 1].

    Raises:
      FileNotFoundError: nothing is there; the message says how to make the data.
      ValueError: damaged or unsuitable data, see `load_npz`, `load_minari`, `load_d4rl_hdf5` and `validate`; or data
        of an environment with other dynamics than the task's.
    """
    path = pathlib.Path(local(source)).expanduser()
    suffix = path.suffix.lower()
    if suffix == ".npz":
        dataset = load_npz(path, clip_actions)
    elif suffix in HDF5_SUFFIXES and path.name != MINARI_FILE:
        dataset = load_d4rl_hdf5(path, task.action_bounds if task else None, clip_actions)
    elif _is_minari(source):
        dataset = load_minari(source, task, convert, clip_actions)
    elif path.is_file():
        raise ValueError(
            f"{path} is no dataset that can be read: pass an .npz file, D4RL's .hdf5 or .h5, or the folder of a Minari "
            "dataset; np.savez writes arrays of your own (docs/data.md)"
        )
    else:
        raise FileNotFoundError(
            f"{source!r} is neither a file, nor a folder, nor a Minari id such as mujoco/hopper/medium-v0"
        )
    # gymnasium records an id without the module that registers it
    if task and dataset.env_id not in ("", task.env_id, task.env_id.rpartition(":")[2], *task.same_dynamics):
        raise ValueError(
            f"{dataset.name} was recorded in {dataset.env_id}, but {task.name} runs {task.env_id}, which has other "
            f"dynamics: choose the --env that it was recorded in, such as gym/{dataset.env_id}"
        )
    return validate(dataset, task.spec if task else dataset.spec)


def origin(source: str) -> Origin:
    """Returns where a dataset comes from, which only Minari's say.

    Raises:
      FileNotFoundError, ValueError: see `load_minari`.
    """
    if not _is_minari(source):
        return Origin()
    metadata = _read_metadata(_locate(source, None)[1] / "metadata.json")
    spec = _env_spec(metadata)
    return Origin(metadata.get("dataset_id", ""), spec.get("id", ""), spec)


def unversioned(dataset_id: str) -> str:
    """Returns a Minari or gymnasium id without its `-v<n>`."""
    return re.sub(r"-v\d+$", "", dataset_id)


def newest(dataset_id: str) -> str:
    """Returns the version of a Minari dataset to load: that very one if it is here, else the newest one.

    Versions that are here go before those that Minari's remote offers, older ones than the given don't count, and an
    id without a version takes any. Where no other is found, it is the given id. What is made here goes by its version.

    Raises:
      FileNotFoundError: none is here, and the remote can't be asked.
    """
    folder = minari_folder(unversioned(dataset_id))
    prefix = unversioned(dataset_id).removesuffix(folder.name)
    here = [f"{prefix}{path.name}" for path in folder.parent.glob(f"{folder.name}-v*")]
    made_here = dataset_id.startswith(MADE_HERE)
    if dataset_id in here or (made_here and MINARI_ID.fullmatch(dataset_id)):
        return dataset_id
    found = _latest(here, dataset_id)
    if found is None and not made_here:
        with _network(f"no version of {unversioned(dataset_id)} is at {folder.parent} or could be looked up", COPY):
            import minari

            offered = minari.list_remote_datasets(prefix=unversioned(dataset_id), compatible_minari_version=True)
        found = _latest(offered, dataset_id)
    return found or dataset_id


def minari_folder(dataset_id: str) -> pathlib.Path:
    """Returns Minari's folder for a dataset: under MINARI_DATASETS_PATH, by default ~/.minari/datasets."""
    root = os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets"
    return pathlib.Path(root).expanduser() / dataset_id


def load_minari(
    source: str, task: Task | None = None, convert: Convert | None = None, clip_actions: bool = False
) -> Dataset:
    """Reads all episodes of a Minari dataset in one pass over its file; an id that isn't here is downloaded.

    Every row is kept with its true next observation, which Minari stores at time limits too. Only `terminations`
    become `terminated`. An episode may end with neither flag (its recording stopped), unless it has a single row.
    Actions are mapped to [-1, 1] from the bounds that the dataset says they have.

    Args:
      source: Minari id, or the folder or `main_data.hdf5` of a dataset.
      task: what error messages put into the command that makes a dataset here.
      convert: applied to every episode.
      clip_actions: as of `load`.

    Returns:
      Transitions [N] of all episodes in their order; not yet checked by `validate`.

    Raises:
      FileNotFoundError: not here, and the network doesn't give it.
      ValueError: damaged or incomplete file, an empty episode, a one-step episode without any end, dictionary
        observations that nothing converts, actions that aren't continuous.
    """
    name, path = _locate(source, task)
    metadata = _read_metadata(path / "metadata.json")
    low, high = _action_bounds(metadata, name)
    with _open(path / MINARI_FILE) as file:
        numbers = sorted(int(key.removeprefix("episode_")) for key in file if re.fullmatch(r"episode_\d+", key))
        if len(numbers) != metadata.get("total_episodes", len(numbers)):
            raise ValueError(
                f"{name} holds {len(numbers)} episodes where its metadata counts {metadata['total_episodes']}: its "
                "writing was interrupted; make or download it again"
            )
        if not numbers:
            raise ValueError(f"{name} is empty: it has no episodes")
        episodes = []
        for number in numbers:
            group = file[f"episode_{number}"]
            if not hasattr(group, "keys"):
                raise ValueError(f"episode {number} of {name} is no group of arrays: {MAKE_AGAIN}")
            episode = _read_episode(group, f"episode {number} of {name}", convert is not None)
            converted = convert(episode, number) if convert else episode
            if converted is not None:
                episodes.append(converted)
    if not episodes:
        raise ValueError(f"{name} has no episode that fits {task.name if task else 'what converts them'}")
    rows = [(e.observations[:-1], e.actions, e.rewards, e.observations[1:], e.terminations) for e in episodes]
    columns: list[Any] = [np.concatenate(column) for column in zip(*rows, strict=True)]
    for bound in (low, high):
        if bound.shape not in ((), columns[1].shape[1:]):
            raise metadata.refusal(f"action_space has {bound.size} bounds for {columns[1].shape[1]} actions")
    if np.isfinite(low).all() and np.isfinite(high).all() and not (np.all(low == -1.0) and np.all(high == 1.0)):
        columns[1] = scaled(columns[1], low, high)
    if clip_actions:
        columns[1] = np.clip(columns[1], -1.0, 1.0)
    ends = np.cumsum([len(episode.rewards) for episode in episodes])
    return Dataset(Transition(*columns), ends, name=name, env_id=_env_spec(metadata).get("id", ""))


def load_d4rl_hdf5(
    path: str | pathlib.Path, bounds: tuple[Any, Any] | None = None, clip_actions: bool = False
) -> Dataset:
    """Reads a flat file of D4RL: observations, actions, rewards, terminals, timeouts and perhaps next_observations.

    Each has a row per step, as the arguments [N, ...] of `Dataset.from_arrays`.

    Episodes end at `terminals` and `timeouts`, never after a fixed count. Rows without a next observation are dropped
    as in `Dataset.from_arrays`; D4RL's own `qlearning_dataset` drops timeouts and the last row either way.

    Args:
      path: of the file.
      bounds: lowest and highest actions [A] of the environment, in whose units D4RL has them; None for -1 and 1.
      clip_actions: as of `load`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: damaged file, missing keys, and what `Dataset.from_arrays` refuses.
    """
    with _open(pathlib.Path(path)) as file:
        return _from_columns(file, D4RL_KEYS, str(path), bounds, clip_actions)


def load_npz(path: str | pathlib.Path, clip_actions: bool = False) -> Dataset:
    """Reads one's own arrays [N, ...]: a file of `np.savez`, with the names of `Dataset.from_arrays`' arguments.

    Args:
      path: of the file.
      clip_actions: as of `load`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: damaged file, missing arrays, and what `Dataset.from_arrays` refuses.
    """
    path = pathlib.Path(path)
    _check_there(path)
    return _from_columns(read_npz(path, "save it again"), NPZ_KEYS, str(path), None, clip_actions)


def _from_columns(
    file: Any, keys: Sequence[str], name: str, bounds: tuple[Any, Any] | None, clip_actions: bool
) -> Dataset:
    """A dataset of the arrays that a file holds under these names, in the order of `Dataset.from_arrays`.

    Actions are within `bounds`; None for -1 and 1.
    """
    optional = [key for key in ("next_observations",) if key in file]
    way_out = f"call its arrays, with a row per step, {', '.join(keys)}"
    columns: list[Any] = [_read_array(file, key, name, way_out) for key in (*keys, *optional)]
    if bounds is not None and np.shape(columns[1])[1:] == np.shape(bounds[0]) and columns[1].dtype.kind == "f":
        columns[1] = scaled(columns[1], *(np.asarray(bound) for bound in bounds))
    if clip_actions and columns[1].dtype.kind == "f":
        columns[1] = np.clip(columns[1], -1.0, 1.0)
    return Dataset.from_arrays(*columns, name=name)


def _is_minari(source: str) -> bool:
    path = pathlib.Path(source).expanduser()
    named = MINARI_ID.fullmatch(source) or (UNVERSIONED_ID.fullmatch(source) and not path.exists())
    return path.is_dir() or path.name == MINARI_FILE or bool(named)


def _locate(source: str, task: Task | None) -> tuple[str, pathlib.Path]:
    """The name of a Minari dataset, with the version that is meant, and the folder of its files, downloaded if need be.

    Raises:
      FileNotFoundError: see `load_minari`.
    """
    path = pathlib.Path(source).expanduser()
    if path.name == MINARI_FILE:
        path = path.parent
    elif not path.is_dir():
        source = source if MINARI_ID.fullmatch(source) else newest(source)
        path = minari_folder(source)
        if not path.exists():
            _download(source, task)
    return source, path / "data" if (path / "data").is_dir() else path


def _read_episode(episode: Any, name: str, dictionaries: bool = False) -> Episode:
    """One recorded episode in float32, its columns checked to be of one length."""
    columns = {key: _read_array(episode, key, name) for key in ("actions", "rewards", *FLAGS)}
    check_columns(columns, name)
    actions, rewards, terminations, truncations = map(to_float32, columns.values())
    group = episode.get("observations")
    if dictionaries and hasattr(group, "keys"):
        observations: Any = {key: _read_observations(group, key, f"observations of {name}") for key in group}
    else:
        observations = _read_observations(episode, "observations", name)
    length = len(rewards)
    if length == 0:
        raise ValueError(f"{name} is empty: remove it")
    lengths = {"actions": len(actions), "terminations": len(terminations), "truncations": len(truncations)}
    wrong = {key: value for key, value in lengths.items() if value != length}
    for key, array in observations.items() if isinstance(observations, dict) else [("observations", observations)]:
        if len(array) != length + 1:
            wrong[key] = len(array)
    if wrong:
        raise ValueError(
            f"{name} has {length} rewards but {wrong}: expected {length}, and one more of observations, the last one"
        )
    for key, flags in (("terminations", terminations), ("truncations", truncations)):
        if not np.isin(flags, (0.0, 1.0)).all():
            raise ValueError(f"{name} has {key} other than 0 and 1, such as {flags[~np.isin(flags, (0.0, 1.0))][0]:g}")
    if length == 1 and not (terminations[0] or truncations[0]):
        raise ValueError(f"{name} has one step that neither terminates nor truncates it: remove it")
    return Episode(observations, actions, rewards, terminations, truncations)


def _read_observations(group: Any, key: str, name: str) -> np.ndarray:
    """Vectors [T + 1, O] of an HDF5 group, in float32."""
    array = _read_array(group, key, name)
    check_columns({"observations": array}, name)
    return to_float32(array)


def _read_array(group: Any, key: str, name: str, way_out: str = MAKE_AGAIN) -> np.ndarray:
    """An array of an HDF5 group or a dictionary, as it is stored; `way_out` says what to do where it isn't there."""
    node = group.get(key)
    if node is None and key in group:
        raise ValueError(f"{name}: {key} is a link that leads nowhere: bring what it names back, or {MAKE_AGAIN}")
    if node is None:
        has = f"it has {brief(', '.join(sorted(group)))}" if len(group) else "it is empty"
        if key in (D4RL_KEYS[-1], NPZ_KEYS[-1]):
            way_out += "; set it False in every row if no time limit cut an episode"
        raise ValueError(f"{name} lacks {key!r}; {has}: {way_out}")
    if hasattr(node, "keys"):
        raise ValueError(
            f"{name}: {key} are a dictionary ({brief(', '.join(sorted(node)))}); only flat arrays can be read: "
            "join them to one of [rows, numbers]"
        )
    try:
        return np.asarray(node[()])
    except Exception as error:  # of h5py, by which part is damaged
        raise ValueError(f"{name}: {key} can't be read ({brief(error)}): {MAKE_AGAIN}") from error


def _action_bounds(metadata: Record, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [A], or [] for all of them, that a Minari dataset says its actions have."""
    space = _within(metadata, "action_space")
    kind = space.get("type", "Box")
    if kind != "Box":
        raise ValueError(f"{name} has {brief(kind)} actions; only continuous ones, of a Box, are supported")
    with space.blamed():
        low, high = (np.asarray(space.get(key, bound), np.float64) for key, bound in (("low", -1.0), ("high", 1.0)))
        np.broadcast_shapes(low.shape, high.shape)
    if np.isfinite(low).all() and np.isfinite(high).all() and not has_width(low, high):
        raise ValueError(
            f"{name} says that its actions lie between {brief(low.tolist(), 60)} and {brief(high.tolist(), 60)}, which "
            "no number scales to [-1, 1]: write the bounds that are meant into the action_space of its metadata.json"
        )
    return low, high


def scaled(actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns actions [N, A] between bounds [A] as actions in [-1, 1]."""
    return to_float32(2.0 * (actions - low) / (high - low) - 1.0)


def has_width(low: np.ndarray, high: np.ndarray) -> bool:
    """Returns whether float32 numbers between bounds [A] can be scaled to [-1, 1]."""
    with np.errstate(over="ignore"):
        return bool(
            np.all(low < high) and np.isfinite(np.asarray(high, np.float32) - np.asarray(low, np.float32)).all()
        )


def _check_there(path: pathlib.Path) -> None:
    """Refuses a path that leads to no file; of a relative one the message says where it was looked for."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}" + ("" if path.is_absolute() else f" in {pathlib.Path.cwd()}"))


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[Any]:
    """Opens an HDF5 file to read; damage shows as one ValueError, whenever it is met."""
    import h5py

    _check_there(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # h5py raises any of these, by which part is damaged
        raise ValueError(f"{path} is damaged or no HDF5 file ({brief(error)}): download or make it again") from error


def _read_metadata(path: pathlib.Path) -> Record:
    if not path.is_file():
        files = sorted(one.name for one in path.parent.glob("*") if one.suffix.lower() in (".npz", *HDF5_SUFFIXES))
        if files and MINARI_FILE not in files:
            raise FileNotFoundError(
                f"{path.parent} is no Minari dataset, but holds {registry.listed(files)}: name one of these files, or "
                "join them into one"
            )
        if not (path.parent / MINARI_FILE).is_file():
            raise FileNotFoundError(
                f"{path.parent} is no Minari dataset, nor any other: pass an .npz file, D4RL's .hdf5 or .h5, or the "
                f"folder of a Minari dataset, which has {path.name}"
            )
        raise FileNotFoundError(f"no file {path}: {path.parent} is not a complete Minari dataset; make it again")
    metadata = read_json(path, MAKE_AGAIN, METADATA)
    if metadata.get("data_format", "hdf5") != "hdf5":
        stored = brief(repr(metadata["data_format"]))
        raise ValueError(f"{path.parent} is stored as {stored}; only Minari's hdf5 can be read")
    return metadata


def _within(metadata: Record, key: str, kinds: Kinds = ANYTHING) -> Record:
    """The JSON object in a text of Minari's metadata; empty where there is none."""
    return parse_json(metadata.get(key) or "{}", f"{key} of {metadata.name}", MAKE_AGAIN, kinds)


def _env_spec(metadata: Record) -> Record:
    """Gymnasium's specification of the environment that was recorded; empty where there is none."""
    kinds = {"id": str, "kwargs": (dict, NULL), "max_episode_steps": (int, NULL), "additional_wrappers": (list, NULL)}
    spec = _within(metadata, "env_spec", kinds)
    if spec and not spec["id"]:
        raise spec.refusal("id is empty")
    for wrapper in spec.get("additional_wrappers") or []:
        if not isinstance(wrapper, dict) or not isinstance(wrapper.get("name"), str):
            raise spec.refusal(f"additional_wrappers has {brief(wrapper)}")
    return spec


def _latest(dataset_ids: Iterable[str], at_least: str) -> str | None:
    """The newest of those ids that are versions of a dataset, the given or later ones."""
    versions = [i for i in dataset_ids if unversioned(i) == unversioned(at_least) and _version(i) >= _version(at_least)]
    return max(versions, key=_version, default=None)


def _version(dataset_id: str) -> int:
    found = re.search(r"-v(\d+)$", dataset_id)
    return int(found[1]) if found else -1


def _download(dataset_id: str, task: Task | None) -> None:
    """Downloads a Minari dataset; whatever goes wrong becomes one error with the local way out."""
    made_here = "make one here: python -m experiments.dataset --env=" + (task.name if task else "<family>/<task>")
    if dataset_id.startswith(MADE_HERE):
        raise FileNotFoundError(f"no dataset {dataset_id} at {minari_folder(dataset_id)}; {made_here}")
    way_out = made_here if task and task.dataset_id.startswith(MADE_HERE) else COPY
    with _network(f"{dataset_id} is not at {minari_folder(dataset_id)} and could not be downloaded", way_out):
        import minari

        minari.download_dataset(dataset_id)


@contextlib.contextmanager
def _network(failure: str, way_out: str) -> Iterator[None]:
    """Makes one FileNotFoundError of whatever goes wrong on the network."""
    try:
        with quiet("huggingface_hub", "urllib3", "minari"):  # which say every attempt
            yield
    except Exception as error:  # the kinds differ with Minari's remotes and their HTTP libraries
        raise FileNotFoundError(f"{failure} ({brief(error)}); {way_out}") from error
