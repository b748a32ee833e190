"""Pages that follow by the last row's token."""

from urllib.parse import urlencode

import msgspec
from quart import request


def next_page(query: msgspec.Struct, *, after: int) -> str:
    """The ``Link`` header to what follows this page. ``query``: what the page was asked with."""
    given = {**msgspec.to_builtins(query), "after": after, "offset": None}
    text = urlencode({name: value for name, value in given.items() if value is not None})
    return f'<{request.path}?{text}>; rel="next"'
