"""A model registry in memory, for every test that does not test MLflow."""

from collections.abc import Mapping
from pathlib import Path

from data_contracts.digests import Digest
from data_contracts.errors import Missing


class FakeRegistry:
    """Like the real one it moves an alias only to what was registered. ``down``: nobody answers."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, Digest], set[str]] = {}
        self.aliases: dict[tuple[str, str], Digest] = {}
        self.tags: dict[tuple[str, Digest], str] = {}
        self.down = False

    def register(self, product: str, release: Digest, files: Mapping[str, Path], tags: Mapping[str, str]) -> str:
        assert all(path.exists() for path in files.values())
        self.versions.setdefault((product, release), set(files))
        return str(list(self.versions).index((product, release)) + 1)

    def alias(self, product: str, name: str) -> Digest | None:
        if self.down:
            raise ConnectionError("the registry is down")
        return self.aliases.get((product, name))

    def states(self, product: str) -> Mapping[Digest, str | None]:
        if self.down:
            raise ConnectionError("the registry is down")
        return {release: self.tags.get((name, release)) for name, release in self.versions if name == product}

    def set_state(self, product: str, release: Digest, state: str) -> None:
        self.tags[product, release] = state

    def set_alias(self, product: str, name: str, release: Digest | None) -> None:
        if release is None:
            self.aliases.pop((product, name), None)
        elif (product, release) in self.versions:
            self.aliases[product, name] = release
        else:
            raise Missing(f"release {release} is not in the registry")
