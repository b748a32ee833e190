"""A server of our own as a child process: its life is a block of code.

The child sits in a session of its own, so that Ctrl-C in the terminal reaches us and not it, and
it is still there while we drain. On Linux the kernel signals it when we are killed in a way that
leaves us no last word; elsewhere a SIGKILL of this process leaves it running.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

import trio

from ticker.errors import ChildExitedError, ConfigurationError

HEAD_LINES_MAX: Final = 200
TAIL_LINES: Final = 20
LINE_BYTES_MAX: Final = 8192
"""What is kept of a child's output: the first lines, to read addresses from, and the last, to
say why it ended. Lines in between are read and forgotten; an overlong line is cut in pieces."""

LAST_WORDS_S: Final = 0.2
"""How long to read on after the child's end: a grandchild may still hold the pipe."""

KILL_S: Final = 5.0
"""How long the kernel may take over a SIGKILL; a process stuck in a disk is left behind."""

# PR_SET_PDEATHSIG must be set in the child, after the fork and before the exec. A fork of a
# process with threads may run next to no Python safely, so a fresh interpreter does it and then
# becomes the server. The parent may have died before: then nobody would send the signal.
# A change of user takes the setting back, so that comes first, and here: who has the interpreter
# in a folder of their own must be able to start it.
_TETHER: Final = """
import ctypes, os, signal, sys
parent, number, uid, gid = map(int, sys.argv[1:5])
if uid >= 0:
    os.chdir("/")
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
ctypes.CDLL(None).prctl(1, number)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if os.getppid() == parent:
    os.execv(sys.argv[5], sys.argv[5:])
"""


class OsUser(NamedTuple):
    """Whom a child runs as; to be another than ourselves takes a superuser."""

    uid: int
    gid: int


class Child:
    """A running child, made by ``open_child``. ``head``: its first lines of output."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], output: int) -> None:
        self.name = name
        self.head: list[str] = []
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process = process
        self._output = trio.lowlevel.FdStream(output)
        self._unfinished = b""

    @property
    def pid(self) -> int:
        """The process id, which is also that of its process group."""
        return self._process.pid

    async def _wait_ready(self, ready: Callable[[str], bool]) -> None:
        while not any(ready(line) for line in self.head):
            if not await self._read_lines():
                await self._wait_exited()
                raise self._exited()

    async def _watch(self) -> None:
        await self._wait_exited()
        raise self._exited()

    async def _wait_exited(self) -> None:
        """Return when the process has ended and what remained of its group is killed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drain)
            await _wait_ended(self._process)
            # until it is reaped nobody else can be given its id
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS_S

    async def _stop(self, stop_signal: signal.Signals, timeout_s: float) -> None:
        # no poll(): it would reap the child, and free its id, behind _wait_exited
        if self._process.returncode is None:
            os.kill(self.pid, stop_signal)
            with trio.move_on_after(timeout_s):
                await self._wait_exited()
        if self._process.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)
            await self._wait_exited()
        await self._output.aclose()

    async def _drain(self) -> None:
        while await self._read_lines():
            pass

    async def _read_lines(self) -> bool:
        """Wait for output; False at its end."""
        try:
            data = await self._output.receive_some(LINE_BYTES_MAX)
        except trio.BrokenResourceError:
            data = b""
        *lines, rest = (self._unfinished + data).split(b"\n")
        if rest and (not data or len(rest) > LINE_BYTES_MAX):
            lines, rest = [*lines, rest], b""
        self._unfinished = rest
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            self.tail.append(text)
            if len(self.head) < HEAD_LINES_MAX:
                self.head.append(text)
        return bool(data)

    def _exited(self) -> ChildExitedError:
        code = self._process.returncode
        said = "\n".join(self.tail) or "nothing"
        return ChildExitedError(f"{self.name} ended with code {code}; its last words: {said}")


@asynccontextmanager
async def open_child(
    command: Sequence[str],
    *,
    ready: Callable[[str], bool],
    name: str,
    start_timeout_s: float = 10.0,
    stop_timeout_s: float = 5.0,
    stop_signal: signal.Signals = signal.SIGTERM,
    user: OsUser | None = None,
) -> AsyncIterator[Child]:
    """Run a server for as long as the block; entered once a line of its output is ``ready``.

    Standard output and error are one stream here. At the end ``stop_signal`` is sent, and SIGKILL
    to its process group if it is not gone ``stop_timeout_s`` later. As another ``user`` it starts
    in the root folder and in no group but that one.

    Raises ConfigurationError if there is no such program that we may run, ChildExitedError if the
    child ends first (the block is cancelled) or is not ready within ``start_timeout_s``.
    """
    program = shutil.which(command[0])
    if program is None:
        raise ConfigurationError(f"{name} cannot be started: there is no {command[0]}")
    try:
        child = _spawn([program, *command[1:]], name, stop_signal, user)
    except OSError as refused:
        raise ConfigurationError(f"{name} cannot be started: {refused}") from None
    try:
        with trio.move_on_after(start_timeout_s) as start:
            await child._wait_ready(ready)
        if start.cancelled_caught:
            raise ChildExitedError(f"{name} was not ready within {start_timeout_s:g} s")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child._watch)
            yield child
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = _without_group(group)
        raise error from error.__cause__
    finally:
        with trio.move_on_after(stop_timeout_s + KILL_S, shield=True):
            await child._stop(stop_signal, stop_timeout_s)


def _without_group(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The nursery is ``open_child``'s own affair: who uses it expects their own exception."""
    return group.exceptions[0] if len(group.exceptions) == 1 else group


def _spawn(
    command: Sequence[str], name: str, stop_signal: signal.Signals, user: OsUser | None
) -> Child:
    """Start the process from this thread: the kernel's "parent" is the thread that forked, and
    one of Trio's worker threads would end after ten idle seconds and take the child with it.
    """
    credentials: dict[str, Any] = {}
    if sys.platform == "linux":
        numbers = (os.getpid(), stop_signal.value, *(user or (-1, -1)))
        tether = [sys.executable, "-I", "-S", "-c", _TETHER, *map(str, numbers)]
        command = [*tether, *command]
    elif user is not None:
        credentials = {"user": user.uid, "group": user.gid, "extra_groups": [], "cwd": "/"}
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is the caller's
            command,
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            start_new_session=True,
            **credentials,
        )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return Child(name, process, read_end)


async def _wait_ended(process: subprocess.Popen[bytes]) -> None:
    """Return when the process has ended; where the system allows it, it is not yet reaped."""
    if sys.platform == "linux":
        descriptor = os.pidfd_open(process.pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)
    else:
        await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
