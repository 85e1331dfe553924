"""A dataset on the host: transitions, and where their episodes end."""

import dataclasses
import functools
import hashlib
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.data.transform import STD_OFFSET, Normalizer
from o2o_jax.reading import read_numbers
from o2o_jax.types import Rollout, Spec, Transition, expect

# columns that have a vector per row -> what to do about whole numbers in them
VECTORS = {
    "observations": "one-hot vectors represent what is discrete, and .astype(np.float32) makes numbers of counts",
    "actions": "discrete actions are not supported, and continuous ones are floating point",
    "next_observations": "they must be of the type of observations",
}
SAME_STATE = 1e-3  # standard deviations of an observation within which two are one state, rounded
ACTION_TOLERANCE = 1e-6  # rounding of float32; what lies this little outside [-1, 1] is clipped
LARGEST = 1e15  # of a number of a dataset, so that sums of squares stay within float32


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Raw transitions in the order of their episodes.

    Attributes:
      transitions: `Transition` of numpy float32 arrays [N, ...]. `terminated` is 0 at a time limit, and
        `next_observation` is the true one everywhere, at the end of an episode too.
      episode_ends: [episodes] int64, one past the last row of each episode; the last one is N.
      name: what the data was loaded from.
      env_id: gymnasium id of the environment that it was recorded in; "" where the source doesn't say.

    Raises:
      ValueError: no rows, columns of different lengths, or `episode_ends` that don't increase up to N.
    """

    transitions: Transition
    episode_ends: np.ndarray
    name: str
    env_id: str = ""

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in vars(self.transitions).items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.name}: columns differ in length: {lengths}")
        if self.size == 0:
            raise ValueError(f"{self.name} is empty: it has no transitions")
        empty = np.diff(self.episode_ends, prepend=0) <= 0
        if empty.any():
            raise ValueError(f"{self.name}: episode {int(np.argmax(empty))} is empty: remove it")
        if not len(self.episode_ends) or self.episode_ends[-1] != self.size:
            raise ValueError(f"{self.name}: the last of episode_ends must be the number of rows, {self.size}")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of rows and episodes, 32 hexadecimal digits; the name doesn't count."""
        digest = hashlib.blake2b(digest_size=16)
        for column in (*vars(self.transitions).values(), self.episode_ends):
            array = np.ascontiguousarray(column)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()

    @classmethod
    def from_arrays(
        cls,
        observations: Any,
        actions: Any,
        rewards: Any,
        terminations: Any,
        truncations: Any,
        next_observations: Any = None,
        *,
        name: str = "arrays",
        env_id: str = "",
    ) -> "Dataset":
        """Makes a dataset of one's own arrays: a row per step, in the order in which the steps were taken.

        With `next_observations` every row is kept. Without them the next row's observation is s', so that rows whose
        s' isn't there are dropped: those that only truncate, and the last one unless it terminates. A terminating
        row is kept with its own observation as s', since the next row already belongs to another episode and no
        target reads it.

        Args:
          observations: [N, O] floating point.
          actions: [N, A] floating point in [-1, 1], where -1 and 1 are the bounds of the environment's action space.
          rewards: [N].
          terminations: [N] bool, or 0 and 1: the step led to an absorbing state.
          truncations: [N] likewise: the episode was cut there, by a time limit or because its recording stopped.
          next_observations: [N, O] true s', also where an episode ends; None where they weren't recorded.
          name: what error messages and records call the data.
          env_id: gymnasium id of the environment that it was recorded in, if it was in one.

        Raises:
          ValueError: another shape or length, integers for observations or actions, flags other than 0 and 1, NaN or
            infinity, actions outside [-1, 1]; or nothing says which row follows which, since neither
            `next_observations` nor any episode's end is given, or since every row is cut off.
        """
        given = {
            "observations": observations,
            "actions": actions,
            "rewards": rewards,
            "terminations": terminations,
            "truncations": truncations,
        }
        if next_observations is not None:
            given["next_observations"] = next_observations
        columns = {key: read_numbers(column, f"{name}: {key}") for key, column in given.items()}
        _check_arrays(columns, name)
        terminated = columns["terminations"] != 0
        last_of_episode = terminated | (columns["truncations"] != 0)
        kept = np.ones(len(terminated), bool)
        if next_observations is None:
            if kept.size and not last_of_episode.any():
                raise ValueError(
                    f"{name} has no next_observations and marks no episode's end in {kept.size} rows, so nothing says "
                    "which row follows which: add next_observations, or set truncations where recordings stopped"
                )
            followed = ~last_of_episode
            followed[-1:] = False
            kept = terminated | followed
            columns["next_observations"] = columns["observations"].copy()
            columns["next_observations"][followed] = columns["observations"][np.flatnonzero(followed) + 1]
        last_of_episode[-1:] = True
        order = ("observations", "actions", "rewards", "next_observations")
        rows: list[Any] = [*(to_float32(columns[key]) for key in order), to_float32(terminated)]
        # checked before rows are dropped, so that messages count rows as they were given
        everything = cls(Transition(*rows), np.flatnonzero(last_of_episode) + 1, name, env_id)
        everything = validate(everything, everything.spec)
        if kept.size and not kept.any():
            raise ValueError(
                f"{name}: no next observation is known, since every row is the last of an episode that was cut: add "
                "next_observations"
            )
        ends = np.unique(np.cumsum(kept)[last_of_episode])
        return dataclasses.replace(
            everything,
            transitions=jax.tree.map(lambda column: column[kept], everything.transitions),
            episode_ends=ends[ends > 0],
        )

    @property
    def spec(self) -> Spec:
        """Sizes of its observations and actions."""
        return Spec(self.transitions.observation.shape[1], self.transitions.action.shape[1])

    @property
    def size(self) -> int:
        """N, in transitions."""
        return len(self.transitions.reward)

    def returns(self) -> np.ndarray:
        """Returns the undiscounted returns [episodes], float64, of the episodes as far as they were recorded."""
        starts = np.concatenate([[0], self.episode_ends[:-1]])
        return np.add.reduceat(np.asarray(self.transitions.reward, np.float64), starts)

    def on_device(self) -> Transition:
        """Copies the transitions [N] to the device; all seeds share them."""
        return jax.tree.map(jnp.asarray, self.transitions)

    def rollout(self) -> Rollout:
        """Returns the transitions [N] with the ends of their episodes, as numpy arrays.

        An episode whose recording stopped counts as truncated, as one that reached a time limit.
        """
        truncated: Any = np.zeros(self.size, np.float32)
        last = self.episode_ends - 1
        truncated[last] = 1.0 - self.transitions.terminated[last]
        return Rollout(**vars(self.transitions), truncated=truncated)

    def broken_share(self) -> float:
        """Returns the share of rows within episodes whose next observation isn't the observation of the row after."""
        rows = self.transitions
        within = np.ones(self.size, bool)
        within[self.episode_ends - 1] = False
        here = np.flatnonzero(within)
        if not len(here):
            return 0.0
        tolerance = SAME_STATE * rows.observation.std(axis=0) + STD_OFFSET
        apart = np.abs(rows.next_observation[here] - rows.observation[here + 1]) > tolerance
        return float(apart.any(axis=1).mean())

    def best_episodes(self, count: int) -> "Dataset":
        """Selects the `count` episodes of highest return, or all if there are fewer: rows [M] of the N.

        Replay mode `part` preloads them. Episodes keep their order; of equal returns the earlier one counts as better.

        Raises:
          ValueError: `count` below 1.
          TypeError: it is no whole number.
        """
        expect(count, numbers.Integral, "count", "pass a whole number")
        if count < 1:
            raise ValueError(f"best_episodes needs a count of at least 1, got {count}")
        return self._episodes(np.sort(np.argsort(-self.returns(), kind="stable")[:count]))

    def hold_out(self, count: int) -> tuple["Dataset", "Dataset"]:
        """Sets episodes aside, spread evenly over the dataset: where a policy improved as it recorded, so do they.

        Returns:
          The other episodes, rows [N − M], and the `count` that were set aside, [M].

        Raises:
          ValueError: `count` below 1, or so high that no other episode is left.
          TypeError: it is no whole number.
        """
        expect(count, numbers.Integral, "count", "pass a whole number")
        episodes = len(self.episode_ends)
        if not 1 <= count < episodes:
            raise ValueError(f"{self.name} has {episodes} episodes, of which {count} cannot be set aside")
        # the middle of each of `count` equal parts
        chosen = (2 * np.arange(count) + 1) * episodes // (2 * count)
        return self._episodes(np.setdiff1d(np.arange(episodes), chosen)), self._episodes(chosen)

    def _episodes(self, chosen: np.ndarray) -> "Dataset":
        """Some of the episodes, by number, in the order given."""
        lengths = np.diff(self.episode_ends, prepend=0)
        rows = np.concatenate([np.arange(self.episode_ends[e] - lengths[e], self.episode_ends[e]) for e in chosen])
        return dataclasses.replace(
            self,
            transitions=jax.tree.map(lambda column: column[rows], self.transitions),
            episode_ends=np.cumsum(lengths[chosen]),
        )

    def normalizer(self) -> Normalizer:
        """Fits a normalizer [O] to the observations [N, O], summed in float64 and kept in float32."""
        observations = np.asarray(self.transitions.observation, np.float64)
        mean, std = observations.mean(axis=0), observations.std(axis=0) + STD_OFFSET
        return Normalizer(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


def validate(dataset: Dataset, spec: Spec) -> Dataset:
    """Checks that a dataset can be learnt from and fits the environment.

    Args:
      dataset: of N rows.
      spec: O and A of the environment.

    Returns:
      The dataset; actions outside [-1, 1] by no more than 1e-6 are clipped.

    Raises:
      ValueError: shapes other than the environment's, NaN, infinity or numbers beyond 1e15, actions outside [-1, 1].
    """
    rows = dataset.transitions
    expected = {
        "observation": (dataset.size, spec.observation_dim),
        "action": (dataset.size, spec.action_dim),
        "reward": (dataset.size,),
        "next_observation": (dataset.size, spec.observation_dim),
        "terminated": (dataset.size,),
    }
    for column, shape in expected.items():
        values = getattr(rows, column)
        if values.shape != shape:
            raise ValueError(
                f"{dataset.name} doesn't fit the environment: {column} has shape {values.shape}, expected {shape}; "
                "choose the --env that the data was recorded in"
            )
        bad = ~np.isfinite(values.reshape(dataset.size, -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{dataset.name} has NaN or infinity in {bad.sum()} of {dataset.size} rows of {column}, first in row "
                f"{int(np.argmax(bad))}: remove these episodes"
            )
        largest = np.abs(values.reshape(dataset.size, -1)).max(axis=1)
        if column != "action" and largest.max() > LARGEST:
            raise ValueError(
                f"{dataset.name} has {column} as large as {largest.max():.3g}, first in row "
                f"{int(np.argmax(largest > LARGEST))}, whose squares 32 bits don't hold: remove these episodes, or "
                "choose a smaller unit"
            )
    worst = float(np.abs(rows.action).max())
    if worst > 1.0 + ACTION_TOLERANCE:
        raise ValueError(
            f"{dataset.name} has actions outside [-1, 1], the farthest {worst:.6g} from 0: rescale them to "
            "2 (action - low) / (high - low) - 1 with the bounds of the environment's action space or, where these are "
            "-1 and 1, pass --clip_actions"
        )
    if worst > 1.0:
        rows = rows.replace(action=np.clip(rows.action, -1.0, 1.0))
    return dataclasses.replace(dataset, transitions=rows)


def to_float32(column: np.ndarray) -> np.ndarray:
    """Converts a column [N, ...] to float32; what is too large becomes infinite, for `validate` to report."""
    with np.errstate(over="ignore"):
        return column.astype(np.float32)


def check_columns(columns: dict[str, np.ndarray], name: str) -> None:
    """Checks types and shapes of arrays [N, ...], by the names of `Dataset.from_arrays`' arguments.

    Raises:
      ValueError: one isn't of numbers, or has another number of axes; the message says what it may be.
    """
    for key, column in columns.items():
        if column.dtype.kind not in "fiub":
            raise ValueError(f"{name}: {key} must be one array of numbers, got type {column.dtype}")
        wanted = 2 if key in VECTORS else 1
        if column.ndim != wanted:
            expected = "(rows, numbers)" if wanted == 2 else "(rows,)"
            raise ValueError(f"{name}: {key} have shape {column.shape}, expected {expected}: {_way_out(key, column)}")


def _way_out(key: str, column: np.ndarray) -> str:
    """The advice on a column with another number of axes than it should have."""
    if column.ndim < 2 and key in VECTORS:
        return f"reshape them to (len({key}), -1), a row per step"
    if column.ndim == 2 and column.shape[1] == 1:
        return "reshape them to (-1,)"
    if column.ndim > 3 or (column.ndim == 3 and column.dtype.kind != "f"):
        return "images can't be learnt from: make vectors of them"
    if column.ndim < 2:
        return "give one per step"
    padded = "join episodes that are padded to one length, [episodes, T, …], to [rows, …] without their padding"
    return f"{padded}, or reshape matrices to (len({key}), -1)" if key in VECTORS else padded


def _check_arrays(columns: dict[str, np.ndarray], name: str) -> None:
    """Checks types, shapes and lengths of a user's arrays; see `Dataset.from_arrays`."""
    for key, column in columns.items():
        if key in VECTORS and column.dtype.kind in "iub" and column.ndim < 3:
            raise ValueError(f"{name}: {key} are of type {column.dtype}, expected floating point: {VECTORS[key]}")
    check_columns(columns, name)
    for key in ("terminations", "truncations"):
        if not np.isin(columns[key], (0, 1)).all():
            raise ValueError(f"{name}: {key} must be True or False, or 1 or 0, in every row")
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{name}: columns differ in length: {lengths}; each has one row per step")
    widths = {key: column.shape[1] for key, column in columns.items() if key.endswith("observations")}
    if len(set(widths.values())) > 1:
        raise ValueError(f"{name}: observations differ in size: {widths}")
