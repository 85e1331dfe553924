import signal
import threading

import pytest

from o2o_jax.runtime import interrupt


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_and_a_second_one_does_not(signum, capfd):
    before = signal.getsignal(signum)

    def work():
        with interrupt.deferred():
            assert not interrupt.requested()
            signal.raise_signal(signum)
            assert interrupt.requested()
            assert "once more to stop at once" in capfd.readouterr().err
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signum)
            interrupt.end()

    with pytest.raises(interrupt.Interrupted, match=f"stopped by {signum.name}: all is saved") as error:
        work()
    assert error.value.signum == signum
    assert not interrupt.requested()
    assert signal.getsignal(signum) is before


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
