"""``assay feedback ...``: what people say of answers, from sending it to deciding what is learned from it."""

import os
from typing import Annotated

import httpx
import typer

from data_contracts.errors import BadInput, Refused, Unavailable
from pipelines.terminal import JsonFlag, ProductName, console, person, show
from pipelines.wiring import Line

app = typer.Typer(no_args_is_help=True, help="What people say of answers.")

Names = Annotated[list[str], typer.Argument(help="The feedback's id, or how it begins; several are decided alike.")]
Why = Annotated[str, typer.Option("--reason", help="Why. It stays in the audit log: no personal data.")]


@app.command()
def send(
    trace: Annotated[str, typer.Argument(help="The answer's id: chatcmpl-...")],
    rating: Annotated[str, typer.Option(help="good or bad.")] = "",
    correction: Annotated[str, typer.Option(help="What the answer should have been, as it would have stood.")] = "",
    label: Annotated[str, typer.Option(help="What the question was about; a reviewer's.")] = "",
    user: Annotated[str, typer.Option(help="Who says so.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Say something of an answer: with the tenant's key in ASSAY_API_KEY, or as a reviewer with this installation's.

    Example: assay feedback send chatcmpl-4f1c9e0d4f1c9e0d4f1c9e0d4f1c9e0d --rating bad --correction "On the 2nd."
    """
    from pipelines.stages.serve.tenants import operator_key

    line = Line()
    given = {"rating": rating, "correction": correction, "label": label, "user": user}
    body = {"trace_id": trace} | {name: value for name, value in given.items() if value}
    key = os.environ.get("ASSAY_API_KEY") or operator_key(line.home)
    try:
        answer = httpx.post(
            f"{line.gateway_url}/v1/feedback", json=body, headers={"authorization": f"Bearer {key}"}, trust_env=False
        )
    except httpx.TransportError as error:
        raise Unavailable(f"no gateway answers at {line.gateway_url}: `assay up` starts it ({error})") from error
    if answer.status_code != 202:
        raise Refused(f"the gateway says {answer.status_code}: {answer.json()['error']['message']}")
    if as_json:
        show(answer.json())
        return
    console.print(f"taken: {answer.json()['id']}")


@app.command()
def queue(product: ProductName, as_json: JsonFlag = False) -> None:
    """Users' corrections that wait to be accepted or rejected, the oldest first.

    Example: assay feedback queue billing-assistant
    """
    from pipelines.stages.signals.adjudication import queue as waiting

    line = Line()
    cases = waiting(line, line.product(product).name)
    if as_json:
        show([each.payload() for each in cases])
        return
    for each in cases:
        said, kept = each.feedback, each.exchange
        console.print(f"{said.feedback_id}  {said.time:%Y-%m-%d %H:%M}  answer {said.trace_id}", markup=False)
        if kept is None:
            console.print("  the words of its question were not kept: nothing can be learned from it")
        else:
            console.print(f"  asked      {kept.messages[-1].content}", markup=False)
            console.print(f"  answered   {kept.answer}", markup=False)
        console.print(f"  corrected  {said.correction}", markup=False)
        for name in each.same:
            console.print(f"  says the same: {name}")
        for name in each.other:
            console.print(f"  disagrees: {name}")
    if not cases:
        console.print("nothing waits")


@app.command()
def accept(product: ProductName, feedback: Names, reason: Why) -> None:
    """Let corrections be learned from: the next run takes it in where the product names its feedback as a source.

    Example: assay feedback accept billing-assistant feedback-4f1c --reason "checked with the price list"
    """
    _decide(product, feedback, True, reason)


@app.command()
def reject(product: ProductName, feedback: Names, reason: Why) -> None:
    """Keep corrections out of what is learned; also ones that were accepted before, or a reviewer's own.

    Example: assay feedback reject billing-assistant feedback-4f1c --reason "the answer was right"
    """
    _decide(product, feedback, False, reason)


@app.command()
def collect() -> None:
    """Scrub and keep what the gateway sealed, once; `assay up` does it all the time where a product keeps answers.

    Example: assay feedback collect
    """
    from pipelines.stages.signals.collector import Collector

    line = Line()
    line.feedback.resume()
    if not line.feedback.flush():
        raise Unavailable("the store of feedback cannot be reached: what waits stays in the spool")
    done = Collector(line, line.products).collect()
    console.print(f"{done['kept']} kept, {done['left']} left out, {done['waits']} wait on")


def _decide(product: str, names: list[str], accepts: bool, reason: str) -> None:
    from pipelines.stages.signals.adjudication import decide

    if not all(names):
        raise BadInput("name the feedback: `assay feedback queue PRODUCT` lists what waits")
    line = Line()
    word = "accepted" if accepts else "rejected"
    for name in names:
        record = decide(line, line.product(product).name, name, accepts, reason, person())
        console.print(f"{word}: {record.body['feedback']} (audit record {record.sequence})")
