"""A writer that makes news the way the real system does, so that a table behaves as it will in production.

An item is written without a sentiment, under the time at which its article was published, which may be hours ago.
Seconds later an update sets the sentiment, and only then does the item appear in the index. Now and then an item is
analysed again and comes out differently; rarely one is deleted. The oldest expire.
"""

import math
import random
import threading
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import batched
from typing import Any

from quartsse.tools.emulator import Client

type Record = dict[str, dict[str, Any]]
"""An item in DynamoDB's own JSON."""

WINDOW = timedelta(hours=24)
KEPT = timedelta(days=30)
MOST_ITEMS = 5000
REANALYSED = 0.05
DELETED = 0.01
LONGEST_WAIT = 60.0
_MOST_BEHIND = timedelta(seconds=2)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Company:
    """Somebody whom the news is about; `popularity` is how often, beside the others."""

    ticker: str
    name: str
    popularity: float


COMPANIES = (
    Company("AAPL", "Apple", 14),
    Company("NVDA", "Nvidia", 13),
    Company("TSLA", "Tesla", 12),
    Company("MSFT", "Microsoft", 11),
    Company("AMZN", "Amazon", 9),
    Company("GOOGL", "Alphabet", 8),
    Company("META", "Meta", 8),
    Company("AMD", "AMD", 6),
    Company("NFLX", "Netflix", 4),
    Company("JPM", "JPMorgan", 4),
    Company("AVGO", "Broadcom", 4),
    Company("INTC", "Intel", 3),
    Company("BA", "Boeing", 3),
    Company("DIS", "Disney", 3),
    Company("BRK.B", "Berkshire Hathaway", 2.5),
    Company("XOM", "Exxon Mobil", 2.5),
    Company("V", "Visa", 2),
    Company("WMT", "Walmart", 2),
    Company("ORCL", "Oracle", 2),
    Company("PFE", "Pfizer", 1.5),
    Company("KO", "Coca-Cola", 1.2),
    Company("NKE", "Nike", 1.2),
    Company("COST", "Costco", 1),
    Company("ADBE", "Adobe", 1),
    Company("CAT", "Caterpillar", 0.8),
)

SOURCES = ("tiingo", "finnhub", "newsapi", "alphavantage")
PUBLISHERS = ("Harbor Wire", "The Ledger Post", "Meridian Markets", "Northgate Business", "Tape & Ticker")

