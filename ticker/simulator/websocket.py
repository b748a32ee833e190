"""One market-data socket of the simulated broker, from the accepted handshake to its end."""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import h11
import msgspec
import numpy as np
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

from ticker.kite.wire import HEARTBEAT, encode_frame
from ticker.simulator import faults
from ticker.simulator.days import IST
from ticker.simulator.dump import InstrumentDump
from ticker.simulator.http import HttpRequest
from ticker.simulator.ledger import Counts
from ticker.simulator.line import Line
from ticker.simulator.market import MODES, Market, Positions
from ticker.simulator.subscriptions import Subscriptions
from ticker.ticks import UInt8Array

_RECEIVE_BYTES: Final = 1 << 16
_MAX_COMMAND_BYTES: Final = 1 << 20
_CLOSE_WAIT_S: Final = 5.0
_PENDING_FAULTS: Final = 16
"""One-shot faults that wait while the socket is busy; the admin route refuses more."""

_SAMPLE: Final = 10
"""Packets in a frame that is made to be broken."""


@dataclass(frozen=True, slots=True)
class SocketTerms:
    """How the broker treats a socket."""

    max_tokens: int = 3000
    packets_per_frame: int = 3000
    heartbeat_s: float = 1.0


class _Command(msgspec.Struct):
    a: str
    v: Any = None


