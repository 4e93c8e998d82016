"""The plan of a chaos run: which faults, when and for how long. The same seed and length always give the same plan."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_PAUSE, MOST_PAUSE = 11.0, 14.0
"""Seconds between two episodes: everyone has to be back within ten."""
INSTANCES = 2
BACKING_OFF, IN_FLIGHT = 12.0, 20.0
"""Seconds that a feed may need after its table is back: a pause of up to ten, and where it hung first eight until that
has failed."""
HELD_UP = 3.0
"""And a stream, until what was held up has arrived."""
TWO, BOTH = 0.4, 0.3
"""How often two faults overlap, and how often one that is aimed hits both instances."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it acts on (two that act on the same are not inflicted together), and for how long."""

    name: str
    on: str
    least: float
    most: float
    aimed: bool = False
    """At one of the instances, or at both where `both` came up."""
    hides: float | None = None
    """Where what is written may be read, or heard, later than otherwise: for how many seconds beyond its end."""


KINDS = (
    Kind("kill", "processes", 0.5, 5, aimed=True),
    Kind("restart", "processes", 0, 2, aimed=True),
    Kind("roll", "processes", 0, 3),
    Kind("freeze", "processes", 2, 12, aimed=True, hides=HELD_UP),
    Kind("cut", "network", 1, 6, aimed=True),
    Kind("swallow", "network", 3, 12, aimed=True, hides=HELD_UP),
    Kind("throttle", "table", 3, 10, aimed=True, hides=BACKING_OFF),
    Kind("fail", "table", 3, 10, aimed=True, hides=BACKING_OFF),
    Kind("break", "table", 3, 10, aimed=True, hides=BACKING_OFF),
    Kind("hang", "table", 3, 12, aimed=True, hides=IN_FLIGHT),
    Kind("refuse", "table", 3, 10, aimed=True, hides=BACKING_OFF),
    Kind("cut viewers", "viewers", 1, 6),
    Kind("swallow viewers", "viewers", 3, 14, hides=HELD_UP),
    Kind("slow viewers", "viewers", 8, 14, hides=HELD_UP),
    Kind("come and go", "connects", 3, 8),
    Kind("kill balancer", "balancer", 0, 2),
    Kind("freeze balancer", "balancer", 2, 8, hides=HELD_UP),
)


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
    chance, bag = random.Random(seed), deque[Kind]()
    planned: list[Planned] = []
    while True:
        if len(bag) < 2:
            bag += chance.sample(kinds, len(kinds))
        episode = _episode(chance, bag)
        if planned and sum(one.seconds for one in planned) + episode.seconds > seconds:
            return planned
        planned.append(episode)


def _episode(chance: random.Random, bag: deque[Kind]) -> Planned:
    """The next kind, and sometimes the one after it as well, if that acts on something else."""
    pause = chance.uniform(LEAST_PAUSE, MOST_PAUSE)
    faults = [_fault(chance, bag.popleft(), 0.0)]
    if chance.random() < TWO and bag and bag[0].on != faults[0].kind.on:
        faults.append(_fault(chance, bag.popleft(), chance.uniform(0, faults[0].seconds)))
    return Planned(pause, tuple(faults))


def _fault(chance: random.Random, kind: Kind, after: float) -> Fault:
    one = chance.randrange(INSTANCES)
    targets = tuple(range(INSTANCES)) if not kind.aimed or chance.random() < BOTH else (one,)
    return Fault(kind, after, chance.uniform(kind.least, kind.most), targets)
