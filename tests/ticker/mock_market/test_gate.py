"""Who speaks for an underlying: never both sides, and nothing is left out uncounted."""

import math
from collections import Counter
from typing import Any

import pytest

from tests.ticker.synthetic import (
    ALPHA,
    CHAIN,
    FORWARD,
    INDEX,
    MARKET,
    NOW,
    Packet,
    chain_packets,
    create_frame,
    create_future,
    create_market_engine,
    payloads,
)
from ticker.engine import Engine, Enriched
from ticker.messages import MOCK_CONNECTION, Frame
from ticker.mock_market.gate import MockGate
from ticker.ticks import PacketKind

pytestmark = pytest.mark.usefixtures("compiled_engine")

CRUDE = create_future(900, "CRUDEOIL", exchange="MCX", segment=7)
DAY_S = 86_400.0


class Hours:
    """Markets closed by name, whatever the time, each of them until a time of its own."""

    def __init__(self, *closed: str) -> None:
        self.closed = set(closed)
        self.until: dict[str, float] = {}

    def is_closed(self, underlying: str, now: float) -> bool:
        del now
        return underlying in self.closed

    def closed_until(self, underlying: str, now: float) -> float:
        return self.until.get(underlying, now + DAY_S)


def create_engine(hours: Hours, **kwargs: Any) -> Engine:
    gate = MockGate(hours.is_closed, hours.closed_until)
    return create_market_engine([*MARKET, CRUDE], gate=gate, **kwargs)


def live(*packets: Packet, at: float = NOW) -> Frame:
    return create_frame(packets, at)


def mock(*packets: Packet, at: float = NOW) -> Frame:
    frame = create_frame(packets, at, MOCK_CONNECTION)
    return Frame(frame.data, frame.received_at, frame.connection, is_mock=True)


def index(price: float = 25_000.0) -> Packet:
    return Packet(INDEX, price, PacketKind.INDEX_FULL)


def flags(enriched: Enriched) -> list[tuple[str, bool]]:
    rows = payloads(enriched.snapshots)
    return [(row["tradingsymbol"], row["is_mock"]) for row in rows if not row["repriced"]]


def assert_accounted(enriched: Enriched) -> None:
    told: Counter[Any] = Counter()
    if enriched.snapshots is not None:
        for source in enriched.snapshots.sources.tolist():
            if source >= 0:
                told[enriched.snapshots.connections[source]] += 1
    for (connection, _), count in enriched.dropped.items():
        told[connection] += count
    assert told == Counter(enriched.decoded)


def test_a_mock_tick_of_an_open_market_is_dropped_and_counted() -> None:
    engine = create_engine(Hours())
    enriched = engine.process([mock(index()), live(index(25_001.0))], NOW)
    assert flags(enriched) == [("NIFTY 50", False)]
    assert enriched.dropped == {(MOCK_CONNECTION, "market_open"): 1}
    assert_accounted(enriched)


def test_live_ticks_pass_in_closed_hours_until_the_mock_market_has_spoken() -> None:
    engine = create_engine(Hours("NIFTY"))
    assert flags(engine.process([live(index())], NOW)) == [("NIFTY 50", False)]
    assert flags(engine.process([mock(index(25_001.0))], NOW)) == [("NIFTY 50", True)]
    enriched = engine.process([live(index()), mock(index(25_002.0))], NOW)
    assert flags(enriched) == [("NIFTY 50", True)]
    assert enriched.dropped == {(ALPHA, "market_closed"): 1}
    assert_accounted(enriched)
    enriched = engine.process([live(index())], NOW)
    assert flags(enriched) == []
    assert_accounted(enriched)


