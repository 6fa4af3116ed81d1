"""An approved release becomes challenger, passes a canary, is recorded as promoted, and only then is champion."""

from typing import TypeAlias

import dagster as dg
from pydantic import Field

from assets.groups import PRODUCTS, code_version
from assets.release import APPROVAL
from data_contracts.chain import AuditRecord
from data_contracts.digests import hex_of
from data_contracts.errors import AssayError
from data_contracts.verdicts import CanaryVerdict
from pipelines.stages.release.canary import GatewayAsk
from pipelines.stages.release.promotion import promote
from pipelines.stages.serve.tenants import operator_key
from pipelines.wiring import Line

CHALLENGER = dg.AssetKey(["serving", "challenger"])
CANARY = dg.AssetKey(["serving", "canary"])
CHAMPION = dg.AssetKey(["release", "champion"])
Result: TypeAlias = dg.MaterializeResult
Facts = dict[str, str | int | float]
CODE = code_version("pipelines/stages/release", "pipelines/stages/serve")


class Promotion(dg.Config):
    release: str = Field(description="Digest of the approved release (sha256:...): `assay pending` lists them.")


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            CHALLENGER,
            deps=[APPROVAL],
            group_name="serving",
            kinds={"vllm"},
            code_version=CODE,
            description="The approved release, verified again and loaded beside the champion.",
        ),
        dg.AssetSpec(
            CANARY,
            deps=[CHALLENGER],
            group_name="serving",
            kinds={"vllm"},
            code_version=CODE,
            description="A few of the product's own prompts, answered by the challenger through the gateway.",
        ),
        dg.AssetSpec(
            CHAMPION,
            deps=[CANARY],
            group_name="release",
            kinds={"mlflow"},
            code_version=CODE,
            description="The release that is live by the audit log; alias and routes follow the record.",
        ),
    ],
    partitions_def=PRODUCTS,
)
def promotion(
    context: dg.AssetExecutionContext, config: Promotion, line: dg.ResourceParam[Line]
) -> tuple[Result, Result, Result]:  # type: ignore[type-arg]  # of several results, Dagster wants the bare type
    """One act, three things to see. A failed canary is shown as it was found, and leaves the champion."""
    ask = GatewayAsk(line.gateway_url, operator_key(line.home))
    try:
        record = promote(line, line.product(context.partition_key), config.release, ask, tell=context.log.info)
    except AssayError:
        for key, facts in _tried(line, config.release).items():
            context.log_event(dg.AssetMaterialization(key, partition=context.partition_key, metadata=facts))
        raise
    tried = _tried(line, config.release)
    version = dg.DataVersion(hex_of(config.release))
    return (
        dg.MaterializeResult(CHALLENGER, metadata=tried[CHALLENGER], data_version=version),
        dg.MaterializeResult(CANARY, metadata=tried[CANARY]),
        dg.MaterializeResult(CHAMPION, metadata=_facts(config.release, record), data_version=version),
    )


def _tried(line: Line, release: str) -> dict[dg.AssetKey, Facts]:
    """Challenger and newest canary, as the audit log tells; nothing when the release was refused before."""
    for record in reversed(line.log.records()):
        if record.event == "canary.recorded" and record.body["release"] == release:
            found = line.store.get_manifest(str(record.body["canary"]), CanaryVerdict)
            facts = _facts(release, record)
            answers = f"{found.json_valid} of {found.requests} valid JSON, {found.errors} failed"
            more: Facts = {"outcome": found.outcome, "reason": found.reason, "answers": answers, "p95_ms": found.p95_ms}
            live: Facts = {f"{each.name}, challenger": each.good[0] for each in found.live}
            live |= {f"{each.name}, champion": each.good[1] for each in found.live}
            return {CHALLENGER: facts, CANARY: facts | more | live}
    return {}


def _facts(release: str, record: AuditRecord) -> Facts:
    return {"release": release, "audit record": record.sequence}
