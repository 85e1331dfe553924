import os
import sys

import numpy as np
import pytest

from benchmarks.peers import checkout


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A checkout whose script reads the command line, wants an environment and sets a variable."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "shared_by_scripts.py").write_text("VALUE = 3")
    (tmp_path / "scripts" / "a_script.py").write_text(
        "import os, sys, d4rl\n"
        "from shared_by_scripts import VALUE\n"
        "os.environ['O2O_TEST'] = 'set'\n"
        "arguments = sys.argv[1:]\n"
        "@d4rl.wrap()\n"
        "def train(): pass\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["program", "--flag"])
    return tmp_path


def test_a_script_is_imported_without_its_environment(scripts):
    script = checkout.load(str(scripts), "scripts", "a_script", "somebody/something")
    assert (script.VALUE, script.arguments) == (3, [])
    assert "O2O_TEST" not in os.environ
    assert "d4rl" not in sys.modules  # whoever asks whether it is installed hears the truth


def test_a_missing_script_names_the_repository(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no a/b.py: it should be a checkout of github.com/somebody/thing"):
        checkout.load(str(tmp_path), "", "a.b", "somebody/thing")


def test_arrays_have_the_sizes_asked_for():
    arrays = checkout.arrays({"rows": 5, "observation_dim": 3, "action_dim": 2})
    shapes = {name: column.shape for name, column in arrays.items()}
    assert shapes == {
        "observations": (5, 3), "actions": (5, 2), "rewards": (5,), "next_observations": (5, 3), "terminals": (5,),
    }  # fmt: skip
    np.testing.assert_array_equal(arrays["next_observations"][:-1], arrays["observations"][1:])
