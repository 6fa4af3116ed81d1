"""Assets hand on manifests, named by digest; two runs of one product do not mix."""

from types import SimpleNamespace
from typing import Any

import pytest

from assets import data
from assets.checks import DATA_ASSETS, whole_check
from data_contracts.digests import hex_of, sha256_bytes
from data_contracts.manifests import Counts, DatasetManifest
from tests.assets.conftest import PRODUCT, Runner, reason

STEPS = ("raw", "contracted", "ledgered", "scrubbed", "deduplicated", "decontaminated", "mixture")
STEPS += ("splits", "preferences")


@pytest.fixture
def edition(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Data steps that only note what they were given; a new ``name`` makes other data."""
    edition = SimpleNamespace(name="first")

    def step(stage: str) -> Any:
        def made(parts: Any, product: Any, *inputs: DatasetManifest) -> tuple[DatasetManifest, bool]:
            manifest = DatasetManifest(
                product=product.name,
                stage=stage,
                root=sha256_bytes(f"{edition.name} {stage}".encode()),
                counts=Counts(rows_in=10, rows_out=9, dropped={"licence": 1}),
                inputs=tuple(each.digest for each in inputs),
                synthetic_share=1,
                facts={"origins": []},
                action_key=sha256_bytes(stage.encode()),
            )
            parts.store.put_manifest(manifest)
            return manifest, False

        return made

    monkeypatch.setattr(data, "steps", SimpleNamespace(**{stage: step(stage) for stage in STEPS}))
    return edition


def materializations(result: Any) -> dict[str, Any]:
    return {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
    }


def test_each_step_gets_the_manifest_of_the_one_before(run: Runner, edition: SimpleNamespace) -> None:
    result = run(DATA_ASSETS)

    assert result.success
    shown = materializations(result)
    store = run.small.parts.store
    made = {key: store.get_manifest(m.metadata["manifest"].value, DatasetManifest) for key, m in shown.items()}
    assert made["data/splits"].inputs == (made["data/mixture"].digest,)
    assert made["data/preferences"].inputs == (made["data/mixture"].digest,)
    assert made["data/ledger"].stage == "ledgered"
    for key, materialization in shown.items():
        assert materialization.tags["dagster/data_version"] == hex_of(made[key].digest)
        assert materialization.partition == PRODUCT
    assert "| quarantined: licence | 1 |" in shown["data/raw"].metadata["rows"].value


def test_a_later_run_takes_the_newest_of_the_product(run: Runner, edition: SimpleNamespace) -> None:
    run(DATA_ASSETS)
    edition.name = "second"
    run([data.raw])

    later = run([data.raw, data.contracted], selection=[data.contracted])

    found = materializations(later)["data/contracted"].metadata["manifest"].value
    newest = run.manifests.newest(data.raw.key, PRODUCT, "another run")
    assert newest is not None
    assert run.small.parts.store.get_manifest(found, DatasetManifest).inputs == (newest,)


def test_a_run_keeps_to_its_own_while_another_makes_newer_ones(run: Runner, edition: SimpleNamespace) -> None:
    first = run([data.raw])
    edition.name = "second"
    second = run([data.raw])

    own = [run.manifests.newest(data.raw.key, PRODUCT, result.run_id) for result in (first, second)]

    assert own == [materializations(r)["data/raw"].metadata["manifest"].value for r in (first, second)]
    assert own[0] != own[1]


def test_what_was_never_made_is_named(run: Runner, edition: SimpleNamespace) -> None:
    result = run([data.raw, data.contracted], selection=[data.contracted])

    assert not result.success
    assert "data/raw was never made for billing-assistant: materialize it first" in reason(result)


def test_a_data_set_that_is_not_whole_stops_the_line(run: Runner, edition: SimpleNamespace) -> None:
    """The fake steps write no rows, so that the names in their manifests are matched by nothing."""
    result = run([data.raw, data.contracted, whole_check(data.raw)])

    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed, evaluation.blocking) == ("whole", False, True)
    assert list(materializations(result)) == ["data/raw"]
    assert not result.success
