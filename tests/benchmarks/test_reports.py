import json

import jax

from benchmarks import reports


def test_a_report_says_where_its_numbers_were_taken(tmp_path, capsys):
    report = reports.Report("sizes", {"rows": 3})
    report.write(tmp_path / "new", rows=[{"name": "a", "value": float("nan"), "samples": [1.0, float("inf")]}])
    path = tmp_path / "new" / "sizes.json"
    assert capsys.readouterr().out == f"written to {path}\n"
    content = json.loads(path.read_text())
    assert (content["benchmark"], content["settings"]) == ("sizes", {"rows": 3})
    assert content["rows"] == [{"name": "a", "value": None, "samples": [1.0, None]}]
    assert content["versions"]["jax"] == jax.__version__
    assert content["machine"]["cores"] >= 1
    assert {"taken", "commit", "devices", "load_average_before"} <= content.keys()


def test_a_busy_machine_is_said(monkeypatch, capsys):
    for load, words in ((0.1, ""), (3.0, "note: load average 3.0: other programs are running")):
        monkeypatch.setattr(reports.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        reports.Report("x", {})
        assert capsys.readouterr().err.startswith(words)


def test_memory_is_in_megabytes():
    assert 10 < reports.resident_megabytes() <= 1.05 * reports.peak_resident_megabytes() < 100_000


def test_table_by_hand():
    columns = {"name": ("name", ""), "n": ("count", "d"), "x": ("value", ",.1f")}
    rows = [{"name": "a", "count": 12, "value": 1234.56}, {"name": "long", "value": float("nan")}]
    assert reports.table(rows, columns).splitlines() == [
        "| name | n  | x       |",
        "| ---- | -- | ------- |",
        "| a    | 12 | 1,234.6 |",
        "| long | –  | –       |",
    ]
