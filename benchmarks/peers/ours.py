"""Updates of this package as a worker; see `benchmarks.peers.worker`."""

from collections.abc import Callable
from typing import Any

from benchmarks import measuring, workloads
from o2o_jax.runtime import devices
from o2o_jax.settings import replaced
from o2o_jax.types import Spec


def prepare(work: dict[str, Any]) -> Callable[[int], int]:
    """Updates of `work["seeds"]` seeds on as many devices as the peer has processes."""
    devices.enable_compilation_cache()
    mesh = devices.seed_mesh(work["seeds"], work["processes"])
    config = workloads.settings(work["name"].partition("/")[0])
    config = replaced(config, {path: tuple(widths) for path, widths in work["widths"].items()})
    spec = Spec(work["observation_dim"], work["action_dim"])
    workload = workloads.make(work["name"], config, spec, work["rows"])
    running = measuring.Running(workload, work["seeds"], mesh, work["chunk"])

    def run(updates: int) -> int:
        chunks = -(-updates // running.updates)
        for _ in range(chunks):
            running()
        return chunks * running.updates * work["seeds"]

    return run
