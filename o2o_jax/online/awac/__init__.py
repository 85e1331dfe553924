"""AWAC online: the offline update continues, on all of the data and what the policy has met since."""

import dataclasses

from o2o_jax import making
from o2o_jax.interfaces import Algorithm
from o2o_jax.offline import awac
from o2o_jax.offline.awac import State
from o2o_jax.online import continued
from o2o_jax.operations import Count
from o2o_jax.settings import part
from o2o_jax.types import Spec

__all__ = ["Config", "State", "make", "operations"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(continued.ContinuedConfig):
    """Settings of AWAC online. Defaults: CORL's, which the paper ran.

    Source: Nair et al., AWAC (arXiv:2006.09359); CORL's algorithms/finetune/awac.py.
    """

    update: awac.Config = part(awac.Config)


def operations(config: Config, spec: Spec) -> dict[str, Count]:
    """Returns what an update costs: that of the offline method."""
    return {"finetune": awac.operations(config.update, spec)["update"]}


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    method = awac.make(config.update, spec)
    return continued.make(config, spec, method, "gaussian_free", method.phase("offline").update)
