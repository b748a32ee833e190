"""When contracts expire and which days are trading days, from a dated data file by exchange."""

import datetime as dt
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from ticker.errors import ConfigurationError

DEFAULT_FILE: Final = Path(__file__).with_name("market_hours.toml")

YEAR_S: Final = 365.0 * 86_400.0
"""Seconds of the year that volatilities and Greeks are quoted for."""

_FRIDAY: Final = 4


class _Expiry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from"}):
    """The time of day at which contracts end whose expiry is ``first`` or later."""

    first: dt.date
    at: dt.time


class _Calendar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What some exchanges have in common. ``extra_days``: weekend days with a full session."""

    exchanges: tuple[str, ...]
    expiry: tuple[_Expiry, ...]
    holidays: frozenset[dt.date] = frozenset()
    extra_days: frozenset[dt.date] = frozenset()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    timezone: str
    calendars: tuple[_Calendar, ...]


class _MarketHours(msgspec.Struct, frozen=True):
    zone: ZoneInfo
    calendars: Mapping[str, _Calendar]


def expiry_at(exchange: str, expiry_date: dt.date, path: Path | None = None) -> dt.datetime:
    """The instant, in UTC, at which a contract of this expiry date ends.

    ``exchange`` is the broker's word for it: NFO, BFO, CDS, BCD, MCX, ... ``path`` replaces the
    data file that comes with the package; a file is read once per process.

    Raises ConfigurationError when the file cannot be used, or does not tell.
    """
    hours = _load(path or DEFAULT_FILE)
    rules = _calendar(hours, exchange).expiry
    applying = [rule for rule in rules if rule.first <= expiry_date]
    if not applying:
        raise ConfigurationError(
            f"the market hours do not say when {exchange} contracts of {expiry_date} expire"
        )
    newest = max(applying, key=lambda rule: rule.first)
    return dt.datetime.combine(expiry_date, newest.at, hours.zone).astimezone(dt.UTC)


def is_trading_day(exchange: str, day: dt.date, path: Path | None = None) -> bool:
    """Whether the exchange holds a full session on this day; ``path`` as for ``expiry_at``.

    Of a year that the file lists no holidays for, every Monday to Friday is taken to be one.

    Raises ConfigurationError when the file cannot be used, or does not know the exchange.
    """
    calendar = _calendar(_load(path or DEFAULT_FILE), exchange)
    if day.weekday() > _FRIDAY:
        return day in calendar.extra_days
    return day not in calendar.holidays


def year_fraction(now_s: float, expiry_s: float) -> float:
    """Years of 365 days between two UNIX times; negative after the expiry."""
    return (expiry_s - now_s) / YEAR_S


def _calendar(hours: _MarketHours, exchange: str) -> _Calendar:
    calendar = hours.calendars.get(exchange)
    if calendar is None:
        raise ConfigurationError(f"the market hours do not know the exchange {exchange!r}")
    return calendar


@functools.cache
def _load(path: Path) -> _MarketHours:
    try:
        content = msgspec.toml.decode(path.read_bytes(), type=_File)
        zone = ZoneInfo(content.timezone)
    except OSError as error:
        raise ConfigurationError(f"cannot read the market hours: {error}") from error
    except (msgspec.DecodeError, ValueError, ZoneInfoNotFoundError) as error:
        raise ConfigurationError(f"cannot use the market hours in {path}: {error}") from error
    by_exchange = {name: calendar for calendar in content.calendars for name in calendar.exchanges}
    return _MarketHours(zone, by_exchange)
