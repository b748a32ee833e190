"""History against the simulator over real HTTP: ranges, Greeks, refusals and a broken broker."""

import datetime as dt
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from tests.loop_steps import watch_steps
from tests.rest_brokers import SimulatedBrokers, open_simulated_brokers
from ticker.calendar.market_hours import expiry_at
from ticker.errors import (
    BrokerResponseError,
    InvalidRequestError,
    UnknownAccountError,
    UnknownInstrumentError,
)
from ticker.greeks.forward import YEAR_S
from ticker.greeks.pricing import INTEREST_RATES, Profile
from ticker.greeks.reference import price_reference
from ticker.history.history import History, HistoryRequest
from ticker.history.range import INDIA
from ticker.history.reference_bars import ReferenceBars
from ticker.instruments.registry import Instrument, InstrumentRegistry, parse_instruments
from ticker.kite.calls import RestPolicy
from ticker.latest import Latest

pytestmark = pytest.mark.slow

START = dt.datetime(2026, 11, 20, 11, 0, tzinfo=INDIA).timestamp()
NIFTY_50 = 256265


def running_clock() -> Callable[[], float]:
    """A clock that shows ``START``, a Friday in market hours, and runs."""
    began = time.monotonic()
    return lambda: START + time.monotonic() - began


def india(day: int, hour: int = 0, minute: int = 0) -> dt.datetime:
    return dt.datetime(2026, 11, day, hour, minute, tzinfo=INDIA)


