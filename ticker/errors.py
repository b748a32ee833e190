"""The exception tree, and what happens to each branch.

::

    TickerError
    ├── ConfigurationError       told to the user in one line, exit code 2
    ├── FeedError                RESTARTED by the supervisor, with backoff and jitter, for ever
    │   ├── FeedUnreachableError     no TCP, no DNS, or a certificate that does not verify
    │   ├── FeedClosedError          the broker closed, or reset, the socket
    │   ├── FeedSilentError          the socket is up but nothing arrives on it
    │   └── HandshakeRejectedError   the broker answered, but not with 101
    │       ├── TokenRejectedError       403: wait for a new access token
    │       └── FeedThrottledError       429: slow down
    ├── BrokerError              the API answers 502, 503 or 504; tasks ask again later
    │   ├── BrokerUnreachableError   no usable HTTP answer
    │   │   └── BrokerTimeoutError       none in time
    │   ├── BrokerBusyError          our own rate limit or circuit breaker lets no call through
    │   └── BrokerResponseError      the broker's error envelope
    ├── PublishError             ticks are CONFLATED and counted; the breaker says when to retry
    │   ├── RedisUnreachableError    no connection, or it broke
    │   ├── RedisTimeoutError        no answer within the deadline
    │   └── RedisReplyError          the server answered with an error
    ├── StoreError               the API answers 503; what runs goes on from memory
    │   └── StoreUnavailableError    PostgreSQL is away, frozen, read-only, full or too slow
    │       ├── StoreBusyError           it is there; this call did not get its turn in time
    │       └── StoreReplacedError       the tables were made anew, or it is another database
    ├── RequestError             TOLD to the caller as a 4xx problem that names the field
    │   ├── UnknownInstrumentError   no such token or symbol among the instruments
    │   ├── UnknownAccountError      no such account
    │   ├── UnknownItemError         no such subscription, reload, key, ...
    │   ├── CapacityError            the accounts have no place for so many instruments
    │   ├── ConflictError            there is one already
    │   └── InvalidRequestError      a value, or values together, that make no sense
    ├── OutputError              a command's own output cannot be written: one line, exit code 1
    ├── RecordingDamagedError    what was whole of it has been replayed: one line, exit code 1
    └── ChildExitedError         a server that we started for ourselves ended: STOPS the process

What is perishable is dropped or conflated, and counted. What holds a connection is restarted.
Anything that is not in this tree is a bug: it ends the process with its ExceptionGroup and exit
code 1, and the process manager starts the service into the same start-up path.
"""


class TickerError(Exception):
    """Base of every error that this project raises on purpose.

    ``detail``, for logs and terminals alone, is what its text leaves out because anybody may be
    shown that: where a file or a server is, and what it or its library said.
    """

    def __init__(self, *args: object, detail: str | None = None) -> None:
        super().__init__(*args)
        self.detail = detail


class ConfigurationError(TickerError):
    """A setting, credential or command-line value cannot be used."""


class OutputError(TickerError):
    """What a command has to say cannot be written."""


class RecordingDamagedError(TickerError):
    """A part of a recording could not be read."""


class FeedError(TickerError):
    """A market-data socket cannot be opened or has ended."""


class FeedUnreachableError(FeedError):
    """No connection to the broker: TCP, DNS, TLS or a malformed handshake."""


class FeedClosedError(FeedError):
    """The peer closed or reset the socket."""


class FeedSilentError(FeedError):
    """Nothing, not even a heartbeat, arrived within the allowed time."""


class HandshakeRejectedError(FeedError):
    """The broker refused the WebSocket handshake with an HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the broker refused the handshake with HTTP {status}")
        self.status = status


class TokenRejectedError(HandshakeRejectedError):
    """HTTP 403: the access token is dead, or the broker is in its nightly maintenance."""


class FeedThrottledError(HandshakeRejectedError):
    """HTTP 429: too many sockets for this api_key, or connecting too fast."""


class BrokerError(TickerError):
    """A REST call to the broker failed."""


class BrokerUnreachableError(BrokerError):
    """No usable HTTP answer: connection, timeout, 5xx or a body that is not the protocol's."""


class BrokerTimeoutError(BrokerUnreachableError):
    """No HTTP answer in time: the broker is silent, or its own gateway waited in vain."""


class BrokerResponseError(BrokerError):
    """The broker answered with an error envelope.

    ``error_type`` is the broker's own word for it (``TokenException``, ``InputException``, ...).
    """

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(f"{error_type} (HTTP {status}): {message}")
        self.status = status
        self.error_type = error_type


class BrokerBusyError(BrokerError):
    """No call was made: the wait for our own rate limit is too long, or the circuit is open.

    ``retry_after_s``: seconds until a call may be let through again.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreError(TickerError):
    """PostgreSQL did not do what was asked."""


class StoreUnavailableError(StoreError):
    """No usable answer: no connection, a deadline, a read-only or full server.

    What the server or its library said is its ``detail``: it may name hosts, users, databases,
    files and SQL.
    """


class RequestError(TickerError):
    """What somebody asked for cannot be done as asked. ``field`` is what they named, if known."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnknownInstrumentError(RequestError):
    """No such instrument among those of today."""


class UnknownAccountError(RequestError):
    """No such account."""


class UnknownItemError(RequestError):
    """No such subscription, reload, key or other thing with an id."""


class CapacityError(RequestError):
    """The accounts together, or the one that was named, carry no more instruments."""


class ConflictError(RequestError):
    """What is to be created exists already."""


class InvalidRequestError(RequestError):
    """A value out of range, or values that contradict each other."""


class PublishError(TickerError):
    """A batch was not, or not wholly, acknowledged by the publisher's server."""


class RedisUnreachableError(PublishError):
    """The connection could not be opened, or it broke."""


class RedisTimeoutError(PublishError):
    """The server did not answer within the deadline."""


class RedisReplyError(PublishError):
    """The server answered with an error; ``code`` is its first word (``OOM``, ``NOAUTH``, ...)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ChildExitedError(TickerError):
    """A child server of the local market ended although nobody asked it to."""
