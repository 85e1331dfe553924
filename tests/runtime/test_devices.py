import os
import platform
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from o2o_jax.runtime import devices
from o2o_jax.runtime.devices import enable_compilation_cache, seed_mesh


@pytest.mark.parametrize(
    ("num_seeds", "num_devices", "expected"),
    [(1, None, 1), (2, None, 2), (3, None, 1), (4, None, 2), (4, 1, 1), (4, 2, 2)],
)
def test_as_many_devices_as_divide_the_seeds(num_seeds, num_devices, expected):
    # the tests run on two devices
    mesh = seed_mesh(num_seeds, num_devices)
    assert mesh.axis_names == ("seed",)
    assert mesh.size == expected


def test_seeds_split_over_the_mesh():
    sharding = NamedSharding(seed_mesh(4), PartitionSpec("seed"))
    keys = jax.device_put(jax.vmap(jax.random.key)(jnp.arange(4)), sharding)
    draw = jax.vmap(jax.random.normal)
    np.testing.assert_array_equal(jax.jit(draw)(keys), draw(jax.vmap(jax.random.key)(jnp.arange(4))))
    assert keys[0].shape == ()  # an Explicit axis could not be indexed


@pytest.mark.parametrize(
    ("num_seeds", "num_devices", "message"),
    [
        (0, None, "number of seeds must be at least 1"),
        (6, 4, "4 devices can't share 6 seeds evenly: pass --devices=[123]$"),
        (2, 0, "0 devices can't share 2 seeds evenly: pass --devices=1"),
        (10**9, 10**9 - 1, "devices can't share 1000000000 seeds evenly: pass --devices="),
        (8, 8, "8 devices asked for, but JAX sees 2"),
    ],
)
def test_what_does_not_fit(num_seeds, num_devices, message):
    with pytest.raises(ValueError, match=message):
        seed_mesh(num_seeds, num_devices)


def test_memory_of_the_processor_is_what_is_free_of_the_machine_s_or_the_group_s(tmp_path, monkeypatch):
    device = jax.devices("cpu")[0]
    none, unlimited, group, free = (tmp_path / name for name in ("none", "unlimited", "group", "free"))
    unlimited.write_text("max\n")
    group.write_text("5000000\n")
    free.write_text("MemTotal: 9000 kB\nMemAvailable:    6000 kB\n")
    monkeypatch.setattr(devices, "CGROUP_LIMITS", (none, unlimited))
    monkeypatch.setattr(devices, "MEMORY_FILE", none)
    assert devices.memory_available(device) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(devices, "MEMORY_FILE", free)
    assert devices.memory_available(device) == devices.memory_available() == 6_144_000
    monkeypatch.setattr(devices, "CGROUP_LIMITS", (none, group))
    assert devices.memory_available(device) == 5_000_000


@pytest.mark.parametrize(("stats", "expected"), [({"bytes_limit": 7}, 7), ({}, None), (None, None)])
def test_memory_of_an_accelerator_is_its_own(stats, expected):
    device = types.SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    assert devices.memory_available(device) == expected


def test_a_fresh_process_splits_the_processor(tmp_path):
    code = """
import jax
from o2o_jax.cli.flags import keep_compiled_programs
from o2o_jax.runtime.devices import seed_mesh
keep_compiled_programs()
assert jax.config.jax_compilation_cache_dir.startswith(r"%s"), jax.config.jax_compilation_cache_dir
assert jax.config.jax_compilation_cache_max_size == 2_000_000_000
assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.5
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
assert seed_mesh(6, 3).size == 3
assert len(jax.devices()) == 3
jax.jit(lambda x: x + 1)(1.0)
"""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", code % tmp_path], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "o2o_jax" / "xla").iterdir()
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"note: compiled programs are kept in {folder}")
    assert folder.stat().st_mode & 0o077 == 0  # nobody else can write
    programs = {path.name for path in folder.glob("*-cache")}
    assert programs
    assert {f"{path.name.removesuffix('-atime')}-cache" for path in folder.glob("*-atime")} == programs
    assert not (tmp_path / "home").exists()


@pytest.fixture
def options():
    """Options of JAX that a test may set."""
    names = [
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_enable_compilation_cache",
        "jax_persistent_cache_min_compile_time_secs",
    ]
    before = {name: getattr(jax.config, name) for name in names}
    yield lambda: {name: getattr(jax.config, name) for name in names}
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_chosen_cache_folder_is_kept(monkeypatch, tmp_path, options):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    before = options()
    assert enable_compilation_cache() == ""
    assert options() == before | {"jax_persistent_cache_min_compile_time_secs": 0.5}
    for name, value in (("jax_compilation_cache_dir", ""), ("jax_enable_compilation_cache", False)):
        jax.config.update(name, value)  # each goes without
        before = options()
        assert enable_compilation_cache() == ""
        assert options() == before
    assert not (tmp_path / "caches").exists()


def test_the_folder_is_said_when_it_is_made(monkeypatch, tmp_path, options):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    said = enable_compilation_cache()
    folder = Path(options()["jax_compilation_cache_dir"])
    assert folder.is_relative_to(tmp_path)
    assert said.startswith(f"note: compiled programs are kept in {folder}, at most 2 GB")
    (folder / "a-cache").touch()  # of a process that was killed before it wrote when
    jax.config.update("jax_compilation_cache_dir", None)
    assert enable_compilation_cache() == ""
    assert (folder / "a-atime").read_bytes() == b""


@pytest.mark.parametrize("chosen", [True, False])
def test_a_folder_that_cannot_be_written_is_one_line(monkeypatch, tmp_path, options, chosen):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file" / "mine") if chosen else None)
    said = enable_compilation_cache()
    assert said.startswith(f"warning: compiled programs can't be kept in {tmp_path / 'file'}")
    assert said.endswith("set JAX_COMPILATION_CACHE_DIR to another folder")
    assert "\n" not in said
    assert not options()["jax_enable_compilation_cache"]


@pytest.mark.parametrize("option", ["jax_enable_x64", "jax_debug_nans"])
def test_options_under_which_no_run_works_are_refused(option):
    devices.check_options()
    jax.config.update(option, True)
    try:
        with pytest.raises(ValueError, match=f"^{option.upper()} is on, and .*: unset it$"):
            devices.check_options()
    finally:
        jax.config.update(option, False)


def test_a_platform_that_is_not_there_is_one_line(monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'foo':\nnot in the list")

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(ValueError, match=r"^JAX can't start \(Unable to initialize backend 'foo': not in the list\)"):
        devices.seed_mesh(1)


def test_a_platform_without_devices_is_one_line():
    code = "from o2o_jax.runtime.devices import seed_mesh; seed_mesh(1)"
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "ValueError: JAX can't start (" in ended.stderr
    assert "): unset JAX_PLATFORMS, which is cuda, or install what it needs" in ended.stderr


HEAPS = """
import ctypes, sys, tempfile, threading
from o2o_jax.runtime import devices

if sys.argv[1] == "shared":
    devices.share_heap()
libc, enough = ctypes.CDLL(None), threading.Barrier(4)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

def allocate():
    enough.wait()
    libc.malloc(1_000)
    enough.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
with tempfile.NamedTemporaryFile("r") as file:
    stream = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count("<heap nr="))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep heaps of their own kind")
def test_threads_share_one_heap():
    def heaps(how, **variables):
        environment = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"} | variables
        done = subprocess.run(
            [sys.executable, "-c", HEAPS, how], env=environment, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert heaps("shared") < heaps("apart")
    assert heaps("shared", MALLOC_ARENA_MAX="3") == 3  # of who starts the command
