"""OGBench's tasks: environments, files, demonstrators."""

import gymnasium
import h5py
import numpy as np
import ogbench as package
import pytest
from ogbench.relabel_utils import relabel_dataset

from o2o_jax import envs
from o2o_jax.cli import dataset as command
from o2o_jax.data import sources
from o2o_jax.envs import ogbench
from o2o_jax.envs.ogbench import demonstrators
from o2o_jax.envs.ogbench.goals import Goal
from o2o_jax.envs.ogbench.tasks import SCENES, scene_of

MAZE = envs.get_task("ogbench/pointmaze-medium-navigate")
CUBE = envs.get_task("ogbench/cube-single-play")


@pytest.fixture(scope="module")
def cube():
    env = ogbench.make_env(CUBE)
    yield env
    env.close()


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def test_names_say_scene_kind_and_number():
    names = ogbench.tasks().keys()
    assert len(names) == 6 * sum(len(scene.kinds) for scene in SCENES.values())
    third = envs.get_task("ogbench/puzzle-4x4-noisy-task3")
    assert third.env_id == "puzzle-4x4-singletask-task3-v0"
    assert third.dataset_id == "o2o/ogbench/puzzle-4x4-noisy-task3-v0"
    assert (scene_of(third), scene_of(CUBE)) == (("puzzle-4x4", "noisy"), ("cube-single", "play"))
    registered = {task.env_id for task in ogbench.tasks().values()}
    assert registered <= gymnasium.registry.keys()
    for task in ogbench.tasks().values():
        assert gymnasium.spec(task.env_id).max_episode_steps == task.max_episode_steps


def test_scores_are_successes_or_what_is_left_to_do():
    np.testing.assert_allclose(CUBE.score(np.array([0.0, 1.0])), [0, 100])
    assert (CUBE.sparse_reward, CUBE.eval_episodes) == (True, 50)
    puzzle = envs.get_task("ogbench/puzzle-3x3-play")
    np.testing.assert_allclose(puzzle.score(np.array([-9.0 * 500, 0.0])), [0, 100])
    assert not puzzle.sparse_reward


def test_one_thing_to_do_is_worth_one(cube):
    observation, _ = cube.reset(seed=0)
    assert observation.shape == (CUBE.spec.observation_dim,)
    assert cube.action_space.shape == (CUBE.spec.action_dim,)
    assert cube.step(np.zeros(5))[1:4] == (0.0, False, False)
    simulator = cube.unwrapped
    simulator._data.joint("object_joint_0").qpos[:3] = simulator._data.mocap_pos[0]
    simulator.post_step()
    assert cube.step(np.zeros(5))[1:4] == (1.0, True, False)


@pytest.mark.parametrize("name", ["ogbench/pointmaze-teleport-navigate", "ogbench/cube-single-play"])
def test_a_seed_settles_an_episode_and_nothing_outside(name, cube):
    env = cube if name == CUBE.name else ogbench.make_env(envs.get_task(name))
    state = np.random.get_state()[1].tolist()

    def play(seed):
        first, _ = env.reset(seed=seed)
        return np.stack([first, *(env.step(np.full(env.action_space.shape, 0.5))[0] for _ in range(5))])

    np.testing.assert_array_equal(play(1), play(1))
    assert np.abs(play(1) - play(2)).max() > 1e-3
    assert np.random.get_state()[1].tolist() == state


def recording(goal):
    """Rows as OGBench writes them: two trajectories of a point, of which the second passes the goal."""
    env = gymnasium.make(MAZE.env_id, terminate_at_goal=False).unwrapped
    env.reset(seed=0)
    rows = {"observations": [], "actions": [], "terminals": [], "qpos": []}
    for start in (np.add(goal, 3.0), np.asarray(goal)):
        env.set_xy(start)
        for step in range(4):
            rows["observations"].append(env.get_ob())
            rows["qpos"].append(env.data.qpos.copy())
            rows["actions"].append(np.full(2, 0.1 * step, np.float32))
            rows["terminals"].append(step == 3)
            env.set_xy(env.get_xy() + 0.6)
    return {key: np.array(values) for key, values in rows.items()}


