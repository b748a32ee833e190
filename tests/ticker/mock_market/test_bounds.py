"""How much the mock market holds: places, expiries, openings, a year."""

import datetime as dt
import itertools
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from tests.ticker.mock_market.rig import (
    NEAR,
    SPOT,
    VARIATION,
    chain_values,
    create_market,
    held,
    seeded,
    threads,
    told,
    value,
)
from tests.ticker.synthetic import (
    CHAIN,
    EXPIRY,
    FUTURE,
    INDEX,
    IST,
    NOW,
    RATE,
    create_chain,
    create_option,
    create_share,
    expiry_at,
)
from ticker.errors import ConfigurationError
from ticker.instruments.registry import Instrument
from ticker.mock_market.market import MockMarket
from ticker.ticks import Row

SHARES = [create_share(number, f"SHARE{number}") for number in range(500, 515)]


def prices_of(instruments: list[Instrument]) -> dict[int, Any]:
    return {each.instrument_token: told(100.0) for each in instruments}


def test_fifteen_into_ten_places_keeps_the_ten_used_last() -> None:
    market = create_market(size_max=10)
    for share in SHARES[:10]:
        market.admit([share], prices_of(SHARES), NOW)
    market.use([SHARES[0].instrument_token, SHARES[3].instrument_token])
    for share in SHARES[10:]:
        market.admit([share], prices_of(SHARES), NOW)
    kept = [SHARES[0], SHARES[3], *SHARES[7:]]
    assert len(market) == 10
    assert held(market, SHARES) == [share in kept for share in SHARES]
    assert market.evictions["least_recently_used"] == 5
    snapshot = market.step(NOW)
    assert {each.tradingsymbol for each in snapshot.instruments} == {e.tradingsymbol for e in kept}
    for share in kept:
        assert value(snapshot, share).price == pytest.approx(100.0, abs=0.2)


def test_all_at_once_keeps_the_newest_too() -> None:
    market = create_market(size_max=10)
    market.admit(SHARES, prices_of(SHARES), NOW)
    assert held(market, SHARES) == [False] * 5 + [True] * 10


def test_what_has_expired_makes_room_before_what_is_merely_old() -> None:
    market = create_market(size_max=10)
    soon = create_chain([24_900, 25_000], 50_000, expiry=dt.date(2026, 11, 20))
    market.admit([*SHARES[:6], *soon], prices_of(SHARES) | prices_of(soon), NOW)
    later = expiry_at("NFO", dt.date(2026, 11, 20)).timestamp()
    market.admit(SHARES[6:10], prices_of(SHARES), later)
    assert held(market, [*SHARES[:10], *soon]) == [True] * 10 + [False] * 4
    assert market.evictions["expired"] == 4
    assert "least_recently_used" not in market.evictions


def test_an_expired_option_is_silent_even_before_it_is_let_go() -> None:
    today = dt.date(2026, 11, 20)
    option = create_option(50_000, 25_000.0, "CE", expiry=today)
    market = create_market()
    market.admit([INDEX, option], chain_values(), NOW)
    tokens = [INDEX.instrument_token, option.instrument_token]
    assert len(market.step(NOW).ticks(tokens)) == 2
    over = expiry_at("NFO", today).timestamp()
    assert market.step(over).ticks(tokens).token.tolist() == [INDEX.instrument_token]
    assert market.clean_up(over) == 1
    assert market.step(over).of(option.instrument_token) is None
    assert market.evictions["expired"] == 1


@pytest.mark.parametrize(
    "instrument",
    [
        create_option(1, 25_000.0, "CE", expiry=dt.date(2020, 1, 1)),
        type(CHAIN[0])(
            2 << 8 | 2, 2, "X", "NIFTY", None, 25_000.0, 0.05, 65, "CE", "NFO-OPT", "NFO"
        ),
        type(CHAIN[0])(3 << 8 | 2, 3, "Y", "NIFTY", None, 0.0, 0.05, 65, "FUT", "NFO-FUT", "NFO"),
        create_option(4, 0.0, "PE"),
    ],
    ids=["past", "option without", "future without", "no strike"],
)
def test_what_could_never_be_let_go_or_priced_is_not_taken(instrument: Instrument) -> None:
    market = create_market()
    market.admit([INDEX, instrument], chain_values(), NOW)
    assert held(market, [INDEX, instrument]) == [True, False]
    assert len(market.step(NOW).ticks([instrument.instrument_token])) == 0


def test_an_exchange_that_the_calendar_does_not_know_is_not_taken() -> None:
    def unknown(exchange: str, day: dt.date) -> dt.datetime:
        raise ConfigurationError(f"{exchange} {day}")

    market = MockMarket(create_market().policy, expiry_at=unknown, interest_rate=RATE)
    market.admit([INDEX, *CHAIN[:3]], chain_values(), NOW)
    assert held(market, [INDEX, *CHAIN[:3]]) == [True, False, False, False]
    assert market.evictions["no_expiry"] == 3


