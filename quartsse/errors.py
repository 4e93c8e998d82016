"""Every error of ours, as a tree, with who answers it.

QuartsseError
├── SettingsError            a setting cannot be used: the start stops with one line, exit status 2
├── SourceError              DynamoDB could not be read: the poller says `stale` and tries again
└── Refused                  a request is answered with a status and a JSON body: the routes
    ├── BadRequest           400
    ├── Unauthorized         401
    ├── NotFound             404
    ├── MethodNotAllowed     405
    ├── NotAcceptable        406
    ├── WrongHost            421
    ├── TooManyStreams       429
    ├── NotEnabled           501
    └── Unavailable          503, with `Retry-After`
        ├── LimitReached
        ├── StoreUnavailable
        ├── FeedStarting
        └── ShuttingDown

Anything else is a bug: it ends the process, and whatever runs the process starts it afresh.
"""

from typing import ClassVar


class QuartsseError(Exception):
    """Anything that quartsse raises on purpose."""


class SettingsError(QuartsseError):
    """A setting is missing or wrong; the text names the variable, what it was and what it may be."""


class SourceError(QuartsseError):
    """The table, its index or its stream could not be read; the text names what, the cause is kept."""


class Refused(QuartsseError):
    """A request that gets an error for an answer: a status, `{"detail": …}` and perhaps more, exactly as promised."""

    status: ClassVar[int] = 400
    reason: ClassVar[str] = "refused"
    """What the refusal is called in metrics and logs."""

    def __init__(self, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after

    def body(self) -> dict[str, str | int]:
        """The JSON body: `detail` first."""
        if self.retry_after is None:
            return {"detail": self.detail}
        return {"detail": self.detail, "retry_after": self.retry_after}

    def headers(self) -> dict[str, str]:
        """The headers that this answer carries beside those of every answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class BadRequest(Refused):
    """A parameter is malformed; the text names it and says what is allowed."""

    status = 400
    reason = "bad_request"


class Unauthorized(Refused):
    """Nobody says who the user is, or what says it does not hold.

    `challenge` is whether the answer carries `WWW-Authenticate: Bearer`.
    """

    status = 401
    reason = "unauthorized"

    def __init__(self, detail: str, *, challenge: bool = False) -> None:
        super().__init__(detail)
        self.challenge = challenge

    def headers(self) -> dict[str, str]:
        """With the challenge, where tokens are how one says who one is."""
        return {"WWW-Authenticate": "Bearer"} if self.challenge else {}


class NotFound(Refused):
    """There is no such path, or no such configuration for this user: one answer for unknown, inactive and foreign."""

    status = 404
    reason = "not_found"


class MethodNotAllowed(Refused):
    """The path exists, the method does not; `Allow` says which do."""

    status = 405
    reason = "method_not_allowed"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"Method {method} is not allowed here. Allowed: {allowed}")
        self.allowed = allowed

    def headers(self) -> dict[str, str]:
        """With `Allow` (RFC 9110, section 15.5.6)."""
        return {"Allow": self.allowed}


class NotAcceptable(Refused):
    """`Accept` excludes the one form that a stream has."""

    status = 406
    reason = "not_acceptable"


class WrongHost(Refused):
    """`Host` is a name that this server does not answer to (against DNS rebinding)."""

    status = 421
    reason = "wrong_host"


class TooManyStreams(Refused):
    """One user or address has as many streams open as it may."""

    status = 429
    reason = "too_many_streams"

    def __init__(self) -> None:
        super().__init__("Too many streams for this client.", retry_after=30)


class NotEnabled(Refused):
    """What was asked for needs a setting that this server does not have."""

    status = 501
    reason = "not_enabled"


class Unavailable(Refused):
    """It cannot be had now and may be soon: `retry_after` seconds say when to come back."""

    status = 503
    reason = "unavailable"


class LimitReached(Unavailable):
    """As many streams are open as this process takes (`SSE_MAX_CONNECTIONS`)."""

    reason = "connection_limit"

    def __init__(self, limit: int) -> None:
        super().__init__("Connection limit reached. Try again later.", retry_after=30)
        self.limit = limit

    def body(self) -> dict[str, str | int]:
        """With the limit itself between the two."""
        return {"detail": self.detail, "max_connections": self.limit, "retry_after": 30}


class StoreUnavailable(Unavailable):
    """The users table could not be read: never shown as "not found"."""

    reason = "store_unavailable"

    def __init__(self) -> None:
        super().__init__("Configuration store unavailable", retry_after=5)


class FeedStarting(Unavailable):
    """The window has not been read whole yet, so there is no state to show."""

    reason = "feed_starting"

    def __init__(self) -> None:
        super().__init__("Feed is starting", retry_after=2)


class ShuttingDown(Unavailable):
    """This process is ending; another one will answer."""

    reason = "shutting_down"

    def __init__(self) -> None:
        super().__init__("Server is shutting down. Reconnect.", retry_after=1)
