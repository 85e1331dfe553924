"""Runs a study on a real SLURM of one node, disturbs its jobs, and compares it with one that nobody disturbed.

    make slurm

The node is this machine: munged, slurmctld and slurmd of the distribution's packages (`apt-get install slurm-wlm
munge`) in a scratch folder, with settings, keys and ports of its own; neither systemd nor cgroups are needed, nor an
accounting database. The study has two tasks and two methods, with tiny networks, and a method that diverges. Of its
jobs one is preempted, one requeued, one runs out of time, one is killed, one cancelled with those that wait for it,
and of one the process is killed alone. The same command then continues, until all is done that can be. Every CSV file
must be that of a study of the local launcher to the byte, and every number of every checkpoint to the bit; status 1
where anything differs. Ten minutes on two cores.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import absl.flags
import absl.logging
from absl.flags import FlagValues

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # of a script Python knows only the script's own folder

from o2o_jax.cli import program  # noqa: E402
from o2o_jax.studies import grid, slurm  # noqa: E402
from o2o_jax.studies.grid import FINETUNE, OFFLINE, Cell  # noqa: E402
from o2o_jax.studies.progress import DONE, FAILED, QUEUED, RUNNING  # noqa: E402
from tests import kill_runs  # noqa: E402

PACKAGES = ("munged", "slurmctld", "slurmd")
STUDY = """
title = "Two by two"
tasks = ["mujoco/hopper-random", "mujoco/walker2d-random"]
seeds = 2

[defaults.dataset]
flags = ["transitions=400"]

[defaults.offline]
flags = ["eval_every=50", "eval_episodes=2"]
set = ["hidden=8", "critic_hidden=8", "batch_size=8", "updates=200"]

[defaults.online]
set = ["networks.hidden=8", "networks.critic_hidden=8", "update.batch_size=8", "env_steps=6000",
       "evaluation.every_env_steps=500", "evaluation.episodes=2"]

[offline.td3_bc]
label = "TD3+BC"

[online.o2td3]
label = "O2TD3"
from = ["td3_bc"]
set = ["reevaluate.updates=200", "align.updates=200"]

[online.td3]
label = "TD3"
from = ["td3_bc"]

[online.diverging]
algorithm = "td3"
from = ["td3_bc"]
tasks = ["mujoco/hopper-random"]
set = ["update.critic_lr=1e30"]
"""
DIVERGING = "diverging"
CONF = """
ClusterName=scratch
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=3600
NodeName={host} CPUs={cpus}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF MaxTime=INFINITE
"""
PATIENCE = 60.0  # seconds until the node must be there
LONGEST = 3600.0  # seconds that the study may take
ROWS = 3  # of a run's evaluations, their head among them, before it is disturbed
JOBS = ["--launcher=slurm", "--slurm=partition=low", "--slurm=cpus_per_task=1", "--slurm=timeout_min=30"]


@contextlib.contextmanager
def node(folder: Path) -> Iterator[None]:
    """Starts a SLURM of this machine alone, and stops it. Impure: sets SLURM_CONF.

    Args:
      folder: of all its files.

    Raises:
      ValueError: the packages aren't there, or it doesn't start.
    """
    missing = [name for name in PACKAGES if not shutil.which(name)]
    if missing:
        raise ValueError(f"{', '.join(missing)} aren't installed: apt-get install slurm-wlm munge")
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    controller, daemon = _free_ports(2)
    cores = len(os.sched_getaffinity(0))
    values = {"host": socket.gethostname(), "user": getpass.getuser(), "folder": folder, "cpus": cores}
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(controller=controller, daemon=daemon, **values))
    os.environ["SLURM_CONF"] = str(conf)
    files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
    with contextlib.ExitStack() as started:
        started.enter_context(_daemon(["munged", "--foreground", f"--socket={folder}/munge.socket", *files], folder))
        _wait_until(lambda: (folder / "munge.socket").exists(), folder)
        started.enter_context(_daemon(["slurmctld", "-D"], folder))
        started.enter_context(_daemon(["slurmd", "-D"], folder))
        _wait_until(lambda: "idle" in call("sinfo", "--noheader", "--format=%t", check=False), folder)
        try:
            yield
        finally:
            call("scancel", "--me", check=False)
            call("scontrol", "update", "partition=low", "state=down", check=False)
            _wait_until(lambda: not call("squeue", "--noheader", check=False), folder)


@contextlib.contextmanager
def _daemon(command: Sequence[str], folder: Path) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_until(condition: Callable[[], bool], folder: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise ValueError(f"the node doesn't answer: see the files in {folder}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def call(*command: str, check: bool = True) -> str:
    """Returns what a command says."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if check and done.returncode:
        raise ValueError(f"{' '.join(command)} ended with status {done.returncode}: {done.stdout[-600:]}")
    return done.stdout


