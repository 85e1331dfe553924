"""Signals that end a command: at once, once it has tidied up, or where a run can be saved. Impure.

A process begins `at_once`, while it imports what takes seconds. A command is then `tidily` at work: the signal is an
exception, `Stopped`, after which files that aren't whole vanish. Within that a run makes it wait, `deferred`, until all
is saved, which is an `Interrupted`. This module imports nothing that takes time.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

PATIENCE = 10.0  # seconds for which a process that is done waits for its threads
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []  # since `deferred` began


class Stopped(KeyboardInterrupt):
    """A command that a signal has ended.

    Args:
      signum: of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Interrupted(Exception):
    """A run that a signal has ended, after all of it was saved.

    Args:
      signum: of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signum).name}: all is saved, resume with the same command and --resume"
        )
        self.signum = signum


def at_once() -> None:
    """Makes SIGINT and SIGTERM end the process with a line, from now on: for one that has nothing to tidy up."""
    _handle(_leave)


@contextlib.contextmanager
def own_process() -> Iterator[None]:
    """Makes signals end the process `at_once`, and lets it end with the command, whatever threads it leaves.

    Environments may have threads of their own, such as those that talk to a simulator. Python would wait for them
    for ever.
    """
    at_once()
    try:
        yield
    except SystemExit as ended:
        _end_in_time(ended.code)
        raise


def _end_in_time(status: Any) -> None:
    """Ends the process in `PATIENCE` seconds, should threads that don't end keep it alive until then."""
    others = [t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    if not others:
        return

    def end_now() -> None:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        _say(f"note: threads that don't end are left behind: {', '.join(others)}"[:400])
        os._exit(status if isinstance(status, int) else int(status is not None))

    clock = threading.Timer(PATIENCE, end_now)
    clock.daemon = True
    atexit.register(clock.cancel)  # once Python has seen the last of them, which may tidy up at length
    clock.start()


@contextlib.contextmanager
def tidily() -> Iterator[None]:
    """Makes SIGINT and SIGTERM raise `Stopped`; a second one ends the process at once.

    Raises:
      Stopped: wherever the signal comes.
    """
    with _handled(_stop):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Makes SIGINT and SIGTERM wait until the run asks for them; after one, SIGINT takes effect as soon as Python can.

    SIGTERM may come as often as it will: clusters send it several times within a second, and SIGKILL to who takes too
    long.

    Raises:
      Interrupted: at the end, where a signal came too late to end anything before.
      Stopped: at a SIGINT after another signal.
    """
    with _handled(_note):
        try:
            yield
            if _received:
                end()
        finally:
            _received.clear()


def requested() -> bool:
    """Returns whether a signal waits for the run to end."""
    return bool(_received)


def end() -> NoReturn:
    """Ends the run for the signal that waits.

    Raises:
      Interrupted: always.
    """
    raise Interrupted(_received[0])


_Handler = Callable[[int, FrameType | None], None]


@contextlib.contextmanager
def _handled(handler: _Handler) -> Iterator[None]:
    """Handles both signals for as long as the context lasts."""
    before = _handle(handler)
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)


def _handle(handler: _Handler) -> dict[signal.Signals, Any]:
    """Handles both signals from now on, and returns what handled them before.

    Threads other than the main one get no signals: there nothing changes. Nor does it for a signal that the process
    ignores, as shells let background jobs do.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    kept = {signum: found for signum, found in before.items() if found not in (signal.SIG_IGN, None)}
    for signum in kept:
        signal.signal(signum, handler)
    return kept


def _note(signum: int, frame: FrameType | None) -> None:
    del frame
    if not _received:
        _received.append(signum)
        _say("\nstopping where the run can be saved; Ctrl-C to stop at once")
    elif signum == signal.SIGINT:
        raise Stopped(signum)


def _stop(signum: int, frame: FrameType | None) -> None:
    del frame
    for each in _SIGNALS:  # the next one needn't find Python willing: a library may have swallowed the exception
        signal.signal(each, _leave)
    raise Stopped(signum)


def _leave(signum: int, frame: FrameType | None) -> None:
    del frame
    with contextlib.suppress(Exception):  # whatever was at work on it
        sys.stdout.flush()
    _say(f"error: stopped by {signal.Signals(signum).name}")
    os._exit(128 + signum)


def _say(line: str) -> None:
    """Writes a line to standard error, not by print, which may be at work."""
    with contextlib.suppress(OSError):  # a pipe that has just been closed
        os.write(2, f"{line}\n".encode("ascii", "replace"))
