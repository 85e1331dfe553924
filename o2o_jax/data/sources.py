"""Where datasets come from: Minari, local or remote, and D4RL's HDF5 files. Impure: reads disk and network."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

from o2o_jax.data.dataset import Dataset, validate
from o2o_jax.interfaces import Task
from o2o_jax.types import Transition

MINARI_ID = re.compile(r"[\w-]+(/[\w-]+)*-v\d+")
MINARI_FILE = "main_data.hdf5"
HDF5_SUFFIXES = (".hdf5", ".h5")


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


Convert = Callable[[Episode, int], Episode | None]  # (as recorded, its number) -> as the task has it; None: left out


def load(source: str, task: Task, convert: Convert | None = None, env_ids: Collection[str] = ()) -> Dataset:
    """Loads a dataset and checks it against the task's environment.

    Args:
      source: a D4RL HDF5 file, the folder of a Minari dataset, or a Minari id, local or remote.
      task: what the data has to fit.
      convert: applied to every episode of a Minari dataset: how a family flattens, cuts or relabels what others
        recorded.
      env_ids: further environments that such data may have been recorded in; versions don't count.

    Raises:
      FileNotFoundError: nothing is there; the message says how to make the data.
      ValueError: damaged or unsuitable data; see `load_minari`, `load_d4rl_hdf5` and `validate`.
    """
    path = pathlib.Path(source).expanduser()
    if path.suffix in HDF5_SUFFIXES and path.name != MINARI_FILE:
        dataset = load_d4rl_hdf5(path)
    elif path.is_dir() or path.name == MINARI_FILE or MINARI_ID.fullmatch(source):
        dataset = load_minari(source, env=task.name, convert=convert)
    else:
        raise FileNotFoundError(
            f"{source!r} is neither a file, nor a folder, nor a Minari id such as mujoco/hopper/medium-v0"
        )
    if dataset.env_id and _without_version(dataset.env_id) not in map(_without_version, (task.env_id, *env_ids)):
        raise ValueError(f"{dataset.name} was recorded in {dataset.env_id}, but {task.name} runs {task.env_id}")
    return validate(dataset, task.spec)


def minari_folder(dataset_id: str) -> pathlib.Path:
    """Where Minari keeps a dataset: under MINARI_DATASETS_PATH, by default ~/.minari/datasets."""
    root = os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets"
    return pathlib.Path(root).expanduser() / dataset_id


def load_minari(source: str, env: str = "<family>/<task>", convert: Convert | None = None) -> Dataset:
    """Reads all episodes of a Minari dataset in one pass over its file; an id that isn't here is downloaded.

    Every row is kept with its true next observation, which Minari stores at time limits too. Only `terminations`
    become `terminated`. An episode may end with neither flag (its recording stopped), unless it has a single row.

    Args:
      source: Minari id, or the folder or `main_data.hdf5` of a dataset.
      env: what error messages put into the command that makes a dataset here.
      convert: applied to every episode.

    Raises:
      FileNotFoundError: not here and not to be had from the network.
      ValueError: damaged or incomplete file, an empty episode, a one-step episode without any end, dictionary
        observations that nothing converts.
    """
    path = pathlib.Path(source).expanduser()
    if path.name == MINARI_FILE:
        path = path.parent
    elif not path.is_dir():
        path = minari_folder(source)
        if not path.exists():
            _download(source, env)
    data_path = path / "data" if (path / "data").is_dir() else path
    metadata = _read_metadata(data_path / "metadata.json")
    with _open(data_path / MINARI_FILE) as file:
        numbers = sorted(int(key.removeprefix("episode_")) for key in file if re.fullmatch(r"episode_\d+", key))
        if len(numbers) != metadata.get("total_episodes", len(numbers)):
            raise ValueError(
                f"{source} holds {len(numbers)} episodes where its metadata counts {metadata['total_episodes']}: its "
                "writing was interrupted; make or download it again"
            )
        if not numbers:
            raise ValueError(f"{source} is empty: it has no episodes")
        episodes = []
        for number in numbers:
            episode = _read_episode(file[f"episode_{number}"], f"episode {number} of {source}", convert is not None)
            converted = convert(episode, number) if convert else episode
            if converted is not None:
                episodes.append(converted)
    if not episodes:
        raise ValueError(f"{source} has no episode that fits {env}")
    rows = [(e.observations[:-1], e.actions, e.rewards, e.observations[1:], e.terminations) for e in episodes]
    columns: list[Any] = [np.concatenate(column) for column in zip(*rows, strict=True)]
    ends = np.cumsum([len(episode.rewards) for episode in episodes])
    return Dataset(Transition(*columns), ends, name=source, env_id=_env_id(metadata))


def load_d4rl_hdf5(path: str | pathlib.Path) -> Dataset:
    """Reads a flat file of D4RL: observations, actions, rewards, terminals, timeouts and perhaps next_observations.

    With `next_observations` every row is kept. Without them the next row's observation is s', so that rows whose s'
    isn't in the file are dropped: those that only time out, and the last one unless it terminates. A terminating
    row is kept with its own observation as s', since the next row already belongs to another episode and no target
    reads it. D4RL's own `qlearning_dataset` drops timeouts and the last row either way. Episodes end at `terminals`
    and `timeouts`, never after a fixed count.

    Raises:
      FileNotFoundError: no such file.
      ValueError: damaged file, missing keys, columns of different lengths, no rows.
    """
    with _open(pathlib.Path(path)) as file:
        columns = {key: _read_array(file, key, str(path)) for key in ("observations", "actions", "rewards")}
        terminated, timeout = (_read_array(file, key, str(path)) > 0 for key in ("terminals", "timeouts"))
        if "next_observations" in file:
            columns["next_observations"] = _read_array(file, "next_observations", str(path))
    lengths = {key: len(column) for key, column in columns.items()}
    lengths |= {"terminals": len(terminated), "timeouts": len(timeout)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: columns differ in length: {lengths}")
    observation = columns["observations"]
    last_of_episode = terminated | timeout
    last_of_episode[-1:] = True
    if "next_observations" in columns:
        keep = np.ones(len(observation), bool)
        next_observation = columns["next_observations"]
    else:
        keep = terminated | ~last_of_episode
        next_observation = observation.copy()
        next_observation[:-1][~last_of_episode[:-1]] = observation[1:][~last_of_episode[:-1]]
    ends = np.unique(np.cumsum(keep)[last_of_episode])
    rows: list[Any] = [observation, columns["actions"], columns["rewards"], next_observation, terminated]
    transitions = Transition(*(column[keep].astype(np.float32) for column in rows))
    return Dataset(transitions, ends[ends > 0], name=str(path))


def _read_episode(episode: Any, name: str, dictionaries: bool = False) -> Episode:
    """One recorded episode, its columns checked to be of one length."""
    if dictionaries and hasattr(episode.get("observations"), "keys"):
        group = episode["observations"]
        observations: Any = {key: _read_array(group, key, f"observations of {name}") for key in group}
    else:
        observations = _read_array(episode, "observations", name)
    actions, rewards, terminations, truncations = (
        _read_array(episode, key, name) for key in ("actions", "rewards", "terminations", "truncations")
    )
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
    if length == 1 and not (terminations[0] or truncations[0]):
        raise ValueError(f"{name} has one step that neither terminates nor truncates it: remove it")
    return Episode(observations, actions, rewards, terminations, truncations)


def _read_array(group: Any, key: str, name: str) -> np.ndarray:
    """An HDF5 array as float32; NaN and infinity pass, for `validate` to report."""
    node = group.get(key)
    if node is None:
        raise ValueError(f"{name} lacks {key!r}; it has {', '.join(sorted(group))}")
    if hasattr(node, "keys"):
        raise ValueError(f"{name}: {key} are a dictionary ({', '.join(sorted(node))}); only flat arrays can be read")
    with np.errstate(over="ignore"):
        return node[()].astype(np.float32)


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[Any]:
    """Opens an HDF5 file to read; damage shows as one ValueError, whenever it is met."""
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # h5py raises any of these, by which part is damaged
        raise ValueError(f"{path} is damaged or no HDF5 file ({error}): download or make it again") from error


def _read_metadata(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: {path.parent} is not a complete Minari dataset; make it again")
    try:
        metadata = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): download or make the dataset again") from error
    if metadata.get("data_format", "hdf5") != "hdf5":
        raise ValueError(f"{path.parent} is stored as {metadata['data_format']!r}; only Minari's hdf5 can be read")
    return metadata


def _env_id(metadata: dict[str, Any]) -> str:
    spec = metadata.get("env_spec")
    return json.loads(spec)["id"] if spec else ""


def _without_version(env_id: str) -> str:
    return re.sub(r"-v\d+$", "", env_id)


def _download(dataset_id: str, env: str) -> None:
    """Downloads a Minari dataset; whatever goes wrong becomes one error with the local way out."""
    advice = f"make one here: python -m experiments.dataset --env={env}"
    if dataset_id.startswith("o2o/"):  # only ever made here
        raise FileNotFoundError(f"no dataset {dataset_id} at {minari_folder(dataset_id)}; {advice}")
    try:
        import minari

        minari.download_dataset(dataset_id)
    except Exception as error:  # the kinds differ with Minari's remotes and their HTTP libraries
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise FileNotFoundError(
            f"{dataset_id} is not at {minari_folder(dataset_id)} and could not be downloaded ({reason}); {advice}"
        ) from error
