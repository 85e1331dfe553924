"""Sinks that take nothing back. Impure."""

import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from o2o_jax.reading import read_json
from o2o_jax.runtime import files, sinks


class Sent:
    """Memory of what a run has sent to a service, so that a resumed run, which logs the same again, sends it once.

    Args:
      path: JSON file of the run's folder; made where it is missing.

    Raises:
      ValueError: the file is another's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.id = uuid.uuid4().hex[:8]
        self._steps: dict[str, int] = {}
        if path.exists():
            values = read_json(path, "delete it, and the run is sent as a new one", {"id": str, "steps": dict})
            with values.blamed():
                self.id, self._steps = values["id"], {phase: int(step) for phase, step in values["steps"].items()}

    def due(self, phase: str, step: int) -> bool:
        """Returns whether what a phase logs at `step` was not sent yet."""
        return step > self._steps.get(phase, -1)

    def mark(self, phase: str, step: int) -> None:
        """Remembers that it was."""
        self._steps[phase] = step
        files.replace(self._path, json.dumps({"id": self.id, "steps": self._steps}))


class Service:
    """A `Sink` that sends a row of scalars at a time: `phase/term`, the mean over seeds, and `phase/term/seed<s>`.

    Args:
      sent: memory of the run.
      first_seed: number of the first seed.
      send: (phase, step, name -> value) -> None.
      finish: () -> None, at the end.
    """

    def __init__(
        self,
        sent: Sent,
        first_seed: int,
        send: Callable[[str, int, dict[str, float]], Any],
        finish: Callable[[], Any],
    ) -> None:
        self._sent, self._first_seed, self._send, self._finish = sent, first_seed, send, finish

    def write(self, phase: str, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        """Sends a row, once."""
        if not self._sent.due(phase, step):
            return
        row = {}
        for term, values in sinks.per_seed(metrics, self._first_seed).items():
            row[f"{phase}/{term}"] = float(np.mean(list(values.values())))
            if len(values) > 1:
                row |= {f"{phase}/{term}/seed{seed}": value for seed, value in values.items()}
        self._send(phase, step, row)
        self._sent.mark(phase, step)

    def rewind(self, phase: str, step: int) -> None:
        """Does nothing: what was sent stays, and comes again as it was."""

    def close(self) -> None:
        """Ends the service's run."""
        self._finish()
