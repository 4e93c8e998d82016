"""The stream: what it does when something goes wrong."""

import asyncio
import ipaddress
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from quartsse.client import (
    ConnectionFailed,
    EventTooLarge,
    GaveUp,
    ServerEvent,
    State,
    Stream,
    StreamRefused,
    stream,
)
from tests.adversary import Adversary, Ending, Seen, Step, block, chunk, chunked, gzipped, head, singly
from tests.client.pieces import CHUNKED
from tests.client.reading import FULL, ONE, REFUSED, THREE, TWO, Instant, reading, take


async def test_a_stream_goes_on_over_connections_from_where_it_stopped() -> None:
    async with reading([head(), ONE], [head(), TWO + b"data: lost\n"], [head(), THREE]) as (events, server):
        assert await take(events, 3) == ["1", "2", "3"]
    assert [seen.last_event_id for seen in server.requests] == ["", "a", "b"]


async def test_a_stream_says_who_it_is_and_what_it_wants() -> None:
    async with Adversary([head(), ONE]) as server:
        events = stream(server.url + "?tickers=OLD&x=1", tickers=["AAPL", "brk.b"], last_event_id="evt_ü.1")
        async with events:
            assert await take(events, 1) == ["1"]
        async with stream(server.url, tickers="*", headers={"Accept": "text/event-stream, */*"}) as events:
            await take(events, 1)
    first, second = server.requests
    assert first.target == "/stream?x=1&tickers=AAPL,brk.b"
    assert first.last_event_id == "evt_ü.1"
    assert first.headers["accept"] == "text/event-stream"
    assert first.headers["cache-control"] == "no-store"
    assert "accept-encoding" not in first.headers
    assert second.target == "/stream?tickers=*"
    assert second.headers["accept"] == "text/event-stream, */*"
    assert "last-event-id" not in second.headers


async def test_headers_can_be_asked_for_anew_each_time() -> None:
    tokens = iter(["first", "second"])

    async def headers() -> Mapping[str, str]:
        return {"Authorization": f"Bearer {next(tokens)}"}

    options = Instant().options()
    async with Adversary([head(), ONE]) as server, stream(server.url, headers=headers, options=options) as events:
        await take(events, 2)
    assert [seen.headers["authorization"] for seen in server.requests] == ["Bearer first", "Bearer second"]


async def test_where_a_stream_stands_is_told() -> None:
    states: list[State] = []
    body = b'{"detail":"No"}'
    refusal = head("404 Not Found", Content_Length=str(len(body))) + body
    async with reading([FULL], [head(), ONE], [refusal], on_state=states.append) as (events, _):
        await take(events, 1)
        with pytest.raises(StreamRefused):
            await take(events, 1)
    assert states == [
        State("connecting", 1),
        State("waiting", 2, "unavailable with 503: Full, sorry", 3.0),
        State("connecting", 2),
        State("open", 2),
        State("closed", 1, "ended by the server"),
        State("waiting", 1, "ended by the server", 3.0),
        State("connecting", 1),
        State("refused", 1, "refused with 404: No"),
    ]


async def test_waits_double_up_to_a_bound_and_start_anew_after_an_event() -> None:
    time = Instant()
    async with reading(*REFUSED * 6, [head(), ONE], [FULL], [head(), TWO], time=time) as (events, _):
        assert await take(events, 2) == ["1", "2"]
    assert time.waits == [3, 6, 12, 24, 30, 30, 3, 3]


async def test_waits_are_jittered_in_full_and_never_nothing() -> None:
    for chance, expected in ((0.5, [1.5, 3, 6]), (0.0, [0.05, 0.05, 0.05])):
        time = Instant(chance)
        async with reading(*REFUSED * 3, [head(), ONE], time=time) as (events, _):
            await take(events, 1)
        assert time.waits == expected


async def test_the_servers_retry_is_what_waits_begin_with_also_on_later_connections() -> None:
    time = Instant()
    opening = [head(), b"retry: 100\n\n" + ONE]
    async with reading(opening, [head(), b"retry: no\n"], [FULL], [head(), TWO], time=time) as (events, _):
        await take(events, 2)
    assert time.waits == [0.1, 0.1, 0.2]


async def test_a_retry_of_nothing_does_not_hammer_the_server() -> None:
    time = Instant()
    async with reading([head(), b"retry: 0\n\n" + ONE], time=time) as (events, _):
        await take(events, 4)
    assert time.waits == [0.05] * 3


