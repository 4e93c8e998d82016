"""What can go wrong with a stream; the package says who meets which."""

from quartsse.errors import QuartsseError


class StreamError(QuartsseError):
    """Anything that goes wrong between this client and a stream."""


class StreamRefused(StreamError):
    """The server said no, and asking again would not change that.

    `status` is the answer's; 200 where the answer is no event stream. `detail` is the server's own word for it.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"refused with {status}: {detail}")
        self.status = status
        self.detail = detail


class StreamUnavailable(StreamError):
    """The server cannot serve now and may soon: `retry_after` is in seconds, None if it did not say when."""

    def __init__(self, status: int, detail: str, retry_after: float | None) -> None:
        super().__init__(f"unavailable with {status}: {detail}")
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


class ConnectionFailed(StreamError):
    """The server was not reached, did not answer in time, cut the connection or fell silent."""


class ProtocolError(StreamError):
    """What came is not HTTP/1.1, or not in the coding that it claims."""


class EventTooLarge(StreamError):
    """One event, or one line, is larger than this client was told to hold."""


class GaveUp(StreamError):
    """As many attempts in a row as were allowed brought no event; the last one's error is the cause."""
