"""The online loop: what it stores, when it updates, whom it makes the reference, how it resumes."""

import contextlib
import dataclasses
import functools
import itertools
import re
import types

import flax.struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.data import replay
from o2o_jax.diagnosis import REGIMES
from o2o_jax.interfaces import Algorithm, Online, Reference, Requires, Schedule, Task
from o2o_jax.online import common, finetuning, o2ppo, o2sac, o2td3, parts
from o2o_jax.online.common import OnlineConfig
from o2o_jax.runtime import log, loop, seeds
from o2o_jax.runtime.checkpoint import Checkpoints
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.evaluate import CONFIRMATION_STREAM
from o2o_jax.runtime.events import finish
from o2o_jax.runtime.reference import Tally
from o2o_jax.runtime.run import begin_finetuning, count_evaluation, start_run
from o2o_jax.runtime.setup import Setup
from o2o_jax.settings import part
from o2o_jax.training import where
from o2o_jax.types import Extras, Rollout, Spec, Transition, counter
from tests import tiny

SPEC = Spec(observation_dim=3, action_dim=2)
TASK = Task("test/line", "Line-v0", SPEC, 3, "", False, random_score=0.0, expert_score=100.0)  # score = return
TINY = {"hidden": (4,), "critic_hidden": (4,), "batch_size": 4, "evaluation_every_env_steps": 1}


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
        """Returns what a buffer should hold of it; None of an environment that was never stepped."""
        if not self.history:
            return None
        return Transition(*(np.stack(column).astype(np.float32) for column in zip(*self.history, strict=True)))


def vector_env(num_envs):
    return gymnasium.vector.SyncVectorEnv([Line] * num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)


def scripted(scores):
    """An evaluator of one episode per seed that gives the scores [calls, S] one after the other."""
    remaining = [np.asarray(score, float) for score in scores]

    def evaluate(act, receive, **_):
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


def launch(
    algorithm,
    config,
    folder,
    scores=None,
    seed_list=(0, 1),
    run=None,
    on_evaluation=lambda run, metrics: None,
    num_devices=1,
    evaluated=True,
    evaluator=None,
    reference_returns=None,
    counted=False,
):
    """Fine-tunes; returns the run, snapshots of it, what its environments did, and how many programs it compiled.

    Where programs are `counted`, it shares none with the module's other runs.
    """
    setup = Setup(algorithm, config, TASK, seed_list, seed_mesh(len(seed_list), num_devices))
    if run is None:
        accept, best = np.zeros(len(seed_list), bool), np.zeros(len(seed_list))
        run = begin_finetuning(setup, start_run(setup, None), accept, best, reference_returns)
    envs = vector_env(len(seed_list) * (algorithm.online.schedule.num_envs if algorithm.online else 1))
    scores = np.zeros((config.env_steps, len(seed_list))) if scores is None else scores
    if evaluator is None and evaluated:
        evaluator = scripted(scores)
    data = algorithm.online and algorithm.online.replay.choose(dataset())
    snapshots, lines = [], []

    def take(event):
        metric_log.take(event)
        lines.extend(event.lines)
        if event.run is not None:
            run = event.run.replace(episodes=None)  # a run that continues from it begins new ones
            snapshots.append(jax.device_get(run.replace(key=jax.random.key_data(run.key))))
            on_evaluation(run, event.rows.get("evaluation", {}))

    counting = tiny.compilations() if counted else contextlib.nullcontext([])
    with log.MetricLog(folder) as metric_log, counting as compiled:
        run = finish(loop.fine_tune(setup, run, data, envs, evaluator), take)
    rows = [env.rows() for env in envs.envs]
    return types.SimpleNamespace(
        run=run, rows=rows, envs=envs.envs, snapshots=snapshots, lines=lines, compiled=len(compiled), folder=folder
    )


@pytest.fixture(scope="module")
def td3(tmp_path_factory):
    """12 environment steps of O2TD3 with noise far beyond the bounds of actions; the first 4 warm up."""
    config = tiny.config(
        o2td3.Config,
        **TINY,
        env_steps=12,
        warmup_env_steps=4,
        exploration_std=5.0,
        threshold_ramp=20 / 12,
        threshold_end=0.0425,
    )
    return launch(o2td3.make(config, SPEC), config, tmp_path_factory.mktemp("td3"), counted=True)


@pytest.fixture(scope="module")
def sac(tmp_path_factory):
    """8 environment steps of O2SAC with 3 updates each; the first 2 warm up."""
    config = tiny.config(
        o2sac.Config,
        **TINY,
        env_steps=8,
        warmup_env_steps=2,
        updates_per_env_step=3,
        threshold_ramp=5 / 8,
        threshold_end=1.125,
    )
    return launch(o2sac.make(config, SPEC), config, tmp_path_factory.mktemp("sac"), counted=True)


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
    for name in ("actor", "critic", "target_critic", "log_alpha", "log_lagrange"):
        moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), getattr(before, name), getattr(after, name))
        assert any(jax.tree.leaves(moved)), name


def test_lagrange_moves_once_per_environment_step(sac, td3):
    # O2SAC: 3 updates a step, of which one moves λ; O2TD3: 1 update a step, of which every second moves the actor
    counts = [run.agent.opt.lagrange[0].count.tolist() for run in sac.snapshots]
    assert counts == [[max(0, t - 2)] * 2 for t in range(1, 9)]
    assert [run.agent.opt.actor[0].count.tolist() for run in sac.snapshots] == [
        [3 * max(0, t - 2)] * 2 for t in range(1, 9)
    ]
    lagrange = [run.agent.log_lagrange for run in sac.snapshots]
    assert all(np.all(a != b) for a, b in itertools.pairwise(lagrange[1:]))
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
    # the step with and without updates, the first action, the evaluation's first step and its others, the look for NaN,
    # the snapshots, the copy of good states
    assert request.getfixturevalue(name).compiled == 8


