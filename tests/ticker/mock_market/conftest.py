"""Fixtures of the mock market's tests."""

import pytest

from tests.ticker.mock_market.rig import seeded
from tests.ticker.synthetic import NOW


@pytest.fixture(scope="package", autouse=True)
def _compiled() -> None:
    """Everything that a step compiles, so that no test's own time is a compiler's."""
    seeded().step(NOW)
