"""A day's instruments as compressed files, for other programs: ``<day>/<exchange>.csv.gz``.

The service itself resolves expired contracts in PostgreSQL (see ``ticker.stores.instruments``).
"""

import csv
import datetime as dt
import gzip
import io
import os
from pathlib import Path

from ticker.errors import BrokerResponseError
from ticker.instruments.dump import DumpReader, ExchangeDump
from ticker.instruments.registry import COLUMNS, InstrumentRegistry


def save_dump(directory: Path, dump: ExchangeDump) -> Path:
    """Write the usable rows in the broker's own format; an older file of the day is replaced.

    The file appears whole or not at all. Blocks: call it in a worker thread. Raises OSError.
    """
    path = dump_path(directory, dump.exchange, dump.day)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with (
            gzip.open(partial, "wb", compresslevel=6) as file,
            io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
        ):
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in dump.instruments:
                writer.writerow(
                    (
                        row.instrument_token,
                        row.exchange_token,
                        row.tradingsymbol,
                        row.name,
                        0,
                        row.expiry or "",
                        row.strike,
                        row.tick_size,
                        row.lot_size,
                        row.instrument_type,
                        row.segment,
                        row.exchange,
                    )
                )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def load_dump(directory: Path, exchange: str, day: dt.date) -> ExchangeDump | None:
    """What was saved of that day; None if nothing was. Blocks. Raises OSError for a broken file."""
    path = dump_path(directory, exchange, day)
    reader = DumpReader(exchange, InstrumentRegistry(()))
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read(65_536):
                reader.feed(chunk)
    except FileNotFoundError:
        return None
    except (EOFError, BrokerResponseError) as error:
        raise OSError(f"{path}: {error}") from None
    return reader.finish(day)


def dump_path(directory: Path, exchange: str, day: dt.date) -> Path:
    """Where the file of an exchange and a day is."""
    return directory / day.isoformat() / f"{exchange}.csv.gz"
