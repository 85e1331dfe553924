"""Floating-point operations of WSRL's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.online import o2sac, rlpd
from o2o_jax.operations import Count
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts O2SAC's phases that are asked for, and the critics' steps on parts of a batch with the actor's on all."""
    update = config.update
    critic_step, _ = rlpd.cost.steps(config, spec, update.batch_size // update.critic_steps)
    _, actor_step = rlpd.cost.steps(config, spec, update.batch_size)
    finetune = Count(update.critic_steps * critic_step + actor_step)
    before = o2sac.operations(config.of_o2sac(), spec)
    return {name: before[name] for name in ("reevaluate", "align") if getattr(config, name).updates} | {
        "finetune": finetune
    }
