"""Border between an environment, which anyone may have written, and this package. Imported when one is made."""

from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from o2o_jax.envs.failure import FAILURE, EnvironmentFailure, staying
from o2o_jax.reading import read_numbers

LARGEST = np.finfo(np.float32).max


class Border(gymnasium.Wrapper):
    """Checks what an environment returns and copies it: some change the array that they have handed out.

    An action that isn't finite comes from a policy that has diverged, and what it leads to is no fault of the
    environment's.

    Args:
      env: with a `Box` of observations.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._steps = 0
        self._shape = env.observation_space.shape
        self._name = env.spec.id if env.spec else type(env.unwrapped).__name__

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode.

        Raises:
          EnvironmentFailure: the environment raises an exception, keeps to an old interface, or returns an observation
            of another shape than its space, or NaN or infinity.
        """
        self._steps = 0
        result = self._call(self.env.reset, seed=seed, options=options)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self._failure("reset must return (observation, info), as gymnasium's interface has it since 0.26")
        observation, info = result
        return self._checked(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes an action [A].

        Raises:
          EnvironmentFailure: as `reset`; or a reward is no finite number, or a flag no boolean.
        """
        self._steps += 1
        result = self._call(self.env.step, action)
        if not (isinstance(result, tuple) and len(result) == 5):
            raise self._failure(
                "step must return (observation, reward, terminated, truncated, info), as gymnasium's interface has it "
                "since 0.26"
            )
        observation, reward, terminated, truncated, info = result
        number = self._numbers(reward, "rewards")
        if number.size != 1:
            raise self._failure(f"a reward must be a number, got an array of shape {number.shape}")
        if not _is_finite(number) and np.isfinite(action).all():
            raise self._failure(f"the reward is {number.item()}, no finite number of 32 bits")
        if not (_is_flag(terminated) and _is_flag(truncated)):
            raise self._failure(f"terminated and truncated must be booleans, got {terminated!r} and {truncated!r}")
        return self._checked(observation, action), float(number.item()), bool(terminated), bool(truncated), info

    def close(self) -> None:
        """Closes the environment; one that fails at it costs nobody what it was for."""
        try:
            self._call(self.env.close)
        except EnvironmentFailure as failure:
            print(f"note: {failure}")

    def _checked(self, observation: Any, action: Any = 0.0) -> np.ndarray:
        """Returns a copy of an observation that is as it should be."""
        observation = np.array(self._numbers(observation, "observations"))
        if observation.shape != self._shape:
            raise self._failure(f"the observation has the shape {observation.shape}, but its space {self._shape}")
        if not _is_finite(observation) and np.isfinite(action).all():
            raise self._failure("the observation holds NaN or infinity, in 32 bits")
        return observation

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Returns what a method of the environment does, which may neither end the process nor move it elsewhere."""
        try:
            with staying():
                return method(*arguments, **named)
        except KeyboardInterrupt:  # of the user, or of who stops this run
            raise
        except BaseException as error:  # SystemExit among them
            raise self._failure(f"{method.__name__} raised {_one_line(error)}") from error

    def _numbers(self, values: Any, what: str) -> np.ndarray:
        """Returns numbers [...] that the environment returned."""
        try:
            return read_numbers(values, what)
        except ValueError as error:
            raise self._failure(str(error)) from error

    def _failure(self, text: str) -> EnvironmentFailure:
        at = f"step {self._steps} of an episode" if self._steps else "the start of an episode"
        return EnvironmentFailure(f"the environment {self._name} failed at {at}: {text}")


class Partition(gymnasium.Wrapper):
    """Lets an environment fail without those that step together with it.

    From its failure on the environment is left alone, observations and rewards are zeros, no episode ends, and `info`
    has the failure's text as `failure.FAILURE`.

    Args:
      env: behind a `Border`.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._failure: str | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode, unless the environment has failed."""
        if self._failure is None:
            try:
                return self.env.reset(seed=seed, options=options)
            except EnvironmentFailure as failure:
                self._failure = str(failure)
        return self._nothing()

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Takes an action [A], unless the environment has failed."""
        if self._failure is None:
            try:
                return self.env.step(action)
            except EnvironmentFailure as failure:
                self._failure = str(failure)
        observation, info = self._nothing()
        return observation, 0.0, False, False, info

    def _nothing(self) -> tuple[np.ndarray, dict[str, Any]]:
        space = self.env.observation_space
        return np.zeros(space.shape or (), space.dtype), {FAILURE: self._failure}


def _is_finite(values: np.ndarray) -> bool:
    """Returns whether numbers [...] are finite in float32, which networks and buffers hold."""
    return not values.size or bool(np.abs(values).max() <= LARGEST)  # false of NaN too


def _is_flag(value: Any) -> bool:
    """Returns whether a value is true or false, or one of these in an array."""
    if isinstance(value, bool | np.bool_):
        return True
    flags = np.ravel(np.asarray(value, object)).tolist()
    return len(flags) == 1 and isinstance(flags[0], bool | int | float | np.bool_) and flags[0] in (True, False)


def _one_line(error: BaseException) -> str:
    """An exception's type and text, of which the first 200 characters do."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
