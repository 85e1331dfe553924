"""Runs a study: a grid of tasks, methods and settings, on this machine or a cluster, and reports what it comes to.

    python -m experiments.study paper/table2 --jobs=2 --out=runs/studies

The same command again continues it; --status says how far it is, --dry_run what it would take. What runs have in
common, data, offline policies and reconstructions, is made once, whichever study needs it. A run that fails is tried
again, then left out, and holds up nothing but those that start from it; its log lies beside its folder.

--only=hopper,o2td3 takes the tasks and methods with these in their names. --launcher=slurm gives the runs to SLURM
through submitit, one job per run with its seeds side by side, as arrays, requeued and resumed where they are preempted
or their time is over (docs/clusters.md); --slurm=partition=gpu and the like are options of the jobs. The report lies in
<out>/<study>.

A study of one's own is a TOML file (docs/studies.md): --dry_run checks it before hours of work.
"""

import contextlib
import dataclasses
import functools
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import absl.flags
import jax
import numpy as np
from absl.flags import FlagValues

from o2o_jax import envs
from o2o_jax.cli import estimates, finetune, flags, page, program
from o2o_jax.cli import offline as offline_command
from o2o_jax.cli.report import load_phases, load_run, write_report
from o2o_jax.policy import Handoff, hand_over
from o2o_jax.runtime import files, limits, seeds
from o2o_jax.runtime.checkpoint import locked
from o2o_jax.runtime.plan import Plan
from o2o_jax.studies import grid, local, progress, slurm
from o2o_jax.studies.grid import FINETUNE, OFFLINE, Cell, Study
from o2o_jax.studies.progress import DONE, FAILED, QUEUED, RUNNING, WAITING, Progress

POSITIONAL = "study"  # what stands on the command line without a flag
CHECKPOINTS = 2  # of a run that are on the disk at a time, while the newer is written


def define(values: FlagValues) -> None:
    """Flags of this script."""
    absl.flags.DEFINE_string(
        POSITIONAL, None, f"a study, or the path of one's own that ends in {grid.SUFFIX}: {', '.join(grid.names())}",
        required=True, flag_values=values,
    )  # fmt: skip
    flags.define_path(values, "out", "runs/studies", "folder of all studies, which share their runs")
    flags.define_schedule(values)
    absl.flags.DEFINE_integer(
        "seeds", None, "of each run, side by side; by default those of the study", lower_bound=1, flag_values=values
    )
    absl.flags.DEFINE_list(
        "only", [], "parts of names: the tasks and methods with one of them, and what they need", flag_values=values
    )
    absl.flags.DEFINE_enum("launcher", "local", ["local", "slurm"], "where runs go", flag_values=values)
    absl.flags.DEFINE_integer(
        "jobs", 1, "runs at a time on this machine, which share its cores", lower_bound=1, flag_values=values
    )
    absl.flags.DEFINE_integer(
        "retries", 1, "how often a run that fails is tried again", lower_bound=0, flag_values=values
    )
    absl.flags.DEFINE_multi_string(
        "slurm", [], "option=value of the cluster's jobs, such as partition=gpu; may be repeated", flag_values=values
    )
    absl.flags.DEFINE_bool("status", False, "say how far the study is, and end", flag_values=values)
    absl.flags.DEFINE_bool(
        "dry_run", False, "check the study, say what it would take, write nothing, and end", flag_values=values
    )


def main(args: FlagValues) -> None:
    """Runs what isn't done yet, and reports. Impure."""
    study, root = grid.load(args.study), Path(args.out)
    cells = grid.cells(study, args.schedule, args.seeds, args.only)
    if args.status:
        print(status(root, cells))
        return
    plans = check(cells, root)
    if args.dry_run:
        print(preview(cells, plans, root))
        return
    folder = root / study.name
    files.make_folder(folder)
    with locked(folder):
        if args.launcher == "slurm":
            print(slurm.submit(root, cells, slurm.options(args.slurm), args.retries))
        else:
            local.run(root, cells, args.jobs, args.retries, _Counter(len(cells)).report)
    seen = {cell.name: progress.of(root, cell) for cell in cells}
    failed = [cell for cell in cells if seen[cell.name].state != DONE]
    chosen = [args[name].serialize() for name in ("schedule", "seeds", "only") if args[name].present]
    print(report(study, root, cells, shlex.join(["o2o", "study", args.study, *chosen])))
    if failed and args.launcher == "slurm":
        print("`--status` says how far the runs are; the same command goes on, and reports those that are done")
    elif failed:
        reasons = "; ".join(f"{cell.name}: {seen[cell.name].reason or 'what it needs failed'}" for cell in failed[:2])
        raise ValueError(
            f"{len(failed)} of {len(cells)} runs are not done ({reasons}): mend the cause, and the same command goes "
            "on with them"
        )


