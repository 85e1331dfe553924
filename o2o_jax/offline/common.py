"""Settings that the offline actor-critics share."""

import dataclasses

from o2o_jax.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfflineConfig(Settings):
    """Settings common to the offline actor-critics. Defaults: the authors'.

    Raises:
      ValueError: `updates`, `batch_size` or a width below 1, a learning rate or `reward_scale` that is not above 0,
        `discount` outside (0, 1), or `polyak` outside (0, 1].
    """

    hidden: tuple[int, ...] = setting(
        (256, 256), "widths of the actor's hidden layers", unit="units", source="the method's authors' code"
    )
    critic_hidden: tuple[int, ...] = setting(
        (256, 256), "widths of the critics' hidden layers", unit="units", source="the method's authors' code"
    )
    updates: int = setting(1_000_000, "updates of the run", unit="updates", source="section H.1, CORL")
    batch_size: int = setting(256, "transitions per update", unit="transitions", source="CORL")
    discount: float = setting(0.99, "γ, per environment step", source="CORL")
    polyak: float = setting(
        0.005, "share of the networks copied into their targets per update of the targets", source="CORL"
    )
    actor_lr: float = setting(3e-4, "learning rate of the actor", source="CORL; 3e-5 for CQL on locomotion")
    critic_lr: float = setting(3e-4, "learning rate of the critics", source="CORL")
    reward_scale: float = setting(1.0, "factor of the raw rewards", source="D-15, D-54")
    reward_shift: float = setting(
        0.0, "added to the rewards after the scale", unit="reward units", source="D-15, D-54; −1 in mazes"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("updates", "batch_size")
        self._widths("hidden", "critic_hidden")
        self._inside(0, 1, "discount")
        self._share("polyak")
        self._positive("actor_lr", "critic_lr", "reward_scale")
