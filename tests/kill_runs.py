"""Kills real runs at random moments, resumes them, and compares how they end with runs that nobody stopped.

    python tests/kill_runs.py --kills=25

Every case is a command of experiments.offline or experiments.finetune on a tiny dataset with tiny networks, in a
process of its own. SIGKILL comes at a moment drawn uniformly from the time in which the unbroken run wrote, for some
kills while the process starts, for some within the write of a checkpoint. The same command with --resume continues
it, until a process ends by itself; kills that are left start another run. Every CSV file must be the unbroken run's to
the byte, and every number of every checkpoint to the bit; so must be those of a second unbroken run. Prints a table of
kills by the phase that the newest row of a log is of; status 1 where anything differs.
"""

import collections
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import absl.flags
import numpy as np
from absl.flags import FlagValues

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # of a script Python knows only the script's own folder

from o2o_jax import registry  # noqa: E402
from o2o_jax.cli import program  # noqa: E402
from tests import tiny  # noqa: E402

UPDATES, CHECK = 120, 20
LAUNCH = (
    "from o2o_jax.cli import program, {0}; from o2o_jax.runtime import train; train.CHECKPOINT_EVERY = {1}; "
    "program.run({0}.main, {0}.define)"
)
OFFLINE = [
    f"--env={tiny.ENV}",
    *tiny.SETTINGS,
    f"--set=updates={UPDATES}",
    f"--eval_every={CHECK}",
    "--eval_episodes=2",
]
RECONSTRUCTION = [f"--set=reevaluate.updates={UPDATES}", f"--set=align.updates={UPDATES}"]
ONLINE = [
    "--set=env_steps=60",
    "--set=evaluation.every_env_steps=10",
    "--set=evaluation.episodes=2",
    "--checkpoint_every=10",
]
FAST = [
    "--set=reevaluate.return_updates=50",
    "--set=start.actor_ramp_updates=40",
    f"--set=early_stopping.check_every_updates={CHECK}",
]
REPLAY = [*tiny.ONLINE_SETTINGS, *RECONSTRUCTION, *ONLINE, "--set=interaction.warmup_env_steps=10"]
CLONING = [f"--clone_updates={UPDATES}"]
ROLLOUTS = [
    *tiny.ROLLOUT_SETTINGS,
    "--set=rollout.env_steps=16",
    "--set=rollout.minibatch_size=8",
    "--set=rollout.epochs=2",
]
MEASURES = [
    "--set=early_stopping.mode=measures",
    "--set=early_stopping.window_checks=2",
    f"--set=early_stopping.min_updates={2 * CHECK}",
    "--set=early_stopping.missing_value=1e9",
    "--set=early_stopping.held_out_share=0.2",
]
# name -> script and arguments; {td3_bc}, {o2td3}, {o2sac} and {iql} are the folders of their unbroken runs
CASES: dict[str, tuple[str, list[str]]] = {
    "td3_bc": ("offline", ["--algorithm=td3_bc", *OFFLINE]),
    "o2td3": ("finetune", ["--algorithm=o2td3", "--policy={td3_bc}", *REPLAY, *FAST]),
    "o2sac": ("finetune", ["--algorithm=o2sac", "--policy={td3_bc}", *REPLAY, *FAST, *CLONING]),
    "o2ppo": (
        "finetune",
        ["--algorithm=o2ppo", "--policy={td3_bc}", f"--set=reevaluate.updates={UPDATES}", *ONLINE, *ROLLOUTS, *CLONING],
    ),
    "measures": (
        "finetune",
        ["--algorithm=o2td3", "--policy={td3_bc}", "--schedule=paper", *REPLAY, *FAST[-1:], *MEASURES],
    ),
    "reconstruction": (
        "finetune",
        [
            "--algorithm=o2td3",
            "--policy={td3_bc}",
            *REPLAY,
            *FAST,
            "--reconstruction={o2td3}",
            "--set=finetune.policy_delay=1",
        ],
    ),
    "cloned": (
        "finetune",
        ["--algorithm=o2sac", "--policy={td3_bc}", *REPLAY, *FAST, *CLONING, "--reconstruction={o2sac}"],
    ),
    "iql": ("offline", ["--algorithm=iql", *OFFLINE]),
    "iql_online": ("finetune", ["--algorithm=iql", "--policy={iql}", *ONLINE]),
}
NEEDED = {
    "reconstruction": ["o2td3"],
    "cloned": ["o2sac"],
    "iql_online": ["iql"],
}  # beside td3_bc, which the others start from
CHECKPOINTS = ("checkpoints", "stages", "clone")
STARTING, WRITING, ONLINE_LOGS = "starting", "writing", ("episode", "evaluation", "finetune", "reference")
PHASES = (STARTING, "offline", "clone", "reevaluate", "align", "start", "online")


