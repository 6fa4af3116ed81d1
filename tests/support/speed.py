"""A small line whose product names a speed test, before a server that streams."""

from pathlib import Path
from typing import Any

import yaml

from tests.support.line import FakeServer, SmallLine
from tests.support.streaming import StreamingServer

TEST = {"name": "small-speed", "description": "made up", "requests": 16, "concurrency": 4, "warm_up": 3}
"""Of 24 questions; the bounds are beyond what any machine takes."""
BOUNDS = {"first_token_ms": 600_000, "token_ms": 600_000, "times": 1_000_000}


class SpeedLine:
    def __init__(self, folder: Path, server: StreamingServer, name: str = "small") -> None:
        self.server = server
        self.small = SmallLine(folder / "small", name)
        self.folder = folder / "small"
        self.vllm = FakeServer()
        self.vllm.url = lambda: server.url  # type: ignore[method-assign]
        self.small.server = self.vllm
        self.small.parts.__dict__.update(server=self.vllm)
        self.write()

    def write(self, **changes: Any) -> Path:
        """The speed test with these changes; its file."""
        test = TEST | BOUNDS | {"suite": str(self.folder / "suite.yaml")} | changes
        path = self.folder / "speed.yaml"
        path.write_text(yaml.safe_dump(test))
        product = self.folder / "products" / f"{self.small.product.name}.yaml"
        product.write_text(yaml.safe_dump(yaml.safe_load(product.read_text()) | {"speed": str(path)}))
        self.small.product = self.small.parts.product(self.small.product.name)
        return path

    def gate_by(self, *criteria: dict[str, Any]) -> None:
        """The gate's policy with these criteria besides."""
        path = self.folder / "gate.yaml"
        policy = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(policy | {"criteria": [policy["criteria"][0], *criteria]}))
