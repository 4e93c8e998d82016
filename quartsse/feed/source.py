"""Sources: whatever can say what changed since it was last read."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from quartsse.feed.items import Item
from quartsse.hub.clock import Clock

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Batch:
    """One part of a read, applied in one go.

    `unsettled`: keys seen in two partitions at once, to be left as they are until the next read. `gone`: keys that
    are known to have left the table. `ordered`: these are changes in the order in which they happened, and each
    stands, though the same read may have seen the item before. `span` (Unix seconds, the end excluded): where, with
    this batch, the read has been complete. `watermark`: with this batch the whole window has been covered, and all
    that was visible then has been read. `units`: read units that it cost. `skipped`: how many records did not fit, by
    kind. `changed_at` (Unix seconds): when the oldest of these changes was made, where the source knows that.
    """

    items: list[Item] = field(default_factory=list)
    unsettled: frozenset[str] = frozenset()
    gone: tuple[str, ...] = ()
    span: tuple[float, float] | None = None
    watermark: float | None = None
    units: float = 0.0
    skipped: dict[str, int] = field(default_factory=dict)
    ordered: bool = False
    changed_at: float | None = None


class Source(Protocol):
    """Something that can be read again and again, one read at a time."""

    def read(self, low: float, *, whole: bool) -> AsyncIterator[Batch]:
        """Read what may be new down to `low` (Unix seconds), newest first; all of it if `whole`.

        Raises SourceError when it cannot be read; what was yielded before stays true.
        """
        ...


class MemorySource:
    """A source in memory, for tests and for trying a front end without a table."""

    def __init__(self, items: Iterable[Item] = (), clock: Clock | None = None) -> None:
        self.items = {item.key: item for item in items}
        self._clock = clock or Clock()

    def put(self, item: Item) -> None:
        """Add an item, or put another one in its place."""
        self.items[item.key] = item

    def delete(self, key: str) -> None:
        """Take an item away."""
        del self.items[key]

    async def read(self, low: float, *, whole: bool) -> AsyncIterator[Batch]:  # noqa: ARG002 - all of it every time
        """Everything from `low` on, at once."""
        started = self._clock.wall()
        items = [item for item in self.items.values() if item.time >= low]
        yield Batch(items=items, span=(low, FOREVER), watermark=started)
