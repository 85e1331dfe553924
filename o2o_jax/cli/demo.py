"""The whole road once, in minutes: data, an offline policy, its fine-tuning with and without the method, and a film.

    python -m experiments.demo --out=runs/demo-walker2d

Every step is a command of this package, printed before it runs. A stopped step is resumed, so that the same command
continues a demo that was interrupted.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from absl.flags import FlagValues

from o2o_jax.cli import flags, report
from o2o_jax.runtime import files

TASK = "mujoco/walker2d-medium"
# The published schedules are 1,000,000 of the first two, and 100,000.
TRANSITIONS = 100_000
OFFLINE_UPDATES = 10_000
ENV_STEPS = 6_000
EVAL_EVERY = 750
PLAYED = 5  # episodes of each policy for the film's table


def define(values: FlagValues) -> None:
    """Flags of this script."""
    flags.define_common(values, "seeds")
    values.set_default("seeds", 2)
    flags.define_path(values, "out", "runs/demo-walker2d", "folder for everything that the demo writes")


def main(args: FlagValues) -> None:
    """Runs the commands, then reports. Impure."""
    started = time.monotonic()
    out = Path(args.out)
    # datasets of the demo's size stay apart from those in the home folder
    environment = {**os.environ, "MINARI_DATASETS_PATH": str((out / "datasets").absolute())}

    files.make_folder(out / "datasets")
    made = out / "datasets" / "made"  # written last, so that a dataset whose writing was killed is made again
    if not made.exists():
        _call("dataset", environment, f"--env={TASK}", f"--transitions={TRANSITIONS}", "--overwrite")
        made.touch()
    seeds, task = f"--seeds={args.seeds}", f"--env={TASK}"
    _call(
        "offline", environment, f"--out={out / 'td3_bc'}", seeds, "--algorithm=td3_bc", task,
        f"--set=updates={OFFLINE_UPDATES}", "--eval_every=0", "--resume",
    )  # fmt: skip
    for algorithm in ("o2td3", "td3"):
        _call(
            "finetune", environment, f"--out={out / algorithm}", seeds, f"--algorithm={algorithm}",
            f"--policy={out / 'td3_bc'}", f"--set=env_steps={ENV_STEPS}",
            f"--set=evaluation.every_env_steps={EVAL_EVERY}", "--resume",
        )  # fmt: skip
    picture, film = out / "demo.png", out / "demo.mp4"
    missing = _missing_film(film, out, environment)
    print()
    print(report.write_report([out / "o2td3", out / "td3"], ["O2TD3", "direct TD3"], picture))
    print(f"learning curves: {picture.absolute()}")
    print(f"no film: {missing}" if missing else f"film: {film.absolute()}")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")


def _missing_film(film: Path, out: Path, environment: dict[str, str]) -> str:
    """Films the start, the lowest policy of direct TD3 and the best one side by side; returns why there is none."""
    arguments = [f"--run={out / 'o2td3'}", f"--compare=offline,{out / 'td3'}:lowest,best", f"--video={film}"]
    command = ["-m", "o2o_jax.cli", "play", *arguments, f"--episodes={PLAYED}", "--overwrite"]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    ended = subprocess.run([sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if not ended.returncode:
        return ""
    if ended.returncode < 0:  # what graphics libraries do to a process where they don't fit the machine
        return f"the process that renders it was ended by signal {-ended.returncode}"
    lines = ended.stderr.strip().splitlines() or [f"status {ended.returncode}"]
    return lines[-1].removeprefix("error: ")


def _call(script: str, environment: dict[str, str], *arguments: str) -> None:
    command = ["-m", "o2o_jax.cli", script, *arguments]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    with subprocess.Popen([sys.executable, *command], env=environment) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt as stopped:  # the command saves what it has
            if getattr(stopped, "signum", signal.SIGINT) != signal.SIGINT:  # which a terminal sends to both
                process.send_signal(stopped.signum)
            status = process.wait()
    if status:  # the command has said what is wrong
        raise SystemExit(status)
