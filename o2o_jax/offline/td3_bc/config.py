"""Settings of TD3+BC."""

import dataclasses

from o2o_jax.interfaces import Task
from o2o_jax.offline.common import OfflineConfig
from o2o_jax.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OfflineConfig):
    """Settings of TD3+BC. Defaults: the authors', for locomotion."""

    alpha: float = setting(
        2.5, "weight of the Q term once its mean magnitude is scaled to 1", source="arXiv:2106.06860, Table 3"
    )
    policy_noise: float = setting(
        0.2,
        "standard deviation of the noise on target actions",
        unit="action units",
        source="arXiv:2106.06860, Table 3",
    )
    noise_clip: float = setting(0.5, "bound of that noise", unit="action units", source="arXiv:2106.06860, Table 3")
    policy_delay: int = setting(
        2,
        "critic updates per update of the actor and of all targets",
        unit="updates",
        source="arXiv:2106.06860, Table 3",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("alpha", "policy_noise", "noise_clip")
        self._counts("policy_delay")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Sparse rewards become −1 and 0; all else is the same everywhere."""
        return cls(reward_shift=-1.0 if task.sparse_reward else 0.0)
