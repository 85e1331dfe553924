"""Pages of studies."""

import csv
import dataclasses
import html.parser
import re
import sys

import numpy as np
import pytest

from o2o_jax.cli import page, report
from o2o_jax.cli.report import Curve, Run
from o2o_jax.reading import Record
from o2o_jax.studies import grid

TASKS = ("mujoco/hopper-medium", "mujoco/walker2d-medium")
STEPS = np.array([10, 20, 30])


def entry(tmp_path, task, label, values, published=(), offline=(20.0, 30.0)):
    """A run of two seeds, whose scores [T, 2] are given."""
    nothing = np.full(2, np.nan)
    curve = Curve(STEPS, np.array(values, float))
    run = Run(label, np.arange(2), np.array(offline), nothing, nothing, nothing, curve, None)
    return page.Entry(task, label, tmp_path / label, run, dict(published))


def study(**values):
    """A study of nothing but its words."""
    return grid.parse("mine", Record({"tasks": [*TASKS], "offline": {"bc": {}}, **values}, "mine.toml", ""))


COMMANDS = [page.Command("o2o offline", "done"), page.Command("o2o finetune --a='b c'", "failed", "no <disk>")]


@pytest.fixture
def entries(tmp_path):
    rising, failing = [[20, 30], [30, 40], [60, 80]], [[20, 10], [15, np.nan], [10, np.nan]]
    return [
        entry(tmp_path, TASKS[0], "O2TD3", rising, {"offline": 56.3, "final": 100.25}),
        entry(tmp_path, TASKS[0], "a<b & c", failing),
        entry(tmp_path, TASKS[1], "O2TD3", [[90, 90]] * 3),
        entry(tmp_path, TASKS[1], "a<b & c", [[90, 80]] * 3),
    ]


def test_measures_by_hand(tmp_path):
    found = entry(tmp_path, TASKS[0], "O2TD3", [[20, 30], [30, 40], [60, np.nan]]).measures()
    assert found.keys() == set(page.MEASURES)
    # from the start at step 0: (20 + 25 + 45) / 3 of the first seed
    np.testing.assert_allclose(found["area"], [30.0, np.nan])
    np.testing.assert_allclose(found["regret"], [0.7, np.nan])
    np.testing.assert_allclose(found["steps to +10"], [20, 20])
    np.testing.assert_allclose(found["final"], [60, np.nan])


class Text(html.parser.HTMLParser):
    """Cells of a page's tables, and its headings."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.headings, self._into = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._into = "cell"
        if tag in ("h1", "h2"):
            self.headings.append("")
            self._into = "heading"

    def handle_endtag(self, tag):
        if tag in ("td", "th", "h1", "h2"):
            self._into = None

    def handle_data(self, data):
        if self._into == "cell":
            self.tables[-1][-1][-1] += data
        if self._into == "heading":
            self.headings[-1] += data


def test_a_page_says_what_a_study_comes_to(entries, tmp_path):
    (tmp_path / "O2TD3").mkdir()
    (tmp_path / "O2TD3" / "film.mp4").write_bytes(b"")
    (tmp_path / "O2TD3" / "provenance.jsonl").write_text('{"seconds": {"align": 2.0, "finetune": 3.5}}\n')
    about = {"about": "What `it` is\nworth.", "published_note": "Of others."}
    mine = study(title="Mine & yours", **about)
    path = page.write(tmp_path / "mine", mine, entries, [], COMMANDS, "o2o study mine.toml")
    text = path.read_text()
    found = Text(text)
    assert found.headings == ["Mine & yours", "Curves", "Scores", "Over 2 tasks", "Time", "Films", "To reproduce"]
    missing, scores, aggregates, better, times = found.tables
    assert missing[1:] == [["o2o finetune --a='b c'", "failed", "no <disk>"]]
    for words in (
        "<p>What <code>it</code> is worth.</p>",
        "1 done, 1 failed",
        "* Published. Of others.",
        "study mine.toml",
    ):
        assert words in text
    assert scores[0][:4] == ["task", "method", "offline", "offline*"]
    assert not {"aligned", "cloned", "delivered"} & set(scores[0])  # of which no run has any
    hopper = dict(zip(scores[0], scores[1], strict=True))
    assert (hopper["method"], hopper["final"], hopper["offline*"], hopper["final*"], hopper["steps to +10"]) == (
        "O2TD3", "70.0", "56.3", "100.2", "20",
    )  # fmt: skip
    failed = dict(zip(scores[0], scores[2], strict=True))
    assert (failed["method"], failed["seeds"], failed["final"]) == ("a<b & c", "2, 1 failed", "10.0")
    assert failed["steps to +10"] == "–"
    # of 60, 80, 90, 90 the middle half is 80 and 90; of 10, 90, 80 no quarter is left out
    assert [row[:2] + row[3:] for row in aggregates[1:]] == [["O2TD3", "85.0", "4"], ["a<b & c", "60.0", "4, 1 failed"]]
    assert better[1] == ["O2TD3", "", "0.88"]  # always on Hopper, on Walker2d half of the pairs are ties
    assert times[1] == ["hopper-medium", "O2TD3", "2", "4", "6"]
    assert "src='../O2TD3/film.mp4'" in text
    head, body = text.split("</script>", 1)  # of which the first is plotly itself
    assert not re.search(r"""(src|href)=["']?(http|//)""", head.partition("<script>")[0] + body)  # nothing is fetched
    rows = list(csv.DictReader((tmp_path / "mine" / page.CSV_FILE).open()))
    assert (len(rows), rows[0]["final"], rows[0]["published_final"], rows[3]["final"]) == (8, "60.0", "100.25", "nan")


