"""Every command in the README and in docs/ is one that exists, with the options that it is shown with."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from pipelines.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?P<line>(?:assay|make) .*)$")


def commands() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for page in PAGES:
        inside = False
        for line in page.read_text().splitlines():
            if line.startswith("```"):
                inside = not inside
            elif inside and (match := COMMAND.match(line.strip())):
                found.append((page.name, match["line"]))
    return found


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize(("page", "line"), commands())
def test_the_command_can_be_given_as_it_stands(page: str, line: str, tmp_path: Path) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, f"{page}: no target {words[1]} in the Makefile"
        return
    words = words[: words.index(">>")] if ">>" in words else words
    command: Any = typer.main.get_command(app)
    words = words[1:]
    while hasattr(command, "commands") and not (command.invoke_without_command and words[0].startswith("-")):
        assert words[0] in command.commands, f"{page}: there is no `{line}`"
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, words)


def test_every_command_has_an_example_in_its_help() -> None:
    waiting: list[Any] = [typer.main.get_command(app)]
    leaves: list[Any] = []
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        if getattr(command, "invoke_without_command", True):  # a group that does nothing by itself is none
            leaves.append(command)
    assert [leaf.name for leaf in leaves if "Example: " not in (leaf.help or "")] == []
    assert len(leaves) > 10
