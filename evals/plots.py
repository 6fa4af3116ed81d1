"""Figures of reports and cards: the gate as a forest plot, curves, counts. Drawn without a display, reproducibly."""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from data_contracts.verdicts import CriterionResult

COLOURS = {"pass": "#1a7f37", "fail": "#cf222e", "inconclusive": "#9a6700"}
_MARKS = {"pass": "o", "fail": "X", "inconclusive": "D"}


class Figure:
    """One drawn figure, in the format that a page needs."""

    def __init__(self, figure: Any) -> None:
        self.figure = figure

    def svg(self, title: str, description: str = "") -> str:
        """As one image for those who have it read to them. Its ids begin with the title, so that a page may hold
        several."""
        name = re.sub(r"[^a-z0-9]+", "-", title.lower())
        text = self._bytes("svg", metadata={"Date": None}).decode()
        text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text[text.index("<svg") :])
        told = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
        named = f'<svg role="img" aria-labelledby="{name}-title" aria-describedby="{name}-desc"'
        head, rest = text.removeprefix("<svg").split(">", 1)
        return f"{named}{head}>{told}{rest}"

    def png(self) -> bytes:
        return self._bytes("png", dpi=90, metadata={"Software": None})

    def _bytes(self, kind: str, **options: Any) -> bytes:
        import matplotlib

        target = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "assay", "svg.fonttype": "none", "font.family": "sans-serif"}):
            self.figure.savefig(target, format=kind, bbox_inches="tight", **options)
        return target.getvalue()


def forest(criteria: Sequence[CriterionResult]) -> Figure:
    """Each criterion's effect with its interval, and the bound (a tick) that the whole interval must lie above. Narrow,
    with the names above the intervals, so that it can be read on a phone."""
    axes = _axes(4.2, 0.8 + 0.6 * len(criteria))
    for row, criterion in enumerate(reversed(criteria)):
        colour = COLOURS[criterion.outcome]
        axes.plot([criterion.ci_low, criterion.ci_high], [row, row], color=colour, linewidth=2.5)
        axes.plot(criterion.effect, row, _MARKS[criterion.outcome], color=colour, markersize=8)
        axes.plot([bound_of(criterion)] * 2, [row - 0.22, row + 0.22], color="#57606a", linewidth=2)
        label = f"{criterion.name}: {criterion.outcome}".replace("$", r"\$")
        axes.text(0, row + 0.3, label, transform=axes.get_yaxis_transform(), fontsize=10)
    axes.axvline(0, color="#d0d7de", linewidth=1, zorder=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.5, len(criteria) - 0.2)
    axes.set_xlabel("effect; it must lie right of the grey tick")
    return Figure(axes.figure)


def in_words(criteria: Sequence[CriterionResult]) -> str:
    """The forest plot in words."""
    lines = [
        f"{c.name}: {c.effect:+.3f}, from {c.ci_low:+.3f} to {c.ci_high:+.3f}, bound {bound_of(c):+.3f}, {c.outcome}"
        for c in criteria
    ]
    return "; ".join(lines) + "."


_PANELS = {
    "loss": (("loss", "#0969da"), ("validation_loss", "#bf3989")),
    "gradient norm": (("grad_norm", "#0969da"),),
    "learning rate": (("learning_rate", "#0969da"),),
    "tokens/s": (("tokens_per_second", "#0969da"),),
}


def curves(stages: Mapping[str, Sequence[Mapping[str, float | None]]]) -> Figure:
    """A run over its steps: a row for each training stage, a panel for loss and validation loss, one each for gradient
    norm, learning rate and speed where they were measured. Rows: {step, loss, ...}, values may miss. A bar at a
    validation loss is the standard error of its difference to the least one, where rows were evaluated one by one."""
    from matplotlib.figure import Figure as Canvas

    panels = {title: fields for title, fields in _PANELS.items() if any(_has(rows, title) for rows in stages.values())}
    panels = {"loss": _PANELS["loss"]} | panels
    canvas = Canvas(figsize=(3.2 * len(panels), 2.4 * len(stages)), layout="constrained")
    for down, (stage, rows) in enumerate(stages.items()):
        for across, (title, fields) in enumerate(panels.items(), start=1):
            axes = canvas.add_subplot(len(stages), len(panels), down * len(panels) + across)
            _panel(axes, rows, fields)
            axes.set_title(f"{stage}: {title}", fontsize=9)
    return Figure(canvas)


