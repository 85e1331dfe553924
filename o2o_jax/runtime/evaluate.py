"""Returns of a policy in the environment. Impure: steps environments of its own, never those of training."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from o2o_jax.envs.failure import EnvironmentFailure
from o2o_jax.interfaces import Task
from o2o_jax.policy import AnyPolicy, SampledPolicy
from o2o_jax.runtime.seeds import keys as seed_keys
from o2o_jax.runtime.seeds import over_seeds

SIMULATORS = 100  # of an evaluation: a maze takes 12 MB and 0.2 s to open, and 100 episodes are its protocol
THREADS = 2  # more wait for Python's lock: without it go the simulators' own steps, half of Hopper's time
CONFIRMATION_STREAM = 2**32  # and above it, one per environment step: no other stream of start states is as high


def start_seeds(seed: int, episodes: int, stream: int) -> list[int]:
    """Seeds of the start states of `episodes` episodes, from a stream of the run's seed apart from training."""
    return [int(value) for value in np.random.SeedSequence([seed, stream]).generate_state(episodes)]


def rounds_of(num_seeds: int, episodes: int) -> list[slice]:
    """Returns which of a seed's episodes [E] are played at a time, so that few simulators play many of them.

    A simulator takes megabytes and tenths of a second to open; there are `SIMULATORS` in all, or one for each seed.
    """
    at_a_time = max(1, SIMULATORS // num_seeds)
    return [slice(first, min(first + at_a_time, episodes)) for first in range(0, episodes, at_a_time)]


class _Tally:
    """Returns and lengths of all episodes, and the round of them that is under way.

    Args:
      plays: [S] bool, the seeds that play.
      episodes: E of a seed.
    """

    def __init__(self, plays: np.ndarray, episodes: int) -> None:
        self._plays, shape = plays, (len(plays), episodes)
        self.returns, self.lengths = np.zeros(shape), np.zeros(shape, np.int64)
        self.alive = np.zeros(shape, bool)
        self.failures: dict[int, str] = {}  # place among the seeds -> how one of its environments has failed

    def begin(self, rows: slice, observations: np.ndarray) -> np.ndarray:
        """Begins a round at first observations [P, W, O] of the seeds that play; returns all [S, E, O], zeros else."""
        self.alive[self._plays, rows] = True
        self.bury()
        everything = np.zeros((*self.alive.shape, *observations.shape[2:]), np.float32)
        everything[self._plays, rows] = observations
        return everything

    def bury(self) -> None:
        """Ends all episodes of seeds one of whose environments has failed."""
        self.alive[list(self.failures)] = False

    def results(self, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns [S, E] of the seeds that played, NaN of the others and of those that failed, and lengths [S, E].

        Raises:
          EnvironmentFailure: all of them failed.
        """
        for s, failure in self.failures.items():
            if len(self.failures) == self._plays.sum():
                raise EnvironmentFailure(f"evaluation of seed {seeds[s]}: {failure}")
            print(f"note: the evaluation of seed {seeds[s]} counts as NaN: {failure}")
        counted = self._plays & ~np.isin(np.arange(len(self._plays)), list(self.failures))
        return np.where(counted[:, None], self.returns, np.nan), self.lengths


class Evaluator:
    """Runs the episodes of all seeds side by side, from the same start states at every call (D-46).

    More of them than there are simulators (`rounds_of`) take turns. Every round is played by the program of all, so
    that a policy which draws its actions draws what it would have drawn.

    Args:
      make_env: () -> a gymnasium environment with the task's time limit, actions in [-1, 1].
      seeds: the run's seeds, S of them.
      episodes: E per seed.
      stream: which start states; two evaluators of one run with different streams start from different ones.
      threads: that share the episodes; more than one for environments that share nothing with each other.

    Attributes:
      rounds: which of a seed's episodes are played at a time.
    """

    def __init__(
        self, make_env: Callable, seeds: Sequence[int], episodes: int, stream: int = 1, threads: int = 1
    ) -> None:
        self._seeds, self._episodes, self._stream = seeds, episodes, stream
        self.rounds = rounds_of(len(seeds), episodes)
        self._envs = [[make_env() for _ in range(self.rounds[0].stop)] for _ in seeds]
        self._threads = threads
        self._executor = concurrent.futures.ThreadPoolExecutor(threads, "evaluation") if threads > 1 else None

    def __call__(
        self,
        act: Callable[[np.ndarray], ArrayLike],
        receive: Callable[[np.ndarray], None] = lambda rewards: None,
        stream: int | None = None,
        plays: np.ndarray | None = None,
        begin: Callable[[], None] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Undiscounted raw returns [S, E] and lengths [S, E] in environment steps.

        Args:
          act: observations [S, E, O] to actions [S, E, A] in [-1, 1].
          receive: gets the rewards [S, E] of every step after it, 0 where an episode is over: for what acts on them.
          stream: which start states, this time; None for the evaluator's own.
          plays: [S] bool, at least one of them true: the others take no step, have returns of NaN, and all that `act`
            gets of them is zeros, as of episodes whose round it isn't.
          begin: is called before each round, where everything that `act` remembers begins anew.

        Raises:
          EnvironmentFailure: those of all seeds that play. Where it is some, those seeds' returns are NaN.
        """
        plays = np.ones(len(self._envs), bool) if plays is None else plays
        stream = self._stream if stream is None else stream
        starts = [start_seeds(seed, self._episodes, stream) for seed in self._seeds]
        tally = _Tally(plays, self._episodes)

        def reset(s: int, e: int, env: Any) -> np.ndarray:
            try:
                return env.reset(seed=starts[s][e])[0]
            except EnvironmentFailure as failure:
                tally.failures[s] = str(failure)
                return np.zeros(env.observation_space.shape)

        for rows in self.rounds:
            begin()
            episodes = range(rows.start, rows.stop)
            first = [
                [reset(s, e, env) for e, env in zip(episodes, self._envs[s], strict=False)]
                for s in np.flatnonzero(plays).tolist()
            ]
            self._play(act, receive, tally, tally.begin(rows, np.asarray(first, np.float32)), rows.start)
        return tally.results(self._seeds)

    def _play(self, act: Callable, receive: Callable, tally: _Tally, observations: np.ndarray, first: int) -> None:
        """Plays a round from observations [S, E, O], whose first episode is number `first`."""

        def step(episodes: Sequence[tuple[int, int]], actions: np.ndarray, rewards: np.ndarray) -> None:
            for s, e in episodes:
                try:
                    observation, reward, terminated, truncated, _ = self._envs[s][e - first].step(actions[s, e])
                except EnvironmentFailure as failure:
                    tally.failures[s] = str(failure)
                    continue
                observations[s, e], rewards[s, e] = observation, reward
                tally.returns[s, e] += reward
                tally.lengths[s, e] += 1
                tally.alive[s, e] = not (terminated or truncated)

        while tally.alive.any():
            actions, rewards = np.asarray(act(observations)), np.zeros(tally.alive.shape, np.float32)
            # episodes that have ended are no longer stepped, so that no reset row can count
            going_on = list(zip(*np.nonzero(tally.alive), strict=True))
            if self._executor is None:
                step(going_on, actions, rewards)
            else:
                shares = [going_on[i :: self._threads] for i in range(self._threads)]
                list(self._executor.map(functools.partial(step, actions=actions, rewards=rewards), shares))
            tally.bury()
            receive(rewards)

    def close(self) -> None:
        """Closes the environments."""
        if self._executor is not None:
            self._executor.shutdown()
        for envs in self._envs:
            for env in envs:
                env.close()


class PoolEvaluator:
    """The same with environments that step together in compiled code, as envpool's do.

    Their start states are others than gymnasium's with the same seed, but the same at every call too.

    Args:
      make_pool: (seeds) -> environments with gymnasium's vector interface, one per seed, whose first reset follows
        from it. An episode's end resets its environment on the next step, a row that doesn't count.
      seeds: the run's seeds, S of them.
      episodes: E per seed.
      stream: which start states, as for `Evaluator`.

    Attributes:
      rounds: as of `Evaluator`.

    Raises:
      ValueError: envpool isn't installed, or doesn't know the environment.
    """

    def __init__(
        self, make_pool: Callable[[Sequence[int]], Any], seeds: Sequence[int], episodes: int, stream: int = 1
    ) -> None:
        self._make_pool = make_pool
        self._seeds, self._episodes, self._stream = seeds, episodes, stream
        self.rounds = rounds_of(len(seeds), episodes)
        make_pool(start_seeds(seeds[0], 1, stream)).close()  # what is missing shows before hours of updates

    def __call__(
        self,
        act: Callable[[np.ndarray], ArrayLike],
        receive: Callable[[np.ndarray], None] = lambda rewards: None,
        stream: int | None = None,
        plays: np.ndarray | None = None,
        begin: Callable[[], None] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Undiscounted raw returns [S, E] and lengths [S, E], of arguments as `Evaluator`'s."""
        plays = np.ones(len(self._seeds), bool) if plays is None else plays
        stream = self._stream if stream is None else stream
        tally = _Tally(plays, self._episodes)
        for rows in self.rounds:
            begin()
            starts = [
                start
                for seed, play in zip(self._seeds, plays, strict=True)
                if play
                for start in start_seeds(seed, self._episodes, stream)[rows]
            ]
            self._play(act, receive, tally, rows, plays, starts)
        return tally.results(self._seeds)

    def _play(
        self, act: Callable, receive: Callable, tally: _Tally, rows: slice, plays: np.ndarray, starts: list[int]
    ) -> None:
        """Plays a round of episodes from their starts, [P · W] of the seeds that play."""
        of_round = np.ix_(plays, np.arange(rows.start, rows.stop))

        def per_episode(values: np.ndarray) -> np.ndarray:
            return values.reshape(-1, rows.stop - rows.start, *values.shape[1:])

        pool = self._make_pool(starts)  # anew: a pool's second resets would continue its random numbers
        observations = tally.begin(rows, per_episode(pool.reset()[0]))
        while tally.alive.any():
            actions = np.asarray(act(observations), np.float64)[of_round]
            stepped, reward, terminated, truncated, _ = pool.step(actions.reshape(len(starts), -1))
            # episodes that have ended continue with reset rows
            rewards = np.zeros(tally.alive.shape)
            rewards[of_round] = np.where(tally.alive[of_round], per_episode(reward), 0.0)
            tally.returns += rewards
            tally.lengths += tally.alive
            observations = observations.copy()  # `act` may keep what it was given
            observations[of_round] = per_episode(stepped)
            tally.alive[of_round] &= ~per_episode(terminated | truncated)
            receive(rewards.astype(np.float32))
        pool.close()

    def close(self) -> None:
        """Does nothing: every evaluation closes its own environments."""


AnyEvaluator = Evaluator | PoolEvaluator


class Scored(Protocol):
    """A task, or what else knows its scores."""

    def score(self, returns: Any) -> Any:
        """Returns normalised scores of undiscounted returns [...]."""


def make_evaluator(
    family: ModuleType, task: Task, seeds: Sequence[int], episodes: int, pool: bool = False, stream: int = 1
) -> AnyEvaluator:
    """The evaluator of a task's policies; environments that the family calls thread-safe step in threads.

    Args:
      family: module of the task's environment family.
      task: the task.
      seeds: the run's seeds, S of them.
      episodes: E per seed.
      pool: whether envpool steps the environments.
      stream: which start states, as for `Evaluator`.

    Raises:
      ValueError: the family has no environments in envpool, or see `PoolEvaluator`.
    """
    if not pool:
        from o2o_jax.envs.border import Border  # where environments are made: it needs gymnasium

        return Evaluator(lambda: Border(family.make_env(task)), seeds, episodes, stream, threads_for(family))
    if not hasattr(family, "make_pool"):
        raise ValueError(f"{task.name} has no environments in envpool: evaluate without it")
    return PoolEvaluator(functools.partial(family.make_pool, task), seeds, episodes, stream)


def threads_for(family: ModuleType) -> int:
    """Returns how many threads step a family's environments in evaluation."""
    return min(THREADS, os.cpu_count() or 1) if getattr(family, "THREAD_SAFE", False) else 1


def policy_episodes(
    policy_of: Callable[[Any], AnyPolicy | SampledPolicy], seeds: Sequence[int], mesh: Mesh
) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Evaluates policies of any kind, as their `begin` and `act` say: modes, or samples of those that draw.

    What a policy remembers of its episodes stays on the device, as large at the end as at the beginning: a step is one
    compiled call of all seeds and episodes, and the second evaluation compiles nothing. A policy that draws gets a key
    to remember, the same one at every evaluation from the same start states.

    Args:
      policy_of: (agent) -> policy, pure, of one seed.
      seeds: the run's seeds, S of them.
      mesh: devices.

    Returns:
      (evaluator, agent of all seeds [S], stream=None, plays=None) -> returns [S, E] and lengths [S, E], as the
      evaluator gives them; impure.
    """
    begin = over_seeds(lambda agent, observation, key: policy_of(agent).begin(len(observation), key), mesh)
    step = over_seeds(lambda agent, *arguments: policy_of(agent).act(*arguments), mesh, donate=(1,))

    def run(evaluator: AnyEvaluator, agent: Any, **which: Any) -> tuple[np.ndarray, np.ndarray]:
        keys = seed_keys(seeds, f"evaluation {which.get('stream')}")
        memory, rewards = None, None

        def begin_round() -> None:
            nonlocal rewards
            rewards = None

        def act(observations: np.ndarray) -> ArrayLike:
            nonlocal memory, rewards
            if rewards is None:  # the first step
                memory, rewards = begin(agent, observations, keys), np.zeros(observations.shape[:2], np.float32)
            actions, memory = step(agent, memory, observations, rewards)
            return actions

        def receive(received: np.ndarray) -> None:
            nonlocal rewards
            rewards = received

        return evaluator(act, receive, begin=begin_round, **which)

    return run


def evaluation_metrics(task: Scored, returns: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Terms of an evaluation, one value per seed [S]: return, normalised score, episode length; from [S, E]."""
    mean = returns.mean(axis=1)
    return {"return": mean, "score": task.score(mean), "length": lengths.mean(axis=1)}
