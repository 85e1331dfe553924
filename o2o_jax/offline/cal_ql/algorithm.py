"""Cal-QL: the update of CQL on rows that come with their returns to go, the floor of its penalty."""

import functools

from o2o_jax import making
from o2o_jax.data.returns import RecordedReturns, ReturnsToGo
from o2o_jax.interfaces import Algorithm
from o2o_jax.offline import cql
from o2o_jax.offline.cal_ql.config import Config
from o2o_jax.offline.cql import State
from o2o_jax.types import Extras, Rollout, Spec


def make_networks(config: Config, spec: Spec) -> cql.algorithm.Networks:
    """Makes CQL's modules and optimisers with the authors' initial weights."""
    return cql.algorithm.make_networks(config, spec, "scaled_orthogonal", "scaled_orthogonal")


def recorded_returns(config: Config) -> RecordedReturns:
    """Returns what returns to go are, in units of the critics' values."""
    return RecordedReturns(config.discount, config.reward_scale, config.reward_shift, config.failure_reward)


def prepare(config: Config, state: State, dataset: Rollout) -> tuple[State, Extras]:
    """Computes the returns to go of every row.

    Args:
      config: settings.
      state: as it is; nothing of it is read.
      dataset: raw transitions [N], whole episodes.

    Returns:
      The state, and `ReturnsToGo` [N], of the data alone, without a tail.
    """
    return state, Extras(shared=ReturnsToGo(recorded_returns(config).of(dataset)))


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    return cql.algorithm.bound("cal_ql", make_networks(config, spec), config, functools.partial(prepare, config))
