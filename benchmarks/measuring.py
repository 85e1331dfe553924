"""Measurement: warm-up apart, blocking until results are there, everything compared in alternating rounds.

Impure throughout: reads clocks, runs programs.
"""

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from benchmarks.workloads import Workload
from o2o_jax.runtime import seeds
from o2o_jax.runtime.phases import start_states
from o2o_jax.training import PhaseState

GEMM_NUMPY, GEMM_XLA = "sgemm numpy", "sgemm xla"


class Running:
    """A workload of several seeds, compiled and ready: every call runs a chunk of updates and waits for it.

    Args:
      workload: what to run.
      num_seeds: S.
      mesh: devices that share the seeds.
      chunk: updates per call; on whole rollouts it is one update.
      time_compilation: whether to compile twice, see `compile_twice`; otherwise `cold` and `cached` are NaN.

    Attributes:
      updates: per call and seed.
      cold: seconds to trace and compile the chunk with an empty cache.
      cached: the same with the compiled program in the persistent cache.
      program_bytes: of its arguments, the dataset among them, of results that don't take their place, and of
        temporaries, as XLA says it.
    """

    def __init__(
        self, workload: Workload, num_seeds: int, mesh: Mesh, chunk: int, time_compilation: bool = False
    ) -> None:
        self.updates, self.cold, self.cached = 1 if workload.on_rollout else chunk, np.nan, np.nan
        keys = seeds.keys(range(num_seeds), workload.name)
        state = start_states(workload.init, mesh, keys)
        self._data, self._extras = seeds.replicate(workload.data, mesh), None
        if workload.prepare is not None:
            prepare = seeds.over_seeds(workload.prepare, mesh, shared=(1,), donate=(0,))
            state, self._extras = prepare(state, self._data)
        state = seeds.place(seeds.over_seeds(PhaseState.start, mesh)(state), mesh)
        self._state, self._keys = state, seeds.place(keys, mesh)
        program = seeds.over_seeds(
            functools.partial(workload.run, num_updates=self.updates), mesh, shared=(1,), donate=(0,)
        )
        arguments = (self._state, self._data, self._extras, self._keys)
        if time_compilation:
            self._program, self.cold, self.cached = compile_twice(program, *arguments)
        else:
            self._program = program.lower(*arguments).compile()
        memory = self._program.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        self.program_bytes = held - memory.alias_size_in_bytes

    def __call__(self) -> None:
        """Runs a chunk."""
        self._state, metrics = self._program(self._state, self._data, self._extras, self._keys)
        jax.block_until_ready((self._state, metrics))


def compile_twice(program: Any, *arguments: Any) -> tuple[Any, float, float]:
    """Compiles with an empty cache, then from the cache that this filled; tracing counts both times.

    Returns:
      The compiled program, and both times in seconds.
    """

    def compiled() -> tuple[Any, float]:
        jax.clear_caches()  # of traces and programs in memory
        started = time.perf_counter()
        result = program.lower(*arguments).compile()
        return result, time.perf_counter() - started

    with empty_compilation_cache():
        _, cold = compiled()
        result, cached = compiled()
    return result, cold, cached


@contextlib.contextmanager
def empty_compilation_cache() -> Iterator[None]:
    """Within it, compiled programs are kept in a folder of its own, however small they are."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, value in zip(names, (folder, 0.0, -1), strict=True):
                jax.config.update(name, value)
            compilation_cache.reset_cache()  # which otherwise stays with the folder that it was first used with
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def interleave(calls: Mapping[Any, Callable[[], Any]], seconds: float, repeats: int) -> dict[Any, np.ndarray]:
    """Times calls in rounds, each of which gives every call its turn: a slow minute of the machine hits all alike.

    Args:
      calls: by name; each returns when its work is done.
      seconds: of a turn, in which a call is repeated; at least once.
      repeats: rounds, after a call of each for warm-up.

    Returns:
      Seconds per call [repeats].
    """
    for call in calls.values():
        call()
    samples: dict[Any, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            count, started, elapsed = 0, time.perf_counter(), 0.0
            while not count or elapsed < seconds:
                call()
                count, elapsed = count + 1, time.perf_counter() - started
            samples[name].append(elapsed / count)
    return {name: np.array(values) for name, values in samples.items()}


def gemm_calls(size: int) -> dict[str, Callable[[], Any]]:
    """Products of two float32 matrices [size, size] by numpy's BLAS and by XLA, 2 size³ operations each."""
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    out, on_device = np.empty_like(a), jnp.asarray(a)
    product = jax.jit(jnp.matmul)
    return {
        GEMM_NUMPY: lambda: np.matmul(a, a, out=out),
        GEMM_XLA: lambda: product(on_device, on_device).block_until_ready(),
    }


def gemm_peak(samples: Mapping[Any, np.ndarray], size: int) -> dict[str, float]:
    """Measures the machine: the best round of each product, in GFLOP/s, and the peak that updates are held against.

    That is the faster of the two where XLA runs on the processor, and XLA's on an accelerator.
    """
    best = {name: 2e-9 * size**3 / samples[name].min() for name in (GEMM_NUMPY, GEMM_XLA)}
    peak = max(best.values()) if jax.default_backend() == "cpu" else best[GEMM_XLA]
    return best | {"peak": peak}


def median_and_spread(samples: np.ndarray) -> tuple[float, float]:
    """The median of positive samples, and how far they lie apart: (largest − smallest) / median, in percent."""
    median = float(np.median(samples))
    return median, float(100.0 * np.ptp(samples) / median)
