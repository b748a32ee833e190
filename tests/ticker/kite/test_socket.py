import datetime as dt
import socket as stdlib_socket
import ssl
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from trio_websocket import ConnectionClosed, wrap_server_stream

from tests.memory_broker import CREDENTIALS, MemoryNetwork, open_memory_broker
from ticker.accounts.sessions import Session
from ticker.errors import (
    ConfigurationError,
    FeedClosedError,
    FeedError,
    FeedThrottledError,
    FeedUnreachableError,
    HandshakeRejectedError,
    TokenRejectedError,
)
from ticker.kite.socket import MESSAGE_SIZE_MAX, FeedSocket, OpenStream, open_feed
from ticker.latest import Latest

ROOT = "ws://localhost"


@asynccontextmanager
async def connected(
    handler: Callable[[Any], Awaitable[None]],
) -> AsyncIterator[tuple[FeedSocket, MemoryNetwork]]:
    """A feed socket whose peer runs ``handler(connection)`` in memory, for a minute at most."""

    async def accept(request: Any) -> None:
        await handler(await request.accept())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery, accept)
            async with open_feed(ROOT, CREDENTIALS, open_stream=network.open_stream) as socket:
                yield socket, network
            nursery.cancel_scope.cancel()


def raw_peer(nursery: trio.Nursery, answer: bytes | None) -> OpenStream:
    """An ``open_stream`` whose peer reads the request and answers these bytes; None: nothing."""

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        if answer is None:
            await trio.sleep_forever()
        await stream.send_all(answer)
        await stream.aclose()

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        client, server = trio.testing.memory_stream_pair()
        nursery.start_soon(talk, server)
        return client

    return open_stream


def accepting_peer(
    nursery: trio.Nursery, talk: Callable[[trio.abc.Stream], Awaitable[None]]
) -> OpenStream:
    """An ``open_stream`` whose peer accepts the request, then runs ``talk`` on the bare stream."""

    async def serve(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as accepting:
            request = await wrap_server_stream(accepting, stream)
            await request.accept()
            accepting.cancel_scope.cancel()
        await talk(stream)

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        client, server = trio.testing.memory_stream_pair()
        nursery.start_soon(serve, server)
        return client

    return open_stream


async def test_request_is_the_brokers(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[Any] = []

    async def handle(request: Any) -> None:
        seen.append(request)
        connection = await request.accept()
        await connection.send_message("hello")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery, handle)
        async with open_feed(
            "ws://localhost:8765/feed", CREDENTIALS, open_stream=network.open_stream
        ) as socket:
            assert await socket.receive() == "hello"
        nursery.cancel_scope.cancel()
    (request,) = seen
    assert request.path == "/feed?api_key=key-CANARY&access_token=token%2FCANARY%2B1%20%26x"
    headers = dict(request.headers)
    assert headers[b"x-kite-version"] == b"3"
    assert headers[b"user-agent"]
    assert b"sec-websocket-extensions" not in headers


async def test_messages_arrive_whole_and_in_order(autojump_clock: trio.testing.MockClock) -> None:
    messages = [b"\x00", "text", b"", b"x" * 558_002, '{"type":"order"}', b"last"]

    async def handle(connection: Any) -> None:
        for message in messages:
            await connection.send_message(message)
        await trio.sleep_forever()

    async with connected(handle) as (socket, _):
        assert [await socket.receive() for _ in messages] == messages


async def test_fragments_are_joined_and_pings_between_them_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = trio.testing.memory_stream_pair()
    sent = trio.Event()

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return client

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, server)
            await request.accept()
            for part in (b"\x02\x02ab", b"\x89\x01p", b"\x00\x01c", b"\x80\x01d"):
                await server.send_all(part)
            await sent.wait()
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_feed(ROOT, CREDENTIALS, open_stream=open_stream) as socket:
            assert await socket.receive() == b"abcd"
            sent.set()


