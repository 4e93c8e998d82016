"""The plan of a chaos run: which faults, when and for how long. The same seed and length always give the same plan."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LEAST_PAUSE, MOST_PAUSE = 11.0, 14.0
"""Seconds between two episodes: everyone has to be back within ten."""
INSTANCES = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it acts on (two that act on the same are not inflicted together), and for how long."""

    name: str
    on: str
    least: float
    most: float
    aimed: bool = False
    """At one of the instances, or at both where `both` came up."""
    blinding: bool = False
    """Whether instances cannot read the table meanwhile."""


KINDS = (Kind("kill", "processes", 0.5, 5, aimed=True),)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `after` so many seconds of its episode, for `seconds`, on these instances."""

    kind: Kind
    after: float
    seconds: float
    targets: tuple[int, ...]

    def __str__(self) -> str:
        where = f" of {', '.join(map(str, self.targets))}" if self.kind.aimed else ""
        return f"{self.kind.name}{where} for {self.seconds:.1f} s after {self.after:.1f} s"


@dataclass(frozen=True, slots=True)
class Planned:
    """An episode: a pause, and then one fault or two that overlap."""

    pause: float
    faults: tuple[Fault, ...]

    @property
    def seconds(self) -> float:
        """How long it takes, pause included."""
        return self.pause + max(fault.after + fault.seconds for fault in self.faults)


def plan(seed: int, seconds: float, kinds: Sequence[Kind] = KINDS) -> list[Planned]:
    """The episodes of a run of about so many seconds: at least one, and each kind once before any comes again."""
    chance = random.Random(seed)
    bag = _bag(chance, kinds)
    planned = [_episode(chance, bag)]
    while True:
        episode = _episode(chance, bag)
        if sum(one.seconds for one in planned) + episode.seconds > seconds:
            return planned
        planned.append(episode)


def _bag(chance: random.Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    """The kinds in random order, again and again."""
    while True:
        yield from chance.sample(kinds, len(kinds))


def _episode(chance: random.Random, bag: Iterator[Kind]) -> Planned:
    pause = chance.uniform(LEAST_PAUSE, MOST_PAUSE)
    first = _fault(chance, next(bag), 0.0)
    faults = [first]
    if chance.random() < 0.4:
        second = _fault(chance, next(bag), chance.uniform(0, first.seconds))
        if second.kind.on != first.kind.on:
            faults.append(second)
    return Planned(pause, tuple(faults))


def _fault(chance: random.Random, kind: Kind, after: float) -> Fault:
    one = chance.randrange(INSTANCES)
    targets = tuple(range(INSTANCES)) if not kind.aimed or chance.random() < 0.3 else (one,)
    return Fault(kind, after, chance.uniform(kind.least, kind.most), targets)
