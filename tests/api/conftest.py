"""What is logged while a test runs."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture
def lines() -> Iterator[list[structlog.typing.EventDict]]:
    found: list[structlog.typing.EventDict] = []

    def keep(_: object, __: str, event: structlog.typing.EventDict) -> str:
        found.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    yield found
    structlog.reset_defaults()
