"""A policy leaves a run and comes back: as a saved start of fine-tuning, its own or somebody else's."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import o2o_jax as o2o
from o2o_jax.cli import finetune
from o2o_jax.data import sources
from o2o_jax.jobs import handoffs
from o2o_jax.jobs.policies import load_policy, save_policy
from o2o_jax.runtime import log
from tests import tiny

SETTINGS = [
    "--algorithm=o2td3", "--seeds=2", *tiny.ONLINE_SETTINGS, "--schedule=paper", "--set=env_steps=4",
    "--set=reevaluate.updates=2", "--set=align.updates=2", "--set=interaction.warmup_env_steps=0",
    "--set=evaluation.every_env_steps=2", "--set=evaluation.episodes=1",
]  # fmt: skip
DOCS = Path(__file__).parents[2] / "docs" / "policies.md"
pytestmark = pytest.mark.usefixtures("data")


def run(out, policy, *arguments, status=0):
    tiny.call(finetune, f"--policy={policy}", f"--out={out}", *SETTINGS, *arguments, status=status)
    return out


def test_a_saved_policy_is_a_start_like_its_run(offline_run, tmp_path):
    saved = save_policy(load_policy(offline_run, 1), tmp_path / "policy")
    ours, task, settings = handoffs.load_handoff(saved, range(4, 6))
    theirs = handoffs.load_handoff(offline_run, range(1, 2))[0]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.stack([b[0]] * 2)), ours.policy, theirs.policy)
    assert (ours.source, task.name, settings["dataset"]) == ("td3_bc", tiny.ENV, None)


def test_all_seeds_start_from_a_saved_policy_of_any_head(tmp_path, capsys):
    saved = save_policy(tiny.make_policy("gaussian"), tmp_path / "policy", tiny.ENV)
    out = run(tmp_path / "out", saved, "--clone_updates=2")
    assert log.read(out, "start")["seed"].tolist() == [0, 1]
    assert len(set(log.read(out, "start")["teacher_score"])) == 2  # from start states of their own
    saved.rename(tmp_path / "moved")
    save_policy(tiny.make_policy("gaussian", seed=1), saved, tiny.ENV)
    run(out, saved, "--clone_updates=2", "--resume", status=1)
    assert "source.config.digest is" in capsys.readouterr().err  # another policy by now


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        (
            None,
            [],
            "was trained without an environment: pass --env, the task to go online in, and --dataset, where it has no",
        ),
        (
            tiny.ENV,
            ["--algorithm=o2td3", "--env=mujoco/walker2d"],
            "is of 11 observations and 3 actions, but mujoco",
        ),
        (tiny.ENV, ["--algorithm=td3", "--set=networks.hidden=8,8"], "this policy comes without any"),
        (tiny.ENV, ["--algorithm=iql"], "with its whole state, and this policy comes from elsewhere"),
    ],
)
def test_starts_that_do_not_fit(task, arguments, message, tmp_path, capsys):
    saved = save_policy(tiny.make_policy("deterministic"), tmp_path / "policy", task)
    method = arguments or ["--algorithm=o2td3"]
    tiny.call(finetune, f"--policy={saved}", f"--out={tmp_path / 'out'}", *method, status=1)
    assert message in capsys.readouterr().err


def test_a_start_of_one_s_own_is_three_lines(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(model = .*?)```", DOCS.read_text(), re.DOTALL)
    *_, wrap, clone, save = code.strip().splitlines()
    monkeypatch.chdir(tmp_path)
    data = sources.load("o2o/hopper/random-v0")
    model = lambda observations: np.tanh(observations[:, :3])
    monkeypatch.setattr(o2o, "clone", lambda *args: ORIGINAL(*args, o2o.CloneConfig(hidden=(8,), updates=2)))
    names = {"o2o": o2o, "jax": jax, "model": model, "data": data}
    exec("\n".join([wrap, clone, save]), names)
    found = load_policy("policies/mine")
    assert found.task.name == "mujoco/hopper-medium"
    assert found(np.zeros(11)).shape == (3,)


ORIGINAL = o2o.clone


class Model:
    """A model as Stable-Baselines3's are: `predict`, and bounds of actions."""

    class action_space:
        low, high = np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)

    def predict(self, observations, deterministic):
        assert deterministic
        return np.stack([observations[:, 0], observations[:, 1]], axis=1), None


def test_foreign_policies_by_hand():
    observations = np.float32([[1.0, 0.75], [3.0, -1.0]])
    np.testing.assert_allclose(o2o.wrap(Model())(observations), [[0.5, 0.5], [1.0, -1.0]])  # 1 / 2, 2 · 0.75 − 1
    own = lambda observation: observation[:1]
    np.testing.assert_allclose(o2o.wrap(own, [0.0], [4.0], batched=False)(observations), [[-0.5], [0.5]])
    np.testing.assert_allclose(o2o.wrap(lambda rows: rows)(observations), [[1.0, 0.75], [1.0, -1.0]])
    assert np.isnan(o2o.wrap(lambda rows: np.full((2, 1), np.nan))(observations)).all()  # which `clone` refuses


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3,), TypeError, "a policy is a function of observations, or has predict, got int"),
        ((abs, [0.0]), ValueError, "pass both low and high"),
        ((abs, [0.0, 1.0], [1.0, 1.0]), ValueError, "low must lie below high"),
        ((abs, [0.0], [1.0, 2.0]), ValueError, "low must lie below high"),
        ((abs, [0.0], [np.inf]), ValueError, "low must lie below high, both finite"),
    ],
)
def test_what_is_no_policy(arguments, error, message):
    with pytest.raises(error, match=message):
        o2o.wrap(*arguments)


def test_a_model_of_stable_baselines3(tmp_path):
    sb3 = pytest.importorskip("stable_baselines3")
    gymnasium = pytest.importorskip("gymnasium")
    sb3.SAC("MlpPolicy", gymnasium.make("Pendulum-v1"), policy_kwargs={"net_arch": [8]}, device="cpu").save(
        tmp_path / "sac.zip"
    )
    model = sb3.SAC.load(tmp_path / "sac.zip", device="cpu")
    observations = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    teacher = o2o.wrap(model)
    expected = model.predict(observations, deterministic=True)[0]
    np.testing.assert_allclose(2.0 * teacher(observations), expected, atol=1e-5)
    zeros = np.zeros(64, np.float32)
    data = o2o.Transition(observations, np.zeros((64, 1), np.float32), zeros, observations, zeros)
    config = o2o.CloneConfig(hidden=(32, 32), updates=1_500, batch_size=64, lr=3e-3)
    handoff = o2o.clone(teacher, "deterministic", data, jax.random.key(0), config)
    task = o2o.Task("gym/Pendulum-v1", "Pendulum-v1", o2o.Spec(3, 1), 200, action_low=(-2.0,), action_high=(2.0,))
    policy = load_policy(save_policy(handoff.policy, tmp_path / "policy", task))
    assert np.sqrt(np.mean((policy(observations) - expected) ** 2)) < 0.2 * expected.std()
