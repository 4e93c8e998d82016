"""Limits: how many streams may be open, in all and of one user or address."""

from collections import Counter
from collections.abc import Callable

from quartsse.errors import LimitReached, TooManyStreams


class Slot:
    """One stream's place under the limits, until it is released."""

    __slots__ = ("_address", "_slots", "_user")

    def __init__(self, slots: "Slots") -> None:
        self._slots: Slots | None = slots
        self._user: str | None = None
        self._address: str | None = None

    def claim(self, user: str | None, address: str | None) -> None:
        """Count it to a user and an address as well. Raises TooManyStreams, and then counts it to neither."""
        if self._slots is not None:
            self._slots.claim(user, address)
            self._user, self._address = user, address

    def release(self) -> None:
        """Give it back. Later calls change nothing: a slot has one owner at a time, but its end has many causes."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release(self._user, self._address)


class Slots:
    """The slots of this process. `changed` is told how many streams are open, whenever that changes."""

    def __init__(
        self,
        limit: int,
        *,
        per_user: int = 0,
        per_address: int = 0,
        changed: Callable[[int], None] = lambda count: None,  # noqa: ARG005 - called by position
    ) -> None:
        self.limit = limit
        self.taken = 0
        self._per_user = per_user
        self._per_address = per_address
        self._changed = changed
        self._users: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()

    def take(self) -> Slot:
        """A slot. Raises LimitReached."""
        if self.taken >= self.limit:
            raise LimitReached(self.limit)
        self.taken += 1
        self._changed(self.taken)
        return Slot(self)

    def claim(self, user: str | None, address: str | None) -> None:
        """Count a stream to its user and address. Raises TooManyStreams."""
        if user is not None and self._per_user and self._users[user] >= self._per_user:
            raise TooManyStreams
        if address is not None and self._per_address and self._addresses[address] >= self._per_address:
            raise TooManyStreams
        if user is not None:
            self._users[user] += 1
        if address is not None:
            self._addresses[address] += 1

    def release(self, user: str | None, address: str | None) -> None:
        """Give a slot back, and take it off its user and address."""
        self.taken -= 1
        for counts, key in ((self._users, user), (self._addresses, address)):
            if key is not None:
                counts[key] -= 1
                if counts[key] <= 0:
                    del counts[key]
        self._changed(self.taken)