def study(file: Path, root: Path, *flags: str, check: bool = True) -> str:
    """Returns what `o2o study` says."""
    return call(sys.executable, "-m", "o2o_jax.cli", "study", str(file), f"--out={root}", *flags, check=check)


def preempt(job: str, run: Path) -> None:
    """Makes way for a job of another partition that takes the whole node."""
    call("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")


def requeue(job: str, run: Path) -> None:
    """Puts a job back into the queue."""
    call("scontrol", "requeue", job)


def run_out_of_time(job: str, run: Path) -> None:
    """Lets the time of a job be over in half a minute to a minute and a half."""
    minutes, seconds = call("squeue", f"--jobs={job}", "--noheader", "--format=%M").strip().split(":")
    call("scontrol", "update", f"jobid={job}", f"timelimit={int(minutes) + 1 + (int(seconds) > 30)}")


def cancel(job: str, run: Path) -> None:
    """Takes a job out of the queue, and with it those that wait for it."""
    call("scancel", job)


def kill(job: str, run: Path) -> None:
    """Kills all processes of a job."""
    _kill("environ", f"SLURM_JOB_ID={call('squeue', f'--jobs={job}', '--noheader', '--format=%A').strip()}")


def kill_process(job: str, run: Path) -> None:
    """Kills the process of a run alone."""
    _kill("cmdline", f"--out={run}")


def _kill(file: str, entry: str) -> None:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.encode() in (folder / file).read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


# (command, task, method) -> what happens to its job
DISTURBANCES = {
    (OFFLINE, "mujoco/hopper-random", "td3_bc"): kill_process,
    (OFFLINE, "mujoco/walker2d-random", "td3_bc"): cancel,
    (FINETUNE, "mujoco/hopper-random", "o2td3"): preempt,
    (FINETUNE, "mujoco/hopper-random", "td3"): requeue,
    (FINETUNE, "mujoco/walker2d-random", "o2td3"): run_out_of_time,
    (FINETUNE, "mujoco/walker2d-random", "td3"): kill,
}


def disturbed(file: Path, root: Path, cells: Sequence[Cell]) -> None:
    """Runs a study on the node and disturbs its jobs, until all is done that can be. Impure.

    Raises:
      ValueError: it takes too long.
    """
    print(study(file, root, *JOBS).strip(), flush=True)
    left = {cell.name: (cell, happens) for cell in cells if (happens := _disturbance(cell))}
    states: dict[str, tuple[str, str]] = {}
    began: dict[str, float] = {}  # when a run has come to its state
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        seen = slurm.seen(root, cells)
        for cell in cells:
            known = seen[cell.name]
            if states.get(cell.name) != (known.state, known.reason):
                states[cell.name], began[cell.name] = (known.state, known.reason), time.time()
                print(f"{time.strftime('%X')} {cell.name} {known.state} {known.reason}", flush=True)
            if (
                known.state == QUEUED and "BeginTime" in known.reason
            ):  # SLURM lets what it requeues wait for two minutes
                call("scontrol", "update", f"jobid={known.job}", "starttime=now", "timelimit=30", check=False)
        for cell, happens in [*left.values()]:
            if seen[cell.name].state == RUNNING and _ripe(root, cell, cells, began[cell.name]):
                del left[cell.name]
                print(f"{time.strftime('%X')} {cell.name}: {happens.__name__}", flush=True)
                happens(seen[cell.name].job, root / cell.name)
        if not {RUNNING, QUEUED} & {known.state for known in seen.values()}:
            print(study(file, root, "--status").strip(), flush=True)
            if all(seen[cell.name].state == DONE for cell in cells if cell.method != DIVERGING):
                return
            print(study(file, root, *JOBS).strip(), flush=True)
        time.sleep(1.0)
    raise ValueError(f"the study isn't done after an hour: see {root}")