_HEADLINES = {
    "positive": (
        "{name} raises its outlook after a quarter ahead of estimates",
        "Analysts lift targets for {name} as demand holds up",
        "{name} wins a supply contract worth {n} million dollars",
        "{name} shares climb as margins widen for a {n}th week",
    ),
    "neutral": (
        "{name} to report results on the {day}th",
        "{name} names a new head of operations",
        "What to watch when {name} meets its investors this week",
        "{name} keeps its dividend at {n} cents",
    ),
    "negative": (
        "{name} cuts its forecast and blames weak orders",
        "Regulators open an inquiry into {name}",
        "{name} recalls {n},000 units over a fault",
        "{name} shares slide after a downgrade",
    ),
}
_MARKET_HEADLINES = ("Futures drift ahead of the rate decision", "What moved markets today", "Bond yields steady")
_SENTENCES = (
    "The company said so in a statement published before the opening of trading.",
    "Volume was {n} percent above its average of the past month.",
    "Two people familiar with the matter asked not to be named because the talks are private.",
    "A spokesperson declined to comment on the figures, which have not been audited.",
    "Investors had expected as much since the last call, when management spoke of a cautious year.",
    "Peers in the sector moved in the same direction, though by less.",
    "The next report is due on the {day}th, and the consensus has moved twice this week.",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the analysis says of an item. `confidence` is None for the model whose `score` is the confidence."""

    sentiment: str
    score: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Story:
    """An item as it is first written, and what its analysis will say after so many seconds."""

    record: Record
    tickers: tuple[str, ...]
    verdict: Verdict
    analysed_after: float

    @property
    def published(self) -> datetime:
        """When its article was published."""
        return datetime.fromisoformat(self.record["timestamp"]["S"])

    @property
    def key(self) -> Record:
        """The item's key in the table."""
        return {name: self.record[name] for name in ("source_id", "timestamp")}

    def analysed(self) -> Record:
        """The whole item as it is after its analysis."""
        return self.record | {"status": {"S": "analyzed"}} | attributes_of(self.verdict)


def attributes_of(verdict: Verdict) -> Record:
    """A verdict as the attributes that an analysis sets beside `status`."""
    attributes: Record = {"sentiment": {"S": verdict.sentiment}, "score": {"N": str(verdict.score)}}
    if verdict.confidence is not None:
        attributes["confidence"] = {"N": str(verdict.confidence)}
    return attributes


def timestamp(moment: datetime, form: int = 0) -> str:
    """A moment in one of the four forms in which publishers write it: `Z` or `+00:00`, with or without fractions."""
    written = moment.astimezone(UTC).isoformat(timespec="seconds" if form % 2 == 0 else "microseconds")
    return written if form >= 2 else written.replace("+00:00", "Z")


class Newsroom:
    """An endless supply of stories; the same `seed` gives the same ones, at the moments one asks for.

    Every company has a mood that drifts from story to story and pulls its verdicts along.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.random = random.Random(seed)  # noqa: S311 (news, not keys)
        self._moods = {company.ticker: self.random.uniform(-0.6, 0.6) for company in COMPANIES}

    def story(self, published: datetime) -> Story:
        """One more story."""
        self._drift()
        companies = self._companies()
        tickers = tuple(company.ticker for company in companies)
        verdict = self.verdict(tickers)
        source = self.random.choice(SOURCES)
        source_id = f"{source}:{self.random.getrandbits(64):016x}"
        record: Record = {
            "source_id": {"S": source_id},
            "timestamp": {"S": timestamp(published, self.random.randrange(4))},
            "status": {"S": "pending"},
            "matched_tickers": {"L": [{"S": ticker} for ticker in tickers]},
            "ttl": {"N": str(int((published + KEPT).timestamp()))},
            **self._article(companies, verdict.sentiment, source_id),
        }
        if self.random.random() < 0.3:
            also = self.random.choice(SOURCES)
            record["sources"] = {"L": [{"S": name} for name in dict.fromkeys((source, also))]}
        return Story(record, tickers, verdict, min(1 + self.random.lognormvariate(0.7, 0.7), 30))

    def verdict(self, tickers: Sequence[str]) -> Verdict:
        """What an analysis would say just now of a story about these."""
        mood = sum(self._moods[ticker] for ticker in tickers) / max(len(tickers), 1)
        feeling = max(-1.0, min(1.0, mood + self.random.gauss(0, 0.35)))
        sentiment = "positive" if feeling > 0.2 else "negative" if feeling < -0.2 else "neutral"
        sure = round(min(0.999, 0.55 + 0.4 * abs(feeling) + self.random.uniform(0, 0.1)), 4)
        if self.random.random() < 0.15:
            return Verdict(sentiment, round(feeling, 4), sure)
        return Verdict(sentiment, sure, None)

    def age(self) -> timedelta:
        """How long ago an article was published that is found now: minutes, mostly, and up to nine hours."""
        longest = self.random.choices((300, 7200, 32_400), (0.6, 0.28, 0.12))[0]
        return timedelta(seconds=self.random.uniform(2, longest))

    def backlog(self, now: datetime, count: int) -> Iterator[Story]:
        """The stories of the last 24 hours, oldest first."""
        ages = sorted((self.random.uniform(0.001, 0.999) for _ in range(count)), reverse=True)
        return (self.story(now - WINDOW * age) for age in ages)

    def _drift(self) -> None:
        for ticker, mood in self._moods.items():
            self._moods[ticker] = 0.985 * mood + self.random.gauss(0, 0.08)

    def _companies(self) -> list[Company]:
        """Whom a story is about: mostly one, sometimes several, at times the market as a whole."""
        count = self.random.choices((0, 1, 2, 3), (0.04, 0.72, 0.18, 0.06))[0]
        drawn = self.random.choices(COMPANIES, [company.popularity for company in COMPANIES], k=count)
        return list(dict.fromkeys(drawn))

    def _article(self, companies: list[Company], sentiment: str, source_id: str) -> Record:
        """What must never leave the service."""
        numbers = {"n": self.random.randrange(11, 95), "day": self.random.randrange(4, 20)}
        headlines = _HEADLINES[sentiment] if companies else _MARKET_HEADLINES
        headline = self.random.choice(headlines).format(name=companies[0].name if companies else "", **numbers)
        text = " ".join(self.random.sample(_SENTENCES, 6)).format(**numbers)
        return {
            "headline": {"S": headline},
            "text": {"S": f"{headline}. {text}"},
            "url": {"S": f"https://news.example/{source_id.replace(':', '/')}"},
            "publisher": {"S": self.random.choice(PUBLISHERS)},
        }


class Writer:
    """Writes a newsroom's stories into the sentiment table, `rate` of them a second, at irregular moments.

    It knows every analysed item that it has written. From these it picks what is analysed again or deleted; and when
    there are more than `most`, the oldest go, as if they had expired: an emulator slows down with every item.
    """

    def __init__(self, client: Client, table: str, newsroom: Newsroom, rate: float, *, most: int = MOST_ITEMS) -> None:
        self._client = client
        self._table = table
        self._newsroom = newsroom
        self._random = newsroom.random
        self._rate = rate
        self._next_story: datetime | None = None
        self._waiting: list[tuple[datetime, str, Story]] = []
        self._most = most
        self._analysed: list[Story] = []

    def seed(self, now: datetime, count: int) -> None:
        """Write the last 24 hours at once, as if they had been analysed long ago."""
        stories = list(self._newsroom.backlog(now, count))
        for chunk in batched(stories, 25, strict=False):  # the most that BatchWriteItem takes
            requests = [{"PutRequest": {"Item": story.analysed()}} for story in chunk]
            while requests:
                answer = self._client.batch_write_item(RequestItems={self._table: requests})
                requests = answer.get("UnprocessedItems", {}).get(self._table, [])
        self._analysed.extend(stories)

    def run(self, stopped: threading.Event, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Go on writing until told to stop. Blocks; meant for a thread of its own."""
        while not stopped.is_set():
            now = clock()
            due = self.write(now)
            stopped.wait(min((due - now).total_seconds(), LONGEST_WAIT))

    def write(self, now: datetime) -> datetime:
        """Do all that is due; returns when something will be due next.

        After a long pause (a machine that slept) it goes on from now rather than catching up.
        """
        story_due = self._pause(now) if self._next_story is None else max(self._next_story, now - _MOST_BEHIND)
        while story_due <= now:
            self._publish(now)
            story_due = self._pause(story_due)
        self._next_story = story_due
        while self._waiting and self._waiting[0][0] <= now:
            self._analyse(heappop(self._waiting)[2])
        return min(story_due, self._waiting[0][0]) if self._waiting else story_due

    def _pause(self, since: datetime) -> datetime:
        if self._rate <= 0:
            return _NEVER
        return since - timedelta(seconds=math.log(1 - self._random.random()) / self._rate)

    def _publish(self, now: datetime) -> None:
        """Write one new story, and perhaps change or delete an old one."""
        story = self._newsroom.story(now - self._newsroom.age())
        self._client.put_item(TableName=self._table, Item=story.record)
        due = now + timedelta(seconds=story.analysed_after)
        heappush(self._waiting, (due, story.record["source_id"]["S"], story))
        if self._analysed and self._random.random() < REANALYSED:
            self._reanalyse()
        if self._analysed and self._random.random() < DELETED:
            self._delete(self._random.randrange(len(self._analysed)))
        while len(self._analysed) > self._most:
            self._delete(0)

    def _analyse(self, story: Story) -> None:
        self._set(story, story.verdict)
        insort(self._analysed, story, key=lambda known: known.published)

    def _reanalyse(self) -> None:
        """Analyse one item again, by the same model: its score comes out differently, and often its sentiment."""
        story = self._random.choice(self._analysed)
        verdict = self._newsroom.verdict(story.tickers)
        while (verdict.confidence is None) != (story.verdict.confidence is None):
            verdict = self._newsroom.verdict(story.tickers)
        self._set(story, verdict)

    def _set(self, story: Story, verdict: Verdict) -> None:
        attributes = {"status": {"S": "analyzed"}} | attributes_of(verdict)
        self._client.update_item(
            TableName=self._table,
            Key=story.key,
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in attributes),
            ExpressionAttributeNames={f"#{name}": name for name in attributes},
            ExpressionAttributeValues={f":{name}": value for name, value in attributes.items()},
        )

    def _delete(self, place: int) -> None:
        """Delete the item at a place, counted from the oldest."""
        self._client.delete_item(TableName=self._table, Key=self._analysed.pop(place).key)
