"""Settings of WSRL."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar

from o2o_jax.interfaces import Task
from o2o_jax.online import o2sac, parts
from o2o_jax.online.common import ContinuedCriticsConfig
from o2o_jax.online.o2sac.config import THREE_LAYERS, Alignment, Finetuning
from o2o_jax.online.parts import AUTHORS
from o2o_jax.settings import part, replaced, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(o2sac.Networks):
    """Networks, and where the critics come from: those of the offline run."""

    num_critics: int = setting(10, "critics, whose lowest value the actor maximises", source=AUTHORS)
    num_target_critics: int = setting(
        2, "critics, drawn anew for every step, whose lowest value is the target", source=AUTHORS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("num_target_critics")
        self._at_most("num_critics", "num_target_critics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update(o2sac.Update):
    """Settings of the updates: batches, rates, rewards, targets."""

    batch_size: int = setting(
        1_024, "transitions per update, all of which the actor sees at once", unit="transitions", source=AUTHORS
    )
    critic_steps: int = setting(
        4, "equal parts of a batch, each of which the critics take a step on, before the actor's one", source=AUTHORS
    )
    backup_entropy: bool = setting(
        False,
        "entropy of the next action as part of the target",
        source=f"{AUTHORS}; re-evaluated critics have it: true for them",
    )
    target_actions: int = setting(
        1,
        "actions sampled per next state, of which the best counts",
        unit="actions",
        source=f"{AUTHORS}; 10 in mazes",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("critic_steps", "target_actions")
        if self.batch_size % self.critic_steps:
            raise ValueError(
                f"batch_size must be a multiple of critic_steps, {self.critic_steps}, got {self.batch_size}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ContinuedCriticsConfig):
    """Settings of WSRL. Defaults: the authors', of offline runs of this package.

    Source: Zhou et al., WSRL (arXiv:2412.07762), and the commands and configs of its code.
    """

    online_parts: ClassVar[frozenset[str]] = ContinuedCriticsConfig.online_parts | {
        "interaction",
        "replay",
        "start",
        "finetune",
    }
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {"env_steps": 20_000, "evaluation.every_env_steps": 1_000}
    )

    env_steps: int = setting(500_000, "length of fine-tuning, per seed", unit="environment steps", source=AUTHORS)
    evaluation: parts.Evaluation = part(parts.Evaluation, every_env_steps=20_000)
    networks: Networks = part(Networks, hidden=THREE_LAYERS, critic_hidden=THREE_LAYERS, critic_source="offline")
    update: Update = part(Update)
    reevaluate: parts.Reevaluation = part(parts.Reevaluation, updates=0)
    align: Alignment = part(Alignment, updates=0)
    early_stopping: parts.EarlyStopping = part(parts.EarlyStopping)
    start: parts.Start = part(parts.Start, actor="offline")
    interaction: parts.Interaction = part(parts.Interaction, warmup_env_steps=5_000)
    replay: parts.Replay = part(parts.Replay, mode="none")
    finetune: Finetuning = part(Finetuning, alpha_lr=1e-4)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.replay.check_batch_size(self.update.batch_size)
        self.of_o2sac()  # refuses what contradicts there

    @classmethod
    def published(cls, task: Task) -> "Config":
        """The best of ten actions in targets, four layers and 10 r − 5 in mazes."""
        values: dict[str, Any] = {"evaluation.episodes": task.eval_episodes}
        if task.sparse_reward:
            values |= {
                "networks.hidden": (256, 256),
                "networks.critic_hidden": (256,) * 4,
                "update.target_actions": 10,
                "update.reward_scale": 10.0,
                "update.reward_shift": -5.0,
            }
        return replaced(cls(), values)

    def warnings(self, source: str) -> list[str]:
        """Returns warnings where targets lack what the critics have learnt to count, a line each."""
        del source
        if not self.reevaluate.updates or self.update.backup_entropy:
            return []
        return ["re-evaluated critics count the policy's entropy, targets online don't: set update.backup_entropy=true"]

    def of_o2sac(self) -> o2sac.Config:
        """Returns O2SAC's settings up to the first environment step: its phases, on batches of the critics' steps."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        update = {field.name: getattr(self.update, field.name) for field in dataclasses.fields(o2sac.Update)}
        update["batch_size"] //= self.update.critic_steps
        own |= {"update": o2sac.Update(**update), "replay": parts.Replay(mode="none")}
        return o2sac.Config(**own, constraint=None, reference=None)
