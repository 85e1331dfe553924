"""experiments.diagnose on an offline run, on one that it re-evaluates and aligns itself, and on a fine-tuning run."""

import csv
import json

import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import diagnose, finetune, offline
from o2o_jax.jobs import handoffs
from o2o_jax.runtime import log
from tests import refusals, tiny

RECONSTRUCTION = ["--set=reevaluate.updates=4", "--set=align.updates=4"]
OFFLINE_PHASES = ["--set=env_steps=0", "--set=evaluation.episodes=1"]  # and nothing after them
FILES = {"diagnosis.txt", "diagnosis.png", "diagnosis.csv", "diagnosis.json", "config.json"}
pytestmark = pytest.mark.usefixtures("data")


def run(folder, *arguments, status=0):
    tiny.call(diagnose, f"--run={folder}", *arguments, status=status)


def results(out):
    assert (out / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    with (out / "diagnosis.csv").open() as file:
        rows = list(csv.DictReader(file))
    return (out / "diagnosis.txt").read_text(), rows, json.loads((out / "diagnosis.json").read_text())


def fine_tune(out, policy, *arguments, algorithm="o2td3", seeds=2):
    argv = [f"--algorithm={algorithm}", f"--policy={policy}", f"--out={out}", f"--seeds={seeds}", "--schedule=paper"]
    tiny.call(finetune, *argv, *tiny.ONLINE_SETTINGS, *OFFLINE_PHASES, *arguments)
    return out


@pytest.fixture(scope="module")
def o2td3(data, offline_run, tmp_path_factory):
    return fine_tune(tmp_path_factory.mktemp("runs") / "o2td3", offline_run, *RECONSTRUCTION)


def test_an_offline_run_as_it_is(offline_run, tmp_path, capsys):
    out = tmp_path / "new" / "report"
    run(offline_run, f"--out={out}")
    text, rows, record = results(out)
    assert text in capsys.readouterr().out
    assert {path.name for path in out.glob("[!.]*")} == FILES
    assert "SEEN IN TRAINING" in text
    assert "nothing is re-evaluated or aligned: --algorithm=o2td3 or o2sac would do it" in text
    assert "PROPOSITION" not in text
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert {"offline.bias", "offline.overestimated", "offline.alignment", "coverage.policy"} <= rows[0].keys()
    assert not [name for name in rows[0] if name.startswith(("aligned", "reevaluated", "value"))]
    # without a re-evaluated critic the offline run's own evaluation decides
    assert record["regimes"] == []
    assert record["regime"] == record["logged"]["regime"]
    assert record["logged"]["policy"] == pytest.approx(np.mean(log.read(offline_run, "evaluation")["return"][-2:]))
    np.testing.assert_allclose([float(row["offline.gap"]) for row in rows], record["measures"]["offline.gap"])


def test_one_seed_of_a_run_is_diagnosed_as_among_all(offline_run, o2td3, report, tmp_path):
    run(o2td3, "--first_seed=1", f"--out={tmp_path / 'online'}")
    _, (row,), record = results(tmp_path / "online")
    assert (record["settings"]["first_seed"], record["settings"]["seeds"]) == (1, 1)
    of_both = results(report)[1][1]
    for name in row.keys() - {"regime"}:
        assert float(row[name]) == pytest.approx(float(of_both[name]), rel=1e-4, abs=1e-5), name
    run(offline_run, "--first_seed=0", "--seeds=1", f"--out={tmp_path / 'first'}")
    assert [row["seed"] for row in results(tmp_path / "first")[1]] == ["0"]


@pytest.fixture(scope="module")
def report(o2td3):
    """The folder of the fine-tuning run's report: where it is written by default."""
    run(o2td3)
    return o2td3 / "diagnosis"


def test_one_page(report):
    lines = (report / "diagnosis.txt").read_text().splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 130


@pytest.fixture(scope="module", params=["o2td3", "o2sac"])
def reconstructed(request, data, offline_run, tmp_path_factory):
    """An algorithm and the folder of the offline run's report, which re-evaluates and aligns both seeds itself."""
    out = tmp_path_factory.mktemp("reports") / request.param
    arguments = [
        f"--algorithm={request.param}",
        "--schedule=paper",
        "--clone_updates=2",
        *tiny.ONLINE_SETTINGS,
        *RECONSTRUCTION,
    ]
    run(offline_run, *arguments, f"--out={out}")
    return request.param, out


def test_an_offline_run_that_is_re_evaluated_and_aligned(reconstructed):
    # o2sac has another head: the policy is cloned
    algorithm, out = reconstructed
    text, (row, other), record = results(out)
    for part in ("reevaluated.bias", "aligned.overestimated", "alignment.both", "shift", "value.gap", "regime"):
        assert part in row
    assert record["regimes"] == [row["regime"], other["regime"]]
    assert record["settings"]["config"]["reevaluate"]["updates"] == 4
    assert ("the clone that goes online" in text) == (algorithm == "o2sac")
    assert ("rank of log π" in text) == (algorithm == "o2sac")
    assert ("rank of −|a − ȧ|²" in text) == (algorithm == "o2td3")
    assert np.unique(log.read(out, "align")["step"]).tolist() == [0, 4]


@pytest.mark.parametrize("reconstructed", ["o2td3"], indirect=True)
def test_a_fine_tuning_run_is_diagnosed_by_what_it_left(report, reconstructed):
    _, rows, record = results(report)
    assert record["title"] == f"td3_bc → o2td3 on {tiny.ENV}"
    _, own, _ = results(reconstructed[1])  # of the same networks, made by the report itself
    for row, same in zip(rows, own, strict=True):
        assert row.keys() == same.keys()
        for name in row.keys() - {"regime"}:
            assert float(row[name]) == pytest.approx(float(same[name]), rel=1e-4, abs=1e-5), name


def test_what_a_fine_tuning_run_keeps(o2td3, offline_run):
    stages = handoffs.load_stages(o2td3, envs.get_task(tiny.ENV).spec)
    assert sorted(int(path.name) for path in (o2td3 / "stages").iterdir()) == [4, 8]
    handoff, _, _ = handoffs.load_handoff(offline_run, range(2))
    # re-evaluation leaves the policy alone, alignment moves it
    np.testing.assert_array_equal(_first(stages["reevaluate"].policy.params), _first(handoff.policy.params))
    assert np.any(_first(stages["align"].policy.params) != _first(handoff.policy.params))
    assert np.any(_first(stages["align"].critic.params) != _first(stages["reevaluate"].critic.params))


def _first(params):
    return params["params"]["Dense_0"]["kernel"] if "Dense_0" in params["params"] else _deepest(params)


def _deepest(tree):
    while isinstance(tree, dict):
        tree = next(iter(tree.values()))
    return tree


def test_a_run_without_re_evaluation_says_so(offline_run, tmp_path):
    out = fine_tune(tmp_path / "run", offline_run, "--set=reevaluate.updates=0", "--set=align.updates=2", seeds=1)
    run(out)
    text, (row,), record = results(out / "diagnosis")
    assert "the run left nothing after reevaluate: it leaves the phase out" in text
    assert "aligned.gap" in row
    assert "alignment.both" not in row  # needs both critics
    assert record["regimes"] == []


@pytest.fixture
def gone(offline_run, tmp_path):
    """The folder where the offline run was, and will be again."""
    offline_run.rename(tmp_path / "moved")
    yield offline_run
    (tmp_path / "moved").rename(offline_run)


def test_a_run_whose_offline_run_is_gone_says_so(o2td3, gone, tmp_path):
    run(o2td3, "--seeds=1", f"--out={tmp_path / 'out'}")
    _, (row,), record = results(tmp_path / "out")
    assert f"no offline critic: the offline run {gone} is not there any more" in record["notes"]
    assert "alignment.both" in row
    assert record["logged"] is None


def test_an_algorithm_without_critic_says_so(tmp_path):
    argv = ["--algorithm=bc", f"--env={tiny.ENV}", f"--out={tmp_path / 'bc'}", "--eval_episodes=0"]
    tiny.call(offline, *argv, "--set=hidden=8", "--set=updates=2")
    run(tmp_path / "bc")
    text, (row,), record = results(tmp_path / "bc" / "diagnosis")
    assert "no offline critic: bc learns no values of actions" in text
    assert "REGIME  unknown: no re-evaluated critic, no score" in text
    assert (record["regime"], record["advice"], record["logged"]) == (None, None, None)
    assert row.keys() == {"seed", "coverage.policy", "coverage.data"}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """An npz file of four terminated episodes: ten steps of reward 1 each."""
    path = tmp_path_factory.mktemp("arrays") / "other.npz"
    np.savez(
        path,
        observations=np.random.default_rng(0).normal(size=(40, 11)).astype(np.float32),
        actions=np.zeros((40, 3), np.float32),
        rewards=np.ones(40),
        terminations=np.arange(40) % 10 == 9,
        truncations=np.zeros(40),
    )
    return path


def test_a_run_without_an_environment(arrays, tmp_path):
    argv = ["--algorithm=td3_bc", f"--dataset={arrays}", f"--out={tmp_path / 'run'}", "--set=updates=2"]
    tiny.call(offline, *argv, *tiny.SETTINGS)
    run(tmp_path / "run")
    text, _, record = results(tmp_path / "run" / "diagnosis")
    assert "REGIME  unknown: no re-evaluated critic, no score" in text
    assert record["settings"]["heldout_episodes"] == 2  # half of them


def test_data_that_nothing_was_trained_on(offline_run, arrays, tmp_path):
    other = f"--holdout_dataset={arrays}"
    run(offline_run, other, "--holdout_episodes=4", f"--out={tmp_path / 'out'}")
    _, (row, _), record = results(tmp_path / "out")
    assert f"trajectories: 4 episodes of {arrays}, not trained on" in record["notes"]
    assert record["settings"]["heldout_episodes"] == 4
    # (1 / 10) Σ_k (1 − 0.99^k) / 0.01, up to the sample of states
    expected = np.mean([(1 - 0.99**k) / 0.01 for k in range(1, 11)])
    assert float(row["offline.recorded"]) == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=alpha=1"], "--set changes settings of --algorithm, which is missing"),
        (["--algorithm=o2ppo"], "o2ppo re-evaluates no values of actions: pass --algorithm=o2td3 or o2sac"),
        (["--algorithm=td3"], "td3 re-evaluates no values of actions: pass --algorithm=o2td3 or o2sac"),
        (["--algorithm=o2td3"], "the policy's network differs from this algorithm's: set networks.hidden to (8,)"),
        (["--seeds=5"], "has the seeds 0 to 1, not the seeds 0 to 4"),
        (["--first_seed=2"], "has the seeds 0 to 1, not the seed 2"),
        (["--holdout_episodes=1000"], "episodes, of which 1000 cannot be set aside"),
        (["--holdout_dataset=nothing.npz"], "nothing.npz"),
        (["--run=nowhere"], "nowhere holds no run"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(arguments, message, offline_run, tmp_path, capsys):
    run(offline_run, f"--out={tmp_path / 'out'}", *arguments, status=1)
    refusals.check(capsys.readouterr().err, message)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(o2td3, tmp_path, capsys):
    run(o2td3, f"--out={o2td3}", status=1)
    assert "already holds a run" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine")
    run(o2td3, f"--out={tmp_path}", status=1)
    assert "is not an empty folder: choose another --out" in capsys.readouterr().err


def test_a_fine_tuning_run_is_not_reconstructed_again(o2td3, capsys):
    run(o2td3, "--algorithm=o2sac", status=1)
    assert "is a fine-tuning run, whose own phases are diagnosed: leave --algorithm out" in capsys.readouterr().err


def test_a_run_that_left_no_critic_is_refused(offline_run, tmp_path, capsys):
    out = fine_tune(tmp_path / "td3", offline_run, algorithm="td3", seeds=1)
    run(out, status=1)
    error = capsys.readouterr().err
    assert "has no re-evaluated or aligned critic to diagnose" in error
    assert f"diagnose the run that it started from, --run={offline_run}" in error
    assert not (out / "stages").exists()


def test_a_policy_on_histories_is_no_subject_itself(dt_run, tmp_path, capsys):
    run(dt_run, f"--out={tmp_path / 'out'}", status=1)
    assert capsys.readouterr().err == (
        "error: the policy acts on histories: pass --algorithm=o2td3 or o2sac to diagnose the clone of it\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_diagnosis_is_not_overwritten(offline_run, tmp_path, capsys):
    for status in (0, 1):
        run(offline_run, "--seeds=1", f"--out={tmp_path / 'out'}", status=status)
    error = capsys.readouterr().err
    assert "already holds a run: it is not overwritten; pass another --out, or delete it first" in error
