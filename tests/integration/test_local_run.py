"""Local runs beside each other and after each other, and whoever watches where nothing is."""

import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.integration.program import descendants_of, exists, read_addresses, run_ticker, running
from ticker.local.ports import free_port
from ticker.local.valkey import valkey_program

pytestmark = pytest.mark.slow


def test_a_killed_service_leaves_no_server_and_the_next_sweeps_its_folders() -> None:
    with tempfile.TemporaryDirectory(prefix="ticker-test-") as place:
        Path(place).chmod(0o755)  # a superuser's PostgreSQL is another user
        with running({"TMPDIR": place}) as child:
            read_addresses(child.stdout)
            servers = descendants_of(child.pid)
            assert len(servers) > 3, "with the processes of PostgreSQL"
            child.kill()
            child.wait()
            deadline = time.monotonic() + 10
            while any(exists(pid) for pid in servers):
                assert time.monotonic() < deadline, "orphaned"
                time.sleep(0.05)
        stale = {path.name for path in Path(place).iterdir()}
        assert len(stale) == 3, "nobody was left to remove them"
        with running({"TMPDIR": place}) as child:
            read_addresses(child.stdout)
            own = {path.name for path in Path(place).iterdir()}
            assert len(own) == 3
            assert own.isdisjoint(stale)
            child.terminate()
            child.communicate(timeout=15)
        assert list(Path(place).iterdir()) == []


def test_a_second_service_on_a_data_directory_is_one_clear_line() -> None:
    with tempfile.TemporaryDirectory(prefix="ticker-test-") as place:
        Path(place).chmod(0o755)
        directory = {"DATABASE_DIR": f"{place}/data"}
        with running(directory) as child:
            read_addresses(child.stdout)
            ended = run_ticker(["run", "--port", "0"], directory)
            assert ended.returncode == 2
            assert ended.stderr.decode() == (
                f"ticker: DATABASE_DIR: another service keeps its data in {place}/data\n"
            )
            assert child.poll() is None
            child.terminate()
            child.communicate(timeout=15)


def test_two_services_at_once_share_the_ports_out() -> None:
    with running() as first, running() as second:
        places = [read_addresses(child.stdout) for child in (first, second)]
        for name in ("API", "Redis", "simulator"):
            assert places[0][name] != places[1][name]
        for child in (first, second):
            child.terminate()
        for child in (first, second):
            _, errors = child.communicate(timeout=15)
            assert child.returncode == 0
            assert "Traceback" not in errors


@pytest.mark.parametrize("raw", [[], ["--raw"]])
def test_watch_says_what_it_waits_for_and_where(raw: list[str], tmp_path: Path) -> None:
    port = free_port()
    server = subprocess.Popen(
        [
            *(valkey_program(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""),
            *("--dir", str(tmp_path), "--requirepass", "sesame"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        assert any(b"Ready to accept" in line for line in server.stdout)
        url = f"redis://:sesame@127.0.0.1:{port}/0"
        ended = run_ticker(["watch", *raw, "--seconds", "3.5", "--redis-url", url])
        assert ended.returncode == 0
        said = " ".join((ended.stdout + ended.stderr).decode().split())
        assert "nothing yet from ticker:nifty:options" in said
        assert f"127.0.0.1:{port}/0: is the service running" in said
        assert "sesame" not in said
    finally:
        server.kill()
        server.communicate()


def test_watch_where_no_redis_is_says_where() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    ended = run_ticker(["watch", "--redis-url", url])
    assert ended.returncode == 1
    assert ended.stderr.decode().startswith(f"ticker: Redis at {url} cannot be used: ")
    assert ended.stderr.count(b"\n") == 1
