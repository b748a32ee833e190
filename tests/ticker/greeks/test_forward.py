"""The forward of a group: from pairs, from futures, from the spot."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ticker.synthetic import (
    EXPIRY,
    NEXT_EXPIRY,
    NOW,
    RATE,
    Packet,
    book,
    create_chain,
    create_frame,
    create_future,
    create_index,
    create_market_engine,
    create_share,
    on_tick,
    process,
    true_price,
    years_to,
)
from ticker.engine import Engine
from ticker.greeks.pricing import Profile
from ticker.instruments.registry import Instrument
from ticker.ticks import PacketKind, Row

INDEX = create_index()
FUTURE = create_future(35_000)
NEXT_FUTURE = create_future(35_001, expiry=NEXT_EXPIRY)
CHAIN = create_chain(range(24_000, 26_050, 50))
MONTHLY = create_chain(range(24_000, 26_100, 100), 50_000, expiry=NEXT_EXPIRY)
MARKET = [INDEX, FUTURE, NEXT_FUTURE, *CHAIN, *MONTHLY]
FORWARD = 25_031.7


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    create_market_engine([]).warm_up()


def quotes(
    chain: list[Instrument], forward: float, now: float = NOW, **kwargs: Any
) -> list[Packet]:
    return [Packet(each, on_tick(true_price(each, forward, now=now)), **kwargs) for each in chain]


def ask(engine: Engine, option: Instrument, at: float) -> dict[str, Any]:
    """An option's payload when only its volume has changed, so that no price tells anything."""
    [payload, *_] = process(engine, [Packet(option, 1.0, PacketKind.LTP)], at)
    return payload


@settings(max_examples=25, deadline=None)
@given(forward=st.floats(24_100, 25_900))
def test_parity_recovers_the_forward_anywhere_in_the_chain(forward: float) -> None:
    engine = create_market_engine(MARKET)
    payload = process(engine, quotes(CHAIN, forward))[-1]
    assert payload["forward"] == pytest.approx(forward, abs=0.03)


def test_every_expiry_has_its_own() -> None:
    engine = create_market_engine(MARKET)
    near, far = FORWARD, FORWARD + 130
    payloads = process(engine, [*quotes(CHAIN, near), *quotes(MONTHLY, far)])
    assert payloads[0]["forward"] == pytest.approx(near, abs=0.03)
    assert payloads[-1]["forward"] == pytest.approx(far, abs=0.05)


def test_parity_needs_no_spot_and_no_future_and_finds_the_money_by_itself() -> None:
    payload = process(create_market_engine(CHAIN), quotes(CHAIN, 24_312.0))[0]
    assert payload["forward"] == pytest.approx(24_312.0, abs=0.03)
    assert payload["underlying_price"] is None


@pytest.mark.parametrize("jump", [-600.0, -90.0, 30.0, 777.0])
def test_parity_follows_a_jump(jump: float) -> None:
    engine = create_market_engine(MARKET)
    process(engine, quotes(CHAIN, FORWARD))
    payload = process(engine, quotes(CHAIN, FORWARD + jump), NOW + 0.25)[0]
    assert payload["forward"] == pytest.approx(FORWARD + jump, abs=0.03)


def test_the_money_is_looked_for_where_it_is_now() -> None:
    engine = create_market_engine(MARKET)
    process(engine, quotes(CHAIN, FORWARD))
    forward = FORWARD + 600
    packets = [
        Packet(packet.instrument, packet.price + 4 * (far > 350), half_spread=0.05 + far / 1000)
        for packet in quotes(CHAIN, forward)
        for far in (abs(packet.instrument.strike - forward),)
    ]
    odd = [packet for packet in packets if packet.instrument.instrument_type == "CE"]
    even = quotes([each for each in CHAIN if each.instrument_type == "PE"], forward)
    payload = process(engine, [*odd, *even], NOW + 0.25)[0]
    assert payload["forward"] == pytest.approx(forward, abs=0.1)


@pytest.mark.parametrize("half", ["CE", "PE"])
def test_half_a_chain_does_not_move_the_forward_halfway(half: str) -> None:
    engine = create_market_engine(MARKET)
    process(engine, quotes(CHAIN, FORWARD))
    moved = quotes(CHAIN, FORWARD + 40)
    first = [packet for packet in moved if packet.instrument.instrument_type == half]
    rest = [packet for packet in moved if packet.instrument.instrument_type != half]
    payload = process(engine, first, NOW + 0.25)[0]
    assert payload["forward"] == pytest.approx(FORWARD, abs=0.03)
    assert payload["forward_age_s"] == pytest.approx(0.25, abs=1e-3)
    payload = process(engine, rest, NOW + 0.251)[0]
    assert payload["forward"] == pytest.approx(FORWARD + 40, abs=0.03)


