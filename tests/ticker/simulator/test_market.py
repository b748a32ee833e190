import math
from statistics import NormalDist

import numpy as np
import pytest

from tests.ticker.simulator.memory_simulator import START, create_market, position_of
from ticker.calendar.market_hours import YEAR_S
from ticker.kite.wire import decode_frames, encode_frame
from ticker.simulator.market import Market
from ticker.simulator.paths import brownian
from ticker.simulator.pricing import DISCOUNT_RATE
from ticker.ticks import DEPTH_LEVELS, PacketKind, Row

FULL = 2


@pytest.fixture
def market() -> Market:
    market = create_market()
    for second in range(1, 6):
        market.advance(START + second)
    return market


def test_calls_puts_and_forward_keep_parity_within_rounding(market: Market) -> None:
    fair, forward, _ = market.fair.detail(market.everything, np.array([market.now]))
    price = market.words[Row.LAST_PRICE] / market.divisor
    pairs = 0
    rows = market.dump.instruments
    for call in range(len(rows) - 1):
        put = call + 1
        if rows[call].instrument_type != "CE":
            continue
        tick = rows[call].tick_size
        if min(fair[call, 0], fair[put, 0]) < tick:
            continue  # the smallest price there is stands for any smaller value
        years = (market.fair.expiry[call] - market.now) / YEAR_S
        parity = math.exp(-DISCOUNT_RATE * years) * (forward[call, 0] - rows[call].strike)
        assert abs(price[call] - price[put] - parity) <= tick * 1.0001
        pairs += 1
    assert pairs > 900


def test_the_volatility_in_a_price_is_the_smiles_within_half_a_tick(market: Market) -> None:
    fair, forward, smile = market.fair.detail(market.everything, np.array([market.now]))
    checked = 0
    for place, row in enumerate(market.dump.instruments):
        if not row.is_option or fair[place, 0] < row.tick_size or place % 7:
            continue
        years = (market.fair.expiry[place] - market.now) / YEAR_S
        terms = (float(forward[place, 0]), row.strike, years, row.instrument_type == "CE")
        price = float(market.words[Row.LAST_PRICE, place] / market.divisor[place])
        low = _implied_volatility(price - row.tick_size / 2 - 1e-9, *terms)
        high = _implied_volatility(price + row.tick_size / 2 + 1e-9, *terms)
        assert low <= smile[place, 0] <= high
        checked += 1
    assert checked > 200


def test_the_future_is_the_forward_and_the_index_the_spot(market: Market) -> None:
    _, forward, _ = market.fair.detail(market.everything, np.array([market.now]))
    future = position_of(market, "NIFTY26DECFUT")
    index = position_of(market, "NIFTY 50")
    years = (market.fair.expiry[future] - market.now) / YEAR_S
    assert _rupees(market, Row.LAST_PRICE, future) == pytest.approx(forward[future, 0], abs=0.0501)
    assert _rupees(market, Row.LAST_PRICE, index) == pytest.approx(forward[index, 0], abs=0.0251)
    assert forward[future, 0] / forward[index, 0] == pytest.approx(math.exp(0.061 * years))


def test_the_book_stands_around_the_last_price(market: Market) -> None:
    at = np.array([place for place, row in enumerate(market.dump.instruments) if not row.is_index])
    last = market.words[Row.LAST_PRICE, at]
    bids, bid_sizes, bid_orders = _side(market, Row.BIDS, at)
    asks, ask_sizes, ask_orders = _side(market, Row.ASKS, at)
    assert (bids[0] > 0).all()
    assert (bids[0] < asks[0]).all()
    assert (bids[0] <= last).all()
    assert (last <= asks[0]).all()
    assert (np.diff(asks, axis=0) > 0).all()
    falling = np.diff(bids, axis=0) < 0
    assert (falling | (bids[1:] == 0)).all()
    assert ((bids == 0) == (bid_sizes == 0)).all()
    assert ((bid_orders > 0) == (bid_sizes > 0)).all()
    assert (ask_orders > 0).all()
    assert (market.words[Row.TOTAL_BUY_QUANTITY, at] >= bid_sizes.sum(axis=0)).all()
    assert (market.words[Row.TOTAL_SELL_QUANTITY, at] >= ask_sizes.sum(axis=0)).all()


def test_the_mid_is_the_last_price_where_there_is_room_for_a_bid(market: Market) -> None:
    at = np.flatnonzero(market.words[Row.LAST_PRICE] > 20 * 5)
    at = at[[not market.dump.instruments[place].is_index for place in at]]
    bid, ask = market.words[Row.BIDS + 1, at], market.words[Row.ASKS + 1, at]
    assert ((bid + ask) == 2 * market.words[Row.LAST_PRICE, at]).mean() > 0.99


def test_the_days_fields_contain_each_other(market: Market) -> None:
    words = market.words
    for row in (Row.OPEN, Row.LAST_PRICE):
        assert (words[Row.LOW] <= words[row]).all()
        assert (words[row] <= words[Row.HIGH]).all()
    traded = words[Row.VOLUME_TRADED] > 0
    average = words[Row.AVERAGE_TRADED_PRICE, traded]
    assert (average >= words[Row.LOW, traded] - 1).all()
    assert (average <= words[Row.HIGH, traded] + 1).all()
    assert ((words[Row.LAST_TRADE_TIME] > 0) == traded).all()
    assert (words[Row.OI_DAY_LOW] <= words[Row.OI]).all()
    assert (words[Row.OI] <= words[Row.OI_DAY_HIGH]).all()
    assert (words[Row.CLOSE] > 0).all()