@dataclasses.dataclass
class _Counter:
    """Lines on a study's progress, with the number of runs that are done.

    Attributes:
      total: number of all.
      done: of those that are done.
    """

    total: int
    done: int = 0

    def report(self, cell: Cell, seen: Progress) -> None:
        """Prints a line on a cell whose state has changed."""
        self.done += seen.state == DONE
        took = f" in {limits.span_text(seen.seconds)}" if seen.state == DONE and seen.seconds else ""
        reason = f": {seen.reason}" if seen.reason else ""
        print(f"[{self.done}/{self.total}] {cell.name} {seen.state}{took}{reason}", flush=True)


def status(root: Path, cells: Sequence[Cell]) -> str:
    """Returns a table of a study's runs and a line in words, with the time left where that can be said. Impure.

    Of runs that were given to SLURM it says what SLURM does with them.

    Args:
      root: folder of all studies.
      cells: of the study.
    """
    seen = slurm.seen(root, cells)
    width = max(len(cell.name) for cell in cells)
    lines = [f"{'run':{width}}  {'state':8}  {'time':>8}  "]
    for cell in cells:
        known = seen[cell.name]
        time = limits.span_text(known.seconds) if known.seconds else ""
        lines.append(f"{cell.name:{width}}  {known.state:8}  {time:>8}  {known.reason}".rstrip())
    counts = Counter(known.state for known in seen.values())
    words = ", ".join(f"{counts[state]} {state}" for state in (DONE, RUNNING, QUEUED, FAILED, WAITING) if counts[state])
    return "\n".join([*lines, "", f"{words}; {_time_left(cells, seen)}"])


def _time_left(cells: Sequence[Cell], seen: Mapping[str, Progress]) -> str:
    """Returns what runs that aren't done take one after the other, by those of the same method that are."""
    known: dict[str, list[float]] = {}
    for cell in cells:
        if seen[cell.name].state == DONE and seen[cell.name].seconds:
            known.setdefault(cell.method or cell.command, []).append(seen[cell.name].seconds)
    missing = [cell for cell in cells if seen[cell.name].state != DONE]
    if not missing:
        return "nothing is left"
    kinds = [known.get(cell.method or cell.command) for cell in missing]
    seconds = sum(float(np.mean(times)) for times in kinds if times)
    unknown = sum(times is None for times in kinds)
    rest = f"{unknown} of a kind of which none is done yet" if unknown else ""
    if unknown == len(missing):
        return "how long the rest takes is known once a run is done; --dry_run has an estimate"
    return f"about {limits.span_text(seconds)} of runs left{', beside ' + rest if rest else ''}"


def check(cells: Sequence[Cell], root: Path) -> dict[str, Plan]:
    """Makes sure that a study's commands can be understood, and returns what they would do, by names of cells. Impure.

    Args:
      cells: of the study, each after those that it needs.
      root: folder of all studies.

    Raises:
      ValueError: a task, a method, a flag or a setting isn't known or doesn't fit.
    """
    plans: dict[str, Plan] = {}
    mesh = flags.setup_devices(1)  # of the estimates
    handoffs: dict[str, Handoff] = {}
    for cell in cells:
        with _blamed(cell):
            task = envs.get_task(cell.task)
            if cell.command == OFFLINE:
                args = program.parsed(offline_command.define, cell.argv(root)[1:])
                plan = offline_command.outline(args, mesh, task, offline_command.read_job(args, mesh).config)
                handoffs[cell.name], plans[cell.name] = _sizes(plan), plan
            elif cell.command == FINETUNE:
                args = program.parsed(finetune.define, cell.argv(root)[1:])
                start = dict(cell.needs)["policy"]
                setup = plans[start].setup
                source = {"algorithm": setup.algorithm.name, "config": dataclasses.asdict(setup.config)}
                job = finetune.make_job(args, mesh, task, source, functools.partial(handoffs.__getitem__, start))
                plans[cell.name] = finetune.outline(args, mesh, task, job.config, handoffs[start])
                plans[cell.name].shapes()  # a start that does not fit is found here
    return plans


