"""Environments whose seed settles an episode. Imported when one is made."""

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences gymnasium's word on bounds in 64 bits, which an arm's environment brings up with each of its spaces."""
    level = gymnasium.logger.min_level
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    try:
        yield
    finally:
        gymnasium.logger.min_level = level


class Settled(gymnasium.Wrapper):
    """Gives an environment that draws from NumPy's global generator and its action space one that `reset` seeds.

    Args:
      env: of OGBench.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._random = np.random.RandomState()
        with quiet():
            self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode, which the seed, or the environment's generator where there is none, settles."""
        if seed is not None:
            self.unwrapped.np_random = np.random.default_rng(seed)
        word = int(self.unwrapped.np_random.integers(2**32))
        self._random.seed(word)
        self.action_space.seed(word)  # of which mazes sample
        with quiet(), self.drawing():
            return self.env.reset(seed=word % 2**31, options=options or self._options())

    def _options(self) -> dict[str, Any] | None:
        """Returns the options of an episode that has been given none; called while it draws."""
        return None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        with self.drawing():
            return self.env.step(action)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Lets what draws from NumPy's global generator draw from this environment's."""
        outside = np.random.get_state()
        np.random.set_state(self._random.get_state())
        try:
            yield
        finally:
            self._random.set_state(np.random.get_state())
            np.random.set_state(outside)
