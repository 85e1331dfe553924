"""Parts of O2SAC and O2TD3: who goes online, the first reference, the schedule of the threshold, settings, handoffs."""

import functools
import inspect
import itertools
import types

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax import envs, networks, online
from o2o_jax.data.returns import ReturnsToGo, Tail
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.envs.mujoco.tasks import tasks
from o2o_jax.interfaces import Schedule
from o2o_jax.online import (
    common,
    constrained,
    early_stopping,
    finetuning,
    o2ppo,
    o2sac,
    o2td3,
    reconstruction,
    sac,
    td3,
)
from o2o_jax.ops.lagrangian import lagrange_loss
from o2o_jax.policy import Handoff, Policy
from o2o_jax.settings import documented, get, paths
from o2o_jax.training import gradient_step
from o2o_jax.types import Annotated, Extras, Spec, Transition
from tests import sharing, tiny
from tests.tiny import random_rollout, update_of

SPEC = Spec(observation_dim=3, action_dim=2)
OPTIMIZER = optax.adam(1e-3)
ALIGNED, OFFLINE = {"w": jnp.array([1.0])}, {"w": jnp.array([2.0])}


@flax.struct.dataclass
class Opt:
    actor: tuple
    critic: jax.Array


@flax.struct.dataclass
class State:
    actor: dict
    reference: dict
    critic: jax.Array
    target_critic: jax.Array
    log_lagrange: jax.Array
    opt: Opt
    step: jax.Array


def after_alignment():
    """A state whose aligned actor is 1 and whose offline one is 2, with critics 3 and their targets 4."""
    _, moments = gradient_step(OPTIMIZER, {"w": jnp.array([5.0])}, OPTIMIZER.init(ALIGNED), ALIGNED)
    return State(
        actor=ALIGNED,
        reference=OFFLINE,
        critic=jnp.array([3.0]),
        target_critic=jnp.array([4.0]),
        log_lagrange=jnp.zeros(()),
        opt=Opt(moments, jnp.array([6.0])),
        step=jnp.asarray(7, jnp.int32),
    )


def begin(accept, state=None, **settings):
    config = tiny.config(o2sac.Config, **settings)
    return finetuning.begin_finetuning(config, OPTIMIZER, state or after_alignment(), accept)


def chosen(choice, accept):
    return {"best_of": ALIGNED if accept else OFFLINE, "aligned": ALIGNED, "offline": OFFLINE}[choice]


CHOICES = ["best_of", "aligned", "offline"]


@pytest.mark.parametrize(("start", "reference", "accept"), list(itertools.product(CHOICES, CHOICES, [True, False])))
def test_who_goes_online_and_who_is_the_reference(start, reference, accept):
    state = begin(jnp.asarray(accept), start_actor=start, reference_init=reference)
    assert state.actor == chosen(start, accept)
    assert state.reference == chosen(reference, accept)


@pytest.mark.parametrize(("start", "accept"), list(itertools.product(CHOICES, [True, False])))
def test_moments_of_alignment_go_with_the_aligned_actor_alone(start, accept):
    before, state = after_alignment(), begin(jnp.asarray(accept), start_actor=start)
    kept = before.opt.actor if chosen(start, accept) is ALIGNED else OPTIMIZER.init(OFFLINE)
    jax.tree.map(np.testing.assert_array_equal, state.opt.actor, kept)
    assert float(before.opt.actor[0].mu["w"][0]) != 0.0  # so that the two differ
    np.testing.assert_array_equal(state.opt.critic, before.opt.critic)  # the critics' carry over


@pytest.mark.parametrize("start", CHOICES)
def test_all_actors_may_go_online_with_fresh_moments(start):
    state = begin(jnp.asarray(True), start_actor=start, carry_actor_moments=False)
    jax.tree.map(np.testing.assert_array_equal, state.opt.actor, OPTIMIZER.init(OFFLINE))


def test_the_actor_s_steps_grow_over_the_ramp():
    # Adam takes its rate, 1e-3, along a gradient that stays: in its first step a third of it, in the second two thirds,
    # then all; moments are the same as without a ramp
    config = tiny.config(o2sac.Config, actor_ramp_updates=3)
    state, gradient = begin(jnp.asarray(True), carry_actor_moments=False), {"w": jnp.array([5.0])}
    for share in (1 / 3, 2 / 3, 1.0, 1.0):
        actor, moments = finetuning.actor_step(config, OPTIMIZER, gradient, state)
        np.testing.assert_allclose(state.actor["w"] - actor["w"], [1e-3 * share], rtol=1e-3)
        _, plain = finetuning.actor_step(o2sac.Config(), OPTIMIZER, gradient, state)
        jax.tree.map(np.testing.assert_array_equal, moments, plain)
        state = state.replace(actor=actor, opt=state.opt.replace(actor=moments))


def test_update_counting_begins_anew():
    state = begin(jnp.asarray(True))
    assert int(state.step) == 0
    assert state.step.dtype == jnp.int32


@pytest.mark.parametrize(("align_updates", "target"), [(1, 3.0), (0, 4.0)])
def test_aligned_critics_become_the_targets(align_updates, target):
    # without alignment the targets are those of re-evaluation, or of offline training
    state = begin(jnp.asarray(True), align_updates=align_updates)
    assert float(state.target_critic[0]) == target
    assert float(state.critic[0]) == 3.0


@pytest.mark.parametrize(("align_updates", "copied"), [(1, True), (0, False)])
def test_o2td3_makes_the_starting_actor_its_own_target(align_updates, copied):
    algorithm = o2td3.make(
        tiny.config(o2td3.Config, hidden=(4,), critic_hidden=(4,), align_updates=align_updates), SPEC
    )

    @jax.jit
    def start(key, accept):
        state = algorithm.init(key)
        aligned = jax.tree.map(lambda leaf: leaf + 1.0, state.actor)
        return state, algorithm.online.begin(state.replace(actor=aligned), accept)

    offline, state = start(jax.random.key(0), True)
    expected = state.actor if copied else offline.actor
    jax.tree.map(np.testing.assert_array_equal, state.target_actor, expected)