def test_while_half_a_chain_has_arrived_the_forward_moves_with_the_future() -> None:
    engine = create_market_engine(MARKET)
    process(engine, [Packet(FUTURE, FORWARD + 8), *quotes(CHAIN, FORWARD)])
    calls = quotes([each for each in CHAIN if each.instrument_type == "CE"], FORWARD + 250)
    payload = process(engine, [Packet(FUTURE, FORWARD + 258), *calls], NOW + 2)[-1]
    assert payload["forward"] == pytest.approx(FORWARD + 250, abs=0.05)
    assert payload["forward_source"] == "parity"
    assert payload["forward_age_s"] == pytest.approx(2, abs=1e-3), "no pair has told it yet"


@pytest.mark.parametrize("ticks_of_futures", [False, True])
@pytest.mark.parametrize("jump", [-250.0, 8.0, 250.0])
def test_a_jump_is_followed_though_spreads_widen(jump: float, ticks_of_futures: bool) -> None:
    engine = create_market_engine(MARKET)
    process(engine, [Packet(FUTURE, FORWARD), *quotes(CHAIN, FORWARD)])
    packets = quotes(CHAIN, FORWARD + jump, half_spread=10.0)
    if ticks_of_futures:
        packets.append(Packet(FUTURE, FORWARD + jump))
    payload = process(engine, packets, NOW + 1)[0]
    assert payload["forward"] == pytest.approx(FORWARD + jump, abs=1)
    assert payload["forward_age_s"] == 0


def test_what_wider_spreads_cannot_tell_from_the_last_forward_does_not_move_it() -> None:
    engine = create_market_engine(MARKET)
    process(engine, quotes(CHAIN, FORWARD))
    payload = process(engine, quotes(CHAIN, FORWARD + 3, half_spread=10.0), NOW + 1)[0]
    assert payload["forward"] == pytest.approx(FORWARD, abs=0.03)
    payload = process(engine, quotes(CHAIN, FORWARD + 3, half_spread=10.0), NOW + 25)[0]
    assert payload["forward"] == pytest.approx(FORWARD + 3, abs=0.3)


def old_trades(books: float | None) -> list[Packet]:
    """Trades two hours old at a forward 500 rupees lower; books this wide around the truth of now.

    None: sellers only.
    """
    packets = []
    for each in CHAIN:
        true = true_price(each, FORWARD)
        bid = on_tick(true * (1 - books)) if books else None
        words = book(bid, on_tick(true * (1 + (books or 0.05))))
        words[Row.LAST_TRADE_TIME] = int(NOW) - 7_200
        packets.append(Packet(each, on_tick(true_price(each, FORWARD - 500)), words=words))
    return packets


def test_wide_books_tell_more_than_old_trades() -> None:
    payload = process(create_market_engine(CHAIN), old_trades(0.15))[-1]
    assert payload["forward_source"] == "parity"
    assert payload["forward"] == pytest.approx(FORWARD, abs=2)


def test_old_trades_without_books_are_as_old_as_they_are() -> None:
    engine = create_market_engine([FUTURE, *CHAIN])
    payload = process(engine, [Packet(FUTURE, FORWARD), *old_trades(None)])[-1]
    assert payload["forward_source"] == "future"
    assert payload["forward"] == pytest.approx(FORWARD)


def test_packets_that_repeat_a_last_price_do_not_make_it_fresh() -> None:
    engine = create_market_engine(MARKET)
    process(engine, quotes(CHAIN, FORWARD, kind=PacketKind.QUOTE))
    repeated = quotes(CHAIN, FORWARD, kind=PacketKind.QUOTE)
    payload = process(engine, [Packet(FUTURE, FORWARD + 200), *repeated], NOW + 60)[-1]
    assert payload["forward_source"] == "future"
    assert payload["forward"] == pytest.approx(FORWARD + 200)


def test_locked_books_without_a_tick_size_give_a_forward() -> None:
    chain = [msgspec.structs.replace(each, tick_size=0.0) for each in CHAIN]
    payload = process(create_market_engine(chain), quotes(chain, FORWARD, half_spread=0.01))[-1]
    assert payload["forward"] == pytest.approx(FORWARD, abs=0.03)
    locked = [Packet(each.instrument, each.price, words=book(each.price, each.price))
              for each in quotes(chain, FORWARD)]  # fmt: skip
    payload = process(create_market_engine(chain), locked)[-1]
    assert payload["forward"] == pytest.approx(FORWARD, abs=0.03)
    assert payload["forward_source"] == "parity"


