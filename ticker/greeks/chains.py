"""Which instruments price each other: underlyings, and their options by expiry.

A *group* is the options of one underlying that expire together on one exchange; it has one
forward. A *pair* is a call and a put of a group at one strike. The tables are rebuilt when
instruments are added and only read by the kernels in between, except for the groups' forwards.
"""

import datetime as dt
import math
from collections.abc import Collection
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ticker.board import NO_SLOT, InstrumentClass, RowArray
from ticker.instruments.registry import Instrument
from ticker.ticks import Int32Array

GROUP: Final = np.dtype(
    [
        ("expires_at", "f8"),  # UNIX seconds
        ("forward", "f8"),  # rupees; NaN while unknown
        ("forward_at", "f8"),  # UNIX seconds of the quotes behind it
        ("doubt", "f8"),  # variance of the forward as its quotes tell it, rupees squared
        ("carried", "f8"),  # what future or spot, carried to the expiry, said when it was set
        ("carrier_expires_at", "f8"),
        ("swept_at", "f8"),  # when its options were last looked over for re-pricing
        ("underlying", "i4"),
        ("spot", "i4"),  # slot of the index or share; NO_SLOT while none has ticked
        ("future", "i4"),  # slot of the future of the same expiry
        ("carrier", "i4"),  # slot of the future whose expiry is nearest
        ("first_pair", "i4"),
        ("last_pair", "i4"),  # exclusive
        ("first_member", "i4"),
        ("last_member", "i4"),  # exclusive
        ("source", "u1"),  # a ForwardSource
        ("bears_carry", "u1"),  # 0: options on the future itself (commodities)
        ("is_touched", "u1"),
        ("has_moved", "u1"),  # the forward changed since the last sweep
    ],
    align=True,
)
PAIR: Final = np.dtype([("strike", "f8"), ("call", "i4"), ("put", "i4")], align=True)

_TOLD: Final = ("forward", "forward_at", "doubt", "carried")
"""Columns of what ticks tell, NaN before the first."""

_COMMODITY_EXCHANGES: Final = frozenset({"MCX", "NCO"})
_SPOT_RANKS: Final = {"INDICES": 0, "NSE": 1, "BSE": 2}
"""An index before a share, NSE before BSE, where several go by the underlying's name."""


