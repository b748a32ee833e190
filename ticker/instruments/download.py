"""The day's dumps from the broker: exchange by exchange, from the first account that answers."""

import datetime as dt
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Protocol

import msgspec
import trio

from ticker.errors import BrokerBusyError, BrokerError, BrokerResponseError, BrokerTimeoutError
from ticker.instruments.dump import DumpReader, ExchangeDump
from ticker.instruments.registry import InstrumentRegistry

_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403


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

    Where an account fails the next takes over; one that is logged out, given a rest, or late for
    the second time, is not asked again. ``timeout_s``: for one exchange. Raises nothing that is the
    broker's doing.
    """
    waiting = list(sources)
    dumps: dict[str, ExchangeDump] = {}
    problems: dict[str, str] = {}
    accounts: dict[str, None] = {}
    refusals: list[str] = []  # one of each account that failed
    late: set[str] = set()  # accounts that were late for one exchange already
    for exchange in exchanges:
        reasons: list[str] = []
        for source in list(waiting):
            try:
                dumps[exchange] = await _read(
                    source, DumpReader(exchange, known), timeout_s, day, is_confirmed
                )
            except BrokerError as error:
                reasons.append(f"{source.account_id}: {error}")
                if _is_final(error):  # it would be for any account
                    break
                is_late = isinstance(error, BrokerTimeoutError)
                if _is_account(error) or (is_late and source.account_id in late):
                    # it would be for any exchange
                    waiting.remove(source)
                    refusals.append(reasons[-1])
                if is_late:
                    late.add(source.account_id)
            else:
                accounts[source.account_id] = None
                break
        if exchange not in dumps:
            problems[exchange] = "; ".join(reasons or refusals) or "no account is logged in"
    return Downloaded(dumps, problems, tuple(accounts))


async def _read(
    source: InstrumentSource,
    reader: DumpReader,
    timeout_s: float,
    day: dt.date,
    is_confirmed: bool,
) -> ExchangeDump:
    try:
        with trio.fail_after(timeout_s):
            async with aclosing(source.load_instruments(reader.exchange)) as chunks:
                async for chunk in chunks:
                    await trio.to_thread.run_sync(reader.feed, chunk)
    except trio.TooSlowError:
        raise BrokerTimeoutError(
            f"/instruments/{reader.exchange}: not read within {timeout_s:g} s"
        ) from None
    # in here: a body of less than a line is only now seen to be no dump
    return reader.finish(day, is_confirmed=is_confirmed)


def _is_final(error: BrokerError) -> bool:
    return isinstance(error, BrokerResponseError) and error.status == _BAD_REQUEST


def _is_account(error: BrokerError) -> bool:
    """Whether the account itself is no way to the broker: its login, or its circuit."""
    if isinstance(error, BrokerResponseError):
        return error.status == _FORBIDDEN
    return isinstance(error, BrokerBusyError)
