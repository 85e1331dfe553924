"""Trackio: one run of its for a run's folder, which a resumed run continues. Impure.

Its own variables say where: TRACKIO_DIR, and TRACKIO_PROJECT (o2o_jax where it isn't set), which
`trackio show --project=o2o_jax` shows.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from o2o_jax.runtime.sinks._sent import Sent, Service

PACKAGE = "trackio"


def make(folder: Path, settings: Mapping[str, Any], first_seed: int) -> Service:
    """Opens the sink of a run."""
    import trackio

    sent = Sent(folder / "trackio.json")
    with contextlib.redirect_stdout(sys.stderr):  # what it says of itself is no result
        run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "o2o_jax"),
            name=f"{folder.name}-{sent.id}",
            config=dict(settings),
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def send(phase: str, step: int, row: dict[str, float]) -> None:
        del phase
        run.log(row, step=step)

    def finish() -> None:
        with contextlib.redirect_stdout(sys.stderr):
            run.finish()

    return Service(sent, first_seed, send, finish)