def test_the_reference_stays_without_a_better_score(td3):
    first, last = td3.snapshots[0].agent.reference, td3.snapshots[-1].agent.reference
    jax.tree.map(np.testing.assert_array_equal, first, last)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_the_ring_is_written_in_place(num_devices):
    capacity = 9_973  # a number that no other array has
    config = tiny.config(o2td3.Config, **TINY, env_steps=capacity)
    algorithm, mesh = o2td3.make(config, SPEC), seed_mesh(2, num_devices)

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    run = start_run(Setup(algorithm, config, TASK, [0, 1], mesh), None)
    taken = Rollout(array(2, 3), array(2, 2), array(2), array(2, 3), array(2), array(2))
    step = seeds.over_seeds(functools.partial(loop.advance, algorithm.online), mesh, shared=(1,), donate=(0,))
    program = step.lower(run, jax.eval_shape(dataset), None, taken, array(2, 3)).compile()
    text = program.as_text()
    assert re.search(rf"f32\[{2 // num_devices},{capacity},3\]\S* parameter\(", text)
    assert not re.findall(rf"f32\[\d,{capacity}\S* copy\(", text)
    assert program.memory_analysis().temp_size_in_bytes < 4 * capacity  # bytes of the rewards of one seed


@flax.struct.dataclass
class Guess:
    """The state of an algorithm that compiles in no time: its policy is one action for all observations."""

    actor: jax.Array
    reference: jax.Array
    step: jax.Array = counter()

    def begin(self, episodes, key):
        return ()

    def act(self, memory, observation, reward):
        return jnp.broadcast_to(jnp.tanh(self.actor), (*observation.shape[:-1], 2)), memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuessSettings(OnlineConfig):
    """Settings that the loop reads of an algorithm with a reference."""

    env_steps: int = 6
    evaluation: parts.Evaluation = part(parts.Evaluation, every_env_steps=1, episodes=1)
    reference: parts.Reference = part(parts.Reference, min_episodes=2)
    roll_back: parts.RollBack = part(parts.RollBack)


guess_config = functools.partial(tiny.config, GuessSettings)


def test_when_a_round_of_updates_is_due():
    assert [step for step in range(1, 8) if Schedule(warmup_env_steps=2).due(step)] == [3, 4, 5, 6, 7]
    assert [step for step in range(1, 8) if Schedule(env_steps=3, warmup_env_steps=3).due(step)] == [6]


def guess(mode="half", capacity=100, **schedule):
    """Counts every update in its actor, draws its actions."""

    def init(key, handoff):
        actor = jax.random.uniform(key, (2,))
        return Guess(actor, actor, jnp.zeros((), jnp.int32))

    def finetune(state, batch, key):
        actor = state.actor + 0.01 * jax.random.normal(key, (2,)) + 0.01 * jnp.mean(batch.reward)
        metrics = {"reward": jnp.mean(batch.reward), "infinite": jnp.asarray(-jnp.inf)}
        return state.replace(actor=actor, step=state.step + 1), metrics

    reference = Reference(
        accept=common.set_reference,
        roll_back=lambda state, reject, divergence: state.replace(actor=where(reject, state.reference, state.actor)),
        policy=lambda state: state.replace(actor=state.reference),
    )
    online = Online(
        schedule=Schedule(**schedule),
        begin=lambda state, accept: state,
        act=common.memoryless(
            lambda state, observation, key: jnp.tanh(state.actor + 0.1 * jax.random.normal(key, (2,)))
        ),
        update=finetune,
        replay=replay.make(mode, capacity, 4, warmup_env_steps=3),
        reference=reference,
    )
    requires = Requires("deterministic")
    return Algorithm("guess", init, (), policy=lambda state: state, requires=requires, online=online)


def with_online(algorithm, **parts):
    """The algorithm with other parts of what it does online."""
    return algorithm._replace(online=algorithm.online._replace(**parts))


def accepted(result):
    """[evaluations, S] whether the reference was replaced."""
    references = [run.agent.reference for run in result.snapshots]
    actors = [run.agent.actor for run in result.snapshots]
    before = [None, *references[:-1]]
    changed = []
    for reference, actor, old in zip(references, actors, before, strict=True):
        is_actor = np.all(reference == actor, axis=1)
        changed.append(is_actor if old is None else is_actor & np.any(reference != old, axis=1))
    return np.stack(changed).tolist()


def test_a_better_policy_becomes_the_reference_seed_by_seed(tmp_path):
    # the start's score is 0; equal is not better, and a dip doesn't lower the bar
    scores = [[1, 0], [1, 5], [3, 4], [2, 5], [2.5, 6], [4, 7]]
    result = launch(guess(), guess_config(), tmp_path, scores, counted=True)
    expected = [[True, False], [False, True], [True, False], [False, False], [False, True], [True, True]]
    assert accepted(result) == expected
    np.testing.assert_array_equal(result.run.best_score, [4, 7])
    np.testing.assert_array_equal([run.best_score for run in result.snapshots], np.maximum.accumulate(scores))
    assert result.compiled == 8  # with the exchange of references