def test_seeds_choose_apart():
    accept = jnp.array([True, False])
    states = jax.vmap(lambda accept: begin(accept))(accept)
    np.testing.assert_array_equal(states.actor["w"], [[1.0], [2.0]])
    np.testing.assert_array_equal(states.reference["w"], [[1.0], [2.0]])
    np.testing.assert_array_equal(states.opt.actor[0].count, [1, 0])
    states = jax.vmap(lambda state, accept: common.set_reference(state, accept))(
        states.replace(actor={"w": jnp.array([[8.0], [9.0]])}), jnp.array([False, True])
    )
    np.testing.assert_array_equal(states.reference["w"], [[1.0], [9.0]])
    np.testing.assert_array_equal(states.actor["w"], [[8.0], [9.0]])


@flax.struct.dataclass
class OnlineOpt:
    actor: tuple
    critic: jax.Array
    lagrange: tuple


@flax.struct.dataclass
class OnlineState:
    actor: dict
    reference: dict
    critic: jax.Array
    log_lagrange: jax.Array
    threshold_cap: jax.Array
    opt: OnlineOpt


def gone_astray(cap):
    """Actor 1 and reference 2, λ = 3, and moments of both that have seen a gradient of 5."""
    log_lagrange = jnp.log(3.0)
    moments = [
        gradient_step(OPTIMIZER, jax.tree.map(lambda leaf: 5.0 + 0.0 * leaf, part), OPTIMIZER.init(part), part)[1]
        for part in (ALIGNED, log_lagrange)
    ]
    opt = OnlineOpt(moments[0], jnp.array([6.0]), moments[1])
    return OnlineState(ALIGNED, OFFLINE, jnp.array([3.0]), log_lagrange, jnp.asarray(cap, jnp.float32), opt)


@pytest.mark.parametrize(
    ("cap", "divergence", "tightening", "expected"),
    [
        (finetuning.UNCAPPED, 0.25, 2.0, 0.125),  # half of what led astray
        (0.5, 0.25, 2.0, 0.125),
        (0.5, 0.25, 8.0, 0.03125),
        (0.0625, 0.25, 2.0, 0.0625),  # never higher than it was
        (0.5, np.nan, 2.0, 0.5),  # nothing was measured
        (0.5, -0.25, 2.0, 0.5),  # of one sample per state, as O2SAC measures it
        (finetuning.UNCAPPED, 0.0, 2.0, finetuning.UNCAPPED),  # from which no doubling would come back
    ],
)
def test_rolling_back_by_hand(cap, divergence, tightening, expected):
    before = gone_astray(cap)
    state = finetuning.roll_back(OPTIMIZER, OPTIMIZER, tightening, before, jnp.asarray(True), jnp.asarray(divergence))
    assert state.actor == state.reference == OFFLINE
    assert float(state.threshold_cap) == np.float32(expected)
    np.testing.assert_allclose(jnp.exp(state.log_lagrange), 3.0 * tightening, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, state.opt.actor, OPTIMIZER.init(OFFLINE))
    jax.tree.map(np.testing.assert_array_equal, state.opt.lagrange, OPTIMIZER.init(state.log_lagrange))
    assert float(before.opt.lagrange[0].mu) != 0.0  # so that the two differ
    assert (float(state.critic[0]), float(state.opt.critic[0])) == (3.0, 6.0)


def test_nothing_is_rolled_back_without_a_decision():
    before = gone_astray(0.5)
    after = finetuning.roll_back(OPTIMIZER, OPTIMIZER, 2.0, before, jnp.asarray(False), jnp.asarray(0.25))
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_an_accepted_policy_doubles_the_cap_up_to_none():
    caps = [
        float(finetuning.set_reference(gone_astray(cap), jnp.asarray(accept)).threshold_cap)
        for cap, accept in ((0.125, True), (0.125, False), (finetuning.UNCAPPED, True))
    ]
    assert caps == [0.25, 0.125, finetuning.UNCAPPED]


def test_a_broken_actor_comes_back():
    before = gone_astray(0.5).replace(actor={"w": jnp.array([jnp.nan])})
    state = finetuning.roll_back(OPTIMIZER, OPTIMIZER, 2.0, before, jnp.asarray(True), jnp.asarray(jnp.nan))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("choice", CHOICES)
def test_whose_returns_the_first_reference_has(choice):
    accept = np.array([True, False])
    config = tiny.config(o2sac.Config, reference_init=choice)
    found = np.asarray(config.aligned_reference(accept))
    assert found.tolist() == {"best_of": [True, False], "aligned": [True, True], "offline": [False, False]}[choice]
    assert np.asarray(o2ppo.Config().aligned_reference(accept)).tolist() == [False, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"roll_back_enabled": True, "reference_update": "interval"},
            "^roll_back.enabled needs returns to compare: with reference.update=interval set it to false$",
        ),
        (
            {"roll_back_enabled": True, "evaluation_episodes": 1},
            "^roll_back.enabled needs the spread of evaluations: set evaluation.episodes to 2 or more, got 1$",
        ),
        ({"roll_back_evaluations": 0}, "roll_back.evaluations must be at least 1, got 0"),
        ({"roll_back_share": -0.1}, "roll_back.share must be at least 0, got -0.1"),
    ],
)
def test_rolling_back_refuses(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        tiny.config(o2sac.Config, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "step", "expected"),
    [
        (tiny.config(o2sac.Config, warmup_env_steps=0), 0, 0.125),
        (tiny.config(o2sac.Config, warmup_env_steps=0), 50_000, 1.0625),
        (tiny.config(o2sac.Config, warmup_env_steps=0), 100_000, 2.0),
        (tiny.config(o2sac.Config, warmup_env_steps=0), 150_000, 2.0),
        # the warm-up counts: 0.125 + 1.875 · 1,000 / 100,000
        (o2sac.Config(), 0, 0.14375),
        # ten updates per environment step: update 490,009 is of environment step 49,000, and the warm-up's 1,000
        (tiny.config(o2sac.Config, updates_per_env_step=10), 490_009, 1.0625),
        (tiny.config(o2td3.Config, warmup_env_steps=0), 0, 0.0025),
        (tiny.config(o2td3.Config, warmup_env_steps=0), 50_000, 0.02125),
        (tiny.config(o2td3.Config, warmup_env_steps=0), 100_000, 0.04),
        # on a schedule the end is divided by 4: 0.5 and, half way, (0.125 + 0.5) / 2
        (tiny.config(o2sac.Config, warmup_env_steps=0, reference_update="interval"), 100_000, 0.5),
        (tiny.config(o2sac.Config, warmup_env_steps=0, reference_update="interval"), 50_000, 0.3125),
        # which may not turn the ramp around
        (tiny.config(o2sac.Config, warmup_env_steps=0, threshold_end=0.2, reference_update="interval"), 0, 0.05),
    ],
)
def test_threshold(config, step, expected):
    found = finetuning.threshold(config, jnp.asarray(step), finetuning.UNCAPPED)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert float(finetuning.threshold(config, jnp.asarray(step), jnp.asarray(0.001))) == np.float32(0.001)


