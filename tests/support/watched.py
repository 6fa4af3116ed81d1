"""A product about which there is something to see: answers, runs, drift, decisions, objections, incidents, alerts."""

from datetime import datetime, timedelta

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.manifests import ReleaseManifest
from data_contracts.traces import Trace
from pipelines.stages.signals.drift import DriftReport, FeatureDrift, record
from pipelines.stages.signals.incident import open_incident
from pipelines.stages.signals.meters import MeterWindow
from pipelines.stages.signals.overview import Consoles, Health, Overview, overview
from pipelines.stages.signals.policy import load_policy
from pipelines.stages.signals.retrain_decision import decide_and_record, dispute
from tests.support.line import SmallLine
from tests.support.runs import make_record

CONSOLES = Consoles(dagster="http://127.0.0.1:8103", mlflow="http://127.0.0.1:8102")
PROGRAMS = (
    Health(name="gateway", state="RUNNING", healthy=True, detail="pid 7"),
    Health(name="vllm", state="BACKOFF", healthy=False, detail="Exited too quickly"),
)
PRICES = (
    "{currency: EUR, gpu_minute: 0.05, cpu_minute: 0.01, prompt_1000: 0.2, completion_1000: 0.6, memory_gib_hour: 0.01}"
)


def answer(line: SmallLine, number: int, time: datetime, release: Digest | None, **changes: object) -> None:
    """One trace of the line's product and tenant; ``changes`` replace fields."""
    digest = sha256_bytes(b"any")
    trace = Trace(
        trace_id=f"trace-{number}",
        time=time,
        tenant=line.product.tenant,
        product=line.product.name,
        route="champion",
        release=release,
        base=digest,
        adapter=None,
        template=digest,
        status=200,
        prompt_chars=9,
        prompt_tokens=1000,
        completion_tokens=100,
        latency_ms=1,
        json_valid=True,
    )
    line.parts.traces.add(trace.model_copy(update=changes))


def drifted(product: str, release: Digest | None) -> DriftReport:
    def feature(name: str, *scores: float, sustained: bool = False) -> FeatureDrift:
        windows = tuple(
            MeterWindow(number=i, begins=None, ends=None, n=200, hits=None, value=score, score=score)
            for i, score in enumerate(scores, start=1)
        )
        return FeatureDrift(
            feature=name, method="shares", sustained=sustained, threshold=0.25, reference=0.0, windows=windows
        )

    features = (
        feature("prompt_chars", 0.01, 0.02, 0.03, 0.02),
        feature("tool", 0.04, 0.31, 0.44, 0.52, sustained=True),
        feature("answer_tokens", 0.0, 0.26, 0.0, 0.01),
        FeatureDrift(feature="refusals", method="rate", sustained=False, threshold=3, silent="no words are kept"),
    )
    return DriftReport(
        product=product,
        release=release,
        traffic=sha256_bytes(b"traffic"),
        policy=load_policy().digest,
        features=features,
        drifted=True,
        reason="tool: PSI of 0.25 or more in 3 of 4 windows",
    )


def watch(line: SmallLine, live: ReleaseManifest, now: datetime, reason: str) -> None:
    """Fill in what an overview of this live release shows; ``reason`` is what people wrote."""
    parts, name = line.parts, line.product.name
    for number in range(5):
        answer(line, number, now - timedelta(minutes=number), live.digest)
    answer(line, 5, now - timedelta(minutes=5), live.digest, status=502)
    answer(line, 6, now - timedelta(hours=2), live.digest)
    assert parts.traces.flush()
    run = make_record("run", product=name, started=now - timedelta(hours=3), ended=now, seconds=600.0)
    parts.runs.put(run.model_copy(update={"gpu_seconds": 600.0}))
    (parts.home / "prices.yaml").write_text(PRICES)
    open_incident(parts, name, reason, "cli:ada")
    report = drifted(name, live.digest)
    record(parts, report)
    decide_and_record(parts, report, load_policy(), [120])
    dispute(parts, name, reason, "cli:bob")


def look(line: SmallLine, now: datetime, name: str = "") -> Overview:
    return overview(line.parts, line.parts.products(), name or line.product.name, lambda: PROGRAMS, CONSOLES, now)
