"""ReBRAC: penalty and losses by hand, gradients, an update by plain code, a probe, settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer
from o2o_jax.offline import rebrac, td3_bc
from o2o_jax.offline.rebrac import algorithm, losses
from o2o_jax.offline.rebrac.config import PENALTIES
from o2o_jax.ops.distributions import Deterministic
from o2o_jax.types import Annotated, Extras, Spec
from tests import sharing, tiny

SPEC = Spec(observation_dim=3, action_dim=2)
TINY = {"hidden": (8, 8), "critic_hidden": (8, 8), "policy_delay": 1}


class Actor:
    """A stand-in: π(s) = p in every dimension."""

    def apply(self, params, observation):
        return Deterministic(jnp.broadcast_to(params, (*observation.shape[:-1], 2)))


class Critics:
    """A stand-in: Q₁ = p₁ (1 + Σ a), Q₂ = p₂ (1 + Σ a)."""

    def apply(self, params, observation, action):
        del observation
        return jax.vmap(lambda p: p * (1.0 + jnp.sum(action, axis=-1)))(params)


def annotated(rows=8, terminated=0.0):
    batch = tiny.random_batch(SPEC, rows, terminated)
    action = jnp.linspace(-0.9, 0.9, 2 * rows).reshape(rows, 2)
    return Annotated.of(batch, Extras(shared=algorithm.NextAction(action, jnp.ones(rows).at[-1].set(0.0))))


def test_penalty_by_hand():
    # 0.5 ((0.5 − 0)² + (1 − 0.5)²) = 0.25;   nothing where the episode ends
    action, data = jnp.array([[0.5, 1.0], [0.5, 1.0]]), jnp.array([[0.0, 0.5], [-1.0, -1.0]])
    found = losses.distance_penalty(action, data, jnp.array([1.0, 0.0]), 0.5)
    np.testing.assert_allclose(found, [0.25, 0.0])


def test_actor_loss_and_gradient_by_hand():
    # π = (0.5, 0.5), a = (0, 0.5) and (0.5, −0.5): ‖π − a‖² = 0.25 and 1, mean 0.625.   min Q = −3 · 2 = −6: Q counts
    # as +1.   β₁ = 0.1: 0.0625 + 1.   By p: β₁ mean Σ 2 (p − a) = 0.1 (1 + 2) / 2 = 0.15, and −dQ/dp / 6 = 6 / 6
    nets = td3_bc.algorithm.Networks(Actor(), Critics(), None, None, None, SPEC)
    batch = annotated(2).replace(action=jnp.array([[0.0, 0.5], [0.5, -0.5]]))
    config = rebrac.Config(actor_penalty=0.1)
    (loss, metrics), gradient = jax.value_and_grad(algorithm.actor_loss, has_aux=True)(
        jnp.array(0.5), nets, config, jnp.array([2.0, -3.0]), batch
    )
    np.testing.assert_allclose([loss, metrics["cloning_loss"]], [1.0625, 0.625 / 2], rtol=1e-6)
    np.testing.assert_allclose(gradient, 0.15 + 1.0, rtol=1e-6)


def test_next_actions_are_those_of_the_episode():
    rows = tiny.random_rollout(SPEC, 5).replace(
        terminated=jnp.array([0.0, 1, 0, 0, 0]), truncated=jnp.array([0.0, 0, 1, 0, 0])
    )
    state, extras = algorithm.prepare("untouched", rows)
    assert state == "untouched"
    np.testing.assert_array_equal(extras.shared.known, [1.0, 0.0, 0.0, 1.0, 0.0])  # the last row goes nowhere
    for row in (0, 3):
        np.testing.assert_array_equal(extras.shared.action[row], rows.action[row + 1])


def test_plain_rows_are_refused():
    made = rebrac.make(rebrac.Config(**TINY), SPEC)
    state = jax.eval_shape(made.init, jax.random.key(0), Normalizer.identity(3))
    with pytest.raises(ValueError, match=r"^rebrac learns from the data's next actions, .* by the phase's prepare\("):
        jax.eval_shape(made.phase("offline").update, state, tiny.random_batch(SPEC), jax.random.key(0))


def plain(layers, x, last, norm):
    """A network as the page has it: Dense → (LayerNorm) → ReLU, twice, then Dense."""
    for i in range(2):
        x = x @ layers["MLP_0"][f"Dense_{i}"]["kernel"] + layers["MLP_0"][f"Dense_{i}"]["bias"][None]
        if norm:
            scale = layers["MLP_0"][f"LayerNorm_{i}"]
            x = (x - x.mean(axis=1, keepdims=True)) / jnp.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
            x = x * scale["scale"][None] + scale["bias"][None]
        x = jax.nn.relu(x)
    return last(x @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"][None])


def plain_value(layers, observation, action):
    return plain(layers, jnp.concatenate([observation, action], axis=1), lambda x: x[:, 0], norm=True)


def first_adam_step(params, gradient, rate):
    return jax.tree.map(lambda leaf, g: leaf - rate * g / (jnp.abs(g) + 1e-8), params, gradient)


def test_an_update_by_plain_code():
    """The page in a Python loop over critics, without this package's networks, losses or optimisers."""
    config = rebrac.Config(**TINY, actor_penalty=0.3, critic_penalty=0.7)
    made, batch, key = rebrac.make(config, SPEC), annotated(), jax.random.key(5)
    start = sharing.jit(made.init)(jax.random.key(1), Normalizer.identity(3))
    start = start.replace(**{
        name: tiny.far(getattr(start, name)) for name in ("target_actor", "target_critic")
    })  # fmt: skip
    end, _ = sharing.jit(made.phase("offline").update)(start, batch, key)

    noise = jnp.clip(0.2 * jax.random.normal(key, (8, 2)), -0.5, 0.5)
    following = jnp.clip(
        plain(start.target_actor["params"], batch.next_observation, jnp.tanh, False) + noise, -1.0, 1.0
    )
    of = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree["params"])
    targets = [plain_value(of(start.target_critic, i), batch.next_observation, following) for i in range(2)]
    distance = jnp.sum((following - batch.extras.shared.action) ** 2, axis=1) * batch.extras.shared.known
    y = batch.reward + 0.99 * (jnp.minimum(*targets) - 0.7 * distance)
    critics = []
    for i in range(2):
        layers = of(start.critic, i)
        gradient = jax.grad(lambda layers: jnp.mean((plain_value(layers, batch.observation, batch.action) - y) ** 2))(
            layers
        )
        critics.append(first_adam_step(layers, gradient, 1e-3))

    def loss(layers):
        action = plain(layers, batch.observation, jnp.tanh, False)
        q = jnp.minimum(*(plain_value(critic, batch.observation, action) for critic in critics))
        distance = jnp.sum((action - batch.action) ** 2, axis=1)
        return jnp.mean(0.3 * distance - q / jax.lax.stop_gradient(jnp.mean(jnp.abs(q))))

    actor = first_adam_step(start.actor["params"], jax.grad(loss)(start.actor["params"]), 1e-3)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6)
    jax.tree.map(close, end.actor["params"], actor)
    for i in range(2):
        jax.tree.map(close, of(end.critic, i), critics[i])
        followed = jax.tree.map(lambda old, new: 0.995 * old + 0.005 * new, of(start.target_critic, i), critics[i])
        jax.tree.map(close, of(end.target_critic, i), followed)


