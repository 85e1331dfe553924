"""Runs of other seeds as one curve: what may differ between them, and what becomes of their logs."""

import json

import numpy as np
import pytest

from o2o_jax.cli import joined, program, report
from o2o_jax.runtime import log


def write_run(folder, first_seed, steps=(1000, 2000), seeds=2, provenance=None, **changes):
    """A fine-tuning run whose seed s starts at 10 s and scores 10 s + i at the i-th evaluation."""
    numbers = 10.0 * np.arange(first_seed, first_seed + seeds)
    with log.MetricLog(folder, first_seed=first_seed) as metrics:
        metrics.write("start", 0, {"offline_score": numbers})
        for i, step in enumerate(steps, 1):
            metrics.write("finetune", step, {"lagrange": np.full(seeds, float(first_seed))})
            total = {"total_env_steps": step + numbers}
            metrics.write("evaluation", step, {"score": numbers + i} | total)
            if (i + first_seed) % 2:  # an episode has ended only in every other row of a run
                metrics.write("episode", step, {"score": numbers - i, "episodes": np.ones(seeds)} | total)
    settings = {"script": "finetune", "algorithm": "o2td3", "policy": "runs/gone", "config": {"env_steps": 2000}}
    settings |= {"seeds": seeds, "first_seed": first_seed} | changes
    (folder / "config.json").write_text(json.dumps(settings))
    line = {"commit": "abc", "versions": {"jax": "1"}, "fingerprint": "f", "machine": str(folder)} | (provenance or {})
    (folder / "provenance.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def test_joined_runs_are_one_curve(tmp_path):
    write_run(tmp_path / "more", 4)
    write_run(tmp_path / "first", 0)
    run = report.load_run(f"{tmp_path / 'more'}+{tmp_path / 'first'}", "both")
    np.testing.assert_array_equal(run.seeds, [0, 1, 4, 5])
    np.testing.assert_array_equal(run.score.values, [[1, 11, 41, 51], [2, 12, 42, 52]])
    np.testing.assert_array_equal(run.offline, [0, 10, 40, 50])
    np.testing.assert_array_equal(run.lagrange.values, [[0, 0, 4, 4]] * 2)
    assert "| both | 25.0 [" in report.table([run])
    assert "| 4 |\n" in report.table([run])


def test_a_joined_curve_ends_with_the_shortest(tmp_path):
    parts = write_run(tmp_path / "a", 0), write_run(tmp_path / "b", 2, steps=(1000,))
    run = report.load_run("+".join(map(str, parts)), "both")
    np.testing.assert_array_equal(run.score.steps, [1000])
    np.testing.assert_array_equal(run.summary()["final"], [1, 11, 21, 31])  # nobody failed
    assert "| 4, stopped 1,000 steps early |" in report.table([run])


def test_rows_of_episodes_are_those_of_any_run(tmp_path):
    # episodes of seed 0 ended in the rows 1 and 3, of seed 1 in row 2
    steps = (1000, 2000, 3000)
    parts = write_run(tmp_path / "a", 0, steps, seeds=1), write_run(tmp_path / "b", 1, steps, seeds=1)
    run = report.load_run("+".join(map(str, parts)), "both", "episode", "total")
    np.testing.assert_array_equal(run.score.values, [[-1, np.nan], [-1, 8], [-3, 8]])
    # seed 1 has spent 10 on evaluations, also where it has no row of its own
    np.testing.assert_array_equal(run.score.steps, [1000, 2005, 3005])
    # seed 2, like seed 0, had episodes in the odd rows, and stopped after the second
    shorter = write_run(tmp_path / "c", 2, steps[:2], seeds=1)
    run = report.load_run(f"{parts[0]}+{shorter}", "both", "episode")
    np.testing.assert_array_equal(run.score.values, [[-1, 19]])
    assert run.missing_env_steps == 0  # of 2,000


def test_settings_of_runs_before_seeds_had_numbers(tmp_path):
    parts = write_run(tmp_path / "a", 0), write_run(tmp_path / "b", 2)
    settings = json.loads((parts[0] / "config.json").read_text())
    del settings["first_seed"]
    (parts[0] / "config.json").write_text(json.dumps(settings))
    joined.check([str(part) for part in parts])


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"config": {"env_steps": 3000}}, {"config.env_steps": "2000 and 3000"}),
        ({"env": "mujoco/hopper-medium"}, {"env": 'absent and "mujoco/hopper-medium"'}),
        ({"policy": "runs/other"}, {"policy": "runs/gone and runs/other"}),
        ({"reconstruction": "runs/other"}, {"reconstruction": "None and runs/other"}),
        (
            {"provenance": {"commit": "abd", "versions": {"jax": "2"}, "fingerprint": "g"}},
            {"commit": '"abc" and "abd"', "fingerprint": '"f" and "g"', "versions.jax": '"1" and "2"'},
        ),
    ],
)
def test_whatever_else_differs_is_refused_in_one_line(changes, found, tmp_path, capsys):
    parts = write_run(tmp_path / "a", 0), write_run(tmp_path / "b", 2, **changes)
    runs, out = "+".join(map(str, parts)), tmp_path / "x.svg"

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            program.run(report.main, report.define, argv=[f"--runs={runs}", f"--out={out}", *arguments])
        return exit_.value.code

    assert call() == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    listed = "; ".join(f"{name} is {values}" for name, values in found.items())
    allowed = f"--may_differ={','.join(found)}"
    assert f"{parts[0]} and {parts[1]} differ in more than their seeds: {listed}. Join runs that agree, or " in error
    assert error.endswith(f"pass {allowed}\n")
    assert not out.exists()
    assert call(allowed) == 0
    assert "| a+b |" in (tmp_path / "x_table.md").read_text()
    groups = ",".join(sorted({name.split(".")[0] for name in found}))
    assert call(f"--may_differ={groups}") == 0  # a group means all of it
    assert call("--may_differ=con") == 1  # but no beginning of a name does


