"""Signals that end a run where it can be saved. Impure: they belong to the process."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []  # since `deferred` began


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


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Makes SIGINT and SIGTERM wait until the run asks for them; the second one takes effect as soon as Python can.

    Threads other than the main one get no signals: there nothing changes. Nor does it for a signal that the process
    ignores, as shells let background jobs do.

    Raises:
      Interrupted: at the end, where a signal came too late to end anything before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    kept = {signum: handler for signum, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for signum in kept:
        signal.signal(signum, _note)
    try:
        yield
        if _received:
            end()
    finally:
        for signum, handler in kept.items():
            signal.signal(signum, handler)
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


def _note(signum: int, frame: FrameType | None) -> None:
    del frame
    if _received:
        raise KeyboardInterrupt
    _received.append(signum)
    with contextlib.suppress(
        OSError
    ):  # not by print, which may be at work, or write to a pipe that has just been closed
        os.write(2, b"\nstopping where the run can be saved; once more to stop at once\n")
