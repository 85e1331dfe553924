"""Settings that the offline actor-critics share."""

import dataclasses

from o2o_jax.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfflineConfig(Settings):
    """Settings common to the offline actor-critics. Defaults: the authors'.

    Raises:
      ValueError: `updates`, `batch_size` or a width below 1, a learning rate or `reward_scale` that is not above 0,
        `discount` outside (0, 1), or `polyak` outside (0, 1].
    """

    # Networks
    hidden: tuple[int, ...] = (256, 256)  # actor
    critic_hidden: tuple[int, ...] = (256, 256)
    # Updates
    updates: int = 1_000_000
    batch_size: int = 256  # transitions per update
    discount: float = 0.99  # γ per environment step
    polyak: float = 0.005  # share of the networks copied into their targets per update of the targets
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    reward_scale: float = 1.0
    reward_shift: float = 0.0  # reward units, after the scale

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("updates", "batch_size")
        self._widths("hidden", "critic_hidden")
        self._inside(0, 1, "discount")
        if not 0 < self.polyak <= 1:
            raise ValueError(f"polyak must lie in (0, 1], got {self.polyak}")
        self._positive("actor_lr", "critic_lr", "reward_scale")
