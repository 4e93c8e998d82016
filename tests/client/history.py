"""A stream with a history: what a server owes a client that comes back with a place in it, byte for byte."""

from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from tests.adversary import Ending, Script, Seen, Step, block, chunked, gzipped, head
from tests.client.pieces import CHUNKED

HISTORY = [("x", "1"), ("y", "1"), ("x", "2"), ("z", "1"), ("x", "1"), ("y", "3")]
ONCE = {**CHUNKED, "Connection": "close"}
"""A server that plays dead afterwards is none to send a second request to, as Node does with a whole answer's."""
CODINGS = ["chunked", "close", "gzip"]


def update(item: str, says: str, place: int) -> bytes:
    """An update of an item at a place; its data is JSON that names all three."""
    return block(f'"{item}{says}@{place}"', event="sentiment_update", event_id=f"evt_{item}-{says}.i.{place}.0")


UPDATES = [update(item, says, place) for place, (item, says) in enumerate(HISTORY)]
EXPECTED = [f'"{item}{says}@{place}"' for place, (item, says) in enumerate(HISTORY)]


def whole_answer(seen: Seen, coding: str) -> bytes:
    """What a server owes this client: all after its place, and, as after a change of instance, the last one again."""
    last = seen.last_event_id or "".join(parse_qs(urlsplit(seen.target).query).get("last_event_id", []))
    place = int(last.split(".")[2]) if last else 0
    contents = [b"retry: 1\n:\n\n", *UPDATES[place:]]
    if coding == "close":
        return head() + b"".join(contents)
    if coding == "gzip":
        return head(Content_Encoding="gzip", **ONCE) + chunked(gzipped(contents))
    return head(**ONCE) + chunked(contents)


def longest(coding: str) -> int:
    """Bytes of the answer to a client that comes for the first time."""
    return len(whole_answer(Seen("GET / HTTP/1.1", {}), coding))


def cut_where_the_path_says(coding: str, ending: Sequence[Step]) -> Script:
    """A script that cuts the first answer to each path at the byte that the path ends with; the next one is whole."""
    first: set[str] = set()

    def script(seen: Seen) -> Sequence[Step]:
        answer, path = whole_answer(seen, coding), seen.target.partition("?")[0]
        if path in first:
            return [answer, Ending.SILENCE]
        first.add(path)
        return [answer[: int(path.rpartition("/")[2])], *ending]

    return script
