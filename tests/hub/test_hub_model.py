"""The hub against a list: whatever happens, each reader gets what its filter matches, in order, once."""

import zlib
from dataclasses import dataclass
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from quartsse.client import ServerEvent
from quartsse.hub.compression import Gzip
from quartsse.hub.filters import Filter
from quartsse.hub.hub import Hub
from quartsse.hub.ids import Place
from quartsse.hub.subscription import Subscription
from tests.hub import building
from tests.hub.building import ALL, NONE, Later, Time, identity_of, only, parsed, place_of, unchunked, update

FILTERS = [ALL, NONE, only("A"), only("B"), only("A", "B"), only("A", metrics=False), Filter(None, metrics=False)]
LOG_EVENTS = 8
BACKLOG_BYTES = 1200

filters = st.sampled_from(FILTERS)


@dataclass(eq=False)
class Modelled:
    """A reader, and what a list says that it should get: identities, with those of totals apart."""

    subscription: Subscription
    filter: Filter
    expected: list[str]
    opening: bytes = b""
    reading: bool = True
    follows: bool = False
    """Whether it is written to while it reads, or takes what waits."""
    full: bool = False
    """Whether the next write is the last one that it takes for now."""
    sent: bytes = b""
    """Its body, in the coding that it takes."""

    def __post_init__(self) -> None:
        gzip = self.subscription.gzip
        self.decoder = zlib.decompressobj(31)
        self.received = b""
        self.get(self.opening if gzip is None else gzip.encode(self.opening))

    def get(self, data: bytes) -> None:
        self.sent += data
        self.received += data if self.subscription.gzip is None else self.decoder.decompress(data)

    def take(self) -> None:
        self.get(self.subscription.take())
        if self.follows and self.reading:
            self.subscription.follow(self.write)

    def write(self, chunk: bytes) -> None:
        self.get(unchunked(chunk))
        if self.full:
            self.full = self.reading = False
            self.subscription.pause()

    def woken(self) -> None:
        if self.reading:
            self.take()


