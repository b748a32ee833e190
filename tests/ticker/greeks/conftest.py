import pytest

from ticker.greeks.kernel import warm_up


@pytest.fixture(scope="session", autouse=True)
def _compiled_kernel() -> None:
    """Compile before the first test's clock runs."""
    warm_up()
