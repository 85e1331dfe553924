"""Settings of PEX."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from o2o_jax.offline import iql
from o2o_jax.online import continued
from o2o_jax.online.parts import AUTHORS
from o2o_jax.settings import Settings, part, replaced, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update(iql.Config):
    """Settings of IQL's update, with a sharper imitation: it is of the set's own actions, not of the data's."""

    inverse_temperature: float = setting(
        10.0, "b on the advantage of the set's actions", unit="per return unit", source=AUTHORS
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expansion(Settings):
    """Choice between the two policies."""

    inverse_temperature: float = setting(
        10.0, "η of the softmax of Q by which one of the two actions is taken", unit="per return unit", source=AUTHORS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("inverse_temperature")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(continued.ContinuedConfig):
    """Settings of PEX. Defaults: the authors'.

    `update` is what IQL's run was trained with, but for `update.inverse_temperature`, which is PEX's own.

    Source: Zhang et al., PEX (arXiv:2302.00935), and its code.
    """

    online_parts: ClassVar[frozenset[str]] = continued.ContinuedConfig.online_parts | {"expansion"}

    update: Update = part(Update)
    expansion: Expansion = part(Expansion)
    replay: continued.Replay = part(continued.Replay, mode="half", buffer_size=1_000_000)
    interaction: continued.Interaction = part(continued.Interaction, warmup_env_steps=5_000)

    def after(self, source: str, config: Mapping[str, Any]) -> Self:
        """Returns these settings with `update` as the offline run had it, but for the weights of imitation."""
        own = {"update.inverse_temperature": self.update.inverse_temperature}
        return replaced(super().after(source, config), own)
