"""What the server reads of a golden is, token by token, what the trainer taught as the prompt of such a row."""

import httpx
from transformers import AutoTokenizer

from data_contracts.manifests import BaseManifest
from data_contracts.records import ChatExample, Message
from evals.answers import words
from evals.decoding import as_served
from evals.suite import CallItem, load_suites
from pipelines.recipes.product import load_product
from pipelines.stages.serve.answer import as_openai_tools, tools_of
from pipelines.stages.train.rows import rendered
from pipelines.wiring import Line
from resources.vllm_server import VllmServer


def test_trainer_evaluation_and_server_see_the_same_tokens(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest
) -> None:
    product = load_product("billing-assistant")
    template = product.file("template", product.template).read_text()
    tokenizer = AutoTokenizer.from_pretrained(tiny_line.store.tree(tiny_base_manifest.tree))
    tokenizer.chat_template = template
    items = [item for suite in load_suites(product) for item in suite.items() if isinstance(item, CallItem)]
    for item in items[::30]:
        question, answer = Message(role="user", content=item.text), Message(role="assistant", content=words("No."))
        taught = rendered(tokenizer, ChatExample(messages=(question, answer), tools=item.offered()))[0]
        prompt = taught["input_ids"][: taught["assistant_masks"].index(1)]
        body = {"model": tiny_vllm.base_name()} | as_served(product).question(template, item)
        asked = body | {"max_tokens": 1, "return_token_ids": True}
        read = httpx.post(f"{tiny_vllm.url()}/chat/completions", json=asked, timeout=120).raise_for_status().json()
        assert read["prompt_token_ids"] == prompt, item.id
        assert tools_of({"tools": as_openai_tools(item.offered())}) == item.offered(), "the gateway's clients"
