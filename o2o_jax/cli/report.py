"""Compares fine-tuning runs: learning curves with a confidence band over seeds, and a table.

    python -m experiments.report --runs=runs/o2td3,runs/td3 --labels=O2TD3,"direct TD3" --out=hopper.png

writes hopper.png, hopper_table.md, hopper_runs.csv and hopper_seeds.csv, and prints the table. An earlier report of
that name is replaced.

Runs of other seeds are joined to one curve by a plus, as in --runs=runs/o2td3+runs/o2td3-more,runs/td3: they must agree
in settings, data and code, or in all but what --may_differ names, such as commit,config.env_steps. The curve ends where
the shortest of them does.

Labels such as Hopper/O2TD3 and Walker2d/O2TD3 give each group a panel of its own.

--x=total counts the environment steps of evaluations too, and --scores=episode takes the returns of training's own
episodes, exploration included: the only ones of a run without evaluations.
"""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import absl.flags
import numpy as np
from absl.flags import FlagValues

from o2o_jax.cli import flags, joined
from o2o_jax.cli.statistics import bootstrap_interval, interquartile_mean
from o2o_jax.reading import Record
from o2o_jax.registry import clipped, listed
from o2o_jax.runtime import files, log
from o2o_jax.runtime.checkpoint import read_config

