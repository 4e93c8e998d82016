"""Limits: how many streams may be open, in all and of one user or address."""

import asyncio
import json
import random

import pytest

from quartsse.errors import LimitReached, TooManyStreams
from quartsse.feed.configurations import Saved
from quartsse.web.limits import Slot, Slots
from tests.web.serving import Reply, Service, serving

ONE = "/api/v2/configurations/one/stream"
SAVED = {("ann", "one"): Saved("one", "Ann's", ("AAPL",)), ("bob", "one"): Saved("one", "Bob's", ("AAPL",))}
TOO_MANY = b'{"detail":"Too many streams for this client.","retry_after":30}'


def test_as_many_slots_as_the_limit_and_not_one_more() -> None:
    slots = Slots(2)
    first, _ = slots.take(), slots.take()
    with pytest.raises(LimitReached):
        slots.take()
    first.release()
    slots.take()
    assert slots.taken == 2


def test_a_slot_that_is_released_twice_is_one_slot() -> None:
    slots = Slots(2, per_user=1)
    kept, gone = slots.take(), slots.take()
    kept.claim("ann", None)
    gone.claim("bob", None)
    gone.release()
    gone.release()
    assert slots.taken == 1
    with pytest.raises(TooManyStreams):
        slots.take().claim("ann", None)


def test_a_claim_that_is_refused_counts_to_neither_user_nor_address() -> None:
    slots = Slots(9, per_user=2, per_address=1)
    slots.take().claim("ann", "192.0.2.1")
    refused = slots.take()
    with pytest.raises(TooManyStreams):
        refused.claim("bob", "192.0.2.1")
    refused.release()
    for address in ("192.0.2.2", "192.0.2.3"):
        slots.take().claim("bob", address)
    with pytest.raises(TooManyStreams):
        slots.take().claim("bob", "192.0.2.4")


def test_a_claim_after_the_release_counts_to_nobody() -> None:
    slots = Slots(1, per_user=1)
    gone = slots.take()
    gone.release()
    gone.claim("ann", "192.0.2.1")
    slots.take().claim("ann", "192.0.2.1")


def test_zero_is_no_limit_of_users_and_addresses() -> None:
    slots = Slots(1000, per_user=0, per_address=0)
    for _ in range(1000):
        slots.take().claim("ann", "192.0.2.1")


def test_whatever_comes_and_goes_the_counts_are_those_who_are_there_and_nothing_is_kept_of_others() -> None:
    chance, told = random.Random(5), list[int]()
    slots = Slots(50, per_user=3, per_address=4, changed=told.append)
    there: list[Slot] = []
    for _ in range(5000):
        if there and chance.random() < 0.5:
            there.pop(chance.randrange(len(there))).release()
            continue
        try:
            slot = slots.take()
        except LimitReached:
            continue
        try:
            slot.claim(f"user {chance.randrange(30)}", f"192.0.2.{chance.randrange(30)}")
        except TooManyStreams:
            slot.release()
        else:
            there.append(slot)
        assert slots.taken == len(there)
    for slot in there:
        slot.release()
    assert (slots.taken, told[-1]) == (0, 0)
    assert not slots._users
    assert not slots._addresses


async def test_a_users_limit_is_that_users_alone_and_a_stream_that_ends_makes_room() -> None:
    async with serving(saved=SAVED, SSE_MAX_CONNECTIONS_PER_USER="2") as service:
        first, _ = await opened(service, "ann"), await opened(service, "ann")
        await too_many(await service.get(ONE, X_User_ID="ann"))
        await opened(service, "bob")
        assert (await service.get("/api/v2/stream")).status == 200, "who is nobody is not counted as one"
        first.close()
        await _until_open(service, 3)
        await opened(service, "ann")


