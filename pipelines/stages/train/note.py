"""The recipe travels with every checkpoint that a run writes: resolved, with its digest, under the same seal."""

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pipelines.recipes.recipe import Recipe

RECIPE = "recipe.json"


def note_recipe(recipe: Recipe, folder: Path) -> None:
    body = {"digest": recipe.digest, "recipe": recipe.payload()}
    (folder / RECIPE).write_text(json.dumps(body, indent=2, sort_keys=True) + "\n")


class Note(TrainerCallback):  # type: ignore[misc]  # transformers ships no types; its callbacks are subclasses
    """Writes it into the trainer's own checkpoints, before they are sealed."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        note_recipe(self.recipe, Path(args.output_dir) / f"checkpoint-{state.global_step}")
