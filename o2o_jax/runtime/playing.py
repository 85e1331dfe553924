"""Episodes of policies that have left their run, remembered action by action. Impure: steps environments."""

import dataclasses
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from o2o_jax.interfaces import Task
from o2o_jax.runtime.deployed import DeployedPolicy
from o2o_jax.runtime.evaluate import Evaluator, start_seeds, threads_for

STREAM = 4  # of start states: those that no evaluation chose a policy by


@dataclasses.dataclass(frozen=True)
class Episode:
    """An episode from start to end.

    Attributes:
      start: seed of its start state.
      actions: [T, A] in [-1, 1].
      rewards: [T] raw.
    """

    start: int
    actions: np.ndarray
    rewards: np.ndarray

    @property
    def length(self) -> int:
        """Environment steps T."""
        return len(self.rewards)

    @property
    def total(self) -> float:
        """Undiscounted raw return."""
        return float(self.rewards.sum(dtype=np.float64))


def play(
    family: ModuleType, task: Task, policies: Sequence[DeployedPolicy], seed: int, episodes: int
) -> list[list[Episode]]:
    """Plays episodes of several policies from the same start states.

    Args:
      family: module of the task's environment family.
      task: the task.
      policies: P of them, with its observations and actions.
      seed: settles the start states, which are others than those of a run's evaluations.
      episodes: E per policy.

    Returns:
      For each policy its E episodes.
    """
    from o2o_jax.envs.border import Border  # where environments are made: it needs gymnasium

    starts = start_seeds(seed, episodes, STREAM)
    threads = threads_for(family)
    evaluator = Evaluator(lambda: Border(family.make_env(task)), [seed] * len(policies), episodes, STREAM, threads)
    rounds: list[tuple[list[np.ndarray], list[np.ndarray]]] = []  # actions [P, W, A] and rewards [P, W] of every step
    last = np.zeros((len(policies), episodes), np.float32)

    def begin() -> None:
        rounds.append(([], []))
        last[:] = 0.0
        for policy in policies:
            policy.reset()

    def act(observations: np.ndarray) -> np.ndarray:
        actions = np.stack([p.act(o, r) for p, o, r in zip(policies, observations, last, strict=True)])
        rounds[-1][0].append(actions[:, evaluator.rounds[len(rounds) - 1]])
        return actions

    def receive(rewards: np.ndarray) -> None:
        last[:] = rewards
        rounds[-1][1].append(rewards[:, evaluator.rounds[len(rounds) - 1]])

    try:
        _, lengths = evaluator(act, receive, begin=begin)
    finally:
        evaluator.close()
        for policy in policies:
            policy.reset()
    played: list[list[Episode]] = [[] for _ in policies]
    for (taken, received), rows in zip(rounds, evaluator.rounds, strict=True):
        actions, rewards = np.stack(taken, axis=2), np.stack(received, axis=2)  # [P, W, T, A] and [P, W, T]
        for p, episodes_of in enumerate(played):
            for w, (start, length) in enumerate(zip(starts[rows], lengths[p, rows], strict=True)):
                episodes_of.append(Episode(start, actions[p, w, :length], rewards[p, w, :length]))
    return played
