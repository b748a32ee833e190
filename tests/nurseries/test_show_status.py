"""What is announced at the start."""

import pytest

from nurseries.show_status import announce
from ticker.settings import Settings


@pytest.mark.parametrize(
    ("database_url", "redis_url", "shown"),
    [
        ("postgresql://u:CANARY@db:5432/x", "redis://:CANARY@r:1/0", "//u@db:5432/x //r:1/0"),
        (
            "postgresql://u@/x?host=/run&password=CANARY",
            "redis://r?db=1",
            "//u@/x?host=/run //r?db=1",
        ),
        ("postgresql://db/x?sslpassword=CANARY", "redis://r?password=CANARY", "//db/x //r"),
        ("postgresql://db/x", "unix:///run/r.sock?db=1", "//db/x ///run/r.sock?db=1"),
    ],
)
def test_addresses_are_announced_without_passwords(
    database_url: str, redis_url: str, shown: str
) -> None:
    lines = list(announce(Settings(database_url=database_url, redis_url=redis_url), "http://us"))
    assert "CANARY" not in "".join(lines)
    words = {line.split()[-1].partition(":")[2] for line in lines}
    assert set(shown.split()) <= words
