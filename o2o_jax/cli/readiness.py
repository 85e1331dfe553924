"""The readiness report on paper: one page of text, a figure, and the numbers. Impure: reads and writes files."""

import csv
import dataclasses
import json
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from o2o_jax.cli.report import figure_class
from o2o_jax.data.dataset import Dataset
from o2o_jax.diagnosis import (
    ADVICE,
    CriticReport,
    Diagnosis,
    DiagnosisConfig,
    Regime,
    gap_interval,
    regime_of,
    returns_interval,
    trust,
)
from o2o_jax.runtime import log
from o2o_jax.runtime.checkpoint import read_config

WIDTH = 112  # of the page, in characters
CRITICS = {"offline": "offline", "reevaluated": "re-evaluated", "aligned": "aligned"}
COLORS = {"offline": "C3", "reevaluated": "C0", "aligned": "C2"}
# Where numbers become words; no source gives them. On Walker2d, medium, one seed, actors whose alignment was stopped at
# a share of 7 and 11 % scored as the offline policy did, those at 15 and 22 % fell behind it.
ALIGNED_SHARE = 0.1
LARGE_BIAS = 0.25  # of the re-evaluated critic's value, or of the recorded return
FAR_ACTION = 2.0  # times the distance of the data's own actions


@dataclasses.dataclass(frozen=True)
class Logged:
    """The offline run's last evaluation beside the dataset, in undiscounted raw returns.

    Attributes:
      policy: mean over seeds.
      data: mean over the dataset's episodes, as far as they were recorded.
      low: lower end of a 95 % band around their difference, as if the policy's returns scattered as the data's do.
      high: its upper end.
    """

    policy: float
    data: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Report:
    """Contents of the page.

    Attributes:
      title: which networks and what task.
      result: every number [S].
      seed_list: numbers of the S seeds.
      dataset: what the policy was trained on.
      heldout: the trajectories.
      seen: whether training has seen them.
      margin: share of the data's value up to which the policy is like it.
      deterministic: whether the policy has no density.
      logged: of `logged_gap`.
      notes: what else readers have to know.
    """

    title: str
    result: Diagnosis
    seed_list: range
    dataset: Dataset
    heldout: Dataset
    seen: bool
    margin: float
    deterministic: bool
    logged: Logged | None
    notes: tuple[str, ...]

    def regimes(self) -> list[Regime | None]:
        """Of each seed, by the re-evaluated critic: None where that diverged; empty without one."""
        value = self.result.value
        if value is None:
            return []
        ends = zip(*gap_interval(value), value.data, strict=True)
        return [regime_of(float(low), float(high), float(data), self.margin) for low, high, data in ends]

    def regime(self) -> Regime | None:
        """Of all seeds together: by the re-evaluated critics, else by the logged evaluation; None without either."""
        if self.result.value is not None:
            return regime_of(*self.band(), _mean(self.result.value.data), self.margin)
        return self.logged_regime()

    def logged_regime(self) -> Regime | None:
        """Returns the regime by the logged evaluation alone; None without one."""
        if self.logged is None:
            return None
        return regime_of(self.logged.low, self.logged.high, self.logged.data, self.margin)

    def band(self) -> tuple[float, float]:
        """Mean over seeds of both ends of `gap_interval`: seeds share the episodes, so that more don't narrow it."""
        assert self.result.value is not None
        low, high = gap_interval(self.result.value)
        return _mean(low), _mean(high)


def logged_gap(run: str | Path, dataset: Dataset) -> Logged | None:
    """The last evaluation that an offline run logged against its data's returns; None where it logged none."""
    try:
        columns, settings = log.read(run, "evaluation"), read_config(run)
    except FileNotFoundError:
        return None
    last = columns["return"][columns["step"] == columns["step"].max()]
    data, policy = dataset.returns(), float(np.mean(last))
    band = returns_interval(policy, settings["eval_episodes"] * len(last), data)
    return Logged(policy, float(np.mean(data)), *band)


def measures(result: Diagnosis) -> dict[str, np.ndarray]:
    """Every number of a diagnosis by its dotted name, [S] each; of distances and the like, which are many, the mean."""
    leaves = jax.tree_util.tree_leaves_with_path(result)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}
    return {name: leaf.reshape(len(leaf), -1).mean(axis=1) for name, leaf in named.items() if ".samples." not in name}


