import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import types
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore
from jax.sharding import NamedSharding, PartitionSpec

from o2o_jax.runtime import checkpoint
from o2o_jax.runtime.checkpoint import Checkpoints, check_claim, claim, locked, read_config
from o2o_jax.runtime.devices import seed_mesh

CONFIG = {"algorithm": "o2sac", "seeds": 2, "config": {"alpha": 0.5, "hidden": (32, 32), "clip": None}}


@flax.struct.dataclass
class State:
    params: dict
    opt: optax.OptState
    key: jax.Array
    step: jax.Array


def make_state(scale=1.0):
    params = {"dense": {"kernel": scale * jnp.arange(12.0).reshape(2, 6), "bias": jnp.full(2, jnp.inf)}}
    return State(
        params=params,
        opt=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params),
        key=jax.random.split(jax.random.key(7), 2),
        step=jnp.int32(3),
    )


def assert_equal(restored, expected):
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for new, old in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert new.dtype == old.dtype
        if jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key):
            new, old = jax.random.key_data(new), jax.random.key_data(old)
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_comes_back_as_it_was(tmp_path, abstract):
    state = make_state()
    with Checkpoints(tmp_path / "checkpoints", CONFIG) as checkpoints:
        assert checkpoints.latest_step() is None
        checkpoints.save(10, state)
    with Checkpoints(tmp_path / "checkpoints", CONFIG) as checkpoints:
        template = jax.eval_shape(make_state) if abstract else make_state(0.0)
        restored = checkpoints.restore(template)
    assert_equal(restored, state)


@flax.struct.dataclass
class Free:
    total: jax.Array
    rest: Any = None


def test_shapes_of_a_free_field_come_from_the_checkpoint(tmp_path):
    rest = {"returns": np.array([0.1, 1e9 / 3]), "deeper": {"steps": np.array([[3]], np.int32)}}
    with Checkpoints(tmp_path / "checkpoints", {}) as checkpoints:
        for step, saved in enumerate((rest, None)):
            checkpoints.save(step, Free(jnp.ones(2), saved))
            restored = checkpoints.restore(jax.eval_shape(lambda: Free(jnp.zeros(2))), free="rest")
            jax.tree.map(np.testing.assert_array_equal, restored.rest, saved)
    assert isinstance(restored.total, jax.Array)


def test_numpy_and_python_values_keep_their_type(tmp_path):
    state = {"array": np.arange(3, dtype=np.int64), "count": 5, "mean": 0.5, "none": None, "empty": ()}
    with Checkpoints(tmp_path / "checkpoints", {}) as checkpoints:
        checkpoints.save(0, state)
        restored = checkpoints.restore(state)
    assert isinstance(restored["array"], np.ndarray)
    assert (restored["count"], restored["mean"]) == (5, 0.5)
    assert isinstance(restored["count"], int)


def test_only_the_latest_stay(tmp_path):
    with Checkpoints(tmp_path, CONFIG, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
        assert checkpoints.latest_step() == 3
        assert_equal(checkpoints.restore(make_state(), step=2), make_state(2.0))
        with pytest.raises(FileNotFoundError, match="no checkpoint of step 1"):
            checkpoints.restore(make_state(), step=1)


@pytest.mark.parametrize("step", [5, 4])
def test_a_step_that_is_not_newer_is_an_error_not_a_silence(tmp_path, step):
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(5, make_state())
        with pytest.raises(ValueError, match=f"has a checkpoint of step 5, so step {step} was not saved"):
            checkpoints.save(step, make_state())


def test_the_buffers_may_be_donated_at_once(tmp_path):
    state = {"x": jnp.zeros(100_000)}
    overwrite = jax.jit(lambda state: jax.tree.map(lambda x: x + 1.0, state), donate_argnums=0)
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(0, state)
        later = overwrite(state)
        restored = checkpoints.restore(later)
        assert jax.tree.leaves(overwrite(restored))[0].sum() == 100_000
    assert later["x"].sum() == 100_000


def test_arrays_come_back_where_the_template_has_them(tmp_path):
    sharding = NamedSharding(seed_mesh(2, 2), PartitionSpec("seed"))
    sharded = jax.device_put({"x": jnp.arange(4.0), "key": jax.random.split(jax.random.key(0), 4)}, sharding)
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(0, sharded)
        restored = checkpoints.restore(jax.tree.map(jnp.copy, sharded))
        alone = checkpoints.restore(jax.eval_shape(lambda: sharded))
    assert_equal(restored, sharded)
    assert_equal(alone, sharded)
    assert restored["x"].sharding.is_equivalent_to(sharding, 1)
    assert restored["key"].sharding.is_equivalent_to(sharding, 1)
    assert len(alone["x"].devices()) == len(alone["key"].devices()) == 1


def test_another_configuration_names_what_differs(tmp_path):
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(0, make_state())
    other = {"algorithm": "o2sac", "seeds": 4, "config": {"alpha": 0.5, "hidden": (64, 32), "tau": 1.0}}
    with Checkpoints(tmp_path, other) as checkpoints, pytest.raises(ValueError, match="other settings") as error:
        checkpoints.restore(make_state())
    message = str(error.value)
    for part in (
        "config.hidden is [32, 32] there and [64, 32] now",
        "config.clip is null there and absent now",
        "config.tau is absent there and 1.0 now",
        "; and 1 more. Use",
        "another --out",
    ):
        assert part in message
    assert "alpha" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "x": jnp.zeros((1, 3))}, r"x is float32\[2, 3\] there and float32\[1, 3\] now"),
        (lambda s: {**s, "x": jnp.zeros((2, 3), jnp.int32)}, r"x is float32\[2, 3\] there and int32\[2, 3\] now"),
        (lambda s: {**s, "z": jnp.zeros(2)}, r"z is absent there and float32\[2\] now"),
        (lambda s: {"x": s["x"]}, r"y is float32\[2\] there and absent now"),
    ],
)
def test_another_structure_is_refused(tmp_path, change, message):
    state = {"x": jnp.ones((2, 3)), "y": jnp.ones(2)}
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(0, state)
        with pytest.raises(ValueError, match=message):
            checkpoints.restore(change(state))


