"""`quartsse serve` as it is, which besides can be asked what it holds: `python -m tests.proof.chaos.instance`.

`CHAOS_CONTROL` names the UNIX socket over which it is asked; every connection there gets one line of JSON.
"""

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any
from unittest.mock import patch

from quartsse import service
from quartsse.__main__ import main
from quartsse.settings import Settings
from quartsse.web.parts import Parts
from tests.end_to_end.hosted import held_in

MODULE = "tests.proof.chaos.instance"


async def held_by(control: Path) -> dict[str, int]:
    """What the instance behind a socket holds."""
    reader, writer = await asyncio.open_unix_connection(str(control))
    answer = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()
    held: dict[str, int] = json.loads(answer)
    return held


def serve() -> None:
    """Serve, and answer for as long as it serves."""
    make_parts, run = service.make_parts, service.serve
    made: list[Parts] = []

    def make_and_keep(*args: Any, **kwargs: Any) -> Parts:
        made.append(make_parts(*args, **kwargs))
        return made[0]

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(held_in(made[0])).encode() + b"\n")
        writer.close()

    async def run_and_answer(settings: Settings, sock: socket.socket) -> None:
        answering = await asyncio.start_unix_server(answer, os.environ["CHAOS_CONTROL"])
        try:
            await run(settings, sock)
        finally:
            answering.close()
            await answering.wait_closed()

    with patch.object(service, "make_parts", make_and_keep), patch.object(service, "serve", run_and_answer):
        main(["serve"])


if __name__ == "__main__":
    serve()
