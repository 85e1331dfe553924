"""Cal-QL: the update of CQL on rows that come with their returns to go, the floor of its penalty."""

import functools

from o2o_jax import making
from o2o_jax.data.returns import RecordedReturns, prepare
from o2o_jax.interfaces import Algorithm
from o2o_jax.offline import cql
from o2o_jax.offline.cal_ql.config import Config
from o2o_jax.types import Spec


def make_networks(config: Config, spec: Spec) -> cql.algorithm.Networks:
    """Makes CQL's modules and optimisers with the authors' initial weights."""
    return cql.algorithm.make_networks(config, spec, "scaled_orthogonal", "scaled_orthogonal")


def recorded_returns(config: Config) -> RecordedReturns:
    """Returns what returns to go are, in units of the critics' values."""
    return RecordedReturns(config.discount, config.reward_scale, config.reward_shift, config.failure_reward)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    annotate = functools.partial(prepare, recorded_returns(config))
    return cql.algorithm.bound("cal_ql", make_networks(config, spec), config, annotate)
