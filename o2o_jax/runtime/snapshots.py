"""Policies of a run that are kept for whoever asks for them later: its start, and the extremes of its evaluations."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax.training import where
from o2o_jax.types import Array, per_seed


@flax.struct.dataclass
class Snapshot:
    """A policy as it was at an evaluation online.

    Attributes:
      policy: of `Algorithm.policy`, its numbers zeros before the first evaluation.
      score: [] its normalised score there, infinite before the first evaluation.
      env_steps: [] int32, environment steps before it.
    """

    policy: Any = per_seed()
    score: Array = per_seed()
    env_steps: Array = per_seed()

    @classmethod
    def none_yet(cls, policy: Any, score: float) -> "Snapshot":
        """Returns the snapshot before the first evaluation, which any score replaces.

        Args:
          policy: of the same structure.
          score: ∞ or −∞.
        """
        empty = jax.tree.map(jnp.zeros_like, policy)
        return cls(empty, jnp.asarray(score, jnp.float32), jnp.zeros((), jnp.int32))

    def replace_where(self, condition: Array, policy: Any, score: Array, env_steps: Array) -> "Snapshot":
        """Returns the snapshot of another policy where a condition [] bool holds."""
        return where(condition, Snapshot(policy, score, env_steps), self)


@flax.struct.dataclass
class Snapshots:
    """Policies of one seed.

    Attributes:
      offline: the one that the run began with, before its phases; where it was cloned the clone.
      aligned: the one that its phases ended with; zeros before the first environment step.
      lowest: the one with the lowest evaluation online, the first of several; None in a run without evaluations.
      highest: the one with the highest, likewise.
    """

    offline: Any = per_seed()
    aligned: Any = per_seed()
    lowest: Snapshot | None = None
    highest: Snapshot | None = None

    @classmethod
    def start(cls, policy: Any, evaluated: bool) -> "Snapshots":
        """Returns those before the first phase.

        Args:
          policy: that the run begins with.
          evaluated: whether it will be evaluated online.
        """
        lowest, highest = (Snapshot.none_yet(policy, sign * jnp.inf) if evaluated else None for sign in (1, -1))
        # copies: the agent, whose memory updates take, holds these numbers too
        return cls(jax.tree.map(jnp.copy, policy), jax.tree.map(jnp.zeros_like, policy), lowest, highest)

    def begin(self, policy: Any) -> "Snapshots":
        """Returns those before the first environment step, with the policy that the phases ended with."""
        return self.replace(aligned=jax.tree.map(jnp.copy, policy))


def evaluated(
    policy_of: Callable[[Any], Any], snapshots: Snapshots, agent: Any, score: Array, env_steps: Array
) -> Snapshots:
    """Returns the snapshots after an evaluation online.

    Args:
      policy_of: (agent) -> policy.
      snapshots: before it, of a run with evaluations.
      agent: whose policy was evaluated.
      score: [] its normalised score; NaN is neither low nor high.
      env_steps: [] int32, environment steps before it.
    """
    assert snapshots.lowest is not None
    assert snapshots.highest is not None
    policy, score = policy_of(agent), score.astype(jnp.float32)
    return snapshots.replace(
        lowest=snapshots.lowest.replace_where(score < snapshots.lowest.score, policy, score, env_steps),
        highest=snapshots.highest.replace_where(score > snapshots.highest.score, policy, score, env_steps),
    )
