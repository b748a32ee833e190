"""``GET /option-chain/{underlying}``: a whole expiry, from memory."""

import datetime as dt
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec
import trio
from quart import Blueprint

from api.auth import requires
from api.operations import Query, Text, operation
from ticker.board import Board
from ticker.calendar.market_hours import expiry_at
from ticker.chains.option_chain import OptionChain, option_chain
from ticker.chains.view import IsMock
from ticker.greeks.chains import Chains
from ticker.instruments.registry import InstrumentRegistry
from ticker.latest import Latest

THREADS_MAX: Final = 2
"""Chains put together at a time; others wait, within the deadline of their route."""


class ChainQuery(Query, frozen=True):
    expiry: Annotated[
        dt.date | None, msgspec.Meta(description="None: the nearest that is not over.")
    ] = None
    strikes: (
        Annotated[
            int, msgspec.Meta(ge=0, le=1000, description="On each side of the money; None: all.")
        ]
        | None
    ) = None
    exchange: Annotated[
        Text | None, msgspec.Meta(description="None: the one that lists most of them.")
    ] = None


def create_option_chain_blueprint(
    board: Board,
    chains: Chains,
    registry: Latest[InstrumentRegistry],
    wall_clock: Callable[[], float],
    is_mock: IsMock,
    market_hours_file: Path | None = None,
) -> Blueprint:
    """Chains as the board has them at each request. ``wall_clock``: UNIX seconds."""
    blueprint = Blueprint("option_chain", __name__)
    limiter = trio.CapacityLimiter(THREADS_MAX)

    @blueprint.get("/option-chain/<underlying>")
    @requires("read")
    @operation(problems=(404,))
    async def show_chain(underlying: Text, query: ChainQuery) -> OptionChain:
        """Every strike of an expiry, both sides: prices, Greeks, open interest and their age.

        With forward, put-call ratios, max pain and the straddle at the money. What nobody has
        subscribed to, or has not ticked, is null and says why.
        """
        load = partial(
            option_chain,
            board,
            chains,
            registry.value,
            underlying.upper(),
            now=wall_clock(),
            expiry_at=partial(expiry_at, path=market_hours_file),
            expiry=query.expiry,
            strikes=query.strikes,
            exchange=query.exchange,
            is_mock=is_mock,
        )
        return await trio.to_thread.run_sync(load, limiter=limiter)

    return blueprint
