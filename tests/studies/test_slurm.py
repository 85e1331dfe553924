"""Cells of a study as jobs: submitit's executor of this machine stands in for a cluster."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
import submitit

from o2o_jax.studies import progress, slurm
from o2o_jax.studies.progress import DONE


def test_a_job_that_has_to_make_way_resumes(quick, tmp_path, make_cells):
    (start,) = make_cells(offline={"bc": {"set": ["wait"]}}, online={})
    job = submitit.LocalExecutor(tmp_path / slurm.JOBS).submit(slurm.Work(tmp_path, start, 0))
    while not (tmp_path / start.name / "waits").exists():
        time.sleep(0.05)
    assert "0 runs were given" in slurm.submit(tmp_path, [start], {}, 0, "local")  # it runs already
    (task,) = Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)  # as a cluster does before it takes the machine away
    assert job.result() == DONE
    assert (tmp_path / start.name / "calls").read_text().split() == ["offline", "offline"]
    assert progress.of(tmp_path, start).failures == 0
    assert "0 runs were given" in slurm.submit(tmp_path, [start], {}, 0, "local")  # and is done


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
    online = {"td3": {"from": ["bc"]}, "o2td3": {"from": ["bc"]}, "again": {"from": ["bc"], "reconstruction": "o2td3"}}
    cells = make_cells(offline={"bc": {}}, online=online)
    said = slurm.submit(tmp_path, cells, slurm.options(["partition=gpu", "cpus_per_task=2"]), 1)
    assert said == "4 runs were given to the cluster, in 3 arrays; 0 are there already"
    assert [each.get("slurm_dependency") for each in given] == [None, "afterok:71_0", "afterok:71_0:72_1"]
    assert {each["slurm_partition"] for each in given} == {"gpu"}
    assert {each["cpus_per_task"] for each in given} == {2}


@pytest.mark.parametrize("text", ["partition", "=gpu", "partition="])
def test_options_have_a_name_and_a_value(text):
    with pytest.raises(ValueError, match=f"--slurm={text} must read --slurm=option=value"):
        slurm.options([text])


def test_what_a_cluster_refuses_is_one_line(tmp_path, make_cells):
    (cell,) = make_cells(offline={"bc": {}}, online={})
    with pytest.raises(ValueError, match="there is no SLURM here"):
        slurm.submit(tmp_path, [cell], {}, 0)
    with pytest.raises(ValueError, match="submitit refuses the options of --slurm: Unknown argument 'partitoin'"):
        slurm.submit(tmp_path, [cell], {"partitoin": "gpu"}, 0, "local")
