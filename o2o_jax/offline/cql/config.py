"""Settings of CQL, and those that every method with its update has."""

import dataclasses

from o2o_jax.interfaces import Task, expect_task
from o2o_jax.offline.common import OfflineConfig
from o2o_jax.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConservativeConfig(OfflineConfig):
    """Settings of CQL's update. Defaults: the authors', for locomotion.

    Raises:
      ValueError: a temperature or a number of actions that is not above 0, a learning rate or weight below 0.
    """

    hidden: tuple[int, ...] = setting(
        (256, 256, 256), "widths of the actor's hidden layers", unit="units", source="CORL"
    )
    critic_hidden: tuple[int, ...] = setting(
        (256, 256, 256), "widths of the critics' hidden layers", unit="units", source="CORL; five layers in mazes"
    )
    num_critics: int = setting(2, "critics, whose lowest value the actor maximises", source="CORL; ten before WSRL")
    num_target_critics: int = setting(
        2,
        "critics, drawn anew for every update, whose lowest value is the target",
        source="CORL: both; two of ten before WSRL",
    )
    layer_norm: bool = setting(
        False, "LayerNorm in the critics, before the activation", source="CORL; true before WSRL"
    )
    actor_layer_norm: bool = setting(
        False, "LayerNorm in the actor, before the activation", source="CORL; true before WSRL"
    )
    normalize_observations: bool = setting(
        True, "observations scaled by the dataset's mean and deviation", source="OCR-CFT's offline code; false in mazes"
    )
    actor_lr: float = setting(3e-5, "learning rate of the actor", source="CORL; 1e-4 in mazes and on Adroit")
    alpha: float = setting(1.0, "temperature of the actor at the start", unit="return units per nat", source="CORL")
    alpha_lr: float = setting(3e-5, "learning rate of log α", source="CORL; 1e-4 in mazes and on Adroit")
    target_actions: int = setting(
        1,
        "actions sampled per next state, of which the best counts: max-target backup from 2 on",
        unit="actions",
        source="CORL; 10 in mazes",
    )
    conservative_weight: float = setting(
        10.0, "w, weight of the penalty on the gap", source="OCR-CFT's offline code; 5 in mazes, 1 on Adroit"
    )
    num_actions: int = setting(
        10,
        "actions sampled per state and kind: uniform, of π(·|s), of π(·|s')",
        unit="actions",
        source="CORL; arXiv:2006.04779, appendix F",
    )
    gap_temperature: float = setting(1.0, "T of the soft maximum", unit="return units per nat", source="CORL")
    gap_min: float | None = setting(
        None, "lower bound of a state's gap; None: none", unit="return units", source="CORL; −200 in mazes"
    )
    target_gap: float | None = setting(
        None,
        "gap of the Lagrange version, whose weight is w α' with α' learned; None: without",
        unit="return units",
        source="CORL; 0.8 in mazes",
    )
    log_alpha_prime: float = setting(1.0, "log α' at the start", source="CORL")
    alpha_prime_lr: float = setting(3e-4, "learning rate of log α'", source="CORL")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("alpha", "gap_temperature", "target_actions", "num_actions")
        self._not_negative("alpha_lr", "conservative_weight", "alpha_prime_lr")
        self._counts("num_critics", "num_target_critics")
        self._at_most("num_critics", "num_target_critics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ConservativeConfig):
    """Settings of CQL. Defaults: the authors', for locomotion."""

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Returns the settings for a task: of sparse rewards, the Lagrange version, best backups, deeper critics.

        On Adroit's pen a lower weight and a faster actor.
        """
        expect_task(task)
        if task.family == "adroit":
            return cls(conservative_weight=1.0, actor_lr=1e-4, alpha_lr=1e-4)
        if not task.sparse_reward:
            return cls()
        return cls(
            critic_hidden=(256,) * 5,
            normalize_observations=False,
            actor_lr=1e-4,
            alpha_lr=1e-4,
            reward_scale=10.0,
            reward_shift=-5.0,
            target_actions=10,
            conservative_weight=5.0,
            gap_min=-200.0,
            target_gap=0.8,
        )
