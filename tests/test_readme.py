"""The README's library examples run, and are as short as they claim to be."""

import re
from pathlib import Path

import numpy as np

from o2o_jax.data import sources

README = Path(__file__).parents[1] / "README.md"


def example(number):
    """A Python example of the README."""
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) == 3
    assert len(examples[number].strip().splitlines()) <= 25
    return examples[number]


def run_example(number):
    """Names that a Python example of the README defines."""
    names: dict = {}
    exec(compile(example(number), "README.md", "exec"), names)
    return names


def test_library_example_runs():
    names = run_example(0)
    assert names["actions"].shape == (2, 3)
    assert all(np.isfinite(names["metrics"][term]).all() for term in ("critic_loss", "q"))
    assert int(names["states"].step[0]) == 1


def test_example_of_own_data_runs():
    names = run_example(2)
    assert names["data"].size == 995  # five episodes were cut, without an observation after their last step
    assert int(names["state"].step) == 20
    assert np.isfinite(names["metrics"]["critic_loss"])
    action = names["handoff"].policy.distribution(np.zeros((2, 3), np.float32)).mode()
    assert action.shape == (2, 1)


def test_arrays_of_the_npz_file_have_the_names_of_the_example():
    (call,) = re.findall(r"Dataset\.from_arrays\(\n(.*?)\n\)", README.read_text(), re.DOTALL)
    assert tuple(re.findall(r"^ +(\w+)=", call, re.MULTILINE)) == sources.NPZ_KEYS


def test_named_commands_exist():
    for folder, name in set(re.findall(r"(experiments|benchmarks)\.(\w+)", README.read_text())):
        assert (README.parent / folder / f"{name}.py").exists(), name


def test_departures_that_the_code_cites_are_on_their_page():
    root = README.parent
    page = (root / "docs" / "departures.md").read_text()
    known = set(re.findall(r"^\| (D-\d\d\w?) \|", page, re.MULTILINE))
    files = [path for folder in ("o2o_jax", "experiments", "tests") for path in (root / folder).rglob("*.py")]
    cited = {number for path in files for number in re.findall(r"\bD-\d\d\b[a-z]?", path.read_text())}
    assert len(known) == 60  # D-01 to D-59, and D-06a
    assert cited
    assert cited <= known
