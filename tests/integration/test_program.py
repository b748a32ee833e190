"""The program as a user runs it: processes, signals, exit codes, messages."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import redis

from tests.integration.program import (
    CREDENTIALS,
    REPOSITORY,
    children_of,
    environment,
    exists,
    read_addresses,
    run_ticker,
    running,
)
from ticker import __version__
from ticker.calendar.file import DEFAULT_FILE
from ticker.local.ports import free_port
from ticker.local.valkey import valkey_program

pytestmark = pytest.mark.slow


def test_a_run_with_nothing_configured_is_a_complete_market() -> None:
    with running() as child:
        addresses = read_addresses(child.stdout)
        with (
            redis.Redis.from_url(addresses["Redis"]) as client,
            client.pubsub(ignore_subscribe_messages=True) as subscriber,
        ):
            subscriber.subscribe("ticker:nifty:options")
            deadline = time.monotonic() + 20
            while (message := subscriber.get_message(timeout=1)) is None:
                assert time.monotonic() < deadline, "nothing was published"
            assert b'"iv":' in message["data"]
        assert httpx.get(f"{addresses['API']}/readyz").status_code == 200
        assert httpx.get(f"{addresses['simulator']}/_simulator/sockets").json()
        table = run_ticker(["watch", "--redis-url", addresses["Redis"], "--seconds", "2"])
        assert table.returncode == 0
        assert b"SIMULATED" in table.stdout
        assert b"NIFTY" in table.stdout
        servers = children_of(child.pid)
        assert len(servers) == 3, "Valkey, PostgreSQL, the simulator"
        started_at = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=15)
        assert child.returncode == 0
        assert time.monotonic() - started_at < 10
        assert "Traceback" not in errors
        assert not any(exists(pid) for pid in servers), "children gone"


@pytest.mark.parametrize("delay_s", [0.3, 0.8, 1.3, 1.8, 2.5, 4.0])
def test_sigterm_at_every_stage_is_a_clean_exit(delay_s: float) -> None:
    with running() as child:
        time.sleep(delay_s)
        servers = children_of(child.pid)
        child.terminate()
        started_at = time.monotonic()
        _, errors = child.communicate(timeout=15)
        assert time.monotonic() - started_at < 10
        # In its first moments, while Python still imports, the system's own rule holds.
        assert child.returncode == 0 or (delay_s < 1 and child.returncode == -signal.SIGTERM)
        assert "Traceback" not in errors
        assert not any(exists(pid) for pid in servers)


def test_a_dead_child_server_stops_the_process() -> None:
    with running() as child:
        read_addresses(child.stdout)
        os.kill(children_of(child.pid)[0], signal.SIGKILL)
        _, errors = child.communicate(timeout=15)
        assert child.returncode == 1
        assert "valkey" in errors or "simulator" in errors


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        (["run"], {"TICKER_MODE": "everything"}, "TICKER_MODE"),
        (["run"], {"KITE_ACCOUNTS": "a"}, "KITE_A_API_KEY"),
        (["run"], {"HOST": "0.0.0.0", "API_KEY_ENABLED": "false"}, "API_KEY_ENABLED"),
        (["run", "--port", "70000"], {}, "--port"),
        (["run", "--host", "no.such.name.invalid"], {}, "no.such.name.invalid"),
        (["keys", "list"], {"ENV_FILE": "/no/such/env"}, "/no/such/env"),
        (["login", "nobody"], {}, "ENV_FILE"),
        (["simulate", "--redirect", "nowhere"], {}, "nowhere"),
        (["run"], {"MARKET_HOURS_FILE": "/no/such/file"}, "/no/such/file"),
        (["run", "--port", "0"], {"FO_UNDERLYINGS": "NOSUCH"}, "NOSUCH"),
        (["decode", "/no/such/file"], {}, "/no/such/file"),
        (["nonsense"], {}, "nonsense"),
        (["watch", "--redis-url", "redis://127.0.0.1:99999/0"], {}, "port"),
        (["watch", "--expiry", "soon"], {}, "soon"),
        (["bench", "--output", "/no/such/folder/x.json"], {}, "/no/such/folder"),
        (["calendar", "2099-01-01"], {}, "market_hours.toml does not"),
        (["simulate", "--rate", "-1"], {}, "--rate"),
    ],
)
def test_bad_usage_is_one_clear_message_and_exit_code_2(
    arguments: list[str], changes: dict[str, str], said: str
) -> None:
    ended = run_ticker(arguments, changes)
    assert ended.returncode == 2
    errors = ended.stderr.decode()
    assert said in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ('"MCX", "NCO"', '"NCO"', "do not know the exchange 'MCX'"),
        ("expiry = [{ from = 2000-01-01, at = 23:30:00 }]", "expiry = []", "MCX has no expiry"),
    ],
)
def test_real_accounts_need_a_calendar_of_all_their_segments(
    tmp_path: Path, was: str, becomes: str, said: str
) -> None:
    path = tmp_path / "hours.toml"
    path.write_text(DEFAULT_FILE.read_text().replace(was, becomes))
    real = {
        **CREDENTIALS,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "API_KEY": "k" * 32,
        "MARKET_HOURS_FILE": str(path),
    }
    ended = run_ticker(["run", "--port", "0"], real)
    assert ended.returncode == 2
    errors = ended.stderr.decode().strip()
    assert said in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_a_port_in_use_is_one_clear_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments in (["run", "--port", port], ["simulate", "--port", port]):
            ended = run_ticker(arguments)
            assert ended.returncode == 2
            last_line = ended.stderr.decode().strip().splitlines()[-1]
            assert port in last_line
            assert b"Traceback" not in ended.stderr


def test_a_redis_that_refuses_us_is_said_and_harms_nothing_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            *(valkey_program(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""),
            *("--requirepass", "sesame", "--dir", str(tmp_path)),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        with running({"REDIS_URL": f"redis://:wrong-canary@127.0.0.1:{port}/0"}) as child:
            addresses = read_addresses(child.stdout)
            assert "canary" not in str(addresses)
            deadline = time.monotonic() + 15
            while True:
                health = httpx.get(f"{addresses['API']}/health").json()
                if health["ticker"]["running"] and health["dependencies"]["redis"]["last_error"]:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert health["dependencies"]["redis"]["last_error"] == "WRONGPASS"
            assert httpx.get(f"{addresses['API']}/readyz").status_code == 503
            child.terminate()
            _, errors = child.communicate(timeout=15)
            assert child.returncode == 0
            assert "WRONGPASS" in errors
            assert "wrong-canary" not in errors
    finally:
        server.terminate()
        server.wait()


def test_a_broker_out_of_reach_leaves_the_service_up_and_saying_so() -> None:
    changes = CREDENTIALS | {
        "KITE_API_ROOT": "http://127.0.0.1:1",
        "KITE_WS_ROOT": "ws://127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    with running(changes) as child:
        addresses = read_addresses(child.stdout)
        time.sleep(1)
        assert httpx.get(f"{addresses['API']}/livez").status_code == 200
        assert httpx.get(f"{addresses['API']}/readyz").status_code == 503
        registry = httpx.get(f"{addresses['API']}/health").json()["dependencies"]
        assert "ConnectError" in registry["instrument_registry"]["last_error"]
        child.terminate()
        _, errors = child.communicate(timeout=15)
        assert child.returncode == 0
        assert "canary-token" not in errors


def test_output_that_nobody_can_read_does_not_stop_the_service() -> None:
    arguments = [sys.executable, "-m", "ticker", "run", "--port", "0"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    child = subprocess.Popen(
        arguments, stdout=write_end, stderr=subprocess.PIPE, cwd=REPOSITORY, env=environment({})
    )
    os.close(write_end)
    try:
        assert child.stderr is not None
        lines = iter(child.stderr.readline, b"")
        assert any(b'"state": "live"' in line for line in lines)
        child.send_signal(signal.SIGHUP)
        _, errors = child.communicate(timeout=15)
        assert child.returncode == 0
        assert b"Traceback" not in errors
    finally:
        child.kill()
        child.communicate()


def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.write_text("\ufeff0001" + "0008" + "00066109" + "00000064\n", encoding="utf-8")
    command = [sys.executable, "-m", "ticker", "decode", str(frames)]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, cwd=REPOSITORY, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr == b"ticker: cannot write: No space left on device\n"
    ended = run_ticker(["decode", str(frames)])
    assert ended.stdout.startswith(b'{"frame":0,')
    assert b'"anomalies":{}' in ended.stderr


def test_decode_reads_standard_input_and_never_fails() -> None:
    lines = b"# a comment\n\n00\n000100080000660900010000\nzz\n\xff\xfe\n"
    ended = run_ticker(["decode"], stdin=lines)
    assert ended.returncode == 0
    assert ended.stderr.count(b"\n") == 1


def test_decode_into_a_closed_pipe_is_quiet() -> None:
    packet = "0001" + "0008" + "00066109" + "00000064"
    writer = subprocess.Popen(
        [sys.executable, "-m", "ticker", "decode"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(f"{packet}\n".encode() * 1000)
    writer.stdin.flush()
    assert writer.stdout.readline().startswith(b'{"frame":0,')
    writer.stdout.close()
    writer.stdout = None
    _, errors = writer.communicate(f"{packet}\n".encode() * 100_000, timeout=60)
    assert errors == b""
    assert writer.returncode == 0


@pytest.mark.parametrize("arguments", [["--help"], ["decode"]])
def test_light_commands_do_not_import_heavy_modules(arguments: list[str]) -> None:
    code = (
        "import sys, runpy; sys.argv = ['ticker', *sys.argv[1:]]\n"
        "try: runpy.run_module('ticker', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'trio', 'quart', 'scipy', 'pandas', 'redis', 'httpx'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert ended.stdout.endswith("HEAVY []\n")


@pytest.mark.parametrize("waits", [[], ["--port", str(free_port())]])
def test_a_login_that_is_given_up_is_no_traceback_and_no_success(
    waits: list[str], tmp_path: Path
) -> None:
    credentials = {
        "KITE_API_KEY": "k",
        "KITE_API_SECRET": "s",
        "KITE_ACCESS_TOKEN_FILE": str(tmp_path / "token"),
    }
    with running(credentials, ["login", *waits]) as child:
        assert child.stdout is not None
        last = "Waiting" if waits else "Then paste"
        assert any(line.startswith(last) for line in iter(child.stdout.readline, ""))
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=15)
        assert child.returncode == 130
        assert "Traceback" not in errors


def test_version() -> None:
    ended = run_ticker(["--version"])
    assert (ended.returncode, ended.stdout.decode()) == (0, f"ticker {__version__}\n")
