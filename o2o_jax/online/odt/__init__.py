"""Online DT: the decision transformer goes on, on whole episodes of its own and on the data's best."""

from o2o_jax.offline import dt
from o2o_jax.online.odt.algorithm import State, make
from o2o_jax.online.odt.config import Config, Interaction, Replay
from o2o_jax.operations import Count
from o2o_jax.types import Spec

__all__ = ["Config", "Interaction", "Replay", "State", "make", "operations"]


def operations(config: Config, spec: Spec) -> dict[str, Count]:
    """Returns what an update costs: that of the offline method."""
    return {"finetune": dt.operations(config.update, spec)["update"]}
