"""A run's log is shown as a few lines that a person can act on."""

from pipelines.launch import progress

HEAD = "2026-01-31 12:00:00 +0000 - dagster"
RUN = "__ASSET_JOB - ddd16c83-339c-4a78-b6aa-8ffbb7546c55"


def test_steps_notes_and_the_reason_of_a_failure_are_shown() -> None:
    log = f"""\
{HEAD} - DEBUG - {RUN} - 11956 - RUN_START - Started execution of run.
{HEAD} - DEBUG - {RUN} - 11956 - data__raw - STEP_START - Started execution of step "data__raw".
\x1b[34m{HEAD} - INFO - {RUN} - data__raw - 700 rows\x1b[0m
a line of a library
{HEAD} - DEBUG - {RUN} - 11956 - data__raw - STEP_SUCCESS - Finished execution of step "data__raw" in 25ms.
{HEAD} - ERROR - {RUN} - 11956 - data__ledger - STEP_FAILURE - Execution of step "data__ledger" failed.

dagster._core.errors.DagsterExecutionStepExecutionError: Error occurred while executing op "data__ledger"::

data_contracts.errors.Refused: licence CC-BY-NC-4.0 is not allowed

Stack Trace:
"""
    assert list(progress(log.splitlines())) == [
        "  data/raw: 700 rows",
        "+ data/raw: 25ms",
        "x data/ledger: data_contracts.errors.Refused: licence CC-BY-NC-4.0 is not allowed",
    ]


def test_a_verdict_that_holds_is_shown_with_its_reason() -> None:
    log = f"""\
{HEAD} - INFO - {RUN} - release__verdict - hold: failed: calls-better-than-base
{HEAD} - ERROR - {RUN} - 11956 - release__verdict_promotes - STEP_FAILURE - Execution of step failed.

dagster._core.errors.DagsterAssetCheckFailedError: 1 blocking asset check failed with ERROR severity:
release/verdict: promotes

Stack Trace:
"""
    assert list(progress(log.splitlines()))[-1] == "x release/verdict: hold: failed: calls-better-than-base"
