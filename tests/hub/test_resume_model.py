"""Two instances over one table, and readers that go from one to the other: nothing is lost, by the watermark.

The hubs and the windows are real; the table, its index's lag, the reads and the readers are a model with a clock of its
own. The same readers under a rule without the watermark lose: so the model can tell.
"""

import heapq
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import TYPE_CHECKING

import pytest

from quartsse.client import Parser
from quartsse.client.repeats import Repeats
from quartsse.feed.items import Item
from quartsse.feed.window import Window
from quartsse.hub.clock import Clock
from quartsse.hub.hub import Hub
from quartsse.hub.ids import Place, own_place, place_in
from tests.hub.building import ALL, START, Time, heartbeat, only, unchunked

if TYPE_CHECKING:
    from quartsse.hub.subscription import Subscription

POLL = 2.0
READ_SECONDS = 0.3
"""What a read saw is published so much later."""
HOT = 60.0
HOURS = 24.0
TICKERS = ("A", "B", "C", "D")
FILTERS = (ALL, only("A"), only("B", "C"))
READERS = 1250


@dataclass(frozen=True)
class Row:
    """One way that things can be. Seconds throughout; `sweep` 0: a read covers the window."""

    sweep: float = 0.0
    stale: float = 0.0
    """How much of every 90 s the first instance cannot read."""
    skew: float = 0.0
    """How far the instances' wall clocks are apart."""

    @property
    def begin(self) -> float:
        """When readers come: the instances have run for long enough that a watermark is not from before."""
        return 3 * self.sweep + 30

    @property
    def end(self) -> float:
        """When the last one has come."""
        return self.begin + 300

    def can_read(self, number: int, now: float) -> bool:
        """Whether an instance can read."""
        return number == 1 or now < self.begin or now >= self.over - 60 or now % 90 >= self.stale

    @property
    def over(self) -> float:
        """When every instance has read everything."""
        return self.end + 180 + 2.5 * self.sweep


ROWS = {
    "the window fits": Row(),
    "the window fits, one is stale for 60 s of every 90": Row(stale=60),
    "a sweep takes 30 s": Row(sweep=30),
    "a sweep takes 120 s": Row(sweep=120),
    "a sweep takes 30 s, one is stale for 60 s of every 90": Row(sweep=30, stale=60),
    "the clocks are 3 s apart, one is stale for 60 s of every 90": Row(stale=60, skew=3),
}


@dataclass(frozen=True)
class Version:
    """What the table says of an item from a moment on; each instance sees it in the index after a lag of its own."""

    item: Item
    visible: tuple[float, float]

    def seen(self) -> Item:
        """A copy for one window."""
        it = self.item
        return Item(it.key, it.time, it.sentiment, it.score, it.confidence, it.tickers, it.source)


def versions_of(row: Row, chance: random.Random) -> list[Version]:
    """Items written at random, four in ten of them fresh and the others hours old; one in ten says another thing later.

    Written before the start: what the first read finds.
    """
    made: list[Version] = []
    for number in range(int(row.over * 0.7) + 200):
        written = chance.uniform(0, row.over - 3 * row.sweep - 120) if number >= 200 else -1.0
        age = chance.uniform(0, 10) if chance.random() < 0.4 else chance.uniform(60, (HOURS - 2) * 3600)
        stamp, ticker = START + written - age, chance.choice(TICKERS)
        again = written + chance.uniform(1, 60)
        for at in (written, again) if chance.random() < 0.1 else (written,):
            score = round(chance.random(), 6)
            item = Item(f"news:{number}\n{stamp}", stamp, "positive", score, score, (ticker,), "news")
            made.append(Version(item, (at + chance.uniform(0, 1), at + chance.uniform(0, 1))))
    return made


@dataclass
class World:
    """A clock, and what happens when."""

    now: float = 0.0
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _serial: Iterator[int] = field(default_factory=count)

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._serial), call))

    def run(self) -> None:
        while self._due:
            self.now, _, call = heapq.heappop(self._due)
            call()