class Chains:
    """Groups, pairs and members as arrays.

    ``groups``: ``GROUP`` (g,); ``pairs``: ``PAIR`` (p,), by group and strike; ``members``: int32
    slots of all options by group; ``is_touched``: uint8 (u,), scratch of the forward kernel, by
    underlying. ``names``: of underlyings, by number.
    """

    def __init__(self) -> None:
        self.groups: npt.NDArray[Any] = np.zeros(0, GROUP)
        self.pairs: npt.NDArray[Any] = np.zeros(0, PAIR)
        self.members: Int32Array = np.zeros(0, np.int32)
        self.is_touched: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.names: list[str] = []
        self._underlyings: dict[str, int] = {}
        self._groups: dict[tuple[str, dt.date | None, str], int] = {}
        self._spots: dict[int, list[tuple[int, int]]] = {}  # underlying -> ranks, slots
        self._futures: dict[tuple[int, str], list[tuple[float, int]]] = {}  # expiry, slot
        self._exchanges: list[str] = []  # by group
        self._untied: set[int] = set()  # underlyings with something new

    def add(self, slot: int, instrument: Instrument, row: Any) -> None:
        """Sort an instrument in; sets ``group`` and ``underlying`` of its board row."""
        name = instrument.underlying
        underlying = self._underlyings.setdefault(name, len(self._underlyings))
        if underlying == len(self.names):
            self.names.append(name)
        row["underlying"] = underlying
        self._untied.add(underlying)
        if instrument.is_option:
            key = (name, instrument.expiry, instrument.exchange)
            group = self._groups.setdefault(key, len(self._groups))
            if group == len(self._exchanges):
                self._exchanges.append(instrument.exchange)
                self._append_group(underlying, float(row["expires_at"]), instrument.exchange)
            row["group"] = group
        elif instrument.is_future:
            futures = self._futures.setdefault((underlying, instrument.exchange), [])
            futures.append((float(row["expires_at"]), slot))
        else:
            rank = _SPOT_RANKS.get(instrument.segment, len(_SPOT_RANKS))
            self._spots.setdefault(underlying, []).append((rank, slot))

    def remove(self, slot: int, row: Any) -> None:
        """Let an instrument price nothing any more, from the next ``index`` on."""
        underlying = int(row["underlying"])
        self._untied.add(underlying)
        for key, futures in self._futures.items():
            self._futures[key] = [future for future in futures if future[1] != slot]
        spots = self._spots.get(underlying, [])
        self._spots[underlying] = [spot for spot in spots if spot[1] != slot]

    def forget(self, underlyings: Collection[int]) -> None:
        """Let these have no forward, and nothing that was carried, until they tick again."""
        of = np.flatnonzero(np.isin(self.groups["underlying"], list(underlyings)))
        for name in _TOLD:
            self.groups[name][of] = np.nan
        self.groups["source"][of] = self.groups["has_moved"][of] = 0

    def set_back(self, seconds: float) -> None:
        """Follow a clock that was set back: forwards stay as old as they are."""
        for name in ("forward_at", "swept_at"):
            self.groups[name] -= seconds

    def index(self, rows: RowArray) -> None:
        """Rebuild pairs and members, and tie spots and futures to groups. ``rows``: all slots."""
        self._tie()
        self.is_touched = np.zeros(len(self._underlyings), np.uint8)
        options = np.flatnonzero(rows["instrument_class"] == InstrumentClass.OPTION)
        names = ("group", "strike", "is_call")
        group, strike, is_call = (rows[name][options] for name in names)
        order = np.lexsort((is_call, strike, group))  # retired options, of group -1, in front
        group, strike, is_call = group[order], strike[order], is_call[order]
        self.members = options[order].astype(np.int32)
        is_put = (
            (group[:-1] == group[1:]) & (strike[:-1] == strike[1:]) & (is_call[:-1] < is_call[1:])
        )
        puts = np.flatnonzero(is_put)
        self.pairs = np.zeros(len(puts), PAIR)
        self.pairs["strike"] = strike[puts]
        self.pairs["put"] = self.members[puts]
        self.pairs["call"] = self.members[puts + 1]
        numbers = np.arange(len(self.groups))
        for first, last, of in (
            ("first_pair", "last_pair", group[puts]),
            ("first_member", "last_member", group),
        ):
            self.groups[first] = np.searchsorted(of, numbers, "left")
            self.groups[last] = np.searchsorted(of, numbers, "right")

    def _append_group(self, underlying: int, expires_at: float, exchange: str) -> None:
        row = np.zeros(1, GROUP)
        row["underlying"] = underlying
        row["expires_at"] = expires_at
        row["bears_carry"] = exchange not in _COMMODITY_EXCHANGES
        for name in (*_TOLD, "carrier_expires_at"):
            row[name] = np.nan
        row["swept_at"] = -math.inf
        for name in ("spot", "future", "carrier"):
            row[name] = NO_SLOT
        self.groups = np.concatenate([self.groups, row])

    def _tie(self) -> None:
        for i in np.flatnonzero(np.isin(self.groups["underlying"], list(self._untied))):
            group, exchange = self.groups[i], self._exchanges[i]
            underlying = int(group["underlying"])
            expires_at = float(group["expires_at"])
            for name in ("spot", "future", "carrier"):
                group[name] = NO_SLOT
            # a share that has a commodity's name, as an NSE fund is called SILVER, is not its spot
            rank_max = len(_SPOT_RANKS) if group["bears_carry"] else _SPOT_RANKS["INDICES"]
            if spots := [spot for spot in self._spots.get(underlying, ()) if spot[0] <= rank_max]:
                group["spot"] = min(spots)[1]
            if futures := self._futures.get((underlying, exchange)):
                carrier = _nearest(futures, expires_at, later=not group["bears_carry"])
                group["carrier_expires_at"], group["carrier"] = carrier
                if carrier[0] == expires_at:
                    group["future"] = carrier[1]
        self._untied.clear()


def _nearest(
    futures: list[tuple[float, int]], expires_at: float, *, later: bool
) -> tuple[float, int]:
    """The future whose expiry is nearest; if ``later``, of those that do not expire before."""
    usable = [future for future in futures if future[0] >= expires_at] if later else futures
    return min(usable or futures, key=lambda future: abs(future[0] - expires_at))
