import csv
import json
import sys

import numpy as np
import pytest

from o2o_jax.cli import program, report
from o2o_jax.runtime import log
from tests import refusals


@pytest.fixture
def run_folder(tmp_path):
    """Two seeds, twelve evaluations: seed 0 scores 1, 2, …, 12, seed 1 scores 21, 22, …, 32."""
    folder = tmp_path / "o2td3"
    with log.MetricLog(folder) as metrics:
        metrics.write("start", 0, {"offline_score": np.array([10.0, 20.0]), "aligned_score": np.array([11.0, 19.0])})
        for i in range(1, 13):
            score = np.array([i, 20.0 + i])
            metrics.write("evaluation", 1000 * i, {"return": 30 * score, "score": score})
            metrics.write("finetune", 1000 * i, {"lagrange": np.array([1.0, 3.0]), "q": 0.0})
    return folder


@pytest.fixture
def failed_folder(tmp_path):
    """Four seeds without alignment: seed 1 breaks down at the second evaluation, seed 3 has none."""
    folder = tmp_path / "td3"
    with log.MetricLog(folder) as metrics:
        metrics.write("start", 0, {"offline_score": np.array([10.0, 20.0, 30.0, 40.0])})
        metrics.write("evaluation", 500, {"score": np.array([4.0, 6.0, 8.0])})
        metrics.write("evaluation", 1000, {"score": np.array([6.0, np.nan, 10.0])})
    return folder


def test_summary_by_hand(run_folder):
    run = report.load_run(run_folder, "O2TD3")
    summary = run.summary()
    np.testing.assert_array_equal(summary["offline"], [10, 20])
    np.testing.assert_array_equal(summary["aligned"], [11, 19])
    np.testing.assert_array_equal(summary["first ten"], [5.5, 25.5])  # (1 + … + 10) / 10
    np.testing.assert_array_equal(summary["minimum"], [1, 21])
    np.testing.assert_array_equal(summary["final"], [12, 32])
    np.testing.assert_array_equal(run.score.steps, 1000 * np.arange(1, 13))
    np.testing.assert_array_equal(run.score.mean(), 10.0 + np.arange(1, 13))
    np.testing.assert_array_equal(run.score.interval(), [np.arange(1, 13), 20.0 + np.arange(1, 13)])
    np.testing.assert_array_equal(run.lagrange.mean(), np.full(12, 2.0))


@pytest.fixture
def without_evaluations(tmp_path):
    """Two seeds that were never evaluated; no episode of seed 1 ended in the second row."""
    folder = tmp_path / "returns"
    with log.MetricLog(folder) as metrics:
        for step, scores in ((100, [1.0, 5.0]), (200, [2.0, np.nan]), (300, [3.0, 7.0])):
            total = step + np.array([10.0, 30.0])
            episodes = np.isfinite(scores).astype(int)
            metrics.write("episode", step, {"score": np.array(scores), "episodes": episodes, "total_env_steps": total})
            metrics.write("finetune", step - 50, {"lagrange": 1.0})
    return folder


def test_scores_of_training_episodes_and_all_steps_spent(without_evaluations, tmp_path):
    run = report.load_run(without_evaluations, "returns", "episode")
    np.testing.assert_array_equal(run.score.values, [[1, 5], [2, 5], [3, 7]])  # what is missing stays as it was
    np.testing.assert_array_equal(run.score.steps, [100, 200, 300])
    np.testing.assert_array_equal(run.summary()["final"], [3, 7])
    total = report.load_run(without_evaluations, "returns", "episode", "total")
    np.testing.assert_array_equal(total.score.steps, [120, 220, 320])  # 20 more, the mean over seeds
    np.testing.assert_array_equal(total.lagrange.steps, [120, 170, 270])
    argv = [f"--runs={without_evaluations}", f"--out={tmp_path / 'x.svg'}", "--scores=episode", "--x=total"]
    with pytest.raises(SystemExit) as exit_:
        program.run(report.main, report.define, argv=argv)
    assert exit_.value.code == 0
    assert "environment steps, evaluation included" in (tmp_path / "x.svg").read_text()


