"""Settings of plain SAC: direct fine-tuning from offline critics, or training from scratch."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar

from o2o_jax.interfaces import Task
from o2o_jax.online import constrained, o2sac, parts
from o2o_jax.online.common import ContinuedCriticsConfig
from o2o_jax.online.o2sac.config import THREE_LAYERS, Finetuning, Networks, Update
from o2o_jax.settings import part, replaced


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ContinuedCriticsConfig):
    """Settings of SAC, those of O2SAC that are left once the idea of the paper is switched off.

    The critics are those that CQL leaves: three hidden layers without LayerNorm.
    """

    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {path: o2sac.Config.fast[path] for path in ("env_steps", "update.actor_lr")}
    )

    networks: Networks = part(
        Networks, hidden=THREE_LAYERS, critic_hidden=THREE_LAYERS, layer_norm=False, critic_source="offline"
    )
    update: Update = part(Update)
    interaction: parts.Interaction = part(parts.Interaction)
    replay: parts.Replay = part(parts.Replay)
    finetune: Finetuning = part(Finetuning)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.replay.check_batch_size(self.update.batch_size)

    @classmethod
    def published(cls, task: Task) -> "Config":
        """O2SAC's temperature, rewards, depth and lengths on the same task; two critics, since CQL leaves two."""
        config = o2sac.Config.published(task)
        return replaced(cls(), constrained.settings_of_task(config) | {"update.alpha": config.update.alpha})

    @classmethod
    def from_scratch(cls) -> "Config":
        """SAC without offline data, as the behaviour policies are trained."""
        values = {"networks.hidden": (256, 256), "networks.critic_hidden": (256, 256), "update.alpha": 1.0}
        return replaced(cls(), {**constrained.FROM_SCRATCH, **values})

    def of_o2sac(self) -> o2sac.Config:
        """Returns O2SAC's settings with its idea switched off: no phase before the first step, no π_ref."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return o2sac.Config(**own, **constrained.switched_off(o2sac.Config()))
