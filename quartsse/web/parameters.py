"""Parameters: what a client asks for in the query and the headers of a stream or snapshot."""

from collections.abc import Callable
from dataclasses import dataclass

from quartsse.errors import BadRequest
from quartsse.hub.filters import TICKER

MOST_TICKERS = 50
_TICKERS = f"tickers: 1-{MOST_TICKERS} symbols of 1-10 characters A-Z, 0-9, `.` or `-`, separated by commas, or `*`"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. `tickers` None means all, empty means none; `on_limit_retry` is a wish for 200 over 503.

    `ticket` is what stands for the user where a header cannot; only streams of one's own look at it.
    """

    tickers: frozenset[str] | None
    last_event_id: str | None
    on_limit_retry: bool
    ticket: str | None = None


def asked(query: Callable[[str], list[str]], last_event_id: str | None) -> Asked:
    """What a request asks for; `query` gives all the values of a parameter. Raises BadRequest, naming it.

    The `Last-Event-ID` header wins over the parameter, which is for clients that cannot set it.
    """
    on_limit = _single(query, "on_limit")
    if on_limit not in {None, "retry"}:
        raise BadRequest("on_limit: may only be `retry`")
    in_query = _single(query, "last_event_id")
    tickers, ticket = _tickers(_single(query, "tickers")), _single(query, "ticket")
    return Asked(tickers, last_event_id or in_query or None, on_limit == "retry", ticket)


def _single(query: Callable[[str], list[str]], name: str) -> str | None:
    values = query(name)
    if len(values) > 1:
        raise BadRequest(f"{name}: given {len(values)} times, may be given once")
    return values[0] if values else None


def _tickers(text: str | None) -> frozenset[str] | None:
    if text is None:
        return frozenset()
    if text == "*":
        return None
    symbols = text.upper().split(",")
    if not text.isascii() or len(symbols) > MOST_TICKERS or not all(map(TICKER.fullmatch, symbols)):
        raise BadRequest(_TICKERS)
    return frozenset(symbols)
