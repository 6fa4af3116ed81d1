"""Spot checks: the line picks edge cases of a candidate, people rate them and sign, and a product may demand it.

Which items are rated is computed, never chosen by who rates. Texts are fetched for the sheet that a person fills in and
stand nowhere else; signed statements and the log hold item names and ratings.
"""

import secrets
from collections.abc import Mapping, Sequence

from data_contracts.chain import SPOTCHECK_NAMESPACE, AuditRecord
from data_contracts.digests import Digest, canonical_json
from data_contracts.errors import BadInput, Missing, Refused
from data_contracts.manifests import ReleaseManifest
from data_contracts.spotchecks import Rating, SpotCheck, SpotCheckRule, SpotCheckStatement
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import EvalResult, GateVerdict
from evals.edge_cases import EdgeCase, edge_cases
from evals.item_text import asked, expected
from evals.suite import load_suites
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts, Signatures
from pipelines.stages.release.evidence import examine
from pipelines.stages.release.signed import check_signed, only_principal

DEFAULT_COUNT = 12
GONE = "(not kept)"


def rule_of(store: ArtifactStore, release: ReleaseManifest) -> SpotCheckRule | None:
    """What the policy demands under which the release was registered."""
    stated = store.get_json(release.policy)["approval"].get("spot_checks")
    return None if stated is None else SpotCheckRule.model_validate(stated)


def picked(store: ArtifactStore, release: ReleaseManifest, count: int) -> tuple[EdgeCase, ...]:
    return edge_cases(_results(store, release), count, release.weights)


def sheet(parts: Parts, product: Product, digest: Digest, count: int | None = None) -> list[dict[str, str]]:
    """Rows to fill in: question, what is expected, both answers, and an empty ``rating``."""
    release, _ = examine(parts, product, digest)
    rule = rule_of(parts.store, release)
    results = _results(parts.store, release)
    questions = {
        f"{suite.name}/{item.id}": item
        for suite in load_suites(product)
        if results[f"{suite.name}/candidate"].suite_digest == suite.content_digest()
        for item in suite.items()
    }
    texts: dict[str, Mapping[str, str]] = {}
    rows = []
    for case in picked(parts.store, release, count or (rule.at_least if rule else DEFAULT_COUNT)):
        suite, _, item = case.item.partition("/")
        rival = "champion" if f"{suite}/champion" in results else "base"
        for name in (f"{suite}/candidate", f"{suite}/{rival}"):
            if name not in texts:
                texts[name] = _texts(parts.store, results[name])
        known = questions.get(case.item)
        rows.append(
            {
                "item": case.item,
                "why": case.why,
                "question": GONE if known is None else asked(known),
                "expected": GONE if known is None else expected(known),
                "candidate": texts[f"{suite}/candidate"].get(item, GONE),
                rival: texts[f"{suite}/{rival}"].get(item, GONE),
                "rating": "",
            }
        )
    if not rows:
        raise Refused(f"release {digest} has no answers in words to check")
    return rows


def statement_for(parts: Parts, product: Product, digest: Digest, ratings: Mapping[str, Rating]) -> SpotCheckStatement:
    """What to sign, with a fresh nonce. Raises `BadInput` for a rating of an item that is none of the candidate's."""
    release, _ = examine(parts, product, digest)
    results = _results(parts.store, release)
    known = {
        f"{name.rpartition('/')[0]}/{item.item}"
        for name, result in results.items()
        if name.endswith("/candidate")
        for item in result.items
    }
    if strange := sorted(set(ratings) - known):
        raise BadInput(f"{strange[0]} is no item that the candidate of release {digest} was asked")
    return SpotCheckStatement(
        product=product.name,
        release=digest,
        verdict=release.verdict,
        ratings=dict(ratings),
        nonce=secrets.token_hex(16),
    )


