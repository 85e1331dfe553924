"""Seeds that fail while the others go on: by their environments, by their networks, in evaluation, across a resume."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.envs.border import Border
from o2o_jax.envs.vector import make_vector
from o2o_jax.runtime import log, loop
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.evaluate import Evaluator
from o2o_jax.runtime.failures import blank, summary
from o2o_jax.runtime.run import begin_finetuning, start_run
from o2o_jax.runtime.setup import Setup
from tests.runtime.test_loop import TASK, guess, guess_config, with_online

ENV_STEPS, EVERY = 12, 3


class Weak(gymnasium.Env):
    """Episodes of three steps; fails at the seventh step of all, once it has been told to."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, fails):
        self.fails, self.taken = fails, 0

    def observation(self):
        return np.array([self.drawn, self.steps, 0.0])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.drawn, self.steps = self.np_random.uniform(), 0
        return self.observation(), {}

    def step(self, action):
        self.steps, self.taken = self.steps + 1, self.taken + 1
        if self.fails and self.taken == 7:
            raise KeyError("no such joint")
        return self.observation(), float(action[0] + self.drawn), False, self.steps == 3, {}


def weak_envs(*fails):
    remaining = list(fails)
    return make_vector(lambda: Weak(remaining.pop(0)), len(fails))


def evaluate(act, receive, plays=None, **_):
    """An evaluator whose returns are the policies' actions."""
    returns = np.asarray(act(np.zeros((2, 1, 3), np.float32)), float)[..., 0]
    return returns if plays is None else np.where(plays[:, None], returns, np.nan), np.ones((2, 1), int)


def update(state, batch, key):
    """Moves the actor by what the seed has seen."""
    del key
    actor = state.actor + 0.01 * jnp.tanh(batch.reward.mean())
    return state.replace(actor=actor, step=state.step + 1), {"reward": batch.reward.mean()}


def diverging(state, batch, key):
    """Makes NaN of an actor that began above 3, by update 8."""
    moved, metrics = update(state, batch, key)
    return moved.replace(actor=jnp.where((state.step >= 7) & (state.actor[0] > 3.0), jnp.nan, moved.actor)), metrics


def fine_tune(folder, envs, update=update, stop_after=ENV_STEPS, run=None):
    """Fine-tunes two seeds whose actors begin at 0 and 4, up to an evaluation; returns its run, and all lines."""
    algorithm = with_online(guess("none"), update=update)
    config = guess_config(env_steps=ENV_STEPS, evaluation_every_env_steps=EVERY)
    setup = Setup(algorithm, config, TASK, (0, 1), seed_mesh(2, 1))
    if run is None:
        run = begin_finetuning(setup, start_run(setup, None), np.zeros(2, bool), np.zeros(2))
        run = run.replace(agent=run.agent.replace(actor=jnp.array([[0.0, 0.0], [4.0, 4.0]])))
    lines, last = [], None
    with log.MetricLog(folder) as metric_log:
        for event in loop.fine_tune(setup, run, None, envs, evaluate):
            metric_log.take(event)
            lines += event.lines
            if event.run is not None:
                assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((event.run.agent, event.run.buffer)))
                last = jax.tree.map(np.array, event.run.replace(key=jax.random.key_data(event.run.key)))
                if event.step >= stop_after:
                    break
    return jax.tree.map(jnp.asarray, last.replace(key=jax.random.wrap_key_data(last.key), episodes=None)).replace(
        episodes=last.episodes
    ), lines


def rows_of(folder, name, seed):
    """Rows of one seed: column -> values."""
    columns = log.read(folder, name)
    return {column: values[columns["seed"] == seed] for column, values in columns.items()}


