"""A mock market over the synthetic chain, and the prices it begins from."""

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import trio.testing

from tests.ticker.synthetic import (
    CHAIN,
    FORWARD,
    FUTURE,
    INDEX,
    NOW,
    RATE,
    expiry_at,
    on_tick,
    true_price,
)
from ticker.instruments.registry import Instrument
from ticker.mock_market.market import MockMarket
from ticker.mock_market.policy import MockPolicy
from ticker.mock_market.seeds import LastValue
from ticker.mock_market.snapshot import MockInstrument, MockSnapshot

SPOT = 25_000.0
VARIATION = 12.5e-4
NEAR = [each for each in CHAIN if abs(each.strike - FORWARD) < 300]


def create_market(seed: int = 0, **policy: object) -> MockMarket:
    return MockMarket(
        MockPolicy(**policy),  # type: ignore[arg-type]
        expiry_at=expiry_at,
        interest_rate=RATE,
        seed=seed,
    )


def told(price: float, forward: float = math.nan) -> LastValue:
    return LastValue(price, "live", forward=forward)


def chain_values(forward: float = FORWARD) -> dict[int, LastValue]:
    """Last prices of the index, the future and every option, as a live market leaves them."""
    values = {
        each.instrument_token: told(on_tick(true_price(each, forward)), forward) for each in CHAIN
    }
    straight = {INDEX.instrument_token: told(SPOT), FUTURE.instrument_token: told(on_tick(forward))}
    return straight | values


def held(market: MockMarket, instruments: Iterable[Instrument]) -> list[bool]:
    """Which of these the market holds."""
    missing = {each.instrument_token for each in market.missing(instruments)}
    return [each.instrument_token not in missing for each in instruments]


def seeded(*instruments: Instrument) -> MockMarket:
    """A market that holds the chain's values, or of these instruments only."""
    market = create_market()
    market.admit(instruments or [INDEX, FUTURE, *CHAIN], chain_values(), NOW)
    return market


def value(snapshot: MockSnapshot, instrument: Instrument) -> MockInstrument:
    found = snapshot.of(instrument.instrument_token)
    assert found is not None
    return found


@contextmanager
def threads(*targets: Callable[[], None]) -> Iterator[list[Exception]]:
    """Run all in threads for the length of the block; what they raised is in the list."""
    errors: list[Exception] = []

    def guarded(target: Callable[[], None]) -> None:
        try:
            target()
        except Exception as error:  # noqa: BLE001 - told by the test's own thread
            errors.append(error)

    running = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    for thread in running:
        thread.start()
    yield errors
    for thread in running:
        thread.join()


def be_patient(clock: trio.testing.MockClock) -> None:
    """Have virtual time wait for worker threads: it leaps only when all has been idle a while."""
    clock.autojump_threshold = 0.02
