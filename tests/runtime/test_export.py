"""Exported policies: they do what the policies do, in processes that know nothing of this package."""

import json
import subprocess
import sys

import numpy as np
import pytest

import o2o_jax as o2o
from o2o_jax.jobs.policies import save_policy
from o2o_jax.networks import HEADS
from o2o_jax.runtime import export
from o2o_jax.runtime.deployed import DeployedPolicy
from tests import tiny

BOUNDED = o2o.Task("gym/Own-v0", "Own-v0", o2o.Spec(11, 3), 9, action_low=(-2.0, 0.0, -1.0), action_high=(2.0, 1, 1))
OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 11)).astype(np.float32)
POLICIES = {head: tiny.make_policy(head) for head in HEADS} | {
    "set": tiny.make_policy_set(),
    "optimized": tiny.make_optimized_policy(),
}

# the three lines of export.json, in a process that has neither this package nor its networks
STRANGER = """
import json, pathlib, sys
sys.modules.update(dict.fromkeys(["o2o_jax", "flax", "optax", "orbax", "gymnasium"]))
import numpy
observation = numpy.load("observation.npy")
exec("\\n".join(json.loads(pathlib.Path("export.json").read_text())["how_to_run"]))
numpy.save("actions.npy", numpy.asarray(actions))
"""


@pytest.mark.parametrize("kind", export.FILES)
def test_it_runs_without_this_package(kind, tmp_path):
    policy = DeployedPolicy(POLICIES["tanh_gaussian"], BOUNDED)
    folder = export.write(policy, tmp_path / "exported", kind)
    np.save(folder / "observation.npy", OBSERVATIONS)
    command = [sys.executable, "-c", STRANGER]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    actions = np.load(folder / "actions.npy")
    assert (actions.shape, actions.dtype) == ((5, 3), np.float32)
    np.testing.assert_allclose(actions, policy(OBSERVATIONS), atol=1e-5)
    assert (actions[:, 1] >= 0).all()  # its own units


@pytest.mark.parametrize(
    ("head", "kind"),
    [(head, kind) for head in POLICIES for kind in export.FILES if kind != "onnx" or head not in ("set", "optimized")],
)
def test_every_head_is_expressed(head, kind, tmp_path):
    policy = DeployedPolicy(POLICIES[head], BOUNDED)
    folder = export.write(policy, tmp_path / "exported", kind)
    run = export.run(folder / export.FILES[kind], kind)
    for rows in (1, 5):
        np.testing.assert_allclose(run(OBSERVATIONS[:rows]), policy(OBSERVATIONS[:rows]), atol=1e-5)
    description = json.loads((folder / export.DESCRIPTION).read_text())
    assert description["inputs"] == [{"name": "observation", "shape": ["B", 11], "dtype": "float32"}]
    assert description["outputs"] == [{"name": "action", "shape": ["B", 3], "dtype": "float32"}]
    assert len(description["how_to_run"]) == 3
    assert description["action_low"] == [-2.0, 0.0, -1.0]
    if kind == "stablehlo":
        assert {"cpu", "cuda", "tpu"} <= set(description["platforms"])


@pytest.mark.parametrize("kind", export.FILES)
def test_a_policy_on_histories_is_a_function_of_its_window(kind, tmp_path):
    policy = DeployedPolicy(tiny.make_sequence_policy(), BOUNDED)
    folder = export.write(policy, tmp_path / "exported", kind)
    run = export.run(folder / export.FILES[kind], kind)
    observation, action = np.zeros((1, 3, 11), np.float32), np.zeros((1, 3, 3), np.float32)
    return_to_go, valid = np.full((1, 3), 10.0, np.float32), np.zeros((1, 3), np.float32)
    rewards = np.float32([0.0, 1.5, -0.5, 2.0])
    for step, reward in enumerate(rewards):  # four steps through a window of three
        for window in (observation, action, return_to_go, valid):
            window[:, :-1] = window[:, 1:].copy()
        observation[0, -1], action[0, -1], valid[0, -1] = OBSERVATIONS[step], 0.0, 1.0
        return_to_go[0, -1] -= reward
        found = run(observation, action, return_to_go, valid)
        np.testing.assert_allclose(found[0], policy(OBSERVATIONS[step], reward), atol=1e-5)
        action[0, -1] = found[0]
    description = json.loads((folder / export.DESCRIPTION).read_text())
    assert [entry["shape"] for entry in description["inputs"]] == [["B", 3, 11], ["B", 3, 3], ["B", 3], ["B", 3]]
    assert "return_to_go: 10, or what else" in description["notes"][2]


def test_what_differs_from_the_policy_is_not_left(tmp_path, monkeypatch):
    policy = DeployedPolicy(POLICIES["deterministic"])
    monkeypatch.setattr(export, "run", lambda path, kind: lambda observation: np.zeros((len(observation), 3)))
    with pytest.raises(ValueError, match="the stablehlo program differs from the policy by"):
        export.write(policy, tmp_path / "exported", "stablehlo")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "package", "message"),
    [
        ("onxx", "", "unknown format 'onxx'. Did you mean 'onnx'?"),
        ("onnx", "jax2onnx", r"jax2onnx is not installed: pip install 'o2o_jax\[onnx\]'"),
        ("stablehlo", "flatbuffers", r"flatbuffers is not installed: pip install 'o2o_jax\[export\]'"),
    ],
)
def test_what_cannot_be_exported(kind, package, message, tmp_path, monkeypatch):
    real = export.require
    monkeypatch.setattr(export, "require", lambda name, extra: real("no" if name == package else name, extra))
    with pytest.raises(ValueError, match=message.replace(package, "no") if package else message):
        export.write(DeployedPolicy(POLICIES["deterministic"]), tmp_path / "exported", kind)


def test_the_command(tmp_path, capsys):
    from o2o_jax.cli import export as command

    save_policy(POLICIES["gaussian"], tmp_path / "policy", tiny.ENV)
    arguments = [f"--run={tmp_path / 'policy'}", f"--out={tmp_path / 'exported'}"]
    tiny.call(command, *arguments)
    assert "policy.stablehlo: observations [B, 11] to actions [B, 3], " in capsys.readouterr().out
    tiny.call(command, *arguments, status=1)
    assert "already exists: choose another folder" in capsys.readouterr().err
    tiny.call(command, *arguments, "--which=first", status=2)