def test_curves_of_phases(tmp_path):
    (tmp_path / "align_evaluation.csv").write_text(
        "step,seed,score,sampled_score\n2,0,1,0\n2,1,3,0\n4,0,5,0\n4,1,7,9\n"
    )
    (tmp_path / "reevaluate_evaluation.csv").write_text("step,seed,score\n2,0,1\n2,1,3\n")  # one look is no curve
    found = report.load_phases(tmp_path)
    assert {phase: [*kinds] for phase, kinds in found.items()} == {"align": ["", ", samples"]}
    np.testing.assert_array_equal(found["align"][""].mean(), [2, 6])
    trainings = [page.Training(TASKS[0], "O2SAC", found)]
    text = page.write(tmp_path, study(title="Offline"), [], trainings, COMMANDS[:1], "o2o study mine").read_text()
    assert Text(text).headings == ["Offline", "Before the first environment step", "To reproduce"]
    assert "hopper-medium, align" in text
    assert '"name":"O2SAC, samples"' in text


def test_tables_for_papers(entries):
    lines = page.latex(entries).splitlines()
    assert lines[2] == r"task & O2TD3 & a<b \& c \\"
    assert lines[4] == r"hopper-medium & 25.0 $\to$ 70.0 $\pm$ 10.0 & 25.0 $\to$ 10.0 $\pm$ 0.0 \\"
    assert page.latex(entries[:1] + entries[3:]).splitlines()[4].endswith(r"& -- \\")
    backslash = page.latex([dataclasses.replace(entries[0], label="\\{x}")]).splitlines()[2]
    assert backslash == r"task & \textbackslash{}\{x\} \\"


def test_methods_without_a_common_task_are_not_averaged(entries, tmp_path):
    text = page.write(tmp_path, study(title="Two"), [entries[0], entries[3]], [], COMMANDS[:1], "").read_text()
    assert "No task has a run of every method." in text
    assert Text(text).tables[-1][1:] == [["O2TD3", "", "–"], ["a<b & c", "–", ""]]


def test_raw_returns_have_no_regret(entries):
    run = dataclasses.replace(entries[0].run, raw=True)
    assert np.isnan(dataclasses.replace(entries[0], run=run).measures()["regret"]).all()


def test_one_method_is_compared_with_none(entries, tmp_path):
    text = page.write(tmp_path, study(title="One"), entries[::2], [], COMMANDS[:1], "o2o study one").read_text()
    assert Text(text).headings == ["One", "Curves", "Scores", "To reproduce"]
    assert "Not done yet" not in text


def test_pages_need_plotly(entries, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ValueError, match=r"pages of studies need plotly: pip install 'o2o_jax\[plot\]'"):
        page.write(tmp_path, study(), entries, [], COMMANDS, "")
