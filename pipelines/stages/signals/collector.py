"""What the gateway sealed is opened, scrubbed by the product's data policy and kept; the raw text goes.

It is done beside the gateway, since the detector of personal data is slow and large. Whatever stops it, what was not
settled waits, sealed, and is looked at again: for `LONGEST`, then it goes unread.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta

from data_contracts.digests import Digest
from data_contracts.errors import BadInput, Missing, Refused, Tampered
from data_contracts.feedback import Exchange, Feedback, Sealed
from data_contracts.policy import DataPolicy, load_policy
from data_contracts.records import Message
from data_contracts.traces import Trace
from pipelines.recipes.product import Product
from pipelines.stages.data.ingest import pseudonym
from pipelines.stages.data.item import Row
from pipelines.stages.data.scrub import certificate_of, personal, scrub
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.raw_text import Raw, RawExchange, RawFeedback, opened

LOCK = "collector"
"""Held while something is settled: who erases a person takes it, and nothing about that person is kept afterwards."""
LONGEST = timedelta(days=7)
_AT_ONCE = 64

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class _Waits(Exception):
    """It cannot be settled yet."""


class _Left(Exception):
    """Nothing of it is to be kept; why."""


class Collector:
    """``products`` lists the product files of now."""

    def __init__(
        self, parts: Parts, products: Callable[[], Sequence[Product]], now: Callable[[], datetime] = _now
    ) -> None:
        self.parts, self.products, self.now = parts, products, now
        self._certified: set[Digest] = set()

    def collect(self) -> Counter[str]:
        """Look once at all that waits: how much of it was ``kept``, ``left`` out, or ``waits`` on. Raises where the
        store, or a detector that finds too little, stops it."""
        done: Counter[str] = Counter()
        after: Sealed | None = None
        while some := self.parts.feedback.sealed(after, _AT_ONCE):
            products = {product.name: product for product in self.products()}
            for each in some:
                with self.parts.locks.hold(LOCK):
                    done[self._settle(each, products)] += 1
            after = some[-1]
        return done

    def _settle(self, sealed: Sealed, products: dict[str, Product]) -> str:
        try:
            kept = self._kept(sealed, products)
        except _Waits as why:
            if self.now() - sealed.time < LONGEST:
                return "waits"
            log.warning("%s is left out: %s, for %s", sealed.name, why, LONGEST)
            kept = None
        except _Left as why:
            log.info("%s is left out: %s", sealed.name, why)
            kept = None
        self.parts.feedback.settle(sealed, kept)
        return "left" if kept is None else "kept"

    def _kept(self, sealed: Sealed, products: dict[str, Product]) -> Exchange | Feedback:
        if sealed.kind == "exchange":
            return self._exchange(sealed, self._opened(sealed, RawExchange), _keeps(products, sealed.product))
        said = self._opened(sealed, RawFeedback)
        trace = self.parts.traces.get(said.trace_id)
        if trace is None:
            raise _Waits("its answer is not in the trace store")
        if trace.tenant != sealed.tenant:
            raise _Left("its answer is no answer of this tenant")
        return self._feedback(sealed, said, trace, _keeps(products, trace.product))

    def _exchange(self, sealed: Sealed, raw: RawExchange, product: Product) -> Exchange:
        subject = self._person(raw.user)
        texts = (*raw.messages, Message(role="assistant", content=raw.answer))
        scrubbed, policy = self._scrubbed(product, raw.trace_id, texts)
        return Exchange(
            trace_id=raw.trace_id,
            time=sealed.time,
            tenant=sealed.tenant,
            product=product.name,
            release=raw.release,
            messages=scrubbed[:-1],
            tools=raw.tools,
            answer=scrubbed[-1].content,
            policy=policy.digest,
            subject=subject,
        )

    def _feedback(self, sealed: Sealed, said: RawFeedback, trace: Trace, product: Product) -> Feedback:
        author = self._person(said.user) or self.parts.keyring.subject(f"{said.by}:{sealed.tenant}")
        named = [name for name in ("correction", "label") if getattr(said, name) is not None]
        texts = tuple(Message(role="assistant", content=getattr(said, name)) for name in named)
        scrubbed, _ = self._scrubbed(product, said.trace_id, texts)
        return Feedback(
            feedback_id=sealed.name,
            trace_id=said.trace_id,
            time=sealed.time,
            tenant=sealed.tenant,
            product=product.name,
            release=trace.release,
            by=said.by,
            author=author,
            rating=said.rating,
            **{name: each.content for name, each in zip(named, scrubbed, strict=True)},
        )

    def _person(self, user: str | None) -> str | None:
        """The pseudonym that rows about this person have too, so that an erasure finds both."""
        if user is None:
            return None
        subject = pseudonym(self.parts, user)
        try:
            self.parts.keyring.key(subject)
        except Refused as error:
            raise _Left("it is of a person who was erased") from error
        return subject

    def _opened(self, sealed: Sealed, kind: type[Raw]) -> Raw:
        keys = self.parts.tenant_keys
        try:
            return opened(keys, sealed, kind)
        except (Missing, Tampered) as error:
            if isinstance(error, Missing) and not keys.is_shredded(sealed.tenant):
                raise _Waits(str(error)) from error
            raise _Left(f"the key of tenant {sealed.tenant} does not open it, or not any more") from error

    def _scrubbed(
        self, product: Product, trace_id: str, texts: Sequence[Message]
    ) -> tuple[tuple[Message, ...], DataPolicy]:
        """A value gives way to the same made-up one in all that is said of an answer."""
        try:
            policy = load_policy(product.file("data_policy", product.data_policy))
        except BadInput as error:
            raise _Waits(str(error)) from error
        row: Row = {"kind": "sft", "example": {"messages": [each.model_dump() for each in texts]}}
        if any(each.content for each in texts):
            self._certify(policy)
            seed = self.parts.keyring.subject(f"stand-ins:{trace_id}")
            try:
                row = scrub(row, personal(row, self.parts.pii), seed=seed)
            except (ValueError, RecursionError) as error:  # of this text; it holds up no other
                raise _Waits(f"it cannot be scrubbed ({type(error).__name__})") from error
        return tuple(Message.model_validate(each) for each in row["example"]["messages"]), policy

    def _certify(self, policy: DataPolicy) -> None:
        """Once a policy, in this process."""
        if policy.pii and policy.digest not in self._certified:
            certificate_of(self.parts, policy.pii)
            self._certified.add(policy.digest)


def discard(parts: Parts, subjects: Collection[str]) -> None:
    """Take away what waits and was asked or said by one of these. `LOCK` is held."""
    after: Sealed | None = None
    while some := parts.feedback.sealed(after, _AT_ONCE):
        for each in some:
            try:
                user = _user(parts, each)
            except (Missing, Tampered):
                continue  # nobody can read it
            if user is not None and pseudonym(parts, user) in subjects:
                parts.feedback.settle(each, None)
        after = some[-1]


def _user(parts: Parts, sealed: Sealed) -> str | None:
    if sealed.kind == "exchange":
        return opened(parts.tenant_keys, sealed, RawExchange).user
    return opened(parts.tenant_keys, sealed, RawFeedback).user


def _keeps(products: dict[str, Product], name: str) -> Product:
    product = products.get(name)
    if product is None or product.keep is None:
        raise _Left(f"{name} keeps nothing")
    return product
