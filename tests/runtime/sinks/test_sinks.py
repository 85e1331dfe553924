"""Sinks: which there are, and what each gets of a run that is stopped and resumed."""

import json
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from o2o_jax.runtime import sinks
from o2o_jax.runtime.events import Event
from o2o_jax.runtime.sinks._sent import Sent, Service

SETUP = Path(__file__).parents[3] / "setup.py"


def test_per_seed_by_hand():
    found = sinks.per_seed({"q": np.array([1.5, 2.5]), "alpha": 0.5}, first_seed=4)
    assert found == {"q": {4: 1.5, 5: 2.5}, "alpha": {4: 0.5, 5: 0.5}}


def test_every_hint_names_an_extra_that_exists():
    extras = set(re.findall(r'^        "(\w+)":', SETUP.read_text(), re.MULTILINE))
    texts = [path.read_text() for path in (SETUP.parent / "o2o_jax").rglob("*.py")]
    hints = {hint for text in texts for hint in re.findall(r"o2o_jax\[([\w,]+)\]", text)}
    assert hints
    assert {name for hint in hints for name in hint.split(",")} <= extras
    assert set(sinks.names()) <= extras


def test_an_unknown_sink():
    with pytest.raises(ValueError, match="unknown sink 'csv'"):
        sinks.load("csv")


def test_rows_come_after_what_an_event_takes_back():
    heard = []

    class Listener:
        def write(self, phase, step, metrics):
            heard.append(("write", phase, step, metrics))

        def rewind(self, phase, step):
            heard.append(("rewind", phase, step))

    sinks.take(Listener(), Event("align", 7, {"align": {"q": 1.0}}, cut={"align": 3}))
    assert heard == [("rewind", "align", 3), ("write", "align", 7, {"q": 1.0})]


PROCESSES = ((1, 2), (2, 3))  # steps that a run logs until it is killed, and those after it was resumed


def log_steps(sink, steps):
    sink.rewind("align", steps[0] - 1)
    for step in steps:
        sink.write("align", step, {"q": np.array([step, 7_000.625 + step]), "alpha": 0.25})
    sink.close()


def log_twice(make):
    for steps in PROCESSES:
        log_steps(make(), steps)


def test_a_service_gets_every_row_once(tmp_path):
    sent, finished = [], []
    log_twice(
        lambda: Service(
            Sent(tmp_path / "x.json"), 4, lambda *row: sent.append(row), finish=lambda: finished.append(True)
        )
    )
    assert [(phase, step) for phase, step, _ in sent] == [("align", 1), ("align", 2), ("align", 3)]
    expected = {"align/q": 3_501.3125, "align/q/seed4": 1.0, "align/q/seed5": 7_001.625}
    assert sent[0][2] == expected | {"align/alpha": 0.25, "align/alpha/seed4": 0.25, "align/alpha/seed5": 0.25}
    assert finished == [True, True]


def test_one_seed_is_its_mean(tmp_path):
    sent = []
    service = Service(Sent(tmp_path / "x.json"), 0, lambda *row: sent.append(row), finish=lambda: None)
    service.write("start", 0, {"score": np.array([2.0])})
    assert sent == [("start", 0, {"start/score": 2.0})]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "a", "steps": {"align": "x"}}', '{"id": "a", "steps": 3}'])
def test_another_file_is_no_memory(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="is damaged .*: delete it"):
        Sent(tmp_path / "x.json")


def test_tensorboard_has_a_scalar_per_seed(tmp_path):
    pytest.importorskip("tensorboardX")
    log_twice(lambda: sinks.make("tensorboard", tmp_path, {}))
    for seed in (0, 1):
        events = list((tmp_path / "tensorboard" / "align" / f"seed{seed}").glob("events*"))
        assert any(b"align/q" in path.read_bytes() for path in events)


def test_wandb_offline_has_every_row_once(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for steps, new in zip(PROCESSES, ((1, 2), (3,)), strict=True):
        time.sleep(1.1 if steps != PROCESSES[0] else 0.0)  # its folders are named by the second
        log_steps(sinks.make("wandb", tmp_path, {"config": {"update": {"discount": 0.99}}}), steps)
        wandb.teardown()  # as at a process's end, which waits until all is written
        name = json.loads((tmp_path / "wandb.json").read_text())["id"]
        newest = sorted((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))[-1]
        content = newest.read_bytes()
        assert b"discount" in content
        assert b"align/q/seed1" in content
        assert tuple(step for step in (1, 2, 3) if f"{7_000 + step}.625".encode() in content) == new


KILLED = """
import os, signal, sys, numpy as np
from o2o_jax.runtime import sinks
sink = sinks.make("tensorboard", sys.argv[1], {})
for step in (1, 2):
    sink.write("align", step, {"q": np.array([step, 7.0]), "none": np.array([np.nan, np.inf])})
sink.rewind("align", 1)
sink.write("align", 2, {"q": np.array([20.0, 7.0])})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_tensorboard_has_what_was_written_before_a_kill_and_no_nan(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event as Record

    process = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL
    assert "NaN" not in process.stderr
    found, purged = [], []
    for path in (tmp_path / "tensorboard" / "align" / "seed0").glob("events*"):
        content = path.read_bytes()
        while content:  # length, its checksum, a record, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            record = Record.FromString(content[12 : 12 + length])
            found += [(record.step, value.tag, value.simple_value) for value in record.summary.value]
            purged += [record.step] if record.HasField("session_log") else []
            content = content[16 + length :]
    assert sorted(found) == [(1, "align/q", 1.0), (2, "align/q", 2.0), (2, "align/q", 20.0)]
    assert purged == [2]


def test_wandb_without_a_login_is_missed_beforehand(monkeypatch):
    wandb = pytest.importorskip("wandb")
    answers = iter([True, False])
    monkeypatch.setattr(wandb, "login", lambda: next(answers))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    sinks.check("wandb")
    message = "^Weights & Biases: no login; call wandb login first, or set WANDB_MODE=offline$"
    with pytest.raises(ValueError, match=message):
        sinks.check("wandb")

    def refuse():
        raise wandb.errors.UsageError("no key")

    monkeypatch.setattr(wandb, "login", refuse)
    with pytest.raises(ValueError, match="^Weights & Biases: no key; call wandb login first"):
        sinks.check("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    sinks.check("wandb")
    sinks.check("tensorboard")  # which has nothing to ask


def test_wandb_that_refuses_is_one_line(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def refuse(**settings):
        raise wandb.Error("api_key not configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match="Weights & Biases: api_key not configured; call wandb login first, or set"):
        sinks.make("wandb", tmp_path, {})


def test_trackio_has_every_row_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    log_twice(lambda: sinks.make("trackio", tmp_path, {"config": {"update": {"discount": 0.99}}}))
    content = (tmp_path / "trackio" / "o2o_jax.db").read_bytes()
    for step in (1, 2, 3):
        assert f"{7_000 + step}.625".encode() in content
