import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from o2o_jax.runtime import interrupt


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_and_a_second_sigint_does_not(signum, capfd):
    before = signal.getsignal(signum)

    def work():
        with interrupt.deferred():
            assert not interrupt.requested()
            signal.raise_signal(signum)
            assert interrupt.requested()
            assert "Ctrl-C to stop at once" in capfd.readouterr().err
            signal.raise_signal(signal.SIGTERM)  # of which clusters send several
            with pytest.raises(interrupt.Stopped, match="stopped by SIGINT"):
                signal.raise_signal(signal.SIGINT)
            interrupt.end()

    with pytest.raises(interrupt.Interrupted, match=f"stopped by {signum.name}: all is saved") as error:
        work()
    assert error.value.signum == signum
    assert not interrupt.requested()
    assert signal.getsignal(signum) is before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_command_tidies_up_and_says_which_signal_it_was(signum):
    before, tidied = signal.getsignal(signum), []

    def work():
        with interrupt.tidily():
            try:
                signal.raise_signal(signum)
            finally:
                tidied.append(signal.getsignal(signum))

    with pytest.raises(interrupt.Stopped, match=f"^stopped by {signum.name}$") as error:
        work()
    assert error.value.signum == signum
    assert tidied == [interrupt._leave]  # the next one waits for nobody
    assert signal.getsignal(signum) is before


@contextlib.contextmanager
def started(command, environment):
    """A process with its output, which ends with the context."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


LONG = """
import os, time
from o2o_jax.runtime import interrupt
interrupt.at_once()
print("said", end="")
os.write(1, b"begun\\n")
if {tidily}:
    with interrupt.tidily():
        for _ in range(2):
            try:
                print(flush=True)
                time.sleep(60)
            except KeyboardInterrupt:  # as a library may do
                pass
else:
    time.sleep(60)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("tidily", [False, True])
def test_a_process_ends_at_once_with_a_line(signum, tidily):
    # while it imports; or at the second signal, where the first was swallowed
    command = [sys.executable, "-c", LONG.format(tidily=tidily)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with started(command, environment) as process:
        assert process.stdout.readline() == "begun\n"
        if tidily:
            assert process.stdout.readline() == "said\n"
            process.send_signal(signum)
            assert process.stdout.readline() == "\n"
        process.send_signal(signum)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signum
    assert err == f"error: stopped by {signum.name}\n"
    assert tidily or out == "said"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("command", [["o2o_jax.cli", "settings"], ["experiments.settings"]])
def test_a_signal_during_imports_is_one_line(signum, delay, command):
    # from the moment on that this module is there, long before JAX is
    marked = (
        "import runpy, sys; from o2o_jax.runtime import interrupt; begin = interrupt.at_once; "
        "interrupt.at_once = lambda: (begin(), print('ready', flush=True)); "
        f"sys.argv = {command!r}; runpy.run_module({command[0]!r}, run_name='__main__', alter_sys=True)"
    )
    program = [sys.executable, "-c", marked]
    with started(program, os.environ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    # it may have ended before, or be at its end, where Python has taken its handlers down
    ended = process.returncode in (0, -signum)
    assert ended or (process.returncode, err) == (128 + signum, f"error: stopped by {signum.name}\n")
    assert delay or not ended


def test_a_signal_that_comes_too_late_is_not_lost():
    with pytest.raises(interrupt.Interrupted), interrupt.deferred():
        signal.raise_signal(signal.SIGTERM)
    assert not interrupt.requested()


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupt.deferred():
            signal.raise_signal(signal.SIGINT)
            assert not interrupt.requested()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_a_thread_signals_are_left_alone():
    found = []

    def work():
        with interrupt.deferred():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


THREADED = """
import sys, threading, time
from o2o_jax.runtime import interrupt
interrupt.PATIENCE = 0.5
with interrupt.own_process():
    threading.Thread(target=time.sleep, args=({seconds},), name="simulator").start()
    sys.exit({status})
"""


@pytest.mark.parametrize(
    ("seconds", "note"), [(60, "note: threads that don't end are left behind: simulator\n"), (0, "")]
)
@pytest.mark.parametrize(("status", "code"), [(0, 0), (3, 3), (None, 0)])
def test_threads_of_others_do_not_keep_a_process(seconds, note, status, code):
    program = [sys.executable, "-c", THREADED.format(seconds=seconds, status=status)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (code, note)
