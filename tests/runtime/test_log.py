import numpy as np
import pytest

from o2o_jax.runtime import log


def test_file_by_hand(tmp_path):
    with log.MetricLog(tmp_path / "run") as metrics:
        metrics.write("align", 10, {"q": np.array([1.5, 2.5]), "alpha": 0.5})
        # what was written is on disk before the log is closed
        assert (tmp_path / "run" / "align.csv").read_text() == "step,seed,alpha,q\n10,0,0.5,1.5\n10,1,0.5,2.5\n"
        metrics.write("align", 20, {"alpha": 0.25, "q": np.array([np.nan, 1e-7])})
    columns = log.read(tmp_path / "run", "align")
    assert list(columns) == ["step", "seed", "alpha", "q"]
    np.testing.assert_array_equal(columns["step"], [10, 10, 20, 20])
    np.testing.assert_array_equal(columns["seed"], [0, 1, 0, 1])
    np.testing.assert_array_equal(columns["q"], [1.5, 2.5, np.nan, 1e-7])
    assert columns["step"].dtype == np.int64


def test_seeds_have_their_own_numbers(tmp_path):
    with log.MetricLog(tmp_path, first_seed=4) as metrics:
        metrics.write("align", 10, {"q": np.array([1.5, 2.5])})
    assert (tmp_path / "align.csv").read_text() == "step,seed,q\n10,4,1.5\n10,5,2.5\n"


def test_float32_values_survive(tmp_path):
    values = np.array([1 / 3, 1e-30, 3e8], np.float32)
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("phase", 1, {"x": values})
    np.testing.assert_array_equal(log.read(tmp_path, "phase")["x"].astype(np.float32), values)


def test_an_existing_file_is_continued(tmp_path):
    for step in (1, 2):
        with log.MetricLog(tmp_path) as metrics:
            metrics.write("phase", step, {"x": 1.0})
    np.testing.assert_array_equal(log.read(tmp_path, "phase")["step"], [1, 2])


@pytest.mark.parametrize("reopen", [False, True])
def test_other_terms_are_an_error(tmp_path, reopen):
    metrics = log.MetricLog(tmp_path)
    metrics.write("phase", 1, {"x": 1.0})
    if reopen:
        metrics.close()
        metrics = log.MetricLog(tmp_path)
    with pytest.raises(ValueError, match=r"has the columns x, so it cannot take y$"):
        metrics.write("phase", 2, {"y": 1.0})


def test_seeds_must_agree(tmp_path):
    with pytest.raises(ValueError, match="one value per seed"):
        log.MetricLog(tmp_path).write("phase", 1, {"x": np.zeros(2), "y": np.zeros(3)})


@pytest.mark.parametrize("terms", [{}, {"seed": 1.0}])
def test_terms_are_needed_and_not_the_index(tmp_path, terms):
    with pytest.raises(ValueError, match="other than step and seed"):
        log.MetricLog(tmp_path).write("phase", 1, terms)


def test_rewind_drops_later_rows_and_goes_on(tmp_path):
    with log.MetricLog(tmp_path) as metrics:
        for step in (10, 20, 30):
            metrics.write("phase", step, {"x": np.array([step, -step])})
        metrics.rewind("phase", 20)
        metrics.write("phase", 40, {"x": np.zeros(2)})
        metrics.rewind("other", 5)
    np.testing.assert_array_equal(log.read(tmp_path, "phase")["step"], [10, 10, 20, 20, 40, 40])
    assert [path.name for path in tmp_path.iterdir()] == ["phase.csv"]


def test_rewind_to_nothing_keeps_the_header(tmp_path):
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("phase", 0, {"x": 1.0})
        metrics.rewind("phase", -1)
    assert (tmp_path / "phase.csv").read_text() == "step,seed,x\n"
    assert log.read(tmp_path, "phase")["x"].shape == (0,)


@pytest.mark.parametrize("cut", [1, 3, 8])
def test_a_row_cut_short_is_left_out_and_written_over(tmp_path, cut):
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("phase", 10, {"x": 1.25})
        metrics.write("phase", 20, {"x": 2.25})
    path = tmp_path / "phase.csv"
    path.write_text(path.read_text()[:-cut])
    np.testing.assert_array_equal(log.read(tmp_path, "phase")["step"], [10])
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("phase", 20, {"x": 3.0})
    np.testing.assert_array_equal(log.read(tmp_path, "phase")["x"], [1.25, 3.0])


def test_an_empty_file_gets_its_header(tmp_path):
    (tmp_path / "phase.csv").touch()
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("phase", 1, {"x": 2.0})
    np.testing.assert_array_equal(log.read(tmp_path, "phase")["x"], [2.0])


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run that reached the phase 'align'"):
        log.read(tmp_path, "align")


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step,seed,x\n1,0\n", "step,seed,x\n1,0,two\n"])
def test_reading_another_file(tmp_path, text):
    (tmp_path / "align.csv").write_text(text)
    with pytest.raises(ValueError, match="is not a metrics file"):
        log.read(tmp_path, "align")


def test_progress_without_a_terminal_writes_few_whole_lines(capsys):
    with log.progress("align", 1000, initial=400) as bar:
        bar.set_postfix(score=44.1)
        for _ in range(600):
            bar.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 4
    assert lines[-1].startswith("align: 100%")
    assert "1000/1000" in lines[-1]
    assert "score=44.1" in lines[-1]


def test_rows_are_counted_of_logs_alone(tmp_path):
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("align", 1, {"loss": [1.0, 2.0]})
        metrics.write("align", 2, {"loss": [1.0, 2.0]})
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert log.row_counts(tmp_path) == {"align": 4}