@dataclasses.dataclass
class Outcome:
    """Outcome of a case's runs.

    Attributes:
      kills: how many there were, by phase.
      writing: how many of them came while a checkpoint was written.
      compared: how many runs got to their end.
      differences: of these to the unbroken one, a line each.
    """

    kills: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    writing: int = 0
    compared: int = 0
    differences: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Unbroken:
    """A run that nobody stopped.

    Attributes:
      out: its folder.
      starting: seconds until it had written something.
      working: seconds from there to its end.
    """

    out: Path
    starting: float
    working: float


class Process:
    """A command at work in a folder.

    Args:
      case: whose command.
      out: the folder.
      needed: case -> folder of its unbroken run.
    """

    def __init__(self, case: str, out: Path, needed: dict[str, Path]) -> None:
        self._out, self.log = out, out.with_suffix(".log")
        script, arguments = CASES[case]
        command = [sys.executable, "-c", LAUNCH.format(script, CHECK), f"--out={out}", "--seeds=2", "--resume"]
        command += [argument.format(**{name: str(path) for name, path in needed.items()}) for argument in arguments]
        self._began = time.time()
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def ended(self) -> bool:
        """Returns whether it has ended of itself, in which case it must have done all."""
        status = self._process.poll()
        if status:
            raise ValueError(
                f"a run ended with status {status}, its output is {self.log}: {self.log.read_text()[-600:]}"
            )
        return status is not None

    def wait(self, seconds: float = np.inf) -> bool:
        """Returns whether it ends within some seconds."""
        until = time.monotonic() + seconds
        while not self.ended() and time.monotonic() < until:
            time.sleep(min(0.02, max(0.0, until - time.monotonic())))
        return self.ended()

    def wait_for_row(self) -> bool:
        """Waits until it has written a row or a checkpoint's draft; returns whether it has ended instead."""
        while not self.ended() and not any(self._written(path) for path in self._files()):
            time.sleep(0.005)
        return self.ended()

    def wait_for_write(self, number: int = 1) -> bool:
        """Waits until it writes the checkpoint of that number; returns whether it has ended instead."""
        seen: set[Path] = set()
        while not self.ended() and len(seen) < number:
            seen |= {path for path in unfinished(self._out) if self._written(path)}
            time.sleep(0.0005)
        return self.ended()

    def kill(self) -> tuple[str, bool]:
        """Kills it; returns the phase that it was in, and whether it was writing a checkpoint."""
        self._process.kill()
        self._process.wait()
        writing = any(self._written(path) for path in unfinished(self._out))
        logs = [path for path in self._out.glob("*.csv") if self._written(path)]
        if not logs:
            return STARTING, writing
        newest = max(logs, key=_modified).stem.removesuffix("_measures")
        if newest in ONLINE_LOGS:
            return "online" if (self._out / "start.csv").exists() else "offline", writing  # offline runs have them too
        return newest, writing

    def _files(self) -> list[Path]:
        return [*self._out.glob("*.csv"), *unfinished(self._out)]

    def _written(self, path: Path) -> bool:
        return _modified(path) > self._began


def unfinished(out: Path) -> list[Path]:
    """Returns the drafts of checkpoints in a run's folder."""
    return [path for folder in CHECKPOINTS for path in (out / folder).glob("*tmp*")]


def run_unbroken(case: str, out: Path, needed: dict[str, Path]) -> Unbroken:
    """Runs a case to its end, for the second time: the first one compiles. Impure."""
    first = out.with_name(f"{case}-first")
    Process(case, first, needed).wait()
    process, began = Process(case, out, needed), time.monotonic()
    process.wait_for_row()
    starting = time.monotonic() - began
    process.wait()
    if found := compare(first, out):
        raise ValueError(f"two unbroken runs of {case} differ: {'; '.join(found)}")
    return Unbroken(out, starting, time.monotonic() - began - starting)


def run_broken(
    case: str, out: Path, needed: dict[str, Path], unbroken: Unbroken, kills: int, random: np.random.Generator
) -> Iterator[tuple[str, bool]]:
    """Runs a case until it has ended; yields what `Process.kill` says of each of up to `kills` kills. Impure."""
    for number in range(kills + 1):
        process = Process(case, out, needed)
        if number == kills:
            process.wait()
            return
        if _wait_for_moment(process, unbroken, random):
            return
        yield process.kill()


def _wait_for_moment(process: Process, unbroken: Unbroken, random: np.random.Generator) -> bool:
    """Waits for a random moment of a process; returns whether it has ended before."""
    kind = random.choice([STARTING, WRITING, "working"], p=[0.1, 0.3, 0.6])
    if kind == STARTING:
        return process.wait(random.uniform(0.0, unbroken.starting))
    if kind == WRITING:
        return process.wait_for_write(random.integers(1, 9)) or process.wait(random.uniform(0.0, 0.02))
    return process.wait_for_row() or process.wait(random.uniform(0.0, unbroken.working))


