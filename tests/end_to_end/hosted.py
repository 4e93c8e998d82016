"""The service as a process over a source in memory, that can be asked what it holds and told what to send.

`python -m tests.end_to_end.hosted` runs `quartsse.service.serve` as `quartsse serve` does, with its signals, logs and
exit status; `HOSTED_CONTROL` names the UNIX socket that it is told things over. `Hosted` is its side in a test.
"""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from quartsse import service
from quartsse.feed.source import Batch, MemorySource
from quartsse.hub.events import Event
from quartsse.settings import settings_from
from quartsse.telemetry.logs import log_to_stderr
from quartsse.web.parts import Parts
from quartsse.web.server import event_loop, listening_socket
from quartsse.web.stream import Stream, empty_context
from tests.served import Served
from tests.web.serving import item

TICKERS = 200
MODULE = "tests.end_to_end.hosted"
SENT_AT = b'{"sent":'
"""What the data of an event that was asked for begins with; then the monotonic clock, in ns, and padding."""


class Hosted(Served):
    """A hosted service, and the questions that it answers."""

    def __init__(self, settings: Mapping[str, str], directory: Path) -> None:
        self._control = str(directory / f"control-{id(self)}")
        own = {"SENTIMENTS_TABLE": "none", "HOSTED_CONTROL": self._control}
        super().__init__({**own, **settings}, directory / f"hosted-{id(self)}.log", program=("-m", MODULE))

    async def ask(self, *command: object) -> Any:
        """Tell it something; gives its answer."""
        reader, writer = await asyncio.open_unix_connection(self._control)
        writer.write(" ".join(map(str, command)).encode() + b"\n")
        answer = await asyncio.wait_for(reader.readline(), 30)
        writer.close()
        return json.loads(answer)

    async def held(self) -> dict[str, int]:
        """What it holds: tasks, streams, slots, subscriptions, descriptors, and its memory in bytes."""
        held: dict[str, int] = await self.ask("held")
        return held

    async def send(self, count: int, size: int = 1024, seconds: float = 0.0) -> None:
        """Let it send so many events of so many bytes, spread over some seconds."""
        await self.ask("send", count, size, seconds)

    async def send_totals(self, count: int, tags: int = 200) -> None:
        """Let it send so many `metrics`, one after another, with so many tickers; `total` counts them from 1."""
        await self.ask("totals", count, tags)

    async def most_unsent(self) -> int:
        """The most bytes that have been kept for one reader at any moment when something was sent."""
        return int(await self.ask("unsent"))

    async def put_items(self, count: int, seconds: float = 0.0) -> None:
        """Put so many items into the source, of 200 tickers, spread over some seconds; returns at once."""
        await self.ask("put", count, seconds)

    async def say(self, source: str) -> None:
        """Put an item into the source that has this text as its own source."""
        await self.ask("say", json.dumps(source).encode().hex())

    @property
    def memory(self) -> int:
        """Its memory in bytes, without asking it."""
        return _memory(self.pid)

    async def break_feed(self) -> None:
        """Let its next read meet a bug."""
        await self.ask("break")

    def wait(self, seconds: float) -> int:
        """Wait for the end that it comes to by itself; its exit status."""
        return self._process.wait(seconds)

    def opened(self) -> list[dict[str, Any]]:
        """What its log says of streams that have begun."""
        return self._logged("stream opened")

    def closings(self) -> list[dict[str, Any]]:
        """What its log says of streams that are over."""
        return self._logged("stream closed")

    def _logged(self, message: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.output() if line.startswith("{"))
        return [line for line in lines if line["message"] == message]


class BreakableSource(MemorySource):
    """A source in memory that has a bug, once it is told to."""

    broken = False

    async def read(self, low: float, *, whole: bool) -> AsyncIterator[Batch]:
        if self.broken:
            raise ZeroDivisionError("a bug in the feed")
        async for batch in super().read(low, whole=whole):
            yield batch


