"""Programs as a user runs them: ``python -m ticker`` in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[2]
NOTHING: Mapping[str, str] = {}
CREDENTIALS = {"KITE_ACCOUNTS": "a", "KITE_A_API_KEY": "k", "KITE_A_ACCESS_TOKEN": "canary-token"}


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("KITE_", "REDIS"))
    }
    return kept | dict(changes)


def run_ticker(
    arguments: Sequence[str], changes: Mapping[str, str] = NOTHING, *, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ticker", *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        cwd=REPOSITORY,
        env=environment(changes),
        check=False,
    )


@contextmanager
def running(
    changes: Mapping[str, str] = NOTHING,
    arguments: Sequence[str] = ("run", "--port", "0"),
) -> Iterator[subprocess.Popen[str]]:
    """A program that has just been started; killed at the end if it still runs."""
    child = subprocess.Popen(
        [sys.executable, "-m", "ticker", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=environment(changes),
        # what runs in the background of a shell, these tests perhaps, ignores Ctrl-C
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def read_addresses(output: IO[str] | None) -> dict[str, str]:
    """What the program announces: ``API``, ``Redis``, ``simulator``."""
    assert output is not None
    addresses: dict[str, str] = {}
    while "watch" not in addresses:
        line = output.readline()
        assert line, "the program ended before it announced itself"
        name, _, address = line.strip().partition(" ")
        addresses[name] = address.strip()
    return addresses


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def descendants_of(pid: int) -> list[int]:
    children = children_of(pid)
    return [*children, *(other for child in children for other in descendants_of(child))]


def exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