def write(report: Report, settings: Mapping[str, Any], out: Path) -> str:
    """Writes `diagnosis.txt`, `.png`, `.csv` and `.json` into a folder; returns the page."""
    text = page(report)
    (out / "diagnosis.txt").write_text(text, encoding="utf-8")
    draw(report, out / "diagnosis.png")
    numbers = measures(report.result)
    regimes = report.regimes()
    with (out / "diagnosis.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", *numbers, *(["regime"] if regimes else [])])
        for s, seed in enumerate(report.seed_list):
            writer.writerow([seed, *(column[s] for column in numbers.values()), *regimes[s : s + 1]])
    verdict = report.regime()
    record = {
        "settings": dict(settings),
        "title": report.title,
        "regime": verdict,
        "regimes": regimes,
        "logged": report.logged and {**dataclasses.asdict(report.logged), "regime": report.logged_regime()},
        "advice": verdict and dataclasses.asdict(ADVICE[verdict]),
        "expect": expectations(report),
        "notes": notes(report),
        # JSON has no NaN and no infinity
        "measures": {
            name: [x if np.isfinite(x) else None for x in column.tolist()] for name, column in numbers.items()
        },
    }
    (out / "diagnosis.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return text


def page(report: Report) -> str:
    """The report as plain text."""
    result, seeds = report.result, len(report.result.coverage.policy)
    lines = [f"READINESS  {report.title}", f"{seeds} seeds: mean [lowest, highest]" if seeds > 1 else "1 seed", ""]
    lines += [*_regime_lines(report), ""]

    lines.append(_row("EVALUATION MISMATCH", "Q(s, a)", "return", "bias", f"{'rms':>8}{'rank':>7}"))
    for name, critic in _critics(result):
        spread = f"{_mean(critic.error):8.3g}{_mean(critic.correlation):7.2f}"
        cells = [_cell(number) for number in (critic.value, critic.recorded, critic.bias)]
        lines.append(_row(f"  {CRITICS[name]}", *cells, spread))
    if result.shift is not None:
        lines.append(f"  offline less re-evaluated, at the policy's action: {_cell(result.shift)}")

    closeness = "−|a − ȧ|²" if report.deterministic else "log π"
    lines += ["", _row("IMPROVEMENT MISMATCH", "probes above ȧ", "by", f"rank of {closeness} with Q")]
    for name, critic in _critics(result):
        cells = [_percent(critic.overestimated), _cell(critic.gap), _cell(critic.alignment)]
        lines.append(_row(f"  {CRITICS[name]}", *cells))
    if result.alignment is not None:
        alignment = result.alignment
        lines += [
            f"  by the aligned actor's own probes {_percent(alignment.overestimated)}; it acts "
            f"{_mean(alignment.distance):.3g} (mse) from ȧ",
            "",
            "PROPOSITION 4.3, share of states",
            f"  V_fqe ≤ V_align {_percent(alignment.lower)}, V_align ≤ V_ȧ {_percent(alignment.upper)}, "
            f"both {_percent(alignment.both)}",
            f"  where violated by {_mean(alignment.lower_violation):.3g} and by "
            f"{_mean(alignment.upper_violation):.3g} on average; Q(s, ȧ) moved by {_cell(alignment.retained)}",
        ]
    lines += [
        "",
        "COVERAGE, distance per dimension to the nearest action in similar states",
        f"  of the policy's action {_cell(np.mean(result.coverage.policy, axis=1))}, of the data's own "
        f"{_cell(np.mean(result.coverage.data, axis=1))}",
        "",
        "EXPECT (this package's reading)",
        *_wrapped(expectations(report)),
        "",
        "NOTES",
        *_wrapped(notes(report)),
    ]
    return "\n".join(lines) + "\n"


def expectations(report: Report) -> list[str]:
    """Returns what the numbers say will happen online, a line each."""
    result, lines = report.result, []
    if (critic := result.offline) is not None:
        share, reasons = _mean(critic.overestimated), []
        if result.shift is not None and result.reevaluated is not None:
            off, other = _mean(result.shift) / abs(_mean(result.reevaluated.value)), "those of the re-evaluated critic"
        else:
            off, other = _mean(critic.bias) / abs(_mean(critic.recorded)), "the returns"
        if abs(off) > LARGE_BIAS:
            reasons.append(f"its values lie {abs(off):.0%} {'above' if off > 0 else 'below'} {other}")
        if share > ALIGNED_SHARE:
            reasons.append(f"it rates {share:.0%} of probes above the policy's own action")
        lines.append(
            f"fine-tuning the offline critic directly: a drop at first, since {' and '.join(reasons)}"
            if reasons
            else "fine-tuning the offline critic directly: no mismatch that foretells a drop"
        )
    if (critic := result.reevaluated) is not None:
        numbers = [_mean(getattr(critic, name)) for name in ("value", "recorded", "spread", "correlation")]
        if np.isfinite(numbers).all():
            trusted, verdict = trust(*numbers)
            lines.append(f"the re-evaluated critic {verdict}" + ("" if trusted else ": re-evaluate longer"))
    if (alignment := result.alignment) is not None:
        share = _mean(alignment.overestimated)
        lines.append(
            f"after alignment: {share:.0%} of its actor's probes are still overestimated: "
            + ("few enough to go online" if share <= ALIGNED_SHARE else "align longer, or set start.actor=offline")
        )
    ratio = _mean(result.coverage.policy) / max(_mean(result.coverage.data), 1e-9)
    lines.append(
        f"the policy's actions are {ratio:.1f} times as far from the dataset as its own are: "
        + ("re-evaluation extrapolates, trust values and regime less" if ratio > FAR_ACTION else "covered by the data")
    )
    return lines


def notes(report: Report) -> list[str]:
    """Returns what readers have to know of how the numbers came about, a line each."""
    config, heldout = DiagnosisConfig(), report.heldout
    where = "of the dataset itself: SEEN IN TRAINING" if report.seen else f"of {heldout.name}, not trained on"
    lines = [
        f"trajectories: {len(heldout.episode_ends)} episodes {where}",
        f"returns: discounted; a cut-off episode counts where what it lacks weighs γ^k ≤ {config.max_tail:g}; they are "
        "those of the policy that recorded the data, so that a better one is rightly worth more; critics with entropy "
        "in their values are compared with returns that are credited with it",
    ]
    critics = _critics(report.result)
    if critics and all(np.isnan(critic.recorded).all() for _, critic in critics):
        lines.append(
            "no recorded return counts: all episodes were cut off too early, so there is no evaluation mismatch"
        )
    if report.result.offline and report.result.reevaluated and report.result.shift is None:
        lines.append("offline and re-evaluated critic add up other rewards, or discount them otherwise: not compared")
    if report.result.value is not None:
        lines.append(
            "value at the start: the re-evaluated critic says what cut-off episodes lacked; an error that its two "
            "estimates share is not in the band, nor is what goes wrong later than about 1 / (1 − γ) steps"
        )
        if not report.deterministic:
            lines.append("the policy's value is that of its samples; evaluations are made with its mode")
    if report.result.alignment is not None and report.deterministic:
        lines.append(
            "Proposition 4.3 is proved for Eq. (12); here α = 0, and caps fall with the distance from ȧ too, Eq. (15), "
            "so that the lower bound need not hold"
        )
    return [*lines, *report.notes]


def draw(report: Report, path: Path) -> None:
    """Writes the figure: values against returns, probes against ȧ, coverage, policy against data."""
    figure = figure_class()(figsize=(10.0, 7.5), layout="constrained")
    (values, probes), (distances, gaps) = figure.subplots(2, 2)
    for name, critic in _critics(report.result):
        label, color, samples = CRITICS[name], COLORS[name], critic.samples
        values.scatter(samples.returns, samples.q, s=3, alpha=0.3, color=color, label=label, rasterized=True)
        share, excess = _mean(critic.overestimated), samples.excess[np.isfinite(samples.excess)]
        probes.hist(
            excess,
            bins=60,
            histtype="step",
            density=True,
            color=color,
            label=f"{label}: {share:.0%} > 0",
        )
    values.axline((0.0, 0.0), slope=1.0, color="black", linewidth=0.8)
    values.set(xlabel="discounted return", ylabel="Q(s, a)", title="Evaluation mismatch")
    probes.axvline(0.0, color="black", linewidth=0.8)
    probes.set(xlabel="Q(s, a) − Q(s, ȧ) of probes", ylabel="density", title="Improvement mismatch")
    for label, distance in (("policy", report.result.coverage.policy), ("data", report.result.coverage.data)):
        ordered = np.sort(distance.ravel())
        distances.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), label=label)
    distances.set(xlabel="distance to the nearest action of the data", ylabel="share of states", title="Coverage")
    _draw_gaps(report, gaps)
    for axis in (values, probes, distances, gaps):
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize="small")
    figure.suptitle(report.title)
    figure.savefig(path, dpi=150)