@pytest.mark.parametrize(("updates", "moves"), [(1, [1, 1, 1, 1, 1, 1]), (3, [1, 0, 0, 1, 0, 0])])
def test_lagrange_moves_at_the_first_update_of_an_environment_step(updates, moves):
    config = tiny.config(o2sac.Config, updates_per_env_step=updates)
    np.testing.assert_array_equal(finetuning.moves_lagrange(config, jnp.arange(6)), moves)


@pytest.mark.parametrize(("divergence", "sign"), [(0.0, -1), (3.0, 1)])
def test_log_lagrange_drifts_no_faster_than_its_rate(divergence, sign):
    # a satisfied constraint lowers λ, a violated one raises it, and Adam takes 5e-5 a time
    optimizer, log_lagrange = constrained.lagrange_optimizer(o2sac.Config()), jnp.zeros(())
    state = optimizer.init(log_lagrange)
    for _ in range(10):
        gradient = jax.grad(lagrange_loss)(log_lagrange, jnp.full(4, divergence), 1.0, 0.7)
        log_lagrange, state = gradient_step(optimizer, gradient, state, log_lagrange)
    np.testing.assert_allclose(log_lagrange, sign * 10 * 5e-5, rtol=1e-3)


def test_schedules_are_shares_of_the_run():
    # a run of a tenth of the steps ramps in a tenth of them, and λ moves ten times as fast: it gets as far
    config = tiny.config(o2sac.Config, env_steps=10_000, warmup_env_steps=0)
    np.testing.assert_allclose(finetuning.threshold(config, jnp.asarray(5_000), finetuning.UNCAPPED), 1.0625, rtol=1e-6)
    assert config.constraint.lagrange_lr(config.env_steps) == pytest.approx(5e-4)
    assert (
        o2sac.Config().constraint.lagrange_lr(100_000) == 5e-5
    )  # of the published length the published rate, to the bit


def returns_config(module, **settings):
    return tiny.config(module.Config, hidden=(8,), critic_hidden=(8,), discount=0.5, polyak=0.25, **settings)


@pytest.mark.parametrize("module", [o2td3, o2sac])
def test_critics_start_at_the_level_of_the_data(module):
    # rewards of 3 and no end: 3 / (1 − 0.5); of O2SAC with the entropy bonus −γ α mean log π / (1 − γ)
    settings = {"alpha": 0.1} if module is o2sac else {}
    algorithm = module.make(returns_config(module, critic_bias="returns", **settings), SPEC)
    rows = random_rollout(SPEC, 64)
    rows = rows.replace(reward=jnp.full(64, 3.0), terminated=jnp.zeros(64))
    state = algorithm.init(jax.random.key(0))
    started, extras = sharing.jit(algorithm.phase("reevaluate").prepare)(state, rows)
    expected = 6.0
    if module is o2sac:
        log_prob = jax.jit(lambda policy: policy.sample_and_log_prob(jax.random.key(0))[1])(extras.own.next_policy)
        last = 63 - jnp.arange(64)  # the bonus of row t, discounted, and what lies beyond the last row
        bonus = sum(
            -0.1 * 0.5 ** (j + 1) * log_prob[jnp.minimum(jnp.arange(64) + j, 63)] * (j <= last) for j in range(64)
        )
        tail = jnp.mean(0.5 ** (last + 1.0))
        expected = (jnp.mean(3.0 * (1.0 - 0.5 ** (last + 1.0)) / 0.5) + jnp.mean(bonus)) / (1.0 - tail)
    for before, after in ((state.critic, started.critic), (state.target_critic, started.target_critic)):
        np.testing.assert_allclose(
            after["params"]["Dense_0"]["bias"] - before["params"]["Dense_0"]["bias"], expected, rtol=1e-4
        )
        kept = [tree["params"]["MLP_0"] for tree in (before, after)]
        jax.tree.map(np.testing.assert_array_equal, *kept)
    later, _ = algorithm.phase("reevaluate").prepare(started.replace(step=jnp.asarray(1)), rows)  # a resumed phase
    jax.tree.map(np.testing.assert_array_equal, later.critic, started.critic)


def test_targets_go_from_returns_to_bootstrapped_ones():
    # G + w V = 2.75, 6.5 + 0.25 · 8 and 5 + 0.5 · 8 where the tail is worth 8; y_TD = 1. Half way: the mean of both
    config = tiny.config(o2sac.Config, return_updates=4)
    state = types.SimpleNamespace(transform=Transform(Normalizer.identity(1), 1.0, 0.0), step=jnp.asarray(0))
    returns = ReturnsToGo(jnp.array([2.75, 6.5, 5.0]), Tail(jnp.array([0.0, 0.25, 0.5]), jnp.zeros((3, 1))))
    rows = Transition(jnp.zeros((3, 1)), jnp.zeros((3, 1)), jnp.zeros(3), jnp.zeros((3, 1)), jnp.zeros(3))
    recorded = np.array([2.75, 8.5, 9.0])
    for bonus, added in ((None, 0.0), (jnp.full(3, 0.5), 0.5)):
        batch = Annotated.of(rows, Extras(shared=returns, own=reconstruction.Evaluated(None, bonus)))
        for step, share in ((0, 1.0), (1, 0.75), (2, 0.5), (4, 0.0), (9, 0.0)):
            state.step = jnp.asarray(step)
            target = reconstruction.return_target(config, state, batch, jnp.ones(3), lambda s: jnp.full(len(s), 8.0))
            np.testing.assert_allclose(target, share * (recorded + added) + (1.0 - share), rtol=1e-6)
    with pytest.raises(ValueError, match="annotate the dataset first"):
        reconstruction.return_target(config, state, rows, jnp.ones(3), lambda s: s[:, 0])


