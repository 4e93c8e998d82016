"""A TCP proxy between the service and DynamoDB that counts the calls, and can hang, refuse and let go again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """A running proxy. `calls` counts by operation; while `open` is not set, nothing goes through."""

    upstream: int
    port: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    refusing: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request by request."""
        upstream_writer = None
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await reader.readexactly(_length(head))
                self.calls[_operation(head)] += 1
                if self.refusing:
                    return
                await self.open.wait()
                upstream_writer.write(head + body)
                answer = await upstream_reader.readuntil(b"\r\n\r\n")
                writer.write(answer + await upstream_reader.readexactly(_length(answer)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            if upstream_writer is not None:
                upstream_writer.transport.abort()


def _length(head: bytes) -> int:
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    return int(fields.get(b"content-length", b"0"))


def _operation(head: bytes) -> str:
    target = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"x-amz-target"))
    return target.decode().rpartition(".")[2]


@asynccontextmanager
async def proxy(endpoint: str) -> AsyncIterator[Proxy]:
    """A proxy before a DynamoDB."""
    made = Proxy(urlsplit(endpoint).port or 80)
    made.open.set()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.open.set()
        server.close()
        server.close_clients()
