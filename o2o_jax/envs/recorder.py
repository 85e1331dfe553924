"""Episodes that can be taken up again: how each began, and what was done since."""

from collections.abc import Iterator
from typing import Any, SupportsFloat

import gymnasium
import numpy as np


class Recorder(gymnasium.Wrapper):
    """Remembers how the episode under way began and the actions since, so that another process gets there again.

    Simulators hide some of their state: MuJoCo's warm start, a wrapper's counters, a maze's goal. But where all that
    is random comes from gymnasium's generators, the same actions from the same generators lead to the same state.

    Args:
      env: whose episodes to remember.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._start: dict[str, Any] | None = None
        self._actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode as the environment does, and a new record."""
        states = [generator.bit_generator.state for generator in self._generators()]
        self._start = None if options else {"seed": seed, "generators": states}
        self._actions = []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        self._actions.append(np.array(action))
        return self.env.step(action)

    def record(self) -> dict[str, Any] | None:
        """Returns how to get to the present state, as JSON takes it; None where nothing is known of it."""
        if self._start is None:
            return None
        dtype = str(self._actions[0].dtype) if self._actions else "float32"
        return {**self._start, "dtype": dtype, "actions": [action.tolist() for action in self._actions]}

    def replay(self, record: dict[str, Any]) -> Any:
        """Goes to the state that a record tells of, and returns the observation there.

        Args:
          record: of another process's environment of the same kind.
        """
        for generator, state in zip(self._generators(), record["generators"], strict=True):
            generator.bit_generator.state = state
        observation, _ = self.reset(seed=record["seed"])
        for action in record["actions"]:
            observation, *_ = self.step(np.asarray(action, record["dtype"]))
        return observation

    def _generators(self) -> list[np.random.Generator]:
        """Returns the generators of all environments inside; one that has none yet makes it."""
        return [env.np_random for env in _inside(self.env, set())]


def _inside(env: gymnasium.Env, seen: set[int]) -> Iterator[gymnasium.Env]:
    """Yields the environments that wrappers and mazes are made of, each once; wrappers have no generator."""
    if id(env) in seen:
        return
    seen.add(id(env))
    if not isinstance(env, gymnasium.Wrapper):
        yield env
    for value in list(vars(env).values()):
        if isinstance(value, gymnasium.Env):
            yield from _inside(value, seen)