def test_returns_and_bootstrapping_agree_where_an_episode_is_one_step():
    # both are r + γ (Q̄ − α log π) then; an entropy that is counted twice would add γ α H, about 0.4
    algorithm = o2sac.make(returns_config(o2sac, alpha=0.7, return_updates=10), SPEC)
    rows = random_rollout(SPEC, 2_048)
    rows = rows.replace(truncated=jnp.ones(2_048), terminated=jnp.zeros(2_048))
    state = algorithm.init(jax.random.key(0))

    @jax.jit
    def targets(state, rows):
        _, extras = algorithm.phase("reevaluate").prepare(state, rows)
        batch, means = Annotated.of(rows, extras), []
        for step in (0, 10):  # all returns, and none
            _, metrics = algorithm.phase("reevaluate").update(
                state.replace(step=jnp.asarray(step)), batch, jax.random.key(1)
            )
            means.append(metrics["target_q"])
        return jnp.stack(means)

    recorded, bootstrapped = targets(state, rows)
    # means over 2,048 draws of their own: α γ log π deviates by about 0.35, its mean by 0.008
    np.testing.assert_allclose(recorded, bootstrapped, atol=0.06)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"critic_bias": "returns", "critic_source": "offline"},
            "for random critics: with networks.critic_source=offl",
        ),
        (
            {"critic_bias": "returns", "reevaluate_updates": 0},
            "^reevaluate.critic_bias=returns is for critics that are",
        ),
        (
            {"return_updates": 9, "reevaluate_updates": 8},
            "^reevaluate.return_updates must be at most updates, 8, got 9",
        ),
        (
            {"return_updates": 9, "early_stopping_mode": "measures", "early_stopping_min_updates": 8},
            "^early_stopping.min_updates must be at least reevaluate.return_updates, 9, got 8",
        ),
    ],
)
def test_returns_that_would_not_be_used_up_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny.config(o2sac.Config, **settings)
    # left out as a whole the phase needs none
    assert tiny.config(o2sac.Config, return_updates=9, reevaluate_updates=0).reevaluate.return_updates == 9


@pytest.mark.parametrize("module", [o2td3, o2sac])
def test_reevaluation_moves_its_targets_at_a_rate_of_its_own(module):
    rows, states = random_rollout(SPEC, 8), []
    for settings in ({"reevaluate_polyak": 1.0}, {}):
        algorithm = module.make(returns_config(module, **settings), SPEC)
        state = algorithm.init(jax.random.key(0))
        after, _ = sharing.jit(algorithm.phase("reevaluate").update)(state, rows, jax.random.key(1))
        states.append((state, after))
    (_, copied), (before, moved) = states
    jax.tree.map(np.testing.assert_array_equal, copied.target_critic, copied.critic)
    expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, before.critic, moved.critic)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), moved.target_critic, expected)


@pytest.mark.parametrize("module", [o2td3, o2sac])
def test_alignment_moves_its_actor_at_a_rate_of_its_own(module):
    # Adam's first step is its rate, for every weight that has a gradient
    algorithm = module.make(returns_config(module, actor_lr=0.5, align_actor_lr=1e-3), SPEC)
    state = algorithm.init(jax.random.key(0))
    after, _ = sharing.jit(algorithm.phase("align").update)(state, random_rollout(SPEC, 8), jax.random.key(1))
    steps = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), state.actor, after.actor)
    assert 0.9e-3 < max(jax.tree.leaves(steps)) < 1.1e-3


def test_schedule():
    assert o2sac.Config().interaction.schedule == Schedule(updates=1, warmup_env_steps=1_000)
    # uniform actions come before the updates, so that they are a warm-up themselves
    config = tiny.config(o2sac.Config, updates_per_env_step=10, random_env_steps=5_000)
    assert config.interaction.schedule == Schedule(updates=10, warmup_env_steps=5_000, random_env_steps=5_000)


@pytest.mark.parametrize(
    ("settings", "clipped"),
    [
        ({}, False),
        ({"interval_actor_grad_norm": 0.25}, False),
        ({"interval_actor_grad_norm": 0.25, "reference_update": "interval"}, True),
        ({"reference_update": "interval"}, False),
    ],
)
def test_the_actor_s_gradient_is_clipped_in_interval_mode_alone(settings, clipped):
    # of norm 5
    gradient = {"kernel": jnp.array([3.0, -4.0])}
    found = finetuning.clip_actor_gradient(tiny.config(o2sac.Config, **settings), gradient)
    np.testing.assert_allclose(found["kernel"], gradient["kernel"] * (0.05 if clipped else 1.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("discount", 0.0),
        ("discount", 1.0),
        ("hidden", ()),
        ("critic_hidden", (256, 0)),
        ("polyak", 0.0),
        ("polyak", 1.1),
        ("asymmetry", 0.4),
        ("asymmetry", 1.0),
        ("actor_lr", 0.0),
        ("critic_lr", -1.0),
        ("lagrange_init", 0.0),
        ("interval_threshold_divisor", 0.0),
        ("batch_size", 0),
        ("num_critics", 0),
        ("updates_per_env_step", 0),
        ("buffer_size", 0),
        ("part_episodes", 0),
        ("evaluation_episodes", -1),
        ("reference_min_episodes", 1),
        ("reference_standard_errors", -1.0),
        ("held_out_share", 0.0),
        ("held_out_share", 1.0),
        ("early_stopping_check_every_updates", 0),
        ("early_stopping_window_checks", 0),
        ("early_stopping_missing_value", 0.0),
        ("early_stopping_min_updates", -1),
        ("early_stopping_residual", -0.1),
        ("early_stopping_overestimated", float("nan")),
        ("early_stopping_distance", -0.1),
        ("early_stopping_settled", -0.1),
        ("early_stopping_correlation", -0.1),
        ("auto_warmup_env_steps", -1),
        ("reference_every_evaluations", 0),
        ("threshold_ramp", 0.0),
        ("evaluation_every_env_steps", 0),
        ("reevaluate_updates", -1),
        ("align_updates", -1),
        ("env_steps", -1),
        ("warmup_env_steps", -1),
        ("random_env_steps", -1),
        ("lagrange_travel", -1e-5),
        ("threshold_start", -0.1),
        ("threshold_end", 0.1),
        ("batch_size", 255),
        ("discount", float("nan")),
        ("polyak", float("nan")),
        ("actor_lr", float("nan")),
        ("lagrange_travel", float("nan")),
        ("threshold_end", float("nan")),
        ("interval_actor_grad_norm", 0.0),
        ("reward_scale", 0.0),
    ],
)
def test_config_refuses(field, value):
    path = tiny.path_of(field, paths(o2sac.Config()))
    with pytest.raises(ValueError, match=f"{path}.*, got ") as error:
        tiny.config(o2sac.Config, **{field: value})
    assert "\n" not in str(error.value)


