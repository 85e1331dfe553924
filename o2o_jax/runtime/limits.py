"""Limits of this machine: memory and time that a command would take, refused before it takes them."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from o2o_jax import operations
from o2o_jax.runtime import devices
from o2o_jax.runtime.plan import Plan
from o2o_jax.types import Spec

HOURS_OF_A_YEAR = 8_760  # a command that takes longer is a slip of the pen
EPISODE_BYTES = 64  # of an episode that is played: its start, its return, its length, and whether it goes on
WAYS_OUT = {
    "networks": "lower --seeds, or the number or widths of the networks",
    "replay": "lower --seeds, or replay.buffer_size (of a method on rollouts their rollout.env_steps)",
    "batches": "lower --seeds or the batch size",
    "data": "take less data",
    "evaluation": "lower --seeds, or the episodes of an evaluation",
}


def memory_of(plan: Plan) -> dict[str, int]:
    """Returns the bytes that a run takes at the very least, by what takes them: those of all seeds on all devices.

    Nothing is allocated. Of a batch its rows count and what the widest layer makes of them, of the data their copies
    on the devices; programs and simulators, and what an update holds beside, come on top.

    Args:
      plan: of the run.

    Raises:
      ValueError: see `Plan.shapes`.
    """
    setup, run = plan.setup, plan.shapes()
    num_seeds, rows = len(setup.seeds), 0
    if plan.dataset is not None:
        rows = sum(column.nbytes for column in vars(plan.dataset.transitions).values())
    replay = _bytes(run.buffer)
    return {
        "networks": num_seeds * (_bytes(run) - replay),
        "replay": num_seeds * replay,
        "batches": num_seeds * _batch_bytes(setup.config, setup.spec),
        "data": setup.mesh.size * rows,
        "evaluation": num_seeds * plan.episodes * _episode_bytes(setup.spec),
    }


def check(plan: Plan) -> dict[str, int]:
    """Refuses a run that needs more memory than is free here. Impure: asks the system.

    Args:
      plan: of the run; neither environments nor an evaluator need be made.

    Returns:
      `memory_of` it.

    Raises:
      ValueError: it does, or see `Plan.shapes`.
    """
    memory, mesh = memory_of(plan), plan.setup.mesh
    device = mesh.devices.flat[0]
    if device.platform == "cpu":  # whose devices share the machine's memory
        check_memory(memory, WAYS_OUT, device)
    else:
        shares = {name: count // mesh.size for name, count in memory.items() if name != "evaluation"}
        check_memory(shares, WAYS_OUT, device)
        check_memory({"evaluation": memory["evaluation"]}, WAYS_OUT)
    return memory


def check_episodes(policies: int, episodes: int, steps: int, spec: Spec) -> None:
    """Refuses to remember so many episodes action by action that they don't fit into memory. Impure.

    Args:
      policies: P.
      episodes: E of each.
      steps: T, time limit of an episode.
      spec: sizes of observations and actions.

    Raises:
      ValueError: they don't.
    """
    needed = policies * episodes * (_episode_bytes(spec) + 4 * steps * (spec.action_dim + 1))
    check_memory({"episodes": needed}, {"episodes": "lower --episodes"})


def check_memory(needed: Mapping[str, int], ways_out: Mapping[str, str], device: jax.Device | None = None) -> None:
    """Refuses what takes more memory than is free. Impure: asks the system.

    Args:
      needed: bytes, by what takes them.
      ways_out: what to do where that takes the most, by the same names.
      device: whose memory it is; None for the machine's own.

    Raises:
      ValueError: it takes more.
    """
    free = devices.memory_available(device)
    if free is None or sum(needed.values()) <= free:
        return
    where = "this machine" if device is None or device.platform == "cpu" else f"each {device.device_kind}"
    parts = sorted(needed, key=lambda name: needed[name], reverse=True)
    listed = ", ".join(f"{name} {size_text(needed[name])}" for name in parts if needed[name])
    raise ValueError(
        f"this takes at least {size_text(sum(needed.values()))} of memory ({listed}), but {where} has "
        f"{size_text(free)} free: {ways_out[parts[0]]}"
    )


def check_hours(seconds: float, way_out: str) -> None:
    """Refuses what would take more than a year.

    Args:
      seconds: that it takes.
      way_out: what to do instead.

    Raises:
      ValueError: it does.
    """
    if seconds > 3600 * HOURS_OF_A_YEAR:
        raise ValueError(f"this would take about {span_text(seconds)}, more than a year, on this machine: {way_out}")


def size_text(count: float) -> str:
    """Returns a number of bytes for people: "512 MB"."""
    for unit in ("MB", "GB", "TB", "PB"):
        count /= 1e6 if unit == "MB" else 1e3
        if count < 10_000:
            break
    return f"{count:,.0f} {unit}" if count < 1e9 else f"{count:.3g} {unit}"


def span_text(seconds: float) -> str:
    """Returns a length of time for people: "7 min", "1.5 h"."""
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.2g} min"


def _bytes(tree: Any) -> int:
    """Those of a pytree of shapes; Python's own whole numbers don't overflow."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _batch_bytes(config: Any, spec: Spec) -> int:
    sizes = getattr(config, "networks", config)  # offline settings have no parts
    widest = max((*getattr(sizes, "hidden", ()), *getattr(sizes, "critic_hidden", ())), default=0)
    row = 2 * spec.observation_dim + spec.action_dim + 2
    return 4 * operations.batch_size_of(config) * (row + widest)


def _episode_bytes(spec: Spec) -> int:
    return EPISODE_BYTES + 4 * (spec.observation_dim + spec.action_dim)