FORMATS = (".png", ".pdf", ".svg")
LONGEST_LABEL = 80  # characters
PANELS_PER_ROW = 3
COLUMNS = ("offline", "cloned", "aligned", "first ten", "minimum", "delivered", "final")
DIP = 3.0  # points below the start that count as one: about the noise of ten episodes
OPTIONAL_COLUMNS = ("cloned", "aligned", "delivered")  # left out of the printed tables where no run has them


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric over environment steps.

    Attributes:
      steps: [T] environment steps per seed; those of training and evaluation together are means over seeds.
      values: [T, S]; NaN where a seed has no number.
    """

    steps: np.ndarray
    values: np.ndarray

    def mean(self) -> np.ndarray:
        """[T] mean over the seeds that have a number."""
        return np.array([_mean(row) for row in self.values])

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """[T] lower and [T] upper end of the 95 % bootstrap interval of that mean."""
        low, high = np.array([bootstrap_interval(row[np.isfinite(row)]) for row in self.values]).reshape(-1, 2).T
        return low, high


@dataclasses.dataclass(frozen=True)
class Run:
    """Parts of a fine-tuning run that a report needs.

    Attributes:
      label: how it is called.
      seeds: [S] all seeds that appear in its files, those that failed among them.
      offline: [S] normalized score of the offline policy.
      cloned: [S] normalized score of its clone, which then replaced it; NaN where none was needed.
      aligned: [S] normalized score of the policy after value alignment.
      delivered: [S] normalized score of π_ref at the end, where the run rolls back; NaN elsewhere.
      score: normalized score of the evaluations online, or of training's own episodes.
      lagrange: λ, None for a run without one.
      missing_env_steps: that the run still had to take when it stopped; 0 where it finished, or left no settings.
      raw: whether its scores are raw returns, for want of a reference.
    """

    label: str
    seeds: np.ndarray
    offline: np.ndarray
    cloned: np.ndarray
    aligned: np.ndarray
    delivered: np.ndarray
    score: Curve
    lagrange: Curve | None
    missing_env_steps: int = 0
    raw: bool = False

    def summary(self) -> dict[str, np.ndarray]:
        """The table's columns, [S] each: where the seed started, its clone and the aligned policy, then of its
        evaluations online the mean of the first ten, the lowest, that of the policy delivered and the last. NaN where a
        seed failed or has none."""
        # from each seed's first score on: a training episode may last longer than what lies between two rows
        scores = [column[np.argmax(np.isfinite(column)) :] for column in self.score.values.T if len(column)]
        empty = np.full(len(self.seeds), np.nan)
        return {
            "offline": self.offline,
            "cloned": self.cloned,
            "aligned": self.aligned,
            "first ten": np.array([column[:10].mean() for column in scores]) if scores else empty,
            "minimum": np.array([column.min() for column in scores]) if scores else empty,
            "delivered": self.delivered,
            "final": np.array([column[-1] for column in scores]) if scores else empty,
        }


def load_run(
    folder: str | Path,
    label: str,
    scores: str = "evaluation",
    x: str = "training",
    may_differ: Sequence[str] = (),
) -> Run:
    """Reads `<scores>.csv` and, where they exist, `start.csv` and `finetune.csv` of a run; impure.

    Args:
      folder: of the run, or of several with a plus in between, whose seeds are joined.
      label: how it is called.
      scores: "evaluation" or "episode". A seed that finished no episode for a row keeps the score of the row before.
      x: environment steps of "training" alone or in "total".
      may_differ: in what runs that are joined may differ besides their seeds.

    Raises:
      FileNotFoundError: the folder holds no such scores.
      ValueError: one of the files is damaged or lacks the columns that a report needs, it is an offline run, or see
        `joined.check`.
    """
    folders = joined.folders_of(str(folder))
    for part in folders:
        if _settings(part).get("script") == "offline":
            raise ValueError(f"{part} is a run of experiments.offline: reports are of fine-tuning runs")
    joined.check(folders, may_differ)
    ends = [_last_step(part, scores) for part in folders]
    # episodes end when they do: where one run has a row and another hasn't, none is missing
    scored = joined.read(folders, scores, min(ends) if scores == "episode" else None)
    needed = ["score"] + ["episodes"] * (scores == "episode") + ["total_env_steps"] * (x == "total")
    for column in needed:
        if column not in scored:
            has = f"no column {column!r}, only {listed(scored)}" if scored else "no columns: it is empty"
            raise ValueError(f"{folders[0]}/{scores}.csv has {has}")
    start = _read_if_there(folders, "start")
    finetune = _read_if_there(folders, "finetune")
    seeds = np.union1d(scored["seed"], start.get("seed", []))
    online = {name: column[scored["step"] > 0] for name, column in scored.items()}
    score = _curve(online, "score", seeds)
    if scores == "episode":
        episodes = _curve(online, "episodes", seeds).values
        score = dataclasses.replace(score, values=_carried_on(score.values, ~(episodes > 0)))
    lagrange = _curve(finetune, "lagrange", seeds) if "lagrange" in finetune else None
    if x == "total":
        total = _total(_curve(online, "total_env_steps", seeds))
        if lagrange is not None:  # logged at the same steps, of which a run may have more than scores
            lagrange = dataclasses.replace(lagrange, steps=np.interp(lagrange.steps, score.steps, total))
        score = dataclasses.replace(score, steps=total)

    def at_start(column: str) -> np.ndarray:
        scores = dict(zip(start["seed"], start[column], strict=True)) if column in start else {}
        return np.array([scores.get(seed, np.nan) for seed in seeds])

    evaluation = _read_if_there(folders, "evaluation")
    delivered = np.full(len(seeds), np.nan)
    if len(evaluation.get("reference_score", [])):
        delivered = _curve(evaluation, "reference_score", seeds).values[-1]
    cloned = "teacher_score" in start
    missing = [_settings(part).at("config.env_steps", int, 0) - end for part, end in zip(folders, ends, strict=True)]
    return Run(
        label=label,
        seeds=seeds.astype(int),
        offline=at_start("teacher_score" if cloned else "offline_score"),
        cloned=at_start("offline_score") if cloned else np.full(len(seeds), np.nan),
        aligned=at_start("aligned_score"),
        delivered=delivered,
        score=score,
        lagrange=lagrange,
        missing_env_steps=max(0, *missing),
        raw=all(_is_raw(_settings(part)) for part in folders),
    )


def load_phases(folder: str | Path) -> dict[str, dict[str, Curve]]:
    """Reads how the policy scored while the phases of a run went on, where that was evaluated; impure.

    Args:
      folder: of the run, offline or fine-tuning.

    Returns:
      By the names of the phases, those of an offline run as one, curves over updates: "" of the policy's modes, and
      ", samples" of its samples. A phase with fewer than two evaluations has none.
    """
    offline = _settings(str(folder)).get("script") == "offline"
    files = {"training": "evaluation"} if offline else {}
    suffix = "_evaluation"
    for path in sorted(Path(folder).glob(f"*{suffix}.csv")):
        files[path.stem.removesuffix(suffix)] = path.stem
    found: dict[str, dict[str, Curve]] = {}
    for phase, file in files.items():
        columns = _read_if_there([str(folder)], file)
        if len(np.unique(columns.get("step", []))) > 1:
            seeds = np.unique(columns["seed"])
            terms = {"": "score", ", samples": "sampled_score"}
            found[phase] = {kind: _curve(columns, term, seeds) for kind, term in terms.items() if term in columns}
    return found


def table(runs: Sequence[Run]) -> str:
    """Both tables as markdown: per run the mean over seeds with its 95 % interval, every seed, and a line in words."""
    summaries = [run.summary() for run in runs]
    columns = [
        name
        for name in COLUMNS
        if name not in OPTIONAL_COLUMNS or any(np.isfinite(summary[name]).any() for summary in summaries)
    ]
    lines = [_row(["run", *columns, "final IQM", "seeds"]), _row(["---"] * (len(columns) + 3))]
    for run, summary in zip(runs, summaries, strict=True):
        cells = [_interval_cell(summary[name]) for name in columns]
        finished = summary["final"][np.isfinite(summary["final"])]
        failed = len(run.seeds) - len(finished) if len(run.score.steps) else 0
        count = f"{len(run.seeds)}, {failed} failed" if failed else f"{len(run.seeds)}"
        if run.missing_env_steps:
            count += f", stopped {run.missing_env_steps:,} steps early"
        lines.append(_row([run.label, *cells, _cell(interquartile_mean(finished)), count]))
    lines += [
        "",
        f"{unit(runs).capitalize()}s: mean over seeds [95 % bootstrap interval]; a seed that failed counts in no mean "
        "after it.",
        "",
    ]
    lines += [_row(["run", "seed", *columns]), _row(["---"] * (len(columns) + 2))]
    for run, summary in zip(runs, summaries, strict=True):
        for s, seed in enumerate(run.seeds):
            cells = [_cell(summary[name][s]) for name in columns[:-1]]
            final = summary["final"][s]
            failed = len(run.score.steps) and not np.isfinite(final)
            lines.append(_row([run.label, seed, *cells, "failed" if failed else _cell(final)]))
    lines += ["", *(f"- {in_words(run)}" for run in runs)]
    return "\n".join(lines) + "\n"


def in_words(run: Run) -> str:
    """One line of what a run's numbers mean: from where to where, and how long it lay below its start."""
    summary = run.summary()
    name = "delivered" if np.isfinite(summary["delivered"]).any() else "final"
    end = summary[name]
    start = np.where(np.isfinite(run.cloned), run.cloned, run.offline)
    gain = (end - start)[np.isfinite(end - start)]
    if not len(gain):
        return f"{run.label}: no seed has a score at its start and at its end."
    verb = "delivers" if name == "delivered" else "ends at"
    text = f"{run.label}: starts at {_mean(start):.1f} and {verb} {_mean(end):.1f}"
    failed = f", {len(end) - len(gain)} failed" if len(gain) < len(end) else ""
    text += f"; by seed {', '.join(f'{value:+.1f}' for value in gain)}{failed}."
    dips = [_longest(column < first - DIP) for column, first in zip(run.score.values.T, start, strict=True)]
    if max(dips) == 0:
        return f"{text} No evaluation was more than {DIP:g} below the start."
    lowest = np.fmin.reduce(run.score.values, axis=0) - start
    return (
        f"{text} Up to {max(dips)} in a row more than {DIP:g} below the start, at worst {-np.nanmin(lowest):.1f} below."
    )


