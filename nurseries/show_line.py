"""One line of figures that stays alive, for commands that do one thing."""

from collections.abc import Callable
from typing import Final

import structlog
import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

REFRESH_S: Final = 1.0
LOG_EVERY_S: Final = 10.0


async def show_line(name: str, describe: Callable[[], str], console: Console) -> None:
    """Show what ``describe`` says until cancelled.

    A line that is rewritten each second on a terminal; elsewhere a log line, called ``name``,
    every ten seconds.
    """
    if not console.is_terminal:
        log = structlog.get_logger()
        while True:
            await trio.sleep(LOG_EVERY_S)
            log.info(name, progress=describe())
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Text(f" {describe()}", overflow="ellipsis", no_wrap=True), refresh=True)
            await trio.sleep(REFRESH_S)
