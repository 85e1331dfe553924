"""Weights & Biases: one run of its for a run's folder, which a resumed run continues. Impure.

Its own variables choose project, account and mode: WANDB_PROJECT (o2o_jax where it isn't set), WANDB_ENTITY,
WANDB_MODE=offline.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from o2o_jax import registry
from o2o_jax.runtime.sinks._sent import Sent, Service

PACKAGE = "wandb"


def check() -> None:
    """Logs in, where the mode asks for it.

    Raises:
      ValueError: there is no login.
    """
    import wandb

    if os.environ.get("WANDB_MODE", "online").lower() not in ("online", "shared"):
        return
    try:
        known = wandb.login()
    except wandb.Error as error:
        raise _refused(error) from None
    if not known:
        raise _refused("no login")


def _refused(reason: object) -> ValueError:
    text = registry.clipped(str(reason), 300)
    return ValueError(f"Weights & Biases: {text}; call wandb login first, or set WANDB_MODE=offline")


def make(folder: Path, settings: Mapping[str, Any], first_seed: int) -> Service:
    """Opens the sink of a run.

    Raises:
      ValueError: Weights & Biases refuses it.
    """
    import wandb

    sent = Sent(folder / "wandb.json")
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "o2o_jax"),
            id=sent.id,
            name=os.environ.get("WANDB_NAME", folder.name),
            dir=folder,
            config=dict(settings),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off"),
        )
    except wandb.Error as error:
        raise _refused(error) from None
    axes: set[str] = set()

    def send(phase: str, step: int, row: dict[str, float]) -> None:
        if phase not in axes:  # phases count steps of their own
            run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")
            axes.add(phase)
        run.log({f"{phase}/step": step} | row)

    return Service(sent, first_seed, send, run.finish)
