"""``assay recipe ...``: what a recipe says once all is resolved, how two differ, and whether files are right."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from data_contracts.errors import BadInput
from pipelines.recipes.recipe import Recipe, load_recipe, read_recipe
from pipelines.stages.train.hardware import computes_bf16
from pipelines.terminal import JsonFlag, console, show

app = typer.Typer(no_args_is_help=True, help="Recipes: how models are trained.")

RecipeName = Annotated[str, typer.Argument(help="A recipe: the name of a file in pipelines/recipes, or a path.")]


@app.command("show")
def show_recipe(name: RecipeName, as_json: JsonFlag = False) -> None:
    """Print a recipe with every key and with this machine's precision, and the digest that names it.

    Example: assay recipe show billing-assistant --json
    """
    recipe = _resolved(name)
    if as_json:
        show({"digest": recipe.digest, "recipe": recipe.payload()})
        return
    print(f"# {recipe.digest}")
    print(yaml.safe_dump(recipe.payload(), sort_keys=False, default_flow_style=None, width=120), end="")


@app.command()
def diff(one: RecipeName, other: RecipeName, as_json: JsonFlag = False) -> None:
    """Print the keys in which two recipes differ, with both values.

    Example: assay recipe diff billing-assistant billing-assistant-gpu
    """
    left, right = (_flat(_resolved(name).payload()) for name in (one, other))
    keys = [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]
    if as_json:
        show({key: [left.get(key), right.get(key)] for key in keys})
        return
    for key in keys:
        print(f"{key}: {_said(left, key)} -> {_said(right, key)}")
    if not keys:
        print("the same")


@app.command()
def check(files: Annotated[list[Path], typer.Argument(help="Recipe files.")]) -> None:
    """Hold recipe files to the schema. Each mistake is a line with file, key and remedy; exit code 2 when there is one.

    Example: assay recipe check pipelines/recipes/billing-assistant.yaml
    """
    wrong = False
    for path in files:
        try:
            found = read_recipe(path)
        except BadInput as error:
            wrong = True
            print(error)
            continue
        if isinstance(found, Recipe):
            console.print(f"{path}: right{_notes(found)}")
        else:
            wrong = True
            print("\n".join(f"{path}: {problem}" for problem in found))
    if wrong:
        raise typer.Exit(2)


def _resolved(name: str) -> Recipe:
    return load_recipe(name).resolved(computes_bf16())


def _notes(recipe: Recipe) -> str:
    if recipe.method in ("full", "dora"):
        return f"; {recipe.method} weights need a server of their own: this gateway serves plain LoRA adapters only"
    return "; the reward model is kept and never served: the SFT weights are" if recipe.reward is not None else ""


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted key -> value; a list is one value."""
    if not isinstance(value, dict):
        return {key: value}
    return {name: found for part in value for name, found in _flat(value[part], f"{key}.{part}".lstrip(".")).items()}


def _said(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "(no such section)"
