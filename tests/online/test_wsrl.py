"""WSRL: recorded updates, one in closed form, what it starts from, re-evaluated and aligned critics, settings."""

import dataclasses
import functools
import inspect
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.losses import next_value
from o2o_jax.offline import cql
from o2o_jax.online import common, o2sac, rlpd, wsrl
from o2o_jax.online.wsrl import algorithm
from o2o_jax.policy import hand_over
from o2o_jax.types import Annotated, Spec
from tests import sharing, tiny
from tests.golden_numbers import SPEC as GOLDEN_SPEC
from tests.golden_numbers import Golden, member, replayed_draws
from tests.online.test_rlpd import CRITIC, Actor, Critics

SPEC = Spec(observation_dim=3, action_dim=2)
SIZES = {"hidden": (8, 8), "critic_hidden": (8, 8), "num_critics": 3, "layer_norm": True, "actor_layer_norm": True}
BATCH = tiny.random_rollout(SPEC, 8)


def test_golden_updates():
    golden = Golden("wsrl")
    config = tiny.config(
        wsrl.Config, **SIZES | {"hidden": (32, 32), "critic_hidden": (32, 32), "num_critics": 4}, alpha=0.5,
        batch_size=32, target_actions=3, critic_source="random", finetune_alpha_lr=0.0,
    )  # fmt: skip
    made = wsrl.make(config, GOLDEN_SPEC)
    log_std = {"log_std_multiplier": jnp.ones(()), "log_std_offset": jnp.zeros(())}  # which the authors' code lacks
    actor = golden.params("actor", **log_std)
    critic = golden.ensemble(*(f"critic_{number}" for number in range(1, 5)))

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        return made.init(key).replace(actor=actor, critic=critic, target_critic=critic)

    @jax.jit
    def update(state, batch, next_noise, subsets, noise):
        scan = jax.lax.scan

        def scan_with_draws(body, carry, rows):
            def step(carry, drawn):
                rows, noise, subset = drawn
                drawing = mock.patch.object(jax.random, "permutation", return_value=subset)
                with replayed_draws([noise]), drawing:
                    return body(carry, rows)

            return scan(step, carry, (rows, next_noise, subsets))

        with replayed_draws([noise]), mock.patch.object(jax.lax, "scan", scan_with_draws):
            return made.online.update(state, batch, jax.random.key(0))

    state = start(jax.random.key(0))
    for step in golden.steps("update"):
        state, metrics = update(state, golden.batch("update", step), *golden.recorded_draws("update", step))
        log = golden.log("update", step)
        for name, expected in {
            "critic_loss": log["critic_loss"], "q": log["predicted_qs"], "target_q": log["target_qs"],
            "actor_loss": log["actor_loss"], "alpha": log["temperature"], "log_prob": -log["entropy"],
        }.items():  # fmt: skip
            np.testing.assert_allclose(metrics[name], expected, rtol=1e-5, atol=2e-5, err_msg=name)
        layers = {name: leaf for name, leaf in state.actor["params"].items() if name not in log_std}
        critics = {f"critic_{i + 1}": member(state.critic, i) for i in range(4)}
        targets = {f"target_{i + 1}": member(state.target_critic, i) for i in range(4)}
        golden.check("update", step, actor={"params": layers}, **critics, **targets)
        state = state.replace(actor={"params": state.actor["params"] | log_std})
    assert step == 2