def _longest(true: np.ndarray) -> int:
    """Length of the longest stretch of True in [T] bool."""
    best = count = 0
    for value in true:
        count = count + 1 if value else 0
        best = max(best, count)
    return best


def draw(runs: Sequence[Run], path: Path, x_label: str) -> None:
    """Writes the figure: scores over environment steps and, where all share one panel, λ below; impure.

    Args:
      runs: those whose label has a slash are drawn in the panel of what comes before it.
      path: of the figure.
      x_label: of the axis of environment steps.

    Raises:
      ValueError: matplotlib is not installed.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        group, _, name = map(_drawable, run.label.rpartition("/"))
        groups.setdefault(group, []).append(dataclasses.replace(run, label=name))
    if len(groups) > 1:
        columns = min(len(groups), PANELS_PER_ROW)
        rows = -(-len(groups) // columns)
        figure = figure_class()(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        panels = grid.ravel()[: len(groups)]
        for axis in grid.ravel()[len(groups) :]:
            axis.set_visible(False)
        lowest = [*panels]
    else:
        with_lagrange = any(run.lagrange is not None for run in runs)
        figure = figure_class()(figsize=(7.0, 6.0 if with_lagrange else 4.2), layout="constrained")
        heights = [3, 1] if with_lagrange else [3]
        grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
        panels, lowest = grid[:1, 0], [grid[-1, 0]]
        if with_lagrange:
            _draw_lagrange(lowest[0], runs)
    for axis, (group, members) in zip(panels, groups.items(), strict=True):
        _draw_scores(axis, members)
        axis.set_title(group)
    for axis in lowest:
        axis.set_xlabel(x_label)
    for axis in grid.ravel():
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def write_report(
    folders: Sequence[str | Path],
    labels: Sequence[str],
    out: str | Path,
    scores: str = "evaluation",
    x: str = "training",
    may_differ: Sequence[str] = (),
) -> str:
    """Writes figure and tables next to each other, see the module; impure.

    Args:
      folders: of the runs, as of `load_run`.
      labels: one per run.
      out: path of the figure; its ending chooses the format.
      scores: as of `load_run`.
      x: likewise.
      may_differ: likewise.

    Returns:
      The tables as markdown.

    Raises:
      FileNotFoundError, ValueError: see `load_run` and `draw`; or the figure's ending is unknown, or a label too
        long.
    """
    out = Path(out)
    if out.suffix not in FORMATS:
        raise ValueError(f"--out must be a figure, a path that ends in {', '.join(FORMATS)}; got {out}")
    for label in labels:
        if len(label) > LONGEST_LABEL:
            raise ValueError(
                f"the label {clipped(label, 60)} has {len(label)} characters, more than the {LONGEST_LABEL} that a "
                "figure has room for: shorten it in --labels"
            )
    runs = [load_run(folder, label, scores, x, may_differ) for folder, label in zip(folders, labels, strict=True)]
    files.make_folder(out.parent)
    draw(runs, out, "environment steps, evaluation included" if x == "total" else "environment steps")
    text = table(runs)
    out.with_name(f"{out.stem}_table.md").write_text(text, encoding="utf-8")
    names = [name.replace(" ", "_") for name in COLUMNS]
    run_rows: list[list[Any]] = [["run", *(f"{name}{end}" for name in names for end in ("", "_low", "_high")), "seeds"]]
    seed_rows: list[list[Any]] = [["run", "seed", *names]]
    for run in runs:
        summary = run.summary()
        cells = [number for name in COLUMNS for number in _mean_and_interval(summary[name])]
        run_rows.append([run.label, *cells, len(run.seeds)])
        seed_rows += [[run.label, seed, *(summary[name][s] for name in COLUMNS)] for s, seed in enumerate(run.seeds)]
    write_csv(out.with_name(f"{out.stem}_runs.csv"), run_rows)
    write_csv(out.with_name(f"{out.stem}_seeds.csv"), seed_rows)
    return text


def figure_class() -> Any:
    """Matplotlib's `Figure`, imported on demand.

    Raises:
      ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("figures need matplotlib: pip install 'o2o_jax[plot]'") from None
    return Figure


