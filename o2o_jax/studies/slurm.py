"""Launcher of a study's cells on a cluster, through submitit: one job per cell, as arrays. Impure.

Jobs of cells that need others wait for theirs by SLURM's dependencies. A job that is preempted, or whose time is over,
saves its run, is put back in the queue by submitit or SLURM, and resumes.
"""

import dataclasses
import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from o2o_jax.reading import brief
from o2o_jax.studies import progress
from o2o_jax.studies.grid import Cell
from o2o_jax.studies.progress import DONE, FAILED, QUEUED, RUNNING, WAITING, Attempt, Progress

JOBS = "slurm"  # folder of submitit's own files, below that of all studies
PAUSE = 1.0  # seconds between two looks at a process
GRACE = 60.0  # seconds in which SLURM kills a job whose processes it has told to end: KillWait is 30 by default
PENDING = "PENDING"  # in squeue's words
# of a job: its name, its time, after which it resumes in another, and how long before that it is told to save itself
DEFAULTS = {"name": "o2o", "timeout_min": 24 * 60, "signal_delay_s": 90}
EARLY = 60.0  # seconds by which SLURM may send a signal too early
GENERAL = {"name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"}
MOST_TIMEOUTS = 1_000  # of a job, each of which resumes


class Work:
    """Work of a job: a cell's command, repeated where it fails.

    submitit pickles it, calls it on the cluster and, where the job has to make way, asks it for what shall go on.

    Args:
      root: folder of all studies.
      cell: to be run.
      retries: how often it may fail beyond the first time.
      command: as of `Attempt`; by default that of the Python which the job runs.
    """

    def __init__(self, root: Path, cell: Cell, retries: int, command: Sequence[str] | None = None) -> None:
        self.root, self.cell, self.retries, self.command = root, cell, retries, command
        self._attempt: Attempt | None = None

    def __call__(self) -> str:
        """Returns the state that the cell has come to.

        Raises:
          RuntimeError: it failed once too often.
        """
        failures = 0
        while (seen := progress.of(self.root, self.cell)).state != DONE:
            if failures > self.retries:
                raise RuntimeError(f"{self.cell.name} {seen.state}: {seen.reason}")
            try:
                self._attempt = Attempt(self.root, self.cell, command=self.command)
            except BlockingIOError:  # another job runs it: it is waited for
                time.sleep(PAUSE)
                continue
            while (ended := self._attempt.poll()) is None:
                time.sleep(PAUSE)
            self._attempt = None
            if ended.failures > seen.failures:
                failures += 1
            elif ended.state != DONE:  # SLURM tells all processes of a job to end: this one awaits its own
                time.sleep(GRACE)
        return seen.state

    def checkpoint(self) -> Any:
        """Saves the run and returns what submitit puts back in the queue."""
        from submitit.helpers import DelayedSubmission

        if self._attempt is not None:
            self._attempt.stop()
            self._attempt = None  # a process can't be pickled
        return DelayedSubmission(self)


