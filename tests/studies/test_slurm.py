"""Cells of a study as jobs: submitit's executor of this machine stands in for a cluster."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import submitit

from o2o_jax.studies import progress, slurm
from o2o_jax.studies.progress import DONE, FAILED, QUEUED, RUNNING, WAITING


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """(what it prints, its status) -> there is a command of that name, and an srun."""

    def make(text, status=0):
        (tmp_path / "bin").mkdir()
        script = tmp_path / "bin" / "squeue"
        script.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {status}\n")
        script.chmod(0o755)
        (tmp_path / "bin" / "srun").symlink_to(script)
        monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)

    return make


def test_a_job_that_has_to_make_way_resumes(quick, tmp_path, make_cells):
    (start,) = make_cells(offline={"bc": {"set": ["wait"]}}, online={})
    job = submitit.LocalExecutor(tmp_path / slurm.JOBS).submit(slurm.Work(tmp_path, start, 0, progress.OWN_COMMAND))
    while not (tmp_path / start.name / "waits").exists():
        time.sleep(0.05)
    assert "0 runs were given" in slurm.submit(tmp_path, [start], {}, 0, "local")  # it runs already
    (task,) = Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)  # as a cluster does before it takes the machine away
    assert job.result() == DONE
    assert (tmp_path / start.name / "calls").read_text().split() == ["offline", "offline"]
    assert progress.of(tmp_path, start).failures == 0
    assert "0 runs were given" in slurm.submit(tmp_path, [start], {}, 0, "local")  # and is done


def test_a_run_that_the_cluster_stops_has_not_failed(quick, tmp_path, make_cells, monkeypatch):
    monkeypatch.setattr(slurm, "GRACE", 0.0)
    (start,) = make_cells(offline={"bc": {"set": ["wait"]}}, online={})
    work = slurm.Work(tmp_path, start, 0)

    def stop():
        while not (tmp_path / start.name / "waits").exists():
            time.sleep(0.05)
        work._attempt.process.terminate()  # all processes of a job are told to end

    thread = threading.Thread(target=stop)
    thread.start()
    assert work() == DONE
    thread.join()
    assert (tmp_path / start.name / "calls").read_text().split() == ["offline", "offline"]


def test_a_run_that_fails_once_too_often_fails_its_job(quick, tmp_path, make_cells, monkeypatch):
    monkeypatch.setattr(slurm, "PAUSE", 0.01)
    (start,) = make_cells(offline={"bc": {"set": ["fail=always"]}}, online={})
    with pytest.raises(RuntimeError, match=f"{start.name} failed: the network diverged"):
        slurm.Work(tmp_path, start, 1)()
    assert (tmp_path / start.name / "calls").read_text().split() == ["offline", "offline"]


def test_what_slurm_says_of_jobs(tmp_path, make_cells, squeue):
    squeue("7|PENDING|Dependency\\n8_1|COMPLETING|None\\n9|PENDING|Priority\\n")
    cells = make_cells(offline={name: {"algorithm": "bc"} for name in "abcdef"}, online={})
    failed, untouched = cells[-2:]
    for cell, job in zip(cells, ["7", "8_1", "8_2", "10", "11"], strict=False):
        progress.given(tmp_path, cell, job)
    progress._write(tmp_path, failed, {"failures": 1, "job": "11"})
    (tmp_path / f"{failed.name}.log").write_text("error: the network diverged\n")
    (tmp_path / slurm.JOBS).mkdir()
    (tmp_path / slurm.JOBS / "8_2_0_log.err").write_text("slurmstepd: error: *** JOB 8 CANCELLED ***\n")
    seen = slurm.seen(tmp_path, cells)
    assert {cell.method: (seen[cell.name].state, seen[cell.name].reason) for cell in cells} == {
        "a": (QUEUED, "job 7, Dependency"),
        "b": (RUNNING, "job 8_1"),
        "c": (FAILED, "job 8_2 has ended: slurmstepd: error: *** JOB 8 CANCELLED ***"),
        "d": (WAITING, "job 10 has left the queue before it began"),
        "e": (FAILED, "the network diverged"),
        "f": (WAITING, ""),
    }
    assert slurm.seen(tmp_path, [untouched])[untouched.name].state == WAITING


def test_a_slurm_that_does_not_answer_is_one_line(tmp_path, make_cells, squeue):
    squeue("Unable to contact slurm controller", 1)
    (cell,) = make_cells(offline={"bc": {}}, online={})
    assert slurm.seen(tmp_path, [cell])[cell.name].state == WAITING  # nothing was given to it
    progress.given(tmp_path, cell, "7")
    with pytest.raises(ValueError, match="SLURM doesn't answer .*see what `squeue --me` says"):
        slurm.seen(tmp_path, [cell])


def test_runs_that_need_the_same_are_one_array(quick, tmp_path, make_cells, monkeypatch):
    given = []

    class Executor:
        def __init__(self, folder, cluster, **_):
            self.jobs = []

        def update_parameters(self, **parameters):
            given.append(parameters)

        def submit(self, work):
            self.jobs.append(type("Job", (), {"job_id": f"7{len(given)}_{len(self.jobs)}"}))
            return self.jobs[-1]

        def batch(self):
            return contextlib.nullcontext()

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    monkeypatch.setattr(slurm, "queued", lambda: {})
    online = {"td3": {"from": ["bc"]}, "o2td3": {"from": ["bc"]}, "again": {"from": ["bc"], "reconstruction": "o2td3"}}
    cells = make_cells(offline={"bc": {}}, online=online)
    texts = ["partition=gpu", "cpus_per_task=2", 'setup=["module load cuda"]']
    said = slurm.submit(tmp_path, cells, slurm.options(texts), 1)
    assert said == "4 runs were given to the cluster, in 3 arrays; 0 are there already"
    assert [each.get("slurm_dependency") for each in given] == [None, "afterok:71_0", "afterok:71_0:72_1"]
    assert {each["slurm_partition"] for each in given} == {"gpu"}
    assert {each["cpus_per_task"] for each in given} == {2}
    assert given[0]["slurm_setup"] == ["module load cuda"]
    assert given[0]["slurm_srun_args"] == ["--cpus-per-task=2"]  # some versions of srun don't take it from sbatch
    assert [each["slurm_additional_parameters"] for each in given] == [
        {"requeue": True},
        {"requeue": True, "kill-on-invalid-dep": "yes"},
        {"requeue": True, "kill-on-invalid-dep": "yes"},
    ]


@pytest.mark.parametrize("text", ["partition", "=gpu", "partition="])
def test_options_have_a_name_and_a_value(text):
    with pytest.raises(ValueError, match=f"--slurm={text} must read --slurm=option=value"):
        slurm.options([text])


def test_what_a_cluster_refuses_is_one_line(tmp_path, make_cells, monkeypatch):
    (cell,) = make_cells(offline={"bc": {}}, online={})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no SLURM here"):
        slurm.submit(tmp_path, [cell], {}, 0)
    with pytest.raises(ValueError, match="submitit refuses the options of --slurm: Unknown argument 'partitoin'"):
        slurm.submit(tmp_path, [cell], {"partitoin": "gpu"}, 0, "local")
    with pytest.raises(ValueError, match="timeout_min=2 leaves a run no time.* 150 seconds before"):
        slurm.submit(tmp_path, [cell], {"timeout_min": 2}, 0, "local")
