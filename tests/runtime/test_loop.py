"""The online loop: what it stores, when it updates, whom it makes the reference, how it resumes."""

import dataclasses
import functools
import re
import types

import flax.struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.interfaces import Cadence, OnlineAlgorithm, Task
from o2o_jax.online import constrained, o2sac, o2td3
from o2o_jax.runtime import log, loop, seeds
from o2o_jax.runtime.checkpoint import Checkpoints
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.types import Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
TASK = Task("test/line", "Line-v0", SPEC, 3, "", False, random_score=0.0, expert_score=100.0)  # score = return
TINY = {"hidden": (4,), "critic_hidden": (4,), "batch_size": 4, "eval_every_env_steps": 1}


class Line(gymnasium.Env):
    """Episodes that end by termination after 2 steps and by a time limit after 3, in turn; keeps what it did.

    An observation is [number that the reset drew, number of the episode, step within it].
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self):
        self.episode, self.history, self.reset_seeds = -1, [], []

    def observation(self):
        return np.array([self.drawn, self.episode, self.steps])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.reset_seeds.append(seed)
        self.drawn, self.steps, self.episode = self.np_random.uniform(), 0, self.episode + 1
        return self.observation(), {}

    def step(self, action):
        before = self.observation()
        self.steps += 1
        terminated = self.episode % 2 == 0 and self.steps == 2
        reward = float(action[0] + 10.0 * self.episode)
        self.history.append((before, np.array(action), reward, self.observation(), float(terminated)))
        return self.observation(), reward, terminated, self.steps == 3, {}

    def rows(self):
        """What a buffer should hold of it."""
        return Transition(*(np.stack(column).astype(np.float32) for column in zip(*self.history, strict=True)))


def vector_env(num_envs):
    return gymnasium.vector.SyncVectorEnv(
        [Line] * num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
    )


def scripted(scores):
    """An evaluator of one episode per seed that gives the scores [calls, S] one after the other."""
    remaining = [np.asarray(score, float) for score in scores]

    def evaluate(act):
        score = remaining.pop(0)
        actions = act(np.zeros((len(score), 1, 3), np.float32))
        assert actions.shape == (len(score), 1, 2)
        return score[:, None], np.ones((len(score), 1), int)

    return evaluate


def dataset(size=5):
    column = np.full(size, -1.0, np.float32)
    return jax.tree.map(jnp.asarray, Transition(
        np.stack([column] * 3, -1), np.stack([column] * 2, -1), column, np.stack([column] * 3, -1), 0.0 * column
    ))  # fmt: skip


def launch(algorithm, config, folder, scores=None, seed_list=(0, 1), run=None, on_evaluation=lambda run, metrics: None):
    """Fine-tunes; returns the run, its environments, and the compiled functions by name, all in a namespace."""
    mesh = seed_mesh(len(seed_list), 1)
    if run is None:
        run = loop.start_run(algorithm, config, SPEC, None, seed_list, mesh)
        accept, best = np.zeros(len(seed_list), bool), np.zeros(len(seed_list))
        run = loop.begin_finetuning(algorithm, run, accept, best, mesh)
    envs = vector_env(len(seed_list))
    scores = np.zeros((config.env_steps, len(seed_list))) if scores is None else scores
    data = None if config.replay == "none" else dataset()
    snapshots, compiled = [], []

    def remember(function, *args, **kwargs):
        compiled.append(seeds.over_seeds(function, *args, **kwargs))
        return compiled[-1]

    def keep(run, metrics):
        snapshots.append(jax.device_get(run.replace(key=jax.random.key_data(run.key))))
        on_evaluation(run, metrics)

    with log.MetricLog(folder) as metric_log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "over_seeds", remember)
        run = loop.fine_tune(
            algorithm, config, run, data, envs, scripted(scores), TASK, seed_list, mesh, metric_log, keep
        )
    return types.SimpleNamespace(
        run=run, rows=[env.rows() for env in envs.envs], envs=envs.envs, snapshots=snapshots, compiled=compiled,
        folder=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def td3(tmp_path_factory):
    """12 environment steps of O2TD3 with noise far beyond the bounds of actions; the first 4 warm up."""
    config = o2td3.Config(
        **TINY, env_steps=12, warmup_env_steps=4, exploration_std=5.0, threshold_env_steps=20, threshold_end=0.0425
    )
    return launch(o2td3.make(config, SPEC), config, tmp_path_factory.mktemp("td3"))


@pytest.fixture(scope="module")
def sac(tmp_path_factory):
    """8 environment steps of O2SAC with 3 updates each; the first 2 warm up."""
    config = o2sac.Config(
        **TINY, env_steps=8, warmup_env_steps=2, updates_per_env_step=3, threshold_env_steps=5, threshold_end=1.125
    )
    return launch(o2sac.make(config, SPEC), config, tmp_path_factory.mktemp("sac"))


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_the_buffer_holds_what_the_environment_did(name, request):
    # s, the executed action, r, the true s' also where the environment reset itself, and 1 at terminations alone
    result = request.getfixturevalue(name)
    steps = int(result.run.env_steps)
    assert result.run.buffer.storage.reward.shape == (2, steps)  # no larger than what will fill it
    for seed, rows in enumerate(result.rows):
        jax.tree.map(lambda column, row, s=seed: np.testing.assert_array_equal(column[s], row),
                     result.run.buffer.storage, rows)  # fmt: skip
    assert (int(result.run.buffer.position), int(result.run.buffer.size)) == (0, steps)


def test_episodes_end_in_the_buffer_as_they_did(td3):
    # the environment's episodes have 2 and 3 steps in turn: steps 2, 5, 7, 10, 12 are last ones; 2, 7, 12 terminations
    storage = jax.device_get(td3.run.buffer.storage)
    np.testing.assert_array_equal(np.nonzero(storage.terminated[0])[0] + 1, [2, 7, 12])
    step, next_step = storage.observation[0, :, 2], storage.next_observation[0, :, 2]
    np.testing.assert_array_equal(step, [0, 1, 0, 1, 2, 0, 1, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(next_step, step + 1)  # no reset row: s' is always one step on
    np.testing.assert_array_equal(storage.observation[0, :, :2], storage.next_observation[0, :, :2])


def test_executed_actions_are_clipped(td3):
    actions = td3.run.buffer.storage.action
    assert float(jnp.abs(actions).max()) == 1.0
    assert len(np.unique(actions)) > 2


@pytest.mark.parametrize(("name", "warmup", "updates"), [("td3", 4, 1), ("sac", 2, 3)])
def test_updates_begin_after_the_warm_up_and_keep_their_ratio(name, warmup, updates, request):
    result = request.getfixturevalue(name)
    expected = [updates * max(0, t - warmup) for t in range(1, len(result.snapshots) + 1)]
    assert [int(run.agent.step) for run in result.snapshots] == expected
    assert [int(run.env_steps) for run in result.snapshots] == list(range(1, len(expected) + 1))
    metrics = log.read(result.folder, "finetune")
    np.testing.assert_array_equal(np.isnan(metrics["critic_loss"]), metrics["step"] <= warmup)


def test_the_first_updates_leave_nothing_as_it_was(sac):
    before, after = sac.snapshots[1].agent, sac.snapshots[2].agent
    for part in ("actor", "critic", "target_critic", "log_alpha", "log_lagrange"):
        moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), getattr(before, part), getattr(after, part))
        assert any(jax.tree.leaves(moved)), part


def test_lagrange_moves_once_per_environment_step(sac, td3):
    # O2SAC: 3 updates a step, of which one moves λ; O2TD3: 1 update a step, of which every second moves the actor
    counts = [run.agent.opt.lagrange[0].count.tolist() for run in sac.snapshots]
    assert counts == [[max(0, t - 2)] * 2 for t in range(1, 9)]
    assert [run.agent.opt.actor[0].count.tolist() for run in sac.snapshots] == [[3 * max(0, t - 2)] * 2 for t in range(1, 9)]
    lagrange = [run.agent.log_lagrange for run in sac.snapshots]
    assert all(np.all(a != b) for a, b in zip(lagrange[1:], lagrange[2:], strict=False))
    counts = [run.agent.opt.lagrange[0].count.tolist() for run in td3.snapshots]
    assert counts == [[max(0, t - 4) // 2] * 2 for t in range(1, 13)]


def test_threshold_counts_environment_steps(sac, td3):
    # environment step t, counted from 1, has the threshold of t − 1 steps taken, however many updates it has.
    # O2TD3: 0.0025 + 0.04 (t − 1) / 20.   O2SAC: 0.125 + (t − 1) / 5, from step 6 on 1.125
    for result, expected in (
        (td3, lambda t: 0.0025 + 0.002 * (t - 1)),
        (sac, lambda t: min(0.125 + 0.2 * (t - 1), 1.125)),
    ):
        metrics = log.read(result.folder, "finetune")
        updated = ~np.isnan(metrics["critic_loss"])
        found, steps = metrics["threshold"][updated], metrics["step"][updated]
        np.testing.assert_allclose(found, [expected(t) for t in steps], rtol=1e-5)


def test_metrics_of_a_delayed_actor_leave_out_the_updates_without_one(td3):
    metrics = log.read(td3.folder, "finetune")
    of_seed = metrics["seed"] == 0
    np.testing.assert_array_equal(np.nonzero(~np.isnan(metrics["actor_loss"][of_seed]))[0] + 1, [6, 8, 10, 12])


def test_episode_rows(td3):
    # rewards are a₀ + 10 · (number of the episode)
    metrics = log.read(td3.folder, "episode")
    of_seed = metrics["seed"] == 1
    np.testing.assert_array_equal(metrics["step"][of_seed], [2, 5, 7, 10, 12])
    reward = td3.rows[1].reward
    expected = [reward[a:b].sum() for a, b in ((0, 2), (2, 5), (5, 7), (7, 10), (10, 12))]
    np.testing.assert_allclose(metrics["return"][of_seed], expected, rtol=1e-6)
    np.testing.assert_array_equal(metrics["score"], metrics["return"])
    np.testing.assert_array_equal(metrics["episodes"], 1)


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_every_function_is_compiled_once(name, request):
    result = request.getfixturevalue(name)
    sizes = [function._cache_size() for function in result.compiled]
    assert sizes[:3] == [1, 1, 1]  # the step, the first action, the evaluation
    assert sizes[3] == 0  # no reference was better than the start's score


def test_the_reference_stays_without_a_better_score(td3):
    first, last = td3.snapshots[0].agent.reference, td3.snapshots[-1].agent.reference
    jax.tree.map(np.testing.assert_array_equal, first, last)


@pytest.mark.parametrize("module", [o2td3, o2sac])
def test_the_ring_is_written_in_place(module):
    capacity = 997  # a number that no other array has
    config = module.Config(**TINY, env_steps=capacity)
    algorithm = module.make(config, SPEC)
    mesh = seed_mesh(2, 1)
    keys = seeds.keys([0, 1], "online")

    def shapes(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    run = jax.eval_shape(lambda: loop.start_run(algorithm, config, SPEC, None, [0, 1], mesh))
    row = Transition(shapes(2, 3), shapes(2, 2), shapes(2), shapes(2, 3), shapes(2))
    step = seeds.over_seeds(
        functools.partial(loop.advance, algorithm, "half", config.batch_size), mesh, shared=(1,), donate=(0,)
    )
    program = step.lower(run, jax.eval_shape(dataset), row, shapes(2, 3)).compile()
    text = program.as_text()
    assert re.search(rf"f32\[2,{capacity},3\]\S* parameter\(", text)
    assert not re.findall(rf"f32\[2,{capacity}\S* copy\(", text)
    assert program.memory_analysis().temp_size_in_bytes < 4 * 2 * capacity * 3  # bytes of all seeds' observations
    del keys