def test_at_the_opening_nothing_mock_is_published_or_priced_from_any_more() -> None:
    hours = Hours("NIFTY")
    engine = create_engine(hours)
    engine.process([mock(index(), *chain_packets())], NOW)
    hours.closed.clear()
    call = chain_packets()[40]
    enriched = engine.process(
        [mock(*chain_packets(), at=NOW + 10), live(index(25_100.0), call, at=NOW + 10)], NOW + 10
    )
    rows = payloads(enriched.snapshots)
    assert [row["tradingsymbol"] for row in rows] == ["NIFTY 50", call.instrument.tradingsymbol]
    assert not any(row["is_mock"] for row in rows)
    assert rows[1]["forward_source"] == "carry", "no mock quote is left for parity"
    assert enriched.dropped == {(MOCK_CONNECTION, "market_open"): len(CHAIN)}
    assert_accounted(enriched)


def test_at_the_closing_no_live_quote_prices_mock_ticks() -> None:
    engine = create_engine(Hours("NIFTY"))
    engine.process([live(index(), *chain_packets())], NOW)
    moved = 25_300.0
    some = [packet for packet in chain_packets(moved) if packet.instrument.strike >= 25_900]
    rows = payloads(engine.process([mock(index(moved), *some, at=NOW + 5)], NOW + 5).snapshots)
    assert len(rows) == 1 + len(some), "nothing of before is priced again"
    assert all(row["is_mock"] for row in rows)
    assert all(abs(row["forward"] - moved) < 100 for row in rows[1:])


def test_no_forward_of_before_stands_against_mock_quotes() -> None:
    """Wide quotes cannot tell a small move from none: among live ones, the last forward stands."""
    engine = create_engine(Hours("NIFTY"))
    engine.process([live(index(), *chain_packets())], NOW)
    wide, at = chain_packets(FORWARD + 2, half_spread=5.0), NOW + 0.1
    rows = payloads(engine.process([mock(index(), *wide, at=at)], at).snapshots)
    near = [row for row in rows[1:] if abs(row["strike"] - FORWARD) < 200]
    assert all(row["forward"] == pytest.approx(FORWARD + 2, abs=0.5) for row in near)


def test_repriced_messages_say_what_their_price_is() -> None:
    """An option whose tick was mock is re-priced as mock; a live one as live."""
    for frame, is_mock in ((mock, True), (live, False)):
        engine = create_engine(Hours("NIFTY"))
        engine.process([frame(index(), *chain_packets())], NOW)
        far = FORWARD + 40
        again = [
            packet for packet in chain_packets(far) if abs(packet.instrument.strike - far) < 300
        ]
        enriched = engine.process([frame(index(far), *again, at=NOW + 5)], NOW + 5)
        repriced = [row for row in payloads(enriched.snapshots) if row["repriced"]]
        assert repriced
        assert {row["is_mock"] for row in repriced} == {is_mock}


def test_underlyings_are_let_through_one_by_one() -> None:
    engine = create_engine(Hours("CRUDEOIL"))
    enriched = engine.process([mock(index(), Packet(CRUDE, 5_000.0)), live(index())], NOW)
    assert flags(enriched) == [(CRUDE.tradingsymbol, True), ("NIFTY 50", False)]
    assert_accounted(enriched)


def valid_until(enriched: Enriched) -> dict[tuple[str, bool], set[float]]:
    """Of the messages of an underlying, mock or not."""
    assert enriched.snapshots is not None
    found: dict[tuple[str, bool], set[float]] = {}
    rows = payloads(enriched.snapshots)
    for row, until in zip(rows, enriched.snapshots.valid_until.tolist(), strict=True):
        found.setdefault((row["symbol"], row["is_mock"]), set()).add(until)
    return found


def test_mock_messages_are_valid_until_the_first_opening_and_live_ones_always() -> None:
    hours = Hours("NIFTY", "CRUDEOIL")
    hours.until = {"NIFTY": NOW + 10, "CRUDEOIL": NOW + 50}
    engine = create_engine(hours)
    crude = Packet(CRUDE, 5_000.0)
    enriched = engine.process([mock(index(), *chain_packets()), live(crude)], NOW)
    assert valid_until(enriched) == {("NIFTY", True): {NOW + 10}, ("CRUDEOIL", False): {math.inf}}
    enriched = engine.process([mock(crude, at=NOW + 1)], NOW + 1)
    assert valid_until(enriched) == {("CRUDEOIL", True): {NOW + 10}}, "NIFTY may be priced again"
    hours.closed.discard("NIFTY")
    enriched = engine.process([mock(crude, at=NOW + 11), live(index(), at=NOW + 11)], NOW + 11)
    assert valid_until(enriched) == {
        ("CRUDEOIL", True): {NOW + 50},
        ("NIFTY", False): {math.inf},
    }


