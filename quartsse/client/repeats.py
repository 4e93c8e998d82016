"""Repeats: the updates that a server sends again when a reader comes back."""

from collections import OrderedDict

from quartsse.client.parser import ServerEvent


class Repeats:
    """What each item last said to whom, of at most `size` items: the longest unheard is forgotten first.

    The part of an id before the first `.` is the event's identity: what it is about, `-`, what it says of that.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._last: OrderedDict[str, str] = OrderedDict()

    def is_repeat(self, event: ServerEvent) -> bool:
        """Whether its item said the same the last time; if not, this is from now on what it said last."""
        if event.event != "sentiment_update":
            return False
        subject, dash, says = event.id.partition(".")[0].partition("-")
        if not dash:
            return False
        if self._last.get(subject) == says:
            self._last.move_to_end(subject)
            return True
        self._last[subject] = says
        self._last.move_to_end(subject)
        if len(self._last) > self._size:
            self._last.popitem(last=False)
        return False
