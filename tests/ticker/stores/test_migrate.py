import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
from psycopg import errors

from tests.postgres import open_test_url
from ticker.errors import ConfigurationError
from ticker.stores.database import Database, open_database
from ticker.stores.migrate import MIGRATIONS, migrate

pytestmark = pytest.mark.slow

Connection = psycopg.Connection[Any]

FIRST = "CREATE TABLE firsts (number integer);"
SECOND = "CREATE TABLE seconds (number integer); INSERT INTO seconds VALUES (1), (2);"


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.sql").write_text(text)
    return folder


@asynccontextmanager
async def open_empty() -> AsyncIterator[Database]:
    async with (
        open_test_url(is_migrated=False) as url,
        open_database(url, wall_clock=time.time) as database,
    ):
        yield database


def load_seconds(connection: Connection) -> int:
    return connection.execute("SELECT FROM seconds").rowcount


USER = """
CREATE ROLE clerk LOGIN;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk;
"""


def execute(statement: str) -> Callable[[Connection], int]:
    return lambda connection: connection.execute(statement.encode()).rowcount


def load_url(connection: Connection) -> str:
    """Where the connection leads, for the user ``clerk``."""
    info = connection.info
    return f"postgresql://clerk@/{info.dbname}?host={info.host}"


def load_applied(connection: Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM schema_migrations ORDER BY 1")]


async def test_every_file_is_applied_once_in_order(tmp_path: Path) -> None:
    folder = write(tmp_path, m0002="not a migration", _0001_x="nor this")
    write(folder, **{"0002_second": "INSERT INTO firsts VALUES (1);", "0001_first": FIRST})
    async with open_empty() as database:
        assert await migrate(database, folder=folder) == ["0001_first.sql", "0002_second.sql"]
        assert await migrate(database, folder=folder) == []
        write(folder, **{"0010_tenth": SECOND})
        assert await migrate(database, folder=folder) == ["0010_tenth.sql"]
        write(folder, **{"0005_late": "CREATE TABLE fifths ();"})
        assert await migrate(database, folder=folder) == ["0005_late.sql"]


async def test_a_file_that_fails_leaves_nothing_and_those_before_it_stay(tmp_path: Path) -> None:
    folder = write(tmp_path, **{"0001_first": FIRST, "0002_second": f"{SECOND} SELECT 1 / 0;"})
    async with open_empty() as database:
        with pytest.raises(errors.DivisionByZero):
            await migrate(database, folder=folder)
        assert await database.run(load_applied) == ["0001_first.sql"]
        write(folder, **{"0002_second": SECOND})
        assert await migrate(database, folder=folder) == ["0002_second.sql"]
        assert await database.run(load_seconds) == 2


async def test_a_user_who_may_change_no_tables_needs_that_only_for_another_file(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path, **{"0001_first": FIRST})
    async with open_empty() as owner:
        await migrate(owner, folder=folder)
        await owner.run(execute(USER))
        try:
            limited = await owner.run(load_url)
            async with open_database(limited, wall_clock=time.time) as database:
                assert await migrate(database, folder=folder) == []
                write(folder, **{"0002_second": SECOND})
                with pytest.raises(ConfigurationError, match="may not change") as caught:
                    await migrate(database, folder=folder)
            assert "\n" not in str(caught.value)
        finally:
            with trio.move_on_after(5, shield=True):
                await owner.run(execute("DROP OWNED BY clerk; DROP ROLE clerk"))


@pytest.mark.parametrize(
    "foreign",
    ["CREATE TABLE firsts (name text)", "CREATE VIEW firsts AS SELECT 1"],
)
async def test_tables_of_another_program_are_not_taken_for_ours(
    tmp_path: Path, foreign: str
) -> None:
    folder = write(tmp_path, **{"0001_first": FIRST})
    async with open_empty() as database:
        await database.run(execute(foreign))
        with pytest.raises(ConfigurationError, match=r'"firsts" already exists') as caught:
            await migrate(database, folder=folder)
        assert "\n" not in str(caught.value)


async def test_an_applied_file_may_not_change(tmp_path: Path) -> None:
    folder = write(tmp_path, **{"0001_first": FIRST})
    async with open_empty() as database:
        await migrate(database, folder=folder)
        write(folder, **{"0001_first": f"{FIRST} -- a word", "0002_second": SECOND})
        with pytest.raises(ConfigurationError, match=r"0001_first\.sql was changed"):
            await migrate(database, folder=folder)
        assert await database.run(load_applied) == ["0001_first.sql"]


async def test_line_endings_are_no_change(tmp_path: Path) -> None:
    folder = write(tmp_path, **{"0001_first": "SELECT 1;\nSELECT 2;\n"})
    async with open_empty() as database:
        await migrate(database, folder=folder)
        (folder / "0001_first.sql").write_bytes(b"SELECT 1;\r\nSELECT 2;\r\n")
        assert await migrate(database, folder=folder) == []


async def test_a_database_that_is_newer_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, **{"0001_first": FIRST, "0002_second": SECOND})
    async with open_empty() as database:
        await migrate(database, folder=folder)
        (folder / "0002_second.sql").unlink()
        with pytest.raises(ConfigurationError, match=r"newer than this program.*0002_second"):
            await migrate(database, folder=folder)