def test_a_row_without_any_number_before_it_stays_empty():
    values = np.array([[np.nan, 1.0], [np.nan, np.nan], [3.0, np.nan]])
    carried = report._carried_on(values, np.isnan(values))
    np.testing.assert_array_equal(carried, [[np.nan, 1], [np.nan, 1], [3, 1]])


def test_a_seed_that_fails_in_training_is_not_carried_on(tmp_path):
    with log.MetricLog(tmp_path) as metrics:
        for step, score, episodes in (
            (1, [1.0, np.nan], [1, 0]),
            (2, [np.nan, 6.0], [1, 1]),
            (3, [np.nan, 4.0], [1, 2]),
        ):
            metrics.write("episode", step, {"score": np.array(score), "episodes": np.array(episodes)})
    run = report.load_run(tmp_path, "x", "episode")
    np.testing.assert_array_equal(run.score.values, [[1, np.nan], [np.nan, 6], [np.nan, 4]])
    summary = run.summary()  # seed 1 has its first episode a row later, which is no failure
    np.testing.assert_array_equal(summary["first ten"], [np.nan, 5])
    np.testing.assert_array_equal(summary["minimum"], [np.nan, 4])
    np.testing.assert_array_equal(summary["final"], [np.nan, 4])
    assert "2, 1 failed" in report.table([run])


def test_a_run_that_stopped_early_says_so(run_folder):
    claimed = {"script": "finetune", "config": {"env_steps": 50_000}}
    (run_folder / "config.json").write_text(json.dumps(claimed))
    assert "| 2, stopped 38,000 steps early |" in report.table([report.load_run(run_folder, "O2TD3")])


def test_what_a_run_delivers_is_its_reference(tmp_path):
    with log.MetricLog(tmp_path) as metrics:
        for step, scores, reference in ((1, [5.0, 9.0], [8.0, 9.0]), (2, [3.0, 7.0], [8.0, 9.5])):
            metrics.write("evaluation", step, {"score": np.array(scores), "reference_score": np.array(reference)})
    run = report.load_run(tmp_path, "x")
    np.testing.assert_array_equal(run.summary()["delivered"], [8, 9.5])
    assert "| run | offline | first ten | minimum | delivered | final | final IQM | seeds |" in report.table([run])


def test_offline_runs_are_refused(run_folder):
    (run_folder / "config.json").write_text(json.dumps({"script": "offline"}))
    with pytest.raises(ValueError, match="is a run of experiments.offline: reports are of fine-tuning runs"):
        report.load_run(run_folder, "TD3+BC")


def test_all_steps_are_needed_for_their_axis(run_folder):
    with pytest.raises(ValueError, match=r"evaluation.csv has no column 'total_env_steps', only "):
        report.load_run(run_folder, "O2TD3", x="total")


def test_an_evaluation_before_the_first_step_is_not_online(tmp_path):
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("evaluation", 0, {"score": -100.0})
        metrics.write("evaluation", 10, {"score": 7.0})
    summary = report.load_run(tmp_path, "x").summary()
    assert summary["minimum"] == summary["first ten"] == summary["final"] == 7.0


def test_table_by_hand(run_folder):
    rows = report.table([report.load_run(run_folder, "O2TD3")]).splitlines()
    assert rows[0] == "| run | offline | aligned | first ten | minimum | final | final IQM | seeds |"
    assert rows[2] == (
        "| O2TD3 | 15.0 [10.0, 20.0] | 15.0 [11.0, 19.0] | 15.5 [5.5, 25.5] | 11.0 [1.0, 21.0] | 22.0 [12.0, 32.0] "
        "| 22.0 | 2 |"
    )
    assert rows[-4:-2] == [
        "| O2TD3 | 0 | 10.0 | 11.0 | 5.5 | 1.0 | 12.0 |",
        "| O2TD3 | 1 | 20.0 | 19.0 | 25.5 | 21.0 | 32.0 |",
    ]


