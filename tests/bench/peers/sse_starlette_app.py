"""A peer: sse-starlette under uvicorn, a queue per stream."""

# Runs in an environment of its own, with nothing of this project.
# mypy: disable-error-code="import-not-found, untyped-decorator, no-untyped-call, unused-ignore"
import asyncio
import sys
from collections.abc import AsyncGenerator

import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

queues: set[asyncio.Queue[dict[str, str]]] = set()


async def body(queue: asyncio.Queue[dict[str, str]]) -> AsyncGenerator[dict[str, str]]:
    """What is put into the queue."""
    queues.add(queue)
    try:
        while True:
            yield await queue.get()
    finally:
        queues.discard(queue)


async def sse(request: Request) -> Response:
    """A stream."""
    return EventSourceResponse(body(asyncio.Queue()))  # type: ignore[no-any-return]


async def pub(request: Request) -> Response:
    """An event a line, for everybody."""
    for number, line in enumerate((await request.body()).decode().splitlines()):
        for queue in queues:
            queue.put_nowait({"id": str(number), "event": "message", "data": line})
    return Response(status_code=204)


app = Starlette(routes=[Route("/sse", sse), Route("/pub", pub, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, backlog=4096)
