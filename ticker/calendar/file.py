"""The data file behind the market hours: its form, how it is read, what it must not say."""

import datetime as dt
import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from ticker.errors import ConfigurationError

DEFAULT_FILE: Final = Path(__file__).with_name("market_hours.toml")

SessionName = Literal["pre_open", "continuous", "closing_auction", "post_close"]
"""What an exchange does while it is not closed."""

_NEW_YORK: Final = ZoneInfo("America/New_York")
_SATURDAY: Final = 5

NamedDay = tuple[dt.date, str]


class ExpiryRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from"}):
    """The time of day at which contracts end whose expiry is ``first`` or later."""

    first: dt.date
    at: dt.time


class PhaseHours(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One phase of a day. ``until_us_winter``: its end while New York keeps standard time."""

    name: SessionName
    at: dt.time
    until: dt.time
    until_us_winter: dt.time | None = None

    def ends(self, day: dt.date) -> dt.time:
        """The time of day at which the phase ends on this day."""
        if self.until_us_winter is None:
            return self.until
        noon = dt.datetime.combine(day, dt.time(12), _NEW_YORK)
        return self.until if noon.dst() else self.until_us_winter


class HoursRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from"}):
    """The phases of an ordinary day of these exchanges, from the day ``first`` on."""

    exchanges: tuple[str, ...]
    first: dt.date
    phases: tuple[PhaseHours, ...]


class SpecialRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The phases of particular days; no ``exchanges``: those of the whole calendar."""

    name: str
    days: tuple[dt.date, ...]
    phases: tuple[PhaseHours, ...]
    exchanges: tuple[str, ...] = ()

    def applies(self, exchange: str, day: dt.date) -> bool:
        return day in self.days and (not self.exchanges or exchange in self.exchanges)


class Calendar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What some exchanges have in common. It knows the days of its ``years`` and of no other."""

    exchanges: tuple[str, ...]
    expiry: tuple[ExpiryRule, ...]
    years: frozenset[int] = frozenset()
    holidays: tuple[NamedDay, ...] = ()
    extra_days: tuple[NamedDay, ...] = ()
    hours: tuple[HoursRule, ...] = ()
    special: tuple[SpecialRule, ...] = ()

    def covers(self, day: dt.date) -> bool:
        """Whether the calendar knows the day."""
        return day.year in self.years

    def day_name(self, exchange: str, day: dt.date) -> str | None:
        """What the day is called, if it is not an ordinary one."""
        rule = self._special(exchange, day)
        if rule is not None:
            return rule.name
        named = itertools.chain(self.holidays, self.extra_days)
        return next((name for known, name in named if known == day), None)

    def is_full_day(self, day: dt.date) -> bool:
        """Whether the exchanges keep the hours of a weekday, special days apart."""
        if day.weekday() >= _SATURDAY:
            return any(day == extra for extra, _ in self.extra_days)
        return all(day != holiday for holiday, _ in self.holidays)

    def tells_hours(self, exchange: str, day: dt.date) -> bool:
        """Whether the hours are known: of some special sessions, only the day is."""
        rule = self._special(exchange, day)
        return self.covers(day) and (rule is None or bool(rule.phases))

    def phases(self, exchange: str, day: dt.date) -> tuple[PhaseHours, ...]:
        """The day's phases in order. Of a year that is not covered they are a guess: those of an
        ordinary day, before the first rule those of the first.
        """
        special = self._special(exchange, day)
        if special is not None:
            return special.phases
        if not self.is_full_day(day):
            return ()
        rules = sorted(
            (rule for rule in self.hours if exchange in rule.exchanges), key=lambda rule: rule.first
        )
        applying = [rule for rule in rules if rule.first <= day][-1:] or rules[:1]
        return applying[0].phases if applying else ()

    def _special(self, exchange: str, day: dt.date) -> SpecialRule | None:
        return next((rule for rule in self.special if rule.applies(exchange, day)), None)


class MarketCalendars(msgspec.Struct, frozen=True):
    """A file that has been read and checked: calendars by exchange, in the file's order."""

    path: Path
    zone: ZoneInfo
    by_exchange: Mapping[str, Calendar]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    timezone: str
    calendars: tuple[Calendar, ...]


@functools.cache
def load_calendars(path: Path = DEFAULT_FILE) -> MarketCalendars:
    """Read a file, once per process.

    Raises ConfigurationError when it cannot be read or contradicts itself.
    """
    try:
        content = msgspec.toml.decode(path.read_bytes(), type=_File)
        zone = ZoneInfo(content.timezone)
    except OSError as error:
        raise ConfigurationError(f"cannot read the market hours: {error}") from error
    except (msgspec.DecodeError, ValueError, ZoneInfoNotFoundError) as error:
        raise ConfigurationError(f"cannot use the market hours in {path}: {error}") from error
    problems = itertools.chain(
        _shared_exchanges(content.calendars), *map(_problems, content.calendars)
    )
    for problem in problems:
        raise ConfigurationError(f"cannot use the market hours in {path}: {problem}")
    by_exchange = {name: calendar for calendar in content.calendars for name in calendar.exchanges}
    return MarketCalendars(path, zone, by_exchange)


def _shared_exchanges(calendars: tuple[Calendar, ...]) -> Iterator[str]:
    names = [name for calendar in calendars for name in calendar.exchanges]
    yield from (
        f"{name} is in more than one calendar" for name in set(names) if names.count(name) > 1
    )


def _problems(calendar: Calendar) -> Iterator[str]:
    """Whatever would make an answer wrong later, and can be seen now."""
    rules: tuple[HoursRule | SpecialRule, ...] = (*calendar.hours, *calendar.special)
    for exchange in {name for rule in rules for name in rule.exchanges}:
        if exchange not in calendar.exchanges:
            yield f"{exchange} has hours, but is not in that calendar"
    for phases in (rule.phases for rule in rules):
        yield from _disorder(phases)
    # A day of a year that is not covered would never be looked up: a forgotten year, or a typo.
    named = [day for day, _ in (*calendar.holidays, *calendar.extra_days)]
    days = named + [day for rule in calendar.special for day in rule.days]
    yield from (
        f"{day} is listed, but {day.year} is not" for day in days if not calendar.covers(day)
    )
    yield from (f"{day} is listed twice" for day in _repeated(named))
    for exchange in calendar.exchanges:
        yield from _gaps_and_repetitions(calendar, exchange)


def _gaps_and_repetitions(calendar: Calendar, exchange: str) -> Iterator[str]:
    """What of one exchange is said twice, of which one would be passed over, or not at all."""
    special = [
        rule for rule in calendar.special if exchange in (rule.exchanges or calendar.exchanges)
    ]
    for day in _repeated(day for rule in special for day in rule.days):
        yield f"{exchange} has two special sessions on {day}"
    own = [rule.first for rule in calendar.hours if exchange in rule.exchanges]
    expiries = [rule.first for rule in calendar.expiry]
    for what, starts in (("hours", own), ("expiry rules", expiries)):
        for first in _repeated(starts):
            yield f"{exchange} has two {what} from {first}"
        if calendar.years and min(starts, default=dt.date.max) > dt.date(min(calendar.years), 1, 1):
            yield f"{exchange} has no {what} at the beginning of {min(calendar.years)}"


def _repeated(days: Iterable[dt.date]) -> list[dt.date]:
    return [day for day, count in Counter(days).items() if count > 1]


def _disorder(phases: tuple[PhaseHours, ...]) -> Iterator[str]:
    for phase in phases:
        if phase.until <= phase.at or (phase.until_us_winter or phase.until) < phase.until:
            yield f"the phase {phase.name} at {phase.at} ends before it begins"
    for phase, following in itertools.pairwise(phases):
        if following.at < (phase.until_us_winter or phase.until):
            yield f"the phase {following.name} begins before {phase.name} has ended"
