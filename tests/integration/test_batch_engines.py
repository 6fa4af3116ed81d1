"""Row work is the same on local processes and on Ray Data, on a cluster of this machine of which parts are killed."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_contracts.errors import BadInput, Unavailable
from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import ROOT
from pipelines.stages.data import scrub, steps
from pipelines.stages.data.protocols import BatchEngine
from resources import ray_cluster, ray_engine
from resources.batch_engine import LocalBatchEngine, open_engine
from tests.support.data import DataParts, product_of, write_contract
from tests.support.row_work import Counted, OwnError, deadly, slow_square, square, stumble

WORKERS = 2
AHEAD = 2 * WORKERS
pytestmark = [
    # Ray Data makes its own settings by way of names that it deprecated.
    pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context"),
]


@pytest.fixture(scope="module")
def on_ray() -> Iterator[BatchEngine]:
    import ray

    ray_cluster.connect(WORKERS, "ASSAY_ENGINE=local")
    yield open_engine(f"ray:{WORKERS}")
    ray.shutdown()


@pytest.fixture(params=["local:1", f"local:{WORKERS}", f"ray:{WORKERS}"])
def engine(request: pytest.FixtureRequest) -> BatchEngine:
    if request.param.startswith("ray"):
        return request.getfixturevalue("on_ray")  # type: ignore[no-any-return]
    return open_engine(request.param)


def test_results_come_in_order_from_workers_that_load_the_work_once(engine: BatchEngine, tmp_path: Path) -> None:
    assert list(engine.map(Counted(tmp_path), range(30))) == list(range(30))
    assert len(os.listdir(tmp_path)) <= WORKERS


def test_of_nothing_nothing_comes(engine: BatchEngine) -> None:
    assert list(engine.map(square, [])) == []


def test_only_a_few_batches_are_drawn_ahead(engine: BatchEngine) -> None:
    drawn: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(10_000):
            drawn.append(number)
            yield number

    results = engine.map(square, batches())
    for taken in range(12):
        assert next(results)[0] == taken * taken
        assert len(drawn) <= taken + 1 + AHEAD
    results.close()  # type: ignore[attr-defined]


def test_what_the_work_raises_reaches_the_caller_as_it_is(engine: BatchEngine) -> None:
    with pytest.raises(OwnError) as caught:
        list(engine.map(stumble, range(6)))
    assert caught.value.args == ("row 3", "field b")


def test_what_the_source_raises_reaches_the_caller_as_it_is(engine: BatchEngine) -> None:
    def batches() -> Iterator[int]:
        yield from range(AHEAD + 2)
        raise BadInput("line 7 is no JSON")

    with pytest.raises(BadInput, match=r"^line 7 is no JSON$"):
        list(engine.map(square, batches()))


def ray_processes(name: str) -> list[psutil.Process]:
    return [each for each in psutil.Process().children(recursive=True) if name in "".join(each.cmdline())]


@pytest.mark.parametrize("part", ["worker", "_draw"])
def test_a_worker_killed_in_the_middle_changes_nothing(on_ray: BatchEngine, part: str) -> None:
    """``_draw`` brings the batches to the workers."""
    results: list[int] = []
    workers: set[int] = set()
    for result, worker in on_ray.map(slow_square, range(40)):
        results.append(result)
        workers.add(worker)
        if len(results) == 10:
            killed = psutil.Process(worker) if part == "worker" else ray_processes(f"({part})")[0]
            killed.kill()
    assert results == [number * number for number in range(40)]
    assert len(workers) == WORKERS + (part == "worker")


def test_a_batch_that_ends_every_worker_is_one_clear_error(on_ray: BatchEngine) -> None:
    with pytest.raises(Unavailable, match="batch 2 ended its worker 3 times"):
        list(on_ray.map(deadly, range(6)))


def test_a_part_that_ray_cannot_replace_is_one_clear_error(on_ray: BatchEngine) -> None:
    results = on_ray.map(slow_square, range(40))
    next(results)
    ray_processes("_Feed")[0].kill()
    with pytest.raises(Unavailable, match=r"Ray lost a part of its cluster .* set ASSAY_ENGINE=local"):
        list(results)


def test_a_machine_with_other_code_is_refused() -> None:
    work = pickle.dumps(square)
    assert ray_engine._loaded(work, ray_cluster.this_environment())(3)[0] == 9
    with pytest.raises(Unavailable, match="runs another Python, other packages or other code"):
        ray_engine._loaded(work, "sha256:other")


def test_a_running_cluster_is_used_where_ray_address_names_it(on_ray: BatchEngine) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    program = (
        "import ray; from resources.batch_engine import open_engine\n"
        "print(list(open_engine('ray').map(abs, [-1, -2])), ray.get_runtime_context().gcs_address)"
    )
    environment = os.environ | {"RAY_ADDRESS": address}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == f"[1, 2] {address}\n", done.stderr


def test_a_ray_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(BadInput, match=r"RAY_ADDRESS is ray://head:10001, .* give HOST:PORT"):
        list(open_engine("ray").map(square, [1]))


NAMES = ["Maria Keller", "jo@web.de", "nobody at all", "anna@hartlets.example and Maria Keller"]


def ledgered(folder: Path) -> tuple[DataParts, Any, DatasetManifest]:
    """An installation whose rows hold names and addresses, as far as the ledger."""
    rows = folder / "rows.csv"
    lines = [
        f'"{number}: a word from {NAMES[number % 4]}, thing {number * 7}",label {number % 3}' for number in range(61)
    ]
    rows.write_text("\n".join(["text,intent", *lines]))
    contract = write_contract(folder / "contract.yaml", {"text": "string", "intent": "string"})
    mapping = {"user": "{text}", "assistant": "{intent}"}
    product = product_of(folder, {"url": str(rows), "contract": contract, "mapping": mapping})
    parts = DataParts(folder / "home")
    manifest = steps.raw(parts, product)[0]
    for step in (steps.contracted, steps.ledgered):
        manifest = step(parts, product, manifest)[0]
    return parts, product, manifest


def test_the_line_names_the_same_rows_on_every_engine_and_in_any_batches(
    on_ray: BatchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, product, before = ledgered(tmp_path)
    done = {}
    for engine, size in [
        *((LocalBatchEngine(1), size) for size in (1, 2, 7, 60, 61, 256)),
        *((LocalBatchEngine(2), size) for size in (3, 256)),
        *((on_ray, size) for size in (5, 31)),
    ]:
        name = f"{type(engine).__name__}-{getattr(engine, 'workers', 0)}-{size}"
        shutil.copytree(tmp_path / "home", tmp_path / name)
        parts = DataParts(tmp_path / name)
        parts.engine = engine
        monkeypatch.setattr(scrub, "BATCH_ROWS", size)
        made, hit = steps.scrubbed(parts, product, before)
        assert not hit
        done[name] = made
    assert len({made.root for made in done.values()}) == 1
    assert len({made.digest for made in done.values()}) == 1
    assert made.facts["entities"] == {"EMAIL_ADDRESS": 30, "PERSON": 31}
