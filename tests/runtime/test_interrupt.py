import signal
import threading

import pytest

from o2o_jax.runtime import interrupt


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_and_a_second_one_does_not(signum, capsys):
    before = signal.getsignal(signum)
    with interrupt.deferred():
        assert not interrupt.requested()
        signal.raise_signal(signum)
        assert interrupt.requested()
        assert "once more to stop at once" in capsys.readouterr().err
        with pytest.raises(interrupt.Interrupted, match=f"stopped by {signum.name}: all is saved") as error:
            interrupt.end()
        assert error.value.signum == signum
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signum)
    assert not interrupt.requested()
    assert signal.getsignal(signum) is before


def test_in_a_thread_signals_are_left_alone():
    found = []

    def work():
        with interrupt.deferred():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
