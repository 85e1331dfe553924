"""Metrics on their way out: one CSV file per phase, progress bars."""

import contextlib
import csv
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from o2o_jax import registry
from o2o_jax.reading import brief, read_text
from o2o_jax.runtime import sinks
from o2o_jax.runtime.events import Event

_INDEX = ("step", "seed")  # leading columns of every file
WAY_OUT = "bring the file back, or start the run again in another folder"


class MetricLog:
    """Appends metrics of all seeds to `<directory>/<phase>.csv`, a `sinks.Sink`; impure.

    A file has the columns step, seed and one per term, in alphabetical order; its first row settles the terms. Every
    `write` reaches the disk before it returns, so that a run which is killed keeps its curve.

    Args:
      directory: folder of the run; made where it is missing.
      first_seed: number of the first of the S seeds that are written; the others follow it.
    """

    def __init__(self, directory: str | os.PathLike, first_seed: int = 0) -> None:
        self.directory = Path(directory)
        self._first_seed = first_seed
        self.directory.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, tuple[io.TextIOWrapper, list[str]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, event: Event) -> None:
        """Drops and appends the rows of an event."""
        sinks.take(self, event)

    def write(self, phase: str, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        """Appends one row per seed.

        Args:
          phase: name of the file, "align".
          step: counter of that phase: updates, or environment steps per seed.
          metrics: term -> one value per seed [S], or one for all [].

        Raises:
          ValueError: no terms, terms other than the file's, or terms that disagree in S.
        """
        terms = sorted(metrics)
        if not terms or set(terms) & set(_INDEX):
            raise ValueError(f"metrics of phase {phase} need terms other than step and seed, got {terms}")
        columns = [np.atleast_1d(np.asarray(metrics[term])) for term in terms]
        seeds = max(len(column) for column in columns)
        if any(column.shape not in ((seeds,), (1,)) for column in columns):
            shapes = {term: column.shape for term, column in zip(terms, columns, strict=True)}
            raise ValueError(f"metrics of phase {phase} need one value per seed, got the shapes {shapes}")
        table = np.stack([np.broadcast_to(column, (seeds,)) for column in columns], axis=1)  # [S, terms]
        file, header = self._open(phase, [*_INDEX, *terms])
        if header != [*_INDEX, *terms]:
            raise ValueError(
                f"{file.name} has the columns {registry.listed(header[2:])}, so it cannot take {registry.listed(terms)}"
            )
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([int(step), seed, *row] for seed, row in enumerate(table.tolist(), self._first_seed))
        file.flush()

    def rewind(self, phase: str, step: int) -> None:
        """Drops what a phase logged after `step`: a run resumed from there will log it again.

        The file is replaced in one go. A phase without a file is left alone.
        """
        if phase in self._files:
            self._files.pop(phase)[0].close()
        path = _path(self.directory, phase)
        if not path.exists():
            return
        header, rows = _read_rows(path)
        temporary = path.with_suffix(".csv.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([header, *(row for row in rows if int(row[0]) <= step)] if header else [])
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def close(self) -> None:
        """Closes all files."""
        for file, _ in self._files.values():
            file.close()
        self._files.clear()

    def _open(self, phase: str, header: list[str]) -> tuple[io.TextIOWrapper, list[str]]:
        if phase not in self._files:
            path = _path(self.directory, phase)
            existing: list[str] = []
            if path.exists():
                existing, rows = _read_rows(path)
                if not path.read_bytes().endswith(b"\n"):  # cut short by a kill: finish the file before appending to it
                    self.rewind(phase, max((int(row[0]) for row in rows), default=-1))
            file = path.open("a", newline="", encoding="utf-8")
            if not existing:
                csv.writer(file, lineterminator="\n").writerow(header)
            self._files[phase] = (file, existing or header)
        return self._files[phase]


def read(directory: str | os.PathLike, phase: str) -> dict[str, np.ndarray]:
    """Reads `<directory>/<phase>.csv`: column -> values [rows], `step` and `seed` int64, terms float64.

    A last row that was cut short is left out: the run may still be writing.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not a file of `MetricLog`.
    """
    path = _path(directory, phase)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: {directory} holds no run that reached the phase {phase!r}")
    header, rows = _read_rows(path)
    try:
        return {
            name: np.array([int(row[i]) if name in _INDEX else float(row[i]) for row in rows], _dtype(name))
            for i, name in enumerate(header)
        }
    except (ValueError, OverflowError) as error:
        raise _no_metrics(path, error) from None


def row_counts(directory: str | os.PathLike) -> dict[str, int]:
    """Returns how many complete rows each phase's file has; other files don't count. Impure: reads the disk."""
    found = {}
    for path in sorted(Path(directory).glob("*.csv")):
        content = path.read_bytes()
        if content.startswith(f"{','.join(_INDEX)},".encode()):
            found[path.stem] = content.count(b"\n") - 1
    return found


def progress(phase: str, total: int, initial: int = 0) -> tqdm:
    """A progress bar with rate and time left; on anything but a terminal, a line every 30 seconds.

    Args:
      phase: label in front.
      total: steps in all.
      initial: steps done before, by a run that is resumed.

    Returns:
      The bar: `update(n)`, `set_postfix(score=44.1)`, `close()`; a context manager.
    """
    options = {} if sys.stderr.isatty() else {"file": _Lines(), "mininterval": 30.0, "maxinterval": 60.0, "ncols": 100}
    return tqdm(desc=phase, total=total, initial=initial, unit=" steps", **options)


class _Lines:
    """Standard error for bars that nobody watches: every update is a line, instead of drawing over the last one."""

    def write(self, text: str) -> None:
        if text.strip():
            with contextlib.suppress(BrokenPipeError):  # nobody listens any more, which is no reason to stop
                sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.flush()


def _path(directory: str | os.PathLike, phase: str) -> Path:
    return Path(directory) / f"{phase}.csv"


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and complete rows of a metrics file; both empty where not even the header was finished."""
    text = read_text(path, WAY_OUT)
    try:
        lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1]), strict=True))
    except csv.Error as error:
        raise _no_metrics(path, error) from None
    if not lines:
        return [], []
    header, *rows = lines
    if tuple(header[:2]) != _INDEX or any(len(row) != len(header) for row in rows):
        raise _no_metrics(path, "expected the columns step, seed, … in every row")
    return header, rows


def _dtype(name: str) -> type:
    return np.int64 if name in _INDEX else np.float64


def _no_metrics(path: Path, reason: object) -> ValueError:
    return ValueError(f"{path} is not a metrics file: {brief(reason)}; {WAY_OUT}")