class HubAgainstAList(RuleBasedStateMachine):
    """One hub, any number of readers, a fan-out that is anywhere between two events."""

    readers = Bundle("readers")
    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.slices_of_two = patch("quartsse.hub.hub.SLICE", 2)
        self.slices_of_two.start()
        self.time = Time()
        self.later = Later()
        self.hub = Hub(
            clock=self.time.clock,
            instance="here",
            log_events=LOG_EVENTS,
            backlog_bytes=BACKLOG_BYTES,
            schedule=self.later,
        )
        self.updates: list[tuple[str, str]] = []
        self.open: list[Modelled] = []
        self.serial = 0

    @rule(target=readers, wanted=filters, reading=st.booleans(), gzip=st.booleans())
    def join(self, wanted: Filter, reading: bool, gzip: bool) -> Modelled:
        subscription, replay = self.hub.subscribe(wanted, gzip=Gzip() if gzip else None)
        assert replay.mode == "snapshot"
        return self._joined(subscription, wanted, [], b"", reading=reading)

    @rule(target=readers, wanted=filters, after=places, reading=st.booleans(), gzip=st.booleans())
    def resume(self, wanted: Filter, after: Place, reading: bool, gzip: bool) -> Modelled:
        subscription, replay = self.hub.subscribe(wanted, after, Gzip() if gzip else None)
        known = after.number >= len(self.updates) - LOG_EVENTS
        assert replay.mode == ("exact" if known else "snapshot")
        missed = [identity for identity, ticker in self.updates[after.number :] if wanted.matches(ticker)]
        return self._joined(subscription, wanted, missed if known else [], b"".join(replay.frames), reading=reading)

    @rule(target=places, tickers=st.lists(st.sampled_from("ABC"), max_size=5), totals=st.booleans())
    def publish(self, tickers: list[str], totals: bool) -> Place:
        updates = [update(self._identity("u"), ticker, size=100) for ticker in tickers]
        self.updates += [(one.identity, one.ticker or "") for one in updates]
        for modelled in self.open:
            modelled.expected += [one.identity for one in updates if modelled.filter.matches(one.ticker)]
        self.hub.publish(updates, building.totals(self.hub, len(self.updates)) if totals else None)
        return self.hub.place

    @rule()
    def beat(self) -> None:
        self.hub.broadcast(building.heartbeat(self.hub))

    @rule(seconds=st.integers(1, 20))
    def wait(self, seconds: int) -> None:
        self.time.seconds += seconds
        self.hub.advance(building.START + self.time.seconds - 1)
        self.hub.keep_alive(b":\n\n", 15)

    @rule()
    def deliver_a_slice(self) -> None:
        self.later.step()

    @rule()
    def deliver(self) -> None:
        self.later.run()

    @rule(modelled=readers, reading=st.booleans())
    def read_or_stop_reading(self, modelled: Modelled, reading: bool) -> None:
        modelled.reading = reading
        if reading:
            modelled.take()
        else:
            modelled.subscription.pause()

    @rule(modelled=readers)
    def be_full_at_the_next_write(self, modelled: Modelled) -> None:
        modelled.full = True

    @rule(modelled=readers, wanted=filters)
    def refilter(self, modelled: Modelled, wanted: Filter) -> None:
        if modelled in self.open:
            self.hub.refilter(modelled.subscription, wanted)
            if modelled.subscription.ending is None:  # it may have lagged, before or just now
                modelled.filter = wanted

    @rule(modelled=readers)
    def send(self, modelled: Modelled) -> None:
        if modelled in self.open:
            one = update(self._identity("own"))
            modelled.expected.append(one.identity)
            self.hub.send(modelled.subscription, one.frame(str(self.hub.place)))

    @rule(target=places, modelled=consumes(readers))
    def end(self, modelled: Modelled) -> object:
        """The server ends it: what it did not get is found from where its end says."""
        modelled.subscription.end("draining", 1)
        return self._finished(modelled)

    @rule(target=places, modelled=consumes(readers))
    def leave(self, modelled: Modelled) -> object:
        """The client leaves; it goes on from the last event that it read."""
        modelled.subscription.close()
        self.open = [one for one in self.open if one is not modelled]
        return multiple(*_places(parsed(modelled.received)[-1:]))

    @invariant()
    def nobody_got_anything_but_the_beginning_of_what_it_should(self) -> None:
        for modelled in self.open:
            got = _without_state(parsed(modelled.received))
            assert got == modelled.expected[: len(got)]

    @invariant()
    def nobody_waits_for_more_than_the_backlog_and_a_tick(self) -> None:
        for subscription in self.hub.subscriptions:
            assert subscription.waiting_bytes <= BACKLOG_BYTES + 5 * 160 + 300

    @invariant()
    def every_open_reader_is_in_a_channel_and_nobody_else(self) -> None:
        living = [one.subscription for one in self.open if one.subscription.ending is None]
        assert set(self.hub.subscriptions) == set(living)

    def teardown(self) -> None:
        self.slices_of_two.stop()
        self.later.run()
        for modelled in self.open:
            if modelled.subscription.ending is None:
                modelled.take()
                assert _without_state(parsed(modelled.received)) == modelled.expected
            else:
                self._finished(modelled)

    def _identity(self, prefix: str) -> str:
        self.serial += 1
        return f"{prefix}-{self.serial}"

    def _joined(
        self, subscription: Subscription, wanted: Filter, missed: list[str], opening: bytes, *, reading: bool
    ) -> Modelled:
        modelled = Modelled(subscription, wanted, missed, opening, reading)
        modelled.follows = len(self.open) % 2 == 1
        subscription.wake = modelled.woken
        modelled.woken()
        self.open.append(modelled)
        return modelled

    def _finished(self, modelled: Modelled) -> object:
        """Check an ended reader: its end comes last, and its place leads to exactly the rest."""
        self.open = [one for one in self.open if one is not modelled]
        assert modelled.subscription.ending is not None
        modelled.take()
        (ending,) = parsed(modelled.subscription.ending)
        if modelled.subscription.gzip is not None:
            whole = modelled.sent + modelled.subscription.finish()
            assert zlib.decompress(whole, 31) == modelled.received + modelled.subscription.ending
        got = _without_state(parsed(modelled.received))
        rest = modelled.expected[len(got) :]
        assert got + rest == modelled.expected
        for place in _places([ending]):
            replay = self.hub.replay(modelled.filter, place)
            if replay.mode == "exact":
                replayed = [identity_of(one) for one in parsed(b"".join(replay.frames))]
                assert replayed == [identity for identity in rest if not identity.startswith("own")]
        return multiple(*_places([ending]))


def _places(events: list[ServerEvent]) -> list[Place]:
    return [place_of(one) for one in events if not one.id.endswith("~")]


def _without_state(events: list[ServerEvent]) -> list[str]:
    """The identities of updates; and of totals, none behind newer ones."""
    totals = [int(identity_of(one)[1:]) for one in events if one.event == "metrics"]
    assert totals == sorted(set(totals))
    return [identity_of(one) for one in events if one.event == "sentiment_update"]


TestHubAgainstAList = HubAgainstAList.TestCase
TestHubAgainstAList.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