def test_what_is_priced_again_is_valid_as_long_as_its_tick() -> None:
    for frame, is_mock in ((mock, True), (live, False)):
        hours = Hours("NIFTY")
        hours.until = {"NIFTY": NOW + 10}
        engine = create_engine(hours)
        engine.process([frame(index(), *chain_packets())], NOW)
        far = FORWARD + 40
        near = [each for each in chain_packets(far) if abs(each.instrument.strike - far) < 300]
        enriched = engine.process([frame(index(far), *near, at=NOW + 5)], NOW + 5)
        assert enriched.repriced
        expected = NOW + 10 if is_mock else math.inf
        assert valid_until(enriched) == {("NIFTY", is_mock): {expected}}


def test_unsound_mock_ticks_are_no_first_word() -> None:
    engine = create_engine(Hours("NIFTY"))
    enriched = engine.process([mock(index(-1.0))], NOW)
    assert enriched.dropped == {(MOCK_CONNECTION, "invalid"): 1}
    assert flags(engine.process([live(index())], NOW)) == [("NIFTY 50", False)]


def test_without_a_gate_both_pass_and_say_what_they_are() -> None:
    engine = create_market_engine(MARKET)
    replayed = create_frame([index()])
    frames = [Frame(replayed.data, NOW, ALPHA, is_mock=True), live(index())]
    assert flags(engine.process(frames, NOW)) == [("NIFTY 50", True), ("NIFTY 50", False)]


def test_mock_messages_go_to_their_own_channels_if_there_is_a_suffix() -> None:
    engine = create_engine(Hours("NIFTY"), mock_suffix=":mock")
    for frame, suffix in ((live, b""), (mock, b":mock")):
        snapshots = engine.process([frame(index(), chain_packets()[40])], NOW).snapshots
        assert snapshots is not None
        channels = [
            bytes(snapshots.buffer[begin:end]).split(b"\r\n")[4]
            for begin, end in zip(snapshots.starts, snapshots.payload_starts, strict=False)
        ]
        assert channels == [b"ticker:nifty:underlying" + suffix, b"ticker:nifty:options" + suffix]


def test_what_is_forgotten_is_as_if_it_had_never_ticked() -> None:
    hours = Hours("NIFTY")
    engine, fresh = create_engine(hours), create_engine(hours)
    packets = [index(), *chain_packets()]
    engine.process([mock(*packets)], NOW)
    hours.closed.clear()
    engine.process([live(Packet(CRUDE, 5_000.0))], NOW)
    tokens = [packet.instrument.instrument_token for packet in packets]
    assert engine.newest(tokens) == {}
    again, first = (
        each.process([live(*packets, at=NOW + DAY_S)], NOW + DAY_S) for each in (engine, fresh)
    )
    drop = ("seq",)
    rows = [
        [{name: row[name] for name in row if name not in drop} for row in payloads(each.snapshots)]
        for each in (again, first)
    ]
    assert rows[0] == rows[1]


def test_the_newest_values_are_those_of_the_last_tick() -> None:
    engine = create_engine(Hours("NIFTY"))
    engine.process([live(index(), *chain_packets())], NOW)
    option = CHAIN[40]
    newest = engine.newest([INDEX.instrument_token, option.instrument_token, 12345])
    assert newest.keys() == {INDEX.instrument_token, option.instrument_token}
    assert newest[INDEX.instrument_token].price == 25_000.0
    assert newest[option.instrument_token].forward == pytest.approx(FORWARD, abs=0.02)
    assert not newest[option.instrument_token].is_mock
    engine.process([mock(index(25_010.0))], NOW)
    assert engine.newest([INDEX.instrument_token])[INDEX.instrument_token].is_mock
