"""Every offline algorithm starts every online one: one update of each phase, with tiny networks.

And the shorter ways of Appendix B: offline critics that are kept, with the policy or its clone, through alignment.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import offline, online
from o2o_jax.data.transform import Normalizer
from o2o_jax.policy import CloneConfig, clone_init, with_head
from o2o_jax.types import Annotated, Spec
from tests import tiny

SPEC = Spec(observation_dim=4, action_dim=2)
HIDDEN = (8, 8)
OVERRIDES = {
    "hidden": HIDDEN,
    "critic_hidden": HIDDEN,
    "num_actions": 2,
    "rollout_env_steps": 16,
    "minibatch_size": 8,
    "epochs": 2,
    "width": 8,
    "layers": 1,
    "heads": 2,
    "context": 4,
    "eval_context": 2,
}
CLONE = CloneConfig(hidden=HIDDEN, updates=2, batch_size=4)
PHASES = ("reevaluate", "align", "finetune")
BATCH = tiny.random_rollout(SPEC)  # as good as a batch drawn from a buffer


def make(kind, name, **settings):
    module = {"offline": offline, "online": online}[kind].load(name)
    fields = {field.name for field in dataclasses.fields(module.Config)}
    settings = {key: value for key, value in (OVERRIDES | settings).items() if key in fields}
    return module.make(module.Config(**settings), SPEC)


@functools.cache
def handed_over(name):
    """What an offline algorithm leaves after one update."""
    algorithm = make("offline", name)
    state = jax.jit(algorithm.init)(jax.random.key(0), Normalizer.fit(BATCH.observation))
    batch = BATCH
    if algorithm.prepare:
        state, notes = jax.jit(algorithm.prepare)(state, BATCH)
        batch = Annotated.of(BATCH, notes)
    if algorithm.draw:
        batch = jax.jit(algorithm.draw, static_argnums=2)(batch, jax.random.key(6), 8)
    state, _ = jax.jit(algorithm.update)(state, batch, jax.random.key(1))
    return algorithm.handoff(state)


@functools.cache
def with_head_of(name, head):
    return with_head(handed_over(name), head, BATCH, jax.random.key(2), CLONE)


@functools.cache
def compiled(name, **settings):
    """An online algorithm and its phases, compiled once for all that start it."""
    algorithm = make("online", name, **settings)
    if algorithm.prepare:
        algorithm = algorithm._replace(prepare=jax.jit(algorithm.prepare, static_argnums=0))
    return algorithm, {phase: jax.jit(getattr(algorithm, phase)) for phase in PHASES}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(offline.names(), online.names())))
def test_pair(source, target):
    head = make("online", target).head
    handoff = with_head_of(source, head)
    direct = make("online", target).reads_handoff_state and hasattr(handoff.state, "critic")
    algorithm, phases = compiled(target, critic_source="offline" if direct else "random")
    state = jax.jit(algorithm.init)(jax.random.key(3), handoff)
    if direct:
        jax.tree.map(np.testing.assert_array_equal, state.critic, handoff.state.critic)

    # the policy is all that crosses, and it crosses whole
    actions = [policy.distribution(BATCH.observation).mode() for policy in (algorithm.policy(state), handoff.policy)]
    np.testing.assert_allclose(*actions, rtol=1e-6)
    if head == handed_over(source).policy.head:
        assert handoff is handed_over(source)

    for phase in PHASES:
        if phase == "finetune":
            state = algorithm.begin_finetuning(state, jnp.asarray(True))
        batch = BATCH
        if phase != "finetune" and algorithm.prepare:
            state, notes = algorithm.prepare(phase, state, BATCH)
            batch = Annotated.of(BATCH, notes)
        state, _ = phases[phase](state, batch, jax.random.key(4))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)), phase
    action = algorithm.act(state, BATCH.observation[0], jax.random.key(5))
    assert action.shape == (SPEC.action_dim,)
    assert jnp.all(jnp.abs(action) <= 1.0)
    assert algorithm.policy(state).head == head


@pytest.mark.parametrize("target", ["o2td3", "o2sac"])
@pytest.mark.parametrize("source", ["td3_bc", "awac", "cql"])
def test_offline_critics_are_aligned_without_re_evaluation(source, target):
    # of three of the six pairs the policy is a clone: critics see actions, not heads
    algorithm, phases = compiled(target, critic_source="offline", layer_norm=False, reevaluate_updates=0)
    handoff = with_head_of(source, algorithm.head)
    start = jax.jit(algorithm.init)(jax.random.key(3), handoff)
    for name in ("critic", "target_critic"):
        jax.tree.map(np.testing.assert_array_equal, getattr(start, name), getattr(handoff.state, name))
    assert int(start.opt.critic[0].count) == 0  # Adam begins anew
    jax.tree.map(np.testing.assert_array_equal, start.reference, handoff.policy.params)

    aligned, metrics = phases["align"](start, BATCH, jax.random.key(4))
    assert tiny.moved(start, aligned) == {"actor", "critic", "opt", "step"}
    assert np.isfinite(metrics["overestimated"])
    # what the critics are pulled to is what offline training's targets say, not its critics
    other = start.replace(target_critic=tiny.far(start.target_critic))
    assert metrics["target_q"] != phases["align"](other, BATCH, jax.random.key(4))[1]["target_q"]

    online = algorithm.begin_finetuning(aligned, jnp.asarray(True))
    jax.tree.map(np.testing.assert_array_equal, online.target_critic, aligned.critic)
    jax.tree.map(np.testing.assert_array_equal, online.actor, aligned.actor)
    online, metrics = phases["finetune"](online, BATCH, jax.random.key(5))
    assert "lagrange" in metrics
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(online))


def test_cql_goes_to_constrained_fine_tuning_alone():
    algorithm, phases = compiled(
        "o2sac", critic_source="offline", layer_norm=False, reevaluate_updates=0, align_updates=0
    )
    handoff = with_head_of("cql", algorithm.head)
    start = algorithm.begin_finetuning(algorithm.init(jax.random.key(3), handoff), jnp.asarray(False))
    for name in ("actor", "critic", "target_critic", "log_alpha"):  # all goes on where offline training was
        jax.tree.map(np.testing.assert_array_equal, getattr(start, name), getattr(handoff.state, name))
    jax.tree.map(np.testing.assert_array_equal, start.reference, handoff.state.actor)
    _, metrics = phases["finetune"](start, BATCH, jax.random.key(5))
    assert metrics["lagrange"] == 1.0


@pytest.mark.parametrize("name", online.names())
def test_a_clone_by_default_is_what_the_algorithm_expects(name):
    module = online.load(name)
    algorithm = module.make(module.Config(), SPEC)
    student = jax.eval_shape(
        lambda key: clone_init(CloneConfig(), algorithm.head, key, None, Normalizer.identity(SPEC.observation_dim), 2),
        jax.random.key(0),
    ).student
    assert student.actor.hidden == module.Config().hidden
