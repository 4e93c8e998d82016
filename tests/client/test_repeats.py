"""What is sent again is dropped, and nothing else; cut at any byte, nothing is lost."""

from collections.abc import Sequence

import pytest

from quartsse.client import (
    stream,
)
from tests.adversary import Adversary, Ending, Seen, Step, block, head
from tests.client.history import CODINGS, EXPECTED, cut_where_the_path_says, longest, update, whole_answer
from tests.client.reading import Instant, reading, take


async def test_an_update_that_says_what_its_item_said_last_is_dropped() -> None:
    before = update("x", "1", 1) + update("y", "1", 2) + update("x", "2", 3)
    after = update("x", "2", 9) + update("y", "1", 9) + update("x", "1", 10) + update("y", "2", 11)
    async with reading([head(), before], [head(), after]) as (events, _):
        assert await take(events, 5) == ['"x1@1"', '"y1@2"', '"x2@3"', '"x1@10"', '"y2@11"']
        assert events.repeats == 2


async def test_a_repeat_that_is_dropped_still_moves_the_place_on() -> None:
    scripts = [[head(), update("x", "1", 1) + update("x", "1", 2)], [head(), update("x", "2", 3)]]
    async with reading(*scripts) as (events, server):
        await take(events, 2)
    assert server.requests[1].last_event_id == "evt_x-1.i.2.0"


async def test_only_updates_with_an_identity_are_ever_dropped() -> None:
    heartbeat = block("beat", event="heartbeat", event_id="evt_a-b.i.1.0")
    foreign = block("foreign", event="sentiment_update", event_id="17")
    async with reading([head(), heartbeat * 2 + foreign * 2]) as (events, _):
        assert await take(events, 4) == ["beat", "beat", "foreign", "foreign"]


async def test_the_memory_for_repeats_is_bounded_and_forgets_the_longest_unheard() -> None:
    sent = [("x", "1"), ("y", "1"), ("x", "1"), ("z", "1"), ("x", "1"), ("y", "1")]
    content = b"".join(update(item, says, place) for place, (item, says) in enumerate(sent))
    async with reading([head(), content, Ending.SILENCE], remember=2) as (events, _):
        assert await take(events, 4) == ['"x1@0"', '"y1@1"', '"z1@3"', '"y1@5"']


# --- cut anywhere ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [[], [Ending.RESET]], ids=["closed", "reset"])
@pytest.mark.parametrize("coding", CODINGS)
async def test_a_connection_cut_at_any_byte_costs_no_event_and_repeats_none(coding: str, ending: list[Step]) -> None:
    async with Adversary(cut_where_the_path_says(coding, ending)) as server:
        for cut in range(longest(coding) + 1):
            async with stream(f"{server.url}/{cut}", options=Instant().options()) as events:
                assert await take(events, len(EXPECTED)) == EXPECTED, cut


async def test_a_stream_cut_again_and_again_still_arrives_whole() -> None:
    cuts = iter(range(10, 4000, 7))

    def script(seen: Seen) -> Sequence[Step]:
        return [whole_answer(seen, "chunked")[: next(cuts)]]

    async with reading(script) as (events, server):
        assert await take(events, len(EXPECTED)) == EXPECTED
    assert len(server.requests) > 10