def test_the_runs_that_others_begin_from_are_compared_by_what_they_are(tmp_path):
    for name, first_seed, config in (("p0", 0, {"updates": 5}), ("p2", 2, {"updates": 5}), ("p4", 4, {"updates": 6})):
        write_run(tmp_path / name, first_seed, script="offline", policy=None, config=config)
    a, b, c = (
        str(write_run(tmp_path / name, first_seed, policy=str(tmp_path / f"p{first_seed}")))
        for name, first_seed in (("a", 0), ("b", 2), ("c", 4))
    )
    joined.check([a, b])
    with pytest.raises(ValueError, match=r"a and .*c differ .*: policy.config.updates is 5 and 6. Join"):
        joined.check([a, b, c])
    joined.check([a, b, c], ["policy"])


def test_seeds_must_not_overlap(tmp_path):
    parts = [str(write_run(tmp_path / name, seed)) for name, seed in (("a", 0), ("b", 4), ("c", 5))]
    with pytest.raises(ValueError, match="b and .*c both have the seed 5: join runs of other seeds"):
        joined.check(parts, ["config"])


def test_a_resumed_run_was_made_by_both_commits(tmp_path):
    parts = [str(write_run(tmp_path / name, seed)) for name, seed in (("a", 0), ("b", 4))]
    line = {"commit": "abd", "versions": {"jax": "1"}, "fingerprint": "f"}
    with (tmp_path / "b" / "provenance.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=r'seeds: commit is "abc" and \["abc", "abd"\]. Join'):
        joined.check(parts)


def test_code_that_was_changed_after_its_commit_is_noted(tmp_path, capsys):
    changed = {"commit": "abc-dirty"}
    parts = [str(write_run(tmp_path / name, seed, provenance=changed)) for name, seed in (("a", 0), ("b", 4))]
    joined.check(parts)
    assert capsys.readouterr().out.startswith("note: the commits abc-dirty don't say whether ")
    joined.check(parts[:1])
    assert not capsys.readouterr().out


def test_a_run_without_settings_is_not_joined(tmp_path):
    parts = [str(write_run(tmp_path / name, seed)) for name, seed in (("a", 0), ("b", 4))]
    (tmp_path / "b" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="b holds no run"):
        report.load_run("+".join(parts), "both")
    assert report.load_run(parts[1], "alone").seeds.tolist() == [4, 5]


def test_a_folder_may_have_a_plus_itself(tmp_path):
    folder = str(write_run(tmp_path / "a+b", 0))
    assert joined.folders_of(folder) == [folder]
    assert joined.folders_of("x/a+y/b") == ["x/a", "y/b"]
    assert report.load_run(folder, "x").seeds.tolist() == [0, 1]
