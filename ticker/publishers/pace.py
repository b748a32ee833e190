"""How many messages a batch may hold: as many as Redis lately took within the window."""

import msgspec

from ticker.publishers.resp import Replies


class Pace(msgspec.Struct, frozen=True):
    """``limit`` messages may go out in one batch, at most ``most``; ``window_s`` seconds' worth.

    Measured between a batch's first reply and its last, so that a distant server, whose every
    batch takes long, is not mistaken for a slow one. A fast server answers in one piece: the limit
    doubles. A batch that does not come back in time more than halves it, so that even a link of a
    few messages a second ends up with batches that fit the deadline.
    """

    limit: int
    most: int
    window_s: float

    def succeeded(self, sent: int, replies: Replies) -> "Pace":
        """The pace after ``sent`` messages, all answered; a message may be several commands."""
        rate = replies.rate()
        if rate is None:
            within_window = 2 * self.most
        else:
            within_window = int(rate * self.window_s * sent / replies.expected)
        if within_window < self.limit:
            return self._with(max(within_window, self.limit // 2))
        if sent >= self.limit and within_window >= 2 * self.limit:
            return self._with(2 * self.limit)
        return self

    def timed_out(self, replies: Replies) -> "Pace":
        """The pace after a batch of which only a part was answered within the deadline."""
        return self._with(min(self.limit // 2, replies.answered))

    def _with(self, limit: int) -> "Pace":
        return Pace(min(max(limit, 1), self.most), self.most, self.window_s)
