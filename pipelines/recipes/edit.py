"""Change single values of a YAML text and leave all else, comments too, as a person wrote it."""

from collections.abc import Mapping

import yaml

from data_contracts.errors import BadInput

Scalar = bool | int | float | str


def with_values(text: str, values: Mapping[str, Scalar]) -> str:
    """``text`` with the value of each dotted key (``sft.learning_rate``) replaced.

    Raises `BadInput` that names a key which is not in the text, or whose value is a list or a section.
    """
    for key, value in values.items():
        place = _place(text, key)
        text = text[: place.start_mark.index] + _written(value) + text[place.end_mark.index :]
    return text


def _place(text: str, key: str) -> yaml.ScalarNode:
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for name in key.split("."):
        found = {each.value: below for each, below in node.value} if isinstance(node, yaml.MappingNode) else {}
        if name not in found:
            raise BadInput(f"{key}: the recipe's file has no such key; write it there first")
        node = found[name]
    if not isinstance(node, yaml.ScalarNode):
        raise BadInput(f"{key}: is a list or a section; name a single value")
    return node


def _written(value: Scalar) -> str:
    return yaml.safe_dump(value).splitlines()[0]
