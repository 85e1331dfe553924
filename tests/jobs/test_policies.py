"""Policies out of runs, into folders of their own, and back."""

import json
import pickle
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import o2o_jax as o2o
from o2o_jax import envs
from o2o_jax.cli import finetune
from o2o_jax.data.transform import Bounds
from o2o_jax.jobs import handoffs
from o2o_jax.jobs.policies import WHICH, load_policy, save_policy
from o2o_jax.networks import HEADS
from o2o_jax.policy import SampledPolicy
from o2o_jax.runtime import log, saved, seeds
from o2o_jax.runtime.checkpoint import Checkpoints
from o2o_jax.runtime.deployed import DeployedPolicy
from o2o_jax.runtime.snapshots import Snapshots
from tests import tiny

ONLINE = [
    "--algorithm=o2td3", "--seeds=2", *tiny.ONLINE_SETTINGS, "--schedule=paper", "--set=env_steps=6",
    "--set=reevaluate.updates=2", "--set=align.updates=2", "--set=interaction.warmup_env_steps=0",
    "--set=evaluation.every_env_steps=2", "--set=evaluation.episodes=2",
]  # fmt: skip
OBSERVATIONS = np.random.default_rng(0).normal(size=(4, 11)).astype(np.float32)
PENDULUM = o2o.Task("gym/Pendulum-v1", "Pendulum-v1", o2o.Spec(3, 1), 200, action_low=(-2.0,), action_high=(2.0,))


@pytest.fixture(scope="module")
def online_run(datasets, offline_run, tmp_path_factory):
    """A run of two seeds with three evaluations, whose offline run and data are gone by now."""
    folder = tmp_path_factory.mktemp("online")
    shutil.copytree(offline_run, folder / "td3_bc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets))
        tiny.call(finetune, f"--policy={folder / 'td3_bc'}", f"--out={folder / 'o2td3'}", *ONLINE)
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
    shutil.rmtree(folder / "td3_bc")
    return folder / "o2td3"


def equal(ours, theirs):
    """Tells whether two policies have the same network and numbers."""
    pair = (jax.tree.map(np.asarray, getattr(policy, "policy", policy)) for policy in (ours, theirs))
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, *pair)))


@pytest.mark.parametrize("seed", [0, 1])
def test_every_policy_of_a_run_is_the_one_that_it_is_called(seed, online_run, offline_run):
    found = {which: load_policy(online_run, seed, which) for which in WHICH}
    assert {name: policy.made["which"] for name, policy in found.items()} == {name: name for name in WHICH}
    assert equal(found["offline"], load_policy(offline_run, seed))
    spec = envs.get_task(tiny.ENV).spec
    setup, run = handoffs.load_online(online_run, spec)
    assert equal(found["last"], seeds.take(setup.algorithm.policy(run.agent), seed))
    end = handoffs._load_ends(online_run, handoffs.online_settings(online_run), setup.algorithm)["align"]["agent"]
    assert equal(found["aligned"], seeds.take(setup.algorithm.policy(end), seed))
    evaluation = log.read(online_run, "evaluation")
    mine = evaluation["seed"] == seed
    scores, steps = evaluation["score"][mine], evaluation["step"][mine]
    assert (found["lowest"].made["score"], found["lowest"].made["env_steps"]) == (
        pytest.approx(scores.min(), rel=1e-6), steps[scores.argmin()]
    )  # fmt: skip
    assert found["best"].made["env_steps"] == steps[scores.argmax()]
    assert equal(found["lowest"], found["last"]) == (scores.argmin() == 2)
    assert not equal(found["lowest"], found["best"])


def test_a_run_that_rolls_back_delivers_its_best(online_run, tmp_path, monkeypatch):
    setup, run = handoffs.load_online(online_run, envs.get_task(tiny.ENV).spec)
    rolls_back = type(setup)
    monkeypatch.setattr(rolls_back, "rolls_back", True)
    best = load_policy(online_run, 1, "best")
    assert equal(best, seeds.take(setup.reference.policy(run.agent), 1))
    assert best.made["run_env_steps"] == 6


def test_one_observation_is_a_row_of_many(online_run):
    policy = load_policy(online_run)
    actions = policy(OBSERVATIONS)
    assert (actions.shape, actions.dtype) == ((4, 3), np.float32)
    np.testing.assert_allclose([policy(row) for row in OBSERVATIONS], actions, atol=1e-6)
    mode = policy.policy.distribution(OBSERVATIONS).mode()
    np.testing.assert_allclose(actions, mode, atol=1e-6)


