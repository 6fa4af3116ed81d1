"""Hyperparameter search over the product's recipe. Beside the line: nothing there waits for it."""

from base64 import b64encode
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.groups import asset_in
from assets.outcome import materialized, table
from data_contracts.manifests import BaseManifest, DatasetManifest
from data_contracts.searches import SearchManifest
from evals import search_plots
from pipelines.recipes.search import load_search
from pipelines.stages.train.search import search
from pipelines.wiring import Line
from resources.dagster import PipesLauncher

search_asset = asset_in("search", "pipelines/stages/train", "pipelines/recipes", "data_contracts")


class SearchConfig(dg.Config):
    search: str = Field(default="", description="A search file, by name or path. Empty: the one of the product's name.")
    out: str = Field(default="", description="Where to write the best trial's recipe file; empty: only in the store.")


@search_asset(
    ins={"base": dg.AssetIn(key_prefix="model"), "splits": dg.AssetIn(key_prefix="data")},
    kinds={"optuna", "trl"},
    pool="gpu",
)
def recipe(
    context: dg.AssetExecutionContext,
    line: dg.ResourceParam[Line],
    base: BaseManifest,
    splits: DatasetManifest,
    config: SearchConfig,
) -> dg.MaterializeResult[SearchManifest]:
    """The best recipe that a search over the values of its search file finds, each trial a training run (Optuna)."""
    product = line.product(context.partition_key)
    wanted = load_search(config.search or product.name)
    launcher = PipesLauncher(context, line.launcher)
    made = search(line, product, wanted, base, splits, launcher, context.log.info)
    found = made[0]
    text = line.store.get_bytes(found.best_recipe)
    if config.out:
        Path(config.out).write_bytes(text)
    context.log.info(f"best: trial {found.best}, validation loss {found.winner.validation_loss:.4f}: {_values(found)}")
    return materialized(
        made,
        {
            "best": _values(found),
            "validation_loss": found.winner.validation_loss or 0.0,
            "device_hours": found.device_hours,
            "ended": found.ended,
            "history": _picture(found),
            "importance": table(("key", "share"), [(key, f"{share:.3f}") for key, share in found.importance.items()]),
            "trials": _trials(found),
            "recipe": dg.MetadataValue.md(f"```yaml\n{text.decode()}```"),
        },
    )


def _values(found: SearchManifest) -> str:
    return ", ".join(f"{key} {value}" for key, value in found.winner.parameters.items())


def _picture(found: SearchManifest) -> dg.MarkdownMetadataValue:
    losses = [(trial.number, trial.validation_loss) for trial in found.trials]
    picture = b64encode(search_plots.history(losses, found.importance).png()).decode()
    return dg.MetadataValue.md(f"![validation loss by trial](data:image/png;base64,{picture})")


def _trials(found: SearchManifest) -> dg.MarkdownMetadataValue:
    rows = [
        (
            trial.number,
            trial.state,
            "" if trial.validation_loss is None else f"{trial.validation_loss:.4f}",
            f"{trial.seconds:.0f}",
            ", ".join(f"{key} {value}" for key, value in trial.parameters.items()),
            trial.reason,
        )
        for trial in found.trials
    ]
    return table(("trial", "state", "validation loss", "seconds", "parameters", "reason"), rows)
