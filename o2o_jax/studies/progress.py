"""Progress of a study's cells. Impure: reads and writes the disk.

Beside the folder of a cell's run lie its log, `<name>.log`, and `<name>.json`, what is known of its attempts. Whoever
runs the cell holds a lock on the log, which the system releases with the process.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from o2o_jax import envs
from o2o_jax.data.sources import minari_folder
from o2o_jax.reading import Record, brief, read_json
from o2o_jax.runtime import files
from o2o_jax.studies.grid import DATASET, Cell

DONE, RUNNING, QUEUED, FAILED, WAITING = "done", "running", "queued", "failed", "waiting"
# of a command that was asked to stop and can be resumed: by its own status, or before it could have one
STOPPED = {status for signum in (signal.SIGINT, signal.SIGTERM) for status in (128 + signum, -signum)}
ANNOUNCEMENTS = {signal.SIGUSR1, signal.SIGUSR2}  # clusters send one to all of a job's processes before its end
OWN_COMMAND = (sys.executable, "-m", "o2o_jax.cli")
_KINDS = {"attempts": int, "failures": int, "seconds": float, "status": int, "job": str}


@dataclasses.dataclass(frozen=True)
class Progress:
    """State of a cell, as far as it is known.

    Attributes:
      state: DONE, RUNNING, QUEUED of a cluster, FAILED or WAITING.
      seconds: that its attempts took so far, those under way aside.
      failures: in a row.
      reason: last line of the log of one that failed, or what a cluster says of its job.
      job: of the cluster that it was given to last; "" for none.
    """

    state: str
    seconds: float = 0.0
    failures: int = 0
    reason: str = ""
    job: str = ""


def of(root: Path, cell: Cell) -> Progress:
    """Returns how far a cell has come.

    Args:
      root: folder of all studies.
      cell: of one.

    Raises:
      ValueError: its record is damaged.
    """
    if cell.command == DATASET and minari_folder(envs.get_task(cell.task).dataset_id).exists():
        return Progress(DONE)
    record = _read(root, cell)
    known = Progress(
        state=WAITING,
        seconds=record.at("seconds", float, 0.0),
        failures=record.at("failures", int, 0),
        job=record.at("job", str, ""),
    )
    if _is_locked(_beside(root, cell, ".log")):
        return dataclasses.replace(known, state=RUNNING)
    if record.get("status") == 0 and (cell.command == DATASET or (root / cell.name / "config.json").is_file()):
        return dataclasses.replace(known, state=DONE)
    if known.failures:
        return dataclasses.replace(known, state=FAILED, reason=last_words(_beside(root, cell, ".log")))
    return known


def last_words(path: Path, about: str = "", count: int = 1) -> str:
    """Returns the end of a log, as one line of limited length.

    Args:
      path: of the log.
      about: what a line must have in it.
      count: of different lines, the last ones that say something.
    """
    with contextlib.suppress(OSError):
        lines = path.read_bytes()[-4096:].decode(errors="replace").splitlines()
        found = [*dict.fromkeys(line for line in reversed(lines) if line.strip() and about in line)][:count]
        if found:
            return brief("; ".join(line.removeprefix("error: ") for line in reversed(found)))
    return "its log doesn't say why"


def given(root: Path, cell: Cell, job: str) -> None:
    """Notes that a cell was given to a job of the cluster."""
    _write(root, cell, {**_read(root, cell), "job": job})


class Attempt:
    """One run of a cell's command, as a process of its own.

    Args:
      root: folder of all studies.
      cell: to be run.
      cores: that the process may use; None for all.
      command: what the cell's arguments are for, OWN_COMMAND by default.

    Raises:
      BlockingIOError: another process runs it.
      OSError: its folder can't be made.
    """

    def __init__(
        self,
        root: Path,
        cell: Cell,
        cores: Sequence[int] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self.cell, self._root = cell, root
        path = _beside(root, cell, ".log")
        files.make_folder(path.parent)
        self._log: IO[bytes] = path.open("ab")
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the process inherits it, and outlives this one
        except BlockingIOError:
            self._log.close()
            raise
        except OSError:  # a file system without locks
            pass
        self._began = time.monotonic()
        self._log.write(f"$ o2o {' '.join(cell.argv(root))}\n".encode())
        self._log.flush()
        # who runs the study stops its processes, so that they can save their runs: Ctrl-C doesn't reach a session of
        # their own, and they inherit that what announces a job's end, and would end them, is blocked
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ANNOUNCEMENTS)
        try:
            self.process = subprocess.Popen(
                [*(command or OWN_COMMAND), *cell.argv(root)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if cores:
            os.sched_setaffinity(self.process.pid, cores)  # before it has threads, which inherit it

    def poll(self) -> Progress | None:
        """Returns how far the cell has come once the process has ended, which is noted once; None while it runs."""
        status = self.process.poll()
        if status is None:
            return None
        if self._log.closed:
            return of(self._root, self.cell)
        self._log.close()
        record = _read(self._root, self.cell)
        failures = 0 if status == 0 else record.at("failures", int, 0) + (status not in STOPPED)
        seconds = record.at("seconds", float, 0.0) + time.monotonic() - self._began
        attempts = record.at("attempts", int, 0) + 1
        _write(
            self._root,
            self.cell,
            {**record, "status": status, "attempts": attempts, "failures": failures, "seconds": round(seconds, 3)},
        )
        return of(self._root, self.cell)

    def stop(self) -> None:
        """Asks the process to save its run and to end, and waits until it has."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self.poll()


@contextlib.contextmanager
def stopping(attempts: Sequence[Attempt]) -> Iterator[None]:
    """Stops what runs when the context ends early.

    Args:
      attempts: those under way, as they then are.
    """
    try:
        yield
    finally:
        running = [attempt for attempt in attempts if attempt.process.poll() is None]
        for attempt in running:  # all of them at once, then one after the other
            attempt.process.terminate()
        for attempt in running:
            attempt.stop()


def _beside(root: Path, cell: Cell, suffix: str) -> Path:
    folder = root / cell.name
    return folder.with_name(folder.name + suffix)


def _read(root: Path, cell: Cell) -> Record:
    path = _beside(root, cell, ".json")
    if not path.exists():
        return Record({}, str(path), "")
    return read_json(path, "delete it, and the cell is run again", _KINDS)


def _write(root: Path, cell: Cell, values: Mapping[str, object]) -> None:
    path = _beside(root, cell, ".json")
    files.make_folder(path.parent)
    files.replace(path, json.dumps(values, indent=2) + "\n")


def _is_locked(path: Path) -> bool:
    """Returns whether a live process runs a cell, by its log."""
    if not path.exists():
        return False
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False
