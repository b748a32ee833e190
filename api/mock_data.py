"""``/advanced/mock-data``: the mock market's switch."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
from quart import Blueprint

from api.auth import caller, requires
from api.operations import Time, operation
from ticker.calendar.india import INDIA
from ticker.calendar.market_hours import day_phases, market_date, market_phase
from ticker.errors import ConfigurationError
from ticker.latest import Latest
from ticker.messages import MarketPhase
from ticker.mock_market.status import MockMarketStatus
from ticker.mock_market.switch import MockSwitch
from ticker.settings import Settings
from ticker.status import ServiceStatus
from ticker.stores.runtime_settings import RuntimeSettings

SETTING: Final = "mock_data_enabled"
"""The name under which the switch is kept; its value is a bool, or null for the settings'."""

_SEGMENT: Final = "NFO"
"""Whose hours ``market_hours`` tells."""


class Switched(msgspec.Struct, frozen=True):
    success: bool
    mock_data_enabled: bool
    message: str


class MarketHours(msgspec.Struct, frozen=True):
    """Of today, for futures and options on NSE; None on a day without a session."""

    open: str | None
    close: str | None
    timezone: str


class MockConfig(msgspec.Struct, frozen=True):
    price_variation_bps: float
    volume_variation: float
    history_minutes: int


class MockMarketView(msgspec.Struct, frozen=True):
    """``MockMarketStatus`` as it is shown, here and in ``/health``; see there."""

    enabled: bool
    segments: tuple[MarketPhase, ...]
    speaks_for: tuple[str, ...]
    size: int
    size_max: int
    left_out: int
    steps: int
    seeded: dict[str, int]
    evictions: dict[str, int]


class MockDataStatus(msgspec.Struct, frozen=True):
    """``last_toggled``, ``toggled_by``: over this API, before a restart too; None: never."""

    mock_data_enabled: bool
    last_toggled: Time | None
    toggled_by: str | None
    market_hours: MarketHours
    is_market_hours: bool
    mock_config: MockConfig
    market: MockMarketView


def create_mock_data_blueprint(
    switch: Latest[MockSwitch],
    kept: RuntimeSettings,
    status: ServiceStatus,
    settings: Settings,
    wall_clock: Callable[[], float],
) -> Blueprint:
    """Switch the mock market on and off. ``kept``: where that outlives a restart."""
    blueprint = Blueprint("mock_data", __name__)

    async def turn(to: Literal[True, False]) -> Switched:
        saved = await kept.save(SETTING, to, by=caller().name)  # first, or a restart would undo it
        if switch.value.at is None or saved.at >= switch.value.at:  # another may have been later
            switch.set(MockSwitch(to, saved.at, saved.by))
        said = "on outside market hours" if to else "off: silence outside market hours"
        if settings.is_mock:
            said = f"not needed: this market is simulated and never closes. Kept: {to}"
        return Switched(True, to, f"The mock market is {said}.")

    @blueprint.post("/advanced/mock-data/enable")
    @requires("admin")
    @operation()
    async def enable() -> Switched:
        """Let the mock market speak outside market hours."""
        return await turn(True)

    @blueprint.post("/advanced/mock-data/disable")
    @requires("admin")
    @operation()
    async def disable() -> Switched:
        """Keep silent outside market hours."""
        return await turn(False)

    @blueprint.get("/advanced/mock-data/status")
    @requires("read")
    @operation()
    async def mock_status() -> MockDataStatus:
        """The switch, and what the mock market does."""
        newest = switch.value
        hours, is_open = _hours(wall_clock(), settings.market_hours_file)
        return MockDataStatus(
            mock_data_enabled=newest.is_on,
            last_toggled=newest.at.isoformat(timespec="milliseconds") if newest.at else None,
            toggled_by=newest.by,
            market_hours=hours,
            is_market_hours=is_open,
            mock_config=MockConfig(
                price_variation_bps=settings.mock_price_variation_bps,
                volume_variation=settings.mock_volume_variation,
                history_minutes=settings.mock_history_minutes,
            ),
            market=view_mock_market(status.mock_market),
        )

    return blueprint


def view_mock_market(status: MockMarketStatus) -> MockMarketView:
    """The newest report of the mock market, for JSON."""
    return MockMarketView(
        enabled=status.enabled,
        segments=status.segments,
        speaks_for=status.speaks_for,
        size=status.size,
        size_max=status.size_max,
        left_out=status.left_out,
        steps=status.steps,
        seeded=dict(status.seeded),
        evictions=dict(status.evictions),
    )


def _hours(now: float, path: Path | None) -> tuple[MarketHours, bool]:
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    try:
        spans = day_phases(_SEGMENT, market_date(at, path), path)
        is_open = market_phase(_SEGMENT, at, path).is_open
    except ConfigurationError:  # a year that the calendar does not have: never open
        return MarketHours(None, None, INDIA.key), False
    sessions = [span for span in spans if span.is_open]
    if not sessions:
        return MarketHours(None, None, INDIA.key), is_open
    first, last = (
        at.astimezone(INDIA).strftime("%H:%M")
        for at in (sessions[0].since, sessions[-1].until)
        if at is not None
    )
    return MarketHours(first, last, INDIA.key), is_open
