"""Seconds, environment steps and updates from an offline policy to a score.

    python -m benchmarks.time_to_score --jobs=1 --out=runs/studies --results=runs/benchmarks

The runs are those of `o2o study time_to_score`, whose flags this command takes too: it goes on where it was stopped,
and shares its runs with other studies in --out. The score is the study's goal: 50 points above the policy's that goes
online, at most 90, per seed, and it is reached by the first evaluation at or above it.

Seconds are of all phases before the first environment step, and of fine-tuning as its share of environment steps until
that evaluation; evaluations are left out. They are wall time of all seeds of a run side by side, on the machine that
ran it: run one at a time (--jobs=1), with nothing beside it. A ratio is a method's seconds over those of the study's
first method, seed by seed. A seed that never gets there has no seconds and no ratio.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl.flags import FlagValues

from benchmarks import command, reports
from o2o_jax.cli import flags, program, report, study
from o2o_jax.cli.page import Entry
from o2o_jax.interfaces import Algorithm
from o2o_jax.runtime import files, log, provenance
from o2o_jax.runtime.train import CLONE
from o2o_jax.studies import grid

NAME = "time_to_score"
COLUMNS = {
    "task": ("task", ""),
    "method": ("method", ""),
    "from": ("start", ".1f"),
    "to": ("threshold", ".1f"),
    "reached": ("reached", ""),
    "seconds": ("seconds", ",.0f"),
    "least s": ("least_seconds", ",.0f"),
    "most s": ("most_seconds", ",.0f"),
    "environment steps": ("env_steps", ",.0f"),
    "updates": ("updates", ",.0f"),
    "ratio": ("ratio", ".2f"),
    "least": ("least_ratio", ".2f"),
    "most": ("most_ratio", ".2f"),
}
SEED_COLUMNS = ("task", "method", "seed", "start", "threshold", "seconds", "env_steps", "updates", "ratio")
NOTE = (
    "Medians over the seeds that reached the score, of seconds and ratios also the least and the most; – where none "
    "did. Seconds are wall time of all seeds of a run side by side, without evaluations. A ratio is a method's seconds "
    "over those of {first}, seed by seed."
)


def define(values: FlagValues) -> None:
    """Flags of this script: those of a study, and where its table goes."""
    study.define(values)
    values.set_default(study.POSITIONAL, NAME)
    flags.define_path(values, "results", command.OUT, "folder for the table, as CSV and Markdown, and the picture")


def main(args: FlagValues) -> None:
    """Runs the study, or what is left of it; prints, writes and draws the runs that are done. Impure."""
    chosen = grid.load(args.study)
    if chosen.goal is None:
        raise ValueError(f"the study {args.study} has no goal, which the time is taken to: add goal = {{ gain = 50 }}")
    try:
        study.main(args)
    finally:
        if not (args.status or args.dry_run):
            _write(args, chosen, chosen.goal)


def _write(args: FlagValues, chosen: grid.Study, goal: grid.Goal) -> None:
    root = Path(args.out)
    cells = grid.cells(chosen, args.schedule, args.seeds, args.only)
    plans = study.check(cells, root)
    entries = study.entries_of(chosen, root, cells, plans)
    if not entries:
        return
    rows = measured(entries, {name: plans[name].setup.algorithm for name in entries}, goal)
    folder, members = Path(args.results), [*entries.values()]
    files.make_folder(folder)
    table, note = reports.table(summary(rows), COLUMNS), NOTE.format(first=members[0].label)
    print(f"{table}\n\n{note}")
    report.write_csv(folder / f"{NAME}.csv", [SEED_COLUMNS, *([row[name] for name in SEED_COLUMNS] for row in rows)])
    files.replace(folder / f"{NAME}.md", f"# Time to a score\n\n{table}\n\n{note}\n{_origin(members)}")
    draw(rows, folder / f"{NAME}.png")
    print(f"written to {folder / NAME}.csv, .md and .png")


def measured(
    entries: Mapping[str, Entry], algorithms: Mapping[str, Algorithm], goal: grid.Goal
) -> list[dict[str, Any]]:
    """Returns a row per run and seed. Impure: reads their folders.

    Args:
      entries: runs by name, of which those of the first one's method are the measure of the others.
      algorithms: of the runs.
      goal: of the study.

    Returns:
      `SEED_COLUMNS` each; seconds, steps, updates and ratio are NaN where the seed never reached its threshold.
    """
    rows: list[dict[str, Any]] = []
    for name, entry in entries.items():
        run = entry.run
        start = np.where(np.isfinite(run.cloned), run.cloned, run.offline)
        columns = zip(run.seeds, start, entry.seconds_to(goal), entry.steps_to(goal), strict=True)
        rows += [
            {
                "task": entry.task,
                "method": entry.label,
                "seed": int(seed),
                "start": float(first),
                "threshold": float(min(first + goal.gain, goal.score)),
                "seconds": float(seconds),
                "env_steps": float(steps),
                "updates": updates(entry.folder, algorithms[name], int(steps)) if np.isfinite(steps) else np.nan,
            }
            for seed, first, seconds, steps in columns
        ]
    first_method = rows[0]["method"]
    ours = {(row["task"], row["seed"]): row["seconds"] for row in rows if row["method"] == first_method}
    for row in rows:
        row["ratio"] = row["seconds"] / ours.get((row["task"], row["seed"]), np.nan)
    return rows


def updates(folder: Path, algorithm: Algorithm, env_steps: int) -> int:
    """Returns how many updates a run has made by an environment step, those of its phases and of cloning included.

    Args:
      folder: of the run.
      algorithm: of the run.
      env_steps: per seed.
    """
    made = 0
    for phase in (CLONE, *(phase.name for phase in algorithm.phases)):
        try:
            made += int(log.read(folder, phase)["step"].max(initial=0))
        except FileNotFoundError:  # one that the run didn't have
            continue
    assert algorithm.online is not None
    schedule = algorithm.online.schedule
    rounds = env_steps // schedule.env_steps - schedule.warmup_env_steps // schedule.env_steps
    return made + max(0, rounds) * schedule.updates


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a line per task and method, of the seeds that reached their threshold.

    Args:
      rows: of `measured`.
    """
    lines = []
    for task, method in dict.fromkeys((row["task"], row["method"]) for row in rows):
        alike = [row for row in rows if (row["task"], row["method"]) == (task, method)]
        there = [row for row in alike if np.isfinite(row["env_steps"])]
        line: dict[str, Any] = {"task": task.partition("/")[2], "method": method}
        line |= {name: float(np.median([row[name] for row in alike])) for name in ("start", "threshold")}
        line["reached"] = f"{len(there)} of {len(alike)}" if there else "never"
        for name in ("seconds", "env_steps", "updates", "ratio"):
            found = np.array([row[name] for row in there if np.isfinite(row[name])])
            values = (np.median(found), found.min(), found.max()) if len(found) else (np.nan,) * 3
            line |= {
                f"{which}{name}": float(value) for which, value in zip(("", "least_", "most_"), values, strict=True)
            }
        lines.append(line)
    return lines


