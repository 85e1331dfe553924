import sys

import gymnasium
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import dataset
from o2o_jax.data import sources
from o2o_jax.envs import gym
from o2o_jax.types import Spec
from tests import tiny

VECTOR = gymnasium.spaces.Box(-1, 1, (3,))
UNIT = gymnasium.spaces.Box(-1, 1, (2,))


class Toy(gymnasium.Env):
    """Counts its steps up; the reward is the sum of the action that arrives."""

    def __init__(self, observation_space=VECTOR, action_space=UNIT):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(3, self.steps / 10, np.float32), float(np.sum(action)), False, False, {}


@pytest.fixture
def register(monkeypatch):
    """Registers a toy environment for the test."""
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))

    def register(max_episode_steps=4, **spaces):
        gymnasium.register("Toy-v0", Toy, max_episode_steps=max_episode_steps, kwargs=spaces)

    return register


def test_facts_of_a_registered_environment():
    task = envs.get_task("gym/Pendulum-v1")
    assert (task.name, task.env_id, task.spec) == ("gym/Pendulum-v1", "Pendulum-v1", Spec(3, 1))
    assert (task.max_episode_steps, task.dataset_id) == (200, "")


def test_scores_are_raw_returns_and_the_task_says_so():
    task = envs.get_task("gym/Pendulum-v1")
    np.testing.assert_array_equal(task.score(np.array([-1234.5, 0.0])), [-1234.5, 0.0])
    assert task.warnings[0] == "gym/Pendulum-v1 has no reference scores: every score is the raw return"
    assert "no settings are published for gym/Pendulum-v1" in task.warnings[1]


def test_actions_are_rescaled():
    env = gym.make_env(envs.get_task("gym/Pendulum-v1"))  # its own bounds are ±2
    raw = gymnasium.make("Pendulum-v1")
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (1,))
    env.reset(seed=0), raw.reset(seed=0)
    np.testing.assert_allclose(env.step(np.array([0.5], np.float32))[0], raw.step(np.array([1.0], np.float32))[0])


@pytest.mark.filterwarnings("error")
def test_float64_actions_are_rescaled_too(register):
    register(action_space=gymnasium.spaces.Box(-0.4, 0.4, (2,), np.float64))
    env = gym.make_env(envs.get_task("gym/Toy-v0"))
    env.reset(seed=0)
    np.testing.assert_allclose(env.step(np.array([1.0, 0.5], np.float32))[1], 0.4 + 0.2, rtol=1e-6)


def test_time_limit_truncates(register):
    register()
    vector = gym.make_vector_env(envs.get_task("gym/Toy-v0"), 2)
    vector.reset(seed=[0, 1])
    ends = [vector.step(np.zeros((2, 2), np.float32))[2:4] for _ in range(4)]
    assert [truncated.all() for _, truncated in ends] == [False, False, False, True]
    assert not any(terminated.any() for terminated, _ in ends)


def test_module_that_registers(tmp_path, monkeypatch):
    (tmp_path / "my_environments.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Mine-v3', 'gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    task = envs.get_task("gym/my_environments:Mine-v3")
    assert (task.name, task.env_id, task.max_episode_steps) == ("gym/my_environments:Mine-v3", "Mine-v3", 9)
    del sys.modules["my_environments"]


DICT = gymnasium.spaces.Dict({"goal": VECTOR, "position": VECTOR})


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (dict(observation_space=DICT), "observes Dict of goal, position, expected one vector .*FlattenObservation"),
        (dict(observation_space=gymnasium.spaces.Box(0, 1, (8, 8, 3))), r"observes Box of shape \(8, 8, 3\)"),
        (dict(observation_space=gymnasium.spaces.Discrete(5)), "observes Discrete"),
        (dict(action_space=gymnasium.spaces.Discrete(2)), "takes Discrete actions; only continuous ones"),
        (dict(action_space=gymnasium.spaces.Box(0, 9, (2,), np.int64)), "takes int64 actions; only continuous"),
        (dict(action_space=gymnasium.spaces.Box(-1, 1, (2, 2))), r"takes Box of shape \(2, 2\) actions, expected one"),
        (dict(action_space=gymnasium.spaces.Box(-np.inf, np.inf, (2,))), "takes unbounded actions: bound them"),
        (
            dict(action_space=gymnasium.spaces.Box(1, 1, (1,))),
            "takes actions between 1.0 and 1.0, which no number scales",
        ),
        (
            dict(action_space=gymnasium.spaces.Box(-3e38, 3e38, (1,))),
            "takes actions between .* the bounds that are meant",
        ),
        (dict(max_episode_steps=None), "has no time limit: register it with max_episode_steps"),
    ],
)
def test_unsuitable_environments_are_refused(register, facts, message):
    register(**facts)
    with pytest.raises(ValueError, match=f"Toy-v0 {message}"):
        envs.get_task("gym/Toy-v0")


