"""A client for event streams that keeps reading whatever happens to the connection; asyncio and nothing else.

    async with stream("https://example.org/api/v2/stream", tickers=["AAPL", "MSFT"]) as events:
        async for event in events:
            print(event.event, event.json())

`stream` is for those who want the events; `open_stream` for those who want one response, its exact bytes and their
times; `Parser` turns bytes into events and knows nothing of connections. What can go wrong, and who meets it:

StreamError
├── StreamRefused        the server said no for good: `stream` raises it
├── GaveUp               `max_attempts` attempts in a row brought nothing: `stream` raises it, with the last cause
├── EventTooLarge        an event exceeds `max_event_bytes`: `stream` raises it, as coming back would bring it again
├── StreamUnavailable    not now (429, 5xx): `stream` waits as long as `Retry-After` says and comes back
├── ConnectionFailed     not reached, cut or silent: `stream` backs off and comes back
└── ProtocolError        the peer does not speak HTTP/1.1: `stream` backs off and comes back
"""

from quartsse.client.errors import (
    ConnectionFailed,
    EventTooLarge,
    GaveUp,
    ProtocolError,
    StreamError,
    StreamRefused,
    StreamUnavailable,
)
from quartsse.client.http import Response, open_stream
from quartsse.client.options import Pace, State, StreamOptions
from quartsse.client.parser import Parser, ServerEvent
from quartsse.client.stream import Stream, stream

__all__ = [
    "ConnectionFailed",
    "EventTooLarge",
    "GaveUp",
    "Pace",
    "Parser",
    "ProtocolError",
    "Response",
    "ServerEvent",
    "State",
    "Stream",
    "StreamError",
    "StreamOptions",
    "StreamRefused",
    "StreamUnavailable",
    "open_stream",
    "stream",
]