def test_an_update_in_closed_form():
    """Linear critics, one action, gradient descent, two steps of the critics: gradients written out in NumPy."""
    config = tiny.config(
        wsrl.Config, num_critics=3, num_target_critics=1, critic_steps=2, batch_size=6, polyak=0.1, discount=0.9,
        critic_source="random",
    )  # fmt: skip
    nets = algorithm.Networks(
        Actor(), Critics(3), Critics(1), optax.sgd(0.1), optax.sgd(0.2), optax.sgd(0.3), Spec(1, 1)
    )
    opt = rlpd.algorithm.OptStates(*(rule.init(()) for rule in nets[3:6]))
    target = jax.tree.map(lambda leaf: leaf + 0.25, CRITIC)
    transform = Transform(Normalizer.identity(1))
    start = rlpd.State(jnp.full(1, 0.3), CRITIC, target, jnp.log(0.5), opt, transform, jnp.zeros((), jnp.int32))
    batch, key = tiny.random_batch(Spec(1, 1), 6).replace(terminated=jnp.array([0.0, 1, 0, 0, 0, 1])), jax.random.key(7)
    # operation by operation: XLA may compute b + p a twice, rounded in two ways, and then neither is the minimum
    state, metrics = algorithm.finetune(nets, config, start, batch, key)

    reward, action, terminated = (
        np.asarray(column, np.float64) for column in (batch.reward, batch.action[:, 0], batch.terminated)
    )
    (b, p), (b_bar, p_bar) = np.array(CRITIC, np.float64), np.array(CRITIC, np.float64) + 0.25

    def draw(key, rows):
        noise = np.asarray(jax.random.normal(key, (rows, 1)), np.float64)[:, 0]
        unsquashed = 0.3 + 0.5 * noise
        density = -0.5 * noise**2 - np.log(0.5) - 0.5 * np.log(2 * np.pi) - np.log1p(-(np.tanh(unsquashed) ** 2))
        return np.tanh(unsquashed), density

    critic_key, actor_key = jax.random.split(key)
    losses = []
    for rows, step_key in zip((slice(3), slice(3, 6)), jax.random.split(critic_key, 2), strict=True):
        subset_key, action_key = jax.random.split(step_key)
        j = int(jax.random.permutation(subset_key, 3)[0])
        # no entropy in the target
        y = reward[rows] + 0.9 * (1 - terminated[rows]) * (b_bar[j] + p_bar[j] * draw(action_key, 3)[0])
        error = b[:, None] + p[:, None] * action[rows] - y
        losses.append(np.mean(error**2))
        b, p = b - 0.2 * 2 / 3 * error.mean(axis=1), p - 0.2 * 2 / 3 * (error * action[rows]).mean(axis=1)
        b_bar, p_bar = 0.9 * b_bar + 0.1 * b, 0.9 * p_bar + 0.1 * p
    np.testing.assert_allclose(state.critic, (b, p), rtol=1e-5)
    np.testing.assert_allclose(state.target_critic, (b_bar, p_bar), rtol=1e-5)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(losses), rtol=1e-5)
    # the actor by the lowest critic of each of all six actions, those just stepped; H̄ = −1
    a, density = draw(actor_key, 6)
    lowest = np.argmin(b[:, None] + p[:, None] * a, axis=0)
    np.testing.assert_allclose(state.actor, [0.3 - 0.1 * np.mean(0.5 * 2 * a - p[lowest] * (1 - a**2))], rtol=1e-5)
    np.testing.assert_allclose(state.log_alpha, np.log(0.5) - 0.3 * -0.5 * (density.mean() - 1.0), rtol=1e-5)
    assert int(state.step) == 1


@functools.cache
def trained(**settings):
    """CQL, and its state after one update."""
    method = cql.make(cql.Config(**SIZES | settings, num_actions=2), SPEC)
    state = sharing.jit(method.init)(jax.random.key(0), Normalizer(jnp.ones(3), jnp.full(3, 2.0)))
    state, metrics = sharing.jit(method.phase("offline").update)(state, BATCH, jax.random.key(0))
    return method, state, metrics


@functools.cache
def made(**settings):
    """WSRL with compiled updates."""
    return tiny.compiled(wsrl.make(tiny.config(wsrl.Config, **SIZES, batch_size=8, **settings), SPEC))


