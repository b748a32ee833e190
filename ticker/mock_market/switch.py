"""Whether the mock market may speak."""

import datetime as dt

import msgspec


class MockSwitch(msgspec.Struct, frozen=True):
    """``at``: when it was last switched over the API, UTC, and ``by`` whom; None: never, and it is
    as it is configured.
    """

    is_on: bool
    at: dt.datetime | None = None
    by: str | None = None
