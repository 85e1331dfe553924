"""Folder of a run: logs, checkpoints, and what it was made with. Impure: writes the disk, prints."""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax

from o2o_jax import registry
from o2o_jax.runtime import interrupt, log, provenance, sinks
from o2o_jax.runtime.checkpoint import WAY_OUT, Checkpoints, check_there, claim, has_checkpoint, locked
from o2o_jax.runtime.events import Event
from o2o_jax.runtime.log import MetricLog
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.run import Run, stage_of
from o2o_jax.runtime.sinks import Sink
from o2o_jax.runtime.train import CLONE
from o2o_jax.types import expect

CHECKPOINTS = "checkpoints"  # the newest run
ROWS = "rows"  # of logs, by phase, when a run was saved
STAGES = "stages"  # an online method's networks at the end of each phase, for experiments.diagnose


class Output:
    """Output folder of a run, which belongs to this process alone: a context manager that takes its events.

        with Output(folder, plan, resume=True) as output:
            for event in train(plan, output.restore):
                output.take(event)

    A signal then ends the run where it has been saved.

    Args:
      folder: new or empty; with `resume` that of the same run, if there is one.
      plan: of the run. Its settings go to config.json, and must be those of the run in the folder.
      resume: continue the run in `folder`; if there is none, start it.
      log_to: `sinks` that get the metrics beside the CSV files.
      way_out: what to do where the folder holds a run and `resume` is off, for a message.

    Raises:
      FileExistsError: the folder holds something and `resume` is off.
      BlockingIOError: a live process works on the run.
      ValueError: the run in the folder has other settings or other data, the plan's reconstruction doesn't fit, or a
        sink refuses the run.
      PermissionError: the folder can't be written.
      TypeError: `plan` is none.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        plan: Plan,
        resume: bool = False,
        log_to: Sequence[str] = (),
        way_out: str = WAY_OUT,
    ) -> None:
        expect(plan, Plan, "plan", "pass what the plan of a job returns: job.plan(seed_mesh(job.seeds))")
        self._plan, self._log_to = plan, log_to
        if plan.reconstruction is not None and not has_checkpoint(Path(folder) / CHECKPOINTS):
            plan.reconstruction()  # before the folder is claimed: it says what doesn't fit
        for name in log_to:
            sinks.check(name)
        self.folder = claim(folder, plan.settings, resume, way_out)
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            opened.enter_context(locked(self.folder))
            opened.enter_context(interrupt.deferred())
            first_seed = self._plan.setup.seeds[0]
            self.log = opened.enter_context(MetricLog(self.folder, first_seed))
            self._sinks: list[Sink] = [self.log]
            for name in self._log_to:
                sink = sinks.make(name, self.folder, self._plan.settings, first_seed)
                self._sinks.append(opened.enter_context(contextlib.closing(sink)))
            phases, settings = self._plan.setup.algorithm.phases, self._plan.settings
            self._checkpoints = opened.enter_context(Checkpoints(self.folder / CHECKPOINTS, settings))
            self._clones = opened.enter_context(Checkpoints(self.folder / CLONE, settings))
            self._stages = opened.enter_context(Checkpoints(self.folder / STAGES, settings, max(1, len(phases))))
            provenance.record(self.folder, self._plan.dataset)
            self._seconds: dict[str, float] = {}
            self._since = time.monotonic()
            changed = provenance.changed(self.folder)
            if changed:
                print(f"note: {changed}")
            self._resources = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._resources.__exit__(*error)  # type: ignore[arg-type]

    def restore(self, template: Run, cloning: bool = False, /) -> Run | None:
        """Returns what was saved last, as `train.Restore`."""
        checkpoints = self._clones if cloning else self._checkpoints
        if checkpoints.latest_step() is None:
            if not cloning and log.row_counts(self.folder) and self._clones.latest_step() is None:
                print(f"note: {self.folder} has rows of logs but no checkpoint: run and logs start over")
            return None
        run = checkpoints.restore(template, free="episodes")
        lost = self._lost_rows(checkpoints.notes().get(ROWS, {}))
        if not cloning and run.position == self._plan.position:
            beside = f"; but {lost}: bring the files back, if they are anywhere" if lost else ""
            print(f"the run in {self.folder} is complete: nothing is left to do{beside}")
        elif lost:
            print(f"note: {lost}: stop the run and bring the files back, if they are anywhere")
        return run

    def take(self, event: Event) -> None:
        """Writes the rows of an event, saves its run where that is due, and prints its lines.

        Raises:
          FileNotFoundError: see `checkpoint.check_there`.
        """
        now = time.monotonic()
        self._seconds[event.phase] = self._seconds.get(event.phase, 0.0) + now - self._since
        self._since = now
        for sink in self._sinks:
            sinks.take(sink, event)
        if event.save:
            check_there(self.folder)
            cloning = event.phase == CLONE
            if event.ended and not cloning and self._plan.setup.algorithm.online:
                _save_newer(self._stages, event.run.position, jax.device_get(stage_of(event.run)))
            notes = {ROWS: log.row_counts(self.folder)}
            _save_newer(self._clones if cloning else self._checkpoints, event.run.position, event.run, notes)
            provenance.record_seconds(self.folder, self._seconds)
        for line in event.lines:
            print(line)

    def _lost_rows(self, saved: Mapping[str, int]) -> str:
        """Says which logs have fewer rows than they had when the run was saved; "" where none has."""
        now = log.row_counts(self.folder)
        lost = {phase: count - now.get(phase, 0) for phase, count in saved.items() if now.get(phase, 0) < count}
        said = registry.listed(f"{count} of {saved[phase]} rows of {phase}.csv" for phase, count in lost.items())
        return f"{said} are gone from {self.folder} since the run was saved, and won't be made again" if lost else ""


def _save_newer(checkpoints: Checkpoints, step: int, state: Any, notes: Mapping[str, Any] | None = None) -> None:
    """Saves a state that isn't there yet: a kill may come between two folders."""
    latest = checkpoints.latest_step()
    if latest is None or step > latest:
        checkpoints.save(step, state, notes)