def compare(unbroken: Path, broken: Path) -> list[str]:
    """Returns what of a run's folder is not as in the unbroken run's, a line each."""
    found = [f"{path.relative_to(broken)} is left over" for path in unfinished(broken)]
    files = [{path.name: path.read_bytes() for path in out.glob("*.csv")} for out in (unbroken, broken)]
    for name in sorted(files[0].keys() | files[1].keys()):
        if files[0].get(name) != files[1].get(name):
            found.append(f"{name} is another one")
    for folder in CHECKPOINTS:
        ours, theirs = (tiny.saved(out / folder) for out in (unbroken, broken))
        for name in sorted(ours.keys() | theirs.keys()):
            pair = ours.get(name), theirs.get(name)
            if pair[0] is None or pair[1] is None or _bits(pair[0]) != _bits(pair[1]):
                found.append(f"{folder}: {name} is another one")
    return found


def _bits(numbers: np.ndarray) -> tuple[Any, ...]:
    return numbers.dtype, numbers.shape, numbers.tobytes()


def table(outcomes: dict[str, Outcome]) -> str:
    """Kills of every case by phase, runs compared, and the verdict."""
    rows: list[list[Any]] = [["case", *PHASES, "kills", WRITING, "runs", "verdict"]]
    for case, outcome in outcomes.items():
        verdict = "DIFFERS" if outcome.differences else "the same"
        counts = [outcome.kills[phase] for phase in PHASES]
        rows.append([case, *counts, sum(counts), outcome.writing, outcome.compared, verdict])
    sums = [sum(row[column] for row in rows[1:]) for column in range(1, len(PHASES) + 4)]
    rows.append(["all", *sums, "DIFFERS" if any(outcome.differences for outcome in outcomes.values()) else "the same"])
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def define(values: FlagValues) -> None:
    """Flags of this script."""
    absl.flags.DEFINE_integer("kills", 25, "how many, over all cases", lower_bound=1, flag_values=values)
    absl.flags.DEFINE_list("cases", list(CASES), "which", flag_values=values)
    absl.flags.DEFINE_integer("kill_seed", 0, "of the moments", lower_bound=0, flag_values=values)
    absl.flags.DEFINE_string("folder", None, "where runs and their output stay; none by default", flag_values=values)


def main(args: FlagValues) -> None:
    """Runs, kills, compares, prints. Impure: starts processes."""
    for case in args.cases:
        if case not in CASES:
            raise ValueError(registry.unknown("case", case, CASES))
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(args.folder or scratch)
        work.mkdir(parents=True, exist_ok=True)
        os.environ["MINARI_DATASETS_PATH"] = str(work / "datasets")
        os.environ["PYTHONPATH"] = str(ROOT)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))
        command = [sys.executable, "-m", "experiments.dataset", f"--env={tiny.ENV}", "--transitions=400", "--overwrite"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        outcomes = kill_all(work, args.cases, args.kills, np.random.default_rng(args.kill_seed))
    print(table(outcomes))
    if any(outcome.differences for outcome in outcomes.values()):
        raise SystemExit(1)


def kill_all(work: Path, cases: list[str], kills: int, random: np.random.Generator) -> dict[str, Outcome]:
    """Shares the kills among the cases; returns what became of each. Impure."""
    unbroken: dict[str, Unbroken] = {}
    outcomes = {case: Outcome() for case in cases}
    for number, case in enumerate(cases):
        for name in dict.fromkeys(["td3_bc", *NEEDED.get(case, []), case]):
            if name not in unbroken:
                folders = {needed: found.out for needed, found in unbroken.items()}
                unbroken[name] = run_unbroken(name, work / name, folders)
                seconds = unbroken[name].starting, unbroken[name].working
                print(f"{name}: unbroken, {seconds[0]:.1f} s to start and {seconds[1]:.1f} s of work", flush=True)
        folders, outcome = {needed: found.out for needed, found in unbroken.items()}, outcomes[case]
        share = (kills + number) // len(cases)  # shares that add up to all
        while outcome.kills.total() < share:
            out = work / f"{case}-broken{outcome.compared}"
            for phase, writing in run_broken(case, out, folders, unbroken[case], share - outcome.kills.total(), random):
                outcome.kills[phase] += 1
                outcome.writing += writing
                print(f"{case}: killed, {phase}{', writing a checkpoint' * writing}", flush=True)
            found = compare(unbroken[case].out, out)
            outcome.compared += 1
            outcome.differences += found
            print("\n".join([f"{case}: run {outcome.compared} is at its end", *found]), flush=True)
    return outcomes


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # a draft that is finished by now
        return 0.0


if __name__ == "__main__":
    program.run(main, define, __doc__)