def test_an_odd_batch_is_fine_where_it_is_not_halved():
    assert tiny.config(o2sac.Config, batch_size=255, replay_mode="all").update.batch_size == 255
    with pytest.raises(ValueError, match="^replay.mode=auto needs an even update.batch_size, got 255$"):
        tiny.config(o2sac.Config, batch_size=255, replay_mode="auto")


@pytest.mark.parametrize("name", online.names())
def test_settings_of_every_task_are_valid_under_both_schedules(name):
    config_class = online.load(name).Config
    for family in envs.families():
        for task in envs.family(family).tasks().values():
            paper, fast = (config_class.for_task(task, schedule) for schedule in ("paper", "fast"))
            assert paper == config_class.published(task)
            changed = {path for path, value, *_ in documented(fast) if value != get(paper, path)}
            assert changed <= config_class.fast.keys()  # the same for all tasks
            for path in {"reevaluate.updates", "align.updates"} & paths(fast).keys():
                assert get(fast, path) <= get(paper, path) / 10


@pytest.mark.parametrize(
    ("module", "name", "settings"),
    [
        (o2sac, "hopper-medium", {}),
        (o2sac, "walker2d-medium-replay", {}),
        (o2sac, "walker2d-expert", {"alpha": 0.5, "threshold_start": 0.005, "threshold_end": 0.125}),
        (
            o2sac,
            "hopper-medium-expert",
            {
                "alpha": 0.5,
                "threshold_start": 0.005,
                "threshold_end": 0.125,
                "reference_every_evaluations": 10,
                "interval_actor_grad_norm": 0.25,
            },
        ),
        (o2td3, "hopper-medium", {}),
        (
            o2td3,
            "halfcheetah-expert",
            {
                "exploration_std": 0.05,
                "threshold_start": 2.5e-5,
                "threshold_end": 6.25e-4,
                "early_stopping_distance": 0.0025,
            },
        ),
        (
            o2td3,
            "walker2d-expert",
            {
                "exploration_std": 0.05,
                "threshold_start": 2.5e-5,
                "threshold_end": 6.25e-4,
                "early_stopping_distance": 0.0025,
                "reference_every_evaluations": 10,
                "interval_actor_grad_norm": 0.25,
            },
        ),
        (sac, "hopper-expert", {"alpha": 0.5}),
        (td3, "hopper-medium", {}),
        (td3, "hopper-expert", {"exploration_std": 0.05}),
    ],
)
def test_settings_of_a_task(module, name, settings):
    expected = tiny.config(module.Config, **settings)
    assert module.Config.for_task(tasks()[f"mujoco/{name}"]) == expected


# What all of a sparse task's settings have in common.
SPARSE = {"env_steps": 200_000, "evaluation_every_env_steps": 5_000, "evaluation_episodes": 100}
HALF_A_RAMP = {"threshold_ramp": 0.5, "lagrange_travel": 10.0}  # the authors' 100,000 steps and 5e-5 a step
O2SAC = (
    SPARSE
    | HALF_A_RAMP
    | {
        "num_critics": 1,
        "critic_hidden": (256,) * 5,
        "reward_scale": 10.0,
        "reward_shift": -5.0,
        "align_updates": 1_000_000,
        "warmup_env_steps": 5_000,
    }
)
O2TD3 = SPARSE | HALF_A_RAMP | {"reward_shift": -1.0, "align_updates": 1_000_000}
DEEP = {name: O2SAC[name] for name in ("critic_hidden", "reward_scale", "reward_shift", "warmup_env_steps")}


@pytest.mark.parametrize(
    ("module", "name", "settings"),
    [
        (o2sac, "antmaze/umaze", O2SAC),
        (o2sac, "antmaze/umaze-diverse", O2SAC),
        (o2sac, "antmaze/medium-play", O2SAC | {"alpha": 0.5, "lagrange_init": 2.0}),
        (o2sac, "antmaze/large-diverse", O2SAC | {"alpha": 0.5, "lagrange_init": 2.0}),
        (o2sac, "pointmaze/umaze", O2SAC),
        (o2td3, "antmaze/umaze-diverse", O2TD3 | {"layer_norm": False}),
        (o2td3, "antmaze/large-play", O2TD3),
        (sac, "antmaze/medium-diverse", SPARSE | DEEP | {"alpha": 0.5}),
        (td3, "antmaze/umaze", SPARSE | {"reward_shift": -1.0}),
    ],
)
def test_settings_of_a_sparse_task(module, name, settings):
    expected = tiny.config(module.Config, **settings)
    assert module.Config.for_task(envs.get_task(name)) == expected


@pytest.mark.parametrize("name", ["hopper-medium-expert", "hopper-expert", "walker2d-expert", "walker2d-medium"])
def test_settings_are_the_same_on_the_older_environment(name):
    robot, _, quality = name.partition("-")
    newer, older = envs.get_task(f"mujoco/{name}"), envs.get_task(f"mujoco/{robot}-v4-{quality}")
    assert (older.robot, older.quality) == (newer.robot, newer.quality) == (robot, quality)
    for module in (o2sac, o2td3):
        assert module.Config.for_task(older) == module.Config.for_task(newer)


