"""O2TD3: recorded updates of every phase, losses by hand, gradients, settings."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax.data.transform import Normalizer
from o2o_jax.offline import td3_bc
from o2o_jax.online import o2td3, td3
from o2o_jax.online.o2td3 import losses
from o2o_jax.ops.alignment import bounded_distance, decayed_anchor
from o2o_jax.ops.distributions import Deterministic
from o2o_jax.policy import hand_over
from o2o_jax.settings import paths
from tests import sharing, tiny
from tests.golden_numbers import SCALAR_RTOL, SPEC, Golden, member
from tests.tiny import compiled, far, moved, random_batch, update_of

# Names of the record -> ours. The record logs the first critic alone where we log the mean of both.
LOGS = {
    "reevaluate": {"ope_critic_loss": "critic_loss", "ope_target_q": "target_q"},
    "align": {
        "refine_loss": "align_loss",
        "refine_fixed_loss": "retain_loss",
        "refine_total_loss": "critic_loss",
        "reconstruct_actor_loss": "actor_loss",
    },
    "finetune": {"lmbda": "lagrange"},
}


def golden_state(golden):
    # updates 2t and 2t + 1 of fine-tuning then are those of environment step t
    algorithm = o2td3.make(tiny.config(o2td3.Config, warmup_env_steps=0, updates_per_env_step=2), SPEC)
    actor, critic = golden.params("actor"), golden.ensemble("critic_1", "critic_2")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        actors = {"actor": actor, "target_actor": actor, "reference": actor}
        return algorithm.init(key).replace(**actors, critic=critic, target_critic=critic)

    return algorithm, start(jax.random.key(0))


def test_golden_updates():
    """All phases in a row, each from the state that the one before left, optimiser moments included."""
    golden = Golden("o2td3")
    algorithm, state = golden_state(golden)
    offline = state.reference
    for phase in ("reevaluate", "align", "finetune"):
        if phase == "finetune":  # recorded with π_ref = π_off
            state = sharing.jit(algorithm.online.begin)(state, True).replace(reference=offline)
        update = golden.replay(phase, update_of(algorithm, phase))
        for step in golden.steps(phase):
            if phase == "finetune":  # recorded at environment steps 1000, 2000, 3000; the second one moves the actor
                state = state.replace(step=jnp.full_like(state.step, 2_000 * (step + 1) + step % 2))
            state, metrics = update(state, step)
            recorded = golden.log(phase, step)
            for name, ours in LOGS[phase].items():
                if name not in recorded:  # the actor's terms, where it was not updated
                    continue
                # losses and means are differences of terms of order 1, which bounds what float32 can agree on
                np.testing.assert_allclose(metrics[ours], recorded[name], rtol=SCALAR_RTOL, atol=1e-5, err_msg=name)
            golden.check(
                phase,
                step,
                actor=state.actor,
                critic_1=member(state.critic, 0),
                critic_2=member(state.critic, 1),
                log_lagrange=state.log_lagrange,
            )
        assert step == 2


class Actor:
    """A stand-in: π(s) = s p, of one dimension per parameter."""

    head = "deterministic"

    def apply(self, params, observation):
        return Deterministic(observation * params[None])


class Critic:
    """A stand-in for an ensemble: Q_i(s, a) = b_i + p_i a, parameters ([E], [E]), values [E, ...]."""

    def apply(self, params, observation, action):
        del observation
        return jax.vmap(lambda b, p: b + p * action[..., 0])(*params)


class OneCritic:
    """The same for one critic: parameters ([], []), values [...]."""

    def apply(self, params, observation, action):
        del observation
        return params[0] + params[1] * action[..., 0]


OBSERVATION = jnp.array([[1.0], [2.0]])
ONLINE = (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))  # Q₁ = 1, Q₂ = a
TARGETS = (jnp.array([2.0, 3.0]), jnp.array([10.0, -10.0]))  # Q̄₁ = 2 + 10a, Q̄₂ = 3 − 10a


def anchor(targets):
    """ȧ = 0 in both states, and its worth."""
    return losses.Anchor(jnp.zeros((2, 1)), jnp.min(targets[0]) * jnp.ones(2))


def test_align_loss_by_hand():
    # q̇ = min(2, 3) = 2 at ȧ = 0.   ã = 0.1: δ = 0.1, cap 2 / 1.01 = 1.98020;  ã = 0.5: δ = 0.2, cap 2 / 1.04 = 1.92308
    # y₁ = 1.98020 (of 3) and 1.92308 (of 7);   y₂ = 1.98020 (of 2) and −2
    # Q₁: (0.98020² + 0.92308²) / 2 = 0.90643;   Q₂: (1.88020² + 2.5²) / 2 = 4.89257
    # retain: Q₁(0) = 1 and Q₂(0) = 0 against 2: 1 + 4
    probes = jnp.array([[0.1], [0.5]])
    loss, metrics = losses.align_loss(ONLINE, Critic(), TARGETS, anchor(TARGETS), OBSERVATION, probes, 1.0, 0.2)
    np.testing.assert_allclose(metrics["align_loss"], 5.799002, rtol=1e-5)
    np.testing.assert_allclose(metrics["retain_loss"], 5.0, rtol=1e-6)
    np.testing.assert_allclose(loss, 10.799002, rtol=1e-5)
    np.testing.assert_allclose(metrics["overestimated"], 1.0)  # min(Q₁, Q₂) is 0.1 and 0.5 at the probes, 0 at the mode


def test_align_loss_of_negative_values_by_hand():
    # q̇ = −2: the cap of a probe is −2 · 1.01 and −2 · 1.04, below Q̄ = −2 of both critics
    targets = (jnp.full(2, -2.0), jnp.zeros(2))
    probes = jnp.array([[0.1], [0.5]])
    _, metrics = losses.align_loss(ONLINE, Critic(), targets, anchor(targets), OBSERVATION, probes, 1.0, 0.2)
    np.testing.assert_allclose(metrics["target_q"], -(2.02 + 2.08) / 2, rtol=1e-6)


def test_align_loss_moves_the_critics_alone():
    probes = jnp.array([[0.1], [0.5]])
    gradients, _ = jax.grad(losses.align_loss, argnums=(0, 2), has_aux=True)(
        ONLINE, Critic(), TARGETS, anchor(TARGETS), OBSERVATION, probes, 1.0, 0.2
    )
    # d/db₁: 2 mean (1 − y₁) + 2 (1 − 2) = −0.98020 − 0.92308 − 2
    np.testing.assert_allclose(gradients[0][0][0], -3.903275, rtol=1e-5)
    jax.tree.map(lambda gradient: np.testing.assert_array_equal(gradient, 0.0), gradients[1])


def test_probe_targets_are_bounded_on_both_sides():
    # 0 ≤ δ ≤ 0.2, hence q̇ / 1.04 ≤ y ≤ q̇ where Q̄ of the probe is higher, and y ≤ Q̄ always
    keys = jax.random.split(jax.random.key(0), 2)
    probes = jax.random.uniform(keys[0], (256, 3), minval=-1.0, maxval=1.0)
    mode = jax.random.uniform(keys[1], (256, 3), minval=-1.0, maxval=1.0)
    distance = bounded_distance(probes, mode, 0.2)
    assert 0.0 <= float(distance.min()) < float(distance.max()) == pytest.approx(0.2)
    for value, low, high in ((3.0, 3.0 / 1.04, 3.0), (-3.0, -3.0 * 1.04, -3.0)):
        cap = decayed_anchor(jnp.full(256, value), distance, 1.0)
        assert low - 1e-6 <= float(cap.min()) <= float(cap.max()) <= high


def test_actor_loss_by_hand():
    # π = 0.2, 0.4; Q₁ = 1 + 2a = 1.4, 1.8; the gradient of −mean Q₁ is −mean 2 s = −3
    arguments = (jnp.array([0.2]), Actor(), (jnp.asarray(1.0), jnp.asarray(2.0)), OneCritic(), OBSERVATION)
    (loss, action), gradient = jax.value_and_grad(losses.actor_loss, has_aux=True)(*arguments)
    np.testing.assert_allclose(loss, -1.6, rtol=1e-6)
    np.testing.assert_allclose(action[:, 0], [0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(gradient, [-3.0], rtol=1e-6)


def constrained_actor_loss(critic, lagrange, reference=(0.5, 0.1), normalize=True):
    arguments = (jnp.array([0.2]), Actor(), critic, OneCritic(), jnp.array(reference)[:, None], OBSERVATION)
    return jax.value_and_grad(losses.constrained_actor_loss, has_aux=True)(*arguments, jnp.asarray(lagrange), normalize)


def test_constrained_actor_loss_by_hand():
    # π = 0.2, 0.4; Q = 1.4, 1.8, so that the first term is −1.  (0.2 − 0.5)² = 0.09 and (0.4 − 0.1)² = 0.09
    # gradient: −3 / 1.6 + λ · mean(2 · (−0.3) · 1, 2 · 0.3 · 2) = −1.875 + 4 · 0.3
    (loss, divergence), gradient = constrained_actor_loss((1.0, 2.0), 4.0)
    np.testing.assert_allclose(divergence[:, 0], [0.09, 0.09], rtol=1e-5)
    np.testing.assert_allclose(loss, -1.0 + 4.0 * 0.09, rtol=1e-5)
    np.testing.assert_allclose(gradient, [-1.875 + 1.2], rtol=1e-5)


def test_an_actor_loss_that_is_not_normalised_by_hand():
    # as above without the division by mean |Q| = 1.6: −1.6 + 4 · 0.09, and −3 + 1.2
    (loss, _), gradient = constrained_actor_loss((1.0, 2.0), 4.0, normalize=False)
    np.testing.assert_allclose(loss, -1.6 + 4.0 * 0.09, rtol=1e-5)
    np.testing.assert_allclose(gradient, [-3.0 + 1.2], rtol=1e-5)


def test_the_scale_of_q_does_not_change_the_actor_s_gradient():
    (_, _), small = constrained_actor_loss((1.0, 2.0), 4.0)
    (_, _), large = constrained_actor_loss((1e4, 2e4), 4.0)
    np.testing.assert_allclose(small, large, rtol=1e-5)


@pytest.mark.parametrize(("mode", "expected"), [("per_sample", [0.04, 0.36]), ("batch_mean", [0.2, 0.2])])
def test_target_penalty_by_hand(mode, expected):
    # π − π_ref at s' = (1, 1) and (3, 3) with parameters (0.3, 0) and (0.1, 0.2): differences (0.2, −0.2) s',
    # squares 0.04 s'², of which the mean over both dimensions is 0.04 and 0.36
    nets = types.SimpleNamespace(actor=Actor())
    config = tiny.config(o2td3.Config, target_penalty=mode)
    state = types.SimpleNamespace(actor=jnp.array([0.3, 0.0]), reference=jnp.array([0.1, 0.2]))
    penalty = o2td3.algorithm._target_penalty(nets, config.constraint, state, jnp.array([[1.0, 1.0], [3.0, 3.0]]))
    np.testing.assert_allclose(penalty, expected, rtol=1e-5)


TINY = {"hidden": (8,), "critic_hidden": (8,)}


@functools.cache
def small(**settings):
    """A small algorithm with compiled phases, and its state at the start."""
    algorithm = o2td3.make(tiny.config(o2td3.Config, **TINY, **settings, warmup_env_steps=0), SPEC)
    return compiled(algorithm), sharing.jit(algorithm.init)(jax.random.key(0))


@pytest.mark.parametrize(
    ("phase", "parts", "optimisers"),
    [
        ("reevaluate", {"critic", "target_critic"}, {"critic"}),
        ("align", {"actor", "critic"}, {"actor", "critic"}),
    ],
)
def test_what_a_phase_moves(phase, parts, optimisers):
    algorithm, state = small()
    after, _ = update_of(algorithm, phase)(state, random_batch(SPEC), jax.random.key(1))
    assert moved(state, after) == parts | {"opt", "step"}
    assert moved(state.opt, after.opt) == optimisers


def test_what_fine_tuning_moves():
    # the critics every time, all else every second time; never the reference, nor the transform
    algorithm, state = small()
    for update in range(1, 5):
        before = state
        state, metrics = algorithm.online.update(state, random_batch(SPEC), jax.random.key(update))
        delayed = update % 2 == 0
        parts = {"actor", "target_actor", "target_critic", "log_lagrange"} if delayed else set()
        assert moved(before, state) == {"critic", "opt", "step"} | parts
        assert moved(before.opt, state.opt) == ({"critic", "actor", "lagrange"} if delayed else {"critic"})
        assert {name for name, value in metrics.items() if jnp.isnan(value)} == (
            set() if delayed else {"actor_loss", "lagrange_loss", "divergence"}
        )


def test_targets_of_terminal_states_are_their_rewards():
    algorithm, state = small()
    batch = random_batch(SPEC, terminated=1.0)
    for phase in ("reevaluate", "finetune"):
        _, metrics = update_of(algorithm, phase)(state.replace(reference=far(state.actor)), batch, jax.random.key(1))
        np.testing.assert_allclose(metrics["target_q"], jnp.mean(batch.reward), rtol=1e-5)


def test_reevaluation_is_of_the_offline_policy():
    algorithm, state = small()
    offline, _ = algorithm.phase("reevaluate").update(state, random_batch(SPEC), jax.random.key(1))
    others = state.replace(actor=far(state.actor), target_actor=far(state.actor))
    other_actor, _ = algorithm.phase("reevaluate").update(others, random_batch(SPEC), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, offline.critic, other_actor.critic)


@pytest.mark.parametrize(("reference", "sign"), [("itself", -1), ("another", 1)])
def test_lagrange_falls_near_the_reference_and_rises_far_from_it(reference, sign):
    algorithm, state = small()
    state = state.replace(step=jnp.asarray(1, jnp.int32))  # the next update moves the actor
    if reference == "another":
        state = state.replace(reference=far(state.actor))
    after, metrics = algorithm.online.update(state, random_batch(SPEC), jax.random.key(1))
    np.testing.assert_allclose(after.log_lagrange - state.log_lagrange, sign * 5e-5, rtol=1e-2)
    if reference == "itself":
        assert float(metrics["divergence"]) == 0.0
        np.testing.assert_allclose(metrics["lagrange_loss"], 0.3 * float(metrics["threshold"]), rtol=1e-5)
    else:
        assert float(metrics["divergence"]) > float(metrics["threshold"])


@pytest.mark.parametrize("mode", ["batch_mean", "per_sample"])
def test_the_target_pays_for_the_divergence(mode):
    # y = … − γ λ f̄' is linear in λ; without terminations both modes have one mean over the batch:
    # y(λ) − y(0) = −γ λ mean (π(s') − π_ref(s'))², of the current actor without noise
    algorithm, state = small(target_penalty=mode)

    def target(state, lagrange):
        state = state.replace(log_lagrange=jnp.log(jnp.asarray(lagrange, jnp.float32)))
        return float(algorithm.online.update(state, random_batch(SPEC), jax.random.key(1))[1]["target_q"])

    assert target(state, 2.0) == target(state, 1e-9)
    away = state.replace(reference=far(state.actor))
    modes = [
        algorithm.policy(state.replace(actor=params)).distribution(random_batch(SPEC).next_observation).mode()
        for params in (away.actor, away.reference)
    ]
    penalty = 0.99 * float(jnp.mean(jnp.square(modes[0] - modes[1])))
    assert penalty > 0.05
    np.testing.assert_allclose(target(away, 1e-9) - target(away, 2.0), 2.0 * penalty, rtol=1e-4)


def test_without_a_constraint_there_is_no_multiplier_and_no_reference():
    algorithm, state = small(constraint=None)
    start = state
    elsewhere = state.replace(reference=far(state.actor))
    for update in range(2):
        state, metrics = algorithm.online.update(state, random_batch(SPEC), jax.random.key(update))
        elsewhere, _ = algorithm.online.update(elsewhere, random_batch(SPEC), jax.random.key(update))
    assert metrics.keys() == {"critic_loss", "q", "target_q", "actor_loss"}
    assert not {"log_lagrange", "reference"} & moved(start, state)
    assert "lagrange" not in moved(start.opt, state.opt)
    assert moved(state, elsewhere) == {"reference"}


def test_a_constraint_that_costs_nothing_is_none():
    algorithm, state = small()
    plain = free = state.replace(log_lagrange=jnp.asarray(-100.0))
    for update in range(2):
        free, _ = algorithm.online.update(free, random_batch(SPEC), jax.random.key(update))
        plain, _ = small(constraint=None)[0].online.update(plain, random_batch(SPEC), jax.random.key(update))
    for part in ("actor", "critic", "target_actor", "target_critic"):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
            getattr(plain, part),
            getattr(free, part),
        )


@pytest.mark.parametrize(("std", "spread"), [(0.0, (0.0, 0.0)), (0.1, (0.05, 0.15)), (50.0, (0.9, 1.0))])
def test_act_explores_by_its_noise_and_stays_within_bounds(std, spread):
    algorithm, state = small(exploration_std=std)
    act = functools.partial(algorithm.online.act, state, (), jnp.zeros(5), jnp.zeros(()))
    actions, _ = jax.jit(jax.vmap(act))(jax.random.split(jax.random.key(0), 200))
    assert float(jnp.abs(actions).max()) <= 1.0
    assert spread[0] <= float(actions.std()) <= spread[1]
    if std == 0.0:
        expected = algorithm.policy(state).distribution(jnp.zeros(5)).mode()
        np.testing.assert_allclose(actions[0], expected, rtol=1e-6)


def test_td3_goes_on_from_td3_bc():
    sizes = {"hidden": (8, 8), "critic_hidden": (8, 8)}
    offline = td3_bc.make(td3_bc.Config(**sizes), SPEC)
    algorithm = td3.make(tiny.config(td3.Config, **sizes), SPEC)

    @jax.jit
    def start(key):
        state = offline.init(key, Normalizer(jnp.ones(5), jnp.ones(5)))
        state = state.replace(target_critic=far(state.critic), target_actor=far(state.actor))
        plain = algorithm.init(jax.random.key(9), hand_over(offline, state))
        return state, plain, algorithm.online.begin(plain, False)

    state, started, ready = start(jax.random.key(0))
    assert algorithm.requires.state
    assert not o2td3.make(o2td3.Config(), SPEC).requires.state
    for now in (started, ready):
        for part in ("actor", "target_actor", "critic", "target_critic"):
            jax.tree.map(np.testing.assert_array_equal, getattr(now, part), getattr(state, part))
        assert float(optax.tree_utils.tree_norm(now.opt.critic[0].mu)) == 0.0  # fresh moments
    np.testing.assert_array_equal(started.transform.normalizer.mean, 1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("exploration_std", -0.1), ("smoothing_std", float("nan")), ("smoothing_clip", -1.0), ("decay", -1.0),
     ("policy_delay", 0)],
)  # fmt: skip
def test_config_refuses(field, value):
    path = tiny.path_of(field, paths(o2td3.Config()))
    with pytest.raises(ValueError, match=f"^{path} must .*, got "):
        tiny.config(o2td3.Config, **{field: value})
