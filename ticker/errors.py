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
    ├── BrokerError              RESTARTED likewise: the broker's REST side
    │   ├── BrokerUnreachableError   no usable HTTP answer
    │   └── BrokerResponseError      an answer that is not what the protocol promises
    ├── PublishError             ticks are CONFLATED and counted; the breaker says when to retry
    │   ├── RedisUnreachableError    no connection, or it broke
    │   ├── RedisTimeoutError        no answer within the deadline
    │   └── RedisReplyError          the server answered with an error
    ├── OutputError              a command's own output cannot be written: one line, exit code 1
    └── ChildExitedError         a server that we started for ourselves ended: STOPS the process

What is perishable is dropped or conflated, and counted. What holds a connection is restarted.
Anything that is not in this tree is a bug: it ends the process with its ExceptionGroup and exit
code 1, and the process manager starts the service into the same start-up path.
"""


class TickerError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigurationError(TickerError):
    """A setting, credential or command-line value cannot be used."""


class OutputError(TickerError):
    """What a command has to say cannot be written."""


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


class BrokerResponseError(BrokerError):
    """The broker answered with an error envelope.

    ``error_type`` is the broker's own word for it (``TokenException``, ``InputException``, ...).
    """

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(f"{error_type} (HTTP {status}): {message}")
        self.status = status
        self.error_type = error_type


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
