"""Cal-QL online: the offline update continues, on half of the data and what the policy has met since."""

import dataclasses

from o2o_jax import making
from o2o_jax.data import replay
from o2o_jax.interfaces import Algorithm
from o2o_jax.offline import cal_ql
from o2o_jax.offline.cal_ql import State
from o2o_jax.online import continued
from o2o_jax.operations import Count
from o2o_jax.settings import part, setting
from o2o_jax.types import Spec

__all__ = ["Config", "State", "make", "operations"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(continued.ContinuedConfig):
    """Settings of Cal-QL online. Defaults: the authors'.

    Source: Nakamoto et al., Cal-QL (arXiv:2303.05479), and the commands of its code; CORL's cal_ql.py.
    """

    update: cal_ql.Config = part(cal_ql.Config)
    replay: continued.Replay = part(continued.Replay, mode="half")
    interaction: continued.Interaction = part(continued.Interaction, warmup_env_steps=1_000)
    calibrate_online: bool = setting(
        True,
        "returns to go as a floor online too, of the data's rows and of finished episodes; false: the update of CQL",
        source="authors' code; false: CORL",
    )


def operations(config: Config, spec: Spec) -> dict[str, Count]:
    """Returns what an update costs: that of the offline method."""
    return {"finetune": cal_ql.operations(config.update, spec)["update"]}


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    method = cal_ql.make(config.update, spec)
    offline = method.phase("offline")
    algorithm = continued.make(config, spec, method, "tanh_gaussian", offline.update)
    if not config.calibrate_online:
        return algorithm
    assert algorithm.online is not None
    recorded = cal_ql.recorded_returns(config.update)
    rule = replay.with_returns(algorithm.online.replay, recorded, config.schedule.num_envs)
    return algorithm._replace(online=algorithm.online._replace(replay=rule, prepare=offline.prepare))
