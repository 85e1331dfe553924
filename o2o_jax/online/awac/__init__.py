"""AWAC online: the offline update continues, on all of the data and what the policy has met since."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from o2o_jax.interfaces import Algorithm, Task
from o2o_jax.offline import awac
from o2o_jax.offline.awac import State
from o2o_jax.online import continued
from o2o_jax.online.common import OnlineConfig
from o2o_jax.operations import Count
from o2o_jax.settings import part
from o2o_jax.types import Spec

__all__ = ["Config", "State", "make", "operations"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig):
    """Settings of AWAC online. Defaults: CORL's, which the paper ran.

    `update` is what the offline run was trained with: `after` takes it from there, and `--set=update.batch_size=…`
    changes it. Networks, rewards and discount can't be changed, since the state holds what came of them.

    Source: Nair et al., AWAC (arXiv:2006.09359); CORL's algorithms/finetune/awac.py.
    """

    online_parts: ClassVar[frozenset[str]] = OnlineConfig.online_parts | continued.ONLINE_PARTS
    fast: ClassVar[Mapping[str, Any]] = continued.FAST

    update: awac.Config = part(awac.Config)
    replay: continued.Replay = part(continued.Replay)
    interaction: continued.Interaction = part(continued.Interaction)

    def __post_init__(self) -> None:
        super().__post_init__()
        continued.check(self)

    @property
    def networks(self) -> awac.Config:
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


def operations(config: Config, spec: Spec) -> dict[str, Count]:
    """Returns what an update costs: that of the offline method."""
    return {"finetune": awac.operations(config.update, spec)["update"]}


def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    method = awac.make(config.update, spec)
    return continued.make(config, spec, method, "gaussian_free", method.phase("offline").update)