def test_files_of_ogbench_are_read_as_ogbench_reads_them(tmp_path):
    env = gymnasium.make(MAZE.env_id)
    env.reset(seed=0)
    arrays = recording(env.unwrapped.cur_goal_xy)
    path = tmp_path / "pointmaze-medium-navigate-v0.npz"
    np.savez(path, **arrays)
    theirs = package.load_dataset(str(path), add_info=True)
    relabel_dataset(MAZE.env_id, env, theirs)
    ours = ogbench.load_dataset(MAZE, str(path))
    rows = ours.transitions
    np.testing.assert_array_equal(rows.observation, theirs["observations"])
    np.testing.assert_array_equal(rows.next_observation, theirs["next_observations"])
    np.testing.assert_array_equal(rows.action, theirs["actions"])
    np.testing.assert_array_equal(rows.reward, theirs["rewards"] + 1.0)
    np.testing.assert_array_equal(rows.terminated, 1.0 - theirs["masks"])
    assert rows.terminated.tolist() == [0, 0, 0, 1, 1, 0]  # one state after the first is still close enough
    assert ours.episode_ends.tolist() == [3, 4, 5, 6]  # the last is cut by the recording


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qpos": None}, "lacks qpos, which OGBench's files have"),
        ({"terminals": np.zeros(8)}, "ends within a trajectory"),
    ],
)
def test_damaged_files_are_refused(tmp_path, changes, message):
    arrays = {key: array for key, array in (recording(np.zeros(2)) | changes).items() if array is not None}
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        ogbench.load_dataset(MAZE, str(tmp_path / "data.npz"))


def test_data_made_here_end_where_the_task_is_done(data):
    command.make_dataset(MAZE, transitions=100)
    rows = ogbench.load_dataset(MAZE).transitions
    expected, _ = Goal(MAZE).rewards({"qpos": rows.observation})  # a point's state is its position
    np.testing.assert_array_equal(rows.reward, expected)
    with h5py.File(sources.minari_folder(MAZE.dataset_id) / "data" / sources.MINARI_FILE, "a") as file:
        file["episode_0"]["rewards"][50:52] = 1.0  # the recording goes on
    made = ogbench.load_dataset(MAZE)
    assert np.flatnonzero(made.transitions.terminated).tolist() == [50, 51]
    assert made.episode_ends.tolist() == [51, 52, 100]
    with pytest.raises(ValueError, match="recorded in pointmaze-medium-singletask-v0, but .*-task2 runs"):
        ogbench.load_dataset(envs.get_task(f"{MAZE.name}-task2"), MAZE.dataset_id)


def test_arms_do_one_thing_after_the_other():
    vector = ogbench.make_collection_env(CUBE, 1)
    (behaviour,) = ogbench.behaviours(CUBE)
    observation, _ = vector.reset(seed=[0])
    begun = []
    for _ in range(160):
        arm = vector.envs[0].get_wrapper_attr("_oracle")
        begun.append(arm._t_init)  # of the plan under way
        actions = behaviour.act(vector, observation, None)
        assert actions.shape == (1, 5)
        assert np.abs(actions).max() <= 1.0
        observation, _, terminated, truncated, _ = vector.step(actions)
        assert not (terminated | truncated).any()
    assert len(set(begun)) > 1
    vector.close()


def test_the_benchmark_is_what_can_be_made_here():
    assert CUBE.name in ogbench.benchmark()
    for name in ogbench.benchmark():
        assert ogbench.behaviours(envs.get_task(name))


def test_data_that_need_a_trained_policy_are_downloaded(data):
    with pytest.raises(ValueError, match="trained ant or humanoid recorded its data: download"):
        ogbench.behaviours(envs.get_task("ogbench/antmaze-large-navigate"))
    with pytest.raises(FileNotFoundError, match=r"no dataset o2o/ogbench/cube-single-play-v0 .*download_datasets"):
        ogbench.load_dataset(CUBE)
    assert not sources.minari_folder(CUBE.dataset_id).exists()


def test_corners_and_ways_of_a_maze():
    maze = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 1, 1, 1, 1]])
    free, corners = demonstrators.cells(maze)
    assert free == [(1, 1), (1, 2), (1, 3), (2, 3)]
    assert corners == [(1, 1), (1, 3), (2, 3)]
    assert demonstrators.ways_of(maze, (1, 1), 3) == [(2, 3)]
    assert demonstrators.ways_of(maze, (1, 1), 4) == []
    assert demonstrators.episode_steps("pointmaze-giant", "navigate") == 2_000
    assert demonstrators.episode_steps("pointmaze-giant", "stitch") == 200
