"""The chain that ``watch`` shows."""

from typing import Any

from rich.console import Console

from ticker.chains.watched import Chain

NOW = 1_795_000_000.0


def option(strike: float, kind: str, **changes: Any) -> dict[str, Any]:
    payload = {
        "symbol": "NIFTY",
        "type": kind,
        "strike": strike,
        "expiry": "2026-11-24",
        "price": 101.5,
        "iv": 0.1312,
        "delta": 0.512,
        "oi": 1_234_567,
        "forward": 25_040.0,
        "received_ts": NOW - 1,
        "is_mock": True,
    }
    return payload | changes


def shown(chain: Chain, now: float = NOW) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(chain.table(now))
    return captured.get()


def test_strikes_in_order_calls_left_puts_right_in_eighty_columns() -> None:
    chain = Chain("NIFTY")
    chain.add({"symbol": "NIFTY", "last_price": 25_013.35})
    chain.add(option(25_050, "PE", price=7.25))
    chain.add(option(25_000, "CE"))
    chain.add(option(25_000, "PE", price=55.05, iv=None, delta=None))
    text = shown(chain)
    assert "spot 25,013.35" in text
    assert "forward 25,040.00" in text
    assert "SIMULATED" in text
    assert "…" not in text
    first, second = (line for line in text.splitlines() if "250" in line and "spot" not in line)
    assert " ".join(first.split()) == "1.2M 0.512 13.12 101.50 1.0s 25000 1.0s 55.05 - - 1.2M"
    assert " ".join(second.split()) == "- - - - - 25050 1.0s 7.25 13.12 0.512 1.2M"


def test_the_widest_values_fit() -> None:
    chain = Chain("BANKNIFTY")
    for kind, delta in (("CE", 0.123), ("PE", -0.999)):
        values = {"price": 12_345.65, "oi": 12_345_678, "iv": 0.9912, "delta": delta}
        chain.add(option(123_450, kind, symbol="BANKNIFTY", received_ts=NOW - 99.5, **values))
    text = shown(chain)
    assert "…" not in text
    assert text.count("12,345.65") == 2


def test_the_nearest_expiry_is_shown_unless_one_is_chosen() -> None:
    for wanted, expected in ((None, "2026-11-24"), ("2026-12-01", "2026-12-01")):
        chain = Chain("NIFTY", wanted)
        chain.add(option(25_000, "CE", expiry="2026-12-01"))
        chain.add(option(25_000, "CE"))
        assert chain.shown_expiry() == expected


def test_other_underlyings_and_unpriced_messages_do_no_harm() -> None:
    chain = Chain("NIFTY")
    chain.add(option(25_000, "CE", symbol="BANKNIFTY"))
    chain.add({"type": "gap", "reason": "redis"})
    chain.add({"symbol": "NIFTY", "type": "FUT", "expiry": "2026-11-24"})
    chain.add(option(25_000, "CE", iv=None, delta=None, oi=None, forward=None, is_mock=False))
    text = shown(chain)
    assert "SIMULATED" not in text
    assert "forward -" in text


def test_what_is_missing_is_said_until_it_is_there() -> None:
    chain = Chain("NIFTY")
    chain.add(option(25_000, "CE", symbol="BANKNIFTY"))
    chain.add({"symbol": "NIFTY", "last_price": 25_013.35})
    assert chain.lacks() == "no option of NIFTY"
    chain.add(option(25_000, "CE"))
    assert chain.lacks() == ""
    chain.expiry = "2026-01-01"
    assert chain.lacks() == "no option of 2026-01-01 (but 2026-11-24)"
    chain.expiry = "2026-11-24"
    assert chain.lacks() == ""
