"""Runs that differ in their seeds alone, read as one. Impure: reads the disk."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from o2o_jax import registry
from o2o_jax.jobs.handoffs import seeds_of
from o2o_jax.runtime import log, provenance
from o2o_jax.runtime.checkpoint import read_config
from o2o_jax.runtime.comparison import MOST, differences, in_words

ORIGINS = ("policy", "reconstruction")  # settings that are other runs
UNKNOWN = ("unknown", "-dirty")  # ends of a commit that doesn't say what code it was


def folders_of(text: str) -> list[str]:
    """Returns the folders that `runs/a+runs/b` names; that of a run may have a plus itself."""
    parts = [text] if Path(text).expanduser().exists() else text.split("+")
    return [str(Path(part).expanduser()) for part in parts]


def check(folders: Sequence[str], may_differ: Sequence[str] = ()) -> None:
    """Makes sure that fine-tuning runs are of one kind: only their seeds differ, and no two share one.

    Compared are settings, fingerprints of the data, commits and versions. Of other offline runs, or reconstructions,
    that they began from the same is asked, where those are still there.

    Args:
      folders: of the runs.
      may_differ: names of what doesn't count, such as "commit" or "config.env_steps"; "config" means all of it.

    Raises:
      FileNotFoundError: a folder holds no run.
      ValueError: something else differs, or a seed is in two runs.
    """
    for first, other in itertools.combinations(folders, 2):
        both = sorted(set(seeds_of(read_config(first))) & set(seeds_of(read_config(other))))
        if both:
            raise ValueError(f"{first} and {other} both have the seed {both[0]}: join runs of other seeds")
    for other in folders[1:]:
        found = {
            name: pair
            for name, pair in _differences(folders[0], other).items()
            if not any(name == allowed or name.startswith(f"{allowed}.") for allowed in may_differ)
        }
        if found:
            names = found if len(found) <= MOST else dict.fromkeys(name.partition(".")[0] for name in found)
            raise ValueError(
                f"{folders[0]} and {other} differ in more than their seeds: {in_words(found)}. Join runs that agree, "
                f"or pass --may_differ={','.join(names)}"
            )
        commits = {line["commit"] for folder in (folders[0], other) for line in provenance.read(folder)}
        if any(commit.endswith(UNKNOWN) for commit in commits):
            said = registry.listed(sorted(commits))
            print(f"note: the commits {said} don't say whether {folders[0]} and {other} are of the same code")


def read(folders: Sequence[str], phase: str, last_step: int | None = None) -> dict[str, np.ndarray]:
    """Reads a phase's log of all runs as that of one: column -> values [rows], those that every run has.

    Args:
      folders: of the runs.
      phase: of the log.
      last_step: rows after it are left out; None leaves out those whose step a run lacks.

    Raises:
      FileNotFoundError, ValueError: see `log.read`.
    """
    tables = [log.read(folder, phase) for folder in folders]
    if len(tables) == 1:
        return tables[0]
    if last_step is None:
        steps = functools.reduce(np.intersect1d, [table["step"] for table in tables])
        kept = [np.isin(table["step"], steps) for table in tables]
    else:
        kept = [table["step"] <= last_step for table in tables]
    return {
        name: np.concatenate([table[name][rows] for table, rows in zip(tables, kept, strict=True)])
        for name in tables[0]
        if all(name in table for table in tables)
    }


def _differences(first: str, other: str) -> dict[str, tuple[str, str]]:
    """Returns what two runs differ in besides their seeds: name -> both values as text."""
    settings = [_facts(folder) for folder in (first, other)]
    found: dict[str, tuple[str, str]] = {}
    for origin in ORIGINS:
        paths = [facts.pop(origin, None) for facts in settings]
        if paths[0] != paths[1] and all(path and (Path(path) / "config.json").is_file() for path in paths):
            found |= {f"{origin}.{name}": pair for name, pair in _differences(*paths).items()}
        elif paths[0] != paths[1]:
            found[origin] = (str(paths[0]), str(paths[1]))
    return found | differences(*settings)


def _facts(folder: str) -> dict[str, Any]:
    """Settings of a run but its seeds, and with what it was made, as far as it says so."""
    facts: dict[str, Any] = {"clip_actions": False}  # of older versions
    facts |= {name: value for name, value in read_config(folder).items() if name not in ("seeds", "first_seed")}
    lines = provenance.read(folder)
    packages = {package for line in lines for package in line["versions"]}
    facts["versions"] = {package: _distinct([line["versions"].get(package) for line in lines]) for package in packages}
    for name in ("fingerprint", "commit"):
        if any(name in line for line in lines):
            facts[name] = _distinct([line.get(name) for line in lines])
    return facts


def _distinct(values: Sequence[Any]) -> Any:
    """The value of all processes that worked on a run, or those that there are."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else found
