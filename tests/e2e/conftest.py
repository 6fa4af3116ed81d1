"""One installation on a tiny model, made by the commands that a user types, shared by the tests that say so."""

from collections.abc import Iterator

import pytest

from tests.support.installation import Installation, tiny_installation


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = tiny_installation(tmp_path_factory.mktemp("installation"))
    made.write_product(seed=1)
    yield made
    made.assay("down")
