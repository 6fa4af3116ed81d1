"""Small pictures for the run's page, inline in Markdown."""

import base64
from collections.abc import Sequence
from io import BytesIO

import dagster as dg

from pipelines.stages.train.job import CurvePoint


def loss_curve(points: Sequence[CurvePoint]) -> dg.MarkdownMetadataValue:
    """Training and validation loss by step, as a PNG of some 15 kB."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.4), dpi=80, layout="tight")
    axes = figure.subplots()
    training = [(point.step, point.loss) for point in points if point.loss is not None]
    validation = [(point.step, point.validation_loss) for point in points if point.validation_loss is not None]
    for series, label, marker in ((training, "training", ""), (validation, "validation", "o")):
        axes.plot([step for step, _ in series], [loss for _, loss in series], marker=marker, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend()
    png = BytesIO()
    figure.savefig(png, format="png")
    return dg.MetadataValue.md(f"![loss by step](data:image/png;base64,{base64.b64encode(png.getvalue()).decode()})")
