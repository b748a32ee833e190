"""A simulated market that keeps the exchanges' hours."""

import datetime as dt

import numpy as np
import pytest

from ticker.simulator.days import IST
from ticker.simulator.simulation import Simulation, SimulatorConfig
from ticker.ticks import Row


class Clock:
    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self.now = dt.datetime.fromisoformat(text).replace(tzinfo=IST).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock("2026-01-27 10:00")


@pytest.fixture
def simulation(clock: Clock) -> Simulation:
    return Simulation(SimulatorConfig(market_hours=True), clock)


def moved(simulation: Simulation, clock: Clock, text: str) -> set[str]:
    """Exchanges of what has news in full mode after one step at this time."""
    clock.set(text)
    simulation.step()
    market = simulation.market
    fresh = np.flatnonzero(market.changed[2] == market.step)
    return {market.dump.instruments[place].exchange for place in fresh.tolist()}


@pytest.mark.slow
def test_each_exchange_keeps_its_hours(simulation: Simulation, clock: Clock) -> None:
    everything = {"NSE", "BSE", "NFO", "BFO", "MCX"}
    assert moved(simulation, clock, "2026-01-27 12:00") >= everything
    assert moved(simulation, clock, "2026-01-27 15:35") & everything == {"MCX"}
    assert moved(simulation, clock, "2026-01-27 15:45") & everything == {"NSE", "BSE", "MCX"}
    assert moved(simulation, clock, "2026-01-27 23:59") == set()
    assert moved(simulation, clock, "2026-01-28 09:14") >= everything
    assert moved(simulation, clock, "2026-01-31 12:00") == set(), "a Saturday"
    assert moved(simulation, clock, "2026-02-01 12:00") & everything == everything, "the Budget"
    assert moved(simulation, clock, "2026-02-01 17:00") == set()
    assert moved(simulation, clock, "2027-01-12 12:00") == set(), "a year that nobody knows"


@pytest.mark.slow
def test_what_is_closed_stays_as_it_was(simulation: Simulation, clock: Clock) -> None:
    moved(simulation, clock, "2026-01-27 15:29:59")
    before = simulation.market.words.copy()
    at = [place for place, row in enumerate(simulation.dump.instruments) if row.exchange == "NFO"]
    for text in ("2026-01-27 15:30", "2026-01-28 08:59", "2026-01-28 09:00"):
        moved(simulation, clock, text)
        is_same = (simulation.market.words[:, at] == before[:, at]).all()
        assert is_same == (text != "2026-01-28 09:00")
    assert (simulation.market.words[Row.LAST_PRICE, at] > 0).all()


def test_by_default_the_market_never_closes(clock: Clock) -> None:
    simulation = Simulation(SimulatorConfig(), clock)
    assert moved(simulation, clock, "2026-01-31 12:00") >= {"NSE", "NFO"}