def test_nothing_to_restore(tmp_path):
    with Checkpoints(tmp_path / "none", {}) as checkpoints:
        with pytest.raises(FileNotFoundError, match="no checkpoint in .*none"):
            checkpoints.restore({})
        assert not (tmp_path / "none").exists()


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(1, {"x": jnp.ones(2)})
    (tmp_path / "2").mkdir()
    with Checkpoints(tmp_path, {}) as checkpoints, pytest.raises(ValueError, match="is damaged") as error:
        checkpoints.restore({"x": jnp.ones(2)})
    assert "\n" not in str(error.value)


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        Checkpoints(tmp_path, {}, keep=0)


def test_a_killed_save_leaves_the_one_before(tmp_path):
    # the process dies where the finished checkpoint would get its name
    code = """
import os, pathlib, sys
import jax.numpy as jnp
from o2o_jax.runtime.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1], {})
checkpoints.save(1, {"x": jnp.ones(2)})
os.rename = os.replace = pathlib.Path.rename = pathlib.Path.replace = lambda *_, **__: os._exit(9)
checkpoints.save(2, {"x": jnp.zeros(2)})
"""
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert result.returncode == 9, result.stderr.decode()
    with Checkpoints(tmp_path, {}) as checkpoints:
        assert checkpoints.latest_step() == 1
        assert checkpoints.restore({"x": jnp.zeros(2)})["x"].sum() == 2
        checkpoints.save(2, {"x": jnp.zeros(2)})
        assert checkpoints.latest_step() == 2


def test_claim_a_new_folder(tmp_path):
    folder = claim(tmp_path / "runs" / "a", CONFIG)
    assert folder == tmp_path / "runs" / "a"
    assert read_config(folder)["config"] == {"alpha": 0.5, "hidden": [32, 32], "clip": None}


def test_claim_an_empty_folder(tmp_path):
    (tmp_path / ".DS_Store").touch()
    claim(tmp_path, CONFIG)


def test_claim_overwrites_nothing(tmp_path):
    claim(tmp_path / "a", CONFIG)
    before = (tmp_path / "a" / "config.json").read_bytes()
    with pytest.raises(FileExistsError, match="already holds a run: choose another --out, or resume it with --resume"):
        claim(tmp_path / "a", {"algorithm": "other"})
    assert (tmp_path / "a" / "config.json").read_bytes() == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for taken in ("b", "file"):
        with pytest.raises(FileExistsError, match="is not an empty folder"):
            claim(tmp_path / taken, CONFIG)


def test_resume_checks_what_it_finds(tmp_path):
    for _ in range(2):  # the first one starts the run
        assert claim(tmp_path / "a", CONFIG, resume=True) == tmp_path / "a"
        assert read_config(tmp_path / "a") == json.loads(json.dumps(CONFIG))
    with pytest.raises(ValueError, match="seeds is 2 there and 5 now"):
        claim(tmp_path / "a", {**CONFIG, "seeds": 5}, resume=True)
    (tmp_path / "a" / "config.json").write_text(json.dumps(CONFIG)[:-5])
    with pytest.raises(ValueError, match="is damaged"):
        claim(tmp_path / "a", CONFIG, resume=True)


