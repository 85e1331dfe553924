"""Training's episodes under way: saved with a run, taken up again by the process that resumes it. Impure."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass
class Episodes:
    """Episodes under way, one per seed.

    Attributes:
      observation: [S, O] float32 where the next action is taken.
      action: [S, A] float32, that action, which is chosen already.
      returns: [S] float64, undiscounted rewards of the episodes so far.
      finished: returns of the episodes that have ended since the last evaluation, S lists.
      pending: metrics of the rounds of updates since then, [S] float32 each.
    """

    observation: np.ndarray
    action: np.ndarray
    returns: np.ndarray
    finished: list[list[float]]
    pending: list[Any] = dataclasses.field(default_factory=list)

    @classmethod
    def begin(cls, observation: np.ndarray, action: np.ndarray) -> "Episodes":
        """Episodes at their first observations."""
        return cls(observation, action, np.zeros(len(observation)), [[] for _ in observation])

    def add(self, reward: np.ndarray, ended: np.ndarray) -> None:
        """Counts a step's rewards [S], and the episodes that it ended, [S] bool."""
        self.returns += reward
        for s in np.nonzero(ended)[0]:
            self.finished[s].append(self.returns[s])
            self.returns[s] = 0.0

    def forget(self) -> None:
        """Begins to collect anew what an evaluation has looked at."""
        self.finished = [[] for _ in self.returns]
        self.pending = []

    def save(self, envs: Any) -> dict[str, Any]:
        """Returns the episodes as JSON takes them, exactly.

        Args:
          envs: vector environment [S] that they take place in, of `envs.vector.make_vector`; of any other kind nothing
            is saved but the numbers here.
        """
        return {
            "observation": self.observation.tolist(),
            "action": self.action.tolist(),
            "returns": self.returns.tolist(),
            "finished": [[float(value) for value in values] for values in self.finished],
            "pending": [{name: value.tolist() for name, value in row.items()} for row in jax.device_get(self.pending)],
            "records": [env.record() if hasattr(env, "record") else None for env in getattr(envs, "envs", [])],
        }

    @classmethod
    def restore(cls, envs: Any, saved: Mapping[str, Any] | None) -> "Episodes | None":
        """Brings the environments to where they were by playing what was played.

        Args:
          envs: vector environment [S], reset; its state is undefined where None comes back.
          saved: by `save`; None where nothing was.

        Returns:
          The episodes; None where nothing was saved, or an environment doesn't get to the observation that it was at,
          which a note says.
        """
        if saved is None:
            return None
        episodes = cls(
            np.asarray(saved["observation"], np.float32),
            np.asarray(saved["action"], np.float32),
            np.asarray(saved["returns"], np.float64),
            saved["finished"],
            [{name: np.asarray(value, np.float32) for name, value in row.items()} for row in saved["pending"]],
        )
        records = saved["records"]
        if len(records) == len(episodes.returns) and all(records):
            try:
                found = [env.replay(record) for env, record in zip(envs.envs, records, strict=True)]
            except Exception as error:  # whatever an environment of another version or make raises
                print(f"note: an environment refuses what it took before: {error}")
            else:
                if np.array_equal(np.asarray(found, np.float32), episodes.observation, equal_nan=True):
                    return episodes
        print("note: the environments don't get back to where they were: every seed begins a new episode")
        return None
