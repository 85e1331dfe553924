"""Every offline algorithm starts every online one: one update of each phase, with tiny networks.

And the shorter ways of Appendix B: offline critics that are kept, with the policy or its clone, through alignment.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import offline, online
from o2o_jax.data import replay
from o2o_jax.data.transform import Normalizer
from o2o_jax.networks import critic_settings
from o2o_jax.policy import CloneConfig, Handoff, clone_init, hand_over, with_head
from o2o_jax.types import Annotated
from tests import sharing, tiny
from tests.test_contracts import BATCH_SIZE, HIDDEN, OVERRIDES, SPEC  # whose programs are these too

CLONE = CloneConfig(hidden=HIDDEN, updates=2, batch_size=4)
BATCH = tiny.random_rollout(SPEC, BATCH_SIZE)  # as good as a batch drawn from a buffer


def make(kind, name, **settings):
    module = {"offline": offline, "online": online}[kind].load(name)
    return module.make(tiny.configure(module.Config, **OVERRIDES | settings), SPEC)


@functools.cache
def handed_over(name):
    """Returns what an offline algorithm leaves after one update."""
    algorithm = make("offline", name)
    state = sharing.jit(algorithm.init)(jax.random.key(0), Normalizer.fit(BATCH.observation))
    batch, training = BATCH, algorithm.phase("offline")
    if training.prepare:
        state, extras = sharing.jit(training.prepare)(state, BATCH)
        batch = Annotated.of(BATCH, extras)
    if training.sample:
        batch = jax.jit(training.sample, static_argnums=2)(batch, jax.random.key(6), 8)
    state, _ = sharing.jit(training.update)(state, batch, jax.random.key(1))
    return hand_over(algorithm, state)


@functools.cache
def with_head_of(name, head):
    handoff, key = handed_over(name), jax.random.key(2)
    if handoff.policy.head == head:
        return with_head(handoff, head, BATCH, key, CLONE)
    # one program clones the policies of all sources that have the same networks
    clone = sharing.jit(functools.partial(with_head, head=head, config=CLONE))
    cloned = clone(Handoff(handoff.policy), dataset=BATCH, key=key)
    return cloned.replace(state=handoff.state, source=handoff.source)


def start_from(algorithm, handoff):
    """The state that an online algorithm starts from, made by one program for all sources where it reads the policy."""
    init, key = sharing.jit(algorithm.init), jax.random.key(3)
    if algorithm.requires.state or algorithm.requires.sources:
        return init(key, handoff)
    expected = jax.eval_shape(algorithm.init, key, handoff)  # takes the whole, whose policy is all that it reads
    state = init(key, Handoff(handoff.policy))
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, expected)
    return state


@functools.cache
def compiled(name, **settings):
    """An online algorithm with its updates compiled, once for all that start it."""
    return tiny.compiled(make("online", name, **settings))


@pytest.mark.parametrize(("source", "target"), list(itertools.product(offline.names(), online.names())))
def test_pair(source, target):
    requires = make("online", target).requires
    head = requires.head or handed_over(source).policy.head
    if requires.sources and source not in requires.sources:
        with pytest.raises(ValueError, match=f"^{target} continues from {requires.sources[0]}, .* comes from {source}"):
            make("online", target).init(jax.random.key(3), with_head_of(source, head))
        return
    handoff = with_head_of(source, head)
    direct = requires.state and hasattr(handoff.state, "critic")
    own = {"critic_source": "offline" if direct else "random"}
    if direct:  # critics as that method has them
        found = critic_settings(handoff.state.critic)
        own |= {name: found[name] for name in ("layer_norm", "num_critics")}
    algorithm = compiled(target, **own)
    state = start_from(algorithm, handoff)
    if direct and target not in ("aca", "off2on"):  # which make their critics of other functions, or of all agents'
        jax.tree.map(np.testing.assert_array_equal, state.critic, handoff.state.critic)

    # the policy is all that crosses, and it crosses whole
    started = algorithm.policy(state)
    jax.tree.map(np.testing.assert_array_equal, started.normalizer, handoff.policy.normalizer)
    if requires.head:  # else its normaliser is all that crosses
        crossed = getattr(started, "kept", getattr(started, "base", started))  # before others join, critics improve it
        actions = [policy.distribution(BATCH.observation).mode() for policy in (crossed, handoff.policy)]
        np.testing.assert_allclose(*actions, rtol=1e-6)
        assert crossed.head == head
    if head == handed_over(source).policy.head:
        assert handoff is handed_over(source)

    for phase in algorithm.phases:
        batch = BATCH
        if phase.prepare:
            state, extras = phase.prepare(state, BATCH)
            batch = Annotated.of(BATCH, extras)
        state, _ = phase.update(state, batch, jax.random.key(4))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)), phase.name
    state = algorithm.online.begin(state, jnp.asarray(True))
    batch = BATCH
    if target == "odt":  # which learns from histories
        state, extras = algorithm.online.prepare(state, BATCH)
        rule = algorithm.online.replay
        batch = sharing.jit(rule.sample)(rule.init(SPEC), Annotated.of(BATCH, extras), jax.random.key(6))
    if algorithm.online.replay.feedback:
        batch = replay.uniform_batch(BATCH, jax.random.key(6), 8)
    state, _ = algorithm.online.update(state, batch, jax.random.key(4))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    memory = algorithm.online.memory()
    action, _ = algorithm.online.act(state, memory, BATCH.observation[0], jnp.zeros(()), jax.random.key(5))
    assert action.shape == (SPEC.action_dim,)
    assert jnp.all(jnp.abs(action) <= 1.0)
    assert algorithm.policy(state).head == started.head


@pytest.mark.parametrize("target", ["o2td3", "o2sac"])
@pytest.mark.parametrize("source", ["td3_bc", "awac", "cql"])
def test_offline_critics_are_aligned_without_re_evaluation(source, target):
    # of three of the six pairs the policy is a clone: critics see actions, not heads
    algorithm = compiled(target, critic_source="offline", layer_norm=False, reevaluate_updates=0)
    handoff = with_head_of(source, algorithm.requires.head)
    start = sharing.jit(algorithm.init)(jax.random.key(3), handoff)
    for name in ("critic", "target_critic"):
        jax.tree.map(np.testing.assert_array_equal, getattr(start, name), getattr(handoff.state, name))
    assert int(start.opt.critic[0].count) == 0  # Adam begins anew
    jax.tree.map(np.testing.assert_array_equal, start.reference, handoff.policy.params)

    aligned, metrics = algorithm.phase("align").update(start, BATCH, jax.random.key(4))
    assert tiny.moved(start, aligned) == {"actor", "critic", "opt", "step"}
    assert np.isfinite(metrics["overestimated"])
    # what the critics are pulled to is what offline training's targets say, not its critics
    other = start.replace(target_critic=tiny.far(start.target_critic))
    assert metrics["target_q"] != algorithm.phase("align").update(other, BATCH, jax.random.key(4))[1]["target_q"]

    online = algorithm.online.begin(aligned, jnp.asarray(True))
    jax.tree.map(np.testing.assert_array_equal, online.target_critic, aligned.critic)
    jax.tree.map(np.testing.assert_array_equal, online.actor, aligned.actor)
    online, metrics = algorithm.online.update(online, BATCH, jax.random.key(5))
    assert "lagrange" in metrics
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(online))


def test_cql_goes_to_constrained_fine_tuning_alone():
    algorithm = compiled("o2sac", critic_source="offline", layer_norm=False, reevaluate_updates=0, align_updates=0)
    handoff = with_head_of("cql", algorithm.requires.head)
    start = algorithm.online.begin(algorithm.init(jax.random.key(3), handoff), jnp.asarray(False))
    for name in ("actor", "critic", "target_critic", "log_alpha"):  # all continues where offline training was
        jax.tree.map(np.testing.assert_array_equal, getattr(start, name), getattr(handoff.state, name))
    jax.tree.map(np.testing.assert_array_equal, start.reference, handoff.state.actor)
    _, metrics = algorithm.online.update(start, BATCH, jax.random.key(5))
    assert metrics["lagrange"] == 1.0


# that may be a clone's
REQUIRES = {name: make("online", name).requires for name in online.names()}
FROM_A_POLICY = [name for name, requires in REQUIRES.items() if requires.head and not requires.sources]


@pytest.mark.parametrize("name", FROM_A_POLICY)
def test_a_clone_by_default_is_what_the_algorithm_expects(name):
    module = online.load(name)
    algorithm = module.make(module.Config(), SPEC)
    student = jax.eval_shape(
        lambda key: clone_init(
            CloneConfig(), algorithm.requires.head, key, None, Normalizer.identity(SPEC.observation_dim), 2
        ),
        jax.random.key(0),
    ).student
    assert student.actor.hidden == module.Config().networks.hidden
