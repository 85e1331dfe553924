"""IQL online: the offline update continues, on all of the data and what the policy has met since."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import optax

from o2o_jax.interfaces import Algorithm, Task
from o2o_jax.offline import iql
from o2o_jax.offline.iql import State
from o2o_jax.offline.iql.algorithm import make_networks, update
from o2o_jax.online import continued
from o2o_jax.online.common import OnlineConfig
from o2o_jax.operations import Count
from o2o_jax.settings import part, setting
from o2o_jax.types import Array, Spec

__all__ = ["Config", "State", "actor_schedule", "make", "operations"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig):
    """Settings of IQL online. Defaults: the authors'.

    `update` is what the offline run was trained with: `after` takes it from there, and `--set=update.batch_size=…`
    changes it. Networks, rewards and discount can't be changed, since the state holds what came of them.

    The published comparisons ran CORL, whose cosine is periodic: having brought the actor's learning rate to 0 over the
    offline updates, it lets it rise again as slowly, to 2.4 % of it after 100,000 updates of 1,000,000.
    `actor_schedule=cosine_periodic` does so; the authors' own code has a constant rate online.

    Source: Kostrikov et al., IQL (arXiv:2110.06169); CORL's algorithms/finetune/iql.py.
    """

    online_parts: ClassVar[frozenset[str]] = OnlineConfig.online_parts | continued.ONLINE_PARTS
    fast: ClassVar[Mapping[str, Any]] = continued.FAST

    update: iql.Config = part(iql.Config)
    actor_schedule: Literal["constant", "cosine_periodic"] = setting(
        "constant", "course of the actor's learning rate online", source="authors' code; cosine_periodic: CORL"
    )
    replay: continued.Replay = part(continued.Replay)
    interaction: continued.Interaction = part(continued.Interaction)

    def __post_init__(self) -> None:
        super().__post_init__()
        continued.check(self)

    @property
    def networks(self) -> iql.Config:
        """Sizes of the networks, which are those of the offline method."""
        return self.update

    @classmethod
    def published(cls, task: Task) -> "Config":
        """The protocol of the paper's comparisons: 100,000 environment steps, in mazes 200,000."""
        return continued.published(cls(), task)

    def after(self, source: str, config: Mapping[str, Any]) -> "Config":
        """Returns these settings with `update` as the offline run had it, where it is a run of the same method."""
        del source
        return continued.after(self, config)


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


def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config.update, spec)._replace(actor_optimizer=optax.adam(actor_schedule(config)))
    online_update = functools.partial(update, nets, config.update)
    return continued.make(config, spec, iql.make(config.update, spec), "gaussian", online_update)