def message(statement: SpotCheckStatement) -> bytes:
    """The bytes under the signature (namespace ``assay-spotcheck-v1``): the statement's canonical JSON."""
    return canonical_json(statement.payload())


def record(
    parts: Parts, product: Product, statement: SpotCheckStatement, signature: str, principal: str = ""
) -> AuditRecord:
    """Chain signed ratings. ``principal`` may be left out when the key has one name only. Raises `Refused`."""
    principal = principal or only_principal(parts.signatures, SPOTCHECK_NAMESPACE, message(statement), signature)
    check = SpotCheck(statement=statement, principal=principal, signature=signature)
    with parts.locks.hold(f"approval-{product.name}"):
        release, records = examine(parts, product, statement.release)
        key = _check(parts.signatures, check, release)
        if any(r.event == "spotcheck.recorded" and r.body["nonce"] == statement.nonce for r in records):
            raise Refused(f"replayed: nonce {statement.nonce} was used before")
        body = {
            "release": statement.release,
            "check": parts.store.put_manifest(check),
            "principal": principal,
            "key": key,
            "nonce": statement.nonce,
        }
        return parts.log.append("spotcheck.recorded", product.name, body, actor=principal)


def check_spot_checks(
    store: ArtifactStore, signatures: Signatures, release: ReleaseManifest, records: Sequence[AuditRecord]
) -> None:
    """Raises `Refused` unless, at the end of these records, the release has the spot checks that its policy demands. Of
    each person the newest counts, each key once."""
    rule = rule_of(store, release)
    if rule is None:
        return
    wanted = {case.item for case in picked(store, release, rule.at_least)}
    if len(wanted) < rule.at_least:
        raise Refused(f"the policy demands {rule.at_least} spot checks, and {len(wanted)} items can be checked")
    newest = {
        str(r.body["principal"]): r
        for r in records
        if r.event == "spotcheck.recorded" and r.body["release"] == release.digest
    }
    keys: set[str] = set()
    for each in newest.values():
        check = store.get_manifest(str(each.body["check"]), SpotCheck)
        if (_check(signatures, check, release), check.principal) != (each.body["key"], each.body["principal"]):
            raise Refused(f"audit record {each.sequence} and the spot check that it names differ")
        rated = {item: rating for item, rating in check.statement.ratings.items() if item in wanted}
        if len(rated) < len(wanted):
            continue
        share = sum(rating == "good" for rating in rated.values()) / len(rated)
        if share < rule.agree:
            raise Refused(
                f"{check.principal} finds {share:.0%} of {len(rated)} spot-checked answers good, the policy's agree is "
                f"{rule.agree:.0%}"
            )
        keys.add(str(each.body["key"]))
    if len(keys) < rule.signers:
        raise Refused(
            f"{len(keys)} of {rule.signers} people spot-checked the {rule.at_least} answers that the policy demands of "
            f"release {release.digest}: `assay spotcheck pick`, rate them, `assay spotcheck import`"
        )


def _check(signatures: Signatures, check: SpotCheck, release: ReleaseManifest) -> str:
    statement = check.statement
    signed = message(statement)
    key = check_signed(signatures, "a spot check", SPOTCHECK_NAMESPACE, signed, check.signature, check.principal)
    if (statement.release, statement.verdict, statement.product) != (release.digest, release.verdict, release.product):
        raise Refused(f"the spot check is of release {statement.release}, not of {release.digest}")
    return key


def _results(store: ArtifactStore, release: ReleaseManifest) -> dict[str, EvalResult]:
    verdict = store.get_manifest(release.verdict, GateVerdict)
    return {name: store.get_manifest(digest, EvalResult) for name, digest in verdict.results.items()}


def _texts(store: ArtifactStore, result: EvalResult) -> Mapping[str, str]:
    """Answers by item; none where they were erased or never kept."""
    if result.samples is None:
        return {}
    try:
        return {item: str(text) for item, text in store.get_json(result.samples).items()}
    except Missing:
        return {}
