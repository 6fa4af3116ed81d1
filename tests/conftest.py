"""What all tests share: property tests that fail for what the code does, never for how busy the machine is; and where
a table store may be."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgres import new_database, postgres

settings.register_profile("assay", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("assay")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Empty for SQLite, else of a database of this test's own on a real PostgreSQL server."""
    return "" if request.param == "sqlite" else new_database(request.getfixturevalue("postgres_url"))
