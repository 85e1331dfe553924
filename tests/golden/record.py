"""Records golden numbers: whole updates of a checkout of a method's public code, on inputs that a seed draws.

    python tests/golden/record.py --system=cal_ql --checkout=PATH --seed=1

It runs where that code runs, in an environment of its own with numpy: nothing of this package is imported. The file
of a system in `systems/` has `record(recording)`; it makes the code's networks with the recording's weights, feeds its
batches and draws to the code's own update, and notes what comes of it. No line of a checkout belongs here. The README
has the format, which `tests/golden_numbers.py` reads.
"""

import argparse
import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
SYSTEMS = sorted(path.stem for path in (FOLDER / "systems").glob("[!_]*.py"))
ENTRIES = 8  # of a tensor that are kept, at most
TENSORS = 1_000  # of a seed, at most: the next seed's numbers begin there


def initial_weight(shape: Sequence[int], t: int, gain: bool = False) -> np.ndarray:
    """Tensor number t at the start, in PyTorch's layout: pseudo-random by a sine, near 1 for a LayerNorm gain."""
    index = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    value = np.sin(12.9898 * index + 78.233 * t) * 43758.5453
    uniform = 2.0 * (value - np.floor(value)) - 1.0
    if len(shape) == 2:
        return (uniform * 0.7 * math.sqrt(3.0 / shape[1])).astype(np.float32)
    return (float(gain) + 0.1 * uniform).astype(np.float32)


class Recording:
    """The numbers of one system, as they come.

    Attributes:
      random: generator of batches and draws, of the seed alone.
      checkout: folder of the system's code.
    """

    def __init__(self, seed: int, checkout: Path):
        self.random = np.random.default_rng(seed)
        self.checkout = checkout
        self._first = seed * TENSORS % 10**8  # beyond that the sine's arguments lose their digits
        self._tensors: list[str] = []
        self._numbers: dict[str, np.ndarray] = {}

    def weights(self, module: str, shapes: Mapping[str, Sequence[int]], gains: Sequence[str] = ()) -> dict[str, Any]:
        """Initial tensors of a module by their names, in PyTorch's layout; `gains` are those of LayerNorm."""
        tensors = {}
        for name, shape in shapes.items():
            t = self._first + len(self._tensors)
            self._tensors.append(f"{module}|{name}|{tuple(shape)}|{t}")
            tensors[name] = initial_weight(shape, t, name in gains)
        return tensors

    def copy(self, module: str, name: str) -> None:
        """Notes that the module `name` starts as a copy of `module`."""
        theirs = [line.removeprefix(f"{module}|") for line in self._tensors if line.startswith(f"{module}|")]
        self._tensors += [f"{name}|{line}" for line in theirs]

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal numbers, float32."""
        return self.random.standard_normal(shape).astype(np.float32)

    def uniform(self, *shape: int) -> np.ndarray:
        """Uniform numbers in [-1, 1), float32."""
        return self.random.uniform(-1.0, 1.0, shape).astype(np.float32)

    def batch(self, rows: int, observation_dim: int, action_dim: int) -> dict[str, np.ndarray]:
        """A batch: normal states and rewards, uniform actions, one row in five terminal; single columns are [B, 1]."""
        return {
            "observation": self.normal(rows, observation_dim),
            "action": 0.99 * self.uniform(rows, action_dim),
            "reward": self.normal(rows, 1),
            "next_observation": self.normal(rows, observation_dim),
            "terminal": (self.random.random((rows, 1)) < 0.2).astype(np.float32),
        }

    def note(self, phase: str, step: int, **groups: Any) -> None:
        """Notes the inputs of a step, or what came of them.

        Args:
          phase: of the system.
          step: of the phase, from 0.
          **groups: name -> array, or a list of arrays: `batch`, `draw`, `log`.
        """
        for group, values in groups.items():
            items = values.items() if isinstance(values, Mapping) else enumerate(values)
            for name, value in items:
                self._numbers[f"{phase}/{step}/{group}/{name}"] = np.asarray(value)

    def note_after(self, phase: str, step: int, module: str, tensors: Mapping[str, Any]) -> None:
        """Notes a module's tensors after a step, in PyTorch's layout; a single number goes by the name "constant"."""
        for name, value in tensors.items():
            flat = np.asarray(value, np.float64).ravel()
            rows = np.linspace(0, flat.size - 1, min(ENTRIES, flat.size)).astype(int)
            self._numbers[f"{phase}/{step}/after/{module}/{name}"] = np.concatenate(
                [[np.linalg.norm(flat)], flat[rows]]
            )

    def save(self, path: Path) -> None:
        """Writes the file. Impure."""
        assert len(self._tensors) <= TENSORS
        np.savez_compressed(path, tensors=np.array(self._tensors), **self._numbers)


def main() -> None:
    """Records one system. Impure: writes its file."""
    parser = argparse.ArgumentParser(description="record golden numbers of a checkout of a method's public code")
    parser.add_argument("--system", required=True, choices=SYSTEMS, help="whose updates to record")
    parser.add_argument("--checkout", required=True, type=Path, help="folder of its code")
    parser.add_argument("--seed", type=int, default=1, help="of weights, batches and draws, at least 0")
    parser.add_argument("--out", type=Path, help="file to write; by default SYSTEM.npz beside this script")
    arguments = parser.parse_args()
    if arguments.seed < 0:
        parser.error(f"--seed must be at least 0, got {arguments.seed}")
    if not arguments.checkout.is_dir():
        parser.error(f"--checkout={arguments.checkout} is no folder: clone the code that the README names there")
    recording = Recording(arguments.seed, arguments.checkout.resolve())
    # its first place on the path is this folder
    importlib.import_module(f"systems.{arguments.system}").record(recording)
    out = arguments.out or FOLDER / f"{arguments.system}.npz"
    recording.save(out)
    print(f"{out}: seed {arguments.seed}")


if __name__ == "__main__":
    sys.exit(main())
