"""Training's episodes under way: saved with a run, taken up again by the process that resumes it. Impure."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from o2o_jax.envs.recording import Recording
from o2o_jax.types import Metrics

FETCH_EVERY = 1_000  # rounds of updates, whose metrics leave the device: there each number takes a kilobyte and more


@dataclasses.dataclass
class Episodes:
    """Episodes under way, one per environment: [S], or [S, E] where a seed has several.

    Attributes:
      observation: [..., O] float32 where the next action is taken.
      action: [..., A] float32, that action, which is chosen already.
      returns: [...] float64, undiscounted rewards of the episodes so far.
      finished: returns of the episodes that have ended since the last evaluation, S lists.
      pending: metrics of the rounds of updates since then, [S] float32 each, those of the latest still on the device.
    """

    observation: np.ndarray
    action: np.ndarray
    returns: np.ndarray
    finished: list[list[float]]
    pending: list[Metrics] = dataclasses.field(default_factory=list)

    @classmethod
    def begin(cls, observation: np.ndarray, action: np.ndarray) -> "Episodes":
        """Episodes at their first observations."""
        return cls(observation, action, np.zeros(observation.shape[:-1]), [[] for _ in observation])

    def add(self, reward: np.ndarray, ended: np.ndarray) -> None:
        """Counts a step's rewards [...], and the episodes that it ended, [...] bool."""
        self.returns += reward
        for place in zip(*np.nonzero(ended), strict=True):
            self.finished[place[0]].append(self.returns[place])
            self.returns[place] = 0.0

    def measure(self, metrics: Metrics) -> None:
        """Takes the metrics of a round of updates, [S] each."""
        self.pending.append(metrics)
        if len(self.pending) % FETCH_EVERY == 0:
            self.pending[-FETCH_EVERY:] = jax.device_get(self.pending[-FETCH_EVERY:])

    def forget(self) -> None:
        """Begins to collect anew what an evaluation has looked at."""
        self.finished = [[] for _ in self.returns]
        self.pending = []

    def save(self, envs: Any) -> dict[str, Any]:
        """Returns the episodes as a pytree of numpy arrays [S, ...], whose shapes depend on how far they are.

        Args:
          envs: vector environment, as of `loop.fine_tune`, that they take place in, of `envs.vector.make_vector`; of
            any other kind nothing is saved but the numbers here.
        """
        longest = max(1, *map(len, self.finished))
        finished = np.full((len(self.finished), longest), np.nan)
        for s, values in enumerate(self.finished):
            finished[s, : len(values)] = values
        saved: dict[str, Any] = {
            "observation": self.observation,
            "action": self.action,
            "returns": np.array(self.returns),
            "finished": finished,
            "counts": np.array([len(values) for values in self.finished], np.int32),
        }
        if self.pending:
            saved["metrics"] = jax.tree.map(lambda *rows: np.stack(rows, axis=1), *jax.device_get(self.pending))
        recordings = [env.recording() for env in getattr(envs, "envs", []) if hasattr(env, "recording")]
        if len(recordings) == self.returns.size and None not in recordings:
            saved["simulators"] = _stacked(recordings, self.returns.shape)
        return saved

    @classmethod
    def restore(cls, envs: Any, saved: Mapping[str, Any] | None, failed: np.ndarray) -> "Episodes | None":
        """Brings the environments to where they were by playing what was played.

        Args:
          envs: vector environment, as of `loop.fine_tune`, reset; its state is undefined where None comes back.
          saved: by `save`; None where nothing was.
          failed: [S] bool, seeds whose environments may be anywhere.

        Returns:
          The episodes; None where nothing was saved, or an environment doesn't get to the observation that it was at,
          which a note says.
        """
        if saved is None:
            return None
        finished = [row[:count].tolist() for row, count in zip(saved["finished"], saved["counts"], strict=True)]
        metrics = saved.get("metrics", {})
        rows = range(next(iter(metrics.values())).shape[1] if metrics else 0)
        pending = [{name: values[:, row] for name, values in metrics.items()} for row in rows]
        episodes = cls(
            np.array(saved["observation"]), np.array(saved["action"]), np.array(saved["returns"]), finished, pending
        )
        at_each = episodes.observation.reshape(-1, episodes.observation.shape[-1])
        over_each = np.repeat(failed, len(at_each) // len(failed))
        if "simulators" in saved:
            try:
                played = zip(envs.envs, _each(saved["simulators"]), at_each, over_each, strict=True)
                found = [at if over else env.replay(recording) for env, recording, at, over in played]
            except Exception as error:  # whatever an environment of another version or make raises
                print(f"note: an environment refuses what it took before: {error}")
            else:
                if np.array_equal(np.asarray(found, np.float32), at_each, equal_nan=True):
                    return episodes
        print("note: the environments don't get back to where they were: every seed begins a new episode")
        return None


def _stacked(recordings: list[Recording], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Recordings of all environments as arrays of a shape [...] and [..., T, A], T that of the longest, at least 1."""
    steps = [len(recording.actions) for recording in recordings]
    actions = np.zeros((len(steps), max(1, *steps), *recordings[0].actions.shape[1:]), recordings[0].actions.dtype)
    for place, recording in enumerate(recordings):
        actions[place, : steps[place]] = recording.actions
    columns = {
        "seed": np.stack([recording.seed for recording in recordings]),
        "generators": np.stack([recording.generators for recording in recordings]),
        "actions": actions,
        "steps": np.array(steps, np.int32),
    }
    return {name: column.reshape(*shape, *column.shape[1:]) for name, column in columns.items()}


def _each(simulators: Mapping[str, np.ndarray]) -> list[Recording]:
    """The recordings that `_stacked` made one of."""
    names, of_each = ("seed", "generators", "actions", "steps"), simulators["steps"]
    flat = (simulators[name].reshape(of_each.size, *simulators[name].shape[of_each.ndim :]) for name in names)
    return [
        Recording(seed, generators, actions[:steps]) for seed, generators, actions, steps in zip(*flat, strict=True)
    ]
