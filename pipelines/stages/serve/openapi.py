"""The gateway's OpenAPI description: what can be asked of it, and every status that it answers with."""

from typing import Any

from pydantic.json_schema import models_json_schema

from pipelines.stages.serve import schema

_REFS = "#/components/schemas/{model}"
_SENT: tuple[type[Any], ...] = (schema.ChatRequest, schema.FeedbackRequest)
_GOT: tuple[type[Any], ...] = (
    *(schema.ChatCompletion, schema.FeedbackTaken, schema.ModelList, schema.Health, schema.Error),
)

_STATUSES = {
    400: "a field is not understood, or the prompt is too long; the message names the field",
    401: "no key, or one that is not known",
    403: "this is for the operator's key, or the product takes no feedback",
    404: "no such product or answer for this key",
    409: "not the challenger of this product now",
    410: "the sunset of the live release has come, or its tenant was shredded",
    413: "the body is too large",
    422: "an answer that is held to JSON did not end within max_tokens",
    429: "over a limit of the tenant's or the gateway's: x-assay-limit names it, Retry-After says when to ask again",
    502: "the model server failed",
    503: "the model server is starting, or what is live cannot be verified",
}


def description() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    models = [(model, "validation") for model in _SENT] + [(model, "serialization") for model in _GOT]
    _, definitions = models_json_schema(models, ref_template=_REFS)  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Assay gateway", "version": "1"},
        "security": [{"key": []}],
        "paths": {
            "/v1/chat/completions": {
                "post": {
                    "operationId": "chat",
                    "requestBody": {"required": True, "content": _json("ChatRequest")},
                    "parameters": [_CHALLENGER],
                    "responses": {
                        "200": _response(
                            "An answer, or its chunks as server-sent events where `stream` is true",
                            _json("ChatCompletion") | {"text/event-stream": {"schema": _EVENT}},
                        )
                    }
                    | _errors(*_STATUSES),
                }
            },
            "/v1/feedback": {
                "post": {
                    "operationId": "feedback",
                    "requestBody": {"required": True, "content": _json("FeedbackRequest")},
                    "responses": {"202": _response("Taken; sent again, it counts once", _json("FeedbackTaken"))}
                    | _errors(400, 401, 403, 404, 410, 413, 429, 503),
                }
            },
            "/v1/models": {
                "get": {
                    "operationId": "models",
                    "responses": {"200": _response("The products of this key's tenant", _json("ModelList"))}
                    | _errors(401, 503),
                }
            },
            "/v1/load": {
                "get": {
                    "operationId": "load",
                    "responses": {
                        "200": _response("What goes on, and what each tenant has used", {"application/json": _OBJECT})
                    }
                    | _errors(401, 403),
                }
            },
            "/healthz": {
                "get": {
                    "operationId": "health",
                    "security": [],
                    "responses": {
                        "200": _response("Requests can be told who answers", _json("Health")),
                        "503": _response("They cannot", _json("Health")),
                    },
                }
            },
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "responses": {
                        "200": _response("For Prometheus", {"text/plain": {"schema": {"type": "string"}}}),
                    }
                    | _errors(401, 403),
                }
            },
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


_OBJECT = {"schema": {"type": "object"}}
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "description": "a chat.completion.chunk, an error, or [DONE]"}},
}
_CHALLENGER = {
    "name": "x-assay-challenger",
    "in": "header",
    "description": "a release under canary that shall answer; for the operator's key",
    "schema": {"type": "string"},
}


def _json(model: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFS.format(model=model)}}}


def _response(text: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": content}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): _response(_STATUSES[status], _json("Error")) for status in statuses}
