"""The day's dumps from the broker: exchange by exchange, from the first account that answers."""

import datetime as dt
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Protocol

import msgspec
import trio

from ticker.errors import BrokerError, BrokerResponseError, BrokerUnreachableError
from ticker.instruments.dump import DumpReader, ExchangeDump
from ticker.instruments.registry import InstrumentRegistry

_BAD_REQUEST: Final = 400


class InstrumentSource(Protocol):
    """One account's way to the broker."""

    @property
    def account_id(self) -> str: ...

    def load_instruments(self, exchange: str) -> AsyncGenerator[bytes, None]:
        """The exchange's CSV as it arrives, uncompressed; raises BrokerError if it does not."""
        ...


class Downloaded(msgspec.Struct, frozen=True):
    """Dumps by exchange, and why there is none of the others; accounts in the order of use."""

    dumps: Mapping[str, ExchangeDump]
    problems: Mapping[str, str]
    accounts: tuple[str, ...]


async def download_dumps(
    sources: Iterable[InstrumentSource],
    exchanges: Sequence[str],
    known: InstrumentRegistry,
    day: dt.date,
    *,
    timeout_s: float,
    is_confirmed: bool = False,
) -> Downloaded:
    """Ask for each exchange in turn; parsed in worker threads while it arrives.

    An account that fails is not asked again: the next takes over at that exchange. ``timeout_s``:
    for one exchange. Raises nothing that is the broker's doing.
    """
    waiting = list(sources)
    dumps: dict[str, ExchangeDump] = {}
    problems: dict[str, str] = {}
    accounts: dict[str, None] = {}
    refusals: list[str] = []  # one of each account that failed
    for exchange in exchanges:
        while waiting and exchange not in dumps and exchange not in problems:
            source = waiting[0]
            reader = DumpReader(exchange, known)
            try:
                await _read(source, exchange, reader, timeout_s)
            except BrokerResponseError as error:
                reason = f"{source.account_id}: {error}"
                if error.status == _BAD_REQUEST:  # it would be for any account
                    problems[exchange] = reason
                else:
                    refusals.append(reason)
                    waiting.pop(0)
            except BrokerError as error:
                refusals.append(f"{source.account_id}: {error}")
                waiting.pop(0)
            else:
                dumps[exchange] = reader.finish(day, is_confirmed=is_confirmed)
                accounts[source.account_id] = None
        if exchange not in dumps:
            problems.setdefault(exchange, "; ".join(refusals) or "no account is logged in")
    return Downloaded(dumps, problems, tuple(accounts))


async def _read(
    source: InstrumentSource, exchange: str, reader: DumpReader, timeout_s: float
) -> None:
    try:
        with trio.fail_after(timeout_s):
            async with aclosing(source.load_instruments(exchange)) as chunks:
                async for chunk in chunks:
                    await trio.to_thread.run_sync(reader.feed, chunk)
    except trio.TooSlowError:
        raise BrokerUnreachableError(
            f"/instruments/{exchange}: not read within {timeout_s:g} s"
        ) from None