def _ripe(root: Path, cell: Cell, cells: Sequence[Cell], began: float) -> bool:
    """Returns whether a run can be disturbed: it has written since its job began, and none waits to be preempted."""
    if cell.command == OFFLINE:  # whose runs are short
        return _attempts(root, cell) > 0
    (preempted,) = (each for each in cells if _disturbance(each) is preempt)  # and with it all others on the node
    path = root / cell.name / "evaluation.csv"
    is_quiet = cell is preempted or _attempts(root, preempted) > 1
    return is_quiet and path.exists() and path.stat().st_mtime > began and len(path.read_text().splitlines()) >= ROWS


def _disturbance(cell: Cell) -> Callable[[str, Path], None] | None:
    return DISTURBANCES.get((cell.command, cell.task, cell.method))


def _attempts(root: Path, cell: Cell) -> int:
    log = root / f"{cell.name}.log"
    return log.read_text().count("$ o2o") if log.exists() else 0


def faults(root: Path, quiet: Path, cells: Sequence[Cell]) -> list[str]:
    """Returns what isn't as it must be after both studies, a line each. Impure: reads the disk."""
    found = []
    seen = slurm.seen(root, cells)
    for cell in cells:
        if cell.method == DIVERGING:
            if seen[cell.name].state != FAILED or not seen[cell.name].reason:
                found.append(f"{cell.name} is {seen[cell.name]}")
        elif cell.command in (OFFLINE, FINETUNE):
            found += [f"{cell.name}: {each}" for each in kill_runs.compare(quiet / cell.name, root / cell.name)]
            happened = _disturbance(cell)
            if happened and _attempts(root, cell) < 2:
                found.append(f"{cell.name}: {happened.__name__} has done nothing")
            saved = "all is saved" in (root / f"{cell.name}.log").read_text()
            if happened in (preempt, requeue, run_out_of_time) and not saved:
                found.append(f"{cell.name}: {happened.__name__} didn't let it save itself")
    return found


def define(values: FlagValues) -> None:
    """Flags of this script."""
    absl.flags.DEFINE_string("folder", None, "where runs and logs stay; none by default", flag_values=values)


def main(args: FlagValues) -> None:
    """Runs both studies, and compares them. Impure: starts daemons and processes."""
    absl.logging.set_verbosity(absl.logging.ERROR)  # of orbax, which misses a file of each checkpoint
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as opened:
        work = Path(args.folder or scratch).absolute()
        opened.enter_context(node(work / "node"))
        print(call("sinfo", "--version").strip(), flush=True)
        os.environ["MINARI_DATASETS_PATH"] = str(work / "datasets")
        os.environ["PYTHONPATH"] = str(ROOT)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))
        file = work / "two.toml"
        file.write_text(STUDY)
        cells = grid.cells(grid.load(str(file)), "fast")
        print(study(file, work / "quiet", "--retries=0", "--jobs=1", check=False), flush=True)
        disturbed(file, work / "runs", cells)
        found = faults(work / "runs", work / "quiet", cells)
    print("\n".join(found) or "every file and every number of the disturbed study is the undisturbed one's")
    if found:
        raise SystemExit(1)


if __name__ == "__main__":
    program.run(main, define, __doc__)
