"""What the offline actor-critics share: their settings."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfflineConfig:
    """Settings common to the offline actor-critics. Defaults: the authors'."""

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
        for name in ("updates", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("hidden", "critic_hidden"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must list the widths of one or more layers, got {getattr(self, name)}")
        if not 0 < self.discount < 1:
            raise ValueError(f"discount must lie in (0, 1), got {self.discount}")
        if not 0 < self.polyak <= 1:
            raise ValueError(f"polyak must lie in (0, 1], got {self.polyak}")
        for name in ("actor_lr", "critic_lr", "reward_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}")