async def test_a_retry_of_ages_is_obeyed_for_an_hour() -> None:
    time = Instant()
    async with reading([head(), b"retry: 9999999999999999\n\n" + ONE], time=time) as (events, _):
        await take(events, 2)
    assert time.waits == [3600]


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable", "502 Bad Gateway"])
async def test_retry_after_is_obeyed_and_stretched_so_that_not_all_come_back_at_once(status: str) -> None:
    for chance, expected in ((0.0, 30), (1.0, 37.5)):
        time = Instant(chance)
        full = [head(status, Retry_After="30", Content_Length="0")]
        async with reading(full, [head(), ONE], time=time) as (events, _):
            assert await take(events, 1) == ["1"]
        assert time.waits == [expected]


async def test_retry_after_may_be_a_date_and_nonsense_is_nothing() -> None:
    date = format_datetime(datetime.fromtimestamp(1_800_000_010, UTC), usegmt=True)
    for value, expected in ((date, 10), ("Mon, 99 Foo 2027", 0.05), ("-5", 0.05), ("", 0.05)):
        time = Instant(chance=0.0)
        full = [head("503 Service Unavailable", Retry_After=value, Content_Length="0")]
        async with reading(full, [head(), ONE], time=time) as (events, _):
            await take(events, 1)
        assert time.waits == [expected], value


async def test_a_stream_end_says_when_to_come_back_to_this_reader_alone() -> None:
    time, states = Instant(chance=0.5), list[State]()
    end = block('{"reason":"draining","retry_ms":4321}', event="stream_end", event_id="e")
    scripts: list[list[Step]] = [[head(), ONE + b"retry: 9000\n" + end, Ending.SILENCE], [head(), TWO]]
    async with reading(*scripts, time=time, on_state=states.append) as (events, server):
        first, last, second = [await anext(events) for _ in range(3)]
    assert [first.data, last.event, second.data] == ["1", "stream_end", "2"]
    assert time.waits == [4.321]
    assert server.requests[1].last_event_id == "e"
    assert State("closed", 1, "ended by the server: draining") in states


@pytest.mark.parametrize("data", ["", "null", "[]", '{"retry_ms":"soon"}', '{"retry_ms":-1}', "{", '{"reason":5}'])
async def test_a_stream_end_that_says_nothing_is_an_end_all_the_same(data: str) -> None:
    time = Instant()
    async with reading([head(), ONE + block(data, event="stream_end"), Ending.SILENCE], time=time) as (events, _):
        assert await take(events, 4) == ["1", data, "1", data]
    assert time.waits == [3]


@pytest.mark.parametrize("status", [204, 301, 400, 401, 403, 404, 405, 406, 410, 421, 501])
async def test_a_refusal_ends_a_stream_with_the_servers_own_words(status: int) -> None:
    body = b'{"detail":"Because \xe2\x80\xa6"}' if status != 204 else b""
    async with reading([head(f"{status} No", Content_Length=str(len(body))) + body]) as (events, server):
        with pytest.raises(StreamRefused) as refused:
            await take(events, 1)
        assert (refused.value.status, refused.value.detail) == (status, "Because …" if body else "No")
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<h1>Gone", b'{"detail":{"a":1}}', b"[1]", b"\xff", b""])
async def test_a_refusal_without_words_is_told_by_its_status_line(body: bytes) -> None:
    async with reading([head("404 Not Found", Content_Length=str(len(body))) + body]) as (events, _):
        with pytest.raises(StreamRefused, match="refused with 404: Not Found"):
            await anext(events)


async def test_a_refusal_whose_body_never_ends_is_a_refusal() -> None:
    async with reading([head("404 Not Found"), Ending.SILENCE], connect_timeout=0.05) as (events, _):
        with pytest.raises(StreamRefused):
            await anext(events)
    began = time.monotonic()
    async with reading([head("404 Not Found"), *[b"x" * 10_000] * 10, Ending.SILENCE]) as (events, _):
        with pytest.raises(StreamRefused):
            await anext(events)
    assert time.monotonic() - began < 4  # it is enough of a body, long before it is silent for too long


@pytest.mark.parametrize("kind", ["text/html", "text/event-streamx", "", "application/json; x=text/event-stream"])
async def test_an_answer_of_another_type_ends_a_stream(kind: str) -> None:
    async with reading([head(content_type=kind), ONE]) as (events, _):
        with pytest.raises(StreamRefused, match="not an event stream") as refused:
            await take(events, 1)
    assert refused.value.status == 200


async def test_a_coding_that_nobody_asked_for_ends_a_stream() -> None:
    async with reading([head(Content_Encoding="br"), ONE]) as (events, _):
        with pytest.raises(StreamRefused, match="in br"):
            await take(events, 1)


