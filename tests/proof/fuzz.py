"""Malformed requests by the thousand: `python -m tests.proof.fuzz [COUNT] [SEED]`.

Each is made from the corpus by a few changes that its seed decides, and sent as it is over a connection of its own,
in HTTP/1.1 or as the frames of HTTP/2. None of them may be answered with a 5xx that the contract does not name, or
write a traceback to the log. The first one that does is printed as a line for the corpus.
"""

import ast
import asyncio
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Decoder
from hpack.exceptions import HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame

from tests.end_to_end.hosted import Hosted

CORPUS = Path(__file__).with_name("corpus.txt")
AT_ONCE = 60
BATCH = 250
"""After so many the log is read; if there is a traceback in it, each of them is sent again, alone."""
BEGINS, GOES_ON = 0.7, 0.03
"""Seconds in which an answer begins, where one comes (a request that was cut short gets none), and goes on."""
SETTINGS = {
    "SSE_MAX_CONNECTIONS": "1000",
    "SSE_MAX_CONNECTIONS_PER_USER": "1000",
    "SSE_AUTH": "header",
    "SSE_TICKET_SECRET": "s" * 32,
    "SSE_DASHBOARD": "1",
    "SSE_METRICS": "prometheus",
    "SSE_CORS_ORIGINS": "https://a.example",
    "SSE_TRUSTED_HOPS": "1",
    "SSE_POLL_INTERVAL": "0.5",
    "SSE_HEARTBEAT_INTERVAL": "2",
}

NAMED = {
    501: (b"are not enabled on this server", b""),  # and h11's own, for a transfer coding that nobody knows
    503: (b"Feed is starting", b"Connection limit reached"),
}
"""The 5xx that a request may be answered with, and what their bodies say."""

type Change = Callable[[random.Random, bytes, Sequence[bytes]], bytes]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_TOKENS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"%00", b"%0d%0a", b"%", b"?", b"&", b"=", b"#", b"/..", b"\xff",
    b"\xc3\xa9", b"\xed\xa0\x80", b"HTTP/1.1", b"HTTP/2.0", b"0\r\n\r\n", b"Host: localhost\r\n", b"Host: x\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"\r\n\r\nGET / HTTP/1.1\r\n",
    b"A" * 300, b"9" * 40, b"../" * 20, b"*" * 60, b"X: " + b"y" * 9000 + b"\r\n",
)  # fmt: skip


def corpus() -> list[bytes]:
    """The requests that are kept in the repository."""
    lines = CORPUS.read_text(encoding="ascii").splitlines()
    return [_bytes_of(line) for line in lines if line and not line.startswith("# ")]


def line_of(request: bytes) -> str:
    """A request as a line of the corpus."""
    return repr(request)[2:-1].replace("\\'", "'") if b'"' in request else repr(request)[2:-1]


def _bytes_of(line: str) -> bytes:
    quoted = line.replace('"', '\\"')
    made: bytes = ast.literal_eval(f'b"{quoted}"')
    return made


# Changes


def _flip(chance: random.Random, text: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(text))
    return text[:at] + bytes([text[at] ^ (1 << chance.randrange(8))]) + text[at + 1 :]


def _cut_out(chance: random.Random, text: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(text))
    return text[:at] + text[at + chance.choice((1, 2, 8, 64)) :]