def test_seeds_of_different_regimes_train_side_by_side_and_resume(tmp_path):
    # the dataset's rewards are -1, which no fresh one is; updates follow every step
    def count(state, batch, key):
        del key
        return state.replace(step=state.step + 1), {"offline": jnp.mean(batch.reward == -1.0)}

    class Killed(Exception):
        pass

    def save_and_die(run, metrics):
        if run.env_steps == 5:
            checkpoints.save(5, run)
            raise Killed

    algorithm, config = with_online(guess("auto"), update=count), guess_config()
    setup = Setup(algorithm, config, TASK, range(3), seed_mesh(3, 1))
    run = start_run(setup, None)
    regimes = seeds.place(np.array([REGIMES[name] for name in ("better", "like", "worse")], np.int32), setup.mesh)
    run = run.replace(buffer=run.buffer.replace(regime=regimes))
    with Checkpoints(tmp_path / "checkpoints", {}) as checkpoints:
        with pytest.raises(Killed):
            launch(algorithm, config, tmp_path, None, range(3), run, save_and_die)
        run = checkpoints.restore(start_run(setup, None))
    np.testing.assert_array_equal(run.buffer.regime, [1, 0, -1])
    result = launch(algorithm, config, tmp_path, None, range(3), run)
    np.testing.assert_array_equal(result.run.buffer.regime, [1, 0, -1])
    shares = log.read(tmp_path, "finetune")["offline"].reshape(6, 3)
    np.testing.assert_array_equal(shares[:, 0], [0.5, 0.5, 0.5, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(shares[:, 1], 0.5)
    assert set(shares[:, 2]) != {0.5}


def test_no_seed_left_stops_before_anything_is_saved(tmp_path):
    def finetune(state, batch, key):
        del batch, key
        return state.replace(actor=jnp.full(2, jnp.nan), step=state.step + 1), {"reward": jnp.zeros(())}

    saved = []
    words = "no seed is left after 1 environment steps: seed 0 has failed: its networks have become NaN or infinite"
    with pytest.raises(ValueError, match=words) as error:
        launch(
            with_online(guess(), update=finetune),
            guess_config(evaluation_every_env_steps=2),
            tmp_path,
            on_evaluation=lambda run, metrics: saved.append(run),
        )
    assert "\n" not in str(error.value)
    assert saved == []


def test_interval_mode_replaces_the_reference_on_schedule(tmp_path):
    config = guess_config(
        reference_update="interval", reference_every_evaluations=2, env_steps=8, evaluation_every_env_steps=2
    )
    result = launch(guess(), config, tmp_path, np.zeros((4, 2)))
    assert accepted(result) == [[False, False], [True, True], [False, False], [True, True]]


# Episodes of 2 and 3 steps in turn end at steps 2, 5, 7, 10, 12, 15, 17 and 20; that of number e returns 10 e a step
# and some tenths. Two by two: 0 and 30 measure the start, 15 ± 15; 40 and 90 are better, since 65 − 15 > √(15² + 25²);
# so are 80 and 150: 115 − 65 > √(25² + 35²); 120 and 210 aren't: 165 − 115 < √(35² + 45²).
RETURNS = guess_config(reference_update="returns", env_steps=20)


def test_returns_of_training_settle_the_reference(tmp_path):
    result = launch(guess(), RETURNS, tmp_path, evaluated=False, counted=True)
    expected = np.zeros((20, 2), bool)
    expected[[9, 14]] = True
    np.testing.assert_array_equal(accepted(result), expected)
    assert (
        result.compiled == 5
    )  # the step with its update, the first action, the look for NaN, the copy, the exchange of references
    columns = log.read(tmp_path, "reference")
    np.testing.assert_array_equal(columns["accepted"].reshape(20, 2), expected)
    compared = columns["step"] == 15
    np.testing.assert_allclose(columns["return"][compared], 115, atol=5)
    np.testing.assert_allclose(columns["error"][compared], 35, atol=2)
    np.testing.assert_allclose(columns["reference_return"][compared], 65, atol=5)
    np.testing.assert_array_equal(columns["episodes"][compared], 2)


def test_without_evaluations_training_is_all_that_is_spent(tmp_path):
    result = launch(guess(), RETURNS, tmp_path, evaluated=False)
    assert sorted(path.stem for path in tmp_path.glob("*.csv")) == ["episode", "finetune", "reference"]
    columns = log.read(tmp_path, "episode")
    np.testing.assert_array_equal(columns["total_env_steps"], columns["step"])
    assert len(result.snapshots) == 20  # the run can be saved all the same
    np.testing.assert_array_equal(result.run.best_score, 0.0)


def test_evaluations_are_spent_too(tmp_path):
    # every one is an episode of one step
    result = launch(guess(), guess_config(env_steps=6, evaluation_every_env_steps=3), tmp_path)
    assert log.read(tmp_path, "evaluation")["total_env_steps"].tolist() == [4, 4, 8, 8]
    assert log.read(tmp_path, "episode")["total_env_steps"].tolist() == [3, 3, 7, 7]  # before the evaluation
    run = count_evaluation(result.run, np.array([[5, 2], [1, 1]]))
    assert run.evaluation_steps.tolist() == [2 + 7, 2 + 2]


def test_a_resumed_run_goes_on_comparing(tmp_path):
    class Killed(Exception):
        pass

    def save_and_die(run, metrics):
        if run.env_steps == 12:
            checkpoints.save(12, run)
            raise Killed

    with Checkpoints(tmp_path / "checkpoints", {}) as checkpoints:
        with pytest.raises(Killed):
            launch(guess(), RETURNS, tmp_path / "first", on_evaluation=save_and_die, evaluated=False)
        run = checkpoints.restore(start_run(Setup(guess(), RETURNS, TASK, (0, 1), seed_mesh(2, 1)), None))
    np.testing.assert_allclose(run.returns.reference.mean, 65, atol=5)
    np.testing.assert_allclose(run.returns.recent.mean, 80, atol=5)  # the one episode since
    result = launch(guess(), RETURNS, tmp_path / "second", run=run, evaluated=False)
    # the environments are new and begin with episode 0: 80 and 0, 30 and 40, and 90 that is alone
    columns = log.read(tmp_path / "second", "reference")
    compared = columns["episodes"] == 2
    assert columns["step"][compared].tolist() == [14, 14, 19, 19]
    np.testing.assert_allclose(columns["return"][compared], [40, 40, 35, 35], atol=5)
    np.testing.assert_allclose(columns["reference_return"], 65, atol=5)
    assert not np.any(accepted(result)[1:])


@pytest.mark.parametrize("module", [o2td3, o2sac, o2ppo])
def test_every_method_takes_the_returns_of_training(module, tmp_path):
    settings = {"hidden": (4,), "critic_hidden": (4,), "evaluation_every_env_steps": 1, "evaluation_episodes": 0}
    settings |= {"reference_update": "returns", "reference_min_episodes": 2, "env_steps": 10}
    if module is o2ppo:
        settings |= {"rollout_env_steps": 4, "minibatch_size": 2}
    else:
        settings |= {"batch_size": 4, "warmup_env_steps": 4, "start_actor": "aligned", "reference_init": "offline"}
    config = tiny.config(module.Config, **settings)
    result = launch(module.make(config, SPEC), config, tmp_path, evaluated=False)
    np.testing.assert_array_equal(log.read(tmp_path, "reference")["accepted"], [0] * 18 + [1] * 2)
    before, after = result.snapshots[-2:]
    assert not jax.tree.all(jax.tree.map(np.array_equal, before.agent.reference, after.agent.actor))
    jax.tree.map(np.testing.assert_array_equal, after.agent.reference, after.agent.actor)


# Looks at two seeds, two episodes each. π_ref returns 10, 12 at first.
#
# Seed 0: 13, 15 is better and is so again; then 14 is the bar. 12, 14: rejected, m = −1; 13, 15 ends the row; 10, 12
# and 9, 12 (m = −3.5, e = 0.5): two in a row, and worse from other starts too. 14, 15: m = e = 0.5.
# Seed 1: 13, 15 is better, but not from other starts. 9.9, 11.9: within 2 %. NaN: two in a row, and again. 0, 20: m is
# −1 and e = 9. 12, 14 is better and is so again.
LOOKS = [
    [[13, 15], [13, 15]],
    [[12, 14], [9.9, 11.9]],
    [[13, 15], [np.nan, np.nan]],
    [[10, 12], [np.nan, np.nan]],
    [[9, 12], [0, 20]],
    [[14, 15], [12, 14]],
]
NONE = [np.nan] * 2
AGAIN = {
    1: ([[5, 6], [1, 2]], [[1, 2], [5, 6]]),
    4: ([NONE, NONE], [NONE, [1, 2]]),
    5: ([[1, 2], NONE], [[5, 6], NONE]),
    6: ([NONE, [5, 6]], [NONE, [1, 2]]),
}
ASKED = {1: [True, True], 4: [False, True], 5: [True, False], 6: [False, True]}
FIRST = np.array([[10.0, 12.0]] * 2)
ROLLING = guess_config(roll_back_enabled=True, evaluation_episodes=2)


def looking(first=0, again=AGAIN):
    """An evaluator that gives `LOOKS` from number `first` on, and `again` of policy and π_ref, whom it tells apart."""
    looks, played = list(enumerate(LOOKS, 1))[first:], []

    def evaluate(act, receive, stream=None, plays=None, **_):
        act(np.zeros((2, 2, 3), np.float32))
        if stream is None:
            number, returns = looks.pop(0)
            return np.array(returns, float), np.ones((2, 2), int)
        number = stream - CONFIRMATION_STREAM
        np.testing.assert_array_equal(plays, ASKED[number])
        played.append(number)
        returns = again[number][played.count(number) - 1]
        return np.array(returns, float), np.ones((2, 2), int) * plays[:, None]

    return evaluate


def test_who_is_accepted_rejected_and_rolled_back(tmp_path):
    result = launch(guess(), ROLLING, tmp_path, evaluator=looking(), reference_returns=FIRST)
    columns = {name: column.reshape(6, 2).T for name, column in log.read(tmp_path, "reference").items()}
    np.testing.assert_array_equal(columns["accepted"], [[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
    nan = np.nan
    np.testing.assert_array_equal(columns["confirmed"], [[1, nan, nan, nan, 1, nan], [0, nan, nan, 1, nan, 1]])
    np.testing.assert_array_equal(columns["rejected"], [[0, 1, 0, 1, 1, 0], [0, 0, 1, 1, 0, 0]])
    np.testing.assert_array_equal(columns["rolled_back"], [[0, 0, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0]])
    np.testing.assert_allclose(columns["difference"][0], [3, -1, 0, -3, -3.5, 0.5])
    np.testing.assert_allclose(columns["difference_error"][0], [0, 0, 0, 0, 0.5, 0.5])
    is_reference = [np.all(run.agent.actor == run.agent.reference, axis=1).tolist() for run in result.snapshots]
    assert is_reference == [[True, False], [False] * 2, [False] * 2, [False, True], [True, False], [False, True]]
    evaluation = log.read(tmp_path, "evaluation")
    np.testing.assert_array_equal(evaluation["reference_score"].reshape(6, 2).T, [[14] * 6, [11] * 5 + [13]])
    # a look takes two steps, a confirmation two of the policy and two of π_ref
    np.testing.assert_array_equal(evaluation["total_env_steps"].reshape(6, 2)[[0, 5]], [[7, 7], [26, 30]])


def test_a_reference_that_was_lucky_sends_nobody_back(tmp_path):
    # from other starts π_ref is no better than the policy that was rejected twice: m = −e, a quarter
    again = AGAIN | {5: ([[9, 12], NONE], [[9.5, 12], NONE])}
    result = launch(guess(), ROLLING, tmp_path, evaluator=looking(again=again), reference_returns=FIRST)
    columns = {name: column.reshape(6, 2).T for name, column in log.read(tmp_path, "reference").items()}
    np.testing.assert_array_equal(columns["rejected"][0], [0, 1, 0, 1, 1, 0])
    np.testing.assert_array_equal(columns["confirmed"][0][4:], [0, np.nan])
    np.testing.assert_array_equal(columns["rolled_back"], [[0] * 6, [0, 0, 0, 1, 0, 0]])
    before, after = (run.agent for run in result.snapshots[3:5])
    assert not np.array_equal(after.actor[0], after.reference[0])
    np.testing.assert_array_equal(after.reference[0], before.reference[0])


def test_a_resumed_run_goes_on_rejecting(tmp_path):
    class Killed(Exception):
        pass

    def save_and_die(run, metrics):
        if run.env_steps == 4:  # one rejection of seed 0 has been counted
            checkpoints.save(4, run)
            raise Killed

    with Checkpoints(tmp_path / "checkpoints", {}) as checkpoints:
        with pytest.raises(Killed):
            launch(guess(), ROLLING, tmp_path / "first", on_evaluation=save_and_die, evaluator=looking(),
                   reference_returns=FIRST)  # fmt: skip
        run = checkpoints.restore(start_run(Setup(guess(), ROLLING, TASK, (0, 1), seed_mesh(2, 1)), None))
    np.testing.assert_array_equal(run.standing.returns, [[13, 15], [10, 12]])
    np.testing.assert_array_equal(run.standing.rejections, [1, 0])
    launch(guess(), ROLLING, tmp_path / "second", run=run, evaluator=looking(4))
    columns = log.read(tmp_path / "second", "reference")
    assert columns["rolled_back"].tolist() == [1, 0, 0, 0]
    assert columns["accepted"].tolist() == [0, 0, 0, 1]


def test_training_episodes_roll_back_too(tmp_path):
    # two episodes end by step 5 and two more by step 10: 15 ± 15 and 65 ± 25, of 1,000 before
    config = tiny.changed(RETURNS, roll_back_enabled=True, evaluation_episodes=0, env_steps=10)
    run = start_run(Setup(guess(), config, TASK, (0, 1), seed_mesh(2, 1)), None)
    before = Tally(*(jnp.full(2, value) for value in (4.0, 1_000.0, 4.0)))
    result = launch(guess(), config, tmp_path, run=run.replace(returns=run.returns.replace(reference=before)),
                    evaluated=False)  # fmt: skip
    columns = log.read(tmp_path, "reference")
    assert columns["step"][columns["rejected"] == 1].tolist() == [5, 5, 10, 10]
    assert columns["step"][columns["rolled_back"] == 1].tolist() == [10, 10]
    np.testing.assert_array_equal(result.run.agent.actor, result.run.agent.reference)


def test_a_broken_policy_comes_back_where_it_alone_is_broken(tmp_path):
    def finetune(state, batch, key):
        return state.replace(actor=jnp.full(2, jnp.nan), step=state.step + 1), {"reward": jnp.zeros(())}

    def evaluate(act, receive, stream=None, plays=None, **_):
        actions = np.asarray(act(np.zeros((2, 2, 3), np.float32)))
        return actions[..., 0], np.ones((2, 2), int)

    config = tiny.changed(ROLLING, env_steps=2)
    result = launch(
        with_online(guess(), update=finetune), config, tmp_path, evaluator=evaluate, reference_returns=FIRST
    )
    assert all(np.isfinite(run.agent.actor).all() for run in result.snapshots)
    assert result.lines[0] == (
        "seed 0: its actor has become NaN or infinite within 1 environment steps, and goes back to the reference policy"
    )
    np.testing.assert_array_equal(result.run.agent.actor, result.run.agent.reference)
    assert np.isfinite(result.run.agent.actor).all()


@pytest.mark.parametrize("module", [o2td3, o2sac, o2ppo])
def test_a_policy_that_collapses_is_back_after_two_looks(module, tmp_path):
    settings = {
        "hidden": (4,),
        "critic_hidden": (4,),
        "env_steps": 16,
        "evaluation_every_env_steps": 8,
        "actor_lr": 0.1,
    }
    settings |= {"roll_back_enabled": True, "evaluation_episodes": 2}
    if module is o2ppo:
        settings |= {"rollout_env_steps": 4, "minibatch_size": 2}
    else:
        settings |= {"batch_size": 4, "warmup_env_steps": 0, "lagrange_travel": 0.0}
    config = tiny.config(module.Config, **settings)
    algorithm, mesh = module.make(config, SPEC), seed_mesh(1, 1)
    mode = seeds.over_seeds(lambda agent, observation: algorithm.policy(agent).distribution(observation).mode(), mesh)
    observation, setup = np.ones((1, 2, 3), np.float32), Setup(algorithm, config, TASK, (0,), mesh)
    run = start_run(setup, None)
    best = np.asarray(mode(run.agent, observation))

    def returns_of(act):
        return np.where(np.abs(np.asarray(act(observation)) - best).max(-1) < 1e-6, 100.0, 10.0)

    run = begin_finetuning(setup, run, np.zeros(1, bool), np.full(1, 100.0), np.full((1, 2), 100.0))
    start = jax.device_get(run.agent)
    result = launch(algorithm, config, tmp_path, seed_list=(0,), run=run,
                    evaluator=lambda act, receive, **_: (returns_of(act), np.ones((1, 2), int)))  # fmt: skip
    evaluation = log.read(tmp_path, "evaluation")
    np.testing.assert_array_equal(evaluation["score"], [10, 10])  # what the looks saw
    np.testing.assert_array_equal(evaluation["reference_score"], [100, 100])
    agent = result.snapshots[-1].agent
    np.testing.assert_array_equal(returns_of(functools.partial(mode, agent)), [[100, 100]])
    jax.tree.map(np.testing.assert_array_equal, agent.actor, start.reference)
    assert not jax.tree.all(jax.tree.map(np.array_equal, agent.critic, start.critic))
    if module is o2td3:
        jax.tree.map(np.testing.assert_array_equal, agent.target_actor, start.reference)
    if module is not o2ppo:
        np.testing.assert_allclose(np.exp(agent.log_lagrange), 2.0, rtol=1e-6)
        divergence = log.read(tmp_path, "finetune")["divergence"][-1]
        expected = divergence / 2 if divergence > 0 else finetuning.UNCAPPED
        np.testing.assert_allclose(agent.threshold_cap, expected, rtol=1e-6)


def test_evaluations_are_logged_and_the_last_step_has_one(tmp_path):
    scores = [[1, 2], [3, 4], [5, 6]]
    result = launch(guess(), guess_config(env_steps=5, evaluation_every_env_steps=2), tmp_path, scores)
    columns = log.read(tmp_path, "evaluation")
    assert columns["step"].tolist() == [2, 2, 4, 4, 5, 5]
    assert columns["seed"].tolist() == [0, 1] * 3
    np.testing.assert_array_equal(columns["score"], np.ravel(scores))
    np.testing.assert_array_equal(log.read(tmp_path, "finetune")["step"], columns["step"])
    assert [int(run.env_steps) for run in result.snapshots] == [2, 4, 5]


def test_metrics_are_means_over_updates_and_steps(tmp_path):
    # replay mode none at the very first step: all rows drawn are that step's, so both updates see its reward
    result = launch(guess("none", updates=2), guess_config(env_steps=1), tmp_path)
    metrics = log.read(tmp_path, "finetune")
    np.testing.assert_allclose(metrics["reward"], [rows.reward[0] for rows in result.rows])
    np.testing.assert_array_equal(metrics["infinite"], -np.inf)  # a divergence stays to be seen
    assert int(result.run.agent.step) == 2


def test_a_row_without_episodes_is_left_out_and_a_seed_without_one_is_nan():
    metrics = loop._episode_metrics(Setup(guess(), guess_config(), TASK, (0, 1), seed_mesh(2, 1)), [[2.0, 4.0], []])
    np.testing.assert_array_equal(metrics["return"], [3.0, np.nan])
    np.testing.assert_array_equal(metrics["episodes"], [2, 0])


def test_random_actions_come_first(tmp_path):
    algorithm = guess(capacity=50, random_env_steps=40, warmup_env_steps=40)
    result = launch(algorithm, guess_config(env_steps=50, evaluation_every_env_steps=50), tmp_path)
    actions = np.asarray(result.run.buffer.storage.action)
    assert np.ptp(actions[:, :40]) > 1.8  # 160 draws from [−1, 1]
    assert np.abs(actions[:, :40].mean()) < 0.25
    assert np.ptp(actions[0, 40:, 0]) < 0.6  # the policy's, which explores by 0.1
    for seed, rows in enumerate(result.rows):
        np.testing.assert_array_equal(actions[seed], rows.action)


@pytest.mark.parametrize("overlap", [False, True])
def test_overlap_takes_actions_that_are_one_round_older(overlap, tmp_path):
    # the action after step t is drawn with step t's key by the agent after step t, or with overlap after step t − 1
    algorithm = guess(updates=2, overlap=overlap)
    result = launch(algorithm, guess_config(), tmp_path, counted=True)
    for seed, rows in enumerate(result.rows):
        for step in range(2, 6):  # snapshots[0] was taken after step 1
            agent = result.snapshots[step - 1 - overlap].agent
            agent = agent.replace(actor=agent.actor[seed])
            key = jax.random.fold_in(jax.random.fold_in(result.run.key[seed], 1), step)
            expected, _ = algorithm.online.act(agent, (), None, None, key)
            np.testing.assert_allclose(rows.action[step], expected, rtol=1e-5)
    assert int(result.run.agent.step) == 12
    assert result.compiled == 7 + overlap


def test_overlap_changes_nothing_where_nothing_is_updated(tmp_path):
    def actions(overlap):
        config = guess_config(evaluation_every_env_steps=6)
        result = launch(guess(warmup_env_steps=6, overlap=overlap), config, tmp_path / str(overlap))
        return [rows.action for rows in result.rows]

    np.testing.assert_array_equal(actions(True), actions(False))


def test_a_policy_remembers_its_episode_and_what_it_earned(tmp_path):
    # memory: [steps of the episode, its rewards]; the action says both, so that what the next step sees is on record
    def act(state, memory, observation, reward, key):
        del state, observation, key
        memory = memory + jnp.stack([jnp.ones(()), reward])
        return memory / 1_000.0, memory

    algorithm = with_online(guess("none"), act=act, memory=lambda: jnp.zeros(2))
    result = launch(algorithm, guess_config(env_steps=7), tmp_path)
    for rows in result.rows:  # episodes of 2, 3 and 2 steps
        np.testing.assert_allclose(1_000.0 * rows.action[:, 0], [1, 2, 1, 2, 3, 1, 2], rtol=1e-5)
        earned = np.concatenate([[0, rows.reward[0]], [0, rows.reward[2], rows.reward[2] + rows.reward[3]],
                                 [0, rows.reward[5]]])  # fmt: skip
        np.testing.assert_allclose(1_000.0 * rows.action[:, 1], earned, rtol=1e-4, atol=1e-4)
    assert result.run.memory.shape == (2, 2)
    overlapping = with_online(algorithm, schedule=Schedule(overlap=True))
    with pytest.raises(ValueError, match="^guess acts on what came before, .*: set interaction.overlap=false"):
        launch(overlapping, guess_config(), tmp_path)


def test_rows_may_be_annotated_while_fine_tuning_too(tmp_path):
    # own extras of each seed's actor; replay hands on rows of the dataset alone
    def prepare(state, rows):
        return state, Extras(own=jnp.full_like(rows.reward, state.actor[0]))

    def update(state, batch, key):
        del key
        return state.replace(step=state.step + 1), {"extras": batch.extras.own[0]}

    rule = replay.half(4, 4)._replace(sample=lambda buffer, rows, key: rows)
    algorithm = with_online(guess(), prepare=prepare, update=update, replay=rule)
    result = launch(algorithm, guess_config(env_steps=1), tmp_path)
    np.testing.assert_allclose(log.read(tmp_path, "finetune")["extras"], result.run.agent.actor[:, 0])


def test_a_method_without_a_reference_is_evaluated_alone(tmp_path):
    result = launch(with_online(guess(), reference=None), guess_config(roll_back_enabled=True), tmp_path, [[1, 5]] * 6)
    np.testing.assert_array_equal(result.run.best_score, [1, 5])
    assert result.run.standing is None
    assert not (tmp_path / "reference.csv").exists()
    references = [run.agent.reference for run in result.snapshots]
    np.testing.assert_array_equal(references[0], references[-1])


def test_an_offline_method_takes_no_environment_step(tmp_path):
    with pytest.raises(ValueError, match="^guess is an offline method, which takes no environment step"):
        launch(guess()._replace(online=None), guess_config(), tmp_path)


def test_the_buffer_keeps_the_newest(tmp_path):
    result = launch(guess(capacity=5), guess_config(env_steps=8), tmp_path)
    buffer = result.run.buffer
    assert (int(buffer.position), int(buffer.size)) == (3, 5)
    newest = [5, 6, 7, 3, 4]
    np.testing.assert_array_equal(buffer.storage.reward[1], result.rows[1].reward[newest])


def test_a_seed_alone_runs_as_among_others(tmp_path):
    among = launch(guess(), guess_config(), tmp_path / "among", seed_list=(3, 8))
    alone = launch(guess(), guess_config(), tmp_path / "alone", seed_list=(8,))
    assert among.envs[1].reset_seeds == alone.envs[0].reset_seeds
    assert among.envs[0].reset_seeds != alone.envs[0].reset_seeds
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b[0], rtol=1e-5),
        (among.run.buffer.storage, among.run.agent.actor),
        (alone.run.buffer.storage, alone.run.agent.actor),
    )


def test_devices_do_not_change_a_run(tmp_path):
    scores = [[1, 0], [2, 1], [1, 3], [4, 4], [5, 3], [6, 9]]
    one, two = (launch(guess(), guess_config(), tmp_path / str(n), scores, num_devices=n, counted=True) for n in (1, 2))
    assert len(two.run.buffer.storage.reward.devices()) == 2
    runs = [run.replace(key=jax.random.key_data(run.key)) for run in (one.run, two.run)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *jax.device_get(runs))
    assert two.compiled == 8


def test_a_checkpointed_run_goes_on(tmp_path):
    class Killed(Exception):
        pass

    config, algorithm = guess_config(env_steps=8, evaluation_every_env_steps=2), guess(capacity=8, warmup_env_steps=2)
    with Checkpoints(tmp_path / "checkpoints", {}) as checkpoints:

        def save_and_die(run, metrics):
            checkpoints.save(int(run.env_steps), run)
            if run.env_steps == 4:
                raise Killed

        with pytest.raises(Killed):
            launch(algorithm, config, tmp_path / "first", [[1, 2], [3, 1]], on_evaluation=save_and_die)
        template = start_run(Setup(algorithm, config, TASK, (0, 1), seed_mesh(2, 1)), None)
        run = checkpoints.restore(template)
    assert int(run.env_steps) == 4
    before = jax.device_get(run.buffer.storage)
    np.testing.assert_array_equal(run.best_score, [3, 2])
    result = launch(algorithm, config, tmp_path / "second", [[2, 2], [4, 1]], run=run, counted=True)

    buffer = result.run.buffer
    assert (int(result.run.env_steps), int(buffer.position), int(buffer.size)) == (8, 0, 8)
    assert int(result.run.agent.step) == 6
    for seed, rows in enumerate(result.rows):
        jax.tree.map(lambda column, old, s=seed: np.testing.assert_array_equal(column[s, :4], old[s, :4]),
                     buffer.storage, before)  # fmt: skip
        jax.tree.map(lambda column, row, s=seed: np.testing.assert_array_equal(column[s, 4:], row),
                     buffer.storage, rows)  # fmt: skip
    assert result.compiled == 8
    assert log.read(tmp_path / "second", "evaluation")["step"].tolist() == [6, 6, 8, 8]
    np.testing.assert_array_equal(result.run.best_score, [4, 2])
    # new episodes, but not those that the run began with
    started = {seed for env in launch(algorithm, guess_config(env_steps=1), tmp_path / "third").envs
               for seed in env.reset_seeds}  # fmt: skip
    assert not started & {seed for env in result.envs for seed in env.reset_seeds}


def test_a_run_that_is_over_stays_as_it_is(tmp_path):
    run = launch(guess(), guess_config(env_steps=2), tmp_path).run
    again = launch(guess(), guess_config(env_steps=2), tmp_path, run=run)
    assert again.run is run
    assert again.snapshots == []


def rollout_config(env_steps=12, evaluation_every_env_steps=3):
    return guess_config(env_steps=env_steps, evaluation_every_env_steps=evaluation_every_env_steps)


@flax.struct.dataclass
class Keeper:
    """The state of an algorithm that keeps the last rollout which it got."""

    actor: jax.Array
    reference: jax.Array
    rollout: Rollout
    step: jax.Array = counter()

    begin, act = Guess.begin, Guess.act


def keeper(length, updates=1, num_envs=1):
    """Rollouts of `length` steps; the actor is different after each."""

    def init(key, handoff):
        rows = jnp.zeros((length, 3)), jnp.zeros((length, 2)), jnp.zeros(length)
        rollout = Rollout(rows[0], rows[1], rows[2], rows[0], rows[2], rows[2])
        actor = jax.random.uniform(key, (2,))
        return Keeper(actor, actor, rollout, jnp.zeros((), jnp.int32))

    def finetune(state, rollout, key):
        actor = 0.5 * jax.random.normal(key, (2,))
        return state.replace(actor=actor, rollout=rollout, step=state.step + 1), {"reward": jnp.mean(rollout.reward)}

    return with_online(
        guess()._replace(init=init),
        schedule=Schedule(env_steps=length, updates=updates, num_envs=num_envs),
        update=finetune,
        act=common.memoryless(lambda state, observation, key: jnp.tanh(state.actor)),
        replay=replay.rollout(length, num_envs),
    )


def test_a_rollout_holds_the_steps_since_the_last_one_in_order(tmp_path):
    # 12 steps in rollouts of 5: updates after steps 5 and 10; evaluations after 3, 6, 9 and 12
    result = launch(keeper(5), rollout_config(), tmp_path, counted=True)
    assert [int(run.agent.step) for run in result.snapshots] == [0, 1, 1, 2]
    for snapshot, steps in ((result.snapshots[1], slice(5)), (result.snapshots[3], slice(5, 10))):
        for seed, rows in enumerate(result.rows):
            for name, column in vars(rows).items():
                np.testing.assert_array_equal(getattr(snapshot.agent.rollout, name)[seed], column[steps], err_msg=name)
    assert result.run.buffer.storage.reward.shape == (2, 5)  # one rollout, all seeds, is one array
    assert result.compiled == 8  # as of every method without a new reference


def test_a_rollout_knows_terminations_from_time_limits(tmp_path):
    # episodes have 2 steps, of which the last terminates, and 3, cut by the time limit, in turn: ends at 2, 5, 7, 10
    result = launch(keeper(10), rollout_config(env_steps=10, evaluation_every_env_steps=10), tmp_path)
    rollout = result.snapshots[0].agent.rollout
    np.testing.assert_array_equal(np.nonzero(rollout.terminated[0])[0] + 1, [2, 7])
    np.testing.assert_array_equal(np.nonzero(rollout.truncated[0])[0] + 1, [5, 10])


def test_one_policy_takes_a_whole_rollout(tmp_path):
    result = launch(keeper(4), rollout_config(env_steps=8, evaluation_every_env_steps=4), tmp_path)
    for seed, rows in enumerate(result.rows):
        first, second = rows.action[:4], rows.action[4:]
        assert np.ptp(first, axis=0).max() == np.ptp(second, axis=0).max() == 0.0
        np.testing.assert_allclose(second[0], np.tanh(result.snapshots[0].agent.actor[seed]), rtol=1e-6)
        assert np.abs(first[0] - second[0]).max() > 1e-3


def test_metrics_of_rollouts_are_those_of_their_updates(tmp_path):
    # no update before the first evaluation, one before each of the others, and none in the last interval
    result = launch(keeper(4), rollout_config(env_steps=11), tmp_path, np.zeros((4, 2)))
    metrics = log.read(tmp_path, "finetune")
    of_seed = metrics["seed"] == 1
    reward = result.rows[1].reward
    np.testing.assert_array_equal(metrics["step"][of_seed], [3, 6, 9, 11])
    np.testing.assert_allclose(metrics["reward"][of_seed], [np.nan, reward[:4].mean(), reward[4:8].mean(), np.nan])


def test_a_round_may_have_many_updates_and_wait_for_them(tmp_path):
    # from replay: every third step, three updates each, once the warm-up is over
    algorithm = guess(env_steps=3, updates=3, warmup_env_steps=4)
    result = launch(algorithm, guess_config(env_steps=10), tmp_path)
    assert [int(run.agent.step) for run in result.snapshots] == [0, 0, 0, 0, 0, 3, 3, 3, 6, 6]


def test_a_resumed_run_goes_on_with_the_rollout_under_way(tmp_path):
    class Killed(Exception):
        pass

    config, algorithm = rollout_config(), keeper(5)
    with Checkpoints(tmp_path / "checkpoints", {}) as checkpoints:

        def save_and_die(run, metrics):
            checkpoints.save(int(run.env_steps), run)
            if run.env_steps == 6:
                raise Killed

        with pytest.raises(Killed):
            launch(algorithm, config, tmp_path / "first", on_evaluation=save_and_die)
        run = checkpoints.restore(start_run(Setup(algorithm, config, TASK, (0, 1), seed_mesh(2, 1)), None))
    before = jax.device_get(run.buffer.storage)
    assert (int(run.env_steps), int(run.buffer.position)) == (6, 1)
    np.testing.assert_array_equal(before.truncated[:, 0], 0.0)  # the third episode had just begun
    result = launch(algorithm, config, tmp_path / "second", run=run, counted=True)
    rollout = result.snapshots[-1].agent.rollout
    assert int(result.run.agent.step) == 2
    for seed, rows in enumerate(result.rows):
        # the step that had been taken, now the last of its episode, and four of a new episode
        np.testing.assert_array_equal(rollout.reward[seed, 0], before.reward[seed, 0])
        np.testing.assert_array_equal(rollout.truncated[seed, 0], 1.0)
        jax.tree.map(lambda a, b, s=seed: np.testing.assert_array_equal(a[s, 1:], b[:4]),
                     Transition(*(getattr(rollout, name) for name in vars(rows))), rows)  # fmt: skip
    assert result.compiled == 8  # as of every method without a new reference


@pytest.mark.parametrize("num_devices", [1, 2])
def test_rollouts_of_seeds_are_as_those_of_each_alone(tmp_path, num_devices):
    among = launch(keeper(4), rollout_config(), tmp_path / "among", seed_list=(3, 8), num_devices=num_devices)
    alone = launch(keeper(4), rollout_config(), tmp_path / "alone", seed_list=(8,))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b[0], rtol=1e-5),
        (among.run.agent.rollout, among.run.agent.actor, among.run.buffer.storage),
        (alone.run.agent.rollout, alone.run.agent.actor, alone.run.buffer.storage),
    )


def test_o2ppo_in_the_loop(tmp_path):
    config = tiny.config(
        o2ppo.Config,
        hidden=(4,),
        critic_hidden=(4,),
        env_steps=20,
        evaluation_every_env_steps=10,
        rollout_env_steps=8,
        minibatch_size=4,
    )
    result = launch(o2ppo.make(config, SPEC), config, tmp_path, [[0, 5], [3, 1]], counted=True)
    assert [int(run.agent.step) for run in result.snapshots] == [1, 2]
    assert result.compiled == 9  # the same and the new reference
    metrics = log.read(tmp_path, "finetune")
    assert all(np.isfinite(column).all() for column in metrics.values())
    np.testing.assert_allclose(metrics["auxiliary_weight"][::2], [1 - 8 / 250_000, 1 - 16 / 250_000], rtol=1e-6)
    references = [run.agent.reference["params"]["log_std"] for run in result.snapshots]
    actors = [run.agent.actor["params"]["log_std"] for run in result.snapshots]
    np.testing.assert_array_equal(references[0][1], actors[0][1])  # the better one became the reference
    np.testing.assert_array_equal(references[1][0], actors[1][0])
    np.testing.assert_array_equal(references[1][1], references[0][1])
