"""Events of a run: what has happened, for whoever logs, saves, times or watches it."""

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, TypeVar

from numpy.typing import ArrayLike

ResultT = TypeVar("ResultT")


class Event(NamedTuple):
    """Progress of a run.

    Attributes:
      phase: name of what took the time since the event before: a phase's, "evaluation", "finetune".
      step: of that phase: its updates, or environment steps per seed.
      rows: log -> metrics at that step, one value per seed [S] each.
      run: all that is needed to continue from here, a `run.Run`, or of `phases.run_phase` by itself the phase's state;
        None between two such moments. Its `agent` is the algorithm's state, in the phase "clone" that of the clone.
        Valid until the next event is asked for, which may reuse its memory.
      save: whether `run` is to be saved: where an interval is over, a phase ends, or a signal ends the run.
      ended: whether a phase on the dataset ends here.
      lines: what people want to read, a line each.
      cut: log -> step: rows after it are of a run that was stopped, and are about to be written again.
    """

    phase: str
    step: int
    rows: Mapping[str, Mapping[str, ArrayLike]] = {}
    run: Any = None
    save: bool = False
    ended: bool = False
    lines: tuple[str, ...] = ()
    cut: Mapping[str, int] = {}


Events = Generator[Event, None, ResultT]  # what happens on the way to a result


def ignore(event: Event) -> None:
    """Takes no notice of an event."""


def finish(events: Events[ResultT], take: Callable[[Event], None] = ignore) -> ResultT:
    """Runs to the end of some events. Impure.

    Args:
      events: of `train`, or of a part of it.
      take: gets every event.

    Returns:
      What the events lead to.
    """
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        take(event)


def through(events: Events[ResultT], change: Callable[[Event], Events[Event]]) -> Events[ResultT]:
    """Yields events as `change` makes them of others.

    Args:
      events: of a part of a run.
      change: event -> what comes before it, and in the end the event itself.

    Returns:
      What the events lead to.
    """
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        yield (yield from change(event))
