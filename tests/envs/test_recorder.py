import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.envs.failure import EnvironmentFailure
from o2o_jax.envs.recorder import Recorder
from o2o_jax.envs.vector import check_failures, failed_environments, make_vector
from o2o_jax.runtime.episodes import Episodes

UNFAILED = np.zeros(2, bool)


class Noisy(gymnasium.Env):
    """A walk with noise at every step, whose episodes end by chance."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.normal() + (options or {}).get("at", 0.0)
        return np.array([self.position]), {}

    def step(self, action):
        self.position += action[0] + self.np_random.normal()
        return np.array([self.position]), 0.0, bool(self.np_random.uniform() < 0.1), False, {}


class Other(Noisy):
    """One that draws from a generator that nobody knows."""

    def step(self, action):
        observation, *rest = super().step(action)
        return observation + np.random.default_rng().normal(), *rest


def vector(kind, num_envs=2):
    return gymnasium.vector.SyncVectorEnv(
        [lambda: Recorder(kind())] * num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
    )


def play(vector_env, actions):
    """Observations, rewards and ends of steps [T, S, ...]."""
    return [vector_env.step(action)[:4] for action in actions]


def actions_of(vector_env, steps, seed=0):
    shape = (steps, *vector_env.action_space.shape)
    return np.random.default_rng(seed).uniform(-1.0, 1.0, shape).astype(np.float32)


def under_way(vector_env, played):
    """Episodes after the last of these steps, as a checkpoint brings them back."""
    observation = played[-1][0].astype(np.float32)
    pending = [{"loss": np.array([0.1, np.nan], np.float32)}]
    episodes = Episodes(observation, np.zeros((2, 1), np.float32), np.array([0.1, 1e9 / 3]), [[0.3], []], pending)
    return episodes.save(vector_env)


TASKS = [
    "mujoco/hopper-medium",
    "pointmaze/umaze",
    "antmaze/umaze",
    "adroit/pen-human",
    "ogbench/pointmaze-medium-navigate",
    "gym/Pendulum-v1",
]


@pytest.mark.parametrize("name", TASKS)
def test_another_process_goes_on_as_if_nothing_had_happened(name):
    task = envs.get_task(name)
    first, second = (envs.family(name).make_vector_env(task, 2) for _ in range(2))
    actions = actions_of(first, 260)  # beyond the end of an episode, where there is one
    first.reset(seed=[3, 4])
    played = play(first, actions[:230])
    second.reset(seed=[5, 6])
    found = Episodes.restore(second, under_way(first, played), UNFAILED)
    np.testing.assert_array_equal(found.observation, played[-1][0].astype(np.float32))
    np.testing.assert_array_equal(found.returns, [0.1, 1e9 / 3])
    assert found.finished == [[0.3], []]
    np.testing.assert_array_equal(found.pending[0]["loss"], np.array([0.1, np.nan], np.float32))
    for expected, there in zip(play(first, actions[230:]), play(second, actions[230:]), strict=True):
        for a, b in zip(expected, there, strict=True):
            np.testing.assert_array_equal(a, b)


def test_noise_of_the_environment_s_own_generator_is_drawn_again():
    first, second = vector(Noisy), vector(Noisy)
    actions = actions_of(first, 60)
    first.reset(seed=3)
    played = play(first, actions[:40])
    assert any(step[2].any() for step in played)  # a later episode than the seed's
    second.reset(seed=7)
    assert Episodes.restore(second, under_way(first, played), UNFAILED) is not None
    for expected, there in zip(play(first, actions[40:]), play(second, actions[40:]), strict=True):
        for a, b in zip(expected, there, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_can_not_be_taken_up_again_is_said(capsys):
    for kind in (Other, Noisy):
        first, second = vector(kind), vector(kind)
        first.reset(seed=3, options=None if kind is Other else {"at": 9.0})  # options are not recorded
        saved = under_way(first, play(first, actions_of(first, 5)))
        second.reset(seed=7)
        assert Episodes.restore(second, saved, UNFAILED) is None
        assert "every seed begins a new episode" in capsys.readouterr().out


def test_without_a_recorder_or_a_file_nothing_is_taken_up(capsys):
    plain = gymnasium.vector.SyncVectorEnv([Noisy] * 2)
    plain.reset(seed=3)
    saved = under_way(plain, play(plain, actions_of(plain, 5)))
    assert "simulators" not in saved
    assert Episodes.restore(plain, saved, UNFAILED) is None
    assert "every seed begins a new episode" in capsys.readouterr().out
    assert Episodes.restore(plain, None, UNFAILED) is None
    assert capsys.readouterr().out == ""


def test_of_an_environment_that_has_failed_nothing_more_is_recorded():
    class Short(Noisy):
        def step(self, action):
            raise KeyError("no such joint")

    envs_ = [Noisy, Short]
    vector_env = make_vector(lambda: envs_.pop(0)(), 2)
    vector_env.reset(seed=3)
    steps = [vector_env.step(action) for action in actions_of(vector_env, 3)]
    for observations, rewards, terminated, truncated, info in steps:
        assert failed_environments(info).keys() == {1}
        assert failed_environments(info)[1].endswith("step raised KeyError: 'no such joint'")
        assert (observations[1], rewards[1], terminated[1], truncated[1]) == (0.0, 0.0, False, False)
    assert len(vector_env.envs[1].recording().actions) == 0
    with pytest.raises(EnvironmentFailure, match="no such joint"):
        check_failures(steps[0][4])


def test_metrics_leave_the_device_in_time(monkeypatch):
    monkeypatch.setattr("o2o_jax.runtime.episodes.FETCH_EVERY", 2)
    episodes = Episodes.begin(np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32))
    for number in range(3):
        episodes.measure({"loss": jnp.full(2, number, jnp.float32)})
    kinds = [isinstance(metrics["loss"], np.ndarray) for metrics in episodes.pending]
    assert kinds == [True, True, False]
    np.testing.assert_array_equal([metrics["loss"] for metrics in episodes.pending], [[0, 0], [1, 1], [2, 2]])
