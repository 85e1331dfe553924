"""Episodes that can be taken up again: how each began, and what was done since."""

from collections.abc import Iterator
from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from o2o_jax.envs.failure import FAILURE
from o2o_jax.envs.recording import UNSEEDED, Recording, state_of, words_of


class Recorder(gymnasium.Wrapper):
    """Remembers how the episode under way began and the actions since, so that another process gets there again.

    Simulators hide some of their state: MuJoCo's warm start, a wrapper's counters, a maze's goal. But where all that
    is random comes from gymnasium's generators, the same actions from the same generators lead to the same state.

    Args:
      env: whose episodes to remember.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._start: tuple[int, np.ndarray] | None = None
        self._actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode as the environment does, and a new recording."""
        states = [words_of(generator) for generator in self._generators()]
        known = not options and all(words is not None for words in states)
        self._start = (UNSEEDED if seed is None else seed, np.array(states, np.uint32)) if known else None
        self._actions = []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        result = self.env.step(action)
        if FAILURE not in result[4]:  # of an environment that has failed no action is taken any more
            self._actions.append(np.array(action))
        return result

    def recording(self) -> Recording | None:
        """Returns how to get to the present state; None where that isn't known, as after a reset with options."""
        if self._start is None:
            return None
        seed, generators = self._start
        space = self.action_space
        actions = np.stack(self._actions) if self._actions else np.zeros((0, *(space.shape or ())), space.dtype)
        return Recording(np.asarray(seed, np.int64), generators, actions)

    def replay(self, recording: Recording) -> Any:
        """Goes to the state that a recording tells of, and returns the observation there.

        Args:
          recording: of another process's environment of the same kind.

        Raises:
          ValueError: the environment has another number of generators.
        """
        for generator, words in zip(self._generators(), recording.generators, strict=True):
            generator.bit_generator.state = state_of(words)
        seed = int(recording.seed)
        observation, _ = self.reset(seed=None if seed == UNSEEDED else seed)
        for action in recording.actions:
            observation, *_ = self.step(action)
        return observation

    def _generators(self) -> list[np.random.Generator]:
        """Returns the generators of all environments inside; one that has none yet makes it."""
        return [env.np_random for env in environments_inside(self.env)]


def environments_inside(env: gymnasium.Env) -> list[gymnasium.Env]:
    """Returns the environments that wrappers and mazes are made of, each once, wrappers left out."""
    return list(_inside(env, set()))


def _inside(env: gymnasium.Env, seen: set[int]) -> Iterator[gymnasium.Env]:
    if id(env) in seen:
        return
    seen.add(id(env))
    if not isinstance(env, gymnasium.Wrapper):
        yield env
    for value in list(vars(env).values()):
        if isinstance(value, gymnasium.Env):
            yield from _inside(value, seen)
