"""Files of every kind that commands read, damaged at random: each is read, or refused by a line that names it.

How many examples there are, and whether they are the same ones each time, says the profile of `tests/conftest.py`.
"""

import json
import shutil

import flax.struct
import hypothesis.strategies as some
import numpy as np
import pytest
from absl.flags import FlagValues
from hypothesis import given

from o2o_jax import envs, online
from o2o_jax.cli import flags, overrides, report
from o2o_jax.data import sources
from o2o_jax.envs.behaviour import load_behaviour, save_behaviour
from o2o_jax.jobs import handoffs
from o2o_jax.runtime import provenance, saved
from o2o_jax.runtime.checkpoint import Checkpoints
from tests import refusals, tiny
from tests.trust import test_bad_inputs

NUMBERS = some.integers(-(10**30), 10**30) | some.floats() | some.sampled_from([0, 1, -1, 2**63, 1e300])
LEAVES = some.none() | some.booleans() | NUMBERS | some.text(max_size=20) | some.text(min_size=500, max_size=500)
JSON = some.recursive(
    LEAVES,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
SCORED = ["step,seed,score,reference_score", "0,0,1.0,1.0", "0,1,2.0,2.0", "10,0,3.0,3.0", "10,1,4.0,4.0"]


@flax.struct.dataclass
class State:
    """A state to save."""

    x: np.ndarray
    episodes: dict | None


def read_run(path):
    settings = handoffs.offline_settings(path.parent, range(1))
    handoffs.task_of(settings)
    handoffs.spec_of(settings)
    handoffs.online_task(path.parent, settings)


def read_online_run(path):
    report.table([report.load_run(path.parent, "run")])
    settings = handoffs.online_settings(path.parent)
    handoffs.task_of(settings)


def read_settings(path):
    args = FlagValues()
    flags.define_common(args, "set", "config")
    args(["", f"--config={path}"])
    default = online.load("o2td3").Config.for_task(envs.get_task(tiny.ENV), "paper")
    overrides.settings(args, "o2td3", default)


def read_checkpoint(path):
    step = path.parent.parent
    with Checkpoints(step.parent, {"alpha": 1.0}) as checkpoints:
        checkpoints.restore(State(np.zeros(2, np.float32), None), free="episodes")


def read_scores(path):
    report.table([report.load_run(path.parent, "run", x="training")])


def read_minari(path):
    folder = path.parent.parent
    envs.family(tiny.ENV).load_dataset(envs.get_task(tiny.ENV), str(folder))


def read_behaviour(path):
    load_behaviour(path)


# name -> the file within the folder `damaged`, and what reads it
READERS = {
    "config.json of an offline run": ("td3_bc/config.json", read_run),
    "config.json of a fine-tuning run": ("o2td3/config.json", read_online_run),
    "--config": ("settings/config.json", read_settings),
    "metadata of a checkpoint": ("checkpoints/3/meta/metadata", read_checkpoint),
    "provenance": ("td3_bc/provenance.jsonl", lambda path: provenance.read(path.parent)),
    "metadata of Minari": ("hopper-v0/data/metadata.json", read_minari),
    "policy.json": ("policy/policy.json", lambda path: saved.read(path.parent)),
    "arrays.npz of a policy": ("policy/arrays.npz", lambda path: saved.read(path.parent)),
    "a behaviour policy": ("behaviour.npz", read_behaviour),
    "npz": ("data.npz", lambda path: sources.load(str(path))),
    "hdf5": ("data.hdf5", lambda path: sources.load(str(path))),
    "main_data.hdf5": ("hopper-v0/data/main_data.hdf5", read_minari),
    "evaluation.csv": ("scores/evaluation.csv", read_scores),
}
# how far above the file's own folder that is which a message may name: the checkpoint's, the dataset's
ABOVE = {"metadata of a checkpoint": 2, "metadata of Minari": 1, "main_data.hdf5": 1}
OF_JSON = [name for name, (path, _) in READERS.items() if "json" in path or path.endswith("metadata")]


@pytest.fixture(scope="session")
def damaged(sound, tmp_path_factory):
    """A folder with each of these files, whole."""
    folder = tmp_path_factory.mktemp("damaged")
    for name in ("td3_bc", "o2td3", "policy"):
        shutil.copytree(sound / name, folder / name)
    shutil.copytree(sound / "minari" / "o2o" / "hopper" / "random-v0", folder / "hopper-v0")
    (folder / "settings").mkdir()
    shutil.copy(sound / "o2td3" / "config.json", folder / "settings")
    provenance_file = folder / "td3_bc" / provenance.FILE
    provenance_file.write_text(provenance_file.read_text().splitlines()[0] + "\n")
    with Checkpoints(folder / "checkpoints", {"alpha": 1.0}) as checkpoints:
        checkpoints.save(3, State(np.zeros(2, np.float32), {"returns": np.zeros(3)}))
    save_behaviour(folder / "behaviour.npz", tiny.make_policy(), {"env_id": "Hopper-v5"})
    test_bad_inputs.write_npz(folder / "data.npz", test_bad_inputs.COLUMNS)
    test_bad_inputs.write_hdf5(folder / "data.hdf5", test_bad_inputs.COLUMNS)
    (folder / "scores").mkdir()
    (folder / "scores" / "evaluation.csv").write_text("\n".join([*SCORED, ""]))
    return folder


def read_or_refuse(folder, name, content):
    """Reads a file with another content, which must succeed or be refused in a line that names the file."""
    within, read = READERS[name]
    path = folder / within
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        read(path)
    except (ValueError, OSError) as error:
        named = str(path.parents[ABOVE.get(name, 0)])
        refusals.check(f"error: {' '.join(str(error).split())}\n", named)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", READERS)
@given(data=some.data())
def test_bytes(name, damaged, data):
    whole = (damaged / READERS[name][0]).read_bytes()
    cut = some.integers(0, len(whole)).map(lambda length: whole[:length])
    place = some.integers(0, len(whole) - 1)
    changed = some.tuples(place, some.binary(min_size=1, max_size=4)).map(
        lambda change: whole[: change[0]] + change[1] + whole[change[0] + len(change[1]) :]
    )
    anything = some.binary(max_size=100) | some.text(max_size=50).map(str.encode) | cut
    # the HDF5 library itself may crash on a file that is whole but for some bytes
    content = data.draw(anything if name.endswith("hdf5") else anything | changed)
    read_or_refuse(damaged, name, content)


def paths_within(values, depth=4):
    """The paths of all values of a JSON object and of those within it."""
    found = [()]
    for key, value in values.items() if isinstance(values, dict) and depth else ():
        found += [(key, *path) for path in paths_within(value, depth - 1)]
    return found


def with_value(values, path, value):
    if not path:
        return value
    return values | {path[0]: with_value(values[path[0]], path[1:], value)}


@pytest.mark.parametrize("name", OF_JSON)
@given(data=some.data())
def test_json_of_another_shape(name, damaged, data):
    values = json.loads((damaged / READERS[name][0]).read_text())
    path, value = data.draw(some.sampled_from(paths_within(values))), data.draw(JSON)
    read_or_refuse(damaged, name, json.dumps(with_value(values, path, value)).encode())


CELLS = some.sampled_from(["", "nan", "inf", "x", "1e999", "-1", '"', "0x1", "1_0", "9" * 40]) | some.text(max_size=6)


@given(row=some.integers(0, 4), column=some.integers(0, 3), cell=CELLS)
def test_cells_of_another_kind(damaged, row, column, cell):
    rows = [line.split(",") for line in SCORED]
    rows[row][column] = cell
    text = "\n".join([",".join(cells) for cells in rows] + [""])
    read_or_refuse(damaged, "evaluation.csv", text.encode("utf-8", "surrogatepass"))


SHAPES = some.lists(some.integers(0, 7), max_size=4).map(tuple) | some.sampled_from([(6, 11), (6, 3), (6,)])
DTYPES = some.sampled_from(["f4", "f8", "i8", "u1", "?", "c8", "f2", "S3"])


@pytest.mark.parametrize("name", ["npz", "hdf5"])
@given(key=some.sampled_from(list(test_bad_inputs.COLUMNS)), shape=SHAPES, dtype=DTYPES, number=some.floats(width=16))
def test_arrays_of_another_kind(name, damaged, key, shape, dtype, number):
    with np.errstate(all="ignore"):
        array = np.full(shape, b"abc" if dtype == "S3" else number).astype(dtype)
    path = damaged / f"other.{name}"
    write = {"npz": test_bad_inputs.write_npz, "hdf5": test_bad_inputs.write_hdf5}[name]
    write(path, test_bad_inputs.COLUMNS | {key: array})
    try:
        sources.load(str(path), envs.get_task(tiny.ENV))
    except (ValueError, OSError) as error:
        refusals.check(f"error: {' '.join(str(error).split())}\n", str(path))
