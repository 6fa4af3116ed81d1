"""From a client's chat request to the one that vLLM gets: which adapter, whose template, what may be asked.

Gateway, canary and demo build their requests here, so that a canary judges what clients will get.
"""

from collections.abc import Mapping
from typing import Any, Literal

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import BadInput, Refused, Tampered, Unavailable
from data_contracts.frozen import Frozen
from data_contracts.manifests import BaseManifest, ModelManifest, ReleaseManifest
from data_contracts.records import ToolSpec
from data_contracts.store import ArtifactStore
from evals.answers import constraint
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.schema import check_chat

PASSED_ON = {
    *("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty"),
    *("logprobs", "top_logprobs", "response_format"),
}


class Target(Frozen):
    """Who answers, fixed when a request begins. ``adapter`` is ``None`` for the base, which answers when there is no
    champion; ``reason`` then says so. ``export`` names the merged weights that answer in the adapter's place, asked for
    as ``merged``. ``cohort``: see `Trace`."""

    product: str
    route: Literal["champion", "challenger", "base"]
    reason: str
    release: Digest | None
    base: Digest
    adapter: Digest | None
    export: Digest | None = None
    merged: str | None = None
    template: Digest
    max_tokens: int
    cohort: str | None = None

    def provenance(self, trace_id: str) -> dict[str, str | None]:
        """What every answer carries."""
        named = self.model_dump(include={"route", "reason", "release", "base", "adapter", "export", "template"})
        return named | {"trace_id": trace_id}

    @property
    def probes(self) -> bool:
        """It is a canary's own question, which no other release may answer."""
        return self.route == "challenger" and self.cohort is None

    def as_adapter(self) -> "Target":
        """The same release, not from its merged weights."""
        return self.model_copy(update={"export": None, "merged": None})

    def of_cohort(self, cohort: str | None) -> "Target":
        return self.model_copy(update={"cohort": cohort})


def target(parts: Parts, product: Product, release: Digest | None, route: Literal["champion", "challenger"]) -> Target:
    """Who answers for ``release``, or for the base where it is ``None``. Raises `Refused` for what cannot be served."""
    if release is None:
        base = parts.server.base()
        if base is None:
            raise Unavailable(f"{product.name} has no release, and no base model is served yet: run the line first")
        return Target(
            product=product.name,
            route="base",
            reason="no release is live: the base model answers",
            release=None,
            base=base.digest,
            adapter=None,
            template=product.template_digest(),
            max_tokens=product.serving.max_tokens,
        )
    manifest = parts.store.get_manifest(release, ReleaseManifest)
    if manifest.product != product.name or manifest.environment != product.environment:
        raise Refused(f"{release} is a release of {manifest.product}/{manifest.environment}, not of {product.name}")
    method = parts.store.get_manifest(manifest.model, ModelManifest).method
    if method in ("full", "dora"):
        raise Refused(
            f"{release} has {method} weights: it needs a vLLM server of its own, which this gateway does not run"
        )
    export, merged = parts.merged.export_of(release) or (None, None)
    return Target(
        product=product.name,
        route=route,
        reason="",
        release=release,
        base=manifest.base,
        adapter=manifest.weights,
        export=export,
        merged=merged,
        template=manifest.template,
        max_tokens=product.serving.max_tokens,
    )


def template_text(store: ArtifactStore, product: Product, digest: Digest) -> str:
    """The chat template with this digest: from the store, else the product's own file when it still has it."""
    if store.has(digest):
        return store.get_bytes(digest).decode()
    data = product.file("template", product.template).read_bytes()
    if sha256_bytes(data) != digest:
        raise Tampered(f"the template of {product.name} was changed: its file is no longer {digest}")
    return data.decode()


def base_of(store: ArtifactStore, digest: Digest) -> BaseManifest:
    return store.get_manifest(digest, BaseManifest)


def upstream_request(body: Mapping[str, Any], goal: Target, template: str) -> dict[str, Any]:
    """The body for vLLM's ``/v1/chat/completions``, but for ``model``: the adapter's name there.

    Raises `BadInput` naming the field for anything that is not understood: nothing is dropped or passed on unseen, so
    that a client cannot bring a template of its own.
    """
    check_chat(body)
    request: dict[str, Any] = {name: body[name] for name in PASSED_ON if body.get(name) is not None}
    request.setdefault("temperature", 0.0)
    tools = tools_of(body)
    if tools and "response_format" not in request:
        request["structured_outputs"] = constraint(tools, goal.max_tokens)
    request |= {
        "messages": [{"role": message["role"], "content": message["content"]} for message in body["messages"]],
        "max_tokens": _max_tokens(body, goal.max_tokens),
        "stream": bool(body.get("stream", False)),
        "chat_template": template,
        "chat_template_kwargs": {"assay_tools": [tool.model_dump() for tool in tools]},
    }
    if request["stream"]:
        request["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}  # who leaves has used some
    return request


def most_tokens(request: Mapping[str, Any]) -> int:
    """About how many tokens a request for vLLM may need: four characters a token, and the longest answer."""
    return sum(len(message["content"]) for message in request["messages"]) // 4 + int(request["max_tokens"])


def has_form(request: Mapping[str, Any]) -> bool:
    """Whether the answer to a request for vLLM is held to JSON."""
    asked = request.get("response_format") or {}
    return "structured_outputs" in request or asked.get("type") in ("json_object", "json_schema")


def tools_of(body: Mapping[str, Any]) -> tuple[ToolSpec, ...]:
    """OpenAI's ``tools`` (JSON schema) as the flat specs that templates render; none where none may be called."""
    if body.get("tool_choice") == "none":
        return ()
    return tuple(_flat(tool["function"]) for tool in body.get("tools") or ())


def _flat(function: Mapping[str, Any]) -> ToolSpec:
    arguments = (function.get("parameters") or {}).get("properties", {})
    return ToolSpec(
        name=function["name"],
        description=function.get("description", ""),
        parameters={
            name: str(schema.get("description") or schema.get("type") or name) for name, schema in arguments.items()
        },
    )


def as_openai_tools(tools: tuple[ToolSpec, ...]) -> list[dict[str, Any]]:
    """The inverse of `tools_of`: every argument is a string."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": {
                    "type": "object",
                    "properties": {
                        name: {"type": "string", "description": text} for name, text in tool.parameters.items()
                    },
                },
            },
        }
        for tool in tools
    ]


def _max_tokens(body: Mapping[str, Any], most: int) -> int:
    asked: int = body.get("max_completion_tokens") or body.get("max_tokens") or most
    if asked > most:
        raise BadInput(f"max_tokens must be 1 to {most} for this product")
    return asked
