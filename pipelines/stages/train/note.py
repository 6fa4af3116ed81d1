"""The recipe travels with every checkpoint that a run writes: resolved, with its digest, under the same seal."""

from data_contracts.digests import canonical_json
from pipelines.recipes.recipe import Recipe

RECIPE = "recipe.json"


def noted(recipe: Recipe) -> bytes:
    return canonical_json({"digest": recipe.digest, "recipe": recipe.payload()})
