"""A study of runs that take milliseconds."""

import sys
from pathlib import Path

import pytest

from o2o_jax.reading import Record
from o2o_jax.studies import grid, progress

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture
def quick(monkeypatch):
    """Cells are run by `worker`."""
    monkeypatch.setattr(progress, "OWN_COMMAND", (sys.executable, "-S", str(WORKER)))


@pytest.fixture
def make_cells():
    """(tables of a file) -> its cells."""

    def make(**values):
        values = {"tasks": ["mujoco/hopper-medium"], "datasets": {"mujoco/hopper-medium": "data.npz"}} | values
        return grid.cells(grid.parse("mine", Record(values, "mine.toml", "mend it")), "fast")

    return make
