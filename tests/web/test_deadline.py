"""The deadline of a Lambda invocation."""

import json
import time

import pytest

from quartsse.web.deadline import seconds_left
from tests.web.serving import serving


@pytest.mark.parametrize("key", ["deadline", "deadline_ms"])
def test_both_names_of_the_deadline_are_read(key: str) -> None:
    assert seconds_left([(b"x-amzn-lambda-context", json.dumps({key: 12_500}).encode())], 10.0) == 2.5


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b'{"deadline":"soon"}', b'{"deadline":true}', b"\xff"])
def test_a_context_that_says_nothing_is_no_deadline(value: bytes) -> None:
    assert seconds_left([(b"x-amzn-lambda-context", value)], 10.0) is None
    assert seconds_left([], 10.0) is None


async def test_on_lambda_a_stream_ends_before_its_deadline() -> None:
    context = json.dumps({"deadline": int((time.time() + 0.6) * 1000)})
    async with serving(
        AWS_LAMBDA_FUNCTION_NAME="streams", SSE_DEADLINE_MARGIN="0.4", SSE_ALLOWED_HOSTS="localhost"
    ) as service:
        reply = await service.get("/api/v2/stream", X_Amzn_Lambda_Context=context)
        ending = (await reply.until("stream_end", seconds=0.55))[-1]
        assert json.loads(ending["data"])["reason"] == "deadline"


async def test_off_lambda_a_client_cannot_end_anything_with_that_header() -> None:
    context = json.dumps({"deadline": int(time.time() * 1000)})
    async with serving(SSE_HEARTBEAT_INTERVAL="0.1") as service:
        reply = await service.get("/api/v2/stream", X_Amzn_Lambda_Context=context)
        await reply.events(6)