class Instance:
    """A real hub and a real window, fed by reads of the index as this instance sees it."""

    def __init__(self, world: World, row: Row, number: int, versions: list[Version]) -> None:
        self.number = number
        self.state: dict[str, str] = {}
        """What each (item, ticker) says here: the two halves of the identities."""
        self._world, self._row = world, row
        self._versions = sorted(versions, key=lambda version: version.visible[number])
        self._skew = row.skew / 2 if number else -row.skew / 2
        self.hub = Hub(
            clock=Clock(monotonic=lambda: world.now + 777 * number, wall=self._wall), instance=f"instance{number}"
        )
        self._window = Window(HOURS)
        self._read = 0
        self._sweep: tuple[float, float] | None = None
        world.at(0.7 * number, self._poll)
        world.at(5.0 + number, self._beat)

    def _wall(self) -> float:
        return START + self._world.now + self._skew

    def _poll(self) -> None:
        """Begin a read, unless nothing can be read; what it sees is what is visible now."""
        now = self._world.now
        if self._row.can_read(self.number, now):
            spans, watermark = self._plan()
            seen = [
                version.seen() for version in self._visible(now) if any(a <= version.item.time < b for a, b in spans)
            ]
            self._world.at(now + READ_SECONDS, lambda: self._publish(seen, watermark))
        if now < self._row.over:
            self._world.at(now + POLL, self._poll)

    def _plan(self) -> tuple[list[tuple[float, float]], float | None]:
        """What to read, and the watermark that reading it gives: the hot end, and a slice of the sweep."""
        wall, low = self._wall(), self._wall() - HOURS * 3600
        if not self._row.sweep or self._read == 0:
            return [(low, wall + 60)], wall
        hot = wall - HOT
        started, at = self._sweep or (wall, hot)
        start = at - HOURS * 3600 * POLL / self._row.sweep
        done = start <= low
        self._sweep = None if done else (started, start)
        return [(hot, wall + 60), (start, at)], started if done else None

    def _visible(self, now: float) -> list[Version]:
        """The newest version of each item that this instance can see, in the order in which a read finds them."""
        newest: dict[str, Version] = {}
        for version in self._versions:
            if version.visible[self.number] > now:
                break
            newest[version.item.key] = version
        return sorted(newest.values(), key=lambda version: version.item.time, reverse=True)

    def _publish(self, seen: list[Item], watermark: float | None) -> None:
        """What the poller does with a read."""
        loaded = self._read > 0
        self._read += 1
        updates = self._window.apply(seen, self._read, self._wall()).updates
        for one in updates:
            self._note(one.identity)
        if loaded:
            self.hub.publish(updates)
        if watermark is not None:
            self.hub.advance(watermark)

    def _note(self, identity: str) -> None:
        key, said = identity.split("-")
        self.state[key] = said

    def _beat(self) -> None:
        self.hub.broadcast(heartbeat(self.hub))
        if self._world.now < self._row.over:
            self._world.at(self._world.now + 10, self._beat)


@cache
def events_in(data: bytes) -> list[tuple[str, str]]:
    """The ids of some frames, and what kind of event each is."""
    return [(found[1].decode(), found[2].decode()) for found in re.finditer(rb"id: (\S+)\nevent: (\S+)\n", data)]


type Rule = Callable[[Instance, "Reader"], list[bytes] | None]
"""What an instance replays to a reader that comes back; None: it cannot tell, and shows the state."""


def by_watermark(instance: Instance, reader: "Reader") -> list[bytes] | None:
    """The contract's rule."""
    replay = instance.hub.replay(reader.filter, place_in(reader.last_id))
    return None if replay.mode == "snapshot" else replay.frames


def by_last_event(instance: Instance, reader: "Reader") -> list[bytes] | None:
    """A rule without a watermark: from where the reader's last update was seen here, less an overlap."""
    place = place_in(reader.last_id)
    if place is not None and place.instance == instance.hub.instance:
        return by_watermark(instance, reader)
    entries = list(instance.hub._log.since(-1e9) or ())
    mine = next((entry for entry in entries if f"evt_{reader.last_update}.".encode() in entry.frame), None)
    if mine is None:
        return None
    return [e.frame for e in entries if e.arrived >= mine.arrived - 5 and reader.filter.matches(e.ticker)]