def test_what_numbers_mean_in_words(run_folder, failed_folder, tmp_path):
    # seed 0 starts at 10 and scores 1, 2, … 6, which is more than 3 below, and 9 at worst; seed 1 starts at 20
    assert report.in_words(report.load_run(run_folder, "O2TD3")) == (
        "O2TD3: starts at 15.0 and ends at 22.0; by seed +2.0, +12.0. Up to 6 in a row more than 3 below the start, at "
        "worst 9.0 below."
    )
    # seeds 1 and 3 have no last score, which the mean of all four starts, 25, doesn't hide
    assert report.in_words(report.load_run(failed_folder, "TD3")) == (
        "TD3: starts at 25.0 and ends at 8.0; by seed -4.0, -20.0, 2 failed. Up to 2 in a row more than 3 below the "
        "start, at worst 22.0 below."
    )
    with log.MetricLog(tmp_path / "rolls") as metrics:
        metrics.write("start", 0, {"offline_score": 10.0})
        for step, score in ((1, 8.0), (2, 14.0), (3, 7.5)):
            metrics.write("evaluation", step, {"score": score, "reference_score": max(10.0, score)})
    assert report.in_words(report.load_run(tmp_path / "rolls", "x")) == (
        "x: starts at 10.0 and delivers 10.0; by seed +0.0. No evaluation was more than 3 below the start."
    )
    with log.MetricLog(tmp_path / "nothing") as metrics:
        metrics.write("evaluation", 1, {"score": 8.0})
    assert report.in_words(report.load_run(tmp_path / "nothing", "x")).endswith(
        "no seed has a score at its start and at its end."
    )


def test_a_clone_stands_beside_the_policy_that_it_was_made_of(tmp_path):
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("start", 0, {"offline_score": np.array([8.0, 9.0]), "teacher_score": np.array([30.0, 40.0])})
        metrics.write("evaluation", 10, {"score": np.array([1.0, 2.0])})
    run = report.load_run(tmp_path, "x")
    np.testing.assert_array_equal(run.summary()["offline"], [30, 40])
    np.testing.assert_array_equal(run.summary()["cloned"], [8, 9])
    assert "| run | offline | cloned | first ten |" in report.table([run])


def test_labels_with_a_slash_get_panels(run_folder, failed_folder, tmp_path):
    labels = ["Hopper/O2TD3", "Hopper/TD3", "Walker2d/TD3"]
    report.write_report([run_folder, failed_folder, failed_folder], labels, tmp_path / "x.svg")
    drawn = (tmp_path / "x.svg").read_text()
    for text in ("Hopper", "Walker2d", "O2TD3 (2 seeds)", "TD3 (4 seeds)"):
        assert f"<!-- {text} -->" in drawn
    assert "<!-- λ -->" not in drawn
    assert "| Hopper/O2TD3 | 15.0" in (tmp_path / "x_table.md").read_text()


def test_a_failed_seed_stays_in_the_table(failed_folder):
    text = report.table([report.load_run(failed_folder, "TD3")])
    assert "| TD3 | 25.0 [" in text  # all four had an offline score
    assert "| 8.0 | 4, 2 failed |" in text  # IQM of 6 and 10
    assert "| TD3 | 1 | 20.0 | – | – | failed |" in text
    assert "| TD3 | 3 | 40.0 | – | – | failed |" in text
    assert "| TD3 | 2 | 30.0 | 9.0 | 8.0 | 10.0 |" in text