def test_actions_are_in_the_environment_s_units(tmp_path):
    inner = tiny.make_policy("gaussian", 3, 1)
    policy = save_and_load(DeployedPolicy(inner, PENDULUM), tmp_path / "pendulum")
    observations = OBSERVATIONS[:, :3]
    np.testing.assert_allclose(policy(observations), 2.0 * policy.act(observations), rtol=1e-6)
    np.testing.assert_allclose(policy.act(observations), inner.distribution(observations).mode(), atol=1e-6)
    assert policy.task == PENDULUM


def test_bounds_by_hand():
    bounds = Bounds.of(2, (0.0, -2.0), (4.0, 2.0))
    np.testing.assert_allclose(bounds.to_own(np.array([[0.5, -1.0]])), [[3.0, -2.0]])  # 2 + 2 · 0.5
    np.testing.assert_allclose(bounds.from_own(np.array([[3.0, -2.5]])), [[0.5, -1.0]])
    np.testing.assert_array_equal(Bounds.of(2).to_own(np.array([0.1, -0.7], np.float32)), np.float32([0.1, -0.7]))


def test_a_policy_on_histories_remembers_its_episodes(tmp_path):
    inner = tiny.make_sequence_policy()
    policy = save_and_load(inner, tmp_path / "dt")
    memory, rewards = inner.begin(2), np.float32([1.0, -2.0])
    first, memory = inner.act(memory, OBSERVATIONS[:2], np.zeros(2, np.float32))
    second, _ = inner.act(memory, OBSERVATIONS[2:], rewards)
    np.testing.assert_allclose(policy(OBSERVATIONS[:2], 7.0), first, atol=1e-6)  # no reward is of a first step
    np.testing.assert_allclose(policy(OBSERVATIONS[2:], rewards), second, atol=1e-6)
    with pytest.raises(ValueError, match=r"remembers 2 episodes, and here are observations of 1: call reset\(\)"):
        policy(OBSERVATIONS[0])
    with pytest.raises(ValueError, match=r"a reward for each of 2 observations, got the shape \(3,\)"):
        policy(OBSERVATIONS[:2], np.zeros(3))
    with pytest.raises(ValueError, match="a reward is NaN or infinite"):
        policy(OBSERVATIONS[:2], np.nan)
    policy.reset(np.array([True, False]))
    again = policy(OBSERVATIONS[:2], rewards)
    np.testing.assert_allclose(again[0], first[0], atol=1e-6)
    assert np.abs(again[1] - first[1]).max() > 1e-4
    policy.reset()
    np.testing.assert_allclose(policy(OBSERVATIONS[0]), first[0], atol=1e-6)


def save_and_load(policy, folder, **arguments):
    return load_policy(save_policy(policy, folder, **arguments))


def test_only_policies_of_this_package_are_saved(tmp_path):
    with pytest.raises(ValueError, match="got a function: clone it first, as by o2o_jax.clone"):
        save_policy(lambda observation: observation, tmp_path / "policy")
    several = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), tiny.make_policy())
    with pytest.raises(ValueError, match="take one of several with runtime.seeds.take"):
        save_policy(several, tmp_path / "policy")


def test_a_policy_of_data_alone_gets_its_bounds_from_a_task(tmp_path):
    inner = tiny.make_policy(observation_dim=3, action_dim=1)
    folder = save_policy(inner, tmp_path / "policy")
    alone, bounded = load_policy(folder), load_policy(folder, env="gym/Pendulum-v1")
    observation = OBSERVATIONS[0, :3]
    np.testing.assert_allclose(bounded(observation), 2.0 * alone(observation), rtol=1e-6)
    with pytest.raises(ValueError, match="but mujoco/hopper-medium has .*: name a task that fits"):
        load_policy(folder, env="mujoco/hopper-medium")


@pytest.mark.parametrize("head", HEADS)
def test_a_saved_policy_comes_back_to_the_bit(head, tmp_path):
    policy = tiny.make_policy(head)
    found = save_and_load(policy, tmp_path / "deep" / "policy", task=tiny.ENV)
    assert equal(found, policy)
    assert found.policy.actor == policy.actor
    assert found.task.score(found.task.expert_score) == 100.0
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"policy"}  # no draft
    assert {path.name for path in (tmp_path / "deep" / "policy").iterdir()} == {"policy.json", "arrays.npz"}


