"""The mock market's switch outlives a restart."""

import pytest
import trio
import trio.testing

from nurseries.restore_switch import restore_switch
from tests.postgres import open_postgres_server, open_test_database
from ticker.latest import Latest
from ticker.mock_market.switch import MockSwitch
from ticker.stores.database import DatabasePolicy, open_database
from ticker.stores.migrate import migrate
from ticker.stores.runtime_settings import RuntimeSettings

NAME = "switch"


def is_set() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
async def test_what_was_kept_is_set(kept: bool) -> None:
    async with open_test_database() as database:
        settings = RuntimeSettings(database)
        saved = await settings.save(NAME, kept, by="tests")
        switch = Latest(MockSwitch(not kept))
        await restore_switch(settings, NAME, switch, is_set())
        assert switch.value == MockSwitch(kept, saved.at, "tests")


@pytest.mark.slow
@pytest.mark.parametrize("kept", [None, "on"])
async def test_nothing_and_nonsense_leave_the_switch_alone(kept: object) -> None:
    async with open_test_database() as database:
        settings = RuntimeSettings(database)
        if kept is not None:
            await settings.save(NAME, kept, by="tests")
        switch = Latest(MockSwitch(is_on=True))
        await restore_switch(settings, NAME, switch, is_set())
        assert switch.value == MockSwitch(is_on=True)


@pytest.mark.slow
async def test_who_switches_before_it_is_read_has_the_last_word() -> None:
    async with open_test_database() as database:
        settings = RuntimeSettings(database)
        saved = await settings.save(NAME, True, by="somebody before")
        switch = Latest(MockSwitch(False, saved.at, "somebody since"))
        await restore_switch(settings, NAME, switch, is_set())
        assert switch.value == MockSwitch(False, saved.at, "somebody since")


@pytest.mark.slow
async def test_a_database_that_is_away_is_waited_for() -> None:
    policy = DatabasePolicy(connect_timeout_s=2.0, statement_timeout_s=2.0)
    async with (
        open_postgres_server() as server,
        open_database(server.url, policy, wall_clock=trio.current_time) as database,
    ):
        await migrate(database)
        settings, switch = RuntimeSettings(database), Latest(MockSwitch(is_on=True))
        await settings.save(NAME, False, by="tests")
        await server.stop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restore_switch, settings, NAME, switch, is_set())
            await trio.sleep(0.5)
            assert switch.value.is_on
            await server.start()
            with trio.fail_after(10):
                await switch.wait_until(lambda newest: not newest.is_on)
