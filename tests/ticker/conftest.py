"""Fixtures of the package's tests."""

import pytest

from tests.ticker.synthetic import MARKET, create_market_engine


@pytest.fixture(scope="session")
def compiled_engine() -> None:
    """Everything that the engine compiles, so that no test's own time is a compiler's."""
    create_market_engine(MARKET).warm_up()
