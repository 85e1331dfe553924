"""A study's page: curves to hover over, tables that sort, what they come to over all tasks. Writes the disk.

One HTML file, without a server or a network; the same numbers lie beside it as CSV and LaTeX.
"""

from __future__ import annotations

import dataclasses
import html
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from o2o_jax.cli import report
from o2o_jax.cli.statistics import (
    area,
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
    steps_to,
    stratified_interval,
)
from o2o_jax.runtime import files, provenance
from o2o_jax.studies.grid import PUBLISHED, Study
from o2o_jax.studies.progress import DONE

GAIN = 10.0  # points above the start that the time to a threshold is of
PAGE, CSV_FILE, LATEX_FILE = "index.html", "scores.csv", "scores.tex"
FILMS = ".mp4"
# per seed, each by its column's title
MEASURES = (
    "offline",
    "cloned",
    "aligned",
    "first ten",
    "minimum",
    "delivered",
    "final",
    "area",
    "regret",
    f"steps to +{GAIN:g}",
)
_NOTE = (
    "Mean over seeds; hover over a number for its 95 % bootstrap interval and every seed. <em>Area</em> is the mean "
    "score over environment steps, <em>regret</em> what is missing of 100 in it, as a share, <em>steps</em> how many "
    f"it took to be {GAIN:g} points above the start, by the seeds that got there. A seed that failed counts in no mean "
    "after it."
)
_SPECIAL = str.maketrans({letter: f"\\{letter}" for letter in "&%$#_{}"} | {"\\": r"\textbackslash{}", "→": r"$\to$"})
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#000000", "#dd7733", "#7755bb")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run of a study.

    Attributes:
      task: its full name.
      label: of its method.
      folder: of the run.
      run: as `report.load_run` reads it.
      published: scores of the paper, by `grid.PUBLISHED`.
    """

    task: str
    label: str
    folder: Path
    run: report.Run
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def failed(self) -> int:
        """Returns how many seeds have no score at the end."""
        return int(np.isnan(self.measures()["final"]).sum()) if len(self.run.score.steps) else 0

    def measures(self) -> dict[str, np.ndarray]:
        """Returns [S] per name of `MEASURES`.

        The area is the mean score over environment steps, regret what is missing of 100 in it, as a share. The start
        counts as the score of step 0. A seed that failed has NaN from then on; raw returns have no regret.
        """
        run = self.run
        found = run.summary()
        start = np.where(np.isfinite(run.cloned), run.cloned, run.offline)
        curves = [self._from_start(first, column) for first, column in zip(start, run.score.values.T, strict=True)]
        areas = np.array([area(*curve) for curve in curves])
        times = [steps_to(*curve, first + GAIN) for first, curve in zip(start, curves, strict=True)]
        return {
            **{name: found[name] for name in MEASURES if name in found},
            "area": areas,
            "regret": np.full_like(areas, np.nan) if run.raw else 1.0 - areas / 100.0,
            MEASURES[-1]: np.array(times),
        }

    def _from_start(self, first: float, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Steps and scores of a seed, its start before them where that is known."""
        steps = self.run.score.steps
        if not np.isfinite(first):
            return steps, column
        return np.concatenate([[0.0], steps]), np.concatenate([[first], column])


