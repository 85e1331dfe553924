"""Online DT: what it goes on with, how it acts, and its rounds of updates after episodes."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data import history as histories
from o2o_jax.data import replay
from o2o_jax.data.dataset import Dataset
from o2o_jax.data.replay.episodes import of_ring
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Schedule
from o2o_jax.offline import dt
from o2o_jax.online import odt
from o2o_jax.online.odt.algorithm import return_to_explore
from o2o_jax.ops.advantage import discounted_returns, steps_to_end
from o2o_jax.ops.distributions import Deterministic
from o2o_jax.policy import hand_over
from o2o_jax.runtime.seeds import seed_axes
from o2o_jax.types import Annotated, Extras, History, Rollout, Spec, Transition
from tests import sharing, tiny
from tests.golden_numbers import SPEC as GOLDEN_SPEC
from tests.golden_numbers import Golden, replayed_draws

SPEC = Spec(observation_dim=3, action_dim=2)
UPDATE = dt.Config(width=8, layers=1, heads=2, context=4, eval_context=2, batch_size=8, target_return=10.0)
CONFIG = tiny.config(odt.Config, update=UPDATE, env_steps=20, max_episodes=3, updates_per_episode=2)


@functools.cache
def trained():
    """The decision transformer after an update, and what it hands over."""
    method, dataset = dt.make(UPDATE, SPEC), tiny.random_rollout(SPEC)
    phase = method.phase("offline")

    @jax.jit
    def train(key):
        state, extras = phase.prepare(method.init(key, Normalizer(jnp.ones(3), jnp.full(3, 2.0))), dataset)
        batch = phase.sample(Annotated.of(dataset, extras), key, 8)
        return phase.update(state, batch, key)[0], batch

    state, batch = train(jax.random.key(0))
    return method, state, batch, hand_over(method, state)


@functools.cache
def started():
    algorithm = odt.make(CONFIG, SPEC)
    return algorithm, algorithm.online.begin(algorithm.init(jax.random.key(3), trained()[3]), jnp.asarray(True))


def test_the_whole_state_goes_on_and_counts_anew():
    _, state, _, _ = trained()
    algorithm, begun = started()
    assert vars(begun).keys() == vars(state).keys()
    for name in vars(state).keys() - {"step"}:  # moments, the rate's warm-up and the temperature among them
        jax.tree.map(np.testing.assert_array_equal, getattr(begun, name), getattr(state, name))
    assert (int(state.step), int(begun.step)) == (1, 0)
    assert algorithm.phases == ()
    # a seed counts its own updates, since they follow its own episodes
    assert (seed_axes(state).step, seed_axes(begun).step) == (None, 0)


def test_the_online_update_is_the_offline_one():
    method, state, batch, _ = trained()
    algorithm, begun = started()
    found, metrics = sharing.jit(algorithm.online.update)(begun, batch, jax.random.key(4))
    expected, their_metrics = sharing.jit(method.phase("offline").update)(state, batch, jax.random.key(4))
    assert inspect.unwrap(algorithm.online.update).func is odt.algorithm.finetune
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, (found.actor, found.log_temperature), (expected.actor, expected.log_temperature))
    jax.tree.map(close, metrics, their_metrics)
    assert tiny.moved(begun, found) == {"actor", "log_temperature", "opt", "step"}


def test_an_update_learns_from_what_an_episode_received():
    # two histories that differ in their returns to go alone lead to different weights
    algorithm, begun = started()
    update, (_, _, batch, _) = sharing.jit(algorithm.online.update), trained()
    other = batch.replace(return_to_go=batch.return_to_go + 1_000.0)
    first, second = (update(begun, rows, jax.random.key(4))[0] for rows in (batch, other))
    assert tiny.moved(first, second) >= {"actor"}


@pytest.mark.parametrize(
    ("target", "factor", "expected"), [(3_600.0, 2.0, 7_200.0), (-150.0, 2.0, 0.0), (5.0, 1.0, 5.0)]
)
def test_return_to_explore_by_hand(target, factor, expected):
    assert float(return_to_explore(jnp.asarray(target), factor)) == expected


class Recorded:
    """In place of the transformer: notes the histories that it is shown, and draws nothing but 0."""

    head, action_dim = "sequence", 2

    def __init__(self):
        self.seen = []

    def apply(self, params, history):
        self.seen.append(history)
        return Deterministic(jnp.zeros_like(history.action))


def test_acting_asks_for_twice_the_return_and_for_less_as_it_comes():
    # asked for 10: 20, then 20 − 4, then 16 − 1; the network sees a thousandth, of the last two steps
    _, begun = started()
    algorithm, network = odt.make(CONFIG, SPEC), Recorded()
    nets = dt.algorithm.make_networks(UPDATE, SPEC)._replace(actor=network)
    act = functools.partial(odt.algorithm.act, nets, CONFIG)
    memory = algorithm.online.memory()
    for t, reward in enumerate((0.0, 4.0, 1.0)):
        observation = jnp.full(3, 1.0 + 2.0 * t)  # (s − 1) / 2 = t
        action, memory = act(begun, memory, observation, jnp.asarray(reward), jax.random.key(t))
    np.testing.assert_array_equal(action, [0, 0])
    first, second, third = network.seen
    np.testing.assert_allclose(first.valid, [[0, 1]])
    np.testing.assert_allclose(first.return_to_go[0, 1], 0.020, rtol=1e-6)
    np.testing.assert_allclose(second.return_to_go, [[0.020, 0.016]], rtol=1e-6)
    np.testing.assert_allclose(third.return_to_go, [[0.016, 0.015]], rtol=1e-6)
    np.testing.assert_allclose(third.observation[0, :, 0], [1.0, 2.0])
    assert (CONFIG.interaction.return_factor, float(begun.target_return)) == (2.0, 10.0)


def test_acting_draws_and_remembers_what_it_did():
    algorithm, begun = started()
    act, memory = sharing.jit(algorithm.online.act), algorithm.online.memory()
    assert jax.tree.map(jnp.shape, memory) == History((1, 2, 3), (1, 2, 2), (1, 2), (1, 2))
    observation, reward = jnp.ones(3), jnp.zeros(())
    first, after = act(begun, memory, observation, reward, jax.random.key(0))
    other, _ = act(begun, memory, observation, reward, jax.random.key(1))
    assert not np.array_equal(first, other)
    assert jnp.all(jnp.abs(first) <= 1.0)
    np.testing.assert_array_equal(after.action[0, -1], first)
    # evaluation takes the mode, of what the offline run asks for
    policy = algorithm.policy(begun)
    assert float(policy.target_return) == 10.0
    jax.tree.map(np.testing.assert_array_equal, policy, trained()[3].policy)


def test_rounds_follow_episodes():
    algorithm, _ = started()
    schedule = algorithm.online.schedule
    assert schedule == Schedule(updates=2, per_episode=True)
    assert [schedule.due(step, ended) for step, ended in ((1, False), (2, True), (3, False))] == [False, True, False]
    assert not Schedule(per_episode=True, warmup_env_steps=2).due(2, True)
    # 1,000 steps in episodes of 100 at most: ten rounds at least
    assert (schedule.rounds(1_000, 100), Schedule(env_steps=3, warmup_env_steps=3).rounds(10, 100)) == (10, 2)


def test_the_data_s_rows_know_their_episodes():
    algorithm, begun = started()
    rows = tiny.random_rollout(SPEC, 6).replace(reward=jnp.arange(6.0), truncated=jnp.array([0.0, 1, 1, 0, 0, 1]))
    state, extras = algorithm.online.prepare(begun, rows)
    np.testing.assert_array_equal(extras.shared["episode"], [0, 0, 1, 2, 2, 2])
    np.testing.assert_array_equal(extras.shared["remaining"], [2, 1, 1, 3, 2, 1])
    np.testing.assert_allclose(extras.shared["return_to_go"], [1, 1, 2, 12, 9, 5])
    assert extras.own is None
    jax.tree.map(np.testing.assert_array_equal, state, begun)  # 10 were asked for, and are


def test_what_is_refused():
    handoff, algorithm = trained()[3], odt.make(CONFIG, SPEC)
    with pytest.raises(
        ValueError, match=r"^odt continues from dt, .* comes from td3_bc: pass the policy of a run of dt$"
    ):
        algorithm.init(jax.random.key(0), handoff.replace(source="td3_bc"))
    with pytest.raises(ValueError, match=r"^odt continues from its offline state, .*: pass the state too$"):
        algorithm.init(jax.random.key(0), handoff.replace(state=None))
    wider = odt.make(tiny.changed(CONFIG, width=10), SPEC)
    with pytest.raises(
        ValueError, match=r"^the networks of the odt run .*: set update.width and update.layers as that"
    ):
        wider.init(jax.random.key(0), handoff)
    for name in ("max_episodes", "updates_per_episode", "return_factor"):
        with pytest.raises(ValueError, match=f"{name} must be .*, got 0"):
            tiny.changed(CONFIG, **{name: 0})


def test_settings_of_tasks():
    medium, pen = (odt.Config.for_task(envs.get_task(name)) for name in ("mujoco/hopper-medium", "adroit/pen-human"))
    assert (medium.interaction.return_factor, pen.interaction.return_factor) == (2.0, 1.0)
    assert medium.update == dt.Config.for_task(envs.get_task("mujoco/hopper-medium"))
    assert (medium.interaction.updates_per_episode, medium.replay.max_episodes, medium.env_steps) == (
        300,
        1_000,
        100_000,
    )
    theirs = dt.Config(width=128, heads=1)
    assert odt.Config().after("dt", vars(theirs)).update == theirs
    assert odt.Config().after("td3_bc", {"hidden": (8,)}) == odt.Config()


BLOCK = {"ln_1": "LayerNorm_0", "attn.c_attn": "Dense_0", "attn.c_proj": "Dense_1", "ln_2": "LayerNorm_1",
         "mlp.c_fc": "Dense_2", "mlp.c_proj": "Dense_3"}  # fmt: skip
LAYERS = {
    "embed_return": ("Dense_0",), "embed_state": ("Dense_1",), "embed_action": ("Dense_2",),
    "embed_ln": ("LayerNorm_0",), "transformer.ln_f": ("LayerNorm_1",),
    "predict_action.mu": ("Dense_3",), "predict_action.log_std": ("Dense_4",),
} | {f"transformer.h.{i}.{name}": (f"Block_{i}", layer) for i in range(2) for name, layer in BLOCK.items()}  # fmt: skip
RECORDED = dt.Config(width=16, layers=2, heads=2, context=4, eval_context=3, dropout=0.0, batch_size=32, lr=0.01,
                     warmup_updates=2, weight_decay=0.01, temperature_lr=0.01, return_scale=0.1,
                     target_return=10.0)  # fmt: skip


@functools.cache
def recorded():
    """The authors' numbers, Online DT with their settings, and a state with their weights."""
    golden = Golden("odt", {"actor": LAYERS})
    made = odt.make(odt.Config(update=RECORDED), GOLDEN_SPEC)
    state = jax.jit(made.init)(jax.random.key(0)).replace(actor=golden.params("actor"), target_return=jnp.asarray(10.0))
    return golden, made, state


