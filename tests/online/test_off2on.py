"""Off2On: losses by hand, gradients, updates, the start."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks
from o2o_jax.data.replay import PrioritizedBatch
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.offline import cql_ensemble
from o2o_jax.online import off2on
from o2o_jax.online.off2on import algorithm as algorithm_of
from o2o_jax.online.off2on import losses
from o2o_jax.ops.density_ratio import ratio_priority
from o2o_jax.policy import hand_over
from o2o_jax.types import Spec, Transition
from tests import sharing
from tests.golden_numbers import SPEC as GOLDEN_SPEC
from tests.golden_numbers import Golden, member

SPEC = Spec(3, 2)
ENSEMBLE = cql_ensemble.Config(hidden=(8,), critic_hidden=(8,), batch_size=4, num_actions=2, num_agents=3)
CONFIG = off2on.Config(update=ENSEMBLE, ratio=off2on.Ratio(hidden=(8,)), env_steps=10)
RNG = np.random.default_rng(0)


def rows(number=4):
    return Transition(
        observation=RNG.normal(size=(number, 3)).astype(np.float32),
        action=RNG.uniform(-1, 1, (number, 2)).astype(np.float32),
        reward=RNG.normal(size=number).astype(np.float32),
        next_observation=RNG.normal(size=(number, 3)).astype(np.float32),
        terminated=np.array([0, 1, 0, 0], np.float32)[:number],
    )


BATCH = PrioritizedBatch(rows(), np.arange(4, dtype=np.int32), rows(), rows())


class Given:
    """A critic whose values are its parameters."""

    def apply(self, params, observation, action):
        del observation, action
        return params


@pytest.fixture(scope="module")
def handoff():
    method = cql_ensemble.make(ENSEMBLE, SPEC)
    state = sharing.jit(method.init)(jax.random.key(0), Normalizer.identity(3))
    return hand_over(method, state.replace(log_alpha=state.log_alpha - 1.0))


@pytest.fixture(scope="module")
def algorithm():
    return off2on.make(CONFIG, SPEC)


@pytest.fixture(scope="module")
def state(algorithm, handoff):
    return algorithm.init(jax.random.key(1), handoff)


def test_values_and_loss_by_hand():
    q = jnp.array([[1.0, 5.0], [2.0, 4.0], [7.0, 0.0], [3.0, 1.0]])  # two agents of two critics, two rows
    np.testing.assert_array_equal(losses.agent_values(q, 2), [[1, 4], [3, 0]])
    target = jnp.array([[1.0, 4.0], [5.0, 0.0]])
    loss, metrics = losses.critic_loss(q, Given(), jnp.zeros((2, 3)), jnp.zeros((2, 2)), target)
    # agent 1: (0 + 1) / 2 and (1 + 0) / 2; agent 2: (4 + 0) / 2 and (4 + 1) / 2
    np.testing.assert_allclose(loss, 0.5 + 0.5 + 2.0 + 2.5)
    np.testing.assert_allclose(metrics["target_q"], 2.5)
    gradient = jax.grad(lambda q: losses.critic_loss(q, Given(), None, None, target)[0])(q)
    np.testing.assert_allclose(gradient, (q - jnp.repeat(target, 2, axis=0)))  # 2 / B of the errors


def test_ratio_by_hand():
    network, seen = Given(), (None, None)
    np.testing.assert_array_equal(losses.density_ratio(jnp.array([-1.0, 2.0]), network, *seen), [0, 2])

    class Pair:
        def apply(self, params, observation, action):
            del action
            return params[observation]

    params = jnp.array([[3.0, 1.0], [1.0, 3.0]])
    loss = losses.ratio_loss(params, Pair(), (0, None), (1, None))
    np.testing.assert_allclose(loss, -np.mean(np.log([0.5, 1.0])) - np.mean(np.log([1.0, 1.5])), rtol=1e-6)


def test_the_start_is_the_ensemble(state, handoff):
    offline = handoff.state
    kernel, own = offline.critic["params"]["Dense_0"]["bias"], state.critic["params"]["Dense_0"]["bias"]
    np.testing.assert_array_equal(own, kernel.reshape(6, *kernel.shape[2:]))
    jax.tree.map(np.testing.assert_array_equal, state.target_critic, state.critic)  # not the offline targets
    jax.tree.map(np.testing.assert_array_equal, state.actor["params"]["members"], offline.actor["params"])
    np.testing.assert_allclose(state.log_alpha, 0.0)  # α begins anew
    nets = off2on.algorithm.make_networks(CONFIG, SPEC)
    ratio = losses.density_ratio(state.ratio, nets.ratio, BATCH.drawn.observation, BATCH.drawn.action)
    np.testing.assert_allclose(ratio, 1.0, atol=0.02)


def test_the_update_by_its_parts(algorithm, state):
    update = inspect.unwrap(algorithm.online.update)
    nets = off2on.algorithm.make_networks(CONFIG, SPEC)
    after, metrics = sharing.jit(update)(state, BATCH, jax.random.key(2))
    assert np.isfinite(list(metrics.values())).all()
    actor_key, target_key = jax.random.split(jax.random.key(2))
    drawn, alpha = BATCH.drawn, 1.0
    distribution = nets.actor.apply(state.actor, drawn.next_observation)
    action, log_prob = distribution.sample_and_log_prob(target_key)
    q = np.asarray(nets.critic.apply(state.target_critic, drawn.next_observation, action)).reshape(3, 2, 4)
    target = drawn.reward + 0.99 * (1 - drawn.terminated) * (q.min(axis=1) - alpha * np.asarray(log_prob))
    found = np.asarray(nets.critic.apply(state.critic, drawn.observation, drawn.action)).reshape(3, 2, 4)
    np.testing.assert_allclose(metrics["critic_loss"], ((found - target[:, None]) ** 2).mean(-1).sum(), rtol=1e-4)
    action, log_prob = nets.actor.apply(state.actor, drawn.observation).sample_and_log_prob(actor_key)
    q = np.asarray(nets.critic.apply(state.critic, drawn.observation, action)).reshape(3, 2, 4).min(1).mean(0)
    np.testing.assert_allclose(metrics["actor_loss"], np.mean(np.asarray(log_prob) - q), rtol=1e-4)
    # priorities are of the network before its step
    buffer = algorithm.online.replay.init(SPEC, 4)
    ratio, offline = (
        losses.density_ratio(state.ratio, nets.ratio, part.observation, part.action) for part in (drawn, BATCH.offline)
    )
    found = algorithm.online.replay.feedback(buffer, BATCH, state).priority
    np.testing.assert_allclose(found[:4], ratio_priority(ratio, offline, 5.0), rtol=1e-5)
    # Adam's first step moves every weight by its rate, unless its gradient is 0
    moved = np.abs(np.asarray(after.critic["params"]["Dense_0"]["bias"] - state.critic["params"]["Dense_0"]["bias"]))
    np.testing.assert_allclose(moved, 3e-4, rtol=1e-3)


def test_every_actor_learns_but_by_the_mixture(algorithm, state):
    after, _ = sharing.jit(inspect.unwrap(algorithm.online.update))(state, BATCH, jax.random.key(2))
    before, now = (part.actor["params"]["members"]["MLP_0"]["Dense_0"]["kernel"] for part in (state, after))
    assert np.all(np.abs(np.asarray(now - before)).max(axis=(1, 2)) > 1e-4)
    assert algorithm.policy(after).head == networks.MixtureActor.head


def test_settings():
    config = off2on.Config()
    assert (config.replay.fresh_share, config.ratio.temperature, config.interaction.warmup_env_steps) == (
        0.75,
        5.0,
        1_000,
    )
    run = dataclasses.asdict(ENSEMBLE)
    assert config.after("cql_ensemble", run).update == ENSEMBLE
    with pytest.raises(ValueError, match="fresh_share"):
        off2on.Replay(fresh_share=1.0)


def test_golden_updates():
    golden = Golden("off2on")
    ensemble = cql_ensemble.Config(hidden=(32, 32), critic_hidden=(32, 32), batch_size=32, num_agents=3)
    config = off2on.Config(update=ensemble, ratio=off2on.Ratio(hidden=(32, 32)))
    nets = algorithm_of.make_networks(config, GOLDEN_SPEC)
    scalars = {"log_std_multiplier": 1.0, "log_std_offset": 0.0}
    agents = [golden.params(f"actor_{k}", **scalars) for k in (1, 2, 3)]
    actor = nets.actor.of(jax.tree.map(lambda *leaves: jnp.stack(leaves), *agents))
    names = [f"critic_{k}_{j}" for k in (1, 2, 3) for j in (1, 2)]
    critic, ratio, log_alpha = golden.ensemble(*names), golden.params("ratio"), jnp.zeros(())
    # m and b, which the code doesn't have, don't learn here
    opt = algorithm_of.OptStates(
        nets.actor_optimizer.init(actor), nets.critic_optimizer.init(critic),
        nets.alpha_optimizer.init(log_alpha), nets.ratio_optimizer.init(ratio),
    )  # fmt: skip
    state = algorithm_of.State(
        actor=actor, critic=critic, target_critic=critic, log_alpha=log_alpha, ratio=ratio, opt=opt,
        transform=Transform(Normalizer.identity(5)), step=jnp.zeros((), jnp.int32),
    )  # fmt: skip

    def batch(step):
        parts = {"drawn": golden.batch("update", step)}
        for name in ("offline", "online"):
            columns = {key: golden.recorded("update", step, f"{name}/{key}") for key in ("observation", "action")}
            parts[name] = parts["drawn"].replace(**columns)
        return PrioritizedBatch(**parts, place=jnp.arange(32))

    def update(state, batch, key):
        before = algorithm_of.priority(nets, config, state, batch)
        after, metrics = algorithm_of.finetune(nets, config, state, batch, key)
        members = after.actor["params"]["members"] | {name: jnp.full(3, value) for name, value in scalars.items()}
        return after.replace(actor={"params": {"members": members}}), metrics | {"priority": before}

    replayed = golden.replay("update", update, batch)
    for step in golden.steps("update"):
        state, metrics = replayed(state, step)
        log = golden.log("update", step)
        for name, own in (("policy_loss", "actor_loss"), ("alpha_loss", "alpha_loss"), ("weight_loss", "ratio_loss")):
            np.testing.assert_allclose(metrics[own], log[name], rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(metrics["critic_loss"], log["qf1_loss"] + log["qf2_loss"], rtol=1e-5)
        np.testing.assert_allclose(metrics["priority"], golden.recorded("update", step, "found/priority"), rtol=1e-5)
        without = {name: values for name, values in state.actor["params"]["members"].items() if name not in scalars}
        found = {f"actor_{k}": {"params": member(without, k - 1)} for k in (1, 2, 3)}
        for i, name in enumerate(names):
            found[name] = member(state.critic, i)
            found[name.replace("critic", "target")] = member(state.target_critic, i)
        golden.check("update", step, **found, ratio=state.ratio, log_alpha=state.log_alpha)
    assert step == 2