def test_without_penalties_and_with_one_critic_s_values_it_is_td3_bc():
    # the same mechanism: equal critics make min Q = Q₁, β₂ = 0 leaves the targets, and β₁ |A| = 1 / α the actor's step
    config = rebrac.Config(**TINY, actor_penalty=1.0 / 2.5 / 2, critic_penalty=0.0, actor_lr=3e-4, critic_lr=3e-4)
    made = rebrac.make(config, SPEC)
    start = sharing.jit(made.init)(jax.random.key(1), Normalizer.identity(3))
    both = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), start.critic)
    start = start.replace(critic=both, target_critic=both)
    end, _ = sharing.jit(made.phase("offline").update)(start, annotated(), jax.random.key(2))
    theirs = td3_bc.Config(**TINY)
    nets = td3_bc.algorithm.make_networks(theirs, SPEC, layer_norm=True, layer_init="fan_in")
    update = jax.jit(functools.partial(td3_bc.algorithm.update, nets, theirs, actor_loss=td3_bc.algorithm.actor_loss))
    expected, _ = update(start, annotated(), jax.random.key(2))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6)
    for part in ("actor", "critic", "target_actor", "target_critic"):
        jax.tree.map(close, getattr(end, part), getattr(expected, part))


def learning(key, actor_penalty, critic_penalty):
    """Trains on one state whose data are worth r = a, a in [−0.5, 0.5], and stays; returns action and value at 0."""
    config = rebrac.Config(
        hidden=(16,), critic_hidden=(32,), batch_size=64, discount=0.5, polyak=0.05, actor_lr=3e-3, critic_lr=3e-3,
        actor_penalty=actor_penalty, critic_penalty=critic_penalty, policy_noise=0.0,
    )  # fmt: skip
    spec = Spec(1, 1)
    made = rebrac.make(config, spec)
    nets = td3_bc.algorithm.make_networks(config, spec, layer_norm=True)
    state = made.init(key, Normalizer.identity(1))

    def step(state, key):
        keys = jax.random.split(key, 3)
        action, following = (jax.random.uniform(k, (64, 1), minval=-0.5, maxval=0.5) for k in keys[:2])
        rows = tiny.random_batch(spec, 64).replace(
            observation=jnp.zeros((64, 1)), next_observation=jnp.zeros((64, 1)), action=action, reward=action[:, 0]
        )
        extras = Extras(shared=algorithm.NextAction(following, jnp.ones(64)))
        return made.phase("offline").update(state, Annotated.of(rows, extras), keys[2])[0], None

    state, _ = jax.lax.scan(step, state, jax.random.split(key, 600))
    zero = jnp.zeros((1, 1))
    return made.policy(state).distribution(zero).mode()[0, 0], jnp.min(nets.critic.apply(state.critic, zero, zero))


