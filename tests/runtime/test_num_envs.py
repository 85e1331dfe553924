"""Several environments per seed: what arrives where, how often updates follow, how it resumes, who fails with whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import online
from o2o_jax.data import replay
from o2o_jax.envs.vector import make_vector
from o2o_jax.interfaces import Schedule
from o2o_jax.online import o2ppo, o2td3, odt
from o2o_jax.runtime import log, loop
from o2o_jax.runtime.checkpoint import Checkpoints
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.run import begin_finetuning, start_run
from o2o_jax.runtime.setup import Setup
from tests import tiny
from tests.runtime.test_failures import weak_envs
from tests.runtime.test_loop import TASK, Line, guess, guess_config, keeper, launch, scripted, with_online

NUM_ENVS, ENV_STEPS = 2, 12
CONFIG = guess_config(env_steps=ENV_STEPS, evaluation_every_env_steps=2, num_envs=NUM_ENVS)


def two(mode="none", **schedule):
    return guess(mode, capacity=ENV_STEPS, num_envs=NUM_ENVS, **schedule)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two seeds with two environments each, three updates per environment step once five have been taken."""
    return launch(two(updates=3, warmup_env_steps=5), CONFIG, tmp_path_factory.mktemp("both"), counted=True)


def test_every_transition_arrives_in_its_seed_s_buffer(both):
    # environments 0 and 1 are the first seed's, 2 and 3 the second's; rows of a seed's two alternate
    storage = jax.device_get(both.run.buffer.storage)
    assert storage.reward.shape == (2, ENV_STEPS)
    for env, rows in enumerate(both.rows):
        seed, place = divmod(env, NUM_ENVS)
        jax.tree.map(lambda column, row, s=seed, e=place: np.testing.assert_array_equal(column[s, e::NUM_ENVS], row),
                     storage, rows)  # fmt: skip
    # episodes of 2 steps, which terminate, and of 3, which time ends, in turn: each environment's 2nd step
    np.testing.assert_array_equal(storage.terminated[:, :8], [[0, 0, 1, 1, 0, 0, 0, 0]] * 2)


def test_environments_begin_and_act_for_themselves(both, tmp_path):
    assert len({env.reset_seeds[0] for env in both.envs}) == 4
    alone = launch(guess("none"), guess_config(env_steps=1), tmp_path)
    assert [env.reset_seeds for env in alone.envs] == [env.reset_seeds for env in both.envs[::NUM_ENVS]]
    act, run = two().online.act, both.run
    for seed in range(2):
        agent = both.snapshots[2].agent  # after 6 environment steps
        agent = agent.replace(actor=agent.actor[seed])
        for place in range(NUM_ENVS):
            key = jax.random.fold_in(jax.random.fold_in(run.key[seed], 1), 6 + place)
            expected, _ = act(agent, (), None, None, key)
            np.testing.assert_allclose(both.rows[seed * NUM_ENVS + place].action[3], expected, rtol=1e-5)


def test_updates_keep_their_ratio_to_collected_steps(both):
    collected = [int(run.env_steps) for run in both.snapshots]
    assert collected == [2, 4, 6, 8, 10, 12]
    assert [int(run.agent.step) for run in both.snapshots] == [3 * max(0, steps - 5) for steps in collected]
    assert both.compiled == 8  # as with one environment


def test_episodes_of_all_environments_count(both):
    columns = log.read(both.folder, "episode")
    of_seed = columns["seed"] == 1
    np.testing.assert_array_equal(columns["step"][of_seed], [4, 10])
    np.testing.assert_array_equal(columns["episodes"][of_seed], 2)
    returns = [rows.reward[:2].sum() for rows in both.rows[NUM_ENVS:]]
    np.testing.assert_allclose(columns["return"][of_seed][0], np.mean(returns), rtol=1e-6)


def test_overlap_changes_nothing_where_nothing_is_updated(tmp_path):
    runs = [
        launch(two(warmup_env_steps=ENV_STEPS, overlap=overlap), CONFIG, tmp_path / str(overlap))
        for overlap in (False, True)
    ]
    jax.tree.map(np.testing.assert_array_equal, *(run.run.buffer for run in runs))


def test_every_environment_has_a_memory_of_its_own(tmp_path):
    # of how many steps its episode has, and of its rewards
    def act(state, memory, observation, reward, key):
        del state, observation, key
        memory = memory + jnp.stack([jnp.ones(()), reward])
        return memory / 1_000.0, memory

    result = launch(with_online(two(), act=act, memory=lambda: jnp.zeros(2)), CONFIG, tmp_path)
    assert result.run.memory.shape == (2, NUM_ENVS, 2)
    for rows in result.rows:
        np.testing.assert_allclose(1_000.0 * rows.action[:, 0], [1, 2, 1, 2, 3, 1], rtol=1e-5)
        np.testing.assert_allclose(1_000.0 * rows.action[1, 1], rows.reward[0], rtol=1e-4, atol=1e-4)


