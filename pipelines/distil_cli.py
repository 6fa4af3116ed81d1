"""``assay distil ...``: a student from a teacher, and what that pays."""

import typer

app = typer.Typer(no_args_is_help=True, help="A smaller model from a larger one, and what that pays.")