class Reader:
    """A client that reads one instance, is cut off or ended at any moment, and comes back to one of the two."""

    def __init__(self, world: World, row: Row, instances: list[Instance], rule: Rule, chance: random.Random) -> None:
        self.filter = chance.choice(FILTERS)
        self.last_id = ""
        self.last_update = ""
        self.knows: dict[str, str] = {}
        self.resumes = 0
        self.instance = chance.choice(instances)
        self._world, self._row, self._instances, self._rule, self._chance = world, row, instances, rule, chance
        self._subscription: Subscription | None = None
        self._last_tick = b""
        self._legs = chance.choice([2, 3])
        world.at(chance.uniform(row.begin, row.end), self._open)

    def _open(self) -> None:
        self._legs -= 1
        subscription, _ = self.instance.hub.subscribe(self.filter)
        replayed = self._rule(self.instance, self) if self.last_id else None
        self.resumes += replayed is not None
        stays = self._opening(replayed, str(self.instance.hub.place))
        if not stays:
            subscription.close()
            self._come_back()
            return
        self._subscription, self._last_tick = subscription, b""
        subscription.follow(self._write)
        if self._legs:
            self._world.at(self._world.now + self._chance.uniform(0.5, 40), self._cut)

    def _opening(self, replayed: list[bytes] | None, place: str) -> bool:
        """Read the opening; whether it was read to its end."""
        if self._legs and self._chance.random() < 0.2:  # cut off within
            part = (replayed or [])[: self._chance.randint(0, len(replayed or []))]
            self._take(b"".join(part))
            self.last_id = self.last_id if part else f"evt_r1.{own_place(self.last_id)}"
            return False
        if replayed is None:
            self.knows |= self.instance.state
        else:
            self._take(b"".join(replayed))
        self.last_id = f"evt_m1.{place}"
        return True

    def _write(self, data: bytes) -> None:
        """A tick arrives; it counts when the next one does, or in part when the connection is cut."""
        self._take(self._last_tick)
        self._last_tick = unchunked(data)

    def _take(self, data: bytes, most: int | None = None) -> None:
        for event_id, name in events_in(data)[:most]:
            self.last_id = event_id
            if name == "sentiment_update":
                self.last_update = event_id[4:].partition(".")[0]
                key, said = self.last_update.split("-")
                self.knows[key] = said

    def _cut(self) -> None:
        """Cut off after any part of the last tick; or ended by the server, after all of it."""
        assert self._subscription is not None
        if self._chance.random() < 0.3:
            self._take(self._last_tick)
            self._subscription.end("draining", 1)
            self._take(self._subscription.ending or b"")
        else:
            self._take(self._last_tick, self._chance.randint(0, len(events_in(self._last_tick))))
        self._subscription.close()
        self._come_back()

    def _come_back(self) -> None:
        others = [one for one in self._instances if one is not self.instance]
        self.instance = self._chance.choice([self.instance, *others * 4])
        self._world.at(self._world.now + self._chance.uniform(0.05, 5), self._open)

    def finish(self, tickers: dict[str, str]) -> bool:
        """Whether it knows in the end what its filter lets through, as the table says it."""
        self._take(self._last_tick)
        expected = {key: said for key, said in self.instance.state.items() if self.filter.matches(tickers[key])}
        return all(self.knows.get(key) == said for key, said in expected.items())


@dataclass(frozen=True)
class Outcome:
    resumes: int
    losers: int


def played(row: Row, rule: Rule, seed: int) -> Outcome:
    """One run: how many resumes were not from the state alone, and how many readers lost something."""
    chance, world = random.Random(seed), World()
    versions = versions_of(row, chance)
    instances = [Instance(world, row, number, versions) for number in (0, 1)]
    readers = [Reader(world, row, instances, rule, chance) for _ in range(READERS)]
    world.run()
    assert instances[0].state == instances[1].state, "both have read everything in the end"
    tickers = {key: version.item.tickers[0] for version in versions for key in keys_of(version.item)}
    losers = sum(not reader.finish(tickers) for reader in readers)
    return Outcome(sum(reader.resumes for reader in readers), losers)


def keys_of(item: Item) -> list[str]:
    """The first half of the identities of an item's updates."""
    window = Window(HOURS)
    return [one.identity.split("-")[0] for one in window.apply([item], 1, item.time).updates]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_no_reader_loses_anything_between_two_instances(row: Row) -> None:
    outcome = played(row, by_watermark, seed=1)
    assert outcome.resumes >= 1_500
    assert outcome.losers == 0


