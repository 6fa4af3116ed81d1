"""What a client sends and gets, as models. A request is checked against them, and the OpenAPI description is made of
them. A field's description follows "must be" when it is refused."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from data_contracts.errors import BadInput
from data_contracts.records import NO_TOOL

_EXACT = ConfigDict(strict=True, extra="ignore")
"""A text is no number and ``true`` is not 1. Clients may say more of a part than is read."""
_OPEN = ConfigDict(extra="allow")

Number = Annotated[float, Field(allow_inf_nan=False)]
Stop = Annotated[str, Field(min_length=1)]
Tokens = Annotated[int, Field(ge=1)]


class ChatMessage(BaseModel):
    model_config = _EXACT
    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Parameters(BaseModel):
    """JSON schema of a tool's arguments, of which names and descriptions are read."""

    model_config = _EXACT
    properties: dict[str, dict[str, Any]] = {}


class Function(BaseModel):
    model_config = _EXACT
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{1,63}$", json_schema_extra={"not": {"const": NO_TOOL}})
    description: str = ""
    parameters: Parameters | None = None

    @field_validator("name")
    @classmethod
    def _is_a_tool(cls, name: str) -> str:
        if name == NO_TOOL:
            raise ValueError(f"an answer in words has {NO_TOOL!r} in the place of a tool's name")
        return name


class Tool(BaseModel):
    model_config = _EXACT
    type: Literal["function"] = "function"
    function: Function


class TextFormat(BaseModel):
    model_config = _EXACT
    type: Literal["text"]


class ObjectFormat(BaseModel):
    model_config = _EXACT
    type: Literal["json_object"]


class NamedSchema(BaseModel):
    model_config = _EXACT
    name: str
    json_schema: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(BaseModel):
    model_config = _EXACT
    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(BaseModel):
    model_config = _EXACT
    include_usage: bool | None = None


class ChatRequest(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    model: str = Field(description="the name of a product of the key's tenant")
    messages: list[ChatMessage] = Field(
        min_length=1,
        fail_fast=True,
        description="a list with at least one message, each with role (system, user, assistant or tool) and content "
        "(a text)",
    )
    tools: Annotated[list[Tool], Field(fail_fast=True)] | None = Field(
        None, description="a list of OpenAI function tools"
    )
    tool_choice: Literal["auto", "none"] | None = Field(
        None, description="'auto' or 'none': the model decides; force JSON with response_format"
    )
    response_format: TextFormat | ObjectFormat | SchemaFormat | None = Field(
        None,
        discriminator="type",
        description="an object whose type is 'text', 'json_object', or 'json_schema' with json_schema: {name, schema}",
    )
    max_tokens: Tokens | None = Field(None, description="a whole number of 1 or more, up to the product's")
    max_completion_tokens: Tokens | None = Field(None, description="as max_tokens, before which it counts")
    n: Annotated[int, Field(ge=1, le=1)] | None = Field(None, description="1: one answer a request")
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = Field(
        None, description="a number from 0, which it is when absent, to 2"
    )
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = Field(None, description="a number above 0, up to 1")
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = Field(None, description="a whole number of 64 bits")
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = Field(
        None, description="a text or a list of up to 4, none of them empty"
    )
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = Field(None, description="a number from -2 to 2")
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = Field(None, description="a number from -2 to 2")
    logprobs: bool | None = Field(None, description="true or false")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(None, description="a whole number from 0 to 20")
    stream: bool | None = Field(None, description="true or false")
    stream_options: StreamOptions | None = Field(None, description="an object; include_usage in it is true or false")
    user: Any = Field(None, description="a text that names who asks: the same one is answered by the same release")
    metadata: Any = Field(None, description="anything: it is not read")
    store: Any = Field(None, description="anything: false keeps the words out of the product's sample of answers")
    parallel_tool_calls: Any = Field(None, description="anything: it is not read")


def _named(field: str) -> dict[str, Any]:
    return {"required": [field], "properties": {field: {"type": "string"}}}


class FeedbackRequest(BaseModel):
    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"anyOf": [_named("rating"), _named("correction"), _named("label")]},
    )
    trace_id: str = Field(pattern=r"^chatcmpl-[0-9a-f]{32}$", description="the id of an answer: chatcmpl-...")
    rating: Literal["good", "bad"] | None = Field(None, description="'good' or 'bad'")
    correction: Annotated[str, Field(min_length=1, max_length=20_000)] | None = Field(
        None, description="a text of 1 to 20000 characters: what the answer should have been, as it would have stood"
    )
    label: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="a text of 1 to 200 characters: what the question was about; for the operator's key"
    )
    id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="a text of 1 to 200 characters of the sender's own: what is sent twice with it counts once"
    )
    user: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        None, description="a text of 1 to 1000 characters that names who says so, as `user` of a request names who asks"
    )


def check_chat(body: Mapping[str, Any]) -> None:
    """Raises `BadInput`, which names the first field that does not fit and says what it must be."""
    _check(ChatRequest, body)


def check_feedback(body: Mapping[str, Any]) -> None:
    """As `check_chat`."""
    _check(FeedbackRequest, body)
    if all(body.get(field) is None for field in ("rating", "correction", "label")):
        raise BadInput("nothing is said: name a rating, a correction or a label")


def _check(model: type[BaseModel], body: Mapping[str, Any]) -> None:
    if unknown := sorted(body.keys() - model.model_fields.keys()):
        raise BadInput(f"the field {unknown[0][:64]!r} is not accepted")
    try:
        model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field, *inner = (str(part) for part in first["loc"])
        where = f" ({'.'.join([field, *inner])}: {first['msg']})" if inner and inner[0].isdecimal() else ""
        raise BadInput(f"{field} must be {model.model_fields[field].description}{where}") from None


class Provenance(BaseModel):
    """What answered: digests, of which ``release`` and ``adapter`` are null where the base did, and ``export`` where no
    merged weights did."""

    route: Literal["champion", "challenger", "base"]
    reason: str
    release: str | None
    base: str
    adapter: str | None
    export: str | None
    template: str
    trace_id: str


class AnswerMessage(BaseModel):
    model_config = _OPEN
    role: Literal["assistant"]
    content: str | None


class Choice(BaseModel):
    model_config = _OPEN
    index: int
    message: AnswerMessage
    finish_reason: str | None


class Usage(BaseModel):
    model_config = _OPEN
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    model_config = _OPEN
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    assay: Provenance


class FeedbackTaken(BaseModel):
    """``id`` is the feedback's in queues and logs; the same for what is sent again."""

    id: str
    trace_id: str


class ModelCard(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]


class Health(BaseModel):
    healthy: bool
    detail: str = ""


ErrorKind = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]


class Problem(BaseModel):
    message: str
    type: ErrorKind
    param: None
    code: str


class Error(BaseModel):
    error: Problem
