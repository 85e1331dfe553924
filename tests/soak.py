"""Runs fine-tuning for very long, and watches memory, compilations and speed.

    python tests/soak.py --env_steps=1000000

O2TD3 and O2SAC, four seeds of tiny networks in a cheap environment, each in a process of its own that is watched from
outside. After the first tenth, its warm-up, nothing may be compiled again; in the last tenth the resident memory must
be that of the second within 2 %, and the rate at least nine tenths. Prints a line per tenth; status 1 where anything
fails.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import absl.flags
import gymnasium
import numpy as np
from absl.flags import FlagValues

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # of a script Python knows only the script's own folder

from o2o_jax.cli import program  # noqa: E402
from tests import tiny  # noqa: E402

TENTHS = 10
COMPILING = "Compiling jit("  # and what, in JAX's log
MEMORY, SPEED = 0.02, 0.1  # most that resident memory may grow by, and the rate may fall by
ENV = "gym/tests.soak:Drift-v0"
COMMON = [f"--env={ENV}", "--dataset=data.npz", "--seeds=4"]
OFFLINE = ["--algorithm=td3_bc", "--out=td3_bc", *COMMON, *tiny.SETTINGS, "--set=updates=200", "--eval_every=0"]
ONLINE = [
    "--policy=td3_bc",
    *COMMON,
    *tiny.ONLINE_SETTINGS,
    "--set=reevaluate.updates=200",
    "--set=reevaluate.return_updates=0",
    "--set=align.updates=200",
    "--set=replay.buffer_size=100_000",
    "--set=evaluation.episodes=2",
    "--clone_updates=200",
]


class Drift(gymnasium.Env):
    """A point that drifts, and is to be held: as cheap as an environment can be."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begins at a random place."""
        super().reset(seed=seed)
        self._state = self.np_random.uniform(-1.0, 1.0, 3)
        return self._state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Drifts on, and is pushed."""
        self._state = 0.95 * np.roll(self._state, 1)
        self._state[0] += 0.1 * float(action[0])
        return self._state.copy(), -float(abs(self._state[0])), False, False, {}


gymnasium.register("Drift-v0", Drift, max_episode_steps=100)


class Look(NamedTuple):
    """Sight of a process when a tenth of its steps is over.

    Attributes:
      seconds: since its start.
      memory: resident in bytes, the median since the look before: a checkpoint that is written takes more for a moment.
      compiled: programs so far, each with the shapes of its arguments.
    """

    seconds: float
    memory: int
    compiled: list[str]


def write_data(path: Path, transitions: int = 2_000) -> None:
    """Writes transitions of random actions in the environment."""
    env, rng = gymnasium.make("Drift-v0"), np.random.default_rng(0)
    columns: dict[str, list[Any]] = {}
    observation, _ = env.reset(seed=0)
    for _ in range(transitions):
        action = rng.uniform(-1.0, 1.0, 1).astype(np.float32)
        after, reward, terminated, truncated, _ = env.step(action)
        row = {
            "observations": observation,
            "actions": action,
            "rewards": reward,
            "next_observations": after,
            "terminations": terminated,
            "truncations": truncated,
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        observation = env.reset()[0] if truncated else after
    np.savez(path, **{name: np.asarray(values) for name, values in columns.items()})


def watch(folder: Path, algorithm: str, env_steps: int) -> list[Look]:
    """Runs one algorithm in a folder that has data and an offline policy; returns a look at each tenth."""
    every = env_steps // TENTHS
    command = [
        sys.executable, "-m", "o2o_jax.cli", "finetune", f"--algorithm={algorithm}", f"--out={algorithm}", *ONLINE,
        f"--set=env_steps={env_steps}", f"--set=evaluation.every_env_steps={every // 5}",
    ]  # fmt: skip
    log = folder / f"{algorithm}.log"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_LOG_COMPILES": "1"}
    with log.open("w") as file:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        looks: list[Look] = []
        memory: list[int] = []
        runs = True
        while runs:  # and once more when it has ended
            time.sleep(0.05)
            runs = process.poll() is None
            if runs:
                memory.append(memory_of(process.pid))
            done = steps_of(folder / algorithm / "evaluation.csv")
            if done >= (len(looks) + 1) * every:
                looks.append(Look(time.monotonic() - began, round(statistics.median(memory)), compiled_by(log)))
                memory.clear()
                print(f"{algorithm}: {done:,} steps, {looks[-1].seconds:.0f} s, {looks[-1].memory / 1e6:.0f} MB, "
                      f"{len(looks[-1].compiled)} programs", flush=True)  # fmt: skip
    if process.returncode:
        raise ValueError(f"{' '.join(command)} ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
    return looks


def steps_of(path: Path) -> int:
    """Returns the environment steps of the last row of a metrics file, 0 where there is none yet."""
    lines = path.read_text().split("\n")[1:-1] if path.exists() else []
    return int(lines[-1].split(",")[0]) if lines else 0


def memory_of(pid: int) -> int:
    """Returns the resident memory of a process in bytes, 0 where it has just ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def compiled_by(log: Path) -> list[str]:
    """Returns the programs that a process says that it has compiled."""
    return [line for line in log.read_text().splitlines() if COMPILING in line]


def faults(looks: list[Look]) -> list[str]:
    """Returns what is wrong with a process; `looks` are at its tenths."""
    first, second, *_, before, last = looks
    rates = [1.0 / (b.seconds - a.seconds) for a, b in ((first, second), (before, last))]
    found = []
    if last.memory > (1.0 + MEMORY) * second.memory:
        found.append(f"memory grew from {second.memory / 1e6:.0f} to {last.memory / 1e6:.0f} MB")
    # what is done for the first time late, such as a roll-back, is compiled then
    again = set(first.compiled) & set(last.compiled[len(first.compiled) :])
    if again:
        found.append(f"{len(again)} programs were compiled again after the first tenth")
    if rates[1] < (1.0 - SPEED) * rates[0]:
        found.append(f"the last tenth ran at {rates[1] / rates[0]:.2f} of the second one's rate")
    return found


def define(values: FlagValues) -> None:
    """Defines the script's flags."""
    absl.flags.DEFINE_integer("env_steps", 1_000_000, "of each run", lower_bound=1_000, flag_values=values)


def main(args: FlagValues) -> None:
    """Runs both, and says what is wrong."""
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data.npz")
        offline = [sys.executable, "-m", "o2o_jax.cli", "offline", *OFFLINE]
        subprocess.run(offline, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
        for algorithm in ("o2td3", "o2sac"):
            wrong += [f"{algorithm}: {fault}" for fault in faults(watch(folder, algorithm, args.env_steps))]
    if wrong:
        raise ValueError("; ".join(wrong))
    print("memory, programs and speed stayed as they were")


if __name__ == "__main__":
    program.run(main, define, __doc__)
