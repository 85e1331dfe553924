"""Cal-QL: recorded updates and returns, the floor by hand and its gradient, settings."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data.returns import RecordedReturns, ReturnsToGo
from o2o_jax.data.transform import Normalizer
from o2o_jax.offline import cal_ql, cql
from o2o_jax.offline.cql import losses
from o2o_jax.ops.distributions import TanhGaussian
from o2o_jax.types import Annotated, Extras, Rollout
from tests.golden_numbers import ENTRY_ATOL, SCALAR_RTOL, SPEC, Golden, member
from tests.offline.test_cql import CRITIC_ARGUMENTS

# the sizes of the record, and the settings of mazes
RECORDED = cal_ql.Config(
    hidden=(32, 32),
    critic_hidden=(32, 32, 32),
    normalize_observations=False,
    actor_lr=1e-4,
    alpha_lr=1e-4,
    target_actions=3,
    num_actions=3,
    conservative_weight=5.0,
    target_gap=0.8,
)


def test_golden_updates():
    golden = Golden("cal_ql")
    algorithm = cal_ql.make(RECORDED, SPEC)
    actor = golden.params("actor", log_std_multiplier=1.0, log_std_offset=-1.0)
    critic = golden.ensemble("critic_1", "critic_2")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        state = algorithm.init(key, Normalizer.identity(SPEC.observation_dim))
        return state.replace(actor=actor, critic=critic, target_critic=critic)

    def batch(step):
        returns = jnp.asarray(golden.recorded("update", step, "batch/returns")[:, 0])
        return Annotated.of(golden.batch("update", step), Extras(shared=ReturnsToGo(returns)))

    state = start(jax.random.key(0))
    update = golden.replay("update", algorithm.phase("offline").update, batch)
    for step in golden.steps("update"):
        state, metrics = update(state, step)
        log = golden.log("update", step)
        bounded = [value for name, value in log.items() if name.startswith("bound_rate")]
        for name, expected in {
            "actor_loss": log["policy_loss"],
            "log_prob": log["log_pi_mean"],
            "alpha": log["alpha"],
            "alpha_loss": log["alpha_loss"],
            "critic_loss": log["qf1_loss"] + log["qf2_loss"],
            "td_loss": log["qf1_bellman_loss"] + log["qf2_bellman_loss"],
            "gap": (log["cql_qf1_diff"] + log["cql_qf2_diff"]) / 2,
            "q": (log["q1_pred_mean"] + log["q2_pred_mean"]) / 2,
            "alpha_prime": log["alpha_prime"],
            "alpha_prime_loss": log["alpha_prime_loss"],
            "bounded": sum(bounded) / len(bounded) * 2 / 3,  # of the uniform third none is
        }.items():
            np.testing.assert_allclose(metrics[name], expected, rtol=SCALAR_RTOL, atol=ENTRY_ATOL, err_msg=name)
        assert 0.1 < metrics["bounded"] < 0.6
        golden.check(
            "update",
            step,
            actor=state.actor,
            critic_1=member(state.critic, 0),
            critic_2=member(state.critic, 1),
            target_1=member(state.target_critic, 0),
            target_2=member(state.target_critic, 1),
            log_alpha=state.log_alpha,
            log_alpha_prime=state.log_alpha_prime,
        )
    assert step == 2


def recorded_rollout(golden, step):
    """Episodes of the record, one after the other, and their returns to go."""
    column = lambda name: jnp.asarray(golden.recorded("returns", step, f"batch/{name}"))
    reward, terminal = column("reward"), column("terminal")
    nothing = jnp.zeros((len(reward), 1))
    rollout = Rollout(nothing, nothing, reward, nothing, terminal, truncated=column("ended") * (1.0 - terminal))
    return rollout, column("returns")


@pytest.mark.parametrize(
    ("step", "recorded"), [(0, RecordedReturns(0.99)), (1, RecordedReturns(0.99, 10.0, -5.0, failure_reward=0.0))]
)
def test_golden_returns(step, recorded):
    rollout, expected = recorded_rollout(Golden("cal_ql"), step)
    np.testing.assert_allclose(recorded.of(rollout), expected, rtol=1e-5, atol=1e-5)
