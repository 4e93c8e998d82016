"""What is said of a chaos run: its figures, and its first breach so that one can follow it."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import quantiles

from tests.proof.chaos.checker import LEFT, Verdict, back_after
from tests.proof.chaos.history import Connection, Record


def figures(record: Record, verdict: Verdict) -> list[str]:
    """What happened, in lines."""
    histories = record.histories
    connections = [one for history in histories for one in history.connections]
    resumes = Counter(one.mode for one in connections if one.mode)
    reasons = Counter(_plainly(one.reason) for one in connections if one.closed is not None and one.reason != LEFT)
    kinds = Counter(kind for episode in record.episodes for kind in episode.kinds)
    back = sorted(after for e in record.episodes for h in histories if (after := back_after(h, e)) is not None)
    silence = max((later - earlier for h in histories for earlier, later in pairwise(h.heard)), default=0.0)
    told = {
        "run": f"{record.over - record.began:.0f} s, {len(histories)} readers, {len(record.written)} states written",
        "faults": f"{len(record.episodes)} episodes: {_counted(kinds)}",
        "attempts": f"{sum(history.attempts for history in histories)}, of which {len(connections)} became streams",
        "resumes": _counted(resumes),
        "ends": _counted(reasons),
        "updates": f"{sum(len(one.updates) for one in connections)} heard, "
        f"{sum(history.repeats for history in histories)} repeats dropped, {verdict.again} shown again, "
        f"{verdict.folded} folded",
        "had to be heard": f"{verdict.required} updates that were judged one by one",
        "written to heard": _spread(_delays(record)),
        "longest silence": f"{silence:.1f} s",
        "back after a fault": f"{len(back)} readers: {_spread(back)}",
        "the feed live again": _spread(_live_again(record)),
    }
    return [f"{name + ':':<22}{words}" for name, words in told.items()]


def account(record: Record, verdict: Verdict) -> list[str]:
    """The first breach: what, whose, and what happened around it. Times are seconds since the run began."""
    first, began = verdict.breaches[0], record.began
    history = next(one for one in record.histories if one.name == first.reader)
    near = [one for one in record.episodes if one.began - 5 <= first.at <= one.ended + 30]
    return [
        f"{first.kind} at {first.at - began:.3f} s, {first.reader}: {first.words}",
        f"the run began at {began:.3f}",
        *(f"{', '.join(one.kinds)}: {one.began - began:.3f} s to {one.ended - began:.3f} s" for one in near),
        *(_life(one, record) for one in history.connections if _touches(one, first.at - 60, first.at + 30)),
    ]


def _life(one: Connection, record: Record) -> str:
    began, closed = record.began, record.over if one.closed is None else one.closed
    return (
        f"asked at {one.asked - began:.3f} s, {one.mode or 'no mode'} at {one.began - began:.3f} s, "
        f"{len(one.updates)} updates, last event at {one.heard - began:.3f} s, "
        f"closed at {closed - began:.3f} s: {one.reason}"
    )


def _touches(one: Connection, since: float, until: float) -> bool:
    return one.asked <= until and (one.closed is None or one.closed >= since)


def _delays(record: Record) -> list[float]:
    """Seconds from written to heard, of what was written while its reader had a stream."""
    done = {one.number: one.done for one in record.written}
    return sorted(
        max(0.0, update.at - done[update.number])
        for history in record.histories
        for one in history.connections
        for update in one.updates
        if one.began <= done.get(update.number, 0.0)
    )


def _live_again(record: Record) -> list[float]:
    """For each episode that hid the table, and each reader, seconds from its end until the feed was said to be live."""
    hidden = [one.ended for one in record.episodes if one.hidden is not None]
    places = [(history.live, bisect_left(history.live, at), at) for at in hidden for history in record.histories]
    return sorted(live[place] - at for live, place, at in places if place < len(live))


def _plainly(reason: str) -> str:
    """A reason without what is different every time."""
    return reason.partition(":")[0] if reason.startswith("cut") else reason


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"


def _spread(values: Sequence[float]) -> str:
    """The middle, the 99th of a hundred, and the worst, of sorted values."""
    if len(values) < 2:
        return f"{values[0]:.2f} s" if values else "none"
    cuts = quantiles(values, n=100, method="inclusive")
    return f"p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, max {values[-1]:.2f} s"