def test_cql_takes_the_lowest_of_drawn_critics():
    # with two of three: the target is that of one of the pairs, by the actions that the update draws
    method, state, metrics = trained()
    assert all("LayerNorm_1" in params["params"]["MLP_0"] for params in (state.actor, state.critic))
    assert state.critic["params"]["Dense_0"]["bias"].shape == (3, 1)
    nets = cql.algorithm.make_networks(cql.Config(**SIZES), SPEC)
    start = sharing.jit(method.init)(jax.random.key(0), state.transform.normalizer)
    batch, target_key = start.transform(BATCH), jax.random.split(jax.random.key(0), 3)[1]

    def target_q(critics):
        distribution = nets.actor.apply(start.actor, batch.next_observation)
        return jnp.mean(
            batch.reward
            + 0.99 * next_value(critics, nets.drawn_critics, distribution, batch.next_observation, target_key, 1)
        )

    pairs = jnp.array([(0, 1), (0, 2), (1, 2)])
    targets = jax.vmap(lambda pair: target_q(jax.tree.map(lambda leaf: leaf[pair], start.critic)))(pairs)
    distances = np.abs(targets - metrics["target_q"])
    assert distances.min() < 1e-5 < np.sort(distances)[1]


def test_all_that_offline_training_left_goes_on():
    method, state, _ = trained()
    start = sharing.jit(made().init)(jax.random.key(1), hand_over(method, state))
    for name in ("actor", "critic", "target_critic", "log_alpha", "transform"):
        jax.tree.map(np.testing.assert_array_equal, getattr(start, name), getattr(state, name))
    for name in ("actor", "critic", "alpha"):  # Adam's moments and counts
        jax.tree.map(np.testing.assert_array_equal, getattr(start.opt, name), getattr(state.opt, name))
    assert int(start.opt.critic[0].count) == 1
    begun = made().online.begin(start.replace(step=start.step + 3), jnp.asarray(True))
    assert tiny.moved(start, begun) == set()
    end, _ = made().online.update(begun, BATCH, jax.random.key(2))
    assert tiny.moved(start, end) == {"actor", "critic", "target_critic", "log_alpha", "opt", "step"}
    assert int(end.opt.critic[0].count) == 1 + 4
    assert int(end.opt.actor[0].count) == 1 + 1


def test_moments_of_other_networks_begin_afresh():
    # of TD3+BC the critics' alone: its policy was cloned, and it has no temperature
    method, state, _ = trained()
    fresh = sharing.jit(made().init)(jax.random.key(1), hand_over(method, state)).opt
    moved = jax.tree.map(lambda leaf: leaf + 1, fresh.critic)
    kept = common.carried(fresh, types.SimpleNamespace(critic=moved, actor=moved))
    jax.tree.map(np.testing.assert_array_equal, kept.critic, moved)
    jax.tree.map(np.testing.assert_array_equal, (kept.actor, kept.alpha), (fresh.actor, fresh.alpha))


def test_nothing_of_the_dataset_goes_online_and_nothing_moves_in_the_warm_up():
    part = made().online
    assert part.replay.choose(object()) is None
    assert (part.schedule.warmup_env_steps, part.schedule.random_env_steps, part.schedule.updates) == (5_000, 0, 1)
    assert not part.schedule.due(5_000)
    assert part.schedule.due(5_001)


def test_it_starts_from_re_evaluated_and_aligned_critics():
    """O2SAC's phases on the critics that offline training left, and WSRL's updates from there."""
    method, state, _ = trained()
    changes = {"reevaluate_updates": 2, "align_updates": 2, "alpha": 0.3}
    config = tiny.config(wsrl.Config, **SIZES, batch_size=8, **changes)
    for phase in wsrl.make(config, SPEC).phases:
        update = inspect.unwrap(phase.update)
        assert update.func is getattr(o2sac.algorithm, phase.name)
        assert update.args[1] == config.of_o2sac()
        assert phase.batch_size == 2  # that of a step of the critics
    algorithm = made(**changes)
    current = start = sharing.jit(algorithm.init)(jax.random.key(1), hand_over(method, state))
    jax.tree.map(np.testing.assert_array_equal, start.critic, state.critic)
    assert int(start.opt.critic[0].count) == 0  # re-evaluation begins afresh, as O2SAC's
    np.testing.assert_allclose(start.log_alpha, np.log(0.3), rtol=1e-6)
    for phase in algorithm.phases:
        current, extras = phase.prepare(current, BATCH)
        current, _ = phase.update(current, Annotated.of(BATCH, extras), jax.random.key(2))
    assert "critic" in tiny.moved(start, current)
    begun = algorithm.online.begin(current, jnp.asarray(True))
    jax.tree.map(np.testing.assert_array_equal, begun.target_critic, current.critic)  # the aligned ones
    jax.tree.map(np.testing.assert_array_equal, begun.actor, state.actor)  # the policy itself warms up
    # no other program than without the phases
    end, metrics = made().online.update(begun, BATCH, jax.random.key(3))
    assert tiny.moved(begun, end) == {"actor", "critic", "target_critic", "log_alpha", "opt", "step"}
    assert np.isfinite(list(metrics.values())).all()