def panels(stage: str, rows: Sequence[Mapping[str, float | None]]) -> dict[str, str]:
    """The same of one training stage, each panel a drawing (SVG) of its own: title -> drawing."""
    drawn: dict[str, str] = {}
    for title, fields in _PANELS.items():
        if _has(rows, title):
            axes = _axes(3.6, 2.4)
            _panel(axes, rows, fields)
            courses = [_course(rows, field) for field, _ in fields]
            drawn[f"{stage}: {title}"] = Figure(axes.figure).svg(f"{stage}: {title}", " ".join(filter(None, courses)))
    return drawn


def _panel(axes: Any, rows: Sequence[Mapping[str, float | None]], fields: Sequence[tuple[str, str]]) -> None:
    for field, colour in fields:
        _drawn(axes, rows, field, colour)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=7)
    if len(fields) > 1 and axes.lines:
        axes.legend(frameon=False, fontsize=7)
    _plain(axes)


def _has(rows: Sequence[Mapping[str, float | None]], title: str) -> bool:
    return any(row.get(name) is not None for row in rows for name, _ in _PANELS[title])


def _course(rows: Sequence[Mapping[str, float | None]], field: str) -> str:
    """Where a line begins and ends, in words."""
    points = [(row["step"], value) for row in rows if (value := row.get(field)) is not None]
    if not points:
        return ""
    (first, before), (last, after) = points[0], points[-1]
    return f"{field.replace('_', ' ')}: {before:.4g} at step {first:.0f}, {after:.4g} at step {last:.0f}."


def _drawn(axes: Any, rows: Sequence[Mapping[str, float | None]], field: str, colour: str) -> None:
    points = [
        (row["step"], value, row.get("validation_error")) for row in rows if (value := row.get(field)) is not None
    ]
    if points:
        steps, values, errors = zip(*points, strict=True)
        axes.plot(steps, values, color=colour, marker=".", label=field.replace("_", " "))
        if field == "validation_loss" and any(errors):
            lengths = [error or 0.0 for error in errors]
            axes.errorbar(steps, values, yerr=lengths, fmt="none", ecolor=colour, capsize=3)


def histogram(values: Sequence[int], label: str) -> Figure:
    """How many values fall into each of 30 equal ranges."""
    axes = _axes(6.4, 2.4)
    axes.hist(values, bins=30, color="#0969da")
    axes.set_xlabel(label)
    axes.set_ylabel("rows")
    return Figure(axes.figure)


def bars(counts: Mapping[str, int], label: str) -> Figure:
    """A bar for each name, the first at the top."""
    axes = _axes(6.4, 0.8 + 0.22 * len(counts))
    names = [name.replace("$", r"\$") for name in list(counts)[::-1]]  # no formulas
    axes.barh(range(len(counts)), list(counts.values())[::-1], color="#0969da")
    axes.set_yticks(range(len(counts)), names, fontsize=8)
    axes.set_xlabel(label)
    return Figure(axes.figure)


class Course(NamedTuple):
    """A meter over its windows: values with their numbers, those that are ``over``, and what they are held against."""

    title: str
    numbers: Sequence[int]
    values: Sequence[float]
    over: Sequence[bool]
    reference: float | None
    lasts: bool


def courses(meters: Sequence[Course], across: int = 3) -> Figure:
    """A panel for each meter: its values by window, the reference dashed, windows over the threshold as crosses."""
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    down = -(-len(meters) // across)
    canvas = Canvas(figsize=(3.2 * across, 1.9 * max(1, down)), layout="constrained")
    for place, each in enumerate(meters, start=1):
        axes = canvas.add_subplot(max(1, down), across, place)
        axes.plot(each.numbers, each.values, color="#0969da", linewidth=1.2, marker=".", markersize=4)
        points = [
            (number, value) for number, value, over in zip(each.numbers, each.values, each.over, strict=True) if over
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "X", color=COLOURS["fail"], markersize=6)
        if each.reference is not None:
            axes.axhline(each.reference, color="#57606a", linewidth=1, linestyle="--")
        axes.set_title(
            f"{each.title}: drifted" if each.lasts else each.title,
            fontsize=9,
            color=COLOURS["fail"] if each.lasts else "black",
        )
        axes.margins(y=0.2)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    return Figure(canvas)


def bound_of(criterion: CriterionResult) -> float:
    """What the criterion's interval must lie above."""
    above_noise = max(criterion.margin, criterion.noise or 0.0)
    return {"superiority": above_noise, "non-inferiority": -criterion.margin}.get(criterion.kind, 0.0)


def _axes(width: float, height: float) -> Any:
    from matplotlib.figure import Figure as Canvas

    axes = Canvas(figsize=(width, height)).add_subplot()
    _plain(axes)
    return axes


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
