"""What a judge model's word is worth to the gate: nothing, unless its calibration bears it out."""

from collections.abc import Mapping

from data_contracts.errors import Missing, Refused
from data_contracts.judging import Calibration, JudgePolicy
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import CriterionResult, EvalResult
from evals.protocols import Scored


def if_trusted(line: CriterionResult, results: Mapping[str, Scored]) -> CriterionResult:
    """The line, but inconclusive where a judge scored its metric that does not count, or gave no verdict on an item:
    such items score 0, which would flatter whatever they are compared with."""
    for subject in ("candidate", line.baseline):
        result = results.get(f"{line.suite}/{subject}")
        judged = result.judged.get(line.metric) if result else None
        reason = judged.untrusted if judged else ""
        if judged and not reason and judged.failed:
            reason = f"the judge gave no verdict on {judged.failed} items of {subject}: evaluate again"
        if reason:
            return line.model_copy(update={"outcome": "inconclusive", "reason": reason})
    return line


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
