import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trio

from tests.publisher_rig import wait_for
from ticker.errors import ChildExitedError, ConfigurationError
from ticker.local.children import HEAD_LINES_MAX, TAIL_LINES, open_child
from ticker.local.ports import free_port, open_child_on_port
from ticker.local.valkey import FOLDER, open_valkey_child, valkey_program
from ticker.publishers.redis import open_redis

pytestmark = pytest.mark.slow


def python(source: str) -> list[str]:
    return [sys.executable, "-u", "-I", "-S", "-c", textwrap.dedent(source)]


def is_ready(line: str) -> bool:
    return line == "ready"


SLEEPER = python("import time; print('ready'); time.sleep(60)")


def is_running(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def working_folder(pid: int) -> Path:
    return Path(f"/proc/{pid}/cwd").readlink()


async def wait_gone(pid: int, within_s: float) -> None:
    await wait_for(lambda: not is_running(pid), within_s)


async def test_lives_as_long_as_its_block() -> None:
    command = python("import time; print('address=1'); print('ready'); time.sleep(60)")
    async with open_child(command, ready=is_ready, name="server") as child:
        assert child.head == ["address=1", "ready"]
        assert is_running(child.pid)
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    assert not is_running(child.pid)


async def test_stubborn_child_and_its_children_are_killed() -> None:
    command = python("""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = os.fork()
        if grandchild:
            print(grandchild)
            print('ready')
        time.sleep(60)
    """)
    async with open_child(command, ready=is_ready, name="server", stop_timeout_s=0.2) as child:
        stopping_at = trio.current_time()
    assert 0.2 <= trio.current_time() - stopping_at < 1.5
    assert not is_running(child.pid)
    await wait_gone(int(child.head[0]), 1.0)


async def test_what_an_obedient_child_leaves_behind_is_killed() -> None:
    command = python("""
        import os, signal, time
        grandchild = os.fork()
        if grandchild:
            print(grandchild)
            print('ready')
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    """)
    async with open_child(command, ready=is_ready, name="server") as child:
        pass
    await wait_gone(int(child.head[0]), 1.0)


async def test_cancellation_stops_it_too() -> None:
    with trio.move_on_after(0.3):
        async with open_child(SLEEPER, ready=is_ready, name="server") as child:
            await trio.sleep_forever()
    assert not is_running(child.pid)


async def test_child_that_ends_in_use_ends_the_block() -> None:
    command = python(
        "import time; print('ready'); time.sleep(0.1); print('why'); raise SystemExit(3)"
    )
    with trio.fail_after(5), pytest.raises(ChildExitedError) as caught:
        async with open_child(command, ready=is_ready, name="server"):
            await trio.sleep_forever()
    assert "server ended with code 3" in str(caught.value)
    assert "why" in str(caught.value)


async def test_child_that_ends_before_it_is_ready() -> None:
    with pytest.raises(ChildExitedError, match="no such luck"):
        async with open_child(
            python("raise SystemExit('no such luck')"), ready=is_ready, name="server"
        ):
            pass


async def test_child_that_is_never_ready() -> None:
    command = python("import time; time.sleep(60)")
    with pytest.raises(ChildExitedError, match="not ready"):
        async with open_child(command, ready=is_ready, name="server", start_timeout_s=0.2):
            pass


async def test_no_such_program() -> None:
    with pytest.raises(ConfigurationError, match="no-such-program"):
        async with open_child(["no-such-program"], ready=is_ready, name="server"):
            pass


async def test_errors_of_the_block_come_out_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_child(SLEEPER, ready=is_ready, name="server"):
            raise ZeroDivisionError


async def test_a_chatty_child_neither_blocks_nor_fills_memory() -> None:
    command = python("""
        import sys, time
        print('ready')
        for number in range(50_000):
            print(number, 'x' * 100)
        sys.stdout.write('y' * 1_000_000)
        print()
        print('done')
        time.sleep(60)
    """)
    async with open_child(command, ready=is_ready, name="server") as child:
        await wait_for(lambda: "done" in child.tail, 10)
        assert len(child.head) == HEAD_LINES_MAX
        assert len(child.tail) == TAIL_LINES
        assert max(map(len, child.tail)) < 20_000


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
async def test_a_killed_parent_leaves_no_orphan() -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220 - SIGKILL must hit a process that runs Trio
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import trio
                from ticker.local.valkey import open_valkey_child

                assert trio._core._thread_cache.IDLE_TIMEOUT == 10
                trio._core._thread_cache.IDLE_TIMEOUT = 0.1

                async def main():
                    await trio.to_thread.run_sync(str)
                    async with open_valkey_child() as (child, url):
                        print(child.pid, flush=True)
                        await trio.sleep_forever()

                trio.run(main)
            """),
        ],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    with parent:
        assert parent.stdout is not None
        line = await trio.to_thread.run_sync(parent.stdout.readline)
        server = int(line)
        assert is_running(server)
        folder = working_folder(server)
        # longer than it keeps an idle worker thread: the tether is not to such a thread
        await trio.sleep(0.7)
        assert is_running(server)
        parent.kill()
    await wait_gone(server, 3.0)
    folder.rmdir()  # empty; who was killed could not remove it


async def test_valkey() -> None:
    async with open_valkey_child() as (child, url), open_redis(url) as connection:
        await connection.ping()
        folder = working_folder(child.pid)
        assert folder.name.startswith(FOLDER)
    assert not is_running(child.pid)
    assert not folder.exists()


async def test_valkey_that_is_killed_is_noticed() -> None:
    with trio.fail_after(5), pytest.raises(ChildExitedError, match="-9"):  # noqa: PT012
        async with open_valkey_child() as (child, _):
            os.kill(child.pid, signal.SIGKILL)
            await trio.sleep_forever()


async def test_valkey_leaves_a_taken_port_to_who_has_it(free_tcp_port: int) -> None:
    async with open_valkey_child(port=free_tcp_port) as (first, url):
        assert url == f"redis://127.0.0.1:{free_tcp_port}/0"
        async with (
            open_valkey_child(port=free_tcp_port) as (second, other),
            open_redis(other) as one,
        ):
            await one.ping()
            assert is_running(first.pid)
            assert is_running(second.pid)
        assert other != url


LISTENER = """
    import socket, sys, time
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    print("ready")
    time.sleep(60)
"""


async def test_a_port_that_is_taken_under_its_nose_is_left_for_another() -> None:
    ports: list[int] = []
    with contextlib.ExitStack() as others:

        def create_command(port: int) -> list[str]:
            if len(ports) < 2:  # somebody is quicker than the child
                others.enter_context(socket.create_server(("127.0.0.1", port)))
            ports.append(port)
            return [*python(LISTENER), str(port)]

        async with open_child_on_port(create_command, 0, ready=is_ready, name="server") as (
            _,
            port,
        ):
            assert ports[2] == port
    assert len(set(ports)) == 3


async def test_a_child_that_fails_by_itself_is_not_started_again() -> None:
    ports: list[int] = []

    def create_command(port: int) -> list[str]:
        ports.append(port)
        return python("raise SystemExit('no such luck')")

    with pytest.raises(ChildExitedError, match="no such luck"):
        async with open_child_on_port(create_command, 0, ready=is_ready, name="server"):
            pass
    assert len(ports) == 1


@pytest.fixture
def free_tcp_port() -> int:
    return free_port()


def test_valkey_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ticker.local.valkey.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="embedded"):
        valkey_program()