async def test_instances_that_start_together_apply_each_file_once(tmp_path: Path) -> None:
    files = {f"{number:04}_step": f"CREATE TABLE t{number} ();" for number in range(1, 6)}
    folder = write(tmp_path, **files, **{"0000_slow": f"{SECOND} SELECT pg_sleep(0.2);"})
    applied: list[str] = []
    async with open_test_url(is_migrated=False) as url:

        async def run_instance() -> None:
            async with open_database(url, wall_clock=time.time) as database:
                applied.extend(await migrate(database, folder=folder))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(run_instance)
        async with open_database(url, wall_clock=time.time) as database:
            assert await database.run(load_seconds) == 2
    assert sorted(applied) == sorted(f"{name}.sql" for name in ["0000_slow", *files])


async def test_a_user_who_may_not_create_tables_is_told() -> None:
    async with open_test_url(is_migrated=False) as url:
        async with open_database(url, wall_clock=time.time) as database:
            await database.run(create_guest)
        guest = url.replace("postgres@", "guest@")
        async with open_database(guest, wall_clock=time.time) as database:
            with pytest.raises(ConfigurationError, match="permission denied"):
                await migrate(database)


def create_guest(connection: Connection) -> None:
    connection.execute("DROP ROLE IF EXISTS guest")
    connection.execute("CREATE ROLE guest LOGIN")
    connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


async def test_ours_have_numbers_of_their_own() -> None:
    numbers = [entry.name[:4] for entry in MIGRATIONS.iterdir() if entry.name.endswith(".sql")]
    assert len(numbers) == len(set(numbers)) >= 6
    async with open_empty() as database:
        assert len(await migrate(database)) == len(numbers)


SPELLS = """
INSERT INTO instrument_archive (instrument_token, first_day, exchange_token, tradingsymbol, name,
    segment, instrument_type, strike, expiry, tick_size, lot_size, exchange)
VALUES
    (1, '2026-11-20', 1, 'NIFTY26NOV25000CE', 'NIFTY', 'NFO-OPT', 'CE', 25000, '2026-11-24', 1, 1,
        'NFO'),
    (2, '2026-11-20', 2, 'RELIANCE', 'RELIANCE INDUSTRIES', 'NSE', 'EQ', 0, NULL, 1, 1, 'NSE'),
    (3, '2026-11-20', 3, 'NIFTY 50', 'NIFTY 50', 'INDICES', 'EQ', 0, NULL, 0, 0, 'NSE');
INSERT INTO instrument_registry (instrument_token, exchange_token, tradingsymbol, name, underlying,
    segment, instrument_type, strike, expiry, tick_size, lot_size, exchange)
VALUES (3, 3, 'NIFTY 50', 'NIFTY 50', 'NIFTY', 'INDICES', 'EQ', 0, NULL, 0, 0, 'NSE');
"""


async def test_what_is_archived_already_gets_its_underlying(tmp_path: Path) -> None:
    for file in MIGRATIONS.iterdir():
        if file.name < "0012":
            (tmp_path / file.name).write_text(file.read_text())

    def underlyings(connection: Connection) -> dict[str, str]:
        rows = connection.execute("SELECT tradingsymbol, underlying FROM instrument_archive")
        return dict(rows.fetchall())

    async with open_empty() as database:
        await migrate(database, folder=tmp_path)
        await database.run(execute(SPELLS))
        await migrate(database)
        assert await database.run(underlyings) == {
            "NIFTY26NOV25000CE": "NIFTY",
            "RELIANCE": "RELIANCE",
            "NIFTY 50": "NIFTY",
        }