def check_survivor(whole, broken, good_rows):
    """Checks the files of a run whose second seed has failed against those of one where both are whole."""
    for name in ("finetune", "evaluation"):
        for column, values in rows_of(whole, name, 0).items():
            np.testing.assert_array_equal(rows_of(broken, name, 0)[column], values, err_msg=column)
        failed = rows_of(broken, name, 1)
        for column in failed.keys() - {"step", "seed"}:
            np.testing.assert_array_equal(failed[column][:good_rows], rows_of(whole, name, 1)[column][:good_rows])
            assert np.isnan(failed[column][good_rows:]).all()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Both seeds whole: the folder, the run after six environment steps and after all."""
    folder = tmp_path_factory.mktemp("whole")
    six, _ = fine_tune(folder / "six", weak_envs(False, False), stop_after=6)
    run, lines = fine_tune(folder / "all", weak_envs(False, False))
    assert lines == []
    return folder / "all", six, run


def test_an_environment_that_fails_ends_its_seed_alone(whole, tmp_path):
    folder, six, run = whole
    broken, lines = fine_tune(tmp_path, weak_envs(False, True))
    assert lines == [
        "seed 1 ends with its last good state after 7 environment steps, the others go on: the environment Weak failed "
        "at step 1 of an episode: step raised KeyError: 'no such joint'"
    ]
    np.testing.assert_array_equal(broken.failed, [False, True])
    np.testing.assert_array_equal(broken.agent.actor, [run.agent.actor[0], six.agent.actor[1]])
    np.testing.assert_array_equal(broken.buffer.storage.reward[0], run.buffer.storage.reward[0])
    check_survivor(folder, tmp_path, good_rows=2)


def test_a_seed_whose_networks_diverge_ends_alone(whole, tmp_path):
    folder, six, run = whole
    broken, lines = fine_tune(tmp_path, weak_envs(False, False), diverging)
    assert lines == [
        "seed 1 ends with its last good state after 8 environment steps, the others go on: its networks have become "
        "NaN or infinite: lower the learning rates"
    ]
    np.testing.assert_array_equal(broken.agent.actor, [run.agent.actor[0], six.agent.actor[1]])
    check_survivor(folder, tmp_path, good_rows=2)


@pytest.mark.parametrize(("fails", "update"), [((False, True), update), ((False, False), diverging)])
def test_a_resumed_run_knows_which_seeds_have_failed(fails, update, tmp_path):
    unbroken, _ = fine_tune(tmp_path / "unbroken", weak_envs(*fails), update)
    nine, _ = fine_tune(tmp_path / "resumed", weak_envs(*fails), update, stop_after=9)
    resumed, lines = fine_tune(tmp_path / "resumed", weak_envs(*fails), update, run=nine)
    assert lines == []
    for field in ("agent", "failed", "best_score", "snapshots"):
        jax.tree.map(np.testing.assert_array_equal, getattr(resumed, field), getattr(unbroken, field))
    for name in ("finetune", "evaluation"):
        files = [(tmp_path / folder / f"{name}.csv").read_text() for folder in ("resumed", "unbroken")]
        assert files[0] == files[1]


def test_without_a_seed_left_a_run_ends(tmp_path):
    words = "no seed is left after 7 environment steps: seed 0 has failed: the environment Weak failed at step 1 of"
    with pytest.raises(ValueError, match=words):
        fine_tune(tmp_path, weak_envs(True, True))


def test_an_evaluation_that_fails_counts_as_nan(capsys):
    remaining = [False, False, True, False]  # of two seeds' two episodes each

    def make_env():
        env = Weak(False)
        if remaining.pop(0):
            env.step = lambda action: 1 / 0
        return Border(env)

    evaluator = Evaluator(make_env, (4, 5), 2)

    def act(observations):
        return np.zeros((2, 2, 2), np.float32)

    returns, _ = evaluator(act)
    assert np.isfinite(returns[0]).all()
    assert np.isnan(returns[1]).all()
    assert "note: the evaluation of seed 5 counts as NaN: the environment Weak failed" in capsys.readouterr().out
    with pytest.raises(ValueError, match="evaluation of seed 5: the environment Weak failed at step 1"):
        evaluator(act, plays=np.array([False, True]))


def test_failed_seeds_are_told_and_left_blank():
    failed = np.array([False, True, True])
    assert summary((3, 4, 5), failed) == (
        "note: the seeds 4, 5 have failed: their last good states are kept, and their rows are NaN since",
    )
    assert summary((3, 4, 5), np.zeros(3, bool)) == ()
    rows = blank({"evaluation": {"score": np.arange(3.0), "accepted": np.array([True, False, True])}}, failed)
    np.testing.assert_array_equal(rows["evaluation"]["score"], [0.0, np.nan, np.nan])
    np.testing.assert_array_equal(rows["evaluation"]["accepted"], [1.0, np.nan, np.nan])