def of_file(golden, phase, step, names):
    return {name: jnp.asarray(golden.recorded(phase, step, f"batch/{name}")) for name in names}


@functools.cache
def replayed():
    """The update on given draws, compiled once for both phases."""

    @jax.jit
    def update(state, batch, noise):
        with replayed_draws([noise]):
            return recorded()[1].online.update(state, batch, jax.random.key(0))

    return update


@pytest.mark.parametrize("phase", ["update", "padded"])
def test_golden_updates(phase):
    golden, _, state = recorded()
    state = state.replace(log_temperature=jnp.log(0.1 if phase == "update" else 1e-12))
    names = ("observation", "action", "return_to_go", "valid")
    for step in golden.steps(phase):
        batch = History(**of_file(golden, phase, step, names))
        state, metrics = replayed()(state, batch, *golden.recorded_draws(phase, step))
        log, own = golden.log(phase, step), {"nll": -metrics["log_likelihood"], "entropy": metrics["entropy"],
                                             "loss": metrics["actor_loss"]}  # fmt: skip
        for name, value in log.items():
            np.testing.assert_allclose(own[name], value, rtol=1e-5, atol=2e-5, err_msg=name)
        temperature = {"log_temperature": state.log_temperature} if phase == "update" else {}
        golden.check(phase, step, actor=state.actor, **temperature)
    assert step == 2


