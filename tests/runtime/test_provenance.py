import dataclasses
import json
import subprocess

import jax
import numpy as np
import pytest

from o2o_jax.data.dataset import Dataset
from o2o_jax.runtime import provenance


def dataset(rewards=(1.0, 2.0, 3.0), truncations=(0, 0, 1), name="mine"):
    rows = np.arange(3.0, dtype=np.float32)[:, None]
    return Dataset.from_arrays(rows, rows / 4, rewards, np.zeros(3), truncations, rows + 1, name=name)


def test_a_line_says_with_what_a_run_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/finetune.py", "--out=a b"])
    provenance.record(tmp_path, dataset())
    provenance.record(tmp_path, dataset())
    first, second = provenance.read(tmp_path)
    assert first["command"] == "finetune.py '--out=a b'"
    assert (first["dataset"], first["fingerprint"]) == ("mine", dataset().fingerprint)
    assert first["versions"]["jax"] == jax.__version__
    assert first["machine"]["cores"] >= 1
    assert first["taken"] <= second["taken"]
    assert {"commit", "devices"} <= first.keys()


@pytest.mark.parametrize(
    ("program", "typed"),
    [
        ("/env/bin/o2o", "o2o finetune"),
        ("/src/o2o_jax/cli/__main__.py", "o2o finetune"),
        ("/src/experiments/finetune.py", "python -m experiments.finetune finetune"),
    ],
)
def test_a_command_is_as_one_types_it(program, typed, monkeypatch):
    monkeypatch.setattr("sys.argv", [program, "finetune"])
    assert provenance.command() == typed


def test_runs_without_data_are_recorded_too(tmp_path):
    provenance.record(tmp_path)
    (line,) = provenance.read(tmp_path)
    assert "versions" in line
    assert "fingerprint" not in line
    assert provenance.read(tmp_path / "nothing") == []


def test_data_that_changed_between_two_processes_are_refused(tmp_path):
    provenance.record(tmp_path, dataset())
    with pytest.raises(ValueError, match="mine has changed since 20"):
        provenance.record(tmp_path, dataset(rewards=(1.0, 2.0, 3.5)))
    assert len(provenance.read(tmp_path)) == 1


def test_rows_and_episodes_count_for_a_fingerprint_and_names_do_not():
    found = {data.fingerprint for data in (dataset(), dataset(rewards=(1.0, 2.0, 4.0)), dataset(truncations=(0, 1, 1)))}
    assert len(found) == 3
    assert dataset(name="other").fingerprint == dataset().fingerprint
    copied = dataclasses.replace(dataset(), episode_ends=np.asfortranarray(dataset().episode_ends))
    assert copied.fingerprint == dataset().fingerprint


def test_a_damaged_file_is_said(tmp_path):
    (tmp_path / provenance.FILE).write_text('{"command": ')
    with pytest.raises(ValueError, match="is damaged .*: delete it"):
        provenance.record(tmp_path)


def test_a_line_is_json_and_nothing_else_is_left(tmp_path):
    provenance.record(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [provenance.FILE]
    assert json.loads((tmp_path / provenance.FILE).read_text())["versions"]["python"]


def test_the_commit_is_that_of_the_folder_s_own_files(tmp_path):
    assert provenance.commit(tmp_path) == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y"]
    (tmp_path / "file").touch()
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "module.py").touch()  # amid the checkout, and not of it
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    assert len(provenance.commit(tmp_path)) == 12
    assert provenance.commit(tmp_path / "installed") == "unknown"
    (tmp_path / "file").write_text("changed")
    assert provenance.commit(tmp_path).endswith("-dirty")


def test_data_that_changed_between_runs_are_refused(tmp_path):
    provenance.record(tmp_path, dataset())
    provenance.check_data(tmp_path, dataset(), "no way out")
    changed = dataset(rewards=(1.0, 2.0, 3.5))
    provenance.check_data(tmp_path / "none", changed, "no way out")  # a folder that says nothing
    with pytest.raises(ValueError, match="mine has changed since 20.* old data back, or name the data with --dataset"):
        provenance.check_data(tmp_path, changed, "name the data with --dataset")


def test_code_that_changed_between_two_processes_is_said(tmp_path, monkeypatch):
    assert provenance.changed(tmp_path) == ""
    provenance.record(tmp_path)
    provenance.record(tmp_path)
    assert provenance.changed(tmp_path) == ""
    monkeypatch.setattr(provenance, "commit", lambda: "abc")
    provenance.record(tmp_path)
    assert 'and "abc" now; its numbers are not those of one version' in provenance.changed(tmp_path)


def test_time_adds_up_over_processes(tmp_path):
    assert provenance.seconds(tmp_path) == {}
    provenance.record(tmp_path)
    provenance.record_seconds(tmp_path, {"reevaluate": 1.5})
    provenance.record_seconds(tmp_path, {"reevaluate": 2.0, "align": 1.0})  # the newest of a process counts
    provenance.record(tmp_path)
    assert provenance.seconds(tmp_path) == {"reevaluate": 2.0, "align": 1.0}
    provenance.record_seconds(tmp_path, {"align": 0.25})
    assert provenance.seconds(tmp_path) == {"reevaluate": 2.0, "align": 1.25}
    path = tmp_path / provenance.FILE
    path.write_text(path.read_text().replace("0.25", '"0.25"'))
    with pytest.raises(ValueError, match=r"provenance.jsonl is damaged .*align is '0.25'"):
        provenance.seconds(tmp_path)