@dataclass(frozen=True)
class Rig:
    market: SimulatedBrokers
    registry: InstrumentRegistry
    history: History

    def instrument(self, kind: str, expiry: int = 0, underlying: str = "NIFTY") -> Instrument:
        """Of an underlying's contracts of this type the one in the middle of an expiry."""
        rows = [
            row
            for row in self.registry.of_underlying(underlying)
            if row.instrument_type == kind and row.expiry
        ]
        day = sorted({row.expiry for row in rows if row.expiry})[expiry]
        listed = sorted((row for row in rows if row.expiry == day), key=lambda row: row.strike)
        return listed[len(listed) // 2]

    async def load(self, token: int, **changes: Any) -> Mapping[str, Any]:
        """The answer as its reader sees it."""
        wanted: dict[str, Any] = {"from_at": india(18), "to_at": india(19, 23, 59), **changes}
        request = HistoryRequest(instrument_token=token, **wanted)
        answer = await self.history.load(request)
        return msgspec.json.decode(msgspec.json.encode(answer))  # type: ignore[no-any-return]


@asynccontextmanager
async def open_rig(profile: Profile = Profile.PARITY, **policy: Any) -> AsyncIterator[Rig]:
    clock = running_clock()
    async with open_simulated_brokers(
        wall_clock=clock, policy=RestPolicy(**policy), rate=0.1
    ) as market:
        async with aclosing(market.brokers.of("first").load_instruments()) as pieces:
            text = b"".join([piece async for piece in pieces]).decode()
        registry = InstrumentRegistry(
            row for row in parse_instruments(text.splitlines()) if row is not None
        )
        references = ReferenceBars(market.brokers, None, wall_clock=clock)
        history = History(
            Latest(registry), market.brokers, references, wall_clock=clock, profile=profile
        )
        market.calls.made.clear()
        yield Rig(market, registry, history)


async def test_an_answer_has_the_contracts_shape_and_indias_times() -> None:
    async with open_rig() as rig:
        answer = await rig.load(NIFTY_50, from_at=dt.datetime(2026, 11, 19, 9, 15))  # noqa: DTZ001
        same = await rig.load(NIFTY_50, from_at=dt.datetime(2026, 11, 19, 3, 45, tzinfo=dt.UTC))
    candles = answer["candles"]
    assert same == answer
    assert candles[0]["date"] == "2026-11-19T09:15:00+05:30"
    assert candles[-1]["date"] == "2026-11-19T15:14:00+05:30"
    assert len(candles) == 360
    assert set(candles[0]) == {"date", "open", "high", "low", "close", "volume"}
    assert {name: answer[name] for name in answer if name != "candles"} == {
        "instrument_token": NIFTY_50,
        "symbol": "NIFTY",
        "tradingsymbol": "NIFTY 50",
        "segment": "INDICES",
        "interval": "minute",
        "from_ts": "2026-11-19T09:15:00+05:30",
        "to_ts": "2026-11-19T23:59:00+05:30",
    }


async def test_a_long_range_is_joined_without_a_duplicate_or_a_gap() -> None:
    async with open_rig() as rig:
        since = dt.datetime(2026, 9, 1, tzinfo=INDIA)
        whole = await rig.load(NIFTY_50, from_at=since, to_at=india(20, 10, 0))
        calls = rig.market.calls.outcomes("historical").count("200")
        days = sorted({candle["date"][:10] for candle in whole["candles"]})
        longer = await rig.load(NIFTY_50, from_at=since, to_at=india(20, 10, 0), interval="day")
    assert calls == 2
    dates = [candle["date"] for candle in whole["candles"]]
    assert dates == sorted(set(dates))
    assert days == [candle["date"][:10] for candle in longer["candles"]]
    assert len(dates) == 360 * (len(days) - 1) + 46


@pytest.mark.parametrize("kind", ["CE", "PE"])
@pytest.mark.parametrize("profile", [Profile.PARITY, Profile.NSE, Profile.FUTURES])
async def test_greeks_are_vollibs_at_each_close(kind: str, profile: Profile) -> None:
    async with open_rig(profile) as rig:
        option = rig.instrument(kind)
        future = rig.instrument("FUT")
        answer = await rig.load(option.instrument_token, oi=True)
        index = await rig.load(NIFTY_50)
        futures = await rig.load(future.instrument_token)
        calls = rig.market.calls.outcomes("historical").count("200")
    assert calls == 3 + 2  # the option's, its index's and its future's candles: once each
    is_spot = profile is Profile.NSE
    source = "spot" if is_spot else "future" if option.expiry == future.expiry else "carry"
    assert answer["forward_symbol"] == future.tradingsymbol
    assert answer["greeks_error"] is None
    assert option.expiry is not None
    expires_at = expiry_at("NFO", option.expiry).timestamp()
    rate = INTEREST_RATES[profile]
    spots = {spot["date"]: spot["close"] for spot in index["candles"]}
    solved = 0
    for candle, other in zip(answer["candles"], futures["candles"], strict=True):
        if candle["date"][11:16] >= "15:15":  # the index has no candles in the closing auction
            assert candle["date"] not in spots
            assert (candle["underlying"] is None) is (candle["date"][11:16] >= "15:20")
            continue
        spot = spots.pop(candle["date"])
        assert candle["underlying"] == spot
        assert candle["oi"] > 0
        assert candle["forward_source"] == source
        if source == "future":
            assert candle["forward"] == other["close"]
        if candle["greeks_status"] != "ok":
            assert candle["iv"] is None
            continue
        solved += 1
        closed_at = dt.datetime.fromisoformat(candle["date"]).timestamp() + 60
        expected = price_reference(
            candle["close"],
            spot if is_spot else candle["forward"],
            option.strike,
            (expires_at - closed_at) / YEAR_S,
            rate,
            rate if is_spot else 0.0,
            is_call=kind == "CE",
        )
        names = ("iv", "delta", "gamma", "theta", "vega")
        assert [candle[name] for name in names] == pytest.approx(list(expected[:5]), rel=1e-7)
    assert solved > 700
    assert not spots


async def test_an_expiry_without_a_future_is_carried_from_the_nearest() -> None:
    async with open_rig() as rig:
        days = {row.expiry for row in rig.registry.of_underlying("NIFTY") if row.is_future}
        expiries = sorted(
            {row.expiry for row in rig.registry.of_underlying("NIFTY") if row.is_option}  # type: ignore[type-var]
        )
        place = next(at for at, day in enumerate(expiries) if day not in days)
        option = rig.instrument("CE", place)
        answer = await rig.load(option.instrument_token, oi=True)
    assert {candle["forward_source"] for candle in answer["candles"]} == {"carry"}
    assert {candle["greeks_status"] for candle in answer["candles"]} == {"ok"}


@pytest.mark.parametrize(("interval", "count"), [("15minute", 50), ("60minute", 13)])
async def test_longer_candles_have_greeks_at_their_close(interval: str, count: int) -> None:
    until = india(19, 15, 14)  # before the closing auction
    async with open_rig() as rig:
        option = rig.instrument("CE", 2)
        minutes = await rig.load(option.instrument_token, oi=True, to_at=until)
        longer = await rig.load(option.instrument_token, oi=True, to_at=until, interval=interval)
    assert len(longer["candles"]) == count
    last, of_last = longer["candles"][-1], minutes["candles"][-1]
    assert last["close"] == of_last["close"]
    assert last["underlying"] == of_last["underlying"]
    assert last["iv"] == pytest.approx(of_last["iv"], rel=1e-2)


async def test_a_days_candle_has_greeks_with_the_close_of_the_indexs_day() -> None:
    async with open_rig() as rig:
        option = rig.instrument("CE", 2)
        minutes = await rig.load(option.instrument_token)
        index = await rig.load(NIFTY_50)
        days = await rig.load(option.instrument_token, oi=True, interval="day")
    assert len(days["candles"]) == 2
    last = days["candles"][-1]
    assert last["close"] == minutes["candles"][-1]["close"]
    assert last["underlying"] == index["candles"][-1]["close"]
    assert last["greeks_status"] == "ok"


async def test_without_open_interest_there_are_no_greeks() -> None:
    async with open_rig() as rig:
        answer = await rig.load(rig.instrument("CE").instrument_token)
        future = await rig.load(rig.instrument("FUT").instrument_token, oi=True)
    assert "iv" not in answer["candles"][0]
    assert "forward_symbol" not in answer
    assert set(future["candles"][0]) == {
        "date", "open", "high", "low", "close", "volume", "oi"
    }  # fmt: skip


async def test_a_future_can_be_continuous_by_days() -> None:
    async with open_rig() as rig:
        token = rig.instrument("FUT").instrument_token
        answer = await rig.load(token, interval="day", continuous=True)
        assert len(answer["candles"]) == 2


async def test_what_makes_no_sense_is_refused_before_the_broker_is_asked() -> None:
    async with open_rig() as rig:
        option, future = rig.instrument("CE"), rig.instrument("FUT")
        for token, changes, field in (
            (NIFTY_50, {"interval": "fortnight"}, "interval"),
            (NIFTY_50, {"from_at": india(20)}, "from_ts"),
            (NIFTY_50, {"from_at": india(20) - dt.timedelta(days=300)}, "from_ts"),
            (NIFTY_50, {"continuous": True, "interval": "day"}, "continuous"),
            (option.instrument_token, {"continuous": True, "interval": "day"}, "continuous"),
            (future.instrument_token, {"continuous": True}, "interval"),
        ):
            with pytest.raises(InvalidRequestError) as caught:
                await rig.load(token, **changes)
            assert caught.value.field == field
        with pytest.raises(UnknownInstrumentError) as unknown:
            await rig.load(999_999_999)
        assert unknown.value.field == "instrument_token"
        with pytest.raises(UnknownAccountError):
            await rig.load(NIFTY_50, account_id="nobody")
        assert rig.market.calls.made == []


async def test_days_without_trading_have_no_candles() -> None:
    async with open_rig() as rig:
        option = rig.instrument("CE").instrument_token
        answer = await rig.load(option, from_at=india(14), to_at=india(15, 23), oi=True)
    assert answer["candles"] == []


async def test_greeks_are_null_with_a_reason_when_the_underlying_cannot_be_loaded() -> None:
    async with open_rig(attempts=1) as rig:
        option, future = rig.instrument("CE"), rig.instrument("FUT")
        for token in (NIFTY_50, future.instrument_token):
            path = f"/instruments/historical/{token}"
            await rig.market.inject("rest", path=path, status=400, error_type="InputException")
        answer = await rig.load(option.instrument_token, oi=True)
    assert len(answer["candles"]) == 770
    for candle in answer["candles"]:
        assert candle["greeks_status"] == "no_forward"
        assert candle["iv"] is candle["delta"] is candle["underlying"] is None
        assert candle["close"] > 0
    assert "NIFTY 50" in answer["greeks_error"]


async def test_another_account_answers_when_one_has_to_log_in() -> None:
    async with open_rig() as rig:
        key = rig.market.accounts[0].api_key
        await rig.market.inject("kill_token", api_key=key, sockets="keep")
        assert len((await rig.load(NIFTY_50))["candles"]) == 720
        with pytest.raises(BrokerResponseError) as caught:
            await rig.load(NIFTY_50, account_id="first")
        assert caught.value.error_type == "TokenException"


async def test_a_long_answer_does_not_stall_the_loop() -> None:
    async with open_rig() as rig:
        request = HistoryRequest(
            instrument_token=rig.instrument("CE", 2).instrument_token,
            from_at=india(1) - dt.timedelta(days=40),
            to_at=india(20),
            oi=True,
        )
        with watch_steps() as steps:
            answer = await rig.history.load(request)
    assert len(answer.candles) > 12_000
    assert steps.longest_s < 0.02
