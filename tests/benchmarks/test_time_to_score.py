"""Time to a score, of run folders made by hand."""

import csv
import json

import numpy as np
import pytest

from benchmarks import time_to_score
from o2o_jax.studies import grid
from tests import tiny

FILE = """
tasks = ["mujoco/hopper-medium"]
seeds = 2
goal = { gain = 50, score = 90 }
[offline.td3_bc]
[defaults.online]
set = ["interaction.warmup_env_steps=10"]
[online.o2td3]
label = "O2TD3"
from = ["td3_bc"]
[online.td3]
label = "TD3"
flags = ["schedule=paper"]
from = ["td3_bc"]
"""
SECONDS = {
    "o2td3": {"reevaluate": 30.0, "align": 10.0, "evaluation": 500.0, "finetune": 100.0},
    "td3": {"finetune": 400.0},
}
# steps -> scores of both seeds; the offline policies' are 20 and 60, so that 70 and 90 are to be reached
SCORES = {"o2td3": {10: (50, 70), 20: (70, 70), 30: (20, 95), 40: (80, 95)}, "td3": {20: (10, 70), 40: (75, 89.9)}}


def write_run(folder, name):
    """A run as far as its time is read."""
    folder.mkdir(parents=True)
    settings = {"script": "finetune", "algorithm": name, "config": {"env_steps": 40}, "seeds": 2}
    (folder / "config.json").write_text(json.dumps(settings))
    first = {key: seconds / 4 for key, seconds in SECONDS[name].items()}  # of two processes
    second = {key: 3 * seconds / 4 for key, seconds in SECONDS[name].items()}
    lines = [json.dumps({"commit": "abc", "seconds": seconds}) for seconds in (first, second)]
    (folder / "provenance.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "start.csv").write_text("step,seed,offline_score\n0,0,20\n0,1,60\n")
    rows = [f"{step},{seed},{score}" for step, scores in SCORES[name].items() for seed, score in enumerate(scores)]
    (folder / "evaluation.csv").write_text("\n".join(["step,seed,score", *rows, ""]))
    if name == "o2td3":
        (folder / "reevaluate.csv").write_text("step,seed,td\n100,0,1\n100,1,1\n200,0,1\n200,1,1\n")
        (folder / "align.csv").write_text("step,seed,td\n50,0,1\n50,1,1\n")


@pytest.fixture
def study(tmp_path):
    """The arguments of a study all of whose runs are done."""
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    root = tmp_path / "studies"
    for cell in grid.cells(grid.load(str(path)), "fast"):
        if cell.command == grid.FINETUNE:
            write_run(root / cell.name, cell.method)
        elif cell.command == grid.OFFLINE:
            (root / cell.name).mkdir(parents=True)
            (root / cell.name / "config.json").write_text("{}")
        record = root / f"{cell.name}.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text('{"status": 0}')
    return [f"--study={path}", f"--out={root}", f"--results={tmp_path / 'results'}"]


def test_time_to_a_score(study, tmp_path, capsys):
    tiny.call(time_to_score, *study)
    results = tmp_path / "results"
    rows = {(row["method"], row["seed"]): row for row in csv.DictReader((results / "time_to_score.csv").open())}
    expected = {  # seconds, environment steps, updates, ratio
        ("O2TD3", "0"): (40 + 100 * 20 / 40, 20, 250 + 20 - 10, 1),
        ("O2TD3", "1"): (40 + 100 * 30 / 40, 30, 250 + 30 - 10, 1),
        ("TD3", "0"): (400, 40, 40 - 10, 400 / 90),
        ("TD3", "1"): (np.nan, np.nan, np.nan, np.nan),
    }
    assert rows.keys() == expected.keys()
    for key, values in expected.items():
        found = [float(rows[key][name]) for name in ("seconds", "env_steps", "updates", "ratio")]
        np.testing.assert_allclose(found, values)
    text = (results / "time_to_score.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    ours, theirs = cells[2:]
    assert ours[:5] == ["hopper-medium", "O2TD3", "40.0", "80.0", "2 of 2"]
    assert ours[5:] == ["102", "90", "115", "25", "265", "1.00", "1.00", "1.00"]
    assert theirs[4:8] == ["1 of 2", "400", "400", "400"]
    assert "over those of O2TD3" in text
    assert "Code of commit abc" in text
    assert (results / "time_to_score.png").stat().st_size > 1_000
    assert text.split("\n")[2] in capsys.readouterr().out


def test_a_method_that_never_gets_there():
    row = {"task": "a/b", "method": "m", "seed": 0, "start": 1.0, "threshold": 51.0}
    row |= dict.fromkeys(("seconds", "env_steps", "updates", "ratio"), np.nan)
    (line,) = time_to_score.summary([row, row | {"seed": 1}])
    assert line["reached"] == "never"
    assert np.isnan([line["seconds"], line["ratio"]]).all()


def test_a_study_without_a_goal_is_refused(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace("goal =", "# goal ="))
    tiny.call(time_to_score, f"--study={path}", f"--out={tmp_path / 'studies'}", status=1)
    assert "has no goal, which the time is taken to" in capsys.readouterr().err
