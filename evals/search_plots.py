"""The figure of a hyperparameter search."""

from collections.abc import Mapping, Sequence

from evals.plots import Figure


def history(trials: Sequence[tuple[int, float | None]], importance: Mapping[str, float]) -> Figure:
    """Left: (number, validation loss) of each trial with the best so far; one without a loss, which did not run to its
    end, is a cross at the foot. Right, where anything is known of it: the importance of each key."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(6.4, 2.6), layout="constrained")
    axes = canvas.add_subplot(1, 2 if importance else 1, 1)
    complete = [(number, loss) for number, loss in trials if loss is not None]
    numbers, losses = [number for number, _ in complete], [loss for _, loss in complete]
    axes.plot(numbers, losses, "o", color="#0969da", label="trial")
    axes.step(numbers, [min(losses[: n + 1]) for n in range(len(losses))], where="post", color="#bf3989", label="best")
    ended = [number for number, loss in trials if loss is None]
    axes.plot(ended, [min(losses)] * len(ended), "x", color="#57606a", label="did not end")
    axes.set_xlabel("trial")
    axes.set_ylabel("validation loss")
    axes.legend(frameon=False, fontsize=8)
    if importance:
        bars = canvas.add_subplot(1, 2, 2)
        bars.barh(range(len(importance)), list(importance.values())[::-1], color="#0969da")
        bars.set_yticks(range(len(importance)), list(importance)[::-1], fontsize=8)
        bars.set_xlabel("share of the variance")
    return Figure(canvas)
