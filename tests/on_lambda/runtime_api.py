"""A double of what Lambda puts around a function: the Runtime API, the Extensions API and a Function URL.

Every piece of a streamed answer is kept with the moment at which it arrived. What AWS's own emulator does instead is
to buffer it, so it can show nothing of this. Not doubled: IAM, billing, the bounds of size and bandwidth.

A streamed answer is a chunked POST: a JSON prelude (status, headers, cookies), eight NUL bytes, then the body. Classic
Lambda never has two invocations under way in one environment; that needs no enforcing, for a classic runtime asks for
the next only when it has answered. One that asks eight times at once (Managed Instances) gets eight.
"""

import asyncio
import json
import time
import uuid
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

RUNTIME = "/2018-06-01/runtime"
EXTENSION = "/2020-01-01/extension"
PRELUDE_END = b"\0" * 8
NAME = "streams"
ARN = f"arn:aws:lambda:eu-west-1:123456789012:function:{NAME}"
DOMAIN = "abcdefghijklmnop.lambda-url.eu-west-1.on.aws"
TRACE = "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1"
ADDRESS = "203.0.113.7"

type Fields = dict[str, str]


def url_event(
    path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, source_ip: str = ADDRESS
) -> dict[str, Any]:
    """The event that a Function URL makes of a request without a body (payload format 2.0)."""
    path, _, query = path.partition("?")
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "queryStringParameters": dict(parse_qsl(query, keep_blank_values=True)),
        "headers": {"host": DOMAIN, "x-forwarded-for": source_ip, "x-forwarded-proto": "https", **sent},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": DOMAIN.partition(".")[0],
            "domainName": DOMAIN,
            "domainPrefix": DOMAIN.partition(".")[0],
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": source_ip,
                "userAgent": sent.get("user-agent", "test"),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime()),
            "timeEpoch": int(time.time() * 1000),
        },
        "isBase64Encoded": False,
    }


@dataclass(frozen=True, slots=True)
class Piece:
    """What one HTTP chunk of the upload brought, and when, on the wall clock."""

    at: float
    data: bytes


class Invocation:
    """One event, and all that was answered to it."""

    def __init__(self, event: dict[str, Any], timeout: float) -> None:
        self.event = event
        self.id = str(uuid.uuid4())
        self.timeout = timeout
        self.deadline = 0.0
        """When Lambda cuts the answer, on the wall clock; known when the runtime has taken the event."""
        self.mode = ""
        self.prelude: dict[str, Any] = {}
        self.pieces: list[Piece] = []
        self.outcome: str | None = None
        """`ok`, `error`, `aborted` or `timeout`, when it is over."""
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        self._changed = asyncio.Event()
        self._read = 0
        self._rest = ""
        self._decoder = zlib.decompressobj(31)

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self.prelude["statusCode"])

    @property
    def headers(self) -> Fields:
        """The headers of the answer."""
        return {name.lower(): value for name, value in self.prelude["headers"].items()}

    @property
    def body(self) -> bytes:
        """What has arrived so far."""
        return b"".join(piece.data for piece in self.pieces)

    async def answered(self, seconds: float = 5) -> int:
        """Wait for the whole answer; gives its status."""
        await asyncio.wait_for(self.over.wait(), seconds)
        return self.status

    async def stream(self) -> AsyncIterator[bytes]:
        """The pieces that have not been asked for yet, as they come."""
        while True:
            while self._read < len(self.pieces):
                self._read += 1
                yield self.pieces[self._read - 1].data
            if self.over.is_set():
                return
            self._changed.clear()
            await self._changed.wait()

    async def until(self, name: str, seconds: float = 5) -> list[Fields]:
        """The events up to the next one of a name. Raises EOFError when the stream ends before it.

        What is gzip is read as it comes: a decoder that would have to wait for a later piece finds nothing.
        """
        found: list[Fields] = []
        async with asyncio.timeout(seconds):
            while True:
                block, separator, rest = self._rest.partition("\n\n")
                if not separator:
                    self._rest += self._decoded(await self._next_piece()).decode()
                    continue
                self._rest = rest
                fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
                if "event" in fields:
                    found.append(fields)
                    if fields["event"] == name:
                        return found

    def _decoded(self, data: bytes) -> bytes:
        return self._decoder.decompress(data) if self.headers.get("content-encoding") == "gzip" else data

    def add(self, data: bytes) -> None:
        """A piece has arrived."""
        self.pieces.append(Piece(time.time(), data))
        self._changed.set()

    def end(self, outcome: str) -> None:
        """It is over; later calls change nothing."""
        if self.outcome is None:
            self.outcome = outcome
            for event in (self.begun, self.over, self._changed):
                event.set()

    async def _next_piece(self) -> bytes:
        async for data in self.stream():
            return data
        raise EOFError("the stream has ended")