async def test_an_unknown_configuration_counts_to_nobody_for_longer_than_it_takes_to_say_so() -> None:
    async with serving(saved=SAVED, SSE_MAX_CONNECTIONS_PER_USER="1") as service:
        for _ in range(3):
            assert (await service.get("/api/v2/configurations/two/stream", X_User_ID="ann")).status == 404
        await opened(service, "ann")


async def test_an_addresss_limit_is_for_all_streams_from_there() -> None:
    async with serving(saved=SAVED, SSE_MAX_CONNECTIONS_PER_ADDRESS="2") as service:
        await opened(service, "ann")
        assert (await service.get("/api/v2/stream")).status == 200
        for path, headers in ((ONE, {"X_User_ID": "bob"}), ("/api/v2/stream", {})):
            await too_many(await service.get(path, **headers))
        await too_many(await service.get("/api/v2/stream", X_Forwarded_For="192.0.2.7"))
        assert service.parts.slots.taken == 2


async def test_behind_one_trusted_proxy_what_the_client_claims_itself_changes_nothing() -> None:
    limits = {"SSE_MAX_CONNECTIONS_PER_ADDRESS": "1", "SSE_TRUSTED_HOPS": "1"}
    async with serving(**limits) as service:  # type: ignore[arg-type]
        assert (await service.get("/api/v2/stream", X_Forwarded_For="192.0.2.7")).status == 200
        for forged in ("192.0.2.1, 192.0.2.7", "8.8.8.8,1.1.1.1 ,192.0.2.7", "x, 192.0.2.7:4711", "::ffff:192.0.2.7"):
            await too_many(await service.get("/api/v2/stream", X_Forwarded_For=forged))
        assert (await service.get("/api/v2/stream", X_Forwarded_For="192.0.2.7, 192.0.2.8")).status == 200


async def test_for_an_event_source_that_asks_for_it_both_limits_are_a_polite_end() -> None:
    async with serving(saved=SAVED, SSE_MAX_CONNECTIONS="2", SSE_MAX_CONNECTIONS_PER_USER="1") as service:
        await opened(service, "ann")
        for fill in (False, True):
            if fill:
                await service.get("/api/v2/stream")
            reply = await service.get(f"{ONE}?on_limit=retry", X_User_ID="ann")
            assert reply.status == 200
            assert reply.headers["content-type"].startswith("text/event-stream")
            retry, event = (await reply.body()).decode().removesuffix("\n\n").split("\n\n")
            assert retry == "retry: 30000"
            assert "\nevent: stream_end\n" in event
            assert json.loads(event.split("data: ")[1]) == {"reason": "connection_limit", "retry_ms": 30_000}


async def test_a_crowd_that_comes_at_once_gets_exactly_the_slots_there_are() -> None:
    async with serving(saved=SAVED, SSE_MAX_CONNECTIONS="20", SSE_MAX_CONNECTIONS_PER_USER="7") as service:
        replies = await asyncio.gather(*(service.get(ONE, X_User_ID=user) for user in ("ann", "bob") * 30))
        statuses = [reply.status for reply in replies]
        assert (statuses.count(200), statuses.count(429)) == (14, 46)
        more = await asyncio.gather(*(service.get("/api/v2/stream") for _ in range(20)))
        assert [reply.status for reply in more].count(200) == 6
        full = next(reply for reply in more if reply.status == 503)
        assert full.headers["retry-after"] == "30"
        assert await full.body() == (
            b'{"detail":"Connection limit reached. Try again later.","max_connections":20,"retry_after":30}'
        )


async def opened(service: Service, user: str) -> Reply:
    """A user's stream."""
    reply = await service.get(ONE, X_User_ID=user)
    assert reply.status == 200
    return reply


async def too_many(reply: Reply) -> None:
    """Look that an answer is the one for too many streams."""
    assert (reply.status, reply.headers["retry-after"], await reply.body()) == (429, "30", TOO_MANY)


async def _until_open(service: Service, count: int) -> None:
    async with asyncio.timeout(3):
        while service.parts.slots.taken != count:
            await asyncio.sleep(0.01)
