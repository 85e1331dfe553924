"""The border to environments that others wrote: what passes, and what is said of the rest."""

import os
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from o2o_jax.envs.border import Border
from o2o_jax.envs.failure import EnvironmentFailure
from o2o_jax.envs.vector import last_observations, make_vector


class Line(gymnasium.Env):
    """Counts its steps in one array, which it hands out again and again; `then` gives what else a step returns."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, then=None, begin=None):
        self.at = np.zeros(2, np.float32)
        self.then, self.begin = then, begin

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at[:] = 0.0
        return self.begin() if self.begin else (self.at, {})

    def step(self, action):
        self.at += 1.0
        return self.then(self.at) if self.then else (self.at, 0.5, False, False, {})


def raises(*_):
    raise KeyError("no such joint")


def raises_more(*_):
    raise BaseException("odd")


def test_what_is_handed_out_is_a_copy():
    env = Border(Line())
    first, _ = env.reset(seed=0)
    second, reward, *flags, _ = env.step(np.zeros(1))
    env.step(np.zeros(1))
    assert first.tolist() == [0.0, 0.0]
    assert second.tolist() == [1.0, 1.0]
    assert (reward, flags) == (0.5, [False, False])


def test_the_last_observation_of_an_episode_is_its_own():
    def make_env():
        return gymnasium.wrappers.TimeLimit(Line(), 3)

    vector = make_vector(make_env, 2)
    vector.reset(seed=[0, 1])
    seen = []
    for _ in range(4):
        observation, *_, info = vector.step(np.zeros((2, 1), np.float32))
        seen.append(last_observations(observation, info)[:, 0].tolist())
    assert seen == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (lambda at: (at * np.nan, 0.0, False, False, {}), "the observation holds NaN or infinity"),
        (lambda at: (at, np.inf, False, False, {}), "the reward is inf"),
        (lambda at: (at, 1e300, False, False, {}), r"the reward is 1e\+300, no finite number of 32 bits"),
        (lambda at: (at * np.float64(1e300), 0.0, False, False, {}), "the observation holds NaN or infinity, in 32"),
        (lambda at: (at, np.zeros(2), False, False, {}), r"a reward must be a number, got an array of shape \(2,\)"),
        (lambda at: (at[:1], 0.0, False, False, {}), r"the observation has the shape \(1,\), but its space \(2,\)"),
        (lambda at: (at, 0.0, None, False, {}), "terminated and truncated must be booleans, got None and False"),
        (lambda at: (at, 0.0, 0.5, False, {}), "terminated and truncated must be booleans, got 0.5 and False"),
        (lambda at: (at, 0.0, False, {}), r"step must return \(observation, reward, terminated, truncated, info\)"),
        (lambda at: (at, 1 + 2j, False, False, {}), "rewards must be one array of numbers, got type complex128"),
        (lambda at: (at, "much", False, False, {}), "rewards must be one array of numbers, got type <U4"),
        (lambda at: (at, [0.0, [1.0]], False, False, {}), r"rewards must be one array of numbers \("),
        (lambda at: (["a", "b"], 0.0, False, False, {}), "observations must be one array of numbers, got type <U1"),
        (lambda at: ({"at": at}, 0.0, False, False, {}), r"observations must be one array of numbers \("),
        (lambda at: (at, 0.0, at > 0.0, False, {}), "terminated and truncated must be booleans"),
        (lambda at: (at, 0.0, False, "no", {}), "terminated and truncated must be booleans, got False and 'no'"),
        (raises, "step raised KeyError: 'no such joint'"),
        (lambda at: sys.exit(0), "step raised SystemExit: 0"),
        (raises_more, "step raised BaseException: odd"),
    ],
)
def test_a_step_that_fails_is_one_line(then, words):
    env = Border(Line(then=then))
    env.reset(seed=0)
    with pytest.raises(EnvironmentFailure, match="^the environment Line failed at step 1 of an episode: " + words):
        env.step(np.zeros(1))


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (lambda: np.zeros(2), "reset must return"),
        (lambda: (np.full(2, np.inf), {}), "the observation holds NaN or infinity"),
        (raises, "reset raised KeyError"),
    ],
)
def test_a_reset_that_fails_is_one_line(begin, words):
    with pytest.raises(EnvironmentFailure, match=f"^the environment Line failed at the start of an episode: {words}"):
        Border(Line(begin=begin)).reset(seed=0)


def test_a_close_that_fails_is_a_note(capsys):
    env = Line()
    env.close = raises
    Border(env).close()
    assert capsys.readouterr().out == (
        "note: the environment Line failed at the start of an episode: raises raised KeyError: 'no such joint'\n"
    )


def test_a_keyboard_interrupt_is_no_failure():
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Border(Line(begin=interrupted)).reset(seed=0)


def test_the_working_folder_stays(tmp_path):
    def leave(*_):
        os.chdir(tmp_path)
        return np.zeros(2), {}

    home = Path.cwd()
    Border(Line(begin=leave)).reset(seed=0)
    assert Path.cwd() == home


def test_a_policy_that_diverged_is_no_fault_of_the_environment():
    env = Border(Line(then=lambda at: (at * np.nan, np.nan, False, False, {})))
    env.reset(seed=0)
    observation, reward, *_ = env.step(np.full(1, np.nan))
    assert np.isnan(observation).all()
    assert np.isnan(reward)


@pytest.mark.parametrize("flag", [True, np.True_, 1])
def test_flags_may_be_numbers(flag):
    env = Border(Line(then=lambda at: (at, np.float32(0.25), flag, False, {})))
    env.reset(seed=0)
    assert env.step(np.zeros(1))[1:4] == (0.25, True, False)
