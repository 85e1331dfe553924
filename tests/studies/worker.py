"""Stands in for `o2o` where a test is about launchers: does in milliseconds what cells ask for, or fails as it is told.

A word in the settings says how: `fail=once`, `fail=always`, `wait` until it is stopped once.
"""

import pathlib
import signal
import sys
import time


def main(command, *arguments):
    flags = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments if "set=" not in argument)
    words = {argument.removeprefix("--set=") for argument in arguments if "set=" in argument}
    folder = pathlib.Path(flags.get("out", "dataset"))
    folder.mkdir(parents=True, exist_ok=True)
    calls = folder / "calls"
    calls.write_text(f"{calls.read_text() if calls.exists() else ''}{command}\n")
    count = len(calls.read_text().splitlines())
    for start in (flags[name] for name in ("policy", "reconstruction") if name in flags):
        assert (pathlib.Path(start) / "config.json").exists(), f"{start} isn't there"
    if "fail=always" in words or ("fail=once" in words and count == 1):
        print("error: the network diverged")
        return 1
    if "wait" in words and count == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        (folder / "waits").touch()
        time.sleep(60.0)
    (folder / "config.json").write_text("{}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
