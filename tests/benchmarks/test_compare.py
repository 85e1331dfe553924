"""A comparison from end to end, with a checkout that has the shape of a peer's and none of its work."""

import json

import numpy as np
import pytest

from benchmarks import compare, workloads
from tests import tiny

PEER = """
import os
from collections import namedtuple
from dataclasses import dataclass

import gym  # is not installed, and nobody calls it
import jax.numpy as jnp

os.environ["XLA_FLAGS"] = "--no_such_flag"  # would end the process
print("what a script prints is no answer")

AgentTrainState = namedtuple("AgentTrainState", "actor actor_target dual_q dual_q_target")
Transition = namedtuple("Transition", "obs action reward next_obs done")


@dataclass
class Args:
    batch_size: int = 256
    num_critic_updates_per_step: int = 2


class Network:
    def __init__(self, *settings):
        self.apply = None


DeterministicTanhActor = DualQNetwork = Network


def create_train_state(args, key, network, inputs):
    return jnp.zeros(())


def make_train_step(args, actor_apply, q_apply, dataset):
    assert dataset.obs.shape == (50, 11) and dataset.done.shape == (50,)
    return lambda carry, _: (carry, ())
"""
ARGUMENTS = ("--rows=50", "--chunk=2", "--seconds=0", "--repeats=2")


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "peer" / "algorithms"
    folder.mkdir(parents=True)
    (folder / "td3_bc.py").write_text(PEER)
    return folder.parent


def test_a_comparison(checkout, tmp_path, capsys):
    out = tmp_path / "out"
    tiny.call(compare, f"--unifloral={checkout}", "--algorithms=td3_bc", f"--out={out}", *ARGUMENTS)
    written = json.loads((out / "compare.json").read_text())
    (row,) = written["rows"]
    assert (row["name"], row["against"], row["seeds"], row["target"]) == ("td3_bc", "unifloral", 1, 1.1)
    ratios = np.array(row["samples"]["ours"]) / np.array(row["samples"]["theirs"])
    np.testing.assert_allclose(row["ratio"], np.median(ratios))
    np.testing.assert_allclose([row["lowest_ratio"], row["highest_ratio"]], [ratios.min(), ratios.max()])
    assert written["commits"] == {"unifloral": "unknown"}
    assert str(tmp_path) not in json.dumps(written)
    assert "| td3_bc | 1     | unifloral |" in capsys.readouterr().out


def test_a_missing_dependency_is_one_line(checkout, tmp_path, capsys):
    (checkout / "algorithms" / "iql.py").write_text("import no_such_package")
    tiny.call(compare, f"--unifloral={checkout}", "--algorithms=iql", f"--out={tmp_path}", *ARGUMENTS, status=1)
    assert "error: unifloral: no_such_package is not installed for " in capsys.readouterr().err


def test_another_folder_is_no_checkout(tmp_path, capsys):
    tiny.call(compare, f"--unifloral={tmp_path}", "--algorithms=iql", f"--out={tmp_path}", *ARGUMENTS, status=1)
    error = capsys.readouterr().err
    assert f"{tmp_path} has no algorithms/iql.py: it should be a checkout of github.com/EmptyJackson/unifloral" in error


def test_comparisons_are_of_workloads_that_there_are():
    for item in compare.COMPARISONS:
        assert item.name in workloads.NAMES
        assert item.peer in compare.PEERS
        assert compare.THREADS % item.processes == item.seeds % item.processes == 0