@pytest.mark.parametrize("kind", ["text/event-stream;charset=utf-8", "Text/Event-Stream ; bogus", "text/event-stream;"])
async def test_parameters_of_the_type_mean_nothing(kind: str) -> None:
    async with reading([head(content_type=kind), ONE]) as (events, _):
        assert await take(events, 1) == ["1"]


async def test_silence_ends_a_connection_and_not_the_stream() -> None:
    states: list[State] = []
    scripts: list[list[Step]] = [[head(), ONE, Ending.SILENCE], [head(), TWO]]
    async with reading(*scripts, on_state=states.append, idle_timeout=0.05) as (events, server):
        assert await take(events, 2) == ["1", "2"]
    assert State("closed", 1, "silent for 0.05 s") in states
    assert server.requests[1].last_event_id == "a"


async def test_a_comment_breaks_the_silence() -> None:
    comments: list[Step] = [step for _ in range(8) for step in (0.1, b":\n\n")]
    async with reading([head(), ONE, *comments, TWO], idle_timeout=0.4) as (events, server):
        assert await take(events, 2) == ["1", "2"]
    assert len(server.requests) == 1


async def test_a_server_that_is_not_there_is_tried_until_it_is_enough() -> None:
    async with Adversary([]) as server:
        pass
    time = Instant()
    async with stream(server.url, options=time.options(max_attempts=4)) as events:
        with pytest.raises(GaveUp, match="gave up after 4 attempts") as gave_up:
            await anext(events)
    assert isinstance(gave_up.value.__cause__, ConnectionFailed)
    assert time.waits == [3, 3 * 2, 3 * 4]


async def test_attempts_are_counted_from_the_last_event() -> None:
    async with reading([FULL], [FULL], [head(), ONE], [FULL], [FULL], [head(), TWO], max_attempts=3) as (events, _):
        assert await take(events, 2) == ["1", "2"]
    async with reading([head()], max_attempts=3) as (events, server):
        with pytest.raises(GaveUp):
            await anext(events)
    assert len(server.requests) == 3


async def test_an_event_too_large_ends_a_stream_after_those_before_it() -> None:
    async with reading([head(), ONE + TWO + b"data: " + b"x" * 2000], max_event_bytes=1000) as (events, _):
        assert await take(events, 2) == ["1", "2"]
        with pytest.raises(EventTooLarge):
            await anext(events)
        assert events.last_event_id == "b"


async def test_a_field_of_a_megabyte_arrives() -> None:
    async with reading([head(**CHUNKED), chunked([b"data: " + b"x" * 2**20, b"\n\n"])]) as (events, _):
        assert await take(events, 1) == ["x" * 2**20]


async def test_a_stream_in_gzip_arrives_as_it_is_sent() -> None:
    pieces = [chunk(piece) for piece in gzipped([ONE, TWO])]
    answer = head(Content_Encoding="gzip", **CHUNKED)
    async with reading([answer, *pieces, Ending.SILENCE], compression=True) as (events, server):
        assert await take(events, 2) == ["1", "2"]
    assert server.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("flush", ["sync", "full"])
async def test_one_gzip_member_flushed_event_by_event_arrives_too(flush: str) -> None:
    deflate = zlib.compressobj(wbits=31)
    mode = zlib.Z_SYNC_FLUSH if flush == "sync" else zlib.Z_FULL_FLUSH
    pieces = [deflate.compress(content) + deflate.flush(mode) for content in (ONE, TWO, THREE)]
    answer = head(Content_Encoding="gzip", **CHUNKED)
    wire = b"".join(chunk(piece) for piece in pieces)
    async with reading([answer, *singly(wire), Ending.SILENCE]) as (events, _):
        assert await take(events, 3) == ["1", "2", "3"]


@pytest.mark.parametrize("separator", [b"\n", b"\r", b"\r\n"])
async def test_every_byte_in_a_chunk_and_a_packet_of_its_own_is_the_same_stream(separator: bytes) -> None:
    content = (b"\xef\xbb\xbf" + ONE + b":\n\nretry: x\nid: \0\n" + "data: …\n\n".encode()).replace(b"\n", separator)
    wire = b"".join(chunk(byte) for byte in singly(content))
    async with reading([head(**CHUNKED), *singly(wire), Ending.SILENCE]) as (events, _):
        seen = [await anext(events) for _ in range(2)]
    assert seen == [ServerEvent("message", "1", "a"), ServerEvent("message", "…", "a")]


async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    go_on = asyncio.Event()
    async with reading([head(), ONE + TWO[:5], go_on, TWO[5:], Ending.SILENCE]) as (events, server):
        assert await take(events, 1) == ["1"]
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.01)
        go_on.set()
        assert await take(events, 1) == ["2"]
    assert len(server.requests) == 1


