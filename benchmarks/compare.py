"""Times a user's own checkouts of public repositories beside this package, on the same synthetic data.

    python -m benchmarks.compare --authors=PATH --corl=PATH --jax_corl=PATH --unifloral=PATH --peer_python=PATH

--authors is a checkout of github.com/QinwenLuo/OCR-CFT, --corl of tinkoff-ai/CORL, --jax_corl of nissymori/JAX-CORL,
--unifloral of EmptyJackson/unifloral; one that isn't given is left out. Each side of a comparison is a process of its
own, theirs in the interpreter --peer_python, which needs their dependencies (torch; or jax, flax, optax, distrax,
omegaconf and pydantic) but neither d4rl nor gym: no environment is made. Both sides have the same number of cores. They
take turns, so that a slow minute of the machine hits both; a ratio is that of two turns in a row, ours over theirs in
updates of all seeds per second.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import absl.flags
import numpy as np
from absl.flags import FlagValues

from benchmarks import command, measuring, reports, workloads
from o2o_jax.cli import program
from o2o_jax.operations import batch_size_of
from o2o_jax.runtime import provenance

ROOT = Path(__file__).parent.parent
THREADS = 2  # in all, on either side
PAUSE = 0.3  # seconds between turns: OpenMP's threads look busily for work, 0.2 s long, after theirs is done
PEERS = ("authors", "corl", "jax_corl", "unifloral")
TWO_LAYERS = {"hidden": (256, 256), "critic_hidden": (256, 256)}
COLUMNS = {
    "update": ("name", ""),
    "seeds": ("seeds", "d"),
    "against": ("against", ""),
    "ours/s": ("ours_per_second", ",.2f"),
    "theirs/s": ("theirs_per_second", ",.2f"),
    "ratio": ("ratio", ".2f"),
    "from": ("lowest_ratio", ".2f"),
    "to": ("highest_ratio", ".2f"),
    "target": ("target", ".1f"),
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A line of the table.

    Attributes:
      name: of the workload.
      peer: whom it is held against.
      target: the ratio that this package wants to reach at least.
      seeds: ours, side by side in one program; what counts is the updates of all seeds.
      processes: theirs, at the same time, a seed and THREADS / processes threads each; we take as many devices.
      widths: of our layers, where the peer's are not the published ones.
    """

    name: str
    peer: str
    target: float
    seeds: int = 1
    processes: int = 1
    widths: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @property
    def against(self) -> str:
        """The peer and its processes."""
        return self.peer if self.processes == 1 else f"{self.peer}, {self.processes} processes"


COMPARISONS = (
    Comparison("o2sac/reevaluate", "authors", 2.5),
    Comparison("o2sac/align", "authors", 2.7),
    Comparison("o2sac/finetune", "authors", 2.5),
    Comparison("o2td3/reevaluate", "authors", 2.7),
    Comparison("o2td3/align", "authors", 3.0),
    Comparison("o2td3/finetune", "authors", 2.7),
    Comparison("o2ppo/finetune", "authors", 5.0),
    Comparison("o2sac/finetune", "authors", 1.4, seeds=4, processes=2),
    Comparison("td3_bc", "corl", 2.2),
    Comparison("iql", "corl", 2.5),
    Comparison("cql", "corl", 1.2),
    Comparison("td3_bc", "jax_corl", 1.1, widths=TWO_LAYERS),
    Comparison("iql", "jax_corl", 1.1, widths=TWO_LAYERS),
    Comparison("cql", "jax_corl", 1.1, widths=TWO_LAYERS),
    Comparison("td3_bc", "unifloral", 1.1, widths=TWO_LAYERS),
    Comparison("iql", "unifloral", 1.1, widths=TWO_LAYERS),
)


def define(values: FlagValues) -> None:
    """Flags of this script."""
    command.define(values, "shape", "rows", "chunk", "seconds", "repeats")
    values.set_default("seconds", 5.0)
    for peer in PEERS:
        absl.flags.DEFINE_string(peer, None, "folder of that repository's checkout", flag_values=values)
    absl.flags.DEFINE_string(
        "peer_python", sys.executable, "interpreter that has the peers' dependencies", flag_values=values
    )
    absl.flags.DEFINE_list(
        "algorithms", ",".join(workloads.NAMES), "which updates, as in benchmarks.updates", flag_values=values
    )


