"""Task: bring the tables up to date when PostgreSQL is there, and know whether it is."""

from collections.abc import Callable
from typing import Literal

import structlog
import trio

from ticker.errors import ConfigurationError, StoreUnavailableError
from ticker.stores.database import Database, DatabaseStatus
from ticker.stores.failures import StoreBusyError
from ticker.stores.migrate import migrate
from ticker.stores.runtime_settings import RuntimeSettings

Market = Literal["real", "simulated"]
"""Whose tokens a database holds: one that was used with a simulator is no good at the broker."""


async def keep_store(
    database: Database,
    *,
    migrated: trio.Event,
    market: Market,
    report: Callable[[DatabaseStatus], None],
    interval_s: float = 1.0,
) -> None:
    """Probe the database every ``interval_s`` and report what it says; never ends.

    Migrates before ``migrated`` is set, and again whenever the database comes back: it may be
    another one, restored or created anew.

    Raises ConfigurationError if the tables are not this program's before ``migrated`` is set, or
    were used for another ``market``. Later that is logged: a newer instance may share the
    database, and what streams goes on.
    """
    log = structlog.get_logger().bind(task="keep_store")
    is_up: bool | None = None  # as far as it was told
    while True:
        was_available = database.status.available
        try:
            await database.probe()
            if not (is_up and was_available):
                await _bring_up_to_date(database, migrated, market)
        except StoreBusyError:
            pass  # others keep it busy: that is no news about the server
        except StoreUnavailableError as error:
            if is_up is not False:
                log.warning("store_unavailable", error=str(error), detail=error.detail)
            is_up = False
        else:
            if not is_up:
                log.info("store_available")
            is_up = True
        report(database.status)
        await trio.sleep(interval_s)


async def _bring_up_to_date(database: Database, migrated: trio.Event, market: Market) -> None:
    log = structlog.get_logger()
    try:
        applied = await migrate(database)
        await _require_market(database, market)
    except ConfigurationError as error:
        if not migrated.is_set():
            raise
        structlog.get_logger().error("schema_differs", error=str(error))
    else:
        for name in applied:
            log.info("migration_applied", name=name)
        if applied and migrated.is_set():
            log.error(
                "tables_were_gone",
                reason="the database lost them, or is another one: subscriptions and accounts go "
                "on from memory until a restart; the keys that it has are in force",
            )
    migrated.set()


async def _require_market(database: Database, market: Market) -> None:
    kept = await RuntimeSettings(database).claim("market", market)
    if kept != market:
        raise ConfigurationError(
            f"the database is of the {kept} market, and this run of the {market} one: tokens mean "
            "other contracts there; name another DATABASE_URL or DATABASE_DIR"
        )