def test_pairs_of_the_newest_moment_win_over_older_ones() -> None:
    engine = create_market_engine(MARKET)
    process(engine, quotes(CHAIN, FORWARD))
    some = [packet for packet in quotes(CHAIN, FORWARD + 15) if packet.instrument.strike % 200 == 0]
    payload = process(engine, some, NOW + 0.5)[0]
    assert payload["forward"] == pytest.approx(FORWARD + 15, abs=0.3)


def test_a_wild_quote_is_left_out() -> None:
    engine = create_market_engine(MARKET)
    packets = quotes(CHAIN, FORWARD)
    wild = next(i for i, packet in enumerate(packets) if packet.instrument.strike == 25_000)
    packets[wild] = Packet(packets[wild].instrument, packets[wild].price + 60)
    assert process(engine, packets)[0]["forward"] == pytest.approx(FORWARD, abs=0.03)


def test_wide_quotes_give_way_to_the_future() -> None:
    engine = create_market_engine(MARKET)
    wide = quotes(CHAIN, FORWARD, half_spread=80.0)
    payload = process(engine, [Packet(FUTURE, 25_040.0), *wide])[-1]
    assert payload["forward_source"] in ("future", "parity")
    assert payload["forward"] == pytest.approx(25_035, abs=8)


def test_last_prices_do_where_there_is_no_book() -> None:
    engine = create_market_engine(MARKET)
    payload = process(engine, quotes(CHAIN, FORWARD, kind=PacketKind.LTP))[-1]
    assert payload["forward_source"] == "parity"
    assert payload["forward"] == pytest.approx(FORWARD, abs=0.05)


def test_one_leg_is_no_pair() -> None:
    engine = create_market_engine([CHAIN[40], *MONTHLY])
    assert ask(engine, CHAIN[40], NOW)["forward"] is None


def test_the_future_of_the_same_expiry_comes_next() -> None:
    engine = create_market_engine(MARKET)
    process(engine, [Packet(INDEX, 25_000.0, PacketKind.INDEX_FULL)])
    process(engine, [Packet(NEXT_FUTURE, 25_300.0), Packet(FUTURE, 25_060.0)])
    payload = ask(engine, CHAIN[0], NOW + 2)
    assert payload["forward_source"] == "future"
    assert payload["forward"] == 25_060.0
    assert payload["forward_age_s"] == 2.0


def test_then_the_nearest_future_with_carry() -> None:
    engine = create_market_engine([INDEX, FUTURE, *MONTHLY])
    process(engine, [Packet(INDEX, 25_000.0, PacketKind.INDEX_FULL), Packet(FUTURE, 25_060.0)])
    payload = ask(engine, MONTHLY[0], NOW)
    carry = math.exp(RATE * (years_to(NEXT_EXPIRY) - years_to(EXPIRY)))
    assert payload["forward_source"] == "carry"
    assert payload["forward"] == pytest.approx(25_060.0 * carry, rel=1e-8)


def test_then_the_spot_with_carry() -> None:
    engine = create_market_engine([INDEX, *CHAIN])
    process(engine, [Packet(INDEX, 25_000.0, PacketKind.INDEX_FULL)])
    payload = ask(engine, CHAIN[0], NOW)
    assert payload["forward_source"] == "carry"
    assert payload["forward"] == pytest.approx(25_000.0 * math.exp(RATE * years_to(EXPIRY)))


def test_an_option_on_a_commodity_is_priced_from_its_future_without_carry() -> None:
    crude = {"name": "CRUDEOIL", "exchange": "MCX", "segment": 7}
    before = create_future(900, expiry=EXPIRY.replace(day=19), **crude)  # type: ignore[arg-type]
    after = create_future(901, expiry=NEXT_EXPIRY, **crude)  # type: ignore[arg-type]
    chain = create_chain([5_500.0], 910, **crude)
    engine = create_market_engine([before, after, *chain])
    process(engine, [Packet(before, 5_400.0), Packet(after, 5_520.0)])
    payload = ask(engine, chain[0], NOW)
    assert payload["forward_source"] == "carry"
    assert payload["forward"] == 5_520.0


def test_a_share_with_the_name_of_a_commodity_prices_none_of_its_options() -> None:
    fund = create_share(738, "SILVER")
    terms = {"name": "SILVER", "exchange": "MCX", "segment": 7}
    future = create_future(900, expiry=EXPIRY, **terms)  # type: ignore[arg-type]
    chain = create_chain([95_000.0], 910, **terms)
    engine = create_market_engine([fund, future, *chain])
    process(engine, [Packet(future, 95_400.0)])
    process(engine, [Packet(fund, 101.5)], NOW + 120)
    payload = ask(engine, chain[0], NOW + 120)
    assert payload["forward"] == 95_400.0
    assert payload["forward_source"] == "future"


