"""A broker whose REST API answers rubbish: the whole service goes on, and says what is wrong."""

import pytest
import trio

from tests.integration.control import assert_problem
from tests.integration.live import Live, open_live
from ticker.instruments.registry import COLUMNS

pytestmark = pytest.mark.slow

HEADER = ",".join(COLUMNS).encode() + b"\n"
DEEP = b"[" * 100_000 + b"]" * 100_000
RUBBISH = (
    b"",
    b"x",  # less than a line
    b"<html>\n<body>\n",
    b"a\rb,c\n",
    b"\0\xff\xfe" * 100,
    HEADER,
    HEADER + b"\xff\0,,,\n" + b'"' * 5000,
    HEADER + b"9,1,A,NIFTY,0,0001-01-01,9" + b"0" * 400 + b",1,1,CE,NFO-OPT,NFO\n",
    DEEP,
    b'{"data": {"more": ' + DEEP + b"}}",
    b'{"data": {"candles": [["2026-13-01T09:15:00+0530", 1, 1, 1, 1, 1e300]]}}',
    b'{"data": {"candles": [["0001-01-01T00:00:00+0530", 1, 1, 1, 1, 1]]}}',
    b'{"data": {"NSE:NIFTY 50": {"instrument_token": 1, "last_price": 1e400}}}',
)


async def refresh(live: Live) -> dict[str, object]:
    answer = await live.api.post("/admin/instrument-refresh", params={"force": True})
    assert answer.status_code == 200, answer.text
    told: dict[str, object] = answer.json()
    return told


async def test_rubbish_in_place_of_answers_ends_nothing_and_is_told() -> None:
    day = {"from_ts": "2026-11-19", "to_ts": "2026-11-20"}
    async with open_live(accounts=2) as live:
        listed = live.status.instruments.instruments
        handshakes = (await live.simulator.get("ledger"))["handshakes"]
        for body in RUBBISH:
            await live.simulator.inject("rest", status=200, body="junk", hex=body.hex())
            told = await refresh(live)
            assert (told["refreshed"], bool(told["reason"])) == (False, True), body[:40]
            candles = await live.api.get("/history", params={"instrument_token": 256265, **day})
            assert_problem(candles, candles.status_code, candles.json()["type"].split("/")[-1])
            assert candles.status_code in (502, 503), "503: the circuit has opened"
            await live.simulator.heal()
            await live.wait_ticks()
        assert live.status.instruments.instruments == listed
        health = (await live.api.get("/health")).json()
        assert set(health["dependencies"]["instrument_registry"]["problems"]) >= {"NSE", "NFO"}
        assert (await live.simulator.get("ledger"))["handshakes"] == handshakes
        with trio.fail_after(90):  # the circuits close by themselves
            while (await refresh(live))["reason"] is not None:  # noqa: ASYNC110 - asks the service
                await trio.sleep(1)
        assert live.status.instruments.problems == {}
