"""What the commands share: options that several take, and how they print."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console

console = Console(highlight=False, soft_wrap=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ProductName = Annotated[str, typer.Argument(help="A product: the name of a file in pipelines/products.")]


def show(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