@pytest.mark.parametrize("mode", [False, True])
def test_golden_episode(mode):
    # drawn actions, asked for 20, twice what an evaluated episode is; and modes
    golden, made, state = recorded()
    batch = of_file(golden, "act", int(mode), ("observation", "reward", "action"))
    policy = made.policy(state).replace(target_return=jnp.asarray(20.0))
    memory, act = made.online.memory(), jax.jit(policy.act)

    @jax.jit
    def explore(memory, observation, reward, noise):
        with replayed_draws([noise]):
            return made.online.act(state, memory, observation, reward, jax.random.key(0))

    reward = 0.0
    if mode:
        memory = policy.begin(1)
    for t, noise in enumerate(golden.recorded_draws("act", int(mode))):
        observation, reward = batch["observation"][t], jnp.asarray(reward)
        if mode:
            action, memory = act(memory, observation[None], reward[None])
        else:
            action, memory = explore(memory, observation, reward, noise[-1])
        np.testing.assert_allclose(action.ravel(), batch["action"][t], rtol=1e-4, atol=2e-5)
        reward = batch["reward"][t]
    assert t == 5


def test_golden_histories():
    # a trajectory as an episode of the data, behind another one, and as one of the ring
    golden, *_ = recorded()
    names = ("observations", "actions", "rewards", "mean", "std")
    found = [of_file(golden, "histories", first, names) for first in golden.steps("histories")]
    rows, steps = found[0], len(found)
    ended = jnp.zeros(steps).at[-1].set(1.0)
    episode = Rollout(rows["observations"], rows["actions"], rows["rewards"], rows["observations"], ended, 0 * ended)
    rule = replay.episodes(steps, 8, 4, 1)
    buffer = rule.init(GOLDEN_SPEC)
    for t in range(steps):
        buffer = rule.add(buffer, jax.tree.map(lambda column, t=t: column[t], episode))
    to_go, (_, remaining) = discounted_returns(episode.reward, ended, 1.0), steps_to_end(ended)
    first = jnp.arange(steps)
    of_data = histories.following(histories.columns(episode, to_go), first, remaining, 4)
    for batch in (of_data, of_ring(buffer, first, 4)):
        seen = histories.normalize(batch, Normalizer(rows["mean"], rows["std"]), 0.1)
        for start in range(steps):
            expected = {name: golden.recorded("histories", start, f"history/{name}") for name in vars(seen)}
            valid = expected["valid"] > 0
            np.testing.assert_array_equal(seen.valid[start], expected["valid"])
            for name in ("observation", "action", "return_to_go"):
                values = np.asarray(getattr(seen, name)[start])[valid]
                # the code adds 1e-6 to standard deviations before it gets here
                np.testing.assert_allclose(values, expected[name][valid], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("room", [False, True])
def test_golden_queue(room):
    # which episodes of one step are held, by their rewards, before each fresh one: of draws every one that is there
    golden, *_ = recorded()
    given = of_file(golden, "queue", int(room), ("dataset", "fresh", "held"))
    rule = replay.episodes(8, 200, 1, 3)
    zeros = np.zeros((len(given["dataset"]), 1), np.float32)
    rewards = np.asarray(given["dataset"])
    data = Dataset(Transition(zeros, zeros, rewards, zeros, zeros[:, 0]), np.arange(1, 1 + len(rewards)), "recorded")
    chosen = jax.tree.map(jnp.asarray, rule.choose(data).rollout())
    ones = jnp.ones_like(chosen.reward)
    extras = Extras(shared={"return_to_go": chosen.reward, "remaining": ones.astype(jnp.int32)})
    dataset = Annotated.of(chosen, replay.queue_extras(extras, chosen))
    buffer, sample, add = rule.init(Spec(1, 1)), jax.jit(rule.sample), jax.jit(rule.add)
    for reward, held in zip(given["fresh"], given["held"], strict=True):
        found = np.unique(sample(buffer, dataset, jax.random.key(0)).return_to_go)
        np.testing.assert_array_equal(found, np.unique(held[held != 0]))
        one, nothing = jnp.ones(()), jnp.zeros(1)
        buffer = add(buffer, Rollout(nothing, nothing, reward, nothing, one, truncated=jnp.zeros(())))