async def test_server_ping_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    async def handle(connection: Any) -> None:
        await connection.ping()
        await connection.send_message("pong seen")
        await trio.sleep_forever()

    async with connected(handle) as (socket, _):
        assert await socket.receive() == "pong seen"


async def test_one_receives_while_others_send(autojump_clock: trio.testing.MockClock) -> None:
    async def echo(connection: Any) -> None:
        while True:
            await connection.send_message(await connection.get_message())

    async with connected(echo) as (socket, _), trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(socket.send, f"{number}" * 100)
        received = {await socket.receive() for _ in range(20)}
    assert received == {f"{number}" * 100 for number in range(20)}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, HandshakeRejectedError),
        (403, TokenRejectedError),
        (429, FeedThrottledError),
        (500, HandshakeRejectedError),
        (503, HandshakeRejectedError),
    ],
)
async def test_handshake_status_is_classified(
    status: int, error: type[HandshakeRejectedError], autojump_clock: trio.testing.MockClock
) -> None:
    async with open_memory_broker() as broker:
        broker.status = status
        with pytest.raises(error) as caught:
            async with open_feed(ROOT, CREDENTIALS, open_stream=broker.network.open_stream):
                pytest.fail("the handshake was refused")
        assert type(caught.value) is error
        assert caught.value.status == status
        assert not broker.network.open


@pytest.mark.parametrize(
    ("answer", "reason", "after_s"),
    [
        (b"", "closed", 0),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "WebSocket", 0),
        (b"HTTP/1.1 101 Fine\r\n\r\n", "WebSocket", 0),
        (b"HTTP/1.1 1", "closed", 0),
        (None, "no answer in time", 10),
    ],
)
async def test_peer_that_is_no_broker_is_unreachable(
    answer: bytes | None, reason: str, after_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        with pytest.raises(FeedUnreachableError, match=reason):
            async with open_feed(ROOT, CREDENTIALS, open_stream=raw_peer(nursery, answer)):
                pytest.fail("there was no handshake")
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == after_s


async def test_close_is_told_with_its_code_after_the_last_message(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handle(connection: Any) -> None:
        await connection.send_message(b"last")
        await connection.aclose(1011)

    async with connected(handle) as (socket, _):
        assert await socket.receive() == b"last"
        with pytest.raises(FeedClosedError, match="1011"):
            await socket.receive()
        with pytest.raises(FeedClosedError):
            await socket.send("too late")


async def test_stream_that_ends_is_closed_feed(autojump_clock: trio.testing.MockClock) -> None:
    async def handle(connection: Any) -> None:
        await trio.lowlevel.checkpoint()

    async with connected(handle) as (socket, _):
        with pytest.raises(FeedClosedError):
            await socket.receive()


@pytest.mark.parametrize("junk", [b"\xff\xff\xff\xff", b"\x81\x02\xff\xff", b"\x83\x00"])
async def test_broken_protocol_is_closed_feed(
    junk: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async def handle(connection: Any) -> None:
        await connection._stream.send_all(junk)
        await trio.sleep_forever()

    async with connected(handle) as (socket, _):
        with pytest.raises(FeedClosedError):
            await socket.receive()


async def test_message_above_the_limit_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async def handle(connection: Any) -> None:
        await connection.send_message(b"x" * (MESSAGE_SIZE_MAX + 1))

    async with connected(handle) as (socket, _):
        with pytest.raises(FeedClosedError, match="above"):
            await socket.receive()


async def test_leaving_says_goodbye(autojump_clock: trio.testing.MockClock) -> None:
    codes: list[int] = []

    async def handle(connection: Any) -> None:
        try:
            await connection.get_message()
        except ConnectionClosed as closed:
            codes.append(closed.reason.code if closed.reason else 0)

    async with connected(handle):
        pass
    assert codes == [1000]


async def test_leaving_a_dead_peer_takes_a_second(autojump_clock: trio.testing.MockClock) -> None:
    async def handle(request: Any) -> None:
        connection = await request.accept()
        # A peer that is gone: nobody reads what arrives, and nobody answers.
        connection._reader_running = False
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery, handle)
        async with open_feed(ROOT, CREDENTIALS, open_stream=network.open_stream):
            began = trio.current_time()
        assert trio.current_time() - began <= 1
        assert not network.open
        nursery.cancel_scope.cancel()


async def test_error_of_the_block_comes_out_as_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bug = KeyError("a bug")

    async def handle(request: Any) -> None:
        await request.accept()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery, handle)
        with pytest.raises(KeyError) as caught:
            async with open_feed(ROOT, CREDENTIALS, open_stream=network.open_stream):
                raise bug
        assert caught.value is bug
        assert not network.open
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "root", ["ws://ws.kite.trade", "http://localhost", "wss://", "ws://10.0.0.1:80", "localhost"]
)
async def test_root_that_would_give_the_token_away_is_refused(root: str) -> None:
    with pytest.raises(ConfigurationError):
        async with open_feed(root, CREDENTIALS):
            pytest.fail("this root must be refused")