def _drawable(label: str) -> str:
    """Returns a label as matplotlib shows its letters; what is mathematics, such as "$\\lambda$", as mathematics."""
    from matplotlib.mathtext import MathTextParser

    if label.startswith("_"):
        label = f" {label}"  # else a legend leaves it out
    try:
        MathTextParser("path").parse(label)
    except ValueError:
        return label.replace("$", r"\$")
    return label


def define(values: FlagValues) -> None:
    """Flags of this script."""
    flags.define_paths(
        values,
        "runs",
        None,
        "folders of fine-tuning runs, comma-separated; a plus joins the seeds of several to one curve",
        required=True,
    )
    absl.flags.DEFINE_list(
        "may_differ", [], "settings, or commit, fingerprint, versions, that runs which are joined may differ in",
        flag_values=values,
    )  # fmt: skip
    absl.flags.DEFINE_list(
        "labels", None, "their names in figure and table; the folders' by default", flag_values=values
    )
    absl.flags.DEFINE_enum(
        "scores", "evaluation", ["evaluation", "episode"], "of evaluations, or of training's own episodes",
        flag_values=values,
    )  # fmt: skip
    absl.flags.DEFINE_enum(
        "x", "training", ["training", "total"], "environment steps of training alone, or of evaluations too",
        flag_values=values,
    )  # fmt: skip
    flags.define_path(values, "out", None, f"the figure: {', '.join(FORMATS)}", required=True)


