"""Devices of this machine that seeds run on, and the cache of compiled programs."""

import contextlib
import ctypes
import hashlib
import numbers
import os
import platform
from pathlib import Path

import jax
from jax.sharding import AxisType, Mesh

from o2o_jax.reading import brief
from o2o_jax.types import expect

MEMORY_FILE = Path("/proc/meminfo")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
CACHE_BYTES = 2_000_000_000  # of compiled programs, a few MB each
M_ARENA_MAX = -8  # of glibc's malloc.h


def seed_mesh(num_seeds: int, num_devices: int | None = None) -> Mesh:
    """Devices that share the seeds, as a mesh with the one axis "seed"; impure where it starts the backend.

    On a machine without accelerators the processor is split into as many devices as take part, which works only
    before the first JAX operation; afterwards it takes those that are there.

    Args:
      num_seeds: S, divided evenly among the devices.
      num_devices: how many take part. None takes as many as possible: of the accelerators, or of the processor's
        cores, where there is none.

    Returns:
      A mesh whose axis "seed" is of type Auto. Place seeds with `NamedSharding(mesh, PartitionSpec("seed"))`.

    Raises:
      ValueError: fewer than one seed or device, more devices than there are, or devices that do not divide the seeds;
        JAX doesn't start.
    """
    for name, count in (("num_seeds", num_seeds), ("num_devices", num_devices or 1)):
        expect(count, numbers.Integral, name, "pass a whole number")
    if num_seeds < 1:
        raise ValueError(f"the number of seeds must be at least 1, got {num_seeds}")
    if num_devices is not None and (num_devices < 1 or num_seeds % num_devices):
        near = _most_devices(num_seeds, min(max(1, num_devices), os.cpu_count() or 1))
        raise ValueError(f"{num_devices} devices can't share {num_seeds} seeds evenly: pass --devices={near}")
    try:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # Ignored where an accelerator is the default backend.
        jax.config.update("jax_num_cpu_devices", num_devices or _most_devices(num_seeds, cores))
    except RuntimeError:  # the backend has started: its devices are what they are
        pass
    try:
        available = jax.devices()
    except (RuntimeError, AssertionError) as error:  # a platform that isn't there, or one that is taken
        chosen = jax.config.jax_platforms
        reason = " ".join(str(error).split()) or "it finds no such device"
        way_out = f": unset JAX_PLATFORMS, which is {chosen}, or install what it needs" if chosen else ""
        raise ValueError(f"JAX can't start ({brief(reason)}){way_out}") from error
    if num_devices is not None and num_devices > len(available):
        raise ValueError(f"{num_devices} devices asked for, but JAX sees {len(available)}: {available}")
    count = num_devices or _most_devices(num_seeds, len(available))
    return jax.make_mesh((count,), ("seed",), devices=available[:count], axis_types=(AxisType.Auto,))


def memory_available(device: jax.Device | None = None) -> int | None:
    """Returns how many bytes of memory are free; impure: asks the system.

    Args:
      device: an accelerator, whose own memory is meant; None, or one of the processor's, which share the machine's, or
        what the process's control group may have of it.

    Returns:
      Bytes; None where nothing says it.
    """
    if device is not None and device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    limits = []
    with contextlib.suppress(ValueError, OSError):  # a system without these names
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(ValueError, OSError, StopIteration):  # Linux alone says what others have taken
        line = next(line for line in MEMORY_FILE.read_text().splitlines() if line.startswith("MemAvailable:"))
        limits.append(1024 * int(line.split()[1]))
    for path in CGROUP_LIMITS:
        with contextlib.suppress(ValueError, OSError):  # no control group, or no limit: "max"
            limits.append(int(path.read_text()))
    return min(limits, default=None)


def share_heap() -> None:
    """Lets all threads allocate from one heap, where the C library would give each its own. Impure; before they start.

    What one thread frees in another's heap stays there: memory would grow with every checkpoint, which threads write.
    MALLOC_ARENA_MAX of the environment, which says how many heaps there are, is left alone.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError, TypeError):  # C libraries of other systems don't know it
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def check_options() -> None:
    """Refuses options of JAX under which no run works.

    Raises:
      ValueError: one of them is on.
    """
    reasons = {
        "jax_enable_x64": "runs are in float32, and so are their checkpoints",
        "jax_debug_nans": "NaN stands for what was not measured",
    }
    for option, reason in reasons.items():
        if getattr(jax.config, option):
            raise ValueError(f"{option.upper()} is on, and {reason}: unset it")


def enable_compilation_cache() -> str:
    """Keeps compiled programs for the next process; impure.

    They lie in `o2o_jax/xla` of `XDG_CACHE_HOME`, `~/.cache` where that isn't set, up to `CACHE_BYTES`: those that were
    not read for longest go first. Each kind of processor gets a folder of its own, since a program compiled for one may
    use instructions that another sharing the home folder lacks. JAX_COMPILATION_CACHE_DIR chooses another folder, which
    JAX_COMPILATION_CACHE_MAX_SIZE bounds; JAX_ENABLE_COMPILATION_CACHE=false goes without.

    Returns:
      What to tell people: where the folder is that was just made, or that programs can't be kept; "" for nothing.
    """
    chosen = jax.config.jax_compilation_cache_dir  # None, if nobody has said anything
    if not jax.config.jax_enable_compilation_cache or chosen == "" or "://" in (chosen or ""):
        return ""
    folder = Path(chosen) if chosen else _caches() / "o2o_jax" / "xla" / f"{_processor()}-bounded"
    is_new = not folder.exists()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("you may not write there")
    except OSError as error:
        jax.config.update("jax_enable_compilation_cache", False)
        return (
            f"warning: compiled programs can't be kept in {folder} ({error.strerror or error}), and every start "
            "compiles anew: set JAX_COMPILATION_CACHE_DIR to another folder"
        )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if chosen:
        return ""
    if jax.config.jax_compilation_cache_max_size == -1:  # JAX's word for no bound
        jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    for program in folder.glob("*-cache"):  # JAX stumbles over one of a process that was killed before it dated it
        program.with_name(program.name.removesuffix("-cache") + "-atime").touch()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    how = "JAX_COMPILATION_CACHE_DIR chooses another folder, JAX_ENABLE_COMPILATION_CACHE=false goes without"
    return f"note: compiled programs are kept in {folder}, at most {CACHE_BYTES / 1e9:g} GB: {how}" if is_new else ""


def _caches() -> Path:
    """Folder of a user's caches, as the XDG base directory specification says it: relative paths don't count."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return given if given.is_absolute() else Path.home() / ".cache"


def _most_devices(num_seeds: int, limit: int) -> int:
    return max(n for n in range(1, min(num_seeds, limit) + 1) if num_seeds % n == 0)


def _processor() -> str:
    """Short name of the kind of processor: its architecture and a digest of its features."""
    try:
        features = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