def test_settings():
    config = wsrl.Config.for_task(envs.get_task("mujoco/hopper-medium"))
    assert config == wsrl.Config()
    assert (config.update.batch_size, config.update.critic_steps, config.update.backup_entropy) == (1_024, 4, False)
    assert (config.update.actor_lr, config.update.critic_lr, config.finetune.alpha_lr) == (1e-4, 3e-4, 1e-4)
    assert (config.networks.num_critics, config.networks.num_target_critics) == (10, 2)
    maze = wsrl.Config.for_task(envs.get_task("antmaze/umaze"))
    assert (maze.update.target_actions, maze.update.reward_scale, maze.update.reward_shift) == (10, 10.0, -5.0)
    offline = cql.Config(**SIZES | {"num_critics": 1}, num_target_critics=1, discount=0.9, reward_shift=-1.0)
    after = config.after("cql", dataclasses.asdict(offline))
    assert {name: getattr(after.networks, name) for name in SIZES} == SIZES | {"num_critics": 1}
    assert after.networks.num_target_critics == 1
    assert (after.update.discount, after.update.reward_shift) == (0.9, -1.0)
    assert config.after("td3_bc", {"critic_hidden": [8]}).networks.critic_hidden == (8,)
    assert config.after("bc", {"hidden": [8]}) == config
    assert config.warnings("cql") == []
    soft = {"reevaluate_updates": 9, "backup_entropy": True}
    assert tiny.config(wsrl.Config, **soft).warnings("cql") == []
    (line,) = tiny.config(wsrl.Config, **soft | {"backup_entropy": False}).warnings("cql")
    assert line.endswith("set update.backup_entropy=true")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_target_critics": 11}, "networks.num_target_critics must be at most num_critics, 10, got 11$"),
        ({"batch_size": 10}, "^update.batch_size must be a multiple of critic_steps, 4, got 10$"),
        (
            {"replay_mode": "half", "batch_size": 5, "critic_steps": 5},
            "replay.mode=half needs an even update.batch_size, got 5",
        ),
        (
            {"critic_bias": "returns"},
            "^reevaluate.critic_bias=returns is for critics that are re-evaluated: set it to zero$",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny.config(wsrl.Config, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"num_critics": 10},
            "^the critics of cql do not fit: set networks.num_critics=3, or networks.critic_source=rand",
        ),
        ({"actor_layer_norm": False}, r"set networks.hidden to \(8, 8\), networks.actor_layer_norm to true, or mind"),
        ({"reward_scale": 2.0}, "^the critics of cql were trained on other rewards: set update.reward_scale=1.0"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    method, state, _ = trained()
    algorithm = wsrl.make(tiny.config(wsrl.Config, **SIZES | settings), SPEC)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda key: algorithm.init(key, hand_over(method, state)), jax.random.key(0))


def test_a_policy_without_critics_is_refused():
    method, state, _ = trained()
    with pytest.raises(
        ValueError, match=r"comes without any: start from a method that trains critics, or set networks"
    ):
        jax.eval_shape(lambda key: made().init(key, hand_over(method, state).replace(state=None)), jax.random.key(0))