def test_volume_only_grows_and_in_lots() -> None:
    market = create_market()
    lots = np.array([max(row.lot_size, 1) for row in market.dump.instruments])
    before = market.words[Row.VOLUME_TRADED].copy()
    for second in range(1, 4):
        market.advance(START + second)
        volume = market.words[Row.VOLUME_TRADED].copy()
        assert (volume >= before).all()
        assert ((volume - before) % lots == 0).all()
        moved = volume > before
        assert (market.words[Row.LAST_TRADE_TIME, moved] == int(START) + second).all()
        before = volume
    assert moved.any()


def test_change_marks_say_exactly_what_a_client_would_see() -> None:
    market = create_market()
    everything = market.everything
    for second in range(1, 4):
        before = [_packets(market, mode) for mode in range(3)]
        market.advance(START + second)
        for mode in range(3):
            after = _packets(market, mode)
            differs = [a != b for a, b in zip(before[mode], after, strict=True)]
            assert (market.changed[mode] == market.step).tolist() == differs
    assert 0 < np.count_nonzero(market.changed[FULL] == market.step) < len(everything)


def test_words_that_a_packet_does_not_carry_are_zero(market: Market) -> None:
    positions = market.everything
    modes = (positions % 3).astype(np.uint8)
    batch = market.batch(positions, modes)
    decoded = decode_frames([encode_frame(batch)]).ticks
    assert (decoded.words == batch.words).all()
    assert (decoded.kind == batch.kind).all()
    assert set(batch.kind.tolist()) == set(PacketKind)


def test_equal_seeds_make_equal_markets() -> None:
    first, second = create_market(), create_market()
    for seconds in range(1, 6):
        first.advance(START + seconds)
        second.advance(START + seconds)
    assert (first.words == second.words).all()
    assert (first.changed == second.changed).all()


def test_paths_do_not_depend_on_what_else_is_asked_for() -> None:
    times = START + np.arange(5000, dtype=np.float64) * 7.3
    together = brownian(3, [1, 2, 3], times)
    alone = brownian(3, [2], times[4990:])
    assert np.allclose(together[1, 4990:], alone[0], atol=1e-12)


@pytest.mark.parametrize("step_s", [1.0, 60.0, 3600.0])
def test_paths_move_like_brownian_motion(step_s: float) -> None:
    times = START + np.arange(3000, dtype=np.float64) * step_s
    moves = np.diff(brownian(3, np.arange(10), times), axis=1)
    assert moves.std() == pytest.approx(math.sqrt(step_s / YEAR_S), rel=0.06)


def test_contracts_stand_still_once_they_have_expired() -> None:
    expired = position_of(create_market(), "NIFTY26NOV26000CE")
    alive = position_of(create_market(), "NIFTY26DEC26000CE")
    market = create_market()
    end = float(market.fair.expiry[expired])
    market.advance(end - 1)
    market.advance(end + 1)
    last = market.step
    market.advance(end + 61)
    assert market.changed[FULL, expired] <= last
    assert market.changed[FULL, alive] == market.step


def test_a_new_day_starts_its_fields_afresh() -> None:
    market = create_market()
    future = position_of(market, "NIFTY26DECFUT")
    before = int(market.words[Row.VOLUME_TRADED, future])
    market.advance(START + 22 * 3600 + 1200)  # the next 09:20
    assert 0 < market.words[Row.VOLUME_TRADED, future] < before
    assert (market.changed == market.step).all()


def _packets(market: Market, mode: int) -> list[bytes]:
    """What each instrument's packet looks like, without its exchange time."""
    modes = np.full(len(market.everything), mode, dtype=np.uint8)
    words = market.batch(market.everything, modes).words.copy()
    words[Row.EXCHANGE_TIMESTAMP] = 0
    return [column.tobytes() for column in words.T]


def _side(
    market: Market, first: int, at: np.ndarray[tuple[int], np.dtype[np.intp]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = market.words[first : first + 3 * DEPTH_LEVELS, at]
    return rows[1::3], rows[0::3], rows[2::3] >> 16


def _rupees(market: Market, row: int, place: int) -> float:
    return float(market.words[row, place] / market.divisor[place])


def _implied_volatility(
    price: float, forward: float, strike: float, years: float, is_call: bool
) -> float:
    """By bisection, with the standard library's normal distribution."""
    low, high = 1e-4, 5.0
    for _ in range(80):
        middle = (low + high) / 2
        if _black76(forward, strike, years, middle, is_call) < price:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _black76(F: float, K: float, T: float, volatility: float, is_call: bool) -> float:
    normal = NormalDist().cdf
    deviation = volatility * math.sqrt(T)
    d1 = math.log(F / K) / deviation + deviation / 2
    d2 = d1 - deviation
    call = F * normal(d1) - K * normal(d2)
    value = call if is_call else K * normal(-d2) - F * normal(-d1)
    return math.exp(-DISCOUNT_RATE * T) * value
