"""Task: bring the tables up to date when PostgreSQL is there, and know whether it is."""

from collections.abc import Callable

import structlog
import trio

from ticker.errors import ConfigurationError, StoreUnavailableError
from ticker.stores.database import Database, DatabaseStatus
from ticker.stores.failures import StoreBusyError
from ticker.stores.migrate import migrate


async def keep_store(
    database: Database,
    *,
    migrated: trio.Event,
    report: Callable[[DatabaseStatus], None],
    interval_s: float = 1.0,
) -> None:
    """Probe the database every ``interval_s`` and report what it says; never ends.

    Migrates before ``migrated`` is set, and again whenever the database comes back: it may be
    another one, restored or created anew.

    Raises ConfigurationError if the tables are not this program's before ``migrated`` is set.
    Later that is logged: a newer instance may share the database, and what streams goes on.
    """
    log = structlog.get_logger().bind(task="keep_store")
    is_up: bool | None = None  # as far as it was told
    while True:
        was_available = database.status.available
        try:
            await database.probe()
            if not (is_up and was_available):
                await _bring_up_to_date(database, migrated)
        except StoreBusyError:
            pass  # others keep it busy: that is no news about the server
        except StoreUnavailableError as error:
            if is_up is not False:
                log.warning("store_unavailable", error=str(error))
            is_up = False
        else:
            if not is_up:
                log.info("store_available")
            is_up = True
        report(database.status)
        await trio.sleep(interval_s)


async def _bring_up_to_date(database: Database, migrated: trio.Event) -> None:
    try:
        for name in await migrate(database):
            structlog.get_logger().info("migration_applied", name=name)
    except ConfigurationError as error:
        if not migrated.is_set():
            raise
        structlog.get_logger().error("schema_differs", error=str(error))
    migrated.set()