@pytest.mark.parametrize("env_id", ["Pendulumm-v1", "Pendulum-v99", "nobody/Pendulum-v1", "no_module:X-v0", ""])
def test_unknown_environments_are_answered_in_one_line(env_id):
    with pytest.raises(ValueError, match="gymnasium can't make .* gym/<module to import>:<id>") as error:
        envs.get_task(f"gym/{env_id}")
    assert "\n" not in str(error.value)


def test_without_gymnasium_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ValueError, match=r"gymnasium is not installed: pip install 'o2o_jax\[mujoco\]'"):
        envs.get_task("gym/Pendulum-v1")


def test_task_names_no_dataset():
    with pytest.raises(ValueError, match="gym/Pendulum-v1 names no dataset: pass the id or path of one"):
        gym.load_dataset(envs.get_task("gym/Pendulum-v1"))


def test_uniform_data_can_be_made(minari_root, capsys):
    tiny.call(dataset, "--env=gym/Pendulum-v1", "--out=mine/pendulum-v0", "--transitions=300")
    assert "mine/pendulum-v0: 300 transitions, 1 whole episodes, return -" in capsys.readouterr().out
    task = envs.get_task("gym/Pendulum-v1")
    loaded = gym.load_dataset(task, "mine/pendulum-v0")
    assert np.abs(loaded.transitions.action).max() > 0.9
    env = gym.make_env(task)  # stored actions are those of the task, in [-1, 1]
    metadata = sources._read_metadata(minari_root / "mine/pendulum-v0/data/metadata.json")
    assert "ref_min_score" not in metadata
    env.reset(seed=0)
    angle = np.arctan2(loaded.transitions.observation[0, 1], loaded.transitions.observation[0, 0])
    env.unwrapped.state = np.array([angle, loaded.transitions.observation[0, 2]])
    rewards = [env.step(action)[1] for action in loaded.transitions.action[:20]]
    np.testing.assert_allclose(rewards, loaded.transitions.reward[:20], rtol=1e-3)


def test_recorded_actions_in_the_environments_own_bounds_are_rescaled(record):
    record("mine/raw-v0", "Pendulum-v1", steps=200, episodes=1)
    task = envs.get_task("gym/Pendulum-v1")
    rows = gym.load_dataset(task, "mine/raw-v0").transitions
    env = gym.make_env(task)
    env.reset(seed=0)
    rewards = [env.step(action)[1] for action in rows.action]
    np.testing.assert_allclose(rewards, rows.reward, rtol=1e-3, atol=1e-3)


def test_an_environment_that_no_dataset_can_name_is_not_played(register, tmp_path):
    register()  # with a class
    with pytest.raises(ValueError, match="register it with the text 'module:Class'"):
        dataset.make_dataset(envs.get_task("gym/Toy-v0"), 20, out="mine/toy-v0")


def test_a_module_that_a_file_names_is_not_imported_without_trust(tmp_path, monkeypatch):
    (tmp_path / "from_a_file.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    name = "gym/from_a_file:Mine-v3?g=1.0"
    with pytest.raises(ValueError, match=r"would import the module from_a_file: .*, pass --env='gym/from_a_file:Mine"):
        envs.recorded_task(name)
    with envs.trusting(["from_a_file"]), pytest.raises(ValueError, match="imported"):
        envs.recorded_task(name)
    with pytest.raises(ValueError, match="imported"):
        envs.get_task(name)
    assert envs.recorded_task("gym/Pendulum-v1").env_id == "Pendulum-v1"
    assert envs.recorded_task("gym/gymnasium:Pendulum-v1").env_id == "Pendulum-v1"  # imported already


def test_a_module_that_reads_the_command_line_is_refused(tmp_path, monkeypatch):
    (tmp_path / "reads_arguments.py").write_text("import sys\nsys.exit(2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"ends the process while it is imported .* status 2.* nothing else$"):
        envs.get_task("gym/reads_arguments:Toy-v0")


def test_a_module_that_says_why_it_ends_is_quoted(tmp_path, monkeypatch):
    (tmp_path / "licensed.py").write_text("raise SystemExit('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"gymnasium can't make 'licensed:Toy-v0' \(no licence\)$"):
        envs.get_task("gym/licensed:Toy-v0")


def test_a_module_that_takes_the_streams_away_gives_them_back(tmp_path, monkeypatch):
    (tmp_path / "mute.py").write_text("import sys\nsys.stdout = sys.stderr = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.stdout, sys.stderr
    with pytest.raises(ValueError, match="can't make 'mute:Toy-v0'"):
        envs.get_task("gym/mute:Toy-v0")
    assert (sys.stdout, sys.stderr) == before