def test_report_writes_figure_and_tables(run_folder, failed_folder, tmp_path, capsys):
    out = tmp_path / "new" / "hopper.png"
    argv = [f"--runs={run_folder},{failed_folder}", "--labels=O2TD3,direct", f"--out={out}"]
    for _ in range(2):  # a report can be made anew
        with pytest.raises(SystemExit) as exit_:
            program.run(report.main, report.define, report.__doc__, argv)
        assert exit_.value.code == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert str(out) in printed
    assert (tmp_path / "new" / "hopper_table.md").read_text() in printed
    with (tmp_path / "new" / "hopper_runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["O2TD3", "direct"]
    assert (rows[0]["first_ten"], rows[0]["first_ten_low"], rows[0]["seeds"]) == ("15.5", "5.5", "2")
    with (tmp_path / "new" / "hopper_seeds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["seed"]) for row in rows] == [("O2TD3", f"{s}") for s in range(2)] + [
        ("direct", f"{s}") for s in range(4)
    ]
    assert rows[3]["final"] == "nan"


def test_a_run_that_has_just_begun(tmp_path):
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("start", 0, {"offline_score": 5.0})
        metrics.write("evaluation", 0, {"score": 5.0})
    text = report.write_report([tmp_path], ["x"], tmp_path / "figure.svg")
    assert "| x | 5.0 | – | – | – | – | 1 |" in text


def test_labels_are_the_folders_or_their_paths(run_folder):
    assert report._labels(["runs/a", "runs/b/"]) == ["a", "b"]
    assert report._labels(["one/a", "two/a"]) == ["one/a", "two/a"]


@pytest.mark.parametrize(
    ("runs", "out", "message"),
    [
        (["missing"], "figure.png", "holds no run that reached the phase 'evaluation'"),
        (["o2td3"], "o2td3/evaluation.csv", "must be a figure, a path that ends in .png, .pdf, .svg"),
    ],
)
def test_bad_input_is_one_line(run_folder, tmp_path, runs, out, message, capsys):
    before = (run_folder / "evaluation.csv").read_bytes()
    argv = [f"--runs={','.join(str(tmp_path / run) for run in runs)}", f"--out={tmp_path / out}"]
    with pytest.raises(SystemExit) as exit_:
        program.run(report.main, report.define, argv=argv)
    assert exit_.value.code == 1
    refusals.check(capsys.readouterr().err, message)
    assert (run_folder / "evaluation.csv").read_bytes() == before


def test_labels_must_match(run_folder, capsys):
    with pytest.raises(SystemExit):
        program.run(report.main, report.define, argv=[f"--runs={run_folder}", "--labels=a,b", "--out=x.png"])
    assert "--labels names 2 runs, but --runs has 1" in capsys.readouterr().err


def test_scores_are_needed(tmp_path):
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("evaluation", 1, {"return": 1.0})
    with pytest.raises(ValueError, match="has no column 'score'"):
        report.load_run(tmp_path, "x")


def test_without_matplotlib(run_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"pip install 'o2o_jax\[plot\]'"):
        report.write_report([run_folder], ["x"], tmp_path / "figure.png")


@pytest.mark.parametrize(
    ("expert_score", "unit"), [(100.0, "Raw returns: mean over"), (90.0, "Normalized scores: mean")]
)
def test_returns_without_a_reference_are_called_so(run_folder, expert_score, unit):
    facts = {"random_score": 0.0, "expert_score": expert_score}
    (run_folder / "config.json").write_text(json.dumps({"script": "finetune", "config": {}, "task": facts}))
    assert unit in report.table([report.load_run(run_folder, "O2TD3")])


@pytest.mark.parametrize("label", [r"$\foo$", "_hidden", "$a_$", "$"])
def test_a_label_that_is_no_mathematics_is_drawn_as_it_is(label, run_folder, tmp_path):
    report.write_report([run_folder], [label], tmp_path / "x.svg")
    assert f"{label} (2 seeds)" in (tmp_path / "x.svg").read_text().replace(r"\$", "$")