def _origin(entries: Sequence[Entry]) -> str:
    """Says with which code and on what machines the runs were made."""
    lines = [line for entry in entries for line in provenance.read(entry.folder)]
    commits = sorted({line["commit"] for line in lines if "commit" in line})
    machines = sorted({f"{m['processor']}, {m['cores']} cores" for line in lines if (m := line.get("machine"))})
    return f"\nCode of commit {', '.join(commits) or 'unknown'}; {'; '.join(machines) or 'machine unknown'}.\n"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a figure of seconds per method, a panel per task and a dot per seed; impure.

    Args:
      rows: of `measured`.
      path: of the figure.

    Raises:
      ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("the figure needs matplotlib: pip install 'o2o_jax[plot]'") from None
    tasks, methods = (list(dict.fromkeys(row[name] for row in rows)) for name in ("task", "method"))
    figure = Figure(figsize=(4.5 * len(tasks), 1.2 + 0.4 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axis, task in zip(panels, tasks, strict=True):
        for place, method in enumerate(methods):
            alike = [row for row in rows if (row["task"], row["method"]) == (task, method)]
            seconds = np.array([row["seconds"] for row in alike if np.isfinite(row["seconds"])])
            if len(seconds):
                axis.barh(place, np.median(seconds), color="#4477aa", alpha=0.4)
                axis.plot(seconds, np.full(len(seconds), place), "o", color="#4477aa", markersize=4)
            missing = len(alike) - len(seconds)
            if missing:
                axis.text(0.98, place, f"{missing} of {len(alike)} never", ha="right", va="center",
                          fontsize="small", transform=axis.get_yaxis_transform())  # fmt: skip
        axis.set_yticks(range(len(methods)), methods)
        axis.set_xlim(left=0.0)
        axis.set_xlabel("seconds")
        axis.set_title(task.partition("/")[2], fontsize="medium")
        axis.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    program.run(main, define, __doc__)
