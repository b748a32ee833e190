"""``/instruments`` and ``POST /admin/instrument-refresh``."""

import datetime as dt
from functools import partial
from typing import Annotated, Final

import msgspec
import trio
from quart import Blueprint

from api.auth import requires
from api.operations import Answer, InstrumentToken, Query, Text, operation
from api.paging import next_page
from ticker.errors import UnknownInstrumentError
from ticker.instruments.refreshes import Refreshes, RefreshResult
from ticker.instruments.registry import Instrument, InstrumentQuery, InstrumentRegistry
from ticker.latest import Latest
from ticker.stores.instruments import InstrumentStore

REFRESH_DEADLINE_S: Final = 60.0
"""A download of every exchange, slowly, and its merge."""

SEARCHES_MAX: Final = 2
"""Searches over all instruments at a time; others wait, within the deadline of their route."""

_Strike = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class InstrumentsQuery(Query, frozen=True):
    underlying: Annotated[Text | None, msgspec.Meta(description="As in NIFTY.")] = None
    expiry: dt.date | None = None
    strike_min: _Strike | None = None
    strike_max: _Strike | None = None
    instrument_type: Annotated[Text | None, msgspec.Meta(description="CE, PE, FUT or EQ.")] = None
    segment: Annotated[Text | None, msgspec.Meta(description="As in NFO-OPT.")] = None
    exchange: Text | None = None
    prefix: Annotated[Text | None, msgspec.Meta(description="How the trading symbol begins.")] = (
        None
    )
    day: Annotated[
        dt.date | None,
        msgspec.Meta(description="What was listed on that day. None: what is in use now."),
    ] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    after: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0


class InstrumentQueryOfDay(Query, frozen=True):
    day: Annotated[
        dt.date | None,
        msgspec.Meta(description="Whose token it was on that day. None: who had it last."),
    ] = None


class FoundInstrument(Instrument, frozen=True, kw_only=True):
    """An instrument; ``last_day``: of the dumps that list it, null while the newest does."""

    last_day: dt.date | None = None


class RefreshQuery(Query, frozen=True):
    force: bool = False


def create_instruments_blueprint(
    registry: Latest[InstrumentRegistry], archive: InstrumentStore, refreshes: Refreshes
) -> Blueprint:
    """Look instruments up, in memory or of another day, and have today's downloaded."""
    blueprint = Blueprint("instruments", __name__)
    limiter = trio.CapacityLimiter(SEARCHES_MAX)

    @blueprint.get("/instruments")
    @requires("read")
    @operation(headers={"Link": "The next page, if there may be one: rel=next."})
    async def search(query: InstrumentsQuery) -> Answer[list[Instrument]]:
        """Instruments that meet every condition, by token. Capitals matter, as the broker writes.

        The last one's token is the next page's `after`. With `day` contracts that have expired
        are found too.
        """
        wanted = InstrumentQuery(
            underlying=query.underlying,
            expiry=query.expiry,
            strike_min=query.strike_min,
            strike_max=query.strike_max,
            instrument_type=query.instrument_type,
            segment=query.segment,
            exchange=query.exchange,
            prefix=query.prefix,
        )
        page = {"limit": query.limit, "after": query.after}
        if query.day is None:
            find = partial(registry.value.search, wanted, **page)
            rows = await trio.to_thread.run_sync(find, limiter=limiter)
        else:
            rows = await archive.find(wanted, query.day, **page)
        if len(rows) < query.limit:
            return Answer(rows)
        link = next_page(query, after=rows[-1].instrument_token)
        return Answer(rows, headers=(("Link", link),))

    @blueprint.get("/instruments/<int:instrument_token>")
    @requires("read")
    @operation(problems=(404,))
    async def show(
        instrument_token: InstrumentToken, query: InstrumentQueryOfDay
    ) -> FoundInstrument:
        """One instrument, listed or long gone.

        Tokens are given to other contracts after an expiry: say of which `day` the token is.
        """
        row = None if query.day else registry.value.by_token(instrument_token)
        if row is not None:
            return FoundInstrument(**msgspec.structs.asdict(row))
        found = await archive.find_token(instrument_token, query.day or dt.date.max)
        if found is None:
            when = "" if query.day is None else f" on {query.day}, as far as is known"
            raise UnknownInstrumentError(
                f"no instrument has the token {instrument_token}{when}", field="instrument_token"
            )
        return FoundInstrument(**msgspec.structs.asdict(found.instrument), last_day=found.last_day)

    @blueprint.post("/admin/instrument-refresh")
    @requires("admin")
    @operation(deadline_s=REFRESH_DEADLINE_S, problems=(502, 504))
    async def refresh(query: RefreshQuery) -> RefreshResult:
        """Download today's instruments, unless they are in use already; with `force` in any case.

        Answers when that has ended, well or not: `refreshed` and `reason` say which.
        """
        return await refreshes.request(force=query.force)

    return blueprint
