"""A peer: Quart under Hypercorn as its documentation has event streams, a queue per stream."""

# Runs in an environment of its own, with nothing of this project.
import asyncio
import sys
from collections.abc import AsyncGenerator

import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, Response, request

queues: set[asyncio.Queue[bytes]] = set()
app = Quart(__name__)


async def body(queue: asyncio.Queue[bytes]) -> AsyncGenerator[bytes]:
    """What is put into the queue."""
    queues.add(queue)
    try:
        yield b": hello\n\n"
        while True:
            yield await queue.get()
    finally:
        queues.discard(queue)


@app.get("/sse")
async def sse() -> Response:
    """A stream."""
    response = Response(body(asyncio.Queue()), content_type="text/event-stream")
    response.timeout = None
    return response


@app.post("/pub")
async def pub() -> tuple[str, int]:
    """An event a line, for everybody."""
    for number, line in enumerate((await request.body).splitlines()):
        for queue in queues:
            queue.put_nowait(b"id: %d\nevent: message\ndata: %b\n\n" % (number, line))
    return "", 204


async def main() -> None:
    """Serve."""
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.backlog = 4096
    await serve(app, config)


if __name__ == "__main__":
    uvloop.run(main())
