"""Signals that end a run where it can be saved. Impure: they belong to the process."""

import contextlib
import signal
import sys
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
            f"stopped by {signal.Signals(signum).name}: all is saved, the same command with --resume goes on"
        )
        self.signum = signum


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Makes SIGINT and SIGTERM wait until the run asks for them; the second one takes effect at once.

    Threads other than the main one get no signals: there nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, _note) for signum in _SIGNALS}
    try:
        yield
    finally:
        _received.clear()
        for signum, handler in before.items():
            signal.signal(signum, handler)


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
    print("\nstopping where the run can be saved; once more to stop at once", file=sys.stderr, flush=True)
