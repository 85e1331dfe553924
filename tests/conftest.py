"""Settings before the first JAX operation: strict broadcasting, two devices for tests that split seeds, compilation."""

import gc
import os
from pathlib import Path

import hypothesis
import jax
import pytest
from jax._src.interpreters import mlir

from tests import sharing

os.environ.setdefault("MPLBACKEND", "Agg")
# in the environment too, for the processes that tests start
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".xla_cache"))
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":  # XLA's older code generator then compiles twice as fast
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"  # and programs in one piece
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
# most of a test's time is compilation: less optimised machine code halves it, the programs stay the same
jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")
# programs that don't say where in the code each operation comes from are lowered and compiled in a tenth less time
jax.config.update("jax_traceback_in_locations_limit", int(os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"]))
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
jax.devices()  # starts the backend, so that no test can change the number any more
# One context of MLIR for all programs: making one and loading its dialects takes a fifth of a small program's time.
context = mlir.make_ir_context()
mlir.make_ir_context = lambda: context
sharing.share()
# In the suite the same few examples each time; `make trust` draws many, and others each time.
COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
}
hypothesis.settings.register_profile("suite", max_examples=40, derandomize=True, **COMMON)
hypothesis.settings.register_profile("thorough", max_examples=1_000, print_blob=True, **COMMON)
hypothesis.settings.load_profile("suite")

# Files of a minute and more. They begin, so that at the end of a run on several cores no file is left that one core
# works on while the others wait.
LONGEST = [
    Path(__file__).parent / name
    for name in (
        "cli/test_finetune.py",
        "test_contracts.py",
        "test_pairs.py",
        "test_probes.py",
        "runtime/test_loop.py",
        "cli/test_diagnose.py",
    )
]
# Files whose programs are the same: one process runs them, since each compiles its own.
TOGETHER = ("tests/test_contracts.py", "tests/test_pairs.py")


def pytest_collection_modifyitems(items):
    assert all(path.exists() for path in LONGEST), "name the longest files as they are now"
    items.sort(key=lambda item: LONGEST.index(item.path) if item.path in LONGEST else len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            scope = super()._split_scope(nodeid)
            return TOGETHER[0] if scope in TOGETHER else scope

    return Scheduling(config, log)


def pytest_collection_finish():
    # tracing allocates much that lives on: looking through all of it for garbage, by default, is 5 % of the tests' time
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
