"""What a person at the terminal sees: where everything listens, then a line that stays alive."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ticker.local.market import LOCAL_KEY
from ticker.settings import BROKER_API_ROOT, Settings, without_passwords
from ticker.status import ServiceStatus

REFRESH_S: Final = 1.0
LOG_EVERY_S: Final = 10.0


async def show_status(settings: Settings, status: ServiceStatus, url: str) -> None:
    """Announce the addresses, then show rates until cancelled.

    A status line on a terminal; elsewhere a log line every ten seconds.
    """
    with suppress(OSError):  # nobody reads our output: no reason to stop serving
        sys.stdout.write("".join(f"{line}\n" for line in announce(settings, url)))
        sys.stdout.flush()
    console = Console()
    if console.is_terminal:
        await _show_line(console, status)
    else:
        await _log_lines(status)


def announce(settings: Settings, url: str) -> Iterator[str]:
    """Where the API, Redis, PostgreSQL and the broker are. Passwords are left out.

    The API key of a local market is shown: it is of this run, and nothing is behind it.
    """
    broker = "the broker" if settings.kite_api_root == BROKER_API_ROOT else "simulator"
    redis_url = without_passwords(settings.redis_url or "")
    yield f"{'API':>12}  {url}"
    yield f"{'its manual':>12}  {url}/docs"
    if not settings.accounts:
        yield f"{'accounts':>12}  none in the settings: see /trading-accounts"
    if settings.api_key is None and settings.api_key_enabled:
        yield f"{'new key':>12}  {_python()} -m ticker keys create NAME --scope admin"
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    if key.startswith(LOCAL_KEY):
        yield f"{'X-API-Key':>12}  {key}"
    if settings.env_file is not None and settings.accounts:
        login = f"{_python()} -m ticker login {settings.accounts[0].account_id}"
        yield f"{'log in':>12}  ENV_FILE={settings.env_file} {login}"
    for name, address in (
        ("Redis", redis_url),
        ("PostgreSQL", without_passwords(settings.database_url or "")),
        (broker, settings.kite_api_root),
        ("channels", f"{settings.publish_channel_prefix}:options, :underlying, :events"),
        ("watch it", f"{_python()} -m ticker watch --redis-url {redis_url}"),
    ):
        yield f"{name:>12}  {address}"


def _python() -> str:
    """This interpreter, as short as it can be typed here."""
    return min(sys.executable, os.path.relpath(sys.executable), key=len)


@dataclass(frozen=True)
class Totals:
    """Counters at one moment; ``at``: seconds on Trio's clock."""

    at: float
    received: int
    priced: int
    published: int

    @classmethod
    def read(cls, status: ServiceStatus) -> "Totals":
        return cls(
            at=trio.current_time(),
            received=status.engine.decoded,
            priced=status.engine.priced,
            published=status.publisher.published,
        )


async def _show_line(console: Console, status: ServiceStatus) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        before = Totals.read(status)
        while True:
            await trio.sleep(REFRESH_S)
            now = Totals.read(status)
            live.update(_line(before, now, status), refresh=True)
            before = now


async def _log_lines(status: ServiceStatus) -> None:
    log = structlog.get_logger()
    before = Totals.read(status)
    while True:
        await trio.sleep(LOG_EVERY_S)
        now = Totals.read(status)
        log.info(
            "ticks",
            received_per_s=_rate(before.received, now.received, before, now),
            priced_per_s=_rate(before.priced, now.priced, before, now),
            published_per_s=_rate(before.published, now.published, before, now),
            accounts_live=[name for name in status.account_ids if status.account_is_live(name)],
            circuit=status.publisher.circuit,
        )
        before = now


def _line(before: Totals, now: Totals, status: ServiceStatus) -> Text:
    line = Text.assemble(
        (f" {_rate(before.received, now.received, before, now):>8,} in/s", "bold"),
        f"   {_rate(before.priced, now.priced, before, now):>8,} priced/s",
        f"   {_rate(before.published, now.published, before, now):>8,} published/s",
        f"   age {_age(status)}",
        "   ",
    )
    for name in status.account_ids:
        live = status.account_is_live(name)
        line.append(f"{'●' if live else '○'} {name}  ", "green" if live else "red")
    if status.publisher.circuit != "closed":
        line.append(f"Redis circuit {status.publisher.circuit}", "bold red")
    return line


def _rate(earlier: int, later: int, before: Totals, now: Totals) -> int:
    return round((later - earlier) / max(now.at - before.at, 1e-9))


def _age(status: ServiceStatus) -> str:
    age_s = status.publisher.age_s
    return "-" if age_s is None else f"{age_s * 1000:.1f} ms"