def test_what_a_run_left_is_saved_with_where_it_comes_from(online_run, tmp_path):
    policy = load_policy(online_run, 1, "lowest")
    found = save_and_load(policy, tmp_path / "policy")
    assert equal(found, policy)
    assert found.made.items() >= policy.made.items() >= {"seed": 1, "algorithm": "o2td3"}.items()
    assert found.made["saved"]["versions"]["jax"] == jax.__version__
    np.testing.assert_array_equal(load_policy(tmp_path / "policy", 1, "lowest")(OBSERVATIONS), policy(OBSERVATIONS))
    with pytest.raises(ValueError, match="holds one policy, not the last one"):
        load_policy(tmp_path / "policy", which="last")
    with pytest.raises(ValueError, match="holds one policy, not that of seed 3"):
        load_policy(tmp_path / "policy", seed=3)


def test_loading_needs_no_simulator_and_a_saved_policy_no_checkpoints(online_run, offline_run, tmp_path):
    save_policy(load_policy(online_run), tmp_path / "policy")
    absent = ["gymnasium", "mujoco", "minari", "h5py", "matplotlib"]
    for folder, more in ((tmp_path / "policy", ["orbax.checkpoint"]), (online_run, []), (offline_run, [])):
        code = (
            f"import sys; sys.modules.update(dict.fromkeys({absent})); import numpy, o2o_jax; "
            f"print(o2o_jax.load_policy({str(folder)!r})(numpy.zeros((2, 11))).shape, "
            f"[name for name in {more} if name in sys.modules])"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert result.stdout.strip() == "(2, 3) []", result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"which": "bets"}, "unknown policy 'bets'. Did you mean 'best'?"),
        ({"which": None}, "unknown policy 'None'. Valid names: best"),
        ({"env": 3}, "unknown environment family '3'"),
        ({"seed": 2}, "has the seeds 0 to 1, not 2: choose another --seed"),
        ({"which": "aligned"}, "is an offline run, which has no aligned policy: ask for its last one"),
    ],
)
def test_policies_that_a_run_does_not_have(arguments, message, offline_run):
    with pytest.raises(ValueError, match=message):
        load_policy(offline_run, **arguments)


def test_policies_that_a_run_does_not_have_yet(online_run, offline_run, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        load_policy(tmp_path)
    setup, run = handoffs.load_online(online_run, envs.get_task(tiny.ENV).spec)
    fresh = seeds.over_seeds(lambda agent: Snapshots.start(setup.algorithm.policy(agent), True), setup.mesh)(run.agent)
    stages = {
        "first environment step": run.replace(begun=np.int32(0)),
        "first evaluation online": run.replace(snapshots=fresh),
        "no evaluations, which": run.replace(snapshots=fresh.replace(lowest=None, highest=None)),
    }
    for message, found in stages.items():
        monkeypatch.setattr(handoffs, "load_online", lambda *_, found=found: (setup, found))
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_policy(online_run, which="lowest")
    leaves_out = setup.algorithm._replace(phases=())
    without = type(setup)(leaves_out, setup.config, setup.task, setup.seeds, setup.mesh)
    monkeypatch.setattr(handoffs, "load_online", lambda *_: (without, run))
    with pytest.raises(ValueError, match="left alignment out, so that nothing is aligned"):
        load_policy(online_run, which="aligned")


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros(10), r"expected observations \[11\] or \[N, 11\], got an array of shape \(10,\)"),
        (np.zeros((2, 3, 11)), r"got an array of shape \(2, 3, 11\)"),
        (np.full(11, np.nan), "the observation has NaN or infinite numbers"),
        (np.full(11, 1e300), "the observation has NaN or infinite numbers"),
        (np.zeros(11, complex), "observations must be one array of numbers, got type complex128"),
        ("abc", "observations must be one array of numbers, got type <U3"),
        ({"joint": 1.0}, "observations must be one array of numbers"),
        ([[0.0], [0.0, 1.0]], "observations must be one array of numbers"),
    ],
)
def test_observations_that_do_not_fit(observation, message):
    with pytest.raises(ValueError, match=message):
        DeployedPolicy(tiny.make_policy())(observation)


@pytest.fixture
def folder(tmp_path):
    return save_policy(tiny.make_policy(), tmp_path / "policy", tiny.ENV)