@dataclasses.dataclass(frozen=True)
class Training:
    """A run of a study whose policy was evaluated before the first environment step.

    Attributes:
      task: its full name.
      label: of its method.
      phases: by the names of its phases the scores over their updates, of modes and, where there are any, of samples.
    """

    task: str
    label: str
    phases: Mapping[str, Mapping[str, report.Curve]]


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a study.

    Attributes:
      line: as one types it.
      state: of its run, as of `progress.Progress`.
      reason: likewise.
    """

    line: str
    state: str
    reason: str = ""


def write(
    folder: Path,
    study: Study,
    entries: Sequence[Entry],
    trainings: Sequence[Training],
    commands: Sequence[Command],
    whole: str,
) -> Path:
    """Writes the page, and its numbers as CSV and LaTeX. Impure.

    Args:
      folder: of the study; earlier files of these names are replaced.
      study: of the page.
      entries: its fine-tuning runs that are done, those of a method under one label.
      trainings: its runs that were evaluated before the first environment step.
      commands: all that it consists of.
      whole: command that makes the study.

    Returns:
      The path of the page.

    Raises:
      ValueError: plotly isn't installed.
    """
    try:
        import plotly.offline
    except ImportError:
        raise ValueError("pages of studies need plotly: pip install 'o2o_jax[plot]'") from None
    path = folder / PAGE
    files.make_folder(folder)
    report.write_csv(folder / CSV_FILE, _rows(entries))
    files.replace(folder / LATEX_FILE, latex(entries))
    parts = [
        f"<h1>{html.escape(study.title)}</h1>",
        _prose(study.about),
        *_progress(commands),
        *_curves(entries),
        *_training_curves(trainings),
        *_scores(entries),
        _prose(f"* Published. {study.published_note}") if any(entry.published for entry in entries) else "",
        *_aggregates(entries),
        *_times(entries),
        *_films(entries, folder),
        *_reproduction(entries, commands, whole),
        f"<p>The numbers: <a href='{CSV_FILE}'>CSV</a>, <a href='{LATEX_FILE}'>LaTeX</a>.</p>",
    ]
    text = _HEAD.format(title=html.escape(study.title), script=plotly.offline.get_plotlyjs()) + "\n".join(
        filter(None, parts)
    )
    files.replace(path, f"{text}\n{_SORTING}</body></html>\n")
    return path


def latex(entries: Sequence[Entry]) -> str:
    """Returns a table as LaTeX reads it with booktabs, tasks by methods: offline → final, mean ± deviation of seeds."""
    labels, tasks = _labels(entries), _tasks(entries)
    lines = [
        rf"\begin{{tabular}}{{l{'c' * len(labels)}}}",
        r"\toprule",
        " & ".join(["task", *map(_escaped, labels)]) + r" \\",
        r"\midrule",
    ]
    for task in tasks:
        cells = [_escaped(_short(task))]
        for label in labels:
            entry = next((entry for entry in entries if (entry.task, entry.label) == (task, label)), None)
            measures = entry.measures() if entry else {}
            final = _finite(measures.get("final", ()))
            cells.append(
                rf"{_mean(measures['offline']):.1f} $\to$ {final.mean():.1f} $\pm$ {final.std():.1f}"
                if len(final)
                else "--"
            )
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _rows(entries: Sequence[Entry]) -> list[list[Any]]:
    """Rows of the CSV file, one per seed, below their head."""
    names = [f"published_{name}" for name in PUBLISHED]
    rows: list[list[Any]] = [["task", "method", "seed", *(name.replace(" ", "_") for name in MEASURES), *names]]
    for entry in entries:
        measures = entry.measures()
        published = [entry.published.get(name, "") for name in PUBLISHED]
        rows += [
            [entry.task, entry.label, seed, *(measures[name][s] for name in MEASURES), *published]
            for s, seed in enumerate(entry.run.seeds)
        ]
    return rows


def _curves(entries: Sequence[Entry]) -> list[str]:
    """A figure per task, of the mean score over environment steps, with its interval over seeds."""
    import plotly.graph_objects as go

    parts, colours = ["<h2>Curves</h2>"] * bool(entries), _colours(_labels(entries))
    for task in _tasks(entries):
        figure, shown = go.Figure(), [entry for entry in entries if entry.task == task]
        for entry in shown:
            steps, mean = entry.run.score.steps, entry.run.score.mean()
            low, high = entry.run.score.interval()
            start = _mean(np.where(np.isfinite(entry.run.cloned), entry.run.cloned, entry.run.offline))
            if np.isfinite(start):
                steps, mean = np.concatenate([[0], steps]), np.concatenate([[start], mean])
                low, high = np.concatenate([[start], low]), np.concatenate([[start], high])
            _add_line(figure, entry.label, colours[entry.label], steps, mean, low, high)
        _lay_out(figure, _short(task), "environment steps", report.unit([entry.run for entry in shown]))
        parts.append(f"<div class='figure'>{_embedded(figure)}</div>")
    return parts


def _training_curves(trainings: Sequence[Training]) -> list[str]:
    """A figure per task and phase, of the mean score over the phase's updates, with its interval over seeds."""
    import plotly.graph_objects as go

    parts = ["<h2>Before the first environment step</h2>"] * bool(trainings)
    for task in dict.fromkeys(training.task for training in trainings):
        shown = [training for training in trainings if training.task == task]
        for phase in dict.fromkeys(phase for training in shown for phase in training.phases):
            lines = {
                f"{training.label}{kind}": curve
                for training in shown
                for kind, curve in training.phases.get(phase, {}).items()
            }
            figure, colours = go.Figure(), _colours([*lines])
            for label, curve in lines.items():
                _add_line(figure, label, colours[label], curve.steps, curve.mean(), *curve.interval())
            _lay_out(figure, f"{_short(task)}, {phase}", f"updates of {phase}", "score")
            parts.append(f"<div class='figure'>{_embedded(figure)}</div>")
    return parts


