"""Settings of PA-RL."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.interfaces import Task
from o2o_jax.online import parts
from o2o_jax.online.common import OnlineConfig
from o2o_jax.online.parts import AUTHORS, OWN
from o2o_jax.policy import ONLINE_HIDDEN, ActionOptimization
from o2o_jax.settings import Settings, part, replaced, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(parts.Networks):
    """Policy and critics; all critics have LayerNorm."""

    head: Literal["tanh_gaussian", "gaussian", "gaussian_free"] = setting(
        "tanh_gaussian", "distribution of the policy, to which policies of another are cloned", source=OWN
    )
    hidden: tuple[int, ...] = setting(
        ONLINE_HIDDEN["tanh_gaussian"],
        "widths of the policy's hidden layers",
        unit="units",
        source=f"{OWN}: those of offline policies",
    )
    critic_hidden: tuple[int, ...] = setting(
        (256, 256), "widths of the critics' hidden layers", unit="units", source=f"{AUTHORS}; four layers in mazes"
    )
    num_critics: int = setting(10, "critics, by whose mean actions are improved", source=AUTHORS)
    num_target_critics: int = setting(
        2, "critics, drawn anew for every update, whose lowest value is the target", source=AUTHORS
    )
    num_bins: int = setting(
        1,
        "bins of the histograms that values are means of; 1: no histogram, values themselves",
        source=f"{OWN}; 128 in mazes",
    )
    value_low: float = setting(
        -100.0, "value of a histogram's first edge", unit="return units", source=f"{AUTHORS}, in mazes"
    )
    value_high: float = setting(0.0, "value of its last edge", unit="return units", source=f"{AUTHORS}, in mazes")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("num_critics", "num_target_critics", "num_bins")
        self._at_most("num_critics", "num_target_critics")
        if not self.value_low < self.value_high:
            raise ValueError(f"value_low must lie below value_high, {self.value_high}, got {self.value_low}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update(parts.Update):
    """Settings of the updates: batches, rates, rewards, the penalty."""

    actor_lr: float = setting(5e-5, "learning rate of the policy, as it imitates", source=f"{AUTHORS}, of fine-tuning")
    conservative_weight: float = setting(
        0.005, "weight of the calibrated penalty on sampled actions' values; 0 leaves it out", source=AUTHORS
    )
    num_actions: int = setting(
        10, "uniform actions per state in the penalty, which an improved action counts as much as", source=AUTHORS
    )
    failure_reward: float | None = setting(
        None,
        "raw reward of a step that doesn't reach the goal: episodes of nothing else return r / (1 − γ); None: no goal",
        unit="reward units",
        source=f"{AUTHORS}; 0 in mazes",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("num_actions")
        self._not_negative("conservative_weight")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimization(Settings):
    """Improvement of the policy's actions by the critics, wherever one is asked for."""

    samples: int = setting(32, "N, actions that the policy proposes at a state", unit="actions", source=AUTHORS)
    kept: int = setting(10, "K, the most valuable ones, which go on", unit="actions", source=AUTHORS)
    steps: int = setting(10, "steps of the gradient", source=AUTHORS)
    step_size: float = setting(3e-4, "η of such a step", unit="squared action units per return unit", source=AUTHORS)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("samples")
        self._not_negative("steps", "step_size")
        self._at_most("samples", "kept")
        if self.kept < 2:
            raise ValueError(
                f"kept must be at least 2, since the data's action takes the place of one, got {self.kept}"
            )

    @property
    def rule(self) -> ActionOptimization:
        """The same, as policies have it."""
        return ActionOptimization(self.samples, self.kept, self.steps, self.step_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Critics(Settings):
    """Training of the critics on the dataset, while the policy stays as it came."""

    updates: int = setting(
        1_000_000, "updates of the phase; 0 leaves it out", unit="updates", source=f"{AUTHORS}; 10,000 under fast"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("updates")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig):
    """Settings of PA-RL. Defaults: the authors', with values in the place of histograms where their range is unknown.

    Source: Mark et al., PA-RL (arXiv:2412.06685), and the configs and the commands of its code.
    """

    online_parts: ClassVar[frozenset[str]] = OnlineConfig.online_parts | {"interaction", "replay"}
    # a reduced form, which a processor can run: a seventieth of the operations
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {
            "networks.num_critics": 2,
            "update.actor_lr": 3e-4,
            "update.conservative_weight": 0.0,
            "optimization.samples": 8,
            "optimization.kept": 2,
            "optimization.steps": 3,
            "critics.updates": 10_000,
            "env_steps": 20_000,
            "evaluation.every_env_steps": 1_000,
        }
    )

    env_steps: int = setting(
        1_000_000,
        "length of fine-tuning, per seed",
        unit="environment steps",
        source=f"{AUTHORS}: 1,000 episodes of at most 1,000 steps",
    )
    evaluation: parts.Evaluation = part(parts.Evaluation, every_env_steps=50_000)
    networks: Networks = part(Networks)
    update: Update = part(Update)
    optimization: Optimization = part(Optimization)
    critics: Critics = part(Critics)
    interaction: parts.Interaction = part(parts.Interaction)
    replay: parts.Replay = part(parts.Replay)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replay.mode == "auto":
            raise ValueError("replay.mode=auto compares critics of the policy alone, not of improved actions: set half")
        self.replay.check_batch_size(self.update.batch_size)

    @classmethod
    def published(cls, task: Task) -> "Config":
        """Histograms of [−100, 0], r − 1 and four layers in mazes."""
        values: dict[str, Any] = {"evaluation.episodes": task.eval_episodes}
        if task.sparse_reward:
            values |= {
                "networks.critic_hidden": (256,) * 4,
                "networks.num_bins": 128,
                "update.reward_shift": -1.0,
                "update.failure_reward": 0.0,
            }
        return replaced(cls(), values)
