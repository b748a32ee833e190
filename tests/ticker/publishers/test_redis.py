import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.publisher_rig import wait_for
from tests.redis_peers import Command, ScriptedRedis, accept_all
from ticker.errors import (
    ConfigurationError,
    RedisReplyError,
    RedisTimeoutError,
    RedisUnreachableError,
)
from ticker.publishers.redis import open_redis, parse_redis_url
from ticker.publishers.resp import Replies, pack

SECRET = "p@ss/w:rd"
SECRET_ENCODED = "p%40ss%2Fw%3Ard"


@pytest.fixture
def redis(tmp_path: Path) -> ScriptedRedis:
    return ScriptedRedis(tmp_path / "redis")


def test_url_with_everything() -> None:
    address = parse_redis_url(f"rediss://us%20er:{SECRET_ENCODED}@example.com:7000/3")
    assert (address.host, address.port, address.database, address.tls) == (
        "example.com",
        7000,
        3,
        True,
    )
    assert (address.username, address.password) == ("us er", SECRET)
    assert SECRET not in repr(address) + str(address)


def test_url_defaults() -> None:
    address = parse_redis_url("redis://")
    assert (address.host, address.port, address.database, address.tls) == (
        "localhost",
        6379,
        0,
        False,
    )
    assert address.password is None
    assert parse_redis_url("redis://h?db=4").database == 4
    assert parse_redis_url("unix:///run/redis.sock?db=4").unix_path == "/run/redis.sock"
    assert parse_redis_url("unix:///run/redis.sock").database == 0


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET_ENCODED}@h",
        f"redis://:{SECRET_ENCODED}@h:99999",
        f"redis://:{SECRET_ENCODED}@h/one",
        f"redis://:{SECRET_ENCODED}@h/-1",
        f"unix://:{SECRET_ENCODED}@",
        "",
    ],
)
def test_bad_url(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_redis_url(url)
    assert SECRET_ENCODED not in str(caught.value)


async def test_logs_in_before_anything_else(redis: ScriptedRedis) -> None:
    url = redis.url.replace("unix://", f"unix://me:{SECRET_ENCODED}@") + "?db=2"
    async with redis.open(), open_redis(url, name="me"):
        pass
    assert redis.commands == [
        [b"AUTH", b"me", SECRET.encode()],
        [b"SELECT", b"2"],
        [b"PING"],
        [b"CLIENT", b"SETNAME", b"me"],
    ]


def refusing(name: bytes, answer: bytes) -> Callable[[Command], bytes]:
    def respond(command: Command) -> bytes:
        return answer if command[0] == name else accept_all(command)

    return respond


@pytest.mark.parametrize(
    ("command", "answer", "code"),
    [
        (
            b"AUTH",
            b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
            "WRONGPASS",
        ),
        (b"AUTH", f"-ERR unknown command 'AUTH', with args: '{SECRET}'\r\n".encode(), "ERR"),
        (b"PING", b"-NOAUTH Authentication required.\r\n", "NOAUTH"),
        (b"PING", b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        (b"AUTH", b"-ERR max number of clients reached\r\n", "MAXCLIENTS"),
    ],
)
async def test_refused_log_in(
    command: bytes, answer: bytes, code: str, redis: ScriptedRedis
) -> None:
    redis.respond = refusing(command, answer)
    url = redis.url.replace("unix://", f"unix://:{SECRET_ENCODED}@")
    async with redis.open():
        with pytest.raises(RedisReplyError) as caught:
            async with open_redis(url):
                pass
    assert caught.value.code == code
    assert SECRET not in str(caught.value)


async def test_a_name_that_is_refused_does_not_matter(redis: ScriptedRedis) -> None:
    redis.respond = refusing(b"CLIENT", b"-NOPERM no\r\n")
    async with redis.open(), open_redis(redis.url) as connection:
        await connection.ping()


async def test_a_full_server_says_so_and_closes() -> None:
    async def be_full(stream: trio.SocketStream) -> None:
        await stream.send_all(b"-ERR max number of clients reached\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, be_full, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(RedisReplyError) as caught:
            async with open_redis(f"redis://127.0.0.1:{port}"):
                pass
        assert caught.value.code == "MAXCLIENTS"
        nursery.cancel_scope.cancel()


async def test_no_server() -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        with pytest.raises(RedisUnreachableError, match="refused"):
            async with open_redis(f"redis://127.0.0.1:{taken.getsockname()[1]}"):
                pass


async def test_an_error_reply_keeps_the_connection(redis: ScriptedRedis) -> None:
    redis.respond = refusing(b"BAD", b"-ERR no\r\n")
    async with redis.open(), open_redis(redis.url) as connection:
        replies = Replies(3)
        await connection.send(pack("PUBLISH", "a", "b") + pack("BAD") + pack("PING"), replies)
        assert [refusal.position for refusal in replies.refusals] == [1]
        await connection.ping()
    assert redis.connections == 1


async def test_no_answer_is_a_timeout_and_the_end_of_the_connection(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with redis.open(), open_redis(redis.url, timeout_s=1.0) as connection:
        redis.respond = lambda command: None if command[0] == b"BAD" else accept_all(command)
        replies = Replies(3)
        began_at = trio.current_time()
        with pytest.raises(RedisTimeoutError):
            await connection.send(pack("PING") * 2 + pack("BAD"), replies)
        assert trio.current_time() - began_at == pytest.approx(1.0, abs=0.02)
        assert replies.answered == 2
        with pytest.raises(RedisUnreachableError):
            await connection.ping()


async def test_cancelled_halfway_the_connection_is_not_used_again(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with redis.open(), open_redis(redis.url) as connection:
        redis.respond = lambda command: None
        with trio.move_on_after(0.1) as scope:
            await connection.send(pack("PING"), Replies(1))
        assert scope.cancelled_caught
        redis.respond = accept_all
        with pytest.raises(RedisUnreachableError):
            await connection.ping()


async def test_what_was_not_sent_in_time_is_never_sent() -> None:
    """The kernel must not go on sending old values from a connection that we gave up."""
    given_up = trio.Event()
    ends: list[str] = []

    async def be_frozen(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"+PONG\r\n+OK\r\n")
        await given_up.wait()
        try:
            while await stream.receive_some():
                pass
            ends.append("all was delivered")
        except trio.BrokenResourceError:
            ends.append("reset")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, be_frozen, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with open_redis(f"redis://127.0.0.1:{port}", timeout_s=0.1) as connection:
            with pytest.raises(RedisTimeoutError):
                await connection.send(pack("PUBLISH", "a", bytes(30_000_000)), Replies(1))
        given_up.set()
        await wait_for(lambda: bool(ends), 2)
        nursery.cancel_scope.cancel()
    assert ends == ["reset"]


async def test_closed_by_the_server(redis: ScriptedRedis) -> None:
    async with AsyncExitStack() as server:
        await server.enter_async_context(redis.open())
        async with open_redis(redis.url) as connection:
            await connection.ping()
            await server.aclose()
            with pytest.raises(RedisUnreachableError):
                await connection.ping()


async def serve_ping(stream: trio.abc.Stream) -> None:
    """A server that answers each chunk it gets, a pipeline of two, with two replies."""
    try:
        while await stream.receive_some():
            await stream.send_all(b"+PONG\r\n+OK\r\n")
    except trio.BrokenResourceError:
        await trio.aclose_forcefully(stream)


def create_certificate(folder: Path) -> Path:
    """A self-signed certificate for ``localhost`` with its key, as one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "server.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.mark.parametrize("trusted_by", ["system", "argument", "nobody"])
async def test_tls_certificates_are_verified(
    trusted_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = create_certificate(tmp_path)
    if trusted_by == "system":
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    tls = ssl.create_default_context(cafile=pem) if trusted_by == "argument" else None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, serve_ping, listeners))
        tcp_listener = listeners[0].transport_listener
        assert isinstance(tcp_listener, trio.SocketListener)
        port = tcp_listener.socket.getsockname()[1]
        url = f"rediss://localhost:{port}"
        if trusted_by != "nobody":
            async with open_redis(url, tls=tls) as connection:
                replies = Replies(2)
                await connection.send(pack("PING") + pack("PING"), replies)
                assert replies.complete
        else:
            with pytest.raises(RedisUnreachableError, match="certificate"):
                async with open_redis(url):
                    pass
        nursery.cancel_scope.cancel()


async def test_no_connection_is_left_open_where_tls_cannot_begin() -> None:
    ended = trio.Event()

    async def wait_end(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
        ended.set()
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, wait_end, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(ssl.SSLError) as caught:
            async with open_redis(
                f"rediss://127.0.0.1:{port}", tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ):
                pass
        with trio.fail_after(1):
            await ended.wait()
        del caught  # until here it kept alive what the frames held
        nursery.cancel_scope.cancel()