def test_controls_switch_the_idea_off():
    for control, method in ((sac, o2sac), (td3, o2td3)):
        config = control.Config()
        assert not {"reevaluate", "align", "constraint", "reference", "roll_back"} & vars(config).keys()
        assert (config.networks.layer_norm, config.networks.critic_source) == (False, "offline")
        algorithm = control.make(config, SPEC)
        assert algorithm.phases == ()
        assert algorithm.online.reference is None
        updates = [each.online.update for each in (algorithm, method.make(method.Config(), SPEC))]
        assert inspect.unwrap(updates[0]).func is inspect.unwrap(updates[1]).func
        scratch = control.Config.from_scratch()
        assert (scratch.networks.critic_source, scratch.replay.mode) == ("random", "none")
        assert scratch.interaction.random_env_steps == 5_000


def zeros(network, *arguments):
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape), jax.eval_shape(network.init, jax.random.key(0), *arguments))


def critic_params(hidden=(4, 4), layer_norm=False, num_critics=2, observation_dim=3):
    network = networks.Critics(hidden, layer_norm, num_critics)
    return zeros(network, jnp.zeros((1, observation_dim)), jnp.zeros((1, 2)))


OFFLINE_CRITICS = tiny.config(o2sac.Config, critic_source="offline")


def offline(critic, **rewards):
    """Returns what offline training left, as far as it matters here."""
    return types.SimpleNamespace(critic=critic, transform=Transform(Normalizer.identity(3), **rewards))


def policy(hidden=(4,)):
    actor = networks.DeterministicActor(2, hidden)
    return Policy(zeros(actor, jnp.zeros((1, 3))), Normalizer.identity(3), actor)


def test_offline_state_is_handed_on():
    state = offline(critic_params())
    assert reconstruction.offline_state(OFFLINE_CRITICS, Handoff(policy(), state), critic_params()) is state


@pytest.mark.parametrize("handoff", [None, Handoff(None), Handoff(None, types.SimpleNamespace(value=1))])
def test_direct_fine_tuning_needs_offline_critics(handoff):
    with pytest.raises(
        ValueError, match="^networks.critic_source=offline continues .* critics, or set networks.critic_source"
    ):
        reconstruction.offline_state(OFFLINE_CRITICS, handoff, critic_params())


@pytest.mark.parametrize(
    ("own", "advice"),
    [
        (critic_params(layer_norm=True), "set networks.layer_norm=false"),
        (critic_params(hidden=(8,)), "set networks.critic_hidden=4,4"),
        (critic_params(num_critics=1), "set networks.num_critics=2"),
        (
            critic_params((4,), True, 1),
            "set networks.critic_hidden=4,4, networks.layer_norm=false, networks.num_critics=2",
        ),
    ],
)
def test_what_makes_offline_critics_fit_is_said(own, advice):
    handoff = Handoff(policy(), offline(critic_params()), source="td3_bc")
    with pytest.raises(
        ValueError, match=f"^the critics of td3_bc do not fit: {advice}, or networks.critic_source=random$"
    ):
        reconstruction.offline_state(OFFLINE_CRITICS, handoff, own)


def test_offline_critics_of_another_environment_do_not_fit():
    handoff = Handoff(policy(), offline(critic_params(observation_dim=5)), source="cql")
    with pytest.raises(ValueError, match="^the critics of cql do not fit: they are of other observations or actions$"):
        reconstruction.offline_state(OFFLINE_CRITICS, handoff, critic_params())


def test_offline_critics_must_be_of_the_same_rewards():
    handoff = Handoff(policy(), offline(critic_params(), reward_scale=10.0, reward_shift=-5.0), source="cql")
    with pytest.raises(
        ValueError, match="trained on other rewards: set update.reward_scale=10.0 and update.reward_shift=-5"
    ):
        reconstruction.offline_state(OFFLINE_CRITICS, handoff, critic_params())


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        # what Appendix B allows
        ("iql", {}, None),
        ("td3_bc", {"critic_source": "offline", "reevaluate_updates": 0}, None),
        ("awac", {"critic_source": "offline", "reevaluate_updates": 0}, None),
        ("cql", {"critic_source": "offline", "reevaluate_updates": 0, "align_updates": 0}, None),
        ("cql", {"critic_source": "offline"}, None),
        # what it doesn't
        ("cql", {"critic_source": "offline", "reevaluate_updates": 0}, "the critics of cql are pessimistic"),
        ("iql", {"critic_source": "offline", "reevaluate_updates": 0}, "iql evaluates its policy unlike online"),
        ("td3_bc", {"reevaluate_updates": 0}, "critics start at random"),
        (
            "td3_bc",
            {"critic_source": "offline", "reevaluate_updates": 0, "align_updates": 0},
            "critics that are not aligned",
        ),
        ("cql", {"align_updates": 0}, "critics that are not aligned"),
        # 0.005 · 6,000 of 3 / (1 − 0.99)
        (
            "td3_bc",
            {"reevaluate_updates": 6_000},
            "re-evaluation looks 30 steps ahead where 3/(1−γ) asks for 300: set reevaluate.updates or",
        ),
        ("td3_bc", {"reevaluate_updates": 6_000, "reevaluate_polyak": 0.05}, None),
        ("td3_bc", {"reevaluate_updates": 6_000, "discount": 0.8}, None),
        ("td3_bc", {"reevaluate_updates": 6_000, "critic_source": "offline"}, None),  # critics that know the values
        ("td3_bc", {"reevaluate_updates": 6_000, "constraint": None}, None),
        # the controls leave the idea out on purpose
        ("cql", {"constraint": None, "reevaluate_updates": 0, "align_updates": 0}, None),
    ],
)
def test_settings_against_the_paper_s_advice_are_warned_of(source, settings, words):
    warnings = tiny.config(o2sac.Config, **settings).warnings(source)
    assert len(warnings) == (words is not None)
    assert words is None or warnings[0].startswith(words)


