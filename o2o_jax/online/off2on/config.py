"""Settings of Off2On."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

from o2o_jax.data import replay
from o2o_jax.interfaces import Replay as ReplayRule
from o2o_jax.offline import cql_ensemble
from o2o_jax.online import continued
from o2o_jax.online.parts import AUTHORS
from o2o_jax.settings import Settings, part, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratio(Settings):
    """The network w(s, a) that tells fresh transitions from the dataset's, and the priorities that it makes."""

    hidden: tuple[int, ...] = setting((256, 256), "widths of its hidden layers", unit="units", source=AUTHORS)
    lr: float = setting(3e-4, "learning rate of it", source=AUTHORS)
    temperature: float = setting(5.0, "T of the priorities w^(1/T): the higher, the more alike", source=AUTHORS)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._widths("hidden")
        self._positive("lr", "temperature")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay(Settings):
    """Replay while fine-tuning: the dataset and fresh transitions, by their priorities."""

    fresh_share: float = setting(
        0.75,
        "share of the draws that the first 1,000 fresh transitions get",
        source=f"{AUTHORS}: its example, else 0.5",
    )
    buffer_size: int = setting(
        250_000,
        "fresh transitions that are kept, never more than env_steps",
        unit="transitions per seed",
        source=AUTHORS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._inside(0, 1, "fresh_share")
        self._counts("buffer_size")

    def rule(self, env_steps: int, batch_size: int, priority: Callable) -> ReplayRule:
        """Returns the rule of these settings, for a run of `env_steps`, batches [B] and their `priority`."""
        return replay.prioritized(max(1, min(self.buffer_size, env_steps)), batch_size, priority, self.fresh_share)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(continued.OfflineUpdateConfig):
    """Settings of Off2On. Defaults: the authors', with an update per environment step, as the paper ran it.

    `update` is what the ensemble was trained with; its temperature begins anew at `update.alpha`.

    Source: Lee et al. (arXiv:2107.00591), and the examples of its code.
    """

    online_parts: ClassVar[frozenset[str]] = continued.OfflineUpdateConfig.online_parts | {
        "actor_lr",
        "critic_lr",
        "ratio",
    }

    update: cql_ensemble.Config = part(cql_ensemble.Config)
    actor_lr: float = setting(3e-4, "learning rate of the actors and of log α online", source=AUTHORS)
    critic_lr: float = setting(3e-4, "learning rate of the critics online", source=AUTHORS)
    ratio: Ratio = part(Ratio)
    replay: Replay = part(Replay)
    interaction: continued.Interaction = part(continued.Interaction, warmup_env_steps=1_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("actor_lr", "critic_lr")