class MarketSocket:
    """Call ``run`` once; ``ring`` it whenever the market has moved.

    A client that does not read blocks only its own socket: what it missed is not queued, the
    next frame holds everything that changed since the last one.
    """

    def __init__(
        self,
        socket_id: int,
        api_key: str,
        line: Line,
        market: Market,
        terms: SocketTerms,
        connected_at: float,
    ) -> None:
        self.id = socket_id
        self.api_key = api_key
        self.connected_at = connected_at
        self.counts = Counts()
        self.subscriptions = Subscriptions(market, terms.max_tokens)
        self._line = line
        self._market = market
        self._terms = terms
        self._ws = WSConnection(ConnectionType.SERVER)
        self._sending = trio.Lock()  # whole messages only, in the order of the lock's queue
        self._news = trio.Event()
        self._faults_in, self._faults_out = trio.open_memory_channel[faults.SocketFault](
            _PENDING_FAULTS
        )
        self._muted = False
        self._duplicating = False
        self._fragment_size: int | None = None
        self._spoken_at = trio.current_time()

    def ring(self) -> None:
        """There may be something to send."""
        self._news.set()

    def inject(self, fault: faults.SocketFault) -> None:
        """Make something go wrong. Raises trio.WouldBlock when too much already waits to."""
        match fault:
            case faults.HalfOpen():
                self._line.half_open = True
            case faults.Mute():
                self._muted = True
            case faults.Slow():
                self._line.bytes_per_s = fault.bytes_per_s
            case faults.Duplicate():
                self._duplicating = True
            case faults.Fragment():
                self._fragment_size = fault.size
            case _:
                self._faults_in.send_nowait(fault)

    def heal(self) -> None:
        """End every lasting fault."""
        self._line.half_open = False
        self._line.bytes_per_s = None
        self._muted = self._duplicating = False
        self._fragment_size = None
        self.ring()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Ask for an orderly end. Raises trio.WouldBlock like ``inject``."""
        self.inject(faults.Close(code=code, reason=reason))

    async def run(self, request: HttpRequest, unread: bytes, greetings: Sequence[str]) -> None:
        """Accept the handshake and serve until either side ends; leaves the stream closed.

        Raises wsproto's RemoteProtocolError if the request is not a WebSocket handshake.
        """
        try:
            self._ws.initiate_upgrade_connection(list(request.raw.headers), request.raw.target)
            asked = any(isinstance(event, Request) for event in self._ws.events())
        except h11.LocalProtocolError as error:
            raise RemoteProtocolError("not a handshake") from error
        if not asked:
            raise RemoteProtocolError("not a handshake")
        try:
            await self._send(AcceptConnection())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stream_market, greetings)
                nursery.start_soon(self._commit_faults)
                await self._receive(unread)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client, or a fault, ended the connection: nothing more to serve
        finally:
            await trio.aclose_forcefully(self._line.stream)

    async def _receive(self, data: bytes) -> None:
        """Serve what the client sends until it, or the socket, ends."""
        command = ""
        while True:
            if data and not self._line.half_open:
                self._ws.receive_data(data)
                for event in self._ws.events():
                    match event:
                        case TextMessage():
                            command += event.data
                            if event.message_finished:
                                await self._obey(command)
                                command = ""
                        case Ping():
                            await self._send(event.response())
                        case CloseConnection():
                            await self._answer_close(event)
                            return
            if len(command) > _MAX_COMMAND_BYTES:
                await self._send(CloseConnection(code=1009))
                return
            data = bytes(await self._line.stream.receive_some(_RECEIVE_BYTES))
            if not data:
                return

    async def _answer_close(self, event: CloseConnection) -> None:
        if self._ws.state is ConnectionState.REMOTE_CLOSING:
            async with self._sending:
                await self._line.send(self._ws.send(event.response()))

    async def _obey(self, text: str) -> None:
        try:
            command = msgspec.json.decode(text, type=_Command)
        except msgspec.DecodeError:
            await self._send_error("Invalid JSON")
            return
        match command.a, command.v:
            case "subscribe", [*values]:
                refused = self.subscriptions.subscribe(_tokens(values))
                if refused:
                    await self._send_error(
                        f"You can subscribe to at most {self._terms.max_tokens} instruments on a "
                        f"connection; not subscribed: {refused}"
                    )
            case "unsubscribe", [*values]:
                self.subscriptions.unsubscribe(_tokens(values))
            case "mode", [str(mode), [*values]] if mode in MODES:
                self.subscriptions.set_mode(mode, _tokens(values))
            case _:
                await self._send_error("Unknown or malformed command")
        self.ring()

    async def _stream_market(self, greetings: Sequence[str]) -> None:
        """Greet, then send news as it comes, and a heartbeat after a second without any."""
        for text in greetings:
            await self._send_text(text)
        while True:
            with trio.move_on_at(self._spoken_at + self._terms.heartbeat_s):
                await self._news.wait()
            self._news = trio.Event()
            if not self._muted:
                await self._send_news()
            if trio.current_time() >= self._spoken_at + self._terms.heartbeat_s:
                if await self._send(BytesMessage(data=HEARTBEAT)):
                    self.counts.heartbeats += 1
                self._spoken_at = trio.current_time()

    async def _send_news(self) -> None:
        due = self.subscriptions.due()
        size = self._terms.packets_per_frame
        for start in range(0, len(due), size):
            positions, modes = self.subscriptions.take(due[start : start + size])
            if len(positions) == 0:
                continue
            frame = encode_frame(self._market.batch(positions, modes))
            for _ in range(2 if self._duplicating else 1):
                if await self._send(BytesMessage(data=frame)):
                    self.counts.frames += 1
                    self.counts.add(modes)
            self._spoken_at = trio.current_time()

    async def _send_text(self, text: str) -> None:
        if await self._send(TextMessage(data=text)):
            self.counts.texts += 1

    async def _send_error(self, message: str) -> None:
        await self._send_text(msgspec.json.encode({"type": "error", "data": message}).decode())

    async def _send(self, event: Event) -> bool:
        """Whether the event went out in full; False once the socket is closing."""
        async with self._sending:
            size = self._fragment_size
            if isinstance(event, BytesMessage) and size is not None:
                pieces = _split(bytes(event.data), size)
                return all([await self._write(piece) for piece in pieces])
            return await self._write(event)

    async def _write(self, event: Event) -> bool:
        if self._ws.state not in (ConnectionState.OPEN, ConnectionState.CONNECTING):
            return False
        return await self._line.send(self._ws.send(event))

    async def _commit_faults(self) -> None:
        async for fault in self._faults_out:
            match fault:
                case faults.Reset():
                    await self._line.reset()
                case faults.Close():
                    await self._send(CloseConnection(code=fault.code, reason=fault.reason))
                    await trio.sleep(_CLOSE_WAIT_S)  # for the client's answer, which ends us
                    await trio.aclose_forcefully(self._line.stream)
                case faults.JunkText():
                    await self._send_text(fault.text)
                case faults.Stall():
                    await self._stall(fault.seconds)
                case _:
                    await self._send_broken_frame(fault)

    async def _stall(self, seconds: float) -> None:
        positions, modes = self._sample()
        frame = encode_frame(self._market.batch(positions, modes))
        async with self._sending:
            data = self._ws.send(BytesMessage(data=frame))
            await self._line.send(data[: len(data) // 2])
            await trio.sleep(seconds)
            if await self._line.send(data[len(data) // 2 :]):
                self.counts.frames += 1
                self.counts.add(modes)

    async def _send_broken_frame(self, fault: faults.SocketFault) -> None:
        positions, modes = self._sample()
        frame = encode_frame(self._market.batch(positions, modes))
        broken, good = faults.break_frame(frame, len(positions), fault)
        if await self._send(BytesMessage(data=broken)):
            self.counts.broken_frames += 1
            self.counts.add(modes[:good])

    def _sample(self) -> tuple[Positions, UInt8Array]:
        """A few instruments the client has asked for, else the market's first."""
        asked = self.subscriptions.positions[:_SAMPLE]
        if len(asked):
            return asked, self.subscriptions.modes(asked)
        return self._market.everything[:_SAMPLE], np.full(_SAMPLE, 2, dtype=np.uint8)


def _tokens(values: list[object]) -> list[int]:
    """The broker ignores tokens that are not JSON numbers, without a word."""
    return [value for value in values if type(value) is int]


def _split(data: bytes, size: int) -> Iterator[BytesMessage]:
    for start in range(0, len(data), size):
        last = start + size >= len(data)
        yield BytesMessage(data=data[start : start + size], message_finished=last)


def greetings(dump: InstrumentDump, now: float) -> tuple[str, str]:
    """The two texts with which the broker opens every socket."""
    moment = dt.datetime.fromtimestamp(int(now), IST).isoformat()
    meta = {"count": len(dump.rows), "etag": dump.etag}
    return (
        msgspec.json.encode({"type": "instruments_meta", "data": meta}).decode(),
        msgspec.json.encode({"type": "app_code", "timestamp": moment}).decode(),
    )