async def test_a_wait_that_is_cancelled_goes_on_for_the_rest() -> None:
    time = Instant()

    async def half(seconds: float) -> None:
        time.waits.append(seconds)
        time.now += seconds / 2 if len(time.waits) == 1 else seconds
        if len(time.waits) == 1:
            await asyncio.sleep(3600)

    options = time.options()
    options = replace(options, pace=replace(options.pace, sleep=half))
    async with Adversary([FULL], [head(), ONE]) as server, stream(server.url, options=options) as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.1)
        assert await take(events, 1) == ["1"]
    assert time.waits == [3, 1.5]


async def test_the_place_is_that_of_the_last_event_given_out() -> None:
    async with reading([head(), ONE + TWO + b"id: d\n\n", Ending.SILENCE]) as (events, _):
        assert events.last_event_id == ""
        await take(events, 1)
        assert events.last_event_id == "a"
        await take(events, 1)
        assert events.last_event_id == "d"


async def test_leaving_ends_the_connection_at_once() -> None:
    states: list[State] = []
    async with reading([head(), ONE, Ending.SILENCE], on_state=states.append) as (events, server):
        async for event in events:
            assert event.data == "1"
            break
        await events.aclose()
        await asyncio.wait_for(server.left.wait(), 5)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert states[-1] == State("closed", 1, "closed by the reader")


async def test_a_stream_closed_by_another_task_ends_for_who_reads_it() -> None:
    states: list[State] = []
    async with reading([head(), ONE, Ending.SILENCE], on_state=states.append) as (events, server):
        await take(events, 1)
        reader = asyncio.create_task(take_all(events))
        await asyncio.sleep(0.01)
        await events.aclose()
        assert await asyncio.wait_for(reader, 5) == []
    assert len(server.requests) == 1
    assert [state.name for state in states] == ["connecting", "open", "closed"]


async def test_a_stream_closed_while_it_connects_leaves_no_connection() -> None:
    answer = asyncio.Event()
    async with reading([answer, head(), Ending.SILENCE]) as (events, server):
        reader = asyncio.create_task(take_all(events))
        while not server.requests:
            await asyncio.sleep(0.001)
        await events.aclose()
        answer.set()
        assert await asyncio.wait_for(reader, 5) == []
        await asyncio.wait_for(server.left.wait(), 5)


async def test_a_connection_that_is_cancelled_while_it_is_made_is_let_go() -> None:
    async with reading([Ending.SILENCE], [head(), ONE]) as (events, server):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        await asyncio.wait_for(server.left.wait(), 5)
        assert await take(events, 1) == ["1"]


async def test_a_refusal_that_is_cancelled_half_read_is_not_taken_for_a_stream() -> None:
    slow = head("404 Not Found", Content_Length="100") + b"data: no event\n\n"
    async with reading([slow, Ending.SILENCE], [head(), ONE]) as (events, server):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        await asyncio.wait_for(server.left.wait(), 5)
        assert await take(events, 1) == ["1"]


async def take_all(events: Stream) -> list[ServerEvent]:
    return [event async for event in events]


async def test_hundreds_of_streams_in_one_process_each_get_their_own() -> None:
    def script(seen: Seen) -> Sequence[Step]:
        return [head(**CHUNKED), *(chunk(block(f"{seen.target} {n}")) for n in range(5)), Ending.SILENCE]

    async def read(url: str) -> list[str]:
        async with stream(url) as events:
            return await take(events, 5)

    async with Adversary(script) as server:
        seen = await asyncio.gather(*(read(f"{server.url}/{n}") for n in range(400)))
    assert seen == [[f"/stream/{n} {k}" for k in range(5)] for n in range(400)]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


# --- TLS --------------------------------------------------------------------------------------------------------------


@contextmanager
def certificate(directory: Path) -> Iterator[tuple[Path, Path]]:
    """A key and a certificate for localhost that only who is told to trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = directory / "key.pem", directory / "certificate.pem"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    yield key_file, certificate_file


async def test_a_stream_over_tls_is_read_from_who_is_trusted_only(tmp_path: Path) -> None:
    with certificate(tmp_path) as (key_file, certificate_file):
        served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        served.load_cert_chain(certificate_file, key_file)
        trusting = ssl.create_default_context(cafile=str(certificate_file))
        async with Adversary([head(), ONE + TWO, Ending.SILENCE], tls=served) as server:
            async with stream(server.url, options=Instant().options(tls=trusting)) as events:
                assert await take(events, 2) == ["1", "2"]
            async with stream(server.url, options=Instant().options(max_attempts=2)) as events:
                with pytest.raises(GaveUp, match="certificate verify failed"):
                    await anext(events)
