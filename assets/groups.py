"""What assets of one group share: key prefix, partition, code version.

One partition a product: a new YAML in the products folder is a new partition after the code location reloads.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from data_contracts.digests import Digest, hex_of, sha256_file, sha256_json
from pipelines.recipes.product import product_names
from pipelines.settings import Settings

ROOT = Path(__file__).parents[1]
PRODUCTS = dg.StaticPartitionsDefinition(product_names(Settings().products))

AssetDecorator = Callable[..., Callable[[Callable[..., Any]], dg.AssetsDefinition]]


def asset_in(group: str, *code_folders: str) -> AssetDecorator:
    """``@dg.asset`` for a group whose work is done by the code in these folders."""
    return partial(
        dg.asset,
        key_prefix=group,
        group_name=group,
        partitions_def=PRODUCTS,
        code_version=code_version(*code_folders),
    )


def code_version(*folders: str) -> str:
    """A change of any source in these folders marks the group's assets as out of date."""
    sources: dict[str, Digest] = {
        path.relative_to(ROOT).as_posix(): sha256_file(path)
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    return hex_of(sha256_json(sources))[:16]