def _draw_gaps(report: Report, axis: Any) -> None:
    """The band of every seed around the policy's value less the data's, and the margin."""
    axis.set(title="Policy against data", xlabel="seed", ylabel="V(s_0) − return of the data")
    value = report.result.value
    if value is None:
        axis.text(0.5, 0.5, "no re-evaluated critic", ha="center", va="center", transform=axis.transAxes)
        return
    seeds, (low, high) = np.array(report.seed_list), gap_interval(value)
    finite = np.isfinite(low) & np.isfinite(high)
    axis.vlines(seeds[finite], low[finite], high[finite], color="C0", label="band")
    axis.scatter(seeds, value.gap, color="C0", marker="o", label="by values")
    axis.scatter(seeds, value.advantage, color="C1", marker="x", label="by advantages")
    margin = report.margin * abs(_mean(value.data))
    axis.axhspan(-margin, margin, color="black", alpha=0.1, label="margin")
    axis.set_xticks(seeds)


def _regime_lines(report: Report) -> list[str]:
    value, verdict, logged = report.result.value, report.regime(), report.logged
    words = {"better": "BETTER THAN ITS DATA", "like": "LIKE ITS DATA", "worse": "WORSE THAN ITS DATA"}
    lines = [
        f"REGIME  the policy is {words[verdict]}" if verdict else "REGIME  unknown: no re-evaluated critic, no score"
    ]
    if value is not None:
        low, high = report.band()
        margin = report.margin * abs(_mean(value.data))
        ends = {"worse": low < -margin, "better": high > margin}
        left_open = " and ".join(name for name, reached in ends.items() if reached)
        wide = f", which leaves {left_open} open" if verdict == "like" and left_open else ""
        counts = ", ".join(f"{name or 'diverged'} {count}" for name, count in Counter(report.regimes()).items())
        lines += [
            f"  value at the start {_cell(value.policy)}, of the data {_cell(value.data)}",
            f"  gap {_cell(value.gap)} by values, {_cell(value.advantage)} by advantages",
            f"  band {low:.4g} to {high:.4g}, margin ±{margin:.3g}{wide}; seeds: {counts}",
        ]
    if logged is not None:
        lines.append(
            f"  logged by the offline run, undiscounted: {logged.policy:.4g} against {logged.data:.4g} of the data, "
            f"band {logged.low:.4g} to {logged.high:.4g}: {report.logged_regime()}"
        )
    if verdict is None:
        return lines
    other = report.logged_regime()
    if other not in (None, verdict):
        disagreement = (
            "they disagree: the score saw whole episodes, values look about 1 / (1 − γ) steps ahead; if the policy is "
            f"{other}, other advice holds"
        )
        lines += _wrapped([disagreement])
    advice = ADVICE[verdict]
    return [
        *lines,
        f"ADVICE  keep {advice.keep}",
        f"  replay      {advice.replay}",
        f"  warm-up     {advice.warmup}",
        f"  constraint  {advice.constraint}",
        f"  {' '.join(f'--set={name}={value}' for name, value in advice.overrides.items())} (O2TD3, O2SAC, TD3, SAC)",
        "  What to keep is the principle of arXiv:2510.01460; which settings keep it is this package's inference.",
    ]


def _critics(result: Diagnosis) -> list[tuple[str, CriticReport]]:
    """The critics that there are, by field."""
    return [(name, getattr(result, name)) for name in CRITICS if getattr(result, name) is not None]


def _row(name: str, *cells: str) -> str:
    return f"{name:22}" + "".join(f" {cell:>23}" for cell in cells)


def _wrapped(paragraphs: list[str]) -> list[str]:
    """Paragraphs as lines, indented."""
    return [
        line
        for text in paragraphs
        for line in textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    ]


def _mean(values: Any) -> float:
    return float(np.mean(values))


def _cell(values: Any) -> str:
    """Mean over seeds, with their range where there are several."""
    mean = f"{_mean(values):.3g}"
    return f"{mean} [{np.min(values):.3g}, {np.max(values):.3g}]" if len(values) > 1 else mean


def _percent(values: Any) -> str:
    mean = f"{_mean(values):.1%}"
    return f"{mean} [{np.min(values):.0%}, {np.max(values):.0%}]" if len(values) > 1 else mean
