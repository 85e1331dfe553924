"""Floating-point operations of O2PPO's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, Network, actor_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of value regression, and per rollout of fine-tuning with all its epochs.

    A rollout has one state more than steps, so that V at its T + 1 states is all that advantages need; the last states
    of truncated episodes, a handful, are left out. Regression with bootstrapped returns counts V at the last state of
    every row's episode, though it matters only where that was truncated: the data says how many those are.
    """
    rows, steps = config.reevaluate.batch_size, config.rollout.env_steps
    actor = actor_of(config.networks, spec, spec.action_dim)
    value = Network(spec.observation_dim, config.networks.critic_hidden, 1)
    bootstrapped = value.forward(rows) if config.reevaluate.return_boundary == "bootstrap" else 0
    estimate = value.forward(steps + 1) + 2 * actor.forward(steps)  # π of the rollout, and π_ref
    return {
        "reevaluate": Count(value.step(rows) + bootstrapped),
        "finetune": Count(
            estimate + config.rollout.epochs * (actor.step(steps) + value.step(steps)),
            {"V at every s', which mostly is the next row's s": value.forward(steps - 1)},
        ),
    }
