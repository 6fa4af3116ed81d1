"""Real sets under free, non-commercial and unclear terms: what the commercial and the research policy make of them.

    python benchmarks/licences.py --data FOLDER

The product is benchmarks/real/licences.yaml; FOLDER holds the files that it names. Runs raw -> contracted -> ledgered
under each policy, then each source that the commercial policy blocks by itself, and prints the terms that the card of a
model of the research data would show.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from data_contracts.errors import Refused
from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import Product, load_product
from pipelines.settings import Settings
from pipelines.stages.data import steps
from pipelines.stages.release.origins import learned_from, terms_of_the_data
from pipelines.wiring import Line

PRODUCT = Path(__file__).parent / "real" / "licences.yaml"


def ledgered(line: Line, product: Product) -> DatasetManifest:
    raw, _ = steps.raw(line, product)
    contracted, _ = steps.contracted(line, product, raw)
    return steps.ledgered(line, product, contracted)[0]


def decisions(manifest: DatasetManifest) -> dict[str, dict[str, Any]]:
    listed: Any = manifest.facts["decisions"]
    return {each["source"]: each for each in listed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    os.environ["ASSAY_DATA"] = str(parser.parse_args().data.resolve())
    product = load_product(str(PRODUCT))
    with tempfile.TemporaryDirectory() as home:
        line = Line(Settings(home=Path(home)))
        made = {
            policy: ledgered(line, product.model_copy(update={"data_policy": policy}))
            for policy in ("commercial", "research")
        }
        judged = {policy: decisions(manifest) for policy, manifest in made.items()}
        print("| source | licence | rows | commercial | research |\n|---|---|---|---|---|")
        for source in (each.url for each in product.sources):
            sold, studied = judged["commercial"][source], judged["research"][source]
            told = f"{sold['verdict']}: {sold['reason']}" if sold["reason"] else sold["verdict"]
            name = source.removeprefix("${ASSAY_DATA}/")
            print(f"| {name} | {sold['licence']} | {sold['rows']} | {told} | {studied['verdict']} |")
        for policy, manifest in made.items():
            print(f"{policy}: {manifest.counts.rows_in} in, {manifest.counts.rows_out} out, {manifest.counts.dropped}")
        for each in product.sources:
            if judged["commercial"][each.url]["verdict"] == "block":
                try:
                    ledgered(line, product.model_copy(update={"sources": (each,)}))
                    print(f"NOT REFUSED: {each.url}")
                except Refused as error:
                    print(f"refused: {error}")
        print(terms_of_the_data(learned_from(line.store, made["research"])))


if __name__ == "__main__":
    main()
