"""A simulator reached over streams in memory, on virtual time, by an independent client."""

import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import h11
import trio
import trio.testing
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)

from ticker.kite.wire import DecodedFrames, decode_frames
from ticker.simulator.days import IST
from ticker.simulator.dump import InstrumentDump, create_dump
from ticker.simulator.market import Market
from ticker.simulator.server import SimulatorServer, run_market
from ticker.simulator.sessions import SimulatedAccount, create_accounts
from ticker.simulator.simulation import Simulation, SimulatorConfig

START: Final = dt.datetime(2026, 11, 20, 11, 0, tzinfo=IST).timestamp()
"""A Friday in market hours; the next expiry is on Monday, before a holiday."""

ACCOUNTS: Final = create_accounts(1, 2)
NIFTY_50: Final = 256265
INFY: Final = 408065


@cache
def dump_of_start() -> InstrumentDump:
    return create_dump(1, dt.date(2026, 11, 20))


def create_market(now: float = START) -> Market:
    return Market(1, dump_of_start(), now)


def position_of(market: Market, symbol: str) -> int:
    rows = market.dump.instruments
    return next(at for at, row in enumerate(rows) if row.tradingsymbol == symbol)


def token_of(symbol: str) -> int:
    return next(
        r.instrument_token for r in dump_of_start().instruments if r.tradingsymbol == symbol
    )


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class MemorySimulator:
    """``simulation`` may be looked into; clients come in through ``connect``."""

    def __init__(self, nursery: trio.Nursery, config: SimulatorConfig) -> None:
        began = trio.current_time()
        self.simulation = Simulation(config, lambda: START + trio.current_time() - began)
        self._nursery = nursery
        self._server = SimulatorServer(self.simulation)
        nursery.start_soon(run_market, self.simulation)

    def connect(self, *, lockstep: bool = False) -> Any:
        """The client's end, a ``trio.abc.Stream``; ``lockstep``: nothing is buffered on the way.

        trio-websocket's annotations ask for a socket, its code for any stream: hence ``Any``.
        """
        pair = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        client, server = pair()
        self._nursery.start_soon(self._server.serve, server)
        return client

    async def call(
        self, method: str, target: str, body: bytes = b"", **headers: str
    ) -> Answer | None:
        """One request on a connection of its own; None if it ended without an answer."""
        http = h11.Connection(h11.CLIENT)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        names |= {"host": "simulator", "content-length": str(len(body)), "connection": "close"}
        events = (
            h11.Request(method=method, target=target, headers=list(names.items())),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        async with self.connect() as stream:
            await stream.send_all(b"".join(http.send(event) or b"" for event in events))
            return await _read_answer(http, stream)

    async def get(self, target: str, account: SimulatedAccount = ACCOUNTS[0]) -> Any:
        """The body of an authorised GET, decoded."""
        authorization = f"token {account.api_key}:{account.access_token}"
        answer = await self.call("GET", target, authorization=authorization)
        assert answer is not None
        return answer.json

    async def admin(self, target: str, order: object = None) -> Any:
        """POST an order under /_simulator/, or GET without one."""
        method, body = ("GET", b"") if order is None else ("POST", json.dumps(order).encode())
        answer = await self.call(method, f"/_simulator/{target}", body)
        assert answer is not None
        assert answer.status == 200, answer.body
        return answer.json

    async def refusal(self, resource: str) -> ConnectionRejected:
        """How a handshake is refused; fails the test if it is not."""
        refusals: list[ConnectionRejected] = []
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(10):
                    await wrap_client_stream(nursery, self.connect(), "simulator", resource)
                nursery.cancel_scope.cancel()
        except* ConnectionRejected as group:
            refusals += [
                error for error in group.exceptions if isinstance(error, ConnectionRejected)
            ]
        (refusal,) = refusals
        return refusal

    @asynccontextmanager
    async def open_client(self, account: SimulatedAccount = ACCOUNTS[0]) -> AsyncIterator["Client"]:
        """A socket past its two greetings."""
        resource = f"/?api_key={account.api_key}&access_token={account.access_token}"
        async with self.connect() as stream, trio.open_nursery() as nursery:
            connection = await wrap_client_stream(nursery, stream, "simulator", resource)
            client = Client(connection)
            client.greetings = [json.loads(await client.next_text()) for _ in range(2)]
            yield client
            nursery.cancel_scope.cancel()


class Client:
    """What a client sees, with the binary and the text messages apart."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self.greetings: list[Any] = []
        self.texts: list[str] = []
        self.frames: list[bytes] = []

    async def subscribe(self, *tokens: object) -> None:
        await self.command("subscribe", list(tokens))

    async def set_mode(self, mode: str, *tokens: int) -> None:
        await self.command("mode", [mode, list(tokens)])

    async def command(self, name: str, value: object) -> None:
        await self.connection.send_message(json.dumps({"a": name, "v": value}))

    async def next_text(self) -> str:
        message = await self.connection.get_message()
        assert isinstance(message, str)
        return message

    async def gather(self, seconds: float) -> DecodedFrames:
        """All that arrives within that time, decoded; texts are kept in ``texts``."""
        self.frames = []
        with trio.move_on_after(seconds):
            while True:
                message = await self.connection.get_message()
                if isinstance(message, str):
                    self.texts.append(message)
                else:
                    self.frames.append(message)
        return decode_frames(self.frames)

    async def wait_closed(self) -> int | None:
        """Read to the end; returns the close code, None for an end without one."""
        try:
            with trio.fail_after(10):
                while True:
                    await self.connection.get_message()
        except ConnectionClosed as end:
            return None if end.reason is None else int(end.reason.code)


async def _read_answer(http: h11.Connection, stream: trio.abc.Stream) -> Answer | None:
    head: h11.Response | None = None
    body = b""
    while True:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError:
            return None
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif head is not None:
            headers = {name.decode(): value.decode() for name, value in head.headers}
            return Answer(head.status_code, headers, body)
        else:
            return None