def main(args: FlagValues) -> None:
    """Reads the runs, writes the report, prints the table."""
    if not args.runs:
        raise ValueError("--runs names no folder: pass those of fine-tuning runs, with commas between")
    labels = args.labels or _labels(args.runs)
    if len(labels) != len(args.runs):
        raise ValueError(f"--labels names {len(labels)} runs, but --runs has {len(args.runs)}")
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ValueError(f"two runs are called {twice}: name every run once, and each by its own name in --labels")
    print(write_report(args.runs, labels, args.out, args.scores, args.x, args.may_differ))
    print(f"Figure: {Path(args.out).absolute()}")


def unit(runs: Sequence[Run]) -> str:
    """Returns what the scores of all runs are."""
    return "raw return" if all(run.raw for run in runs) else "normalized score"


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Writes a file of comma-separated values, its head first. Impure."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _labels(folders: Sequence[str]) -> list[str]:
    """Names of the folders, or their whole paths where two are called alike."""
    names = ["+".join(Path(part).name for part in joined.folders_of(folder)) for folder in folders]
    return names if len(set(names)) == len(names) else list(folders)


def _settings(folder: str) -> Record:
    """Settings of a run; none of a folder that has only its logs."""
    return read_config(folder) if (Path(folder) / "config.json").is_file() else Record({}, folder, "")


def _is_raw(settings: Record) -> bool:
    """True where a run's settings say that its task has no reference scores."""
    task = settings.get("task") or {}
    return (task.get("random_score"), task.get("expert_score")) == (0.0, 100.0)


def _last_step(folder: str, scores: str) -> int:
    """The last environment step that a run has logged anything at."""
    logs = [log.read(folder, scores), _read_if_there([folder], "finetune")]
    return max((int(columns["step"].max(initial=0)) for columns in logs if columns), default=0)


def _read_if_there(folders: Sequence[str], phase: str) -> dict[str, np.ndarray]:
    try:
        return joined.read(folders, phase)
    except FileNotFoundError:
        return {}


def _curve(columns: dict[str, np.ndarray], term: str, seeds: np.ndarray) -> Curve:
    steps, rows = np.unique(columns["step"], return_inverse=True)
    values = np.full((len(steps), len(seeds)), np.nan)
    values[rows, np.searchsorted(seeds, columns["seed"])] = columns[term]
    return Curve(steps, values)


def _total(curve: Curve) -> np.ndarray:
    """[T] mean over seeds of all environment steps spent; a seed without a row has evaluated as much as in its last."""
    evaluation = curve.values - curve.steps[:, None]
    evaluation = _carried_on(evaluation, np.isnan(evaluation))
    return Curve(curve.steps, curve.steps[:, None] + evaluation).mean()


def _carried_on(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Values [T, S] with the one before where there is none, `missing` [T, S]; NaN before the first."""
    rows = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(missing, 0, rows), axis=0)
    return np.take_along_axis(values, last, axis=0)


def _draw_scores(axis: Any, runs: Sequence[Run]) -> None:
    for i, run in enumerate(runs):
        _draw_curve(axis, run.score, f"C{i}", f"{run.label} ({len(run.seeds)} seeds)")
        if np.isfinite(run.offline).any():
            axis.axhline(_mean(run.offline), color=f"C{i}", linestyle="--", linewidth=1)
        if np.isfinite(run.aligned).any():
            axis.plot(0, _mean(run.aligned), "o", color=f"C{i}", clip_on=False)
    axis.set_ylabel(unit(runs))
    started_offline = any(np.isfinite(run.offline).any() for run in runs)
    title = "dashed: offline policy, dot: after alignment" if started_offline else None
    axis.legend(title=title, fontsize="small", title_fontsize="small")


def _draw_lagrange(axis: Any, runs: Sequence[Run]) -> None:
    for i, run in enumerate(runs):
        if run.lagrange is not None:
            _draw_curve(axis, run.lagrange, f"C{i}", None)
    axis.set_ylabel("λ")


def _draw_curve(axis: Any, curve: Curve, color: str, label: str | None) -> None:
    axis.plot(curve.steps, curve.mean(), color=color, label=label)
    axis.fill_between(curve.steps, *curve.interval(), color=color, alpha=0.2, linewidth=0)


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


def _mean_and_interval(values: np.ndarray) -> tuple[float, float, float]:
    return _mean(values), *bootstrap_interval(values[np.isfinite(values)])


def _interval_cell(values: np.ndarray) -> str:
    mean, low, high = _mean_and_interval(values)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]" if np.isfinite(values).sum() > 1 else _cell(mean)


def _cell(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "–"


def _row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
