"""O2SAC: recorded updates of every phase, losses by hand, gradients, settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax.data.transform import Normalizer
from o2o_jax.losses import soft_actor_loss
from o2o_jax.offline import cql
from o2o_jax.online import o2sac, sac
from o2o_jax.online.o2sac import losses
from o2o_jax.ops.distributions import TanhGaussian
from o2o_jax.policy import hand_over
from o2o_jax.settings import paths
from tests import sharing, tiny
from tests.golden_numbers import SCALAR_RTOL, SPEC, Golden, member, replayed_draws
from tests.tiny import compiled, far, moved, random_batch, update_of

# Names of the record -> ours. The record logs the first critic alone where we log the mean of both.
LOGS = {
    "reevaluate": {"ope_target_q": "target_q", "ope_loss": "critic_loss"},
    "align": {
        "refine_average_target_q": "target_q",
        "refine_predicted_loss": "align_loss",
        "refine_fixed_loss": "retain_loss",
        "reconstruct_log_pi": "log_prob",
        "reconstruct_policy_loss": "actor_loss",
    },
    "finetune": {"alpha": "alpha", "lmbda": "lagrange", "qfloss": "critic_loss", "td_target": "target_q"},
}


def golden_state(golden):
    # with no warm-up, update t of fine-tuning is environment step t
    algorithm = o2sac.make(tiny.config(o2sac.Config, warmup_env_steps=0), SPEC)
    actor = golden.params("actor", log_std_multiplier=1.0, log_std_offset=-1.0)
    critic = golden.ensemble("critic_1", "critic_2")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        return algorithm.init(key).replace(actor=actor, reference=actor, critic=critic, target_critic=critic)

    return algorithm, start(jax.random.key(0))


def test_golden_updates():
    """All phases in a row, each from the state that the one before left, optimiser moments included."""
    golden = Golden("o2sac")
    algorithm, state = golden_state(golden)
    offline = state.reference
    for phase in ("reevaluate", "align", "finetune"):
        if phase == "finetune":  # recorded with π_ref = π_off
            state = sharing.jit(algorithm.online.begin)(state, True).replace(reference=offline)
        update = golden.replay(phase, update_of(algorithm, phase))
        for step in golden.steps(phase):
            if phase == "finetune":
                state = state.replace(step=jnp.full_like(state.step, 1_000 * (step + 1)))
            state, metrics = update(state, step)
            recorded = golden.log(phase, step)
            for name, ours in LOGS[phase].items():
                # losses and means are differences of terms of order 1, which bounds what float32 can agree on
                np.testing.assert_allclose(metrics[ours], recorded[name], rtol=SCALAR_RTOL, atol=1e-5, err_msg=name)
            golden.check(
                phase,
                step,
                actor=state.actor,
                critic_1=member(state.critic, 0),
                critic_2=member(state.critic, 1),
                log_alpha=state.log_alpha,
                log_lagrange=state.log_lagrange,
            )
        assert step == 2


class Actor:
    """A stand-in: a squashed normal with mean p and σ = 0.5."""

    def apply(self, params, observation):
        mean = jnp.broadcast_to(params, observation.shape)
        return TanhGaussian(mean, jnp.full_like(mean, jnp.log(0.5)))


class Critic:
    """A stand-in for an ensemble: Q_i(s, a) = b_i + p_i a, parameters ([E], [E]), values [E, ...]."""

    def apply(self, params, observation, action):
        del observation
        return jax.vmap(lambda b, p: b + p * action[..., 0])(*params)


OBSERVATION = jnp.zeros((2, 1))
# Of a normal with σ = 0.5 around 0, squashed: u = artanh 0.5 = 0.54931,
# log π(±0.5) = −½ (u / 0.5)² + log 2 − ½ log 2π − log(1 − 0.25) = −0.60347 + 0.69315 − 0.91894 + 0.28768 = −0.54158
# log π(0) = 0.69315 − 0.91894 = −0.22579


def test_align_loss_by_hand():
    # Q̄₁ = 1 + 4a, Q̄₂ = 2 + a:   q̇ = min(1, 2) = 1;   anchor of a = ±0.5 with α = 2:
    # 1 − 2 (−0.22579 + 0.54158) = 0.36842;   Q̄min(0.5) = 2.5 and Q̄min(−0.5) = −1, so y = 0.36842 and −1.
    # Q₁ = 2 at both: ((2 − 0.36842)² + 3²) / 2 = 5.83103;   Q₂ = a: (0.13158² + 0.5²) / 2 = 0.13366
    # retain: Q₁(0) = 2, Q₂(0) = 0 against 1: 1 + 1
    critic, target_critic = (
        (jnp.array([2.0, 0.0]), jnp.array([0.0, 1.0])),
        (jnp.array([1.0, 2.0]), jnp.array([4.0, 1.0])),
    )
    anchor = losses.Anchor.of(jnp.zeros(1), Actor(), target_critic, Critic(), OBSERVATION)
    loss, metrics = losses.align_loss(
        critic, Critic(), target_critic, anchor, OBSERVATION, jnp.array([[0.5], [-0.5]]), 2.0
    )
    np.testing.assert_allclose(loss, 7.964692, rtol=1e-5)
    np.testing.assert_allclose(metrics["align_loss"], 5.964692, rtol=1e-5)
    np.testing.assert_allclose(metrics["retain_loss"], 2.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["target_q"], (0.368415 - 1.0) / 2, rtol=1e-5)
    # the lower Q of the probes is 0.5 and −0.5, that of the mode 0
    np.testing.assert_allclose(metrics["overestimated"], 0.5)


def test_a_bound_of_log_densities_bounds_what_a_probe_is_pulled_down_to():
    # all is worth 1; α = 20 pulls either probe down to 1 − 20 (−0.22579 + 0.54158) = −5.31568, where log π ≥ −0.3 only
    # to 1 − 20 (−0.22579 + 0.3) = −0.48418
    critics = (jnp.array([9.0, 9.0]), jnp.zeros(2))
    anchor = losses.Anchor.of(jnp.zeros(1), Actor(), (jnp.ones(2), jnp.zeros(2)), Critic(), OBSERVATION)
    for bound, expected in ((None, -5.315682), (-50.0, -5.315682), (-0.3, -0.484180)):
        _, metrics = losses.align_loss(
            critics, Critic(), (jnp.ones(2), jnp.zeros(2)), anchor, OBSERVATION, jnp.array([[0.5], [-0.5]]), 20.0, bound
        )
        np.testing.assert_allclose(metrics["target_q"], expected, rtol=1e-4)


def test_align_loss_moves_the_critics_alone():
    critic, target_critic = (
        (jnp.array([2.0, 0.0]), jnp.array([0.0, 1.0])),
        (jnp.array([1.0, 2.0]), jnp.array([4.0, 1.0])),
    )
    anchor = losses.Anchor.of(jnp.zeros(1), Actor(), target_critic, Critic(), OBSERVATION)
    action = jnp.array([[0.5], [-0.5]])
    gradients, _ = jax.grad(losses.align_loss, argnums=(0, 2), has_aux=True)(
        critic, Critic(), target_critic, anchor, OBSERVATION, action, 2.0
    )
    # d/db₂: 2 mean (Q₂(a) − y) + 2 (Q₂(0) − q̇) = (0.13158 + 0.5) − 2
    np.testing.assert_allclose(gradients[0][0][1], 0.631584 - 2.0, rtol=1e-5)
    jax.tree.map(lambda gradient: np.testing.assert_array_equal(gradient, 0.0), gradients[1])


CRITIC = (jnp.zeros(2), jnp.array([2.0, 3.0]))


def actor_loss(mean, noise, alpha=0.1, **constraint):
    """Loss, what comes with it, and the gradient of the mean."""
    draws = [np.asarray(noise, np.float32)[:, None]]
    arguments = (jnp.array([mean]), Actor(), CRITIC, Critic())
    function = soft_actor_loss
    if constraint:
        arguments += (Actor().apply(jnp.array([constraint["reference"]]), OBSERVATION[: len(noise)]),)
        function = functools.partial(
            losses.constrained_actor_loss,
            lagrange=constraint["lagrange"],
            measure=losses.Divergence(constraint.get("kind", "sample"), constraint.get("least", -50.0)),
        )
    with replayed_draws(draws):
        (loss, aux), gradient = jax.value_and_grad(function, has_aux=True)(
            *arguments, observation=OBSERVATION[: len(noise)], key=jax.random.key(0), alpha=alpha
        )
    return loss, aux, gradient


def test_actor_loss_by_hand():
    # noise 0: a = 0, log π = −0.22579, Q = 0.   noise 1: u = 0.5, a = 0.46212, min(2, 3) a = 0.92423,
    # log π = −0.5 + 0.69315 − 0.91894 − log(1 − 0.21355) = −0.48556
    # mean of 0.1 · (−0.22579) − 0 and 0.1 · (−0.48556) − 0.92423
    loss, (action, log_prob, distribution), _ = actor_loss(0.0, [0.0, 1.0])
    np.testing.assert_allclose(loss, -0.497685, rtol=1e-5)
    np.testing.assert_allclose(action[:, 0], [0.0, 0.462117], rtol=1e-5)
    np.testing.assert_allclose(log_prob, [-0.225791, -0.485562], rtol=1e-5)
    np.testing.assert_allclose(distribution.mean, np.zeros((2, 1)))


def test_actor_gradient_in_closed_form():
    # at u = 0.5 without noise: d log π / du = 2 tanh u and dQ / du = 2 (1 − tanh² u):   0.2 · 0.46212 − 1.57290
    _, _, gradient = actor_loss(0.5, [0.0])
    np.testing.assert_allclose(gradient, [-1.480472], rtol=1e-5)


def test_constrained_actor_loss_by_hand():
    # mean 0.5, reference 0, no noise: k = log π − log π_ref = ½ (0.5 / 0.5)² = 0.5 and dk / du = 0.5 / 0.5² = 2
    plain, (_, log_prob, _), gradient = actor_loss(0.5, [0.0])
    loss, (same_log_prob, divergence), constrained_gradient = actor_loss(0.5, [0.0], reference=0.0, lagrange=3.0)
    np.testing.assert_allclose(divergence, [0.5], rtol=1e-4)
    np.testing.assert_allclose(loss, plain + 3.0 * 0.5, rtol=1e-4)
    np.testing.assert_allclose(constrained_gradient, gradient + 3.0 * 2.0, rtol=1e-4)
    np.testing.assert_allclose(same_log_prob, log_prob)


def test_the_exact_divergence_knows_no_sample():
    # means 0.5 apart, both σ 0.5: KL = ½ (0.5 / 0.5)² whatever is drawn, and d KL / dμ = 0.5 / 0.5²
    for noise in ([0.0], [1.3]):
        plain, _, gradient = actor_loss(0.5, noise)
        loss, (_, divergence), constrained_gradient = actor_loss(0.5, noise, reference=0.0, lagrange=3.0, kind="exact")
        np.testing.assert_allclose(divergence, [0.5], rtol=1e-6)
        np.testing.assert_allclose(loss, plain + 3.0 * 0.5, rtol=1e-5)
        np.testing.assert_allclose(constrained_gradient, gradient + 3.0 * 2.0, rtol=1e-5)


def test_divergence_by_hand():
    # 1 − (−0.54158); a reference around 5 in u gives a = −0.5 far less than the bound of −10 allows: 1 + 10
    reference = Actor().apply(jnp.array([[0.0], [5.0]]), OBSERVATION)
    action = jnp.array([[0.5], [-0.5]])
    divergence = losses.divergence(jnp.ones(2), action, reference, -10.0)
    np.testing.assert_allclose(divergence, [1.541584, 11.0], rtol=1e-5)


def test_the_bound_of_the_reference_s_density_stops_its_gradient():
    # beyond the bound k moves with log π alone
    def of(least):
        return actor_loss(0.5, [0.0], reference=20.0, lagrange=1.0, least=least)

    _, (log_prob, divergence), gradient = of(-50.0)
    np.testing.assert_allclose(divergence, log_prob + 50.0, rtol=1e-6)
    np.testing.assert_allclose(gradient, [-1.480472 + 2.0 * np.tanh(0.5)], rtol=1e-5)
    _, _, free = of(-1e6)
    assert abs(float(free[0])) > 50.0


def test_divergence_of_a_policy_from_itself_is_zero():
    # for actions that are not clamped, up to the rounding of artanh tanh
    distribution = TanhGaussian(jnp.linspace(-1.0, 1.0, 64)[:, None], jnp.full((64, 1), -1.0))
    action, log_prob = distribution.sample_and_log_prob(jax.random.key(0))
    assert float(jnp.abs(action).max()) < 0.99
    np.testing.assert_allclose(losses.divergence(log_prob, action, distribution, -50.0), 0.0, atol=1e-4)


TINY = {"hidden": (8,), "critic_hidden": (8,)}


@functools.cache
def small(**settings):
    """A small algorithm with compiled phases, and its state at the start."""
    algorithm = o2sac.make(tiny.config(o2sac.Config, **TINY, **settings, warmup_env_steps=0), SPEC)
    return compiled(algorithm), sharing.jit(algorithm.init)(jax.random.key(0))


@pytest.mark.parametrize(
    ("phase", "parts", "optimisers"),
    [
        ("reevaluate", {"critic", "target_critic"}, {"critic"}),
        ("align", {"actor", "critic"}, {"actor", "critic"}),
        (
            "finetune",
            {"actor", "critic", "target_critic", "log_alpha", "log_lagrange"},
            {"actor", "critic", "alpha", "lagrange"},
        ),
    ],
)
def test_what_a_phase_moves(phase, parts, optimisers):
    # in no phase the reference, the offline policy before fine-tuning, nor the transform
    algorithm, state = small()
    after, _ = update_of(algorithm, phase)(state, random_batch(SPEC), jax.random.key(1))
    assert moved(state, after) == parts | {"opt", "step"}
    assert moved(state.opt, after.opt) == optimisers


def test_targets_of_terminal_states_are_their_rewards():
    algorithm, state = small()
    batch = random_batch(SPEC, terminated=1.0)
    for phase in ("reevaluate", "finetune"):
        _, metrics = update_of(algorithm, phase)(state.replace(reference=far(state.actor)), batch, jax.random.key(1))
        np.testing.assert_allclose(metrics["target_q"], jnp.mean(batch.reward), rtol=1e-5)


def test_reevaluation_is_of_the_offline_policy():
    algorithm, state = small()
    offline, _ = algorithm.phase("reevaluate").update(state, random_batch(SPEC), jax.random.key(1))
    other_actor, _ = algorithm.phase("reevaluate").update(
        state.replace(actor=far(state.actor)), random_batch(SPEC), jax.random.key(1)
    )
    jax.tree.map(np.testing.assert_array_equal, offline.critic, other_actor.critic)


@pytest.mark.parametrize(("reference", "sign"), [("itself", -1), ("another", 1)])
def test_lagrange_falls_near_the_reference_and_rises_far_from_it(reference, sign):
    algorithm, state = small()
    if reference == "another":
        state = state.replace(reference=far(state.actor))
    after, metrics = algorithm.online.update(state, random_batch(SPEC), jax.random.key(1))
    np.testing.assert_allclose(after.log_lagrange - state.log_lagrange, sign * 5e-5, rtol=1e-2)
    if reference == "itself":
        # the sample of the divergence is 0, so that u = τ = 0.125 and the loss is λ · 0.3 · 0.125
        np.testing.assert_allclose(metrics["divergence"], 0.0, atol=1e-4)
        np.testing.assert_allclose(metrics["lagrange_loss"], 0.3 * 0.125, rtol=1e-3)
    else:
        assert float(metrics["divergence"]) > float(metrics["threshold"])


def test_the_target_pays_for_the_divergence():
    # y = … − γ λ k': linear in λ, and unchanged where the policy is its own reference
    algorithm, state = small()

    def target(state, lagrange):
        state = state.replace(log_lagrange=jnp.log(jnp.asarray(lagrange, jnp.float32)))
        return float(algorithm.online.update(state, random_batch(SPEC), jax.random.key(1))[1]["target_q"])

    np.testing.assert_allclose(target(state, 2.0), target(state, 1e-9), atol=1e-3)
    away = state.replace(reference=far(state.actor))
    free, once, twice = (target(away, lagrange) for lagrange in (1e-9, 1.0, 2.0))
    assert once < free - 0.1
    np.testing.assert_allclose(twice - free, 2.0 * (once - free), rtol=1e-4)


def test_temperature_moves_towards_its_entropy():
    # a fresh policy has σ ≈ 1/e in u: more entropy than −|A|, so that α falls
    algorithm, state = small()
    after, metrics = algorithm.online.update(state, random_batch(SPEC), jax.random.key(1))
    assert -float(metrics["log_prob"]) > -SPEC.action_dim
    np.testing.assert_allclose(after.log_alpha - state.log_alpha, -3e-4, rtol=1e-3)
    np.testing.assert_allclose(metrics["alpha"], 0.2, rtol=1e-6)


def test_without_a_constraint_there_is_no_multiplier_and_no_reference():
    algorithm, state = small(constraint=None)
    nowhere = state.replace(reference=jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), state.actor))
    after, metrics = algorithm.online.update(nowhere, random_batch(SPEC), jax.random.key(1))
    assert metrics.keys() == {"critic_loss", "q", "target_q", "actor_loss", "log_prob", "alpha", "alpha_loss"}
    assert not {"log_lagrange", "reference"} & moved(state, after.replace(reference=state.reference))
    assert "lagrange" not in moved(state.opt, after.opt)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.replace(reference=None)))


def test_a_constraint_that_costs_nothing_is_none():
    algorithm, state = small()
    plain, _ = small(constraint=None)[0].online.update(state, random_batch(SPEC), jax.random.key(1))
    free, _ = algorithm.online.update(
        state.replace(log_lagrange=jnp.asarray(-100.0)), random_batch(SPEC), jax.random.key(1)
    )
    for part in ("actor", "critic", "log_alpha"):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
            getattr(plain, part),
            getattr(free, part),
        )


def test_act_explores_and_the_policy_is_the_actor():
    algorithm, state = small()
    state = state.replace(transform=state.transform.replace(normalizer=Normalizer(jnp.ones(5), jnp.full(5, 2.0))))
    act = jax.jit(functools.partial(algorithm.online.act, state, (), jnp.ones(5), jnp.zeros(())))
    actions = np.stack([act(jax.random.key(i))[0] for i in range(8)])
    assert len(np.unique(actions)) == 8 * SPEC.action_dim
    assert np.abs(actions).max() <= 1.0
    policy = algorithm.policy(state)
    assert policy.head == algorithm.requires.head == "tanh_gaussian"
    np.testing.assert_allclose(
        policy.distribution(jnp.ones(5)).mode(), policy.actor.apply(state.actor, jnp.zeros(5)).mode(), rtol=1e-6
    )


def test_sac_goes_on_from_cql():
    spec_of = {"hidden": (8, 8), "critic_hidden": (8, 8)}
    offline = cql.make(cql.Config(**spec_of), SPEC)

    @jax.jit
    def start(key):
        state = offline.init(key, Normalizer(jnp.ones(5), jnp.ones(5)))
        state = state.replace(target_critic=far(state.critic), log_alpha=jnp.asarray(-1.5))
        handoff = hand_over(offline, state)
        plain = algorithm.init(jax.random.key(9), handoff)
        return state, plain, algorithm.online.begin(plain, False)

    algorithm = sac.make(tiny.config(sac.Config, **spec_of), SPEC)
    state, started, ready = start(jax.random.key(0))
    assert algorithm.requires.state
    assert not o2sac.make(o2sac.Config(), SPEC).requires.state
    for now in (started, ready):
        for part in ("actor", "critic", "target_critic", "log_alpha"):
            jax.tree.map(np.testing.assert_array_equal, getattr(now, part), getattr(state, part))
        assert float(optax.tree_utils.tree_norm(now.opt.critic[0].mu)) == 0.0  # fresh moments
    np.testing.assert_array_equal(started.transform.normalizer.mean, 1.0)


def test_sac_from_scratch_starts_with_its_own_settings():
    config = sac.Config.from_scratch()
    state = sharing.jit(sac.make(tiny.changed(config, **TINY), SPEC).init)(jax.random.key(0))
    assert float(state.log_alpha) == 0.0  # α = 1
    assert (config.update.actor_lr, config.update.critic_lr, config.finetune.alpha_lr) == (3e-4, 3e-4, 3e-4)


@pytest.mark.parametrize(("field", "value"), [("alpha", 0.0), ("alpha", float("nan")), ("alpha_lr", -1.0)])
def test_config_refuses(field, value):
    path = tiny.path_of(field, paths(o2sac.Config()))
    with pytest.raises(ValueError, match=f"^{path} must .*, got "):
        tiny.config(o2sac.Config, **{field: value})
