"""TensorBoard: scalars `phase/term` in `<run>/tensorboard/<phase>/seed<s>`. Impure."""

import math
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
        from tensorboardX import SummaryWriter

        self._folder, self._first_seed, self._writer = folder, first_seed, SummaryWriter
        self._writers: dict[tuple[str, int], Any] = {}
        self._purge_from: dict[str, int] = {}

    def write(self, phase: str, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        """Writes a scalar per term and seed, of those that are numbers."""
        for term, values in sinks.per_seed(metrics, self._first_seed).items():
            for seed, value in values.items():
                if not math.isfinite(value):  # not measured, or diverged: a curve has a gap there
                    continue
                self._of(phase, seed).add_scalar(f"{phase}/{term}", value, step)
        for (written, _), writer in self._writers.items():
            if written == phase:
                writer.flush()  # a run that is killed keeps its curve

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

    def _of(self, phase: str, seed: int) -> Any:
        if (phase, seed) not in self._writers:
            folder = self._folder / phase / f"seed{seed}"
            self._writers[phase, seed] = self._writer(str(folder), purge_step=self._purge_from.get(phase))
        return self._writers[phase, seed]
