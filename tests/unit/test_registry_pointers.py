"""What is served is a registered release, whatever a file says."""

import json
from pathlib import Path

import httpx
import pytest
import yaml

from data_contracts.digests import sha256_bytes, tree_digest, tree_files
from data_contracts.errors import BadInput, Missing, Refused
from pipelines.recipes.product import ROOT, load_product
from pipelines.stages.release.promotion import promote
from pipelines.stages.release.registered import find_release
from pipelines.stages.serve.gateway import make_gateway
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.routes import routes_file
from pipelines.stages.serve.tenants import create_key
from resources import vllm_launcher
from resources.adapters import served_name
from resources.processes import MARK, PROGRAM
from tests.support.line import SmallLine
from tests.support.ports import free_ports
from tests.support.serving import FakeParts, chain, fake_vllm, registered, running, tiny_product

FOREIGN = ["models/mine", "acme/billing-8b", sha256_bytes(b"trained by hand")]
"""A folder, a hub id, a digest that was never registered."""


@pytest.mark.parametrize(("field", "named"), list(zip(["champion", "previous", "champion"], FOREIGN, strict=True)))
def test_a_route_that_names_something_else_is_not_followed_and_repaired(tmp_path: Path, field: str, named: str) -> None:
    parts, product = FakeParts(tmp_path), tiny_product(tmp_path / "product")
    live = registered(parts, product, parts.base.digest, sha256_bytes(b"a"))
    chain(parts, product, live)
    reconcile(parts, [product])
    table = json.loads(routes_file(parts.home).read_text())
    table["routes"][0][field] = named
    routes_file(parts.home).write_text(json.dumps(table))
    app = make_gateway(parts, lambda: [product], reconcile_seconds=0)
    with fake_vllm(parts.server), running(app, free_ports(1)[0]) as url:
        body = {"model": product.name, "messages": [{"role": "user", "content": "hello"}]}
        headers = {"authorization": f"Bearer {create_key(parts.home, product.tenant)}"}
        with httpx.Client(trust_env=False) as client:
            answer = client.post(f"{url}/v1/chat/completions", json=body, headers=headers)
            assert answer.headers["x-assay-release"] == live
            reconcile(parts, [product])
            assert named not in routes_file(parts.home).read_text()
            assert parts.log.records()[-1].event == "projection.repaired"

            stranger = parts.store.get_json(live) | {"weights": sha256_bytes(b"b")}
            chain(parts, product, parts.store.put_json(stranger))
            with pytest.raises(Refused, match="is no registered release: only registry pointers are served"):
                reconcile(parts, [product])
            answer = client.post(f"{url}/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 503
    assert "is no registered release" in answer.json()["error"]["message"]
    assert served_name(sha256_bytes(b"b")) not in parts.server.loaded()


@pytest.mark.parametrize("named", FOREIGN[:2])
def test_a_plan_of_the_model_server_that_names_another_base_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_text("recorded")
    tree = tree_digest(tree_files(tmp_path / "base"))
    plan = {"base": {"tree": tree}, "trees": {tree: str(tmp_path / "base")}, "env": {}}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan | {"argv": ["false", "--model", named]}))
    monkeypatch.setenv(MARK, str(tmp_path))
    monkeypatch.setenv(PROGRAM, "vllm")
    with pytest.raises(SystemExit, match=f"refusing to serve {named}: it is not the base that was recorded"):
        vllm_launcher.main(path)


@pytest.mark.parametrize("named", FOREIGN)
@pytest.mark.parametrize(("where", "key"), [("", "release"), ("", "model"), ("serving", "adapter")])
def test_a_product_file_that_names_what_to_serve_is_refused(tmp_path: Path, where: str, key: str, named: str) -> None:
    product = yaml.safe_load((ROOT / "pipelines/products/billing-assistant.yaml").read_text())
    (product.setdefault(where, {}) if where else product)[key] = named
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(product))
    with pytest.raises(BadInput, match=rf"{key}: a product file names no model to serve.*assay promote"):
        load_product(str(path))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> SmallLine:
    line = SmallLine(tmp_path_factory.mktemp("line"))
    line.candidate()
    return line


@pytest.mark.parametrize("named", FOREIGN)
def test_no_command_takes_it_for_a_release(line: SmallLine, named: str) -> None:
    with pytest.raises(Missing, match=r"is no registered release: name one by its id.*assay releases"):
        find_release(line.parts, named)
    if named.startswith("sha256:"):
        with pytest.raises(Refused, match="is not a registered release"):
            promote(line.parts, line.product, named, line.ask())