def of_history(config, phase, **history):
    # in the order of the window's checks
    stop = early_stopping.stops(config, policy=None, critic=None)[phase]
    values = {term: jnp.array(values) for term, values in history.items()}
    assert set(stop.terms) <= set(values) <= set(stop.measures)
    return int(stop.decide(values))


BY_MEASURES = tiny.config(
    o2sac.Config, early_stopping_mode="measures", window_checks=2, polyak=0.1, discount=0.9, check_every_updates=50
)  # so that a value which moves by v an update lacks 100 v


@pytest.mark.parametrize(
    ("residual", "value", "correlation", "decision"),
    [
        ([1.0, 1.0, 1.0], [100.0, 101.0, 104.0], [0.8, 0.8, 0.8], 1),  # 4 in 100 updates: 4 are missing of 104, 3.8 %
        ([1.0, 1.0, 1.0], [100.0, 101.0, 106.0], [0.8, 0.8, 0.8], 0),  # 6 of 106 are too many
        ([1.0, 0.9, 0.8], [100.0, 101.0, 104.0], [0.8, 0.8, 0.8], 0),  # the error still falls
        ([1.0, 1.5, 2.0], [100.0, 100.0, 100.0], [0.8, 0.8, 0.8], 1),
        ([1.0, 1.0, 1.0], [100.0, 100.0, 100.0], [0.1, 0.3, 0.5], 0),  # the ranking still rises
        ([1.0, 1.0, 1.0], [100.0, 100.0, 100.0], [0.0, 0.01, -0.05], 1),  # none to be found
        ([1.0, 1.0, 1.0], [100.0, 100.0, 100.0], [np.nan] * 3, 1),  # no return counts
        ([np.nan, 1.0, 1.0], [np.nan, 100.0, 100.0], [np.nan, 0.8, 0.8], 0),  # the window isn't full
    ],
)
def test_when_re_evaluation_is_done(residual, value, correlation, decision):
    history = {"critic_loss": residual, "q": value, "correlation": correlation}
    assert of_history(BY_MEASURES, "reevaluate", **history) == decision


def test_the_value_s_speed_is_that_of_re_evaluation_s_own_rate():
    # 6 in 100 updates at a rate of 0.1 · 0.1 lead to 6 more, of 106 too many; at twice the rate to 3 more
    history = {"critic_loss": [1.0] * 3, "q": [100.0, 101.0, 106.0], "correlation": [0.8] * 3}
    faster = tiny.changed(BY_MEASURES, reevaluate_polyak=0.2)
    assert [constrained.reevaluate_rate(config) for config in (BY_MEASURES, faster)] == [0.1, 0.2]
    assert of_history(BY_MEASURES, "reevaluate", **history) == 0
    assert of_history(faster, "reevaluate", **history) == 1


REPORTED = {"value": 74.0, "recorded": 237.0, "spread": 100.0, "correlation": 0.06, "horizon": 30.0}


@pytest.mark.parametrize(
    ("metrics", "settings", "summary"),
    [
        (
            {},
            {},
            "the critic is not to be trusted: it is worth 74 where returns are 237 and orders them at 0.06; it looks "
            "30 steps ahead: set reevaluate.updates or reevaluate.polyak",
        ),
        (
            {"value": 229.0, "correlation": 0.94, "horizon": 2500.0},
            {},
            "the critic can be trusted: it is worth 229 where returns are 237 and orders them at 0.94; it looks "
            "2.5e+03 steps ahead",
        ),
        ({"recorded": np.nan}, {}, "no recorded return counts, all episodes were cut off too early: the critic is "
         "compared with nothing"),
        ({}, {"constraint": None}, ""),  # a control
    ],
)  # fmt: skip
def test_what_is_said_of_the_re_evaluated_critic(metrics, settings, summary):
    config = tiny.config(o2sac.Config, **settings)
    assert early_stopping.reevaluation_summary(config, REPORTED | metrics) == summary


@pytest.mark.parametrize("module", [o2sac, o2td3])
def test_the_report_while_re_evaluating(module):
    config = tiny.config(
        module.Config, hidden=(4,), critic_hidden=(4,), critic_report=True, discount=0.5, reward_scale=2.0
    )
    algorithm, rows = module.make(config, SPEC), random_rollout(SPEC, 16)
    assert algorithm.phase("align").stop is None
    stop = algorithm.phase("reevaluate").stop
    assert (stop.terms, stop.reasons) == ((), ())
    assert stop.measures == ("value", "recorded", "error", "spread", "correlation", "horizon")

    @jax.jit
    def look(key):
        state = algorithm.init(key, None)
        before = stop.report.prepare(key, state, rows)
        state, _ = algorithm.phase("reevaluate").update(state, rows, key)
        q = algorithm.critic(state)(before.observation, before.action)
        return before, stop.report.prepare(key, state, rows), q, stop.report.measure(state, before)

    before, after, q, metrics = look(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, before, after)  # which a resumed phase asks for
    # cut off after row 15: a return counts where 0.5^k is at most 0.05, five steps and more before the end
    assert before.returns.shape == (2_000,)
    assert set(np.asarray(before.observation[:, 0])) == set(np.asarray(rows.observation[:12, 0]))
    np.testing.assert_allclose(metrics["value"], np.mean(q), rtol=1e-5)
    np.testing.assert_allclose(metrics["recorded"], np.mean(before.returns), rtol=1e-5)
    np.testing.assert_allclose(metrics["horizon"], 0.005)
    if module is o2td3:  # without an entropy: Σ 0.5^i · 2 r
        returns = [sum(0.5**i * 2.0 * float(r) for i, r in enumerate(rows.reward[t:])) for t in range(12)]
        np.testing.assert_allclose(np.unique(np.round(before.returns, 3)), np.unique(np.round(returns, 3)), atol=2e-3)


