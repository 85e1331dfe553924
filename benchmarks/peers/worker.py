"""One side of a comparison, in a process of its own: prepares a workload, then runs as many updates as it is asked to.

    python -m benchmarks.peers.worker benchmarks.peers.corl '{"name": "td3_bc", "checkout": "…", …}'

A worker speaks JSON, a line each. It says {"ready": seconds of preparation and warm-up, "versions": of what does its
arithmetic} once, and then, for every number of updates on stdin, {"updates": how many it ran, of all seeds, "seconds":
how long they took}; or {"error": …} and ends. What the imported code prints goes to stderr. Only the standard library
is imported here.
"""

import importlib
import importlib.metadata
import json
import os
import sys
import time
from typing import IO, Any

ARITHMETIC = ("torch", "jax", "jaxlib", "numpy")


def main(module: str, request: str) -> int:
    """Runs a worker to the end of stdin; returns the exit status. Impure."""
    answers, sys.stdout = sys.stdout, sys.stderr
    work = json.loads(request)
    try:
        _limit_cores(work["cores"])
        started = time.perf_counter()
        run = importlib.import_module(module).prepare(work)
        run(work["warmup_updates"])
        _answer(answers, {"ready": time.perf_counter() - started, "versions": _versions()})
        for line in sys.stdin:
            started = time.perf_counter()
            updates = run(int(line))
            _answer(answers, {"updates": updates, "seconds": time.perf_counter() - started})
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed for {sys.executable}: pass an interpreter that has it"
        _answer(answers, {"error": message})
        return 1
    except Exception as error:  # whatever other people's code raises, its reader wants a line of it
        _answer(answers, {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"})
        return 1
    return 0


def _answer(stream: IO[str], content: dict[str, Any]) -> None:
    print(json.dumps(content), file=stream, flush=True)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ARITHMETIC if name in sys.modules}


def _limit_cores(count: int) -> None:
    """Leaves this process the first `count` of its cores, where the system can say so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
