"""What was sent on each socket: the counts that a client's own must equal."""

import msgspec
import numpy as np

from ticker.simulator.market import MODES
from ticker.ticks import UInt8Array


class Counts(msgspec.Struct):
    """One socket's counts, of what was handed to TCP in full.

    ``packets`` = ``ltp`` + ``quote`` + ``full``: good packets, including those that come in one
    of the ``broken_frames`` and that a decoder must still deliver.
    """

    frames: int = 0
    packets: int = 0
    ltp: int = 0
    quote: int = 0
    full: int = 0
    broken_frames: int = 0
    heartbeats: int = 0
    texts: int = 0

    def add(self, modes: UInt8Array) -> None:
        """Count one packet per mode number."""
        ltp, quote, full = np.bincount(modes, minlength=len(MODES)).tolist()
        self.packets += len(modes)
        self.ltp += ltp
        self.quote += quote
        self.full += full