def _insert(chance: random.Random, text: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(_TOKENS) + text[at:]


def _repeat(chance: random.Random, text: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(text))
    piece = text[at : at + chance.choice((1, 4, 32, 200))]
    return text[:at] + piece * chance.choice((2, 3, 50)) + text[at + len(piece) :]


def _graft(chance: random.Random, text: bytes, others: Sequence[bytes]) -> bytes:
    other = chance.choice(others)
    return text[: chance.randrange(len(text) + 1)] + other[chance.randrange(len(other)) :]


def _noise(chance: random.Random, text: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.randbytes(chance.choice((1, 9, 40))) + text[at:]


def _another_line(chance: random.Random, text: bytes, others: Sequence[bytes]) -> bytes:
    lines, theirs = text.split(b"\r\n"), chance.choice(others).split(b"\r\n")
    lines.insert(chance.randrange(len(lines)), chance.choice(theirs))
    return b"\r\n".join(lines)


CHANGES: tuple[Change, ...] = (_flip, _cut_out, _insert, _repeat, _graft, _noise, _another_line)


def malformed(seed: int, known: Sequence[bytes]) -> bytes:
    """The request of a seed: always the same."""
    chance = random.Random(seed)
    if chance.random() < 0.25:
        return _frames(chance)
    made = chance.choice(known)
    for _ in range(chance.randrange(5)):
        made = chance.choice(CHANGES)(chance, made, known) or b"\r\n"
    return made


def _frames(chance: random.Random) -> bytes:
    """HTTP/2: a connection's beginning and a few requests, of whose frames some are changed, doubled or swapped."""
    connection = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    connection.initiate_connection()
    begin = connection.data_to_send()
    frames = []
    for stream in range(1, 2 * chance.randrange(1, 5), 2):
        connection.send_headers(stream, _h2_headers(chance), end_stream=chance.random() < 0.9)
        frames.append(connection.data_to_send())
    if chance.random() < 0.5:
        frames.insert(chance.randrange(len(frames) + 1), _made_up_frame(chance))
    if chance.random() < 0.2:
        chance.shuffle(frames)
    return begin + b"".join(_flip(chance, one, ()) if chance.random() < 0.1 else one for one in frames)


def _h2_headers(chance: random.Random) -> list[tuple[str, str]]:
    """Those of a request, of which one may be changed to something else, left out, or come too late."""
    paths = (
        "/api/v2/stream?tickers=*",
        "/api/v2/stream/status",
        "/api/v2/stream/snapshot",
        "/health",
        "/static/quartsse.js",
    )
    headers = [
        (":method", chance.choice(("GET", "GET", "GET", "HEAD", "POST", "OPTIONS"))),
        (":path", chance.choice(paths)),
        (":scheme", "http"),
        (":authority", "localhost"),
        ("last-event-id", chance.choice(("evt_a.abcdefgh.1.1", "x" * 5000))),
    ]
    at = chance.randrange(3 * len(headers))
    if at < len(headers):
        odd = ("", "*", "%00", "/?\x7f", "\r\n", "CONNECT", "evil.example", "https")
        extra = ("connection", "te", "transfer-encoding", "content-length", "X-Upper", "host", ":late", "x-user-id")
        headers[at : at + chance.randrange(2)] = [
            (headers[at][0], chance.choice(odd))
            if chance.random() < 0.6
            else (chance.choice(extra), chance.choice(odd))
        ]
    return headers


def _made_up_frame(chance: random.Random) -> bytes:
    payload = chance.randbytes(chance.choice((0, 4, 5, 8, 30)))
    kind, flags = chance.choice((*range(10), 255)), chance.choice((0, 1, 4, 5, 8, 0x20, 255))
    length = len(payload) if chance.random() < 0.8 else chance.choice((0, 16_385, 2**24 - 1))
    stream = chance.choice((0, 1, 2, 3, 7, 2**31 - 1))
    return length.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


# Sending


async def answer_to(port: int, request: bytes) -> bytes:
    """The beginning of what comes back, if anything does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with suppress(OSError, TimeoutError):
        writer.write(request)
        while len(answer) < 2000:
            piece = await asyncio.wait_for(reader.read(4096), GOES_ON if answer else BEGINS)
            if not piece:
                break
            answer += piece
    writer.transport.abort()
    return answer


def statuses(answer: bytes) -> list[int]:
    """The statuses in an answer, whichever version it is in."""
    if answer.startswith(b"HTTP/1.1 101"):  # switched: what follows the head is HTTP/2, or a WebSocket
        return [101, *_h2_statuses(answer.partition(b"\r\n\r\n")[2])]
    return [int(status) for status in _STATUS.findall(answer)] or _h2_statuses(answer)


def _h2_statuses(answer: bytes) -> list[int]:
    decoder, found = Decoder(), []
    with suppress(HyperframeError, HPACKError, ValueError):
        while len(answer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(answer[:9]))
            frame.parse_body(memoryview(answer[9 : 9 + length]))
            if isinstance(frame, HeadersFrame | ContinuationFrame):
                fields = dict(decoder.decode(frame.data, raw=True))
                found += [int(fields[b":status"])] if b":status" in fields else []
            answer = answer[9 + length :]
    return found


def is_a_failure(answer: bytes) -> bool:
    """Whether an answer has a 5xx that the contract does not name."""
    wrong = [status for status in statuses(answer) if status >= 500]
    return any(not any(words in answer for words in NAMED.get(status, ())) for status in wrong)


@dataclass
class Findings:
    """What came of so many requests: how often which status was the answer (0: none), and which did harm."""

    answers: Counter[int] = field(default_factory=Counter)
    harmful: list[tuple[bytes, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What did harm, as lines for the corpus."""
        return [f"{why}\n{line_of(request)}" for request, why in self.harmful]


async def fuzz(hosted: Hosted, count: int, seed: int) -> Findings:
    """Send so many malformed requests, from this seed on. Stops after the first batch that does harm."""
    findings, known = Findings(), corpus()
    for first in range(seed, seed + count, BATCH):
        batch = [malformed(one, known) for one in range(first, min(first + BATCH, seed + count))]
        before = len(_complaints(hosted))
        await _send(hosted, batch, findings)
        if hosted.status is not None or len(_complaints(hosted)) > before:
            findings.harmful.append(await _culprit(hosted, batch))
        if findings.harmful:
            break
    return findings


async def _send(hosted: Hosted, batch: Sequence[bytes], findings: Findings) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(request: bytes) -> None:
        async with places:
            answer = await answer_to(hosted.port, request)
        findings.answers.update(statuses(answer)[:1] or [0])
        if is_a_failure(answer):
            findings.harmful.append((request, f"answered with {answer[:300]!r}"))

    await asyncio.gather(*(one(request) for request in batch))
    await asyncio.sleep(0.1)  # what is still being done for them has its moment to fail


async def _culprit(hosted: Hosted, batch: Sequence[bytes]) -> tuple[bytes, str]:
    """Which request of a batch it was that the log complains of."""
    complaint = "\n".join(_complaints(hosted)[-5:]) or f"the process ended with {hosted.status}"
    for request in batch:
        before = len(_complaints(hosted))
        with suppress(OSError):
            await answer_to(hosted.port, request)
        await asyncio.sleep(0.02)
        if hosted.status is not None or len(_complaints(hosted)) > before:
            return request, complaint
    return b"", f"one of {len(batch)} together, and none alone: {complaint}"


def _complaints(hosted: Hosted) -> list[str]:
    """The lines of the log that nobody who asks for something should be able to cause: all that are no records of ours
    at a level that is harmless, and so whatever Python writes itself.
    """
    harmless = ('"level": "INFO"', '"level": "WARNING"')
    return [line for line in hosted.output() if not any(level in line for level in harmless) or '"exception"' in line]


def main(count: int = 10_000, seed: int = 1) -> int:
    """Fuzz a service that is started for it; the exit status."""
    with TemporaryDirectory() as directory:
        hosted = Hosted(SETTINGS, Path(directory))
        try:
            hosted.wait_until_healthy()
            findings = asyncio.run(fuzz(hosted, count, seed))
        finally:
            hosted.kill()
    print(*findings.lines(), sep="\n")
    print(
        f"{findings.answers.total()} requests from seed {seed} on, answered with {dict(findings.answers.most_common())}"
    )
    return bool(findings.harmful)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
