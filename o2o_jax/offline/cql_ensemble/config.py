"""Settings of an ensemble of CQL agents."""

import dataclasses

from o2o_jax.interfaces import Task
from o2o_jax.offline import cql
from o2o_jax.offline.cql.config import ConservativeConfig
from o2o_jax.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ConservativeConfig):
    """Settings of an ensemble of CQL agents. Defaults: those of one, for locomotion."""

    num_agents: int = setting(5, "agents, each with an actor, critics and batches of its own", source="authors' code")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("num_agents")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Returns the settings for a task: CQL's."""
        return cls(**dataclasses.asdict(cql.Config.for_task(task)))
