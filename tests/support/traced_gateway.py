"""A gateway that can be killed: a program of its own, on a home that is there, before a model server that answers."""

import logging
import sys
from pathlib import Path

import uvicorn

from pipelines.stages.serve.gateway import make_gateway
from tests.support.serving import FakeParts, fake_vllm, tiny_product


def main(home: Path, traces: str, port: int) -> None:
    logging.basicConfig(level=logging.WARNING)
    parts, product = FakeParts(home, traces), tiny_product(home / "product")
    app = make_gateway(parts, lambda: [product], reconcile_seconds=0)
    with fake_vllm(parts.server):
        uvicorn.run(app, host="127.0.0.1", port=port, http="h11", log_level="critical")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
