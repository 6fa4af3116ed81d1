"""``assay search``: hyperparameters of a product's recipe."""

import json
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import BadInput
from pipelines.launch import materialize
from pipelines.recipes.search import load_search
from pipelines.terminal import ProductName, console
from pipelines.wiring import Line

app = typer.Typer()


@app.command()
def search(
    product: ProductName,
    out: Annotated[Path, typer.Option(help="Where to write the recipe of the best trial.")],
    file: Annotated[
        str, typer.Option("--search", help="A search file, by name or path; without it the one of the product's name.")
    ] = "",
) -> None:
    """Train with values drawn from a search file, end hopeless trials early, and write the best one's recipe.

    Run again after Ctrl-C or a kill, it goes on where it was. Each trial's numbers are in Dagster's metadata of
    search/recipe.

    Example: assay search billing-assistant --out best.yaml
    """
    line = Line()
    line.product(product)
    load_search(file or product)
    if not out.parent.is_dir():
        raise BadInput(f"{out}: the folder {out.parent} does not exist; make it first")
    named = str(Path(file).resolve()) if file.endswith((".yaml", ".yml")) else file
    config = {"ops": {"search__recipe": {"config": {"search": named, "out": str(out.resolve())}}}}
    selection = "key:data* or key:model/base or key:search/recipe"
    materialize(selection, product, line.home, lambda told: console.print(told), json.dumps(config))
    console.print(f"the best trial's recipe is {out}")
