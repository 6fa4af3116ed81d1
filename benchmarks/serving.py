"""What benchmarks of serving share: an installation with real vLLM and the real gateway, and its releases."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml

from data_contracts.digests import Digest
from data_contracts.manifests import BaseManifest
from pipelines.recipes.product import Product
from pipelines.settings import Settings
from pipelines.stages.serve.routes import read_routes
from pipelines.stages.serve.tenants import create_key
from pipelines.stages.train import steps
from pipelines.wiring import Line
from tests.support.adapters import write_adapter
from tests.support.installation import settings_in
from tests.support.serving import chain, registered, tiny_product

RANK = 16


class Offered(NamedTuple):
    """A product, its releases (the first is live) and the header that its tenant asks with."""

    product: Product
    releases: list[Digest]
    weights: list[Digest]
    key: dict[str, str]


class Installed(NamedTuple):
    line: Line
    base: BaseManifest
    folder: Path

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.line.settings.gateway_port}/v1/chat/completions"

    def offer(self, name: str, tenant: str, seeds: list[int]) -> Offered:
        """A product with random adapters as releases. Products are offered before the gateway is `start`ed."""
        line, product = self.line, tiny_product(self.folder / name, name, tenant)
        path = line.settings.products / f"{name}.yaml"
        path.write_text(yaml.safe_dump(product.model_dump(mode="json")))
        releases, weights = [], []
        for seed in seeds:
            folder = self.folder / name / f"adapter-{seed}"
            adapter = write_adapter(line.store.tree(self.base.tree), self.base.digest, folder, seed, RANK)
            weights.append(line.store.put_tree(adapter))
            files = {"adapter": line.store.tree(weights[-1])}
            releases.append(registered(line, product, self.base.digest, weights[-1], files))
        chain(line, product, releases[0])
        return Offered(product, releases, weights, {"authorization": f"Bearer {create_key(line.home, tenant)}"})

    def start(self, *offered: Offered) -> None:
        """The gateway, until the first release of each is live."""
        self.line.supervisor.up(["gateway"], seconds=120)
        for each in offered:
            deadline = time.monotonic() + 120
            while (route := read_routes(self.line.home).of(each.product.name)) is None or (
                route.champion != each.releases[0]
            ):
                if time.monotonic() > deadline:
                    raise SystemExit(self.line.supervisor.log_tail("gateway"))
                time.sleep(0.1)


@contextmanager
def installed(base: str, folder: Path, exact: bool = False) -> Iterator[Installed]:
    """With vLLM running; all is stopped at the end. ``exact``: in float32, so that what is asked beside a request does
    not round its answer to another."""
    more = {"products": str(folder / "products"), "serve_max_rank": str(RANK), "reconcile_seconds": "1"}
    line = Line(Settings.model_validate(settings_in(folder, **more)))
    (folder / "products").mkdir()
    line.log.signer_line()
    manifest, _ = steps.stored_base(line, base)
    if exact:
        line.server.sizing = line.server.sizing.model_copy(update={"width": 4})
    try:
        line.server.ensure_running(manifest)
        yield Installed(line, manifest, folder)
    finally:
        line.supervisor.down()