def _add_line(
    figure: Any, label: str, colour: str, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
    """Adds a mean and the band of its interval, [T] each, to a figure of plotly's."""
    figure.add_scatter(
        x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", mode="none", showlegend=False,
        fillcolor=_faint(colour), hoverinfo="skip", legendgroup=label,
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=mean, name=label, mode="lines", customdata=np.stack([low, high], axis=1), legendgroup=label,
        line={"color": colour}, hovertemplate="%{y:.1f} (%{customdata[0]:.1f} to %{customdata[1]:.1f})",
    )  # fmt: skip


def _lay_out(figure: Any, title: str, x: str, y: str) -> None:
    """Gives a figure of curves its titles and what the pointer shows."""
    figure.update_layout(
        title=title, template="plotly_white", height=380, margin={"l": 50, "r": 20, "t": 50, "b": 45},
        xaxis={"title": x, "hoverformat": ",d"}, hovermode="x unified", yaxis_title=y,
    )  # fmt: skip


def _aggregates(entries: Sequence[Entry]) -> list[str]:
    """Final scores of methods over tasks, where there are several methods."""
    labels, tasks = _labels(entries), _tasks(entries)
    if len(labels) < 2:
        return []
    found = {(entry.task, entry.label): _finite(entry.measures()["final"]) for entry in entries}
    finals = {label: [found.get((task, label), np.empty(0)) for task in tasks] for label in labels}
    better = {
        (label, other): probability_of_improvement(finals[label], finals[other])
        for label in labels
        for other in labels
        if other != label
    }
    matrix = [
        [html.escape(label), *(_cell(better[label, other], 2) if other != label else "" for other in labels)]
        for label in labels
    ]
    common = [task for task in tasks if all((task, label) in found for label in labels)]
    parts = _means(entries, common) if common else ["<h2>Over tasks</h2>", "<p>No task has a run of every method.</p>"]
    return [
        *parts,
        "<p>The probability that a seed of the row ends higher than one of the column, ties by half, mean over the "
        "tasks of both:</p>",
        _table(["better than", *labels], matrix),
        "<p>By Agarwal et al. (2021). Seeds that failed have no final score and are left out here: where there are "
        "any, this is of the others alone.</p>",
    ]


def _means(entries: Sequence[Entry], tasks: Sequence[str]) -> list[str]:
    """Interquartile means of the final scores over tasks that all methods have, as a table and as a figure."""
    import plotly.graph_objects as go

    labels, rows, figure = _labels(entries), [], go.Figure()
    for label in labels:
        members = [entry for entry in entries if entry.label == label and entry.task in tasks]
        finals = [_finite(entry.measures()["final"]) for entry in members]
        value, (low, high) = interquartile_mean(np.concatenate(finals)), stratified_interval(finals)
        rows.append([html.escape(label), _cell(value), f"{_cell(low)} to {_cell(high)}", _seeds(members)])
        figure.add_scatter(
            x=[value], y=[label], mode="markers", showlegend=False,
            marker={"color": _colours(labels)[label], "size": 11},
            error_x={"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low]},
            hovertemplate=f"%{{x:.1f}} ({_cell(low)} to {_cell(high)})<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        template="plotly_white", height=120 + 32 * len(labels), margin={"l": 50, "r": 20, "t": 20, "b": 45},
        xaxis_title="interquartile mean of final scores", yaxis={"autorange": "reversed"},
    )  # fmt: skip
    return [
        f"<h2>Over {len(tasks)} task{'s' if len(tasks) > 1 else ''}</h2>",
        f"<div class='figure'>{_embedded(figure)}</div>",
        _table(["method", "interquartile mean", "95 % interval", "seeds"], rows),
        "<p>Of final scores, over the tasks that all methods have; intervals by a bootstrap of seeds within each task."
        "</p>",
    ]


def _scores(entries: Sequence[Entry]) -> list[str]:
    """The table of scores, where there are any."""
    return ["<h2>Scores</h2>", _table(*_score_table(entries), names=2), f"<p>{_NOTE}</p>"] if entries else []


def _score_table(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of scores, a row per task and method; published ones stand beside ours."""
    published = [name for name in PUBLISHED if any(name in entry.published for entry in entries)]
    names = [
        name
        for name in MEASURES
        if name not in report.OPTIONAL_COLUMNS
        or name in published
        or any(np.isfinite(entry.measures()[name]).any() for entry in entries)
    ]
    head = ["task", "method"]
    for name in names:
        head += [name, f"{name}*"] if name in published else [name]
    rows = []
    for entry in entries:
        measures, cells = entry.measures(), []
        for name in names[:-1]:
            cells.append(_hover(measures[name], entry.run.seeds, 2 if name == "regret" else 1))
            if name in published:
                cells.append(_cell(entry.published.get(name, np.nan)))
        reached = measures[names[-1]]
        count = int(np.isfinite(reached).sum())
        share = "" if count == len(reached) else f" ({count} of {len(reached)})"
        cells.append(f"{_mean(reached):,.0f}{share}" if count else "–")
        rows.append([html.escape(_short(entry.task)), html.escape(entry.label), *cells, _seeds([entry])])
    return [*head, "seeds"], rows


def _times(entries: Sequence[Entry]) -> list[str]:
    """A table of wall time, all seeds of a run together, per phase; nothing where no run has noted it."""
    found = [provenance.seconds(entry.folder) for entry in entries]
    phases = list(dict.fromkeys(phase for seconds in found for phase in seconds))
    if not phases:
        return []
    rows = [
        [html.escape(_short(entry.task)), html.escape(entry.label),
         *(f"{seconds[phase]:,.0f}" if phase in seconds else "–" for phase in phases), f"{sum(seconds.values()):,.0f}"]
        for entry, seconds in zip(entries, found, strict=True)
    ]  # fmt: skip
    head = ["task", "method", *(f"{phase}, s" for phase in phases), "all, s"]
    note = "Wall time of all seeds of a run together, on the machine that ran it."
    return ["<h2>Time</h2>", _table(head, rows, names=2), f"<p>{note}</p>"]


def _films(entries: Sequence[Entry], folder: Path) -> list[str]:
    """Films that lie in the runs' folders."""
    found = [(entry, film) for entry in entries for film in sorted(entry.folder.glob(f"*{FILMS}"))]
    return ["<h2>Films</h2>"] * bool(found) + [
        f"<figure><video controls src='{html.escape(os.path.relpath(film, folder))}'></video>"
        f"<figcaption>{html.escape(_short(entry.task))}, {html.escape(entry.label)}</figcaption></figure>"
        for entry, film in found
    ]


def _progress(commands: Sequence[Command]) -> list[str]:
    """Counts of runs by their state, and those that are not done, with what is known of why."""
    counts = Counter(command.state for command in commands)
    words = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    rows = [
        [f"<code>{html.escape(command.line)}</code>", command.state, html.escape(command.reason)]
        for command in commands
        if command.state != DONE
    ]
    missing = (
        f"<details><summary>Not done yet</summary>{_table(['command', 'state', 'reason'], rows, names=3)}</details>"
    )
    return [f"<p>Commands: {words}.</p>", missing if rows else ""]


def _reproduction(entries: Sequence[Entry], commands: Sequence[Command], whole: str) -> list[str]:
    """The command that makes the study, the code that it was of, and every single command."""
    commits = sorted(
        {line["commit"] for entry in entries for line in provenance.read(entry.folder) if "commit" in line}
    )
    lines = html.escape("\n".join(command.line for command in commands))
    code = f"<p>Code of commit {html.escape(', '.join(commits))}.</p>" if commits else ""
    return [
        "<h2>To reproduce</h2>",
        f"<pre>{html.escape(whole)}</pre>{code}",
        f"<details><summary>Command by command</summary><pre>{lines}</pre></details>",
    ]


def _prose(text: str) -> str:
    """A paragraph, with code between backquotes."""
    words = html.escape(" ".join(text.split()))
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", f"<p>{words}</p>") if words else ""


def _seeds(entries: Sequence[Entry]) -> str:
    """Number of seeds, and of those that failed."""
    failed = sum(entry.failed() for entry in entries)
    return f"{sum(len(entry.run.seeds) for entry in entries)}" + (f", {failed} failed" if failed else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table that sorts by the column whose head is clicked; its first columns are names, the others numbers."""
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f"<div class='table'><table class='names{names}'>{body}</table></div>"


def _hover(values: np.ndarray, seeds: np.ndarray, digits: int) -> str:
    """The mean over seeds, which tells its interval and every seed when the pointer is on it."""
    finite = _finite(values)
    if not len(finite):
        return "–"
    low, high = bootstrap_interval(finite)
    each = ", ".join(f"seed {seed}: {value:.{digits}f}" for seed, value in zip(seeds, values, strict=True))
    return f"<span title='{low:.{digits}f} to {high:.{digits}f}; {each}'>{finite.mean():.{digits}f}</span>"


def _embedded(figure: Any) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False)


def _labels(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(entry.label for entry in entries))


def _tasks(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(entry.task for entry in entries))


def _colours(labels: Sequence[str]) -> Mapping[str, str]:
    return {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(labels)}


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _short(task: str) -> str:
    return task.partition("/")[2] or task


def _finite(values: Any) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values[np.isfinite(values)]


def _mean(values: np.ndarray) -> float:
    finite = _finite(values)
    return float(finite.mean()) if len(finite) else np.nan


def _cell(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def _escaped(text: str) -> str:
    """Returns a text as LaTeX prints it."""
    return text.translate(_SPECIAL)


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1150px; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child, .names2 :is(th, td):nth-child(2), .names3 :is(th, td) {{ text-align: left }}
.table {{ overflow-x: auto }}
.names2 td:first-child {{ white-space: nowrap }}
pre {{ background: #f2f2f2; padding: .6em; overflow-x: auto }}
summary {{ cursor: pointer }}
th {{ cursor: pointer; border-bottom: 2px solid #888; vertical-align: bottom }}
tbody tr:hover {{ background: #f4f6fa }}
span[title] {{ border-bottom: 1px dotted #aaa; cursor: help }}
code {{ background: #f2f2f2; padding: .1em .4em }}
.figure {{ margin: 1em 0 }}
figure {{ display: inline-block; margin: .5em }} video {{ width: 340px }}
</style>
<script>{script}</script></head><body>
"""
_SORTING = """<script>
document.querySelectorAll("th").forEach(head => head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], place = head.cellIndex;
  const down = head.dataset.down = head.dataset.down === "yes" ? "no" : "yes";
  const text = row => row.cells[place].textContent, number = row => parseFloat(text(row).replace(/,/g, ""));
  const compare = (a, b) => isNaN(number(a)) || isNaN(number(b))
    ? (isNaN(number(b)) - isNaN(number(a))) || text(a).localeCompare(text(b)) : number(a) - number(b);
  [...body.rows].sort((a, b) => compare(a, b) * (down === "yes" ? -1 : 1)).forEach(row => body.append(row));
}));
</script>
"""
