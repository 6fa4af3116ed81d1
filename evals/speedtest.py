"""How a product's speed is measured, and what counts as slow: one YAML in ``evals/speed``, named by the product."""

from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from data_contracts.digests import Digest, sha256_json
from data_contracts.errors import BadInput, Refused
from data_contracts.frozen import Frozen
from evals.policy import GatePolicy
from evals.serving_layer import BEHIND, METRICS
from evals.suite import ChatItem, Suite, load_suite
from pipelines.recipes.product import Product


class SpeedTest(Frozen):
    """The first questions of ``suite``, each asked once of every subject, ``concurrency`` at a time: ``warm_up`` that
    do not count, then ``requests``. A first token after ``first_token_ms`` is slow, and so are tokens further apart
    than ``token_ms``; what takes more than ``times`` as long as the baseline is behind it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    description: str
    suite: str
    requests: int = Field(ge=1)
    concurrency: int = Field(default=4, ge=1, le=256)
    warm_up: int = Field(default=4, ge=1)
    first_token_ms: float = Field(gt=0, allow_inf_nan=False)
    token_ms: float = Field(gt=0, allow_inf_nan=False)
    times: float = Field(default=1.5, gt=1, allow_inf_nan=False)

    @property
    def rounds(self) -> int:
        return -(-self.requests // self.concurrency)


class Asking(Frozen):
    """A speed test with the questions of its suite."""

    test: SpeedTest
    suite: Suite

    def questions(self) -> tuple[ChatItem, ...]:
        """All that are asked, those that warm up first."""
        return _questions(self.suite)[: self.test.warm_up + self.test.requests]

    def items(self) -> frozenset[str]:
        """Names of what is scored: each question that counts, and each round."""
        asked = [item.id for item in self.questions()[self.test.warm_up :]]
        return frozenset(asked) | {round_name(number) for number in range(self.test.rounds)}

    def content_digest(self) -> Digest:
        return sha256_json({"test": self.test.payload(), "suite": self.suite.content_digest()})

    def check_policy(self, policy: GatePolicy) -> None:
        """Raises `Refused` for a criterion that takes a share of slow requests for something to have more of, and for a
        metric that is not measured."""
        for each in policy.criteria:
            if each.suite == self.test.name and (each.kind != "ceiling" or each.metric not in {**METRICS, **BEHIND}):
                raise Refused(
                    f"criterion {each.name} of policy {policy.name}: of {self.test.name} less is better, so that its "
                    f"kind is ceiling, on one of {', '.join((*METRICS, *BEHIND))}"
                )


def round_name(number: int) -> str:
    return f"round-{number:05}"


def load_speed_test(path: Path) -> SpeedTest:
    """Raises `BadInput` that names the file and what to mend."""
    try:
        return SpeedTest.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, fault["loc"])) or "the whole"
        known = ", ".join(SpeedTest.model_fields)
        raise BadInput(f"{path}, field {field}: {fault['msg']}: correct it; the fields are {known}") from error


def speed_of(product: Product) -> Asking | None:
    """What the product's speed test asks, if it names one. Raises `BadInput` for one that asks for more questions than
    its suite has, or for a suite whose questions nobody sends."""
    if product.speed is None:
        return None
    path = product.file("speed", product.speed)
    test = load_speed_test(path)
    suite = load_suite(product.file("suite", test.suite))
    if (found := len(_questions(suite))) < test.warm_up + test.requests:
        raise BadInput(
            f"{path}, field requests: {test.warm_up} to warm up and {test.requests} to time are more than the {found} "
            f"questions of suite {suite.name}: lower it, or name a suite of more calls or questions"
        )
    return Asking(test=test, suite=suite)


def _questions(suite: Suite) -> tuple[ChatItem, ...]:
    return tuple(item for item in suite.items() if isinstance(item, ChatItem))
