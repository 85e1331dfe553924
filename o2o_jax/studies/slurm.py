"""Launcher of a study's cells on a cluster, through submitit: one job per cell, as arrays. Impure.

Jobs of cells that need others wait for theirs by SLURM's dependencies. A job that is preempted, or whose time is over,
saves its run, is put back in the queue by submitit, and resumes.
"""

import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from o2o_jax.reading import brief
from o2o_jax.studies import progress
from o2o_jax.studies.grid import Cell
from o2o_jax.studies.progress import DONE, RUNNING, Attempt, Progress

JOBS = "slurm"  # folder of submitit's own files, below that of all studies
PAUSE = 1.0  # seconds between two looks at a process
LIVE = {"PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "CONFIGURING", "COMPLETING", "RESIZING", "PREEMPTED"}
DEFAULTS = {"name": "o2o", "timeout_min": 24 * 60}  # of a job, after which it resumes in another
GENERAL = {"name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"}
MOST_TIMEOUTS = 1_000  # of a job, each of which resumes


class Work:
    """Work of a job: a cell's command, repeated where it fails.

    submitit pickles it, calls it on the cluster and, where the job has to make way, asks it for what shall go on.

    Args:
      root: folder of all studies.
      cell: to be run.
      retries: how often it may fail beyond the first time.
    """

    def __init__(self, root: Path, cell: Cell, retries: int) -> None:
        self.root, self.cell, self.retries = root, cell, retries
        self.command = progress.OWN_COMMAND
        self._attempt: Attempt | None = None

    def __call__(self) -> str:
        """Returns the state that the cell has come to.

        Raises:
          RuntimeError: it failed once too often.
        """
        failures = 0
        while (seen := progress.of(self.root, self.cell)).state != DONE and failures <= self.retries:
            with contextlib.suppress(BlockingIOError):  # another job runs it: it is waited for
                self._attempt = Attempt(self.root, self.cell, command=self.command)
                while (ended := self._attempt.poll()) is None:
                    time.sleep(PAUSE)
                failures += ended.state != DONE
            time.sleep(PAUSE)
        if seen.state != DONE:
            raise RuntimeError(f"{self.cell.name} {seen.state}: {seen.reason}")
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
      texts: "option=value" each, such as partition=gpu or timeout_min=60.

    Raises:
      ValueError: one has no value.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise ValueError(f"--slurm={text} must read --slurm=option=value, such as --slurm=partition=gpu")
        found[name] = int(value) if value.isdigit() else value
    return found


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
      ValueError: submitit isn't installed, there is no SLURM here, or it doesn't know an option.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise ValueError("--launcher=slurm needs submitit: pip install 'o2o_jax[slurm]'") from None
    jobs: dict[str, str] = {}  # of the cells that are under way
    count = arrays = 0
    for needs, members in itertools.groupby(cells, lambda cell: cell.needs):
        group = [*members]
        seen = {cell.name: progress.of(root, cell) for cell in group}
        jobs |= {name: known.job for name, known in seen.items() if _is_live(root, cluster, known)}
        waiting = [cell for cell in group if seen[cell.name].state != DONE and cell.name not in jobs]
        if not waiting:
            continue
        executor = _executor(root, cluster, {**parameters, **_after([jobs[name] for _, name in needs if name in jobs])})
        with executor.batch():
            made = [executor.submit(Work(root.absolute(), cell, retries)) for cell in waiting]
        for cell, job in zip(waiting, made, strict=True):
            jobs[cell.name] = job.job_id
            progress.given(root, cell, job.job_id)
        count, arrays = count + len(waiting), arrays + 1
    return f"{count} runs were given to the cluster, in {arrays} arrays; {len(jobs) - count} are there already"


def _executor(root: Path, cluster: str, parameters: Mapping[str, Any]) -> Any:
    """Returns what gives jobs to the cluster.

    Raises:
      ValueError: there is no SLURM here, or it doesn't know a parameter.
    """
    import submitit

    try:
        executor = submitit.AutoExecutor(root.absolute() / JOBS, cluster, slurm_max_num_timeout=MOST_TIMEOUTS)
    except RuntimeError:
        raise ValueError(
            "there is no SLURM here, whose srun would be on the path: call it on a machine that submits jobs, or pass "
            "--launcher=local"
        ) from None
    # submitit knows some parameters of any cluster, those of SLURM alone by their prefix
    named = {name if name in GENERAL else f"slurm_{name}": value for name, value in {**DEFAULTS, **parameters}.items()}
    try:
        executor.update_parameters(**named)
    except (NameError, ValueError, AssertionError, TypeError) as error:
        raise ValueError(f"submitit refuses the options of --slurm: {brief(error)}") from None
    return executor


def _after(jobs: Sequence[str]) -> dict[str, Any]:
    """Returns the parameters of jobs that wait for others to end well, and vanish where one doesn't."""
    if not jobs:
        return {}
    return {"dependency": f"afterok:{':'.join(jobs)}", "additional_parameters": {"kill-on-invalid-dep": "yes"}}


def _is_live(root: Path, cluster: str, known: Progress) -> bool:
    """Returns whether a cell's job still waits or runs. Impure: asks SLURM."""
    import submitit

    if cluster != "slurm" or known.state == DONE or not known.job:
        return known.state == RUNNING
    return submitit.SlurmJob(root.absolute() / JOBS, known.job).state.split()[0] in LIVE