def test_a_rollout_has_one_environment_after_the_other(tmp_path):
    # three steps of each: an episode that terminates at the second, then one that goes on
    result = launch(keeper(6, num_envs=NUM_ENVS), CONFIG, tmp_path)
    assert int(result.run.agent.step) == 2
    for snapshot, steps, truncated in ((2, slice(3), [0, 0, 1]), (5, slice(3, 6), [0, 1, 1])):
        rollout = result.snapshots[snapshot].agent.rollout
        for seed in range(2):
            envs = result.rows[NUM_ENVS * seed : NUM_ENVS * (seed + 1)]
            for name in vars(envs[0]):
                expected = np.concatenate([getattr(rows, name)[steps] for rows in envs])
                np.testing.assert_array_equal(getattr(rollout, name)[seed], expected, err_msg=name)
            np.testing.assert_array_equal(rollout.truncated[seed], truncated * 2)


def test_devices_do_not_change_a_run(both, tmp_path):
    algorithm = two(updates=3, warmup_env_steps=5)
    split = launch(algorithm, CONFIG, tmp_path, num_devices=2)
    assert len(split.run.buffer.storage.reward.devices()) == 2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        *((result.run.buffer, result.run.agent) for result in (both, split)),
    )


def resumable(algorithm, config, envs, run=None, stop_after=ENV_STEPS):
    """Fine-tunes two seeds up to an evaluation; returns the run with its episodes, and all lines."""
    setup, lines = Setup(algorithm, config, TASK, (0, 1), seed_mesh(2, 1)), []
    if run is None:
        run = begin_finetuning(setup, start_run(setup, None), np.zeros(2, bool), np.zeros(2))
    for event in loop.fine_tune(setup, run, None, envs, scripted(np.zeros((ENV_STEPS, 2)))):
        lines += event.lines
        if event.run is not None and event.step >= stop_after:
            return event.run, lines
    raise AssertionError("it ended before")


@pytest.mark.parametrize("make", [lambda: two(updates=3, warmup_env_steps=5), lambda: keeper(6, num_envs=NUM_ENVS)])
def test_a_resumed_run_ends_as_the_unbroken_one(make, tmp_path):
    # saved after four steps of each environment, amid episodes, and of the second rule amid a rollout
    whole, _ = resumable(make(), CONFIG, make_vector(Line, 2 * NUM_ENVS))
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(8, resumable(make(), CONFIG, make_vector(Line, 2 * NUM_ENVS), stop_after=8)[0])
        template = start_run(Setup(make(), CONFIG, TASK, (0, 1), seed_mesh(2, 1)), None)
        run = checkpoints.restore(template, free="episodes")
    assert run.episodes["simulators"]["actions"].shape[:2] == (2, NUM_ENVS)
    resumed, _ = resumable(make(), CONFIG, make_vector(Line, 2 * NUM_ENVS), run)
    runs = [jax.device_get(run.replace(key=jax.random.key_data(run.key))) for run in (whole, resumed)]
    jax.tree.map(np.testing.assert_array_equal, *runs)


def test_episodes_that_are_lost_are_cut_in_all_environments():
    rule = replay.rollout(6, NUM_ENVS)
    buffer = rule.init(TASK.spec).replace(position=jnp.asarray(4), size=jnp.asarray(4))
    np.testing.assert_array_equal(rule.cut(buffer).storage.truncated, [0, 0, 1, 1, 0, 0])


def test_an_environment_that_fails_takes_its_seed_along_alone():
    config = guess_config(env_steps=20, evaluation_every_env_steps=10, num_envs=NUM_ENVS)
    run, lines = resumable(two(), config, weak_envs(False, False, True, False), stop_after=20)
    assert len(lines) == 1
    assert lines[0].startswith("seed 1 ends with its last good state after 14 environment steps, the others go on: ")
    np.testing.assert_array_equal(run.failed, [False, True])


def test_settings_reach_the_schedule():
    config = tiny.config(o2td3.Config, num_envs=4, updates_per_env_step=3)
    expected = Schedule(updates=3, warmup_env_steps=1_000, num_envs=4)
    assert o2td3.make(config, TASK.spec).online.schedule == expected


@pytest.mark.parametrize("name", sorted({*online.names()} - {"odt"}))  # which refuses them
def test_every_method_takes_them(name):
    module = online.load(name)
    config = tiny.config(module.Config, num_envs=2)
    assert module.make(config, TASK.spec).online.schedule.num_envs == 2


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (o2td3.Config, {"num_envs": 0}, "schedule.num_envs must be at least 1, got 0"),
        (
            o2td3.Config,
            {"num_envs": 3, "env_steps": 10},
            "env_steps must be a multiple of schedule.num_envs, 3, which step together, got 10",
        ),
        (
            o2td3.Config,
            {"num_envs": 3, "env_steps": 9, "every_env_steps": 10},
            "evaluation.every_env_steps must be a multiple of schedule.num_envs, 3, which step together, got 10",
        ),
        (
            o2ppo.Config,
            {"num_envs": 5},
            "rollout.env_steps must be a multiple of schedule.num_envs, 5, which step together, got 2048",
        ),
        (
            odt.Config,
            {"num_envs": 2},
            "schedule.num_envs must be 1: Online DT keeps episodes whole, one after the other, got 2",
        ),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(kind, values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        tiny.config(kind, **values)
