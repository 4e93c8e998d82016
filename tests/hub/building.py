"""What the hub's tests are built from: a clock that stands still, updates, and readers that remember."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from quartsse.client import Parser, ServerEvent
from quartsse.hub.clock import Clock
from quartsse.hub.events import Event, Heartbeat, Metrics, event
from quartsse.hub.filters import Filter
from quartsse.hub.hub import Hub
from quartsse.hub.ids import Place, place_in
from quartsse.hub.subscription import Subscription

START = 1_764_671_400.0
"""A moment on the wall clock: 2025-12-02T10:30:00Z."""

ALL = Filter(None)
NONE = Filter(frozenset())


@dataclass
class Time:
    """A clock that stands still until it is told."""

    seconds: float = 0.0
    ahead: float = 0.0
    """How much the wall clock is ahead of the right time."""

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: 1000 + self.seconds, wall=lambda: START + self.seconds + self.ahead)


@dataclass
class Later:
    """Does what was scheduled when it is told to, like a loop."""

    calls: deque[Callable[[], None]] = field(default_factory=deque)

    def __call__(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def step(self) -> bool:
        """One call; whether there was one."""
        if self.calls:
            self.calls.popleft()()
            return True
        return False

    def run(self) -> None:
        """All of it."""
        while self.step():
            pass


def only(*tickers: str, metrics: bool = True) -> Filter:
    return Filter(frozenset(tickers), metrics)


def update(identity: str, ticker: str | None = "AAPL", size: int = 2) -> Event:
    return Event("sentiment_update", identity, b'"' + b"x" * (size - 2) + b'"', ticker)


def totals(hub: Hub, total: int = 0) -> Event:
    counts = Metrics(
        total=total,
        positive=0,
        neutral=0,
        negative=0,
        by_tag={},
        rate_last_hour=0,
        rate_last_24h=0,
        timestamp="2025-12-02T10:30:00.000Z",
    )
    return hub.event("metrics", counts)


def heartbeat(hub: Hub) -> Event:
    payload = Heartbeat(timestamp="t", connections=0, uptime_seconds=0, feed="live", feed_age_seconds=None)
    return hub.event("heartbeat", payload)


def parsed(data: bytes) -> list[ServerEvent]:
    """The events in some bytes, as a browser understands them."""
    return list(Parser().feed(data))


def identity_of(one: ServerEvent) -> str:
    return one.id.removeprefix("evt_").partition(".")[0]


def identities(data: bytes) -> list[str]:
    return [identity_of(one) for one in parsed(data)]


def place_of(one: ServerEvent) -> Place:
    place = place_in(one.id)
    assert place is not None
    return place


def last_place(data: bytes) -> Place:
    """The place that a reader goes on from who has read these bytes."""
    return place_of(parsed(data)[-1])


def missed(hub: Hub, wanted: Filter, after: Place | None) -> tuple[str, list[str]]:
    """How a reader would go on: the mode, and the identities of what is replayed."""
    replay = hub.replay(wanted, after)
    return replay.mode, identities(b"".join(replay.frames))


@dataclass
class Reader:
    """A reader that follows and remembers what it is written, until it is stuck."""

    subscription: Subscription
    received: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    stuck: bool = False
    instead: Callable[[bytes], object] | None = None
    """What is done when it is written to, if it does not just remember."""

    def __post_init__(self) -> None:
        self.subscription.wake = self.flush
        self.subscription.follow(self.write)

    def write(self, chunk: bytes) -> None:
        """Be written a tick."""
        if self.instead is None:
            self.remember(chunk)
        else:
            self.instead(chunk)

    def remember(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self.received += unchunked(chunk)

    def stop(self) -> None:
        """Take no more, until `go_on`."""
        self.stuck = True
        self.subscription.pause()

    def go_on(self) -> None:
        """Take what waits, and follow again."""
        self.stuck = False
        self.flush()

    def flush(self) -> None:
        if not self.stuck or self.subscription.ending:
            self.received += self.subscription.take() + (self.subscription.ending or b"")
        if not self.stuck:
            self.subscription.follow(self.write)

    @property
    def identities(self) -> list[str]:
        return identities(self.received)


def unchunked(chunk: bytes) -> bytes:
    """What one chunk of HTTP/1.1's chunked coding holds."""
    size, _, rest = chunk.partition(b"\r\n")
    data = rest[: int(size, 16)]
    assert rest[len(data) :] == b"\r\n"
    return data


def reader(hub: Hub, wanted: Filter = ALL) -> Reader:
    subscription, _ = hub.subscribe(wanted)
    return Reader(subscription)


def sentiment(identity: str, ticker: str, source: str) -> Event:
    """An update with a payload of the real shape."""
    from quartsse.hub.events import SentimentUpdate

    payload = SentimentUpdate(
        ticker=ticker,
        score=0.5,
        label="positive",
        confidence=0.5,
        source=source,
        timestamp="2025-12-02T10:30:00.000Z",
        count=1,
        mean_score=0.5,
    )
    return event("sentiment_update", identity, payload, ticker)
