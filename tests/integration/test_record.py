"""``ticker record`` and ``ticker replay`` as a user runs them: processes, signals, a full disk."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from tests.integration.program import (
    REPOSITORY,
    children_of,
    environment,
    exists,
    read_addresses,
    run_ticker,
)
from ticker.recording.reader import Frames, Instruments, Recording, Session, open_recording

pytestmark = pytest.mark.slow


@contextmanager
def recording(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A recorder of the local market."""
    child = subprocess.Popen(
        [sys.executable, "-m", "ticker", "record", str(path), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=environment({}),
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def wait_ready(url: str) -> None:
    deadline = time.monotonic() + 20
    while httpx.get(f"{url}/readyz").status_code != 200:
        assert time.monotonic() < deadline, "never ready"
        time.sleep(0.1)


def wait_size(path: Path, size: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, "nothing is recorded"
        time.sleep(0.02)


def read(path: Path) -> tuple[Recording, list[int]]:
    """The recording, read, and how many frames, instruments and sessions it holds."""
    counts = [0, 0, 0]
    with open_recording(path) as tape:
        for block in tape:
            counts[0] += len(block.frames) if isinstance(block, Frames) else 0
            counts[1] += len(block.rows) if isinstance(block, Instruments) else 0
            counts[2] += isinstance(block, Session)
    return tape, counts


def test_a_local_market_is_recorded_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "market.tape"
    with recording(path) as child:
        addresses = read_addresses(child.stdout)
        wait_size(path, 60_000)
        wait_ready(addresses["API"])
        child.send_signal(signal.SIGINT)
        said, errors = child.communicate(timeout=20)
        assert child.returncode == 0
        assert "Traceback" not in errors
    tape, (frames, instruments, sessions) = read(path)
    assert (tape.damage, sessions) == (None, 1)
    assert f"recorded {frames} frames" in said
    assert instruments > 100
    with recording(path, "--append", "--seconds", "2") as child:
        child.communicate(timeout=60)
        assert child.returncode == 0
    tape, (more, same, sessions) = read(path)
    assert more > frames
    assert sessions == 2
    # the market has moved, and the chains with it; what is known is not written again
    assert instruments <= same < instruments * 1.5
    ended = run_ticker(["replay", str(path), "--speed", "max"])
    assert ended.returncode == 0
    assert f"replayed {more} frames" in ended.stdout.decode()
    assert "not published" not in ended.stdout.decode()


def test_a_replay_in_a_loop_is_a_market_that_says_it_is_mock(tmp_path: Path) -> None:
    path = tmp_path / "market.tape"
    with recording(path, "--seconds", "3") as child:
        child.communicate(timeout=60)
    command = [sys.executable, "-m", "ticker", "replay", str(path), "--loop", "--speed", "4"]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=environment({}),
    )
    try:
        assert child.stdout is not None
        address = ""
        while not address:
            name, _, rest = child.stdout.readline().strip().partition(" ")
            address = rest.strip() if name == "Redis" else ""
        with redis.Redis.from_url(address) as client, client.pubsub() as subscriber:
            subscriber.subscribe("ticker:nifty:options")
            deadline, seen = time.monotonic() + 20, 0
            while seen < 100:
                assert time.monotonic() < deadline, "nothing is published"
                message = subscriber.get_message(ignore_subscribe_messages=True, timeout=1)
                if message is not None:
                    assert b'"is_mock":true' in message["data"]
                    seen += 1
        servers = children_of(child.pid)
        child.terminate()
        said, errors = child.communicate(timeout=15)
        assert child.returncode == 0
        assert "replayed" in said
        assert "Traceback" not in errors
        assert not any(exists(pid) for pid in servers)
    finally:
        child.kill()
        child.communicate()


def test_what_a_killed_recorder_wrote_is_whole_and_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "market.tape"
    with recording(path) as child:
        read_addresses(child.stdout)
        wait_size(path, 160_000)
        child.kill()
        child.wait()
    tape, (frames, instruments, _) = read(path)
    assert frames > 0
    assert instruments > 100
    assert tape.damage is None or tape.is_cut
    os.truncate(path, path.stat().st_size - 7)  # as if it had been killed in the middle of a block
    ended = run_ticker(["replay", str(path), "--speed", "max"])
    assert ended.returncode == 0
    assert "bytes not readable: the file ends in the middle" in ended.stdout.decode()
    with recording(path, "--append", "--seconds", "1") as child:
        said, _ = child.communicate(timeout=60)
        assert "of an unfinished block were cut off" in said
    tape, (_, _, sessions) = read(path)
    assert (tape.damage, sessions) == (None, 2)


def test_when_the_disk_is_full_the_service_goes_on_and_the_recorder_says_so(
    tmp_path: Path,
) -> None:
    """A limit on the size of files stands for the full disk: both fail the write."""
    path = tmp_path / "market.tape"
    with recording(path) as child:
        addresses = read_addresses(child.stdout)
        wait_size(path, 1)
        limit = path.stat().st_size + 160 * 1024
        # of the recorder alone: its servers have been started
        subprocess.run(["prlimit", f"--pid={child.pid}", f"--fsize={limit}"], check=True)
        assert child.stderr is not None
        deadline = time.monotonic() + 60
        while "recording_stopped" not in (line := child.stderr.readline()):
            assert line
            assert time.monotonic() < deadline
        before = published(addresses["API"])
        time.sleep(2)
        assert published(addresses["API"]) > before, "the service goes on"
        assert httpx.get(f"{addresses['API']}/readyz").status_code == 200
        child.send_signal(signal.SIGINT)
        said, errors = child.communicate(timeout=20)
        assert child.returncode == 1
        assert "frames are missing" in said
        last_line = errors.strip().splitlines()[-1]
        assert last_line == f"ticker: {path}: recording stopped early: File too large"
        assert "Traceback" not in errors
    tape, (frames, _, _) = read(path)
    assert tape.damage is None, "the file ends with its last whole block"
    assert frames > 0
    assert path.stat().st_size <= limit


def published(url: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("redis_publish_total ")]
    return float(lines[0].split()[1]) if lines else math.nan


def test_a_recorder_that_never_got_going_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "market.tape"
    ended = run_ticker(["record", str(path)], {"MARKET_HOURS_FILE": "/no/such/file"})
    assert ended.returncode == 2
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["record", "/no/such/folder/x.tape"], "cannot write"),
        (["record", __file__], "exists already: --append"),
        (["record", __file__, "--append"], "is not a recording"),
        (["record", "x", "--seconds", "0"], "--seconds"),
        (["replay", "/no/such/file"], "No such file"),
        (["replay", __file__], "is not a recording"),
        (["replay", __file__, "--speed", "fast"], "--speed"),
    ],
)
def test_bad_usage_is_one_clear_message_and_exit_code_2(arguments: list[str], said: str) -> None:
    ended = run_ticker(arguments)
    assert ended.returncode == 2
    assert said in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr
