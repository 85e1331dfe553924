"""TensorBoard: scalars `phase/term` in `<run>/tensorboard/<phase>/seed<s>`. Impure."""

import math
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from o2o_jax.runtime import sinks

PACKAGE = "tensorboardX"


def make(folder: Path, settings: Mapping[str, Any], first_seed: int) -> "TensorBoard":
    """Opens the sink of a run."""
    del settings
    return TensorBoard(folder / "tensorboard", first_seed)


class TensorBoard:
    """Event files of a run, one per phase and seed, as a `Sink`.

    Args:
      folder: for them.
      first_seed: number of the first seed.
    """

    def __init__(self, folder: Path, first_seed: int) -> None:
        self._folder, self._first_seed = folder, first_seed
        self._writers: dict[tuple[str, int], _EventFile] = {}
        self._purge_from: dict[str, int] = {}

    def write(self, phase: str, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        """Writes a scalar per term and seed, of those that are numbers; a run that is killed then keeps them."""
        rows: dict[int, dict[str, float]] = {}
        for term, values in sinks.per_seed(metrics, self._first_seed).items():
            for seed, value in values.items():
                if math.isfinite(value):  # else it wasn't measured, or diverged: the curve has a gap there
                    rows.setdefault(seed, {})[f"{phase}/{term}"] = value
        for seed, row in rows.items():
            self._of(phase, seed).write(step, row)

    def rewind(self, phase: str, step: int) -> None:
        """Makes the viewer leave out what was written after `step` until now."""
        self._purge_from[phase] = step + 1
        for key in [key for key in self._writers if key[0] == phase]:
            self._writers.pop(key).close()

    def close(self) -> None:
        """Closes all files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _of(self, phase: str, seed: int) -> "_EventFile":
        if (phase, seed) not in self._writers:
            folder = self._folder / phase / f"seed{seed}"
            self._writers[phase, seed] = _EventFile(folder, self._purge_from.get(phase))
        return self._writers[phase, seed]


class _EventFile:
    """A file of events, each on the disk when it has been written.

    TensorboardX' own `SummaryWriter` leaves them to a thread, whose queue its `flush` doesn't wait for.
    """

    def __init__(self, folder: Path, purge_from: int | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(parents=True, exist_ok=True)
        # by the second alone, a file that is opened anew would have the name of the one before
        self._writer = EventsWriter(str(folder / "events"), f".{uuid.uuid4().hex[:8]}")
        if purge_from is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.write_event(self._event(wall_time=time.time(), step=purge_from, session_log=start))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes scalars by their tags."""
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        summary = self._summary(value=values)
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