def options(texts: Sequence[str]) -> dict[str, Any]:
    """Returns options of jobs, as submitit's executor takes them.

    Args:
      texts: "option=value" each, such as partition=gpu, timeout_min=60 or setup=["module load cuda"]; JSON, or else
        text.

    Raises:
      ValueError: one has no value.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise ValueError(f"--slurm={text} must read --slurm=option=value, such as --slurm=partition=gpu")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def seen(root: Path, cells: Sequence[Cell], queue: Mapping[str, tuple[str, str]] | None = None) -> dict[str, Progress]:
    """Returns how far cells have come, by their names, with what SLURM says of their jobs. Impure.

    Args:
      root: folder of all studies.
      cells: of them.
      queue: of `queued`; None asks for it where one was given to a job, and there is a SLURM.

    Raises:
      ValueError: a record is damaged, or SLURM doesn't answer.
    """
    found = {cell.name: progress.of(root, cell) for cell in cells}
    given = [name for name, known in found.items() if known.job and known.state != DONE]
    if queue is None and given and shutil.which("squeue"):
        queue = queued()
    if queue is not None:
        found |= {name: _with_job(root, found[name], queue.get(found[name].job)) for name in given}
    return found


def _with_job(root: Path, known: Progress, entry: tuple[str, str] | None) -> Progress:
    """Returns how far a cell has come, by the entry of its job in the queue; None where it has left it."""
    job, log = f"job {known.job}", root / JOBS / f"{known.job}_0_log.err"
    if entry is not None:
        state, reason = entry
        reason = "" if reason == "None" else f", {reason}"
        return dataclasses.replace(known, state=QUEUED if state == PENDING else RUNNING, reason=f"{job}{reason}")
    if known.state != WAITING:
        return known
    if not log.exists():
        return dataclasses.replace(known, reason=f"{job} has left the queue before it began")
    return dataclasses.replace(known, state=FAILED, reason=f"{job} has ended: {progress.last_words(log, 'rror', 2)}")


def queued() -> dict[str, tuple[str, str]]:
    """Returns state and reason, in SLURM's words, of the jobs of this user that are in the queue, by their ids. Impure.

    `squeue` needs no accounting, unlike `sacct`, which submitit asks.

    Raises:
      ValueError: there is no SLURM here, or it doesn't answer.
    """
    if not (shutil.which("squeue") and shutil.which("srun")):  # submitit looks for srun
        raise ValueError(
            "there is no SLURM here, whose squeue and srun would be on the path: call it on a machine that submits "
            "jobs, or pass --launcher=local"
        )
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i|%T|%r"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise ValueError(f"SLURM doesn't answer ({brief(error.stderr)}): see what `squeue --me` says") from None
    entries = [line.split("|", 2) for line in text.splitlines()]
    return {job: (state, reason) for job, state, reason in entries}


def submit(
    root: Path, cells: Sequence[Cell], parameters: Mapping[str, Any], retries: int, cluster: str = "slurm"
) -> str:
    """Gives what isn't done yet to the cluster, and returns what was done in words. Impure.

    Args:
      root: folder of all studies, which all machines of the cluster share.
      cells: each after those that it needs.
      parameters: of the jobs: `options`.
      retries: how often a cell may fail beyond the first time.
      cluster: "slurm"; or "local", processes of this machine, for tests.

    Raises:
      ValueError: submitit isn't installed, there is no SLURM here, or it doesn't know or grant an option.
    """
    try:
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise ValueError("--launcher=slurm needs submitit: pip install 'o2o_jax[slurm]'") from None
    queue = queued() if cluster == "slurm" else {}
    found = seen(root, cells, queue)
    jobs = {  # of the cells that are under way
        name: known.job
        for name, known in found.items()
        if known.job in queue or (cluster != "slurm" and known.state == RUNNING)
    }
    count = arrays = 0
    for needs in dict.fromkeys(cell.needs for cell in cells):
        waiting = [
            cell for cell in cells if cell.needs == needs and found[cell.name].state != DONE and cell.name not in jobs
        ]
        if not waiting:
            continue
        executor = _executor(root, cluster, parameters, [jobs[name] for _, name in needs if name in jobs])
        try:
            with executor.batch():
                made = [executor.submit(Work(root.absolute(), cell, retries)) for cell in waiting]
        except FailedJobError as error:
            raise ValueError(f"SLURM refuses the job, see the options of --slurm: {brief(error)}") from None
        for cell, job in zip(waiting, made, strict=True):
            jobs[cell.name] = job.job_id
            progress.given(root, cell, job.job_id)
        count, arrays = count + len(waiting), arrays + 1
    return f"{count} runs were given to the cluster, in {arrays} arrays; {len(jobs) - count} are there already"


def _executor(root: Path, cluster: str, parameters: Mapping[str, Any], after: Sequence[str]) -> Any:
    """Returns what gives jobs to the cluster.

    Args:
      root: folder of all studies.
      cluster: as of `submit`.
      parameters: of the jobs.
      after: other jobs, which these wait for to end well; they vanish where one doesn't.

    Raises:
      ValueError: submitit doesn't know a parameter, or the job's time is too short to save a run.
    """
    import submitit

    given = {**DEFAULTS, **parameters}
    further = {"requeue": True, **given.get("additional_parameters", {})}  # whatever the cluster's default
    own = {"slurm_python": given.pop("python")} if "python" in given else {}
    executor = submitit.AutoExecutor(root.absolute() / JOBS, cluster, slurm_max_num_timeout=MOST_TIMEOUTS, **own)
    if after:
        given["dependency"] = f"afterok:{':'.join(after)}"
        further["kill-on-invalid-dep"] = "yes"
    if "cpus_per_task" in given:  # which srun takes from sbatch in some versions of SLURM alone
        given["srun_args"] = [*given.get("srun_args", []), f"--cpus-per-task={given['cpus_per_task']}"]
    given["additional_parameters"] = further
    # submitit knows some parameters of any cluster, those of SLURM alone by their prefix
    named = {name if name in GENERAL else f"slurm_{name}": value for name, value in given.items()}
    try:
        executor.update_parameters(**named)
        seconds = 60 * given["timeout_min"] - given["signal_delay_s"] - EARLY
    except (NameError, ValueError, AssertionError, TypeError) as error:
        raise ValueError(f"submitit refuses the options of --slurm: {brief(error)}") from None
    if seconds <= 0:
        raise ValueError(
            f"--slurm=timeout_min={given['timeout_min']} leaves a run no time, which SLURM may tell "
            f"{given['signal_delay_s'] + EARLY:.0f} seconds before to save itself: raise it, or lower signal_delay_s"
        )
    return executor
