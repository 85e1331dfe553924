"""Launcher of a study's cells on this machine: a few processes at a time, each on its own cores. Impure."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from o2o_jax.studies import progress
from o2o_jax.studies.grid import Cell
from o2o_jax.studies.progress import DONE, FAILED, RUNNING, Attempt, Progress

PAUSE = 0.2  # seconds between two looks at the processes


def run(
    root: Path,
    cells: Sequence[Cell],
    jobs: int,
    retries: int,
    report: Callable[[Cell, Progress], None],
) -> None:
    """Runs what isn't done yet, each cell once those that it needs are done. Impure.

    A cell that fails is tried again, and holds up nothing but those that need it. What another process runs is waited
    for. Where this one is stopped, so are its cells, which then can be resumed.

    Args:
      root: folder of all studies.
      cells: each after those that it needs.
      jobs: most that run at a time.
      retries: how often a cell may fail beyond the first time, in this call.
      report: called with a cell whenever its state changes.
    """
    open_cells = {cell.name: cell for cell in cells}
    states: dict[str, str] = {}
    failures = dict.fromkeys(open_cells, 0)
    attempts: list[Attempt] = []
    cores = slots(jobs)
    taken: dict[str, int] = {}

    def note(cell: Cell, seen: Progress) -> None:
        if states.get(cell.name) != seen.state:
            states[cell.name] = seen.state
            report(cell, seen)

    with progress.stopping(attempts):
        while open_cells:
            for attempt in [each for each in attempts if each.process.poll() is not None]:
                seen, cell = attempt.poll(), attempt.cell
                attempts.remove(attempt)
                del taken[cell.name]
                failures[cell.name] += seen is not None and seen.state != DONE
                if seen is not None and (seen.state == DONE or failures[cell.name] > retries):
                    del open_cells[cell.name]
                    note(cell, seen)
            for cell in [each for each in open_cells.values() if each.name not in taken]:
                seen = progress.of(root, cell)
                lost = [name for _, name in cell.needs if states.get(name) == FAILED]
                if seen.state == DONE or lost:
                    del open_cells[cell.name]
                    note(cell, seen if not lost else Progress(FAILED, reason=f"it needs {lost[0]}, which failed"))
                elif seen.state == RUNNING:  # by another process
                    note(cell, seen)
                elif len(taken) < jobs and all(states.get(name) == DONE for _, name in cell.needs):
                    slot = min(set(range(jobs)) - set(taken.values()))
                    try:
                        attempts.append(Attempt(root, cell, cores[slot]))
                    except BlockingIOError:
                        continue  # another process was faster
                    taken[cell.name] = slot
                    note(cell, Progress(RUNNING))
            time.sleep(PAUSE)


def slots(jobs: int) -> list[list[int] | None]:
    """Returns the cores of each of several processes; None where there are fewer cores, or none can be told apart."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    cores = sorted(os.sched_getaffinity(0))
    return [cores[slot::jobs] or None for slot in range(jobs)]