@pytest.mark.parametrize("row", list(ROWS.values())[1:], ids=list(ROWS)[1:])
def test_a_rule_without_the_watermark_loses_so_the_model_can_tell(row: Row) -> None:
    outcome = played(row, by_last_event, seed=1)
    assert outcome.losers > 0.01 * outcome.resumes


# What a resume on another instance cannot know: docs/concepts.md says so, and these that it is so


class Read:
    """A real hub and a real window, whose every read finds one item with a score of its own; 2 s apart."""

    def __init__(self, instance: str, *scores: float) -> None:
        self._time = Time()
        self.hub = Hub(clock=self._time.clock, instance=instance)
        self.window = Window(HOURS)
        self.frames: list[bytes] = []
        for number, score in enumerate((0.0, *scores)):
            self.read(number, score)

    def read(self, number: int, score: float) -> None:
        self._time.seconds = 2.0 * number
        item = Item("news:1\n", START, "positive", score, score, ("A",), "news")
        updates = self.window.apply([item], number, START + self._time.seconds).updates
        self.frames += [update.frame(str(self.hub.place)) for update in updates]
        if number:  # the first read is the state that everyone begins with
            self.hub.publish(updates)
        self.hub.advance(START + self._time.seconds)

    def replay(self, watermark: float) -> list[bytes]:
        """What a reader is sent who comes from another instance with this watermark: seconds since the start."""
        replay = self.hub.replay(ALL, Place("elsewhere", 1, START + watermark))
        assert replay.mode == "overlap"
        return replay.frames


def shown(*frames: bytes) -> list[float]:
    """The scores that a client shows that drops what equals the last thing it had of the item."""
    repeats = Repeats(100)
    return [one.json()["score"] for one in Parser().feed(b"".join(frames)) if not repeats.is_repeat(one)]


def test_of_an_item_that_changed_there_and_back_between_two_reads_the_receiving_instance_knows_nothing() -> None:
    there, here = Read("there", 0.5, 0.0), Read("here", 0.0, 0.0)
    had = there.frames[:2]
    assert shown(*had, *here.replay(6)) == [0.0, 0.5], "cut off before it changed back"
    state = [one.frame("~") for one in here.window.updates(ALL)]
    assert shown(*had, *state) == [0.0, 0.5, 0.0], "a new opening sets it right"
    here.read(3, 0.7)
    assert shown(*had, *here.replay(6)) == [0.0, 0.5, 0.7], "and so does its next change"


def test_an_overlap_that_holds_two_changes_of_an_item_shows_both_again_in_their_order() -> None:
    there, here = Read("there", 0.5, 0.7), Read("here", 0.5, 0.7)
    assert shown(*there.frames, *here.replay(6)) == [0.0, 0.5, 0.7, 0.5, 0.7], "5 s back from the watermark lie both"
    assert shown(*there.frames, *here.replay(8)) == [0.0, 0.5, 0.7], "and here the last one only, which is a repeat"


def test_an_overlap_from_an_instance_that_is_behind_shows_what_it_knows_and_then_the_newer() -> None:
    there, here = Read("there", 0.5, 0.7), Read("here", 0.5, 0.5)
    behind = here.replay(6)
    assert shown(*there.frames, *behind) == [0.0, 0.5, 0.7, 0.5]
    here.read(3, 0.7)
    assert shown(*there.frames, *behind, here.frames[-1]) == [0.0, 0.5, 0.7, 0.5, 0.7]


def test_who_goes_from_there_to_a_fresh_instance_before_the_second_change_was_read_is_left_with_the_first() -> None:
    there, here, fresh = Read("there", 0.5, 0.7), Read("here", 0.5), Window(HOURS)
    changed, newer = (
        Item(f"news:{n}\n", START + n, "positive", score, score, ("A",), "news") for n, score in ((1, 0.7), (2, 0.9))
    )
    fresh.apply([changed], 1, START + 6)
    assert shown(*there.frames, *here.replay(6), *(one.frame("~") for one in fresh.updates(ALL)))[3:] == [0.5, 0.7]
    fresh.apply([newer], 2, START + 6)
    assert shown(*there.frames, *here.replay(6), *(one.frame("~") for one in fresh.updates(ALL)))[3:] == [0.5, 0.9]
