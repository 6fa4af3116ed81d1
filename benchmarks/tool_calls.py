"""Does our check of tool calls agree with the leaderboard's own (BFCL)? Predictions are made from the possible answers
of each row by rule, right ones and wrong ones of every kind; counts only, no text.

    python benchmarks/tool_calls.py --data FOLDER [--bfcl PACKAGES]

FOLDER holds ``bfcl_*.jsonl`` with the fields question, function, category, possible_answer. With ``--bfcl`` the
published checker judges the same predictions: ``pip install --no-deps --target PACKAGES bfcl-eval``. Its list of model
clients, which imports some thirty packages, is replaced by one entry; the checker itself is used as it is.
"""

import argparse
import copy
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from evals.grounding import grounded
from evals.tool_calls import Call, Function, fault

Calls = list[Call]
ODD = [
    "",
    "x",
    "None",
    0,
    1,
    -3,
    2.0,
    2.5,
    True,
    False,
    None,
    [],
    {},
    [1],
    ["a"],
    [1.5, 2],
    [[1]],
    {"a": 1},
    [{"a": 1}],
    (1, 2),
]
"""Values that are put in place of an argument: what a rule that was overlooked would stumble over."""


class Row(NamedTuple):
    id: str
    category: str
    said: str
    functions: list[dict[str, Any]]
    expected: list[dict[str, dict[str, list[Any]]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--bfcl", type=Path, metavar="PACKAGES")
    chosen = parser.parse_args()
    published = published_checker(chosen.bfcl) if chosen.bfcl else None
    paths = sorted(chosen.data.glob("bfcl_*.jsonl"))
    if not paths:
        sys.exit(f"{chosen.data} holds no bfcl_*.jsonl: name the folder in which they lie")
    for path in paths:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if "function" in rows[0] and "possible_answer" in rows[0]:
            read = [Row(r["id"], r["category"], said(r), r["function"], r["possible_answer"]) for r in rows]
            report(path.name, read, published)
            report_grounds(read)


def said(row: dict[str, Any]) -> str:
    return "\n".join(message["content"] for turn in row["question"] for message in turn)


def report_grounds(rows: list[Row]) -> None:
    """How often `grounded` holds of an accepted argument, and of another row's argument of the same type."""
    given: list[tuple[Row, dict[str, Any], str, Any, list[Any]]] = []
    for row in rows:
        declared = {each["name"]: each["parameters"]["properties"] for each in row.functions}
        for name, accepted in (pair for each in row.expected for pair in each.items()):
            given += [
                (row, declared[name].get(key, {}), key, value, accepted[key]) for key, value in chosen(accepted).items()
            ]
    chance, own, foreign = random.Random(1), list[bool](), list[bool]()
    for row, schema, key, value, accepted in given:
        own.append(grounded({key: value}, {key: schema}, row.said))
        others = (
            each[3]
            for each in chance.sample(given, min(200, len(given)))
            if type(each[3]) is type(value) and each[0].said != row.said and each[3] not in accepted
        )
        other = None if isinstance(value, bool) else next(others, None)
        if other is not None:
            foreign.append(grounded({key: other}, {key: schema}, row.said))
    print(
        f"  grounded: {sum(own) / len(own):.3f} of {len(own)} accepted arguments, "
        f"{sum(foreign) / len(foreign):.3f} of {len(foreign)} foreign ones"
    )


def report(name: str, rows: list[Row], published: Callable[[Row, Calls], bool] | None) -> None:
    """One line a kind: predictions, how many ours accepts, and how often both say the same."""
    made: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        functions = [Function.model_validate(each) for each in row.functions]
        for kind, calls in predictions(row):
            ours = fault(functions, calls, row.expected) is None
            made[kind].update(n=1, accepted=ours)
            if published:
                made[kind].update(agreed=ours == published(row, calls))
    print(f"{name}: {len(rows)} rows")
    for kind, count in [*made.items(), ("all", sum(made.values(), Counter[str]()))]:
        line = f"  {kind:<34} {count['n']:>6}  accepted {count['accepted']:>6}"
        print(line + (f"  agreed {count['agreed']:>6}" if published else ""))


def predictions(row: Row) -> Iterator[tuple[str, Calls]]:
    """Kind and calls. A kind that a row has nothing for is left out."""
    right = [Call(name, chosen(accepted)) for each in row.expected for name, accepted in each.items()]
    declared = {each["name"]: each["parameters"] for each in row.functions}
    yield "right: as accepted", right
    if len(right) > 1:
        yield "right: calls in another order", right[::-1]
        yield "wrong: one call twice", [*right[:-1], right[0]]
    yield "wrong: no call", []
    yield "wrong: a call too many", [*right, right[0]]
    yield "wrong: another name", [right[0]._replace(name=f"{right[0].name}_x"), *right[1:]]
    chance = random.Random(row.id)
    for number, (call, each) in enumerate(zip(right, row.expected, strict=True)):
        [accepted] = each.values()
        parameters = declared[call.name]

        def changed(arguments: dict[str, Any], number: int = number, call: Call = call) -> Calls:
            return [*right[:number], call._replace(arguments=arguments), *right[number + 1 :]]

        required = set(parameters.get("required", ()))
        yield (
            "right: optional left out",
            changed({k: v for k, v in call.arguments.items() if "" not in accepted[k] or k in required}),
        )
        yield "wrong: an argument too many", changed({**call.arguments, "zz_extra": 1})
        for name in call.arguments:
            rest = {k: v for k, v in call.arguments.items() if k != name}
            yield "wrong: required left out" if name in required else "either: one left out", changed(rest)
            for other in accepted[name][1:]:
                if other != "":
                    yield "right: another accepted value", changed({**rest, name: written(other)})
            declared_type = parameters["properties"].get(name, {}).get("type", "")
            for kind, value in values(declared_type, call.arguments[name], chance):
                yield kind, changed({**rest, name: value})


def values(declared: str, value: Any, chance: random.Random) -> Iterator[tuple[str, Any]]:
    """Other values for one argument, each with its kind."""
    if isinstance(value, str):
        yield "right: case and signs", value.swapcase().replace(" ", "-") + "."
        yield "wrong: another text", value + " indeed"
    if type(value) is float and value.is_integer():
        yield "right: int for float", int(value)
    if type(value) is int:
        yield "wrong: float for int" if declared == "integer" else "either: float for int", float(value)
        yield "wrong: another number", value + 1
        yield "wrong: text for a number", str(value)
    if type(value) is bool:
        yield "wrong: the other truth", not value
        yield "wrong: text for a truth", str(value)
    if isinstance(value, list):
        yield "either: list turned round", value[::-1]
        yield "either: tuple for list", tuple(value)
        yield "wrong: a part too many", [*value, *(value[:1] or ["x"])]
        if value:
            yield "wrong: a part of another type", [*value[:-1], None]
            yield "either: parts as texts", [str(each) for each in value]
            yield "either: parts as floats", [float(each) if type(each) is int else each for each in value]
    for inner in (
        [value]
        if isinstance(value, dict)
        else [e for e in value if isinstance(e, dict)]
        if isinstance(value, list)
        else []
    ):
        for key in inner:
            for kind, new in (
                ("wrong: nested key too many", {**inner, "zz": 1}),
                ("either: nested key left out", {k: v for k, v in inner.items() if k != key}),
                ("wrong: nested value", {**inner, key: "zz-no"}),
            ):
                yield kind, new if isinstance(value, dict) else [new if e is inner else e for e in value]
    for odd in chance.sample(ODD, 6):
        yield "either: an odd value", copy.deepcopy(odd)


def chosen(accepted: dict[str, list[Any]]) -> dict[str, Any]:
    """The first accepted value of each argument; one that may only be left out is left out."""
    firsts = {name: [each for each in values if each != ""][:1] for name, values in accepted.items()}
    return {name: written(first[0]) for name, first in firsts.items() if first}


def written(value: Any) -> Any:
    """An accepted value as a model would write it: of an accepted object, the first accepted value of each key."""
    if isinstance(value, dict):
        return {
            k: written(next(e for e in v if e != "")) if isinstance(v, list) else v
            for k, v in value.items()
            if v not in ([""], [])
        }
    return [written(each) if isinstance(each, dict) else each for each in value] if isinstance(value, list) else value


def published_checker(packages: Path) -> Callable[[Row, Calls], bool]:
    clients = ModuleType("bfcl_eval.constants.model_config")
    clients.MODEL_CONFIG_MAPPING = {"any": SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    sys.modules["tree_sitter"] = sys.modules["tree_sitter_javascript"] = ModuleType("absent")
    sys.path.append(str(packages))
    sys.modules[clients.__name__] = clients
    from bfcl_eval.constants.enums import Language  # type: ignore[import-not-found]
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker  # type: ignore[import-not-found]

    def accepts(row: Row, calls: Calls) -> bool:
        """An exception of the checker counts as a refusal of the prediction."""
        written = [{call.name: copy.deepcopy(call.arguments)} for call in calls]
        try:
            found = ast_checker(row.functions, written, row.expected, Language.PYTHON, row.category, "any")
        except (AttributeError, KeyError, TypeError, IndexError):
            return False
        return bool(found["valid"])

    return accepts


if __name__ == "__main__":
    main()