@pytest.mark.parametrize(
    ("share", "distance", "decision"),
    [
        ([0.3, 0.1, 0.08], [0.03, 0.02, 0.01], 1),  # both as low as asked for
        ([0.3, 0.1, 0.09], [0.03, 0.02, 0.01], 0),
        ([0.3, 0.1, 0.08], [0.03, 0.02, 0.012], 0),
        ([np.nan, np.nan, 0.4], [np.nan, np.nan, 0.0], 0),  # the start: nowhere yet, and all overestimated
        ([np.nan, np.nan, 0.05], [np.nan, np.nan, 0.0], 1),  # aligned from the start
        ([0.3, 0.301, 0.299], [0.03, 0.0301, 0.0299], 2),  # at rest elsewhere
        ([0.3, 0.301, 0.299], [0.03, 0.05, 0.03], 0),  # out and back
        ([np.nan, 0.3, 0.3], [np.nan, 0.03, 0.03], 0),
    ],
)
def test_when_alignment_is_done(share, distance, decision):
    assert of_history(BY_MEASURES, "align", overestimated=share, distance=distance) == decision


def test_fixed_counts_are_the_default():
    assert early_stopping.stops(o2sac.Config(), policy=None, critic=None) == {}
    nothing = tiny.config(o2sac.Config, critic_report=True, reevaluate_updates=0)
    assert early_stopping.stops(nothing, policy=None, critic=None) == {}
    for module in (o2td3, o2sac):
        assert [phase.stop for phase in module.make(module.Config(), SPEC).phases] == [None, None]
        algorithm = module.make(tiny.config(module.Config, early_stopping_mode="measures"), SPEC)
        for stop in (phase.stop for phase in algorithm.phases):
            assert (stop.check_every_updates, stop.window_checks, stop.min_updates) == (1_000, 5, 5_000)
            assert len(stop.reasons) >= 1


def test_without_evaluations_nothing_is_chosen_by_them():
    allowed = {"reference_update": "returns", "start_actor": "aligned", "reference_init": "offline"}
    assert tiny.config(o2sac.Config, evaluation_episodes=0, **allowed).evaluation.episodes == 0
    for name, value, words in (
        ("reference_update", "best", "with evaluation.episodes=0 set it to returns"),
        ("start_actor", "best_of", "with evaluation.episodes=0 set it to aligned or offline"),
        ("reference_init", "best_of", "with evaluation.episodes=0 set it to aligned or offline"),
    ):
        path = name.replace("_", ".")
        with pytest.raises(ValueError, match=f"^{path}={value} needs evaluations: {words}$"):
            tiny.config(o2sac.Config, evaluation_episodes=0, **allowed | {name: value})


def test_offline_actor_is_handed_on():
    given, fresh = policy(), policy().params
    assert common.offline_actor(Handoff(given), fresh, "deterministic") is given.params
    assert common.offline_actor(None, fresh, "deterministic") is fresh


def test_offline_actor_must_fit():
    with pytest.raises(ValueError, match="expected a tanh_gaussian policy, got a deterministic one; clone it first"):
        common.offline_actor(Handoff(policy()), policy().params, "tanh_gaussian")
    with pytest.raises(ValueError, match=r"network differs from this algorithm's: set networks.hidden to \(8,\)"):
        common.offline_actor(Handoff(policy(hidden=(8,))), policy().params, "deterministic")


def test_transform_takes_the_policy_s_normalizer_and_the_settings_rewards():
    normalizer = Normalizer(jnp.ones(3), jnp.full(3, 2.0))
    handoff = Handoff(policy().replace(normalizer=normalizer))
    config = tiny.config(o2sac.Config, reward_scale=10.0, reward_shift=-5.0)
    transform = common.initial_transform(config.update, handoff, 3)
    assert transform.normalizer is normalizer
    assert (transform.reward_scale, transform.reward_shift) == (10.0, -5.0)
    np.testing.assert_array_equal(common.initial_transform(config.update, None, 3).normalizer(jnp.ones(3)), 1.0)


@pytest.mark.parametrize("module", [o2sac, o2td3])
@pytest.mark.parametrize("phase", ["reevaluate", "align"])
def test_extras_of_a_phase_are_what_its_updates_would_compute(module, phase):
    algorithm = tiny.compiled(module.make(tiny.config(module.Config, hidden=(8,), critic_hidden=(8,)), SPEC))
    rows = random_rollout(SPEC, 16)
    state = algorithm.init(jax.random.key(0), None)
    state = state.replace(transform=Transform(Normalizer.fit(rows.observation)))
    # so that actor and critics are no longer their copies
    state, _ = algorithm.phase("align").update(state, rows, jax.random.key(1))
    prepared, extras = algorithm.phase(phase).prepare(state, rows)
    jax.tree.map(np.testing.assert_array_equal, prepared, state)
    with jax.default_matmul_precision("highest"):
        plain, metrics = update_of(algorithm, phase)(state, rows, jax.random.key(2))
        annotated, same_metrics = update_of(algorithm, phase)(state, Annotated.of(rows, extras), jax.random.key(2))
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(compare, (plain, metrics), (annotated, same_metrics))


@pytest.mark.parametrize("module", [o2sac, o2td3])
def test_a_phase_leaves_what_its_extras_are_made_of(module):
    algorithm = tiny.compiled(module.make(tiny.config(module.Config, hidden=(8,), critic_hidden=(8,)), SPEC))
    rows, state = random_rollout(SPEC, 16), algorithm.init(jax.random.key(0), None)
    for phase in ("reevaluate", "align"):
        _, before = algorithm.phase(phase).prepare(state, rows)
        state, _ = update_of(algorithm, phase)(state, rows, jax.random.key(1))
        jax.tree.map(np.testing.assert_array_equal, algorithm.phase(phase).prepare(state, rows)[1], before)


@pytest.mark.parametrize("module", [online.td3, online.sac])
def test_controls_take_the_networks_of_the_critics_they_go_on_from(module):
    config = module.Config.for_task(tasks()["mujoco/hopper-medium"], "fast")
    run = {"hidden": [8], "critic_hidden": [8, 8, 8], "num_critics": 4, "layer_norm": True, "discount": 0.9}
    after = config.after("cql", run)
    assert (after.networks.hidden, after.networks.critic_hidden) == ((8,), (8, 8, 8))
    assert (after.networks.num_critics, after.networks.layer_norm, after.update.discount) == (4, True, 0.9)
    assert config.after("dt", {"hidden": [8]}) == config  # no critics: networks.critic_source=random is asked for
