"""With what numbers were made: versions, commit, machine, dataset, time. Impure."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from o2o_jax.data.dataset import Dataset
from o2o_jax.reading import Record, parse_json, read_text
from o2o_jax.runtime import files
from o2o_jax.runtime.comparison import differences, in_words

PACKAGES = (
    "o2o_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy",
    "gymnasium", "minari", "mujoco", "envpool",
)  # fmt: skip
FILE = "provenance.jsonl"
WAY_OUT = "delete it, and nothing says any more what the run was made with"
_KINDS = {"commit": str, "fingerprint": str, "seconds": dict, "taken": str, "versions": dict}
PACKAGE = Path(__file__).parent.parent


def record(folder: str | os.PathLike, dataset: Dataset | None = None) -> None:
    """Adds a line to `<folder>/provenance.jsonl` for this process: the command, `environment` and the dataset.

    A run has as many lines as processes have worked on it.

    Args:
      folder: of the run.
      dataset: what it trains on, if on anything.

    Raises:
      ValueError: an earlier process worked on other data of the same name, or the file is damaged.
    """
    data = {} if dataset is None else {"dataset": dataset.name, "fingerprint": dataset.fingerprint}
    lines = read(folder)
    if dataset is not None:
        check_data(folder, dataset, "start over with another --out")
    line = {
        "command": command(),
        "commit": commit(),
        **environment(),
        **data,
    }
    _write(folder, [*lines, line])


def record_seconds(folder: str | os.PathLike, seconds: Mapping[str, float]) -> None:
    """Writes into the line of this process, the newest, what it has spent on each phase so far.

    Args:
      folder: of the run.
      seconds: by phase, of wall time.

    Raises:
      ValueError: the file is damaged.
    """
    lines = read(folder)
    if lines:  # else somebody has deleted the file
        lines[-1]["seconds"] = {phase: round(spent, 3) for phase, spent in seconds.items()}
        _write(folder, lines)


def seconds(folder: str | os.PathLike) -> dict[str, float]:
    """Returns the wall time that all processes have spent on a run's phases, in seconds: what a kill lost counts too.

    Args:
      folder: of the run.

    Raises:
      ValueError: its file is damaged.
    """
    total: dict[str, float] = {}
    for line in read(folder):
        spent = Record(line.get("seconds", {}), str(Path(folder) / FILE), WAY_OUT)
        for phase in spent.check(dict.fromkeys(spent, float)):
            total[phase] = total.get(phase, 0.0) + spent[phase]
    return total


def _write(folder: str | os.PathLike, lines: Iterable[Mapping[str, Any]]) -> None:
    files.replace(Path(folder) / FILE, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def check_data(folder: str | os.PathLike, dataset: Dataset, way_out: str) -> None:
    """Refuses data that have changed since a run worked on them, under the same name.

    Args:
      folder: of the run; one that doesn't say what its data were passes.
      dataset: as it is now.
      way_out: what to do if not to bring the old data back, for the message.

    Raises:
      ValueError: they have, or the run's file is damaged.
    """
    for earlier in read(folder):
        if "fingerprint" in earlier and earlier["fingerprint"] != dataset.fingerprint:
            raise ValueError(
                f"the data of the run in {folder} is not what it was: {dataset.name} has changed since "
                f"{earlier['taken']}. Bring the old data back, or {way_out}"
            )


def changed(folder: str | os.PathLike) -> str:
    """Says in what code and versions the last process that worked on a run differs from the one before; "" if in none.

    Args:
      folder: of the run.
    """
    pairs = [{name: line[name] for name in ("commit", "versions") if name in line} for line in read(folder)[-2:]]
    found = differences(*pairs) if len(pairs) == 2 else {}
    if not found:
        return ""
    since = read(folder)[-2].get("taken", "its last process")
    return (
        f"the run in {folder} goes on with other code than at {since}: {in_words(found, ' then', ' now')}; its numbers "
        "are not those of one version"
    )


def command() -> str:
    """Returns the command line of this process, as one would type it."""
    program = Path(sys.argv[0])
    names = [program.name]
    if program.name == "__main__.py":
        names = ["o2o"]
    elif program.parent.name in ("experiments", "benchmarks"):
        names = ["python", "-m", f"{program.parent.name}.{program.stem}"]
    return shlex.join([*names, *sys.argv[1:]])


def read(folder: str | os.PathLike) -> list[Record]:
    """Returns the lines of `record`, the oldest first; none where there is no file.

    Raises:
      ValueError: the file is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return []
    return [parse_json(line, str(path), WAY_OUT, _KINDS) for line in read_text(path, WAY_OUT).splitlines()]


def environment() -> dict[str, Any]:
    """Returns time, machine and versions, as JSON takes them."""
    return {
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "versions": {"python": platform.python_version(), **_versions()},
    }


def commit(folder: Path = PACKAGE) -> str:
    """Returns the commit of the checkout that a folder belongs to, "-dirty" where files have changed; else "unknown".

    A package that is installed amid another project's checkout is none of its files, and not of its commit.
    """
    tracked = ["ls-files", "--error-unmatch", "."]
    describe = ["describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        for arguments in (tracked, describe):
            found = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