def test_a_stale_parity_gives_way_to_a_fresh_future() -> None:
    engine = create_market_engine(MARKET, reprice_interval_s=0.0)
    process(engine, quotes(CHAIN, FORWARD))
    process(engine, [Packet(FUTURE, 25_200.0)], NOW + 120)
    payload = ask(engine, CHAIN[0], NOW + 120)
    assert payload["forward_source"] == "future"
    assert payload["forward"] == 25_200.0


def test_without_anything_fresh_the_first_choice_stays_and_tells_its_age() -> None:
    engine = create_market_engine([INDEX, *CHAIN])
    process(engine, quotes(CHAIN, FORWARD))
    payload = ask(engine, CHAIN[0], NOW + 600)
    assert payload["forward_source"] == "parity"
    assert payload["forward"] == pytest.approx(FORWARD, abs=0.03)
    assert payload["forward_age_s"] == pytest.approx(600, abs=0.01)


@pytest.mark.parametrize(
    ("profile", "own", "source"),
    [(Profile.NSE, INDEX, "spot"), (Profile.FUTURES, FUTURE, "future")],
)
def test_a_convention_keeps_its_source_however_old(
    profile: Profile, own: Instrument, source: str
) -> None:
    engine = create_market_engine([*MARKET], profile=profile)
    kind = PacketKind.INDEX_FULL if own.is_index else PacketKind.FULL
    process(engine, [Packet(own, 25_000.0, kind), *quotes(CHAIN, FORWARD)])
    fresh = [Packet(NEXT_FUTURE, 25_300.0), *quotes(CHAIN, FORWARD)]
    payload = process(engine, fresh, NOW + 600)[-1]
    assert payload["forward_source"] == source
    assert payload["forward_age_s"] == pytest.approx(600, abs=1e-3)


def test_a_convention_without_its_source_takes_the_next() -> None:
    engine = create_market_engine(MARKET, profile=Profile.NSE)
    process(engine, [Packet(FUTURE, 25_060.0)])
    assert ask(engine, CHAIN[0], NOW)["forward_source"] == "future"


def test_the_spot_of_a_share_is_its_own() -> None:
    share = create_share(738, "RELIANCE")
    other = create_share(739, "OTHER")
    chain = create_chain([1_400.0], 70_000, name="RELIANCE")
    engine = create_market_engine([share, other, *chain], profile=Profile.NSE)
    process(engine, [Packet(share, 1_399.0), Packet(other, 88.0)])
    assert ask(engine, chain[0], NOW)["underlying_price"] == 1_399.0


@pytest.mark.parametrize("leap_s", [-3_600.0, -5.0, 3_600.0])
def test_a_clock_that_is_set_does_not_freeze_the_forward(leap_s: float) -> None:
    engine = create_market_engine(MARKET)
    process(engine, quotes(CHAIN, FORWARD))
    now = NOW + leap_s
    payload = process(engine, quotes(CHAIN, FORWARD + 25, now), now)[0]
    assert payload["forward"] == pytest.approx(FORWARD + 25, abs=0.03)
    assert payload["forward_age_s"] == 0
    process(engine, quotes(CHAIN[2:], FORWARD + 50, now + 1), now + 1)
    payloads = process(engine, quotes(CHAIN[2:], FORWARD + 75, now + 2), now + 2)
    assert [payload["repriced"] for payload in payloads].count(True) == 2


def test_quotes_from_before_a_clock_was_set_back_stay_old() -> None:
    engine = create_market_engine(MARKET)
    process(engine, quotes(CHAIN, FORWARD))
    back = NOW - 3_600
    some = [each for each in quotes(CHAIN, FORWARD + 250) if each.instrument.strike != 25_050]
    process(engine, some, back)
    payload = process(engine, some, back + 20)[0]
    assert payload["forward"] == pytest.approx(FORWARD + 250, abs=0.3)
    assert payload["forward_age_s"] == 0
    payload = ask(engine, CHAIN[0], back + 50)
    assert payload["forward_age_s"] == pytest.approx(30, abs=1e-3)


def test_a_frame_from_before_the_clock_was_set_back_is_of_now() -> None:
    engine = create_market_engine(MARKET)
    back = NOW - 3_600
    engine.process([create_frame(quotes(CHAIN, FORWARD), NOW)], back)
    some = [each for each in quotes(CHAIN, FORWARD + 250) if each.instrument.strike != 25_050]
    payload = process(engine, some, back + 5)[0]
    assert payload["forward"] == pytest.approx(FORWARD + 250, abs=0.3)
    assert payload["forward_age_s"] == 0