def change(folder, **values):
    path = folder / saved.DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "other"}, "doesn't describe a policy of this package"),
        ({"version": 2}, "is of version 2, this o2o_jax reads up to 1: install a newer one"),
        ({"version": "1"}, "has the version '1', expected a whole number"),
        ({"head": "gausian"}, "unknown head 'gausian'. Did you mean 'gaussian'?"),
        ({"head": None}, "unknown head 'None'"),
        ({"network": None}, "doesn't describe a policy"),
        ({"network": {"action_dim": 3, "hidden": ["x"], "layer_init": "fan_in"}}, "network.hidden is"),
        ({"network": {"action_dim": 2, "hidden": [8, 8], "layer_init": "fan_in"}}, "network.action_dim is 2"),
        ({"network": {"action_dim": 3, "width": 8}}, "doesn't describe a policy"),
        ({"network": {"action_dim": 3, "hidden": [8], "layer_init": "fan_in"}}, "doesn't have the arrays"),
        ({"spec": {"observation_dim": 10, "action_dim": 3}}, "is of other sizes than its task"),
        ({"spec": {"observation_dim": 0, "action_dim": 3}}, "must be at least 1"),
        ({"task": {"name": "x"}}, "the facts of a task must have"),
        ({"digest": "0"}, "policy.json or arrays.npz is not as it was written"),
    ],
)
def test_a_damaged_description_is_refused_in_one_line(values, message, folder):
    change(folder, **values)
    with pytest.raises(ValueError, match=message) as error:
        load_policy(folder)
    assert "\n" not in str(error.value)


def test_damaged_files_are_refused_in_one_line(folder):
    path = folder / saved.ARRAYS
    whole = path.read_bytes()
    for content in (whole[:-100], whole[:50], b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"arrays.npz is damaged"):
            load_policy(folder)
    np.savez(path, a=np.array([{}], object))
    with pytest.raises(ValueError, match="arrays.npz: a is an array of Python objects"):
        load_policy(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks arrays.npz: save the policy again"):
        load_policy(folder)
    for text in ("{", "[]", '"x"'):
        (folder / saved.DESCRIPTION).write_text(text)
        with pytest.raises(ValueError, match=r"policy.json (is damaged|doesn't describe a policy)"):
            load_policy(folder)


def test_a_policy_that_diverged_is_not_let_out():
    broken = jax.tree.map(lambda leaf: leaf * np.nan, tiny.make_policy())
    with pytest.raises(ValueError, match="since its training diverged: take another seed"):
        DeployedPolicy(broken)


def test_what_cannot_be_saved_leaves_nothing(folder, tmp_path, monkeypatch):
    with pytest.raises(FileExistsError, match="already exists: choose another folder"):
        save_policy(tiny.make_policy(), folder)
    with pytest.raises(ValueError, match="got a SampledPolicy: clone it first"):
        save_policy(SampledPolicy(tiny.make_policy()), tmp_path / "sampled")
    with pytest.raises(ValueError, match="has 17 observations and 6 actions$"):
        save_policy(tiny.make_policy(), tmp_path / "other", "mujoco/walker2d-medium")
    two = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), tiny.make_policy())
    with pytest.raises(ValueError, match="takes a policy of one seed"):
        save_policy(two, tmp_path / "two")
    monkeypatch.setattr(saved, "read", lambda _: DeployedPolicy(tiny.make_policy(seed=1)))
    with pytest.raises(OSError, match="is not what it was when it is read back"):
        save_policy(tiny.make_policy(), tmp_path / "broken")
    assert {path.name for path in tmp_path.iterdir()} == {"policy"}


@pytest.mark.parametrize("head", [*HEADS, "sequence"])
def test_a_policy_can_be_pickled_and_begins_anew(head):
    policy = tiny.make_sequence_policy() if head == "sequence" else tiny.make_policy(head)
    deployed = DeployedPolicy(policy, envs.get_task(tiny.ENV), {"which": "best"})
    first = deployed(OBSERVATIONS)
    found = pickle.loads(pickle.dumps(deployed))
    np.testing.assert_array_equal(found(OBSERVATIONS), first)
    assert (found.task, found.made) == (deployed.task, deployed.made)


def test_a_run_that_was_stopped_early_says_what_can_be_loaded(online_run, tmp_path):
    (tmp_path / "nothing").mkdir()
    shutil.copy(online_run / "config.json", tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="was stopped before anything of it was saved: resume it .*td3_bc$"):
        load_policy(tmp_path / "nothing")


@pytest.mark.usefixtures("data")
def test_a_run_that_is_not_online_yet_has_its_offline_policy(offline_run, tmp_path, monkeypatch):
    out, save = tmp_path / "run", Checkpoints.save

    def save_and_stop(self, step, state, notes):
        save(self, step, state, notes)
        if self._directory.name == "checkpoints":
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_and_stop)
    tiny.call(finetune, f"--policy={offline_run}", f"--out={out}", *ONLINE, status=130)
    message = 'only the offline one, which="offline", can be loaded: ask for it, or resume the run with --resume$'
    with pytest.raises(FileNotFoundError, match=message):
        load_policy(out)
    np.testing.assert_allclose(
        load_policy(out, which="offline")(OBSERVATIONS), load_policy(offline_run)(OBSERVATIONS), atol=1e-6
    )
