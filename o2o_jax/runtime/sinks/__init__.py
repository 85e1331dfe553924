"""Places where metrics go beside the CSV files: a module for each, which is imported on demand. Impure.

A module names the package that it needs, `PACKAGE`, and has `make(folder, settings, first_seed) -> Sink`; where a
service may refuse it, `check() -> None` asks beforehand.
"""

import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from o2o_jax import registry
from o2o_jax.runtime.events import Event


class Sink(Protocol):
    """A place where the metrics of a run go."""

    def write(self, phase: str, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        """Takes what a phase logs at `step`: term -> one value per seed [S], or one for all []."""

    def rewind(self, phase: str, step: int) -> None:
        """Hears that a resumed run will log again what a phase logged after `step`."""

    def close(self) -> None:
        """Sends what is left."""


def names() -> list[str]:
    """Lists the names of all sinks, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> ModuleType:
    """Imports the module of a sink.

    Raises:
      ValueError: there is none of that name, or its package isn't installed.
    """
    if name not in names():
        raise ValueError(registry.unknown("sink", name, names()))
    module = importlib.import_module(f"{__name__}.{name}")
    if importlib.util.find_spec(module.PACKAGE) is None:
        raise ValueError(f"{name} needs the package {module.PACKAGE}: pip install 'o2o_jax[{name}]', or leave it out")
    return module


def check(name: str) -> None:
    """Asks what can be asked of a sink before a run claims its folder, such as whether its service knows us. Impure.

    Raises:
      ValueError: as `load`; or the service doesn't.
    """
    getattr(load(name), "check", lambda: None)()


def make(name: str, folder: str | os.PathLike, settings: Mapping[str, Any], first_seed: int = 0) -> Sink:
    """Opens a sink for a run.

    Args:
      name: one of `names`.
      folder: of the run.
      settings: JSON-like, that the run follows from.
      first_seed: number of the first of its seeds; the others follow it.

    Raises:
      ValueError: as `load`; or the service refuses the run, which the message says.
    """
    sink: Sink = load(name).make(Path(folder), settings, first_seed)
    return sink


def take(sink: Sink, event: Event) -> None:
    """Gives a sink the rows of an event, and before them what the event takes back."""
    for phase, step in event.cut.items():
        sink.rewind(phase, step)
    for phase, metrics in event.rows.items():
        sink.write(phase, event.step, metrics)


def per_seed(metrics: Mapping[str, ArrayLike], first_seed: int) -> dict[str, dict[int, float]]:
    """Returns term -> number of the seed -> value, of what `Sink.write` takes; a value for all is every seed's."""
    columns = {term: np.atleast_1d(np.asarray(values)) for term, values in metrics.items()}
    seeds = max(map(len, columns.values()), default=0)
    return {
        term: dict(enumerate(np.broadcast_to(column, (seeds,)).tolist(), first_seed))
        for term, column in columns.items()
    }
