"""Origins of web pages, as settings name them and browsers write them (RFC 6454)."""

import re
from collections.abc import Iterable
from typing import Final

LOCAL_ORIGINS: Final = tuple(
    f"http://{host}:{port}" for host in ("localhost", "127.0.0.1") for port in (3000, 5173, 8080)
)
"""Where a dashboard in development is served from: its tools' own ports."""

_ORIGIN: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?/?"
)
_OWN_PORTS: Final = {"http": 80, "https": 443}
_PORT_MAX: Final = 65535


def parse_origins(value: str | Iterable[object]) -> tuple[str, ...]:
    """Origins from a list of them, or from a text that holds one, in brackets or not.

    Each as browsers write it: in lower case, without the scheme's own port; none twice. Raises
    ValueError, which does not quote it, for what is no origin: ``*`` is none.
    """
    if isinstance(value, str):
        text = value.strip()
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        value = [name for part in inner.split(",") if (name := part.strip().strip("\"'"))]
    return tuple(dict.fromkeys(_to_origin(str(name)) for name in value))


def _to_origin(text: str) -> str:
    found = _ORIGIN.fullmatch(text.lower())
    port = int(found["port"] or _OWN_PORTS[found["scheme"]]) if found else 0
    if found is None or not 0 < port <= _PORT_MAX:
        raise ValueError(
            "must be origins, comma separated: scheme, host and port without a path, such as "
            "https://dashboard.example.com, and no *"
        )
    origin = f"{found['scheme']}://{found['host']}"
    return origin if port == _OWN_PORTS[found["scheme"]] else f"{origin}:{port}"
