"""Importing other people's training scripts from a checkout, for their updates alone.

Only the standard library and numpy: this runs in the interpreter that has the peer's dependencies, not this package's.
"""

import importlib
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

# What the scripts import for environments, logs and command lines. No update touches them, and some cannot be installed
# any more.
UNUSED = ("d4rl", "gym", "pyrallis", "tensorboardX", "tqdm", "tyro", "wandb", "yaml")


def load(checkout: str, folder: str, module: str, repository: str) -> ModuleType:
    """Imports a module of a checkout, as its own scripts do: their folder and the checkout are on the path then.

    Args:
      checkout: folder of the checkout.
      folder: of the scripts, below it.
      module: dotted name below that.
      repository: its public name, for the error message.

    Raises:
      FileNotFoundError: the module isn't there.
      ModuleNotFoundError: a dependency is missing that no stand-in can replace, such as torch.
    """
    root = Path(checkout).expanduser()
    file = Path(folder, *module.split(".")).with_suffix(".py")
    if not (root / file).is_file():
        raise FileNotFoundError(f"{checkout} has no {file}: it should be a checkout of github.com/{repository}")
    sys.path[:0] = [str(root / folder), str(root)]
    sys.argv = sys.argv[:1]  # some read their settings from it on import
    environment = dict(os.environ)
    absent = [name for name in UNUSED if name not in sys.modules and importlib.util.find_spec(name) is None]
    for name in absent:
        sys.modules[name] = mock.MagicMock(__spec__=ModuleSpec(name, None))
    imported = importlib.import_module(module)
    for name in absent:
        del sys.modules[name]  # for whoever asks later whether it is installed
    os.environ.clear()  # some set XLA's flags, to what not every version of it knows
    os.environ.update(environment)
    return imported


def arrays(work: dict[str, Any]) -> dict[str, np.ndarray]:
    """Synthetic transitions [rows] under D4RL's names, of a worker's request."""
    random, rows = np.random.default_rng(0), work["rows"]
    observations = random.standard_normal((rows, work["observation_dim"]), np.float32)
    return {
        "observations": observations,
        "actions": random.uniform(-0.99, 0.99, (rows, work["action_dim"])).astype(np.float32),
        "rewards": random.standard_normal(rows, np.float32),
        "next_observations": np.roll(observations, -1, axis=0),
        "terminals": np.zeros(rows, np.float32),
    }
