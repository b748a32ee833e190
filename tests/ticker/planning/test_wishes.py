"""Rows to instruments: by contract, not by token."""

import datetime as dt

import msgspec

from tests.ticker.planning.test_plan import TODAY, make
from ticker.instruments.registry import InstrumentRegistry
from ticker.planning.wishes import resolve_rows
from ticker.stores.subscriptions import SubscriptionRow

EXPIRY = dt.date(2026, 11, 24)
NOW = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
ROW = SubscriptionRow(
    instrument_token=7,
    exchange="NFO",
    tradingsymbol="C",
    segment="NFO-OPT",
    expiry=EXPIRY,
    status="active",
    requested_mode="QUOTE",
    account_id="a1",
    origin="user",
    created_at=NOW,
    updated_at=NOW,
)


def registry(token: int, symbol: str = "C", expiry: dt.date = EXPIRY) -> InstrumentRegistry:
    return InstrumentRegistry([make(token, "U", "CE", 1.0, expiry, symbol=symbol)])


def test_a_row_becomes_its_instrument_in_its_mode_on_its_account() -> None:
    wishes = resolve_rows([ROW], registry(7), TODAY)
    (wish,) = wishes.subscriptions
    assert (wish.instrument.instrument_token, wish.mode, wish.account_id) == (7, "quote", "a1")
    assert not wishes.moves
    assert not wishes.expired


def test_a_contract_is_followed_to_its_other_token() -> None:
    wishes = resolve_rows([ROW], registry(8), TODAY)
    assert wishes.subscriptions[0].instrument.instrument_token == 8
    assert wishes.moves == {7: 8}


def test_another_contract_with_the_same_token_is_not_what_was_wanted() -> None:
    for other in (registry(7, "OTHER"), registry(7, expiry=dt.date(2027, 11, 24))):
        wishes = resolve_rows([ROW], other, TODAY)
        assert wishes.subscriptions == ()
        assert wishes.unresolved == (7,)


def test_a_contract_whose_expiry_a_holiday_has_moved_is_still_wanted() -> None:
    for moved in (EXPIRY - dt.timedelta(days=1), EXPIRY + dt.timedelta(days=1)):
        wishes = resolve_rows([ROW], registry(7, expiry=moved), TODAY)
        assert [wish.instrument.expiry for wish in wishes.subscriptions] == [moved]
    elsewhere = msgspec.structs.replace(ROW, exchange="BFO")
    moved = EXPIRY - dt.timedelta(days=1)
    assert resolve_rows([elsewhere], registry(7, expiry=moved), TODAY).unresolved == (7,)


def test_of_two_instruments_with_one_symbol_a_row_means_its_own() -> None:
    both = InstrumentRegistry(make(n, "U", "CE", 1.0, EXPIRY, symbol="C") for n in (7, 9))
    wishes = resolve_rows([ROW], both, TODAY)
    assert [wish.instrument.instrument_token for wish in wishes.subscriptions] == [7]
    assert not wishes.moves


def test_an_expired_contract_is_over_the_day_after() -> None:
    assert resolve_rows([ROW], registry(7), EXPIRY).expired == ()
    wishes = resolve_rows([ROW], registry(7), EXPIRY + dt.timedelta(days=1))
    assert (wishes.expired, wishes.subscriptions, wishes.unresolved) == ((7,), (), ())


def test_a_row_made_by_hand_means_its_token_if_the_symbol_agrees() -> None:
    by_hand = msgspec.structs.replace(ROW, exchange="", expiry=None)
    assert len(resolve_rows([by_hand], registry(7), TODAY).subscriptions) == 1
    assert resolve_rows([by_hand], registry(7, "OTHER"), TODAY).unresolved == (7,)


def test_users_come_first_and_older_wishes_before_younger() -> None:
    rows = [
        msgspec.structs.replace(ROW, instrument_token=1, tradingsymbol="X", origin="rebalancer"),
        msgspec.structs.replace(
            ROW, instrument_token=2, tradingsymbol="Y", created_at=NOW + dt.timedelta(seconds=1)
        ),
        msgspec.structs.replace(ROW, instrument_token=3, tradingsymbol="Z"),
    ]
    known = InstrumentRegistry(
        make(token, "U", "CE", 1.0, EXPIRY, symbol=symbol)
        for token, symbol in ((1, "X"), (2, "Y"), (3, "Z"))
    )
    wishes = resolve_rows(rows, known, TODAY)
    assert [wish.instrument.instrument_token for wish in wishes.subscriptions] == [3, 2, 1]
    assert [wish.gives_way for wish in wishes.subscriptions] == [False, False, True]
