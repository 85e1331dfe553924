"""Cal-QL: recorded updates and returns, the floor by hand and its gradient, settings."""

import dataclasses
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data import replay
from o2o_jax.data.returns import RecordedReturns, ReturnsToGo
from o2o_jax.data.transform import Normalizer
from o2o_jax.offline import cal_ql, cql
from o2o_jax.offline.cql import losses
from o2o_jax.ops.distributions import TanhGaussian
from o2o_jax.types import Annotated, Extras, Rollout, Spec
from tests import tiny
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
        assert 0.16 < metrics["bounded"] < 0.51  # by the record's returns between a quarter and three of two thirds
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
    # the replay rule finds them step by step, too
    rule = replay.with_returns(replay.make("none", len(expected), 1), recorded)
    start = rule.init(Spec(1, 1))
    buffer, _ = jax.jit(lambda: jax.lax.scan(lambda buffer, row: (rule.add(buffer, row), None), start, rollout))()
    np.testing.assert_allclose(buffer.returns, expected, rtol=1e-5, atol=1e-5)


def test_the_floor_is_under_the_policy_s_actions_alone():
    distribution = TanhGaussian(jnp.zeros((2, 1)), jnp.zeros((2, 1)))
    sampled = losses.sampled_actions(distribution, distribution, jax.random.key(0), 2, jnp.array([3.0, -1.0]))
    none = -np.inf
    np.testing.assert_array_equal(sampled.floor, [[none, none, 3, 3, 3, 3], [none, none, -1, -1, -1, -1]])


FLOOR = jnp.array([[-jnp.inf, math.log(3.0)]])  # of the actions 0 and 1, whose log-densities are −log 2 and 0


def critic_loss(params, floor):
    arguments = CRITIC_ARGUMENTS | {"sampled": CRITIC_ARGUMENTS["sampled"]._replace(floor=floor)}
    return losses.critic_loss(params, **arguments)


def test_critic_loss_with_a_floor_by_hand():
    # Q_i(1) = 0 and log 2 both count as log 3: gaps log(2 e⁰ + 3) − Q_i(0.5) = log 5 − 0 and log 5 − 0.34657; errors as
    # without: 4 + 2.73384 + 10 (1.60944 + 1.26287) = 35.45690
    loss, (gap, metrics) = critic_loss(jnp.array([0.0, math.log(2.0)]), FLOOR)
    np.testing.assert_allclose(gap, [math.log(5.0), 1.262864], rtol=1e-5)
    np.testing.assert_allclose(loss, 35.45690, rtol=1e-5)
    assert metrics["bounded"] == 0.5  # both critics' Q(1), of two actions each
    # above its floor, Q(1) = log 4, nothing is bounded: log(2 + 4) − log 2
    _, (gap, metrics) = critic_loss(jnp.array([math.log(4.0)]), FLOOR)
    np.testing.assert_allclose(gap, [math.log(3.0)], rtol=1e-5)
    assert metrics["bounded"] == 0.0


def test_gradient_with_a_floor_in_closed_form():
    # p = 0: 2 (0 − 2) 0.5 + 10 (0 − 0.5) = −7, as Q(1) is bounded and Q(0) has no gradient by p
    # p = log 4: 2 (log 2 − 2) 0.5 + 10 (4 / 6 − 0.5), as without a floor
    params = jnp.array([0.0, math.log(4.0)])
    gradient, _ = jax.grad(critic_loss, has_aux=True)(params, FLOOR)
    np.testing.assert_allclose(gradient, [-7.0, math.log(2.0) - 2.0 + 10.0 / 6.0], rtol=1e-5)
    # unknown returns leave CQL's loss
    nothing, _ = jax.grad(critic_loss, has_aux=True)(params, jnp.full((1, 2), -jnp.inf))
    without, _ = jax.grad(losses.critic_loss, has_aux=True)(params, **CRITIC_ARGUMENTS)
    np.testing.assert_array_equal(nothing, without)


def test_offline_training_is_cql_s_on_rows_with_returns():
    algorithm = cal_ql.make(dataclasses.replace(RECORDED, reward_scale=2.0, reward_shift=1.0), SPEC)
    assert inspect.unwrap(algorithm.phase("offline").update).func is cql.algorithm.update
    rollout = tiny.random_rollout(SPEC, 4)
    start = jax.eval_shape(algorithm.init, jax.random.key(0), Normalizer.identity(SPEC.observation_dim))
    state, extras = algorithm.phase("offline").prepare(start, rollout)
    assert state is start
    reward = 2.0 * np.asarray(rollout.reward) + 1.0
    np.testing.assert_allclose(extras.shared.value, [sum(reward[t:] * 0.99 ** np.arange(4 - t)) for t in range(4)])


def test_settings_of_tasks():
    locomotion = cal_ql.Config.for_task(envs.get_task("mujoco/hopper-medium"))
    assert locomotion == cal_ql.Config()
    assert (locomotion.hidden, locomotion.critic_hidden) == ((256, 256, 256), (256, 256))
    assert (locomotion.conservative_weight, locomotion.target_gap, locomotion.target_actions) == (10.0, None, 1)
    for name in ("antmaze/umaze", "pointmaze/medium"):
        maze = cal_ql.Config.for_task(envs.get_task(name))
        assert (maze.hidden, maze.critic_hidden) == ((256, 256), (256, 256, 256, 256))
        assert (maze.conservative_weight, maze.target_gap, maze.target_actions, maze.gap_min) == (5.0, 0.8, 10, None)
        assert (maze.reward_scale, maze.reward_shift, maze.failure_reward) == (10.0, -5.0, 0.0)
    pen = cal_ql.Config.for_task(envs.get_task("adroit/pen-human"))
    assert (pen.conservative_weight, pen.target_gap, pen.target_actions, pen.critic_hidden) == (
        1.0,
        None,
        10,
        (256,) * 3,
    )
    for config in (maze, pen):
        assert (config.actor_lr, config.critic_lr, config.normalize_observations) == (1e-4, 3e-4, False)