def main(args: FlagValues) -> None:
    """Compares, prints, writes. Impure: starts processes."""
    checkouts = {peer: getattr(args, peer) for peer in PEERS if getattr(args, peer)}
    if not checkouts:
        raise ValueError(f"nothing to compare with: pass a checkout, --{'=PATH, --'.join(PEERS)}=PATH")
    names = workloads.matching(args.algorithms)
    chosen = [item for item in COMPARISONS if item.peer in checkouts and item.name in names]
    if not chosen:
        raise ValueError(f"of {', '.join(checkouts)} none has the updates {', '.join(names)}")
    report = reports.Report("compare", command.settings(args, "shape", "rows", "chunk", "seconds", "repeats"))
    rows = []
    for item in chosen:
        rows.append(compare(item, checkouts[item.peer], args))
        print(f"{item.name} against {item.against}: {rows[-1]['ratio']:.2f}", file=sys.stderr)
    print(reports.table(rows, COLUMNS))
    commits = {peer: provenance.commit(Path(path).expanduser()) for peer, path in checkouts.items()}
    report.write(args.out, rows=rows, commits=commits)


def compare(item: Comparison, checkout: str, args: FlagValues) -> dict[str, Any]:
    """A line of the table. Impure: starts processes and ends them."""
    spec, config = workloads.SHAPES[args.shape], workloads.settings(item.name.partition("/")[0])
    work = {
        "name": item.name,
        "checkout": checkout,
        "observation_dim": spec.observation_dim,
        "action_dim": spec.action_dim,
        "rows": args.rows,
        "batch_size": batch_size_of(config),
        "threads": THREADS // item.processes,
        "processes": item.processes,
        "cores": THREADS,
        "seeds": item.seeds,
        "chunk": args.chunk,
        "warmup_updates": 1 if item.name == "o2ppo/finetune" else args.chunk,  # there each is a whole rollout
        "widths": item.widths,
    }
    with contextlib.ExitStack() as stack:
        # theirs first: what is missing there is known at once
        theirs = stack.enter_context(Side(item.peer, args.peer_python, work, work["threads"], item.processes))
        ours = stack.enter_context(Side("ours", sys.executable, work, THREADS, 1))
        sides = {"ours": ours, "theirs": theirs}
        counts = {"ours": ours.updates_in(args.seconds, item.seeds), "theirs": theirs.updates_in(args.seconds, 1)}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.repeats):
            for name, side in sides.items():
                time.sleep(PAUSE)
                rates[name].append(side.run(counts[name]))
    ratios = np.array(rates["ours"]) / np.array(rates["theirs"])
    ratio, spread = measuring.median_and_spread(ratios)
    return {
        "name": item.name,
        "against": item.against,
        "seeds": item.seeds,
        "ours_per_second": float(np.median(rates["ours"])),
        "theirs_per_second": float(np.median(rates["theirs"])),
        "ratio": ratio,
        "lowest_ratio": float(ratios.min()),
        "highest_ratio": float(ratios.max()),
        "spread_percent": spread,
        "target": item.target,
        "their_versions": theirs.versions,
        "samples": rates,
    }


class Side:
    """The workers of one side, ready to run; a context that ends them. Impure.

    Args:
      module: of `benchmarks.peers`.
      python: interpreter.
      work: the request, see `benchmarks.peers.worker`.
      threads: of each process.
      processes: how many run at the same time.

    Attributes:
      versions: of the packages that do its arithmetic.

    Raises:
      ValueError: a worker could not be prepared; the message is what it said.
      OSError: there is no such interpreter.
    """

    def __init__(self, module: str, python: str, work: dict[str, Any], threads: int, processes: int) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, str(threads)) | {"JAX_PLATFORMS": "cpu"}
        arguments = [python, "-m", "benchmarks.peers.worker", f"benchmarks.peers.{module}", json.dumps(work)]
        self._module = module
        self._workers = [
            subprocess.Popen(
                arguments,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for _ in range(processes)
        ]
        try:
            self.versions = self._answers()[0]["versions"]
        except ValueError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def updates_in(self, seconds: float, seeds: int) -> int:
        """Returns how many updates of each of a process's seeds take about so long, by trying one."""
        rate = min(answer["updates"] / answer["seconds"] for answer in self._run(1))
        return max(1, round(seconds * rate / seeds))

    def run(self, updates: int) -> float:
        """Updates of all seeds per second: every process runs so many, and the slowest counts."""
        answers = self._run(updates)
        return sum(answer["updates"] for answer in answers) / max(answer["seconds"] for answer in answers)

    def close(self) -> None:
        """Ends the workers, who stop where stdin ends."""
        for worker in self._workers:
            worker.communicate()

    def _run(self, updates: int) -> Sequence[dict[str, Any]]:
        for worker in self._workers:
            assert worker.stdin
            worker.stdin.write(f"{updates}\n")
            worker.stdin.flush()
        return self._answers()

    def _answers(self) -> Sequence[dict[str, Any]]:
        answers = []
        for worker in self._workers:
            assert worker.stdout
            line = worker.stdout.readline()
            answer = json.loads(line) if line else {"error": f"it ended with status {worker.wait()}"}
            if "error" in answer:
                raise ValueError(f"{self._module}: {answer['error']}")
            answers.append(answer)
        return answers


if __name__ == "__main__":
    program.run(main, define, __doc__)