def test_probe_each_penalty_holds_what_it_is_for():
    # an actor held to the data (β₁ ‖π − a‖² outweighs Q) does its mean action 0, whose next value is then 0 − β₂ E a² =
    # −2 / 12: Q(0) = γ (Q(0) − β₂ / 12) = −1/6 for γ = ½ and β₂ = 2, and 0 without
    held = tiny.over_keys(functools.partial(learning, actor_penalty=1e3, critic_penalty=2.0))
    np.testing.assert_allclose(held[0], 0.0, atol=0.05)
    np.testing.assert_allclose(held[1], -1.0 / 6.0, atol=0.06)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mujoco/hopper-medium", {}),
        ("mujoco/hopper-v4-medium-replay", {"actor_penalty": 0.05, "critic_penalty": 0.5}),
        ("mujoco/walker2d-expert", {"critic_penalty": 0.5}),
        ("antmaze/umaze", {"sparse": True, "actor_penalty": 0.003, "critic_penalty": 0.002}),
        ("antmaze/medium-diverse", {"sparse": True, "actor_penalty": 0.001, "critic_penalty": 0.0}),
        ("pointmaze/large", {"sparse": True, "actor_penalty": 0.002, "critic_penalty": 0.001}),
        ("adroit/pen-cloned", {"pen": True, "actor_penalty": 0.05, "critic_penalty": 0.5}),
    ],
)
def test_settings_of_a_task(name, changes):
    sparse = {"batch_size": 256, "discount": 0.999, "actor_lr": 3e-4, "critic_lr": 5e-5, "reward_scale": 100.0}
    pen = {"batch_size": 256, "actor_lr": 3e-4, "critic_lr": 3e-4}
    changes = dict(changes)
    shared = (sparse if changes.pop("sparse", False) else {}) | (pen if changes.pop("pen", False) else {})
    assert rebrac.Config.for_task(envs.get_task(name)) == rebrac.Config(**shared, **changes)


def test_every_dataset_that_the_authors_have_is_a_task():
    tasks = [*(f"mujoco/{robot}-{quality}" for robot, quality in list(PENALTIES)[:15])]
    tasks += [f"antmaze/{maze}-{kind}".removesuffix("-") for maze, kind in list(PENALTIES)[15:21]]
    tasks += [f"adroit/{robot}-{quality}" for robot, quality in list(PENALTIES)[21:]]
    found = {(task.robot, task.quality) for task in map(envs.get_task, tasks)}
    assert found == PENALTIES.keys()


@pytest.mark.parametrize("field", ["actor_penalty", "critic_penalty"])
def test_settings_refuse(field):
    with pytest.raises(ValueError, match=f"^{field} must be at least 0, got -0.1$"):
        rebrac.Config(**{field: -0.1})