async def test_context_that_does_not_verify_is_refused() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ConfigurationError):
        async with open_feed("wss://localhost", CREDENTIALS, ssl_context=context):
            pytest.fail("this context must be refused")


# Over a real network, in the kernel at least


async def test_refused_connection_and_unknown_host() -> None:
    with stdlib_socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(FeedUnreachableError, match=f"its host:{port}") as caught:
            async with open_feed(f"ws://127.0.0.1:{port}", CREDENTIALS):
                pytest.fail("nobody listens there")
        assert "127.0.0.1" not in str(caught.value), "/health shows it to everybody"

    async def fail_to_resolve(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise stdlib_socket.gaierror(-2, "Name or service not known")

    with pytest.raises(FeedUnreachableError, match="not known"):
        async with open_feed("wss://no.such.host", CREDENTIALS, open_stream=fail_to_resolve):
            pytest.fail("the name does not resolve")


async def test_tcp_reset_is_closed_feed_and_leaves_no_descriptor() -> None:
    async def reset(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            connection = await request.accept()
            await connection.get_message()
            stream.setsockopt(
                stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            nursery.cancel_scope.cancel()
            stream.socket.close()

    streams: list[trio.SocketStream] = []

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        streams.append(await trio.open_tcp_stream(host, port))
        return streams[-1]

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, reset, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        root = f"ws://127.0.0.1:{port}"
        async with open_feed(root, CREDENTIALS, open_stream=open_stream) as socket:
            await socket.send("go on")
            with pytest.raises(FeedClosedError):
                await socket.receive()
        assert [stream.socket.fileno() for stream in streams] == [-1]
        nursery.cancel_scope.cancel()


def certificate(directory: Path, name: str) -> Path:
    """A self-signed certificate for a host name, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@asynccontextmanager
async def tls_broker(pem: Path) -> AsyncIterator[int]:
    """The port of a broker on TLS, which greets and waits."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)

    async def greet(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                request = await wrap_server_stream(nursery, stream)
                connection = await request.accept()
                await connection.send_message("hello")
                await trio.sleep_forever()
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        serve = partial(
            trio.serve_ssl_over_tcp, greet, 0, context, host="127.0.0.1", https_compatible=True
        )
        (listener,) = await nursery.start(serve)
        yield listener.transport_listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_certificate_decides_whether_we_connect(tmp_path: Path) -> None:
    ours, other = certificate(tmp_path, "localhost"), certificate(tmp_path, "elsewhere")

    async def connect(served: Path, trusted: Path | None) -> str | bytes:
        context = ssl.create_default_context(cafile=trusted)
        async with (
            tls_broker(served) as port,
            open_feed(f"wss://localhost:{port}", CREDENTIALS, ssl_context=context) as socket,
        ):
            return await socket.receive()

    assert await connect(ours, ours) == "hello"
    # Not trusted; trusted, but for another host; the system's authorities do not know it.
    for served, trusted in ((ours, other), (other, other), (ours, None)):
        refused = pytest.RaisesExc(FeedUnreachableError, match="certificate")
        with pytest.RaisesGroup(refused):
            await connect(served, trusted)


# Secrets


def assert_no_secret(error: BaseException) -> None:
    text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "CANARY" not in text
    assert "access_token=" not in text
    chain: list[BaseException | None] = [error, error.__cause__]
    assert not [link for link in chain if link is not None and "CANARY" in repr(link)]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        None,
        b"junk\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: /?access_token=CANARY\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_handshake_error_shows_no_secret_even_with_local_variables(
    answer: bytes | None, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        open_stream = raw_peer(nursery, answer)
        with pytest.raises(FeedError) as caught:
            async with open_feed(ROOT, CREDENTIALS, open_stream=open_stream):
                pytest.fail("the handshake was refused")
        nursery.cancel_scope.cancel()
    # The test's own frame names the answer, which one case above poisons on purpose.
    error = caught.value
    del answer
    assert error.__traceback__ is not None
    assert_no_secret(error.with_traceback(error.__traceback__.tb_next))


class BrokenStream(trio.abc.Stream):
    """A connection that breaks at the first byte; its traceback holds what was to be sent."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_request_that_cannot_be_sent_is_not_shown() -> None:
    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return BrokenStream()

    with pytest.raises(FeedUnreachableError) as caught:
        async with open_feed(ROOT, CREDENTIALS, open_stream=open_stream):
            pytest.fail("nothing could be sent")
    assert_no_secret(caught.value)


async def test_bug_inside_the_block_shows_no_secret(
    autojump_clock: trio.testing.MockClock,
) -> None:
    account = Session("primary", Latest(CREDENTIALS))

    async def handle(connection: Any) -> None:
        await trio.sleep_forever()

    with pytest.RaisesGroup(KeyError) as caught:
        async with connected(handle) as (socket, _):
            raise KeyError(repr(account), repr(socket))
    assert_no_secret(caught.value)


# Cancellation


async def test_cancelled_at_any_checkpoint_closes_its_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handle(connection: Any) -> None:
        while True:
            await connection.send_message(await connection.get_message())

    async def use(network: MemoryNetwork) -> None:
        async with open_feed(ROOT, CREDENTIALS, open_stream=network.open_stream) as socket:
            await socket.send("echo")
            await socket.receive()

    async def accept(request: Any) -> None:
        await handle(await request.accept())

    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery, accept)
        finished = False
        steps = 0
        while not finished:
            steps += 1
            finished = await cancel_after(steps, partial(use, network))
            assert not network.open
        assert steps > 10
        nursery.cancel_scope.cancel()


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope when a task has been scheduled so many times."""

    def __init__(self, steps: int, task: trio.lowlevel.Task, scope: trio.CancelScope) -> None:
        self._left, self._task, self._scope = steps, task, scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def cancel_after(steps: int, function: Callable[[], Awaitable[None]]) -> bool:
    """Run the function, cancel it as it resumes for the nth time; True if it ended before."""
    with trio.CancelScope() as scope:
        instrument = CancelAfter(steps, trio.lowlevel.current_task(), scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            await function()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return not scope.cancel_called


async def test_error_of_the_block_is_not_joined_by_a_cancellation(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    bug, cause = KeyError("a bug"), ValueError("why")
    scope = trio.CancelScope()

    def fail() -> None:
        scope.cancel()
        raise bug from cause

    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyError) as caught, scope:
            async with open_feed(ROOT, CREDENTIALS, open_stream=accepting_peer(nursery, talk)):
                fail()
        assert caught.value is bug
        assert (bug.__cause__, bug.__context__) == (cause, None)
        nursery.cancel_scope.cancel()


async def test_ping_after_our_goodbye_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    async def ping_late(stream: trio.abc.Stream) -> None:
        assert await stream.receive_some()
        await stream.send_all(b"\x89\x01p")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with open_feed(ROOT, CREDENTIALS, open_stream=accepting_peer(nursery, ping_late)):
            began = trio.current_time()
        assert trio.current_time() - began <= 1
        nursery.cancel_scope.cancel()