@contextlib.contextmanager
def _blamed(cell: Cell) -> Iterator[None]:
    """Says which run an error is about."""
    try:
        yield
    except (ValueError, absl.flags.Error) as error:
        raise ValueError(f"{cell.name}: {error}") from error


def _sizes(plan: Plan) -> Handoff:
    """Returns what an offline run will hand over, all zero, of one seed [1]; counters have no seed axis."""
    handoff = jax.eval_shape(functools.partial(hand_over, plan.setup.algorithm), plan.shapes().agent)

    def zeros(leaf: jax.ShapeDtypeStruct, axis: int | None) -> np.ndarray:
        return np.zeros(leaf.shape if axis is None else (1, *leaf.shape), leaf.dtype)

    return jax.tree.map(zeros, handoff, seeds.seed_axes(handoff))


def preview(cells: Sequence[Cell], plans: Mapping[str, Plan], root: Path) -> str:
    """Returns what a study would do and take: runs, operations, hours, disk. Impure: measures for some seconds.

    Args:
      cells: of the study.
      plans: of `check`.
      root: folder of all studies.
    """
    missing = [cell for cell in cells if progress.of(root, cell).state != DONE]
    rows: list[tuple[str, ...]] = [("run", "TFLOP", "time", "disk")]
    totals = np.zeros(3)
    for cell in missing:
        if cell.name in plans:
            with _blamed(cell):
                takes = np.array(_takes(plans[cell.name]))
            totals += takes
            rows.append((cell.name, *_amounts(takes)))
        else:
            rows.append((cell.name, "", "", ""))
    rows.append((f"{len(missing)} of {len(cells)} runs to do", *_amounts(totals)))
    width = max(len(row[0]) for row in rows)
    lines = [f"{row[0]:{width}}  {row[1]:>9}  {row[2]:>8}  {row[3]:>9}" for row in rows]
    return "\n".join(
        [*lines, "", "Times are of one run after the other, with all cores, by a measurement just now; datasets aside."]
    )


def _takes(plan: Plan) -> tuple[float, float, float]:
    """Returns the operations of a run in TFLOP, its seconds, and the most bytes that its checkpoints have."""
    memory = limits.memory_of(plan)
    operations = len(plan.setup.seeds) * estimates.operations_of(plan) / 1e12
    return operations, sum(estimates.seconds_of(plan)), CHECKPOINTS * (memory["networks"] + memory["replay"])


def _amounts(takes: np.ndarray) -> tuple[str, str, str]:
    return f"{takes[0]:,.0f}", limits.span_text(takes[1]), limits.size_text(takes[2])


def report(study: Study, root: Path, cells: Sequence[Cell], command: str) -> str:
    """Writes report and page over the runs that are done, and returns the tables. Impure.

    Args:
      study: of the cells.
      root: folder of all studies.
      cells: of the study.
      command: that makes it.
    """
    seen = {cell.name: progress.of(root, cell) for cell in cells}
    done = [cell for cell in cells if cell.command == FINETUNE and seen[cell.name].state == DONE]
    phases = {
        cell: load_phases(root / cell.name)
        for cell in cells
        if cell.command in (OFFLINE, FINETUNE) and seen[cell.name].state == DONE
    }
    trainings = [page.Training(cell.task, cell.label, found) for cell, found in phases.items() if found]
    if not done and not trainings:
        return "no fine-tuning run is done: there is nothing to report"
    labels, folder = [f"{cell.task}/{cell.label}" for cell in done], root / study.name
    text = write_report([root / cell.name for cell in done], labels, folder / "report.png") if done else ""
    entries = [
        page.Entry(
            cell.task,
            cell.label,
            root / cell.name,
            load_run(root / cell.name, cell.label),
            study.published.get(cell.task, {}).get(cell.label, {}),
        )
        for cell in done
    ]
    commands = [
        page.Command(shlex.join(["o2o", *cell.argv(root)]), seen[cell.name].state, seen[cell.name].reason)
        for cell in cells
    ]
    try:
        path = page.write(folder, study, entries, trainings, commands, command)
    except ValueError as error:  # plotly isn't there
        return f"{text}\nnote: {error}"
    return f"{text}\nPage: {path.absolute()}"