HOLDER = """
import sys, time
from o2o_jax.runtime.checkpoint import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_live_process_has_a_folder_and_a_dead_one_leaves_it(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(BlockingIOError, match=f"belongs to a live run \\(process {holder.pid} on "),
            locked(tmp_path),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    for _ in range(2):  # and whoever has ended leaves it too
        with locked(tmp_path):
            pass


def test_a_lock_does_not_make_a_folder_a_run(tmp_path):
    with locked(tmp_path):
        pass
    assert claim(tmp_path, CONFIG) == tmp_path


def test_a_check_of_a_claim_writes_nothing_and_refuses_what_a_claim_would(tmp_path):
    assert check_claim(tmp_path / "runs" / "a", CONFIG) == tmp_path / "runs" / "a"
    assert list(tmp_path.iterdir()) == []
    claim(tmp_path / "a", CONFIG)
    with pytest.raises(FileExistsError, match="already holds a run"):
        check_claim(tmp_path / "a", CONFIG)
    assert check_claim(tmp_path / "a", CONFIG, resume=True) == tmp_path / "a"


def test_a_folder_that_can_not_be_written_is_refused(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(path))
    with pytest.raises(PermissionError, match=f"a can't be written: {tmp_path} is not writable"):
        claim(tmp_path / "runs" / "a", CONFIG)
    assert asked == [tmp_path]  # the nearest folder that there is


def test_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=f"a is a link to nothing: make {tmp_path / 'gone'}, or choose another"):
        claim(tmp_path / "a", CONFIG)


@pytest.mark.parametrize("name", ["alpha=[2.5]", "a*", "what?"])
def test_a_path_that_is_a_pattern_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"under which orbax doesn't finish checkpoints: choose another --out"):
        claim(tmp_path / name / "run", {})
    assert not (tmp_path / name).exists()


def test_a_checkpoint_that_is_not_whole_is_no_checkpoint(tmp_path):
    state = {"a": jnp.arange(3.0), "b": jnp.ones(())}
    with Checkpoints(tmp_path / "good", {}) as checkpoints:
        checkpoints.save(1, state)
    with (
        Checkpoints(tmp_path / "[bad]", {}) as checkpoints,
        pytest.raises(OSError, match="2 of its 2 arrays are missing"),
    ):
        checkpoints.save(1, state)


def test_older_checkpoints_go_once_the_new_one_is_known_to_be_whole(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(1, {"a": jnp.zeros(2)})
        monkeypatch.setattr(checkpoint, "_stored", lambda path: set())
        with pytest.raises(OSError, match="Look after the disk, then resume from the one of step 1"):
            checkpoints.save(2, {"a": jnp.ones(2)})
        assert checkpoints.all_steps() == [1, 2]
        monkeypatch.undo()
        checkpoints.save(3, {"a": jnp.ones(2)})
        assert checkpoints.all_steps() == [3]


def test_a_field_without_leaves_may_come_and_go(tmp_path):
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(1, {"a": jnp.arange(2.0), "old": None, "nested": {"x": (jnp.ones(()), None)}})
        found = checkpoints.restore({"a": jnp.zeros(2), "nested": {"x": (jnp.zeros(()), None), "y": None}, "new": None})
    np.testing.assert_array_equal(found["a"], [0.0, 1.0])
    assert found["nested"]["x"][0] == 1.0
    assert found["new"] is found["nested"]["y"] is None


def test_notes_come_back_and_older_checkpoints_have_none(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(1, make_state(), {"rows": {"align": 3}})
        assert checkpoints.notes() == {"rows": {"align": 3}}
        checkpoints.save(2, make_state())
        assert checkpoints.notes() == {}


def test_a_checkpoint_under_another_name_is_refused(tmp_path):
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(1, make_state())
    (tmp_path / "1").rename(tmp_path / "7")
    with Checkpoints(tmp_path, CONFIG) as checkpoints, pytest.raises(ValueError, match=r"7 .*one of step 1, under"):
        checkpoints.restore(make_state())


def test_what_threads_of_a_failed_save_say_later_stays_unsaid(monkeypatch, caplog):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: said.append(str(found.exc_value)))

    def fail_late():
        """Fails work of tensorstore after the event loop that waits for it has gone, as where a disk is full."""
        promise, future = tensorstore.Promise.new()
        loop = asyncio.new_event_loop()

        async def wait():
            await future

        waiting = loop.create_task(wait())
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        promise.set_exception(ValueError("no space left"))
        del waiting
        gc.collect()

    fail_late()
    assert said == ["Event loop is closed"]
    with pytest.raises(OSError, match="full"), checkpoint._silent():
        raise OSError("full")
    fail_late()
    logging.getLogger("asyncio").error("the work of orbax was never retrieved")
    assert said == ["Event loop is closed"]
    logging.getLogger("asyncio").error("another's")
    sys.unraisablehook(types.SimpleNamespace(exc_value=ValueError("another's")))
    assert (caplog.messages[-1], said[-1]) == ("another's", "another's")
    assert not any("orbax" in message for message in caplog.messages)