class Gone(Exception):
    """The other side has left in the middle."""


@dataclass
class Request:
    """A request whose body is still being read."""

    method: str
    target: str
    headers: Fields
    reader: asyncio.StreamReader
    trailers: Fields = field(default_factory=dict)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body: one piece for each chunk."""
        if self.headers.get("transfer-encoding") != "chunked":
            yield await self.reader.readexactly(int(self.headers.get("content-length", "0")))
            return
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        self.trailers.update(await _fields(self.reader))

    async def body(self) -> bytes:
        """The whole body."""
        return b"".join([data async for data in self.pieces()])


async def _fields(reader: asyncio.StreamReader) -> Fields:
    lines = iter((await _until_empty_line(reader)).decode("latin-1").split("\r\n"))
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


async def _until_empty_line(reader: asyncio.StreamReader) -> bytes:
    read = b""
    while not read.endswith(b"\r\n\r\n") and read != b"\r\n":
        read += await reader.readuntil(b"\r\n")
    return read


class Server:
    """A small HTTP/1.1 server on the loopback address: `handle` is called for each request."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Let everybody go."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def handle(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while True:
                method, target, _ = (await reader.readuntil(b"\r\n")).decode("latin-1").split(" ")
                await self.handle(Request(method, target, await _fields(reader), reader), writer)
                await writer.drain()
        except (Gone, asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


def response(status: int, document: object = None, headers: Mapping[str, str] | None = None) -> bytes:
    """A JSON answer."""
    body = json.dumps(document).encode()
    fields = {"content-type": "application/json", **(headers or {}), "content-length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode("latin-1") + body


class RuntimeApi(Server):
    """What one execution environment talks to. `expired` is told of an invocation that has reached its deadline."""

    def __init__(self, timeout: float, expired: Callable[[Invocation], None]) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        """The runtime has asked for its first event: it is ready."""
        self.asking = 0
        self.most_asking = 0
        self._timeout = timeout
        self._expired = expired
        self._queue: deque[Invocation] = deque()
        self._queued = asyncio.Condition()
        self._under_way: dict[str, Invocation] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._extensions: dict[str, list[str]] = {}
        self._shutdown = asyncio.Event()

    async def invoke(self, event: dict[str, Any]) -> Invocation:
        """Queue an event; returns as soon as the answer begins."""
        invocation = await self.queue(event)
        await asyncio.wait_for(invocation.begun.wait(), 10)
        return invocation

    async def queue(self, event: dict[str, Any]) -> Invocation:
        """Queue an event."""
        invocation = Invocation(event, self._timeout)
        async with self._queued:
            self._queue.append(invocation)
            self._queued.notify()
        return invocation

    def environment(self) -> dict[str, str]:
        """The variables that Lambda sets."""
        return {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.port}",
            "AWS_LAMBDA_FUNCTION_NAME": NAME,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{NAME}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[1]0123456789abcdef",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "LAMBDA_TASK_ROOT": "/var/task",
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
        }

    def shut_down(self) -> bool:
        """Tell the extensions of the end; whether one of them had asked to be told."""
        self._shutdown.set()
        return any("SHUTDOWN" in events for events in self._extensions.values())

    async def handle(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """One call of the runtime's or of an extension's."""
        match request.target.removeprefix(RUNTIME).removeprefix(EXTENSION).split("/")[1:]:
            case ["invocation", "next"]:
                await self._next(request, writer)
            case ["event", "next"]:
                await self._extension_next(request, writer)
            case ["register"]:
                writer.write(await self._register(request))
            case ["invocation", id_, what] if id_ in self._under_way:
                await self._answer(self._under_way[id_], request, streamed=what == "response")
                writer.write(response(202, {"status": "OK"}))
            case _:
                await request.body()
                writer.write(response(400, {"errorType": "InvalidRequest"}))

    async def _next(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.asking += 1
        self.most_asking = max(self.most_asking, self.asking)
        self.asked.set()
        try:
            invocation = await self._take(request)
        finally:
            self.asking -= 1
        invocation.deadline = time.time() + invocation.timeout
        self._under_way[invocation.id] = invocation
        loop = asyncio.get_running_loop()
        self._timers[invocation.id] = loop.call_later(invocation.timeout, self._expire, invocation)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Deadline-Ms": str(int(invocation.deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": ARN,
            "Lambda-Runtime-Trace-Id": TRACE,
        }
        writer.write(response(200, invocation.event, headers))

    async def _take(self, request: Request) -> Invocation:
        """The next of the queue; raises Gone when whoever asked for it leaves before."""
        gone = asyncio.ensure_future(request.reader.read(1))
        taken = asyncio.ensure_future(self._from_queue())
        try:
            await asyncio.wait({gone, taken}, return_when=asyncio.FIRST_COMPLETED)
            if not taken.done():
                raise Gone
            return taken.result()
        finally:
            for waiting in (gone, taken):
                waiting.cancel()
            await asyncio.gather(gone, taken, return_exceptions=True)

    async def _from_queue(self) -> Invocation:
        async with self._queued:
            await self._queued.wait_for(lambda: bool(self._queue))
            return self._queue.popleft()

    async def _answer(self, invocation: Invocation, request: Request, *, streamed: bool) -> None:
        invocation.mode = request.headers.get("lambda-runtime-function-response-mode", "buffered")
        try:
            if streamed and invocation.mode == "streaming":
                await self._read_stream(invocation, request)
            else:
                invocation.prelude = json.loads(await request.body())
        except (asyncio.IncompleteReadError, ConnectionError):
            self._finish(invocation, "aborted")
            raise
        failed = not streamed or "lambda-runtime-function-error-type" in request.trailers
        self._finish(invocation, "error" if failed else "ok")

    async def _read_stream(self, invocation: Invocation, request: Request) -> None:
        head: bytes | None = b""
        async for data in request.pieces():
            if head is None:
                invocation.add(data)
                continue
            head += data
            prelude, separator, rest = head.partition(PRELUDE_END)
            if separator:
                invocation.prelude = json.loads(prelude)
                invocation.begun.set()
                head = None
                if rest:
                    invocation.add(rest)

    def _expire(self, invocation: Invocation) -> None:
        self._finish(invocation, "timeout")
        self._expired(invocation)

    def _finish(self, invocation: Invocation, outcome: str) -> None:
        self._under_way.pop(invocation.id, None)
        timer = self._timers.pop(invocation.id, None)
        if timer is not None:
            timer.cancel()
        invocation.end(outcome)

    async def _register(self, request: Request) -> bytes:
        identifier = str(uuid.uuid4())
        self._extensions[identifier] = list(json.loads(await request.body()).get("events", []))
        document = {"functionName": NAME, "functionVersion": "1", "handler": ""}
        return response(200, document, {"Lambda-Extension-Identifier": identifier})

    async def _extension_next(self, request: Request, writer: asyncio.StreamWriter) -> None:
        events = self._extensions.get(request.headers.get("lambda-extension-identifier", ""), [])
        await self._shutdown.wait()
        if "SHUTDOWN" not in events:
            await asyncio.Event().wait()  # it has not asked for it
        writer.write(response(200, {"eventType": "SHUTDOWN", "shutdownReason": "spindown"}))


class FunctionUrl(Server):
    """HTTP in, one invocation for each request, streamed HTTP out.

    As on AWS a client that leaves does not touch the invocation: it goes on, and is billed, to its end.
    """

    def __init__(self, api: RuntimeApi) -> None:
        super().__init__()
        self._api = api

    async def handle(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Relay one request."""
        await request.body()
        own = {"connection", "transfer-encoding", "content-length", "host"}
        headers = {name: value for name, value in request.headers.items() if name not in own}
        invocation = await self._api.invoke(url_event(request.target, method=request.method, headers=headers))
        if "statusCode" not in invocation.prelude:
            writer.write(response(502, {"Message": "Internal Server Error"}))
            return
        hop = {"content-length", "transfer-encoding", "connection"}
        fields = {name: value for name, value in invocation.headers.items() if name not in hop}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {invocation.status} Status\r\n{head}transfer-encoding: chunked\r\n\r\n".encode())
        if request.method == "HEAD":
            return
        async for data in invocation.stream():
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
        if invocation.outcome != "ok":
            raise Gone
        writer.write(b"0\r\n\r\n")
