"""Cells of a study on this machine: in what order, again after a failure, and where the study is stopped."""

import os
import signal
import threading
import time

import pytest

from o2o_jax.runtime import interrupt
from o2o_jax.studies import local, progress
from o2o_jax.studies.progress import DONE, FAILED, RUNNING, WAITING, Attempt

STARTS = {"bc": {}, "cql": {}}
ONLINE = {
    "td3": {"from": ["bc"]},
    "o2td3": {"from": ["bc", "cql"]},
    "again": {"from": ["bc"], "reconstruction": "o2td3"},
}

pytestmark = pytest.mark.usefixtures("quick")


def run(root, cells, jobs=3, retries=1):
    """Runs cells, and returns the states that each went through, by the names of method and start."""
    seen = {cell.name: [] for cell in cells}
    local.run(root, cells, jobs, retries, lambda cell, known: seen[cell.name].append(known))
    return seen


def states(seen):
    return {tuple(known.state for known in all_of) for all_of in seen.values()}


def calls(root, cell):
    return len((root / cell.name / "calls").read_text().splitlines())


def test_each_is_run_once_after_those_that_it_needs(tmp_path, make_cells):
    cells = make_cells(offline=STARTS, online=ONLINE)
    assert states(run(tmp_path, cells)) == {(RUNNING, DONE)}  # the worker asserts that starts are there
    assert states(run(tmp_path, cells)) == {(DONE,)}
    assert {calls(tmp_path, cell) for cell in cells} == {1}


def test_one_that_fails_is_tried_again(tmp_path, make_cells):
    cells = make_cells(offline={"bc": {"set": ["fail=once"]}}, online={"td3": {"from": ["bc"]}})
    assert states(run(tmp_path, cells)) == {(RUNNING, DONE)}
    assert [calls(tmp_path, cell) for cell in cells] == [2, 1]


def test_one_that_fails_always_holds_up_its_own_alone(tmp_path, make_cells):
    offline = STARTS | {"bc": {"set": ["fail=always"]}}
    bc, td3, o2td3, cql, other, again = cells = make_cells(offline=offline, online=ONLINE)
    seen = run(tmp_path, cells)
    assert [known.state for known in seen[bc.name]] == [RUNNING, FAILED]
    assert seen[bc.name][-1].reason == "the network diverged"
    assert calls(tmp_path, bc) == 2
    for cell in (td3, o2td3, again):
        assert [known.state for known in seen[cell.name]] == [FAILED]
        assert "which failed" in seen[cell.name][0].reason
    assert [seen[cell.name][-1].state for cell in (cql, other)] == [DONE, DONE]
    assert progress.of(tmp_path, td3).state == WAITING  # for its start to be mended
    run(tmp_path, cells, retries=0)
    assert calls(tmp_path, bc) == 3  # another call tries again


def test_as_many_at_a_time_as_asked_for(tmp_path, make_cells):
    cells = make_cells(offline={f"bc{i}": {"algorithm": "bc"} for i in range(5)}, online={})
    under_way, most = set(), []

    def report(cell, known):
        (under_way.add if known.state == RUNNING else under_way.discard)(cell.name)
        most.append(len(under_way))

    local.run(tmp_path, cells, 2, 0, report)
    assert max(most) == 2


@pytest.mark.parametrize(
    ("jobs", "cores"), [(1, [[0, 1, 4]]), (2, [[0, 4], [1]]), (4, [[0], [1], [4], None])]
)  # fmt: skip
def test_processes_share_the_cores(monkeypatch, jobs, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4})
    assert local.slots(jobs) == cores


def test_a_process_keeps_to_its_cores(tmp_path, make_cells):
    (cell,) = make_cells(offline={"bc": {"set": ["wait"]}}, online={})
    core = min(os.sched_getaffinity(0))
    attempt = Attempt(tmp_path, cell, [core])
    assert os.sched_getaffinity(attempt.process.pid) == {core}
    attempt.stop()


def test_a_study_that_is_stopped_lets_its_runs_save_themselves(tmp_path, make_cells):
    (cell,) = cells = make_cells(offline={"bc": {"set": ["wait"]}}, online={})

    def report(cell, known):
        while not (tmp_path / cell.name / "waits").exists():
            time.sleep(0.01)
        raise interrupt.Stopped(15)

    with pytest.raises(interrupt.Stopped):
        local.run(tmp_path, cells, 1, 0, report)
    known = progress.of(tmp_path, cell)
    assert (known.state, known.failures) == (WAITING, 0)  # stopped, not failed
    assert known.seconds > 0.0
    assert states(run(tmp_path, cells)) == {(RUNNING, DONE)}


def test_what_another_process_runs_is_waited_for(tmp_path, make_cells):
    (cell,) = cells = make_cells(offline={"bc": {"set": ["wait"]}}, online={})
    other = Attempt(tmp_path, cell)
    assert progress.of(tmp_path, cell).state == RUNNING
    with pytest.raises(BlockingIOError):
        Attempt(tmp_path, cell)
    seen = []

    def report(cell, known):
        seen.append(known.state)
        if known.state == RUNNING:
            while not (tmp_path / cell.name / "waits").exists():
                time.sleep(0.01)
            threading.Thread(target=other.stop).start()

    local.run(tmp_path, cells, 1, 0, report)
    assert seen == [RUNNING, DONE]
    assert calls(tmp_path, cell) == 2


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
def test_what_announces_the_end_of_a_clusters_job_ends_no_run(tmp_path, make_cells, signum):
    (cell,) = make_cells(offline={"bc": {"set": ["wait"]}}, online={})
    attempt = Attempt(tmp_path, cell)
    while not (tmp_path / cell.name / "waits").exists():
        time.sleep(0.01)
    attempt.process.send_signal(signum)
    assert signum not in signal.pthread_sigmask(signal.SIG_BLOCK, [])  # who runs the study still hears it
    attempt.stop()
    assert attempt.process.returncode == 143
    assert progress.of(tmp_path, cell).failures == 0


def test_a_damaged_record_is_named(tmp_path, make_cells):
    (cell,) = cells = make_cells(offline={"bc": {}}, online={})
    run(tmp_path, cells)
    record = tmp_path / f"{cell.name}.json"
    record.write_text("{")
    with pytest.raises(ValueError, match=f"{record.name} is damaged.*delete it"):
        progress.of(tmp_path, cell)


def test_a_run_whose_folder_has_gone_is_run_again(tmp_path, make_cells):
    (cell,) = cells = make_cells(offline={"bc": {}}, online={})
    run(tmp_path, cells)
    (tmp_path / cell.name / "config.json").unlink()
    assert progress.of(tmp_path, cell).state == WAITING
