"""What the hub carries: events, their shapes, and their bytes on the wire."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FeedState = Literal["starting", "live", "stale", "idle"]
Label = Literal["positive", "neutral", "negative"]
ResumeMode = Literal["exact", "overlap", "snapshot"]
EndReason = Literal[
    "deadline",
    "draining",
    "lagged",
    "max_age",
    "configuration_removed",
    "unauthorized",
    "connection_limit",
    "unavailable",
]
Count = Annotated[int, Field(ge=0)]
Moment = Annotated[
    str,
    Field(json_schema_extra={"format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}),
]
"""A time as `clock.iso` writes it; the pattern is for readers of the schema, as nothing else is ever put here."""

KEEP_ALIVE = b":\n\n"
"""A comment line: bytes that keep proxies awake and that no client shows (HTML standard, 9.2.7)."""


class Payload(BaseModel):
    """The data of an event: one line of compact JSON. Its validator is made with the first one: starts are shorter."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Heartbeat(Payload):
    """The server is there, and how fresh the feed is."""

    timestamp: Moment
    connections: Count = Field(description="Streams that are open on this instance")
    uptime_seconds: Count = Field(description="Since this instance started")
    feed: FeedState = Field(
        description="`starting`: nothing was read yet; `stale`: none for two poll intervals; `idle`: it rests"
    )
    feed_age_seconds: float | None = Field(
        ge=0, description="Seconds since the last complete read; null before the first"
    )


class Metrics(Payload):
    """What the items of the window add up to."""

    total: Count = Field(description="Items in the window")
    positive: Count
    neutral: Count
    negative: Count
    by_tag: dict[str, int] = Field(description="Items per ticker; the 200 largest")
    rate_last_hour: Count = Field(description="Items whose timestamp lies in the last hour")
    rate_last_24h: Count = Field(
        description="Items whose timestamp lies in the last 24 hours, as far as the window reaches"
    )
    timestamp: Moment


class SentimentUpdate(Payload):
    """One item's sentiment for one ticker, new or changed."""

    ticker: str
    score: float = Field(ge=-1, le=1, description="From -1, negative, to 1, positive")
    label: Label
    confidence: float = Field(ge=0, le=1)
    source: str = Field(description="Where the item comes from")
    timestamp: Moment
    count: Count = Field(description="Items of this ticker in the window")
    mean_score: float = Field(ge=-1, le=1, description="Their mean score")


class Configuration(Payload):
    """The user's configuration as it is now; the stream's filter follows it."""

    config_id: str
    name: str
    tickers: list[str] = Field(description="What the stream is filtered by")


class Resume(Payload):
    """The answer to a `Last-Event-ID`: how well the gap could be filled."""

    mode: ResumeMode = Field(
        description="`exact`: all that was missed, once; `overlap`: all, and some of it again; `snapshot`: the current "
        "state, what lay between may be folded"
    )
    replayed: Count = Field(description="Updates that are sent again")


class StreamEnd(Payload):
    """The last event of a stream that the server ends."""

    reason: EndReason
    retry_ms: Count = Field(description="Milliseconds after which to come back")


PAYLOADS: Mapping[str, type[Payload]] = {
    "heartbeat": Heartbeat,
    "metrics": Metrics,
    "sentiment_update": SentimentUpdate,
    "configuration": Configuration,
    "resume": Resume,
    "stream_end": StreamEnd,
}
"""Every event that a stream can carry, by its name; none is ever named `error` or `message`."""


@dataclass(frozen=True, slots=True)
class Event:
    """A name, an identity and data. `ticker` is set on what a filter chooses by; without one it is for every reader."""

    name: str
    identity: str
    data: bytes
    ticker: str | None = None

    def id_at(self, place: str) -> str:
        """The event's id, with the place to go on from."""
        return f"evt_{self.identity}.{place}"

    def frame(self, place: str) -> bytes:
        """The bytes on the wire."""
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (self.id_at(place).encode(), self.name.encode(), self.data)


def event(name: str, identity: str, payload: Payload, ticker: str | None = None) -> Event:
    """The event of a payload. pydantic writes JSON without line breaks, so the data is one line whatever it holds."""
    return Event(name, identity, payload.model_dump_json().encode(), ticker)


def retry_field(milliseconds: int) -> bytes:
    """The field that sets how long the browser waits before it comes back; it belongs to no event by itself."""
    return b"retry: %d\n" % milliseconds
