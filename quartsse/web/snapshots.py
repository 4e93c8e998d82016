"""Snapshots: what a client polls that cannot stream."""

import asyncio
import json
from collections.abc import Mapping

from quart import Response, request

from quartsse.errors import FeedStarting
from quartsse.hub.filters import Filter
from quartsse.web.answers import answer, etag
from quartsse.web.parts import Parts

STATE_SECONDS = 2.0
"""How long a snapshot waits for the window to be read."""


async def snapshot(parts: Parts, wanted: Filter, more: Mapping[str, object] | None = None) -> Response:
    """The current state through a filter; 304 if it is still what the client has. Raises FeedStarting.

    The request counts as a reader while it waits, so that an idle feed wakes up for it.
    """
    with parts.poller.attended():
        try:
            async with asyncio.timeout(STATE_SECONDS):
                await parts.poller.ready()
        except TimeoutError:
            raise FeedStarting from None
    window, totals = parts.poller.window, parts.poller.totals()
    state: dict[str, object] = {
        "feed": parts.poller.state,
        "metrics": json.loads(totals.data),
        "sentiment_updates": [json.loads(update.data) for update in window.updates(wanted)],
        **(more or {}),
    }
    tag = etag(json.dumps(state).encode())
    if tag in request.if_none_match:
        return Response("", 304, headers={"ETag": f'"{tag}"', "Cache-Control": "no-cache"})
    body = {"id": totals.id_at(str(parts.hub.place)), **state, "history": window.history(wanted)}
    return answer(body, headers={"ETag": f'"{tag}"'})