@pytest.mark.slow
def test_evictions_and_clean_ups_under_use() -> None:
    """Six writers and readers at once: never more than there is room for, never a wrong row."""
    market = create_market(size_max=10)
    chains = create_chain(range(24_000, 24_500, 50), 60_000)
    everything = [*SHARES, *chains]
    values = {each.instrument_token: told(100.0 + at) for at, each in enumerate(SHARES)}
    rounds = 300

    def admit(first: int) -> Callable[[], None]:
        def run() -> None:
            for at in range(rounds):
                part = [everything[(first + at * 3 + k) % len(everything)] for k in range(4)]
                market.admit(part, values, NOW)
                assert len(market) <= 10

        return run

    def step() -> None:
        for at in range(rounds * 5):
            snapshot = market.step(NOW + at)
            assert len(snapshot.instruments) <= 10
            for place, each in enumerate(snapshot.instruments):
                assert snapshot.places[each.instrument_token] == place
                assert snapshot.words[place, Row.INSTRUMENT_TOKEN] == each.instrument_token
                expected = values.get(each.instrument_token)
                if expected is not None:
                    assert snapshot.words[place, Row.LAST_PRICE] == pytest.approx(
                        expected.price * 100, rel=0.05
                    )

    with threads(admit(0), admit(7), admit(19), step, step) as errors:
        while market.steps < 2 * 5 * rounds and not errors:
            market.clean_up(expiry_at("NFO", EXPIRY).timestamp())
    assert not errors, errors[0]
    assert market.evictions["least_recently_used"] > 0
    assert market.evictions["expired"] > 0


def test_an_opening_forgets_and_the_next_closing_begins_anew() -> None:
    market = seeded()
    for second in range(100):
        market.step(NOW + second)
    market.release(["NIFTY"], "market_open")
    assert len(market) == 0
    assert market.evictions["market_open"] == len(CHAIN) + 2
    assert not market.step(NOW + 100).places
    values = chain_values() | {INDEX.instrument_token: told(26_000.0)}
    market.admit([INDEX], values, NOW + 200)
    assert value(market.step(NOW + 200), INDEX).price == pytest.approx(26_000.0, rel=VARIATION)


def test_what_is_let_go_says_why() -> None:
    market = seeded()
    market.release(["NIFTY"], "switched_off")
    assert market.evictions["switched_off"] == len(CHAIN) + 2
    assert "market_open" not in market.evictions


def test_steps_while_nothing_is_held_move_nobody() -> None:
    market = seeded(INDEX)
    market.release(["NIFTY"], "market_open")
    for second in range(5_000):
        market.step(NOW + second)
    market.admit([INDEX], chain_values(), NOW)
    assert abs(value(market.step(NOW), INDEX).price / SPOT - 1) <= VARIATION * 1.001


def test_who_comes_later_stands_where_the_others_have_walked_to() -> None:
    market = seeded(INDEX, FUTURE, *NEAR[:-2])
    for second in range(500):
        snapshot = market.step(NOW + second)
    late = NEAR[-2:]
    market.admit(late, {}, NOW + 500)
    snapshot = market.step(NOW + 500)
    forwards = {value(snapshot, each).forward for each in NEAR}
    assert len(forwards) == 1
    mocked = {FUTURE.instrument_token: type(told(1.0))(25_100.0, "live", is_mock=True)}
    market = seeded(INDEX)
    for second in range(500):
        market.step(NOW + second)
    market.admit([FUTURE], mocked, NOW)
    price = value(market.step(NOW), FUTURE).price
    assert abs(price - 25_100.0) <= VARIATION * 25_100 + 0.05, "its own price of before goes on"


@pytest.mark.slow
def test_a_year_of_weekly_expiries_leaves_memory_flat(capsys: pytest.CaptureFixture[str]) -> None:
    """Each week lists new contracts; what expired is cleaned up, what is left over evicted."""
    market = create_market(size_max=500)
    start = dt.date(2026, 1, 6)
    numbers = itertools.count(70_000, 400)
    sizes: list[int] = []
    tracemalloc.start()
    for week in range(53):
        expiry = start + dt.timedelta(weeks=week)
        chain = create_chain(range(20_000, 30_000, 50), next(numbers), expiry=expiry)
        now = dt.datetime.combine(expiry, dt.time(16), IST).timestamp() - 7 * 86_400
        market.admit([INDEX, *chain], {INDEX.instrument_token: told(SPOT)}, now)
        for hour in range(0, 7 * 24, 4):
            market.step(now + hour * 3600.0)
            market.clean_up(now + hour * 3600.0)
            assert len(market) <= 500
        if week >= 4:
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    grown = max(sizes) - sizes[0]
    with capsys.disabled():
        sys.stdout.write(
            f"\na year of weeks: {sum(market.evictions.values())} let go, +{grown / 1024:.1f} KiB\n"
        )
    assert market.evictions["expired"] >= 51 * 400
    assert grown < 64 * 1024
