"""A proxy between the feed and DynamoDB that does what networks and DynamoDB do on bad days, over real sockets."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """A request on its way to DynamoDB. `number`: how many of its operation were there before it."""

    operation: str
    body: dict[str, Any]
    raw: bytes
    number: int

    @property
    def label(self) -> object:
        """The partition that a Query asks for, if it is one."""
        return self.body.get("ExpressionAttributeValues", {}).get(":label", {}).get("S")

    @property
    def goes_on(self) -> bool:
        """Whether it asks for a page behind the first."""
        return "ExclusiveStartKey" in self.body


class BrokenOff(Exception):
    """What a fault raises to break the connection off without an answer."""


type Fault = Callable[[Request], Coroutine[Any, Any, bytes | None]]
"""The answer to a request in DynamoDB's stead; None lets it pass."""


def answer(status: int, body: bytes) -> bytes:
    """The bytes of an answer."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def refusing(code: str, message: str) -> Fault:
    """Answers every request with an error, as DynamoDB words them."""

    async def fault(_: Request) -> bytes:
        return answer(400, json.dumps({"__type": code, "message": message}).encode())

    return fault


throttling = refusing(
    "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "The level of configured provisioned throughput for the table was exceeded. "
    "Consider increasing your provisioning level with the UpdateTable API.",
)
access_denied = refusing(
    "com.amazon.coral.service#AccessDeniedException",
    "User: arn:aws:sts::123456789012:assumed-role/secret/task is not authorized to perform: dynamodb:Query on "
    "resource: arn:aws:dynamodb:eu-west-1:123456789012:table/news/index/by_sentiment",
)
missing_table = refusing("com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "Requested resource not found")
missing_index = refusing(
    "com.amazon.coral.validate#ValidationException", "The table does not have the specified index: by_sentiment"
)


async def server_error(_: Request) -> bytes:
    """DynamoDB has a bad day."""
    return answer(500, b'{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"oops"}')


async def hanging(_: Request) -> bytes:
    """No answer, ever."""
    await asyncio.Event().wait()
    raise AssertionError


async def breaking(_: Request) -> bytes:
    """The connection breaks after the request."""
    raise BrokenOff


async def half_an_answer(_: Request) -> bytes:
    """The connection breaks in the middle of the answer."""
    return answer(200, b'{"Count": 0, "Items": [], "ScannedCount": 0}')[:-20]


async def someone_else(_: Request) -> bytes:
    """A captive portal."""
    return answer(200, b"<html>Please log in</html>")


async def someone_s_json(_: Request) -> bytes:
    """Something else that speaks JSON."""
    return answer(200, b'{"login": "https://portal.example/"}')


async def another_language(_: Request) -> bytes:
    """A captive portal whose page is not even UTF-8."""
    return answer(200, "<html>Bitte anmelden, schöne Grüße</html>".encode("latin-1"))


async def gibberish(_: Request) -> bytes:
    """A proxy that fails, and says so in no known way."""
    return answer(502, b"\xff\xfe[]")


def later_pages(fault: Fault) -> Fault:
    """A fault that only pages behind the first meet."""

    async def some(request: Request) -> bytes | None:
        return await fault(request) if request.goes_on else None

    return some


def every(nth: int, fault: Fault) -> Fault:
    """A fault that every nth request meets."""

    async def some(request: Request) -> bytes | None:
        return await fault(request) if request.number % nth == 0 else None

    return some


def of_label(label: str, fault: Fault) -> Fault:
    """A fault that only queries of one partition meet."""

    async def some(request: Request) -> bytes | None:
        return await fault(request) if request.label == label else None

    return some


class FaultProxy:
    """Passes requests on to DynamoDB, unless `fault` has another idea. Counts what passes by."""

    def __init__(self, upstream: str) -> None:
        address = urlsplit(upstream)
        self._upstream = (address.hostname or "", address.port or 80)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._deaf: set[asyncio.Task[None]] = set()
        self._port = 0
        self.fault: Fault | None = None
        self.rewrite: Callable[[bytes], bytes] = bytes
        """Changes what DynamoDB has answered, head and all."""
        self.half_open = False
        """Lets every new connection be half-open from its beginning."""
        self.requests = 0
        self.under_way = 0
        self.most_under_way = 0

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    async def accept(self) -> None:
        """Listen (again, at the same port)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Stop listening and break all connections: connects are refused from now on."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def lose_connections(self) -> None:
        """Let every open connection be half-open: its other side takes bytes and never says anything again."""
        self._deaf |= self._connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        if self.half_open:
            self._deaf.add(task)
        try:
            while request := await self._request(reader):
                fault = hanging if task in self._deaf else self.fault
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                try:
                    given = await _unless_it_leaves(reader, fault(request)) if fault else None
                    writer.write(given if given is not None else await self._pass_on(request.raw))
                finally:
                    self.under_way -= 1
                await writer.drain()
                if given is not None and not _whole(given):
                    break
        except (BrokenOff, ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            self._deaf.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> Request | None:
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        self.requests += 1
        operation = fields.get("x-amz-target", ".").split(".")[1]
        return Request(operation, json.loads(body or b"{}"), head + body, self.requests)

    async def _pass_on(self, raw: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            head, _, body = raw.partition(b"\r\n\r\n")
            writer.write(head + b"\r\nConnection: close\r\n\r\n" + body)
            given = await reader.read()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        return (
            self.rewrite(given)
            .replace(b"Connection: close", b"X-Was: closed", 1)
            .replace(b"connection: close", b"x-was: closed")
        )


async def _unless_it_leaves(reader: asyncio.StreamReader, answering: Coroutine[Any, Any, bytes | None]) -> bytes | None:
    """An answer, or BrokenOff as soon as nobody waits for it any more."""
    given, left = asyncio.create_task(answering), asyncio.create_task(reader.read(1))
    try:
        await asyncio.wait({given, left}, return_when=asyncio.FIRST_COMPLETED)
        if not given.done():
            raise BrokenOff
        return given.result()
    finally:
        given.cancel()
        left.cancel()
        await asyncio.gather(given, left, return_exceptions=True)


def _whole(given: bytes) -> bool:
    head, _, body = given.partition(b"\r\n\r\n")
    return f"Content-Length: {len(body)}".encode() in head


@asynccontextmanager
async def fault_proxy(upstream: str) -> AsyncGenerator[FaultProxy]:
    """A proxy in front of a DynamoDB, for as long as the block lasts."""
    proxy = FaultProxy(upstream)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.refuse()