class Control:
    """Does what the test says."""

    def __init__(self, parts: Parts, source: BreakableSource) -> None:
        self._parts = parts
        self._source = source
        self._sent = 0
        self._most_unsent = 0
        self._putting: asyncio.Task[None] | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question."""
        command, *words = (await reader.readline()).decode().split()
        answer: object = None
        if command == "held":
            answer = self._held()
        elif command == "options":
            answer = [_options(stream) for stream in self._parts.streams.open]
        elif command == "send":
            await self._send(int(words[0]), int(words[1]), float(words[2]))
        elif command == "totals":
            await self._send_totals(int(words[0]), int(words[1]))
        elif command == "put":
            self._putting = asyncio.create_task(self._put(int(words[0]), float(words[1])))
        elif command == "unsent":
            answer = self._most_unsent
        elif command == "say":
            said = json.loads(bytes.fromhex(words[0]))
            self._source.put(replace(item("hosted:said", "LOUD", at=time.time()), source=said))
        elif command == "break":
            self._source.broken = True
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    def _held(self) -> dict[str, int]:
        return held_in(self._parts) | {"memory": _memory(os.getpid())}

    async def _send(self, count: int, size: int, seconds: float) -> None:
        began = time.monotonic()
        for number in range(count):
            self._sent += 1
            data = SENT_AT + b"%d" % time.monotonic_ns() + b',"pad":"'
            data += b"x" * (size - len(data) - 2) + b'"}'
            self._parts.hub.publish([Event("sentiment_update", f"n{self._sent}-x", data, "LOUD")])
            await asyncio.sleep(max(0.0, began + seconds * (number + 1) / count - time.monotonic()))
            self._look()

    async def _put(self, count: int, seconds: float) -> None:
        began = time.monotonic()
        for number in range(count):
            self._source.put(item(f"hosted:{number}", f"T{number % TICKERS}", at=time.time()))
            if seconds:
                await asyncio.sleep(max(0.0, began + seconds * (number + 1) / count - time.monotonic()))

    async def _send_totals(self, count: int, tags: int) -> None:
        totals = self._parts.poller.window.metrics(time.time())
        by_tag = {f"TICKER{number}": number for number in range(tags)}
        for number in range(1, count + 1):
            changed = totals.model_copy(update={"total": number, "by_tag": by_tag})
            self._parts.hub.publish([], self._parts.hub.event("metrics", changed))
            await asyncio.sleep(0.001)

    def _look(self) -> None:
        """Note the most that is kept for one reader: in the hub, and in its transport."""
        for stream in self._parts.streams.open:
            waiting = 0 if stream._subscription is None else stream._subscription.waiting_bytes
            wire = stream._wire
            if wire is not None and wire._transport is not None:
                waiting += wire._transport.get_write_buffer_size()
            self._most_unsent = max(self._most_unsent, waiting)


def held_in(parts: Parts) -> dict[str, int]:
    """What a service holds, asked within its process by a task of its own."""
    return {
        "tasks": len(asyncio.all_tasks()) - 1,  # but for the one that answers
        "streams": len(parts.streams.open),
        "slots": parts.slots.taken,
        "subscriptions": len(parts.hub.subscriptions),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _options(stream: Stream) -> dict[str, int] | None:
    """How the connection of a stream that was handed over is set."""
    wire = stream._wire
    if wire is None or wire._transport is None:
        return None
    sock = wire._transport.get_extra_info("socket")
    return {
        "SO_SNDBUF": sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        "SO_KEEPALIVE": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "TCP_NODELAY": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        "TCP_USER_TIMEOUT": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    }


async def serve() -> None:
    """Run the service, and listen to what the test says."""
    settings, source, make_parts = settings_from(), BreakableSource(), service.make_parts
    log_to_stderr(settings.log_level)
    controls: list[asyncio.Server] = []

    async def listen(control: Control) -> None:
        controls.append(await asyncio.start_unix_server(control.answer, os.environ["HOSTED_CONTROL"]))

    def make_and_keep(*args: Any, **kwargs: Any) -> Parts:
        parts = make_parts(*args, **kwargs)
        listening.append(
            asyncio.get_running_loop().create_task(listen(Control(parts, source)), context=empty_context())
        )
        return parts

    listening: list[asyncio.Task[None]] = []
    with (
        patch.object(service, "_source", lambda *_: lambda _: source),
        patch.object(service, "make_parts", make_and_keep),
    ):
        try:
            await service.serve(settings, listening_socket(settings.host, settings.port))
        finally:
            for control in controls:
                control.close()
                await control.wait_closed()


if __name__ == "__main__":
    with event_loop(fast="--asyncio" not in sys.argv) as runner:
        runner.run(serve())
