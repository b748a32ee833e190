"""An option chain put together from published payloads, for a person to look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

Payload = Mapping[str, Any]

_COLUMNS: Final = ("OI", "delta", "IV %", "price", "age")

STALE_S: Final = 5.0
"""Age from which a value is shown as old."""


@dataclass
class Chain:
    """The newest payload of each option of one underlying, and of the underlying itself."""

    underlying: str
    expiry: str | None = None
    index: Payload | None = None
    options: dict[tuple[str, float, str], Payload] = field(default_factory=dict)

    def add(self, payload: Payload) -> None:
        """Take one payload of either channel; what belongs to another underlying is ignored."""
        if payload.get("symbol") != self.underlying:
            return
        if "last_price" in payload:
            self.index = payload
        elif payload.get("type") in {"CE", "PE"}:
            key = (payload["expiry"], payload["strike"], payload["type"])
            self.options[key] = payload

    def lacks(self) -> str:
        """What is missing for a table, in words; nothing as soon as there is a row of it."""
        if self.expiry and self.options:
            seen = sorted({expiry for expiry, _, _ in self.options})
            is_there = self.expiry in seen
            return "" if is_there else f"no option of {self.expiry} (but {', '.join(seen)})"
        return "" if self.options else f"no option of {self.underlying}"

    def shown_expiry(self) -> str | None:
        """The chosen expiry, or the nearest of those seen."""
        return self.expiry or min((expiry for expiry, _, _ in self.options), default=None)

    def table(self, now: float) -> Table:
        """Strike by strike: calls to the left, puts to the right. ``now``: UNIX seconds."""
        expiry = self.shown_expiry()
        rows = {key[1:]: value for key, value in self.options.items() if key[0] == expiry}
        forward = next((row["forward"] for row in rows.values() if row.get("forward")), None)
        table = Table(
            title=self._title(expiry, forward),
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=0,  # eighty columns are enough
        )
        for name in _COLUMNS:
            table.add_column(name, justify="right", header_style="green", no_wrap=True)
        table.add_column("strike", justify="right", style="bold", no_wrap=True)
        for name in reversed(_COLUMNS):
            table.add_column(name, justify="right", header_style="red", no_wrap=True)
        strikes = sorted({strike for strike, _ in rows})
        money = min(strikes, key=lambda strike: abs(strike - (forward or strike)), default=None)
        for strike in strikes:
            call = _cells(rows.get((strike, "CE")), now)
            put = _cells(rows.get((strike, "PE")), now)
            style = "reverse" if strike == money and forward is not None else None
            table.add_row(*call, f"{strike:g}", *reversed(put), style=style)
        return table

    def _title(self, expiry: str | None, forward: float | None) -> str:
        spot = self.index["last_price"] if self.index is not None else None
        parts = [
            self.underlying,
            f"spot {spot:,.2f}" if spot is not None else "spot -",
            f"forward {forward:,.2f}" if forward is not None else "forward -",
            f"expiry {expiry or '-'}",
        ]
        if any(row.get("is_mock") for row in self.options.values()):
            parts.append("[bold yellow]SIMULATED[/]")
        return "   ".join(parts)


def _cells(payload: Payload | None, now: float) -> list[Text]:
    if payload is None:
        return [Text("-", style="dim")] * 5
    age = max(0.0, now - payload["received_ts"])
    style = "dim" if age > STALE_S else ""
    return [
        Text(_compact(payload["oi"]), style),
        Text(_number(payload["delta"], ".3f"), style),
        Text(_number(_percent(payload["iv"]), ".2f"), style),
        Text(_number(payload["price"], ",.2f"), style),
        Text(_age(age), "red" if age > STALE_S else "dim"),
    ]


def _age(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 100 else f"{seconds / 60:.0f}m"


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else fraction * 100


def _compact(count: int | None) -> str:
    if count is None:
        return "-"
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
