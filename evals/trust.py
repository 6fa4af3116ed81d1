"""What a judge model's word is worth to the gate: nothing, unless its calibration bears it out."""

from collections.abc import Mapping

from data_contracts.errors import Missing, Refused
from data_contracts.judging import Calibration, JudgePolicy
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import EvalResult
from evals.protocols import Scored


def doubt(result: Scored, metric: str) -> str:
    """Why a metric of this result decides nothing: its judge does not count, or gave no verdict on an item. Such items
    score 0, which would flatter whatever they are compared with. Nothing where it may decide."""
    judged = result.judged.get(metric)
    if judged is None:
        return ""
    failed = f"the judge gave no verdict on {judged.failed} items: evaluate again" if judged.failed else ""
    return judged.untrusted or failed


def untrusted(results: Mapping[str, Scored], suite: str, baseline: str, metric: str) -> str:
    """Why a metric decides nothing between the candidate and this baseline; nothing where it may decide."""
    for subject in ("candidate", baseline):
        result = results.get(f"{suite}/{subject}")
        if result and (why := doubt(result, metric)):
            return f"{subject}: {why}"
    return ""


def shown(metric: str, *results: Scored) -> str:
    """The metric's name, and in brackets what speaks against its figures in these results."""
    judged = [each.judged[metric] for each in results if metric in each.judged]
    failed = sum(each.failed for each in judged)
    against = ["untrusted judge"] if any(each.untrusted for each in judged) else []
    against += [f"no verdict on {failed}"] if failed else []
    return f"{metric} ({', '.join(against)})" if against else metric


def check_judges(store: ArtifactStore, results: Mapping[str, EvalResult]) -> None:
    """Every trust that results claim, from the calibrations again. Raises `Refused` where one does not hold."""
    for name, result in results.items():
        for metric, judged in result.judged.items():
            if judged.untrusted:
                continue
            what = f"{name}: {metric} claims a trusted judge"
            if judged.calibration is None:
                raise Refused(f"{what} and names no calibration")
            try:
                calibration = store.get_manifest(judged.calibration, Calibration)
                reason = calibration.distrust(store.get_manifest(judged.policy, JudgePolicy))
            except Missing as error:
                raise Refused(f"{what}, and its calibration is not to be had: {error}") from error
            if calibration.judge != judged.judge:
                raise Refused(f"{what}, {judged.judge}, and names a calibration of {calibration.judge}")
            if reason:
                raise Refused(f"{what}, which its calibration does not bear out: {reason}")
