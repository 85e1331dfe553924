"""Settings before the first JAX operation: strict broadcasting, two devices for tests that split seeds, compilation."""

import os
from pathlib import Path

import jax

os.environ.setdefault("MPLBACKEND", "Agg")
# in the environment too, for the processes that tests start
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".xla_cache"))
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":  # XLA's older code generator then compiles twice as fast
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
# most of a test's time is compilation: less optimised machine code halves it, the programs stay the same
jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
jax.devices()  # starts the backend, so that no test can change the number any more
