"""The README's library example runs, and is as short as it claims to be."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_library_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) <= 25
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["actions"].shape == (2, 3)
    assert all(np.isfinite(names["metrics"][term]).all() for term in ("critic_loss", "q"))
    assert int(names["states"].step[0]) == 1


def test_named_commands_exist():
    for name in set(re.findall(r"experiments\.(\w+)", README.read_text())):
        assert (README.parent / "experiments" / f"{name}.py").exists(), name
