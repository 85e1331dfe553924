"""IQL online: the offline update continues, on all of the data and what the policy has met since."""

import dataclasses
import functools
from typing import Literal

import jax.numpy as jnp
import optax

from o2o_jax import making
from o2o_jax.interfaces import Algorithm
from o2o_jax.offline import iql
from o2o_jax.offline.iql import State
from o2o_jax.offline.iql.algorithm import make_networks, update
from o2o_jax.online import continued
from o2o_jax.operations import Count
from o2o_jax.settings import part, setting
from o2o_jax.types import Array, Spec

__all__ = ["Config", "State", "actor_schedule", "make", "operations"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(continued.ContinuedConfig):
    """Settings of IQL online. Defaults: the authors'.

    The published comparisons ran CORL, whose cosine is periodic: having brought the actor's learning rate to 0 over the
    offline updates, it lets it rise again as slowly, to 2.4 % of it after 100,000 updates of 1,000,000.
    `actor_schedule=cosine_periodic` does so; the authors' own code has a constant rate online.

    Source: Kostrikov et al., IQL (arXiv:2110.06169); CORL's algorithms/finetune/iql.py.
    """

    update: iql.Config = part(iql.Config)
    actor_schedule: Literal["constant", "cosine_periodic"] = setting(
        "constant", "course of the actor's learning rate online", source="authors' code; cosine_periodic: CORL"
    )


def actor_schedule(config: Config) -> optax.Schedule:
    """Returns the actor's learning rate by its updates n, offline ones included.

    η   or   ½ η ( 1 + cos(π n / N) ),   N offline updates
    """
    lr, updates = config.update.actor_lr, config.update.updates
    if config.actor_schedule == "constant":
        return lambda count: jnp.full_like(count, lr, jnp.float32)

    def periodic(count: Array) -> Array:
        return 0.5 * lr * (1.0 + jnp.cos(jnp.pi * count / updates))

    return periodic


def operations(config: Config, spec: Spec) -> dict[str, Count]:
    """Returns what an update costs: that of the offline method."""
    return {"finetune": iql.operations(config.update, spec)["update"]}


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config.update, spec)._replace(actor_optimizer=optax.adam(actor_schedule(config)))
    online_update = functools.partial(update, nets, config.update)
    return continued.make(config, spec, iql.make(config.update, spec), "gaussian", online_update)
