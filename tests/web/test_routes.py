"""The contract's answers that are no streams, and its refusals, word for word."""

import asyncio
import time

import pytest

from tests.web.serving import item, serving

NOW = time.time()


async def test_status_says_how_many_streams_are_open() -> None:
    async with serving(SSE_MAX_CONNECTIONS="100") as service:
        await (await service.get("/api/v2/stream")).until("metrics")
        status = await (await service.get("/api/v2/stream/status")).json()
        assert list(status)[:4] == ["connections", "max_connections", "available", "uptime_seconds"]
        assert (status["connections"], status["max_connections"], status["available"]) == (1, 100, 99)
        assert set(status) >= {"version", "instance", "feed"}
        feed = status["feed"]
        assert isinstance(feed, dict)
        assert set(feed) == {
            "state", "age_seconds", "items", "sweep_seconds", "read_units_per_minute", "lateness_seconds",
            "hot_seconds",
        }  # fmt: skip
        assert feed["state"] == "live"


async def test_a_snapshot_is_the_state_with_an_id_to_resume_from_and_a_tag() -> None:
    items = (item("tiingo:1", "AAPL", at=NOW - 5000), item("tiingo:2", "MSFT", at=NOW - 10, sentiment="neutral"))
    async with serving(*items) as service:
        reply = await service.get("/api/v2/stream/snapshot?tickers=AAPL")
        assert reply.status == 200
        body = await reply.json()
        assert list(body) == ["id", "feed", "metrics", "sentiment_updates", "history"]
        assert [update["ticker"] for update in body["sentiment_updates"]] == ["AAPL"]
        first, *_, last = body["history"]
        assert first["tickers"] == {"AAPL": {"count": 1, "mean_score": 0.8}}
        assert (last["neutral"], last["tickers"]) == (1, {})
        resumed = await service.get("/api/v2/stream", Last_Event_ID=str(body["id"]))
        events = await resumed.until("resume")
        assert events[-1]["data"] == '{"mode":"exact","replayed":0}'


async def test_a_snapshot_before_the_window_is_loaded_is_503() -> None:
    async with serving(hanging=True) as service:
        reply = await service.get("/api/v2/stream/snapshot")
        assert (reply.status, reply.headers["retry-after"]) == (503, "2")
        assert await reply.body() == b'{"detail":"Feed is starting","retry_after":2}'


async def test_health_is_ok_as_soon_as_the_process_answers() -> None:
    async with serving() as service:
        assert (await service.get("/health")).status == 200
        assert (await service.get("/health/feed")).status == 200


async def test_one_stream_too_many_is_503_in_the_contracts_words() -> None:
    async with serving(SSE_MAX_CONNECTIONS="1") as service:
        await (await service.get("/api/v2/stream")).events(1)
        reply = await service.get("/api/v2/stream")
        assert (reply.status, reply.headers["retry-after"]) == (503, "30")
        assert reply.headers["content-type"] == "application/json"
        assert await reply.body() == (
            b'{"detail":"Connection limit reached. Try again later.","max_connections":1,"retry_after":30}'
        )


async def test_a_browser_that_asks_for_it_is_refused_in_a_way_that_it_obeys() -> None:
    async with serving(SSE_MAX_CONNECTIONS="1") as service:
        await (await service.get("/api/v2/stream")).events(1)
        reply = await service.get("/api/v2/stream?on_limit=retry")
        assert reply.status == 200
        body = (await reply.body()).decode()
        assert body.startswith("retry: 30000\n\n")
        assert 'event: stream_end\ndata: {"reason":"connection_limit","retry_ms":30000}\n\n' in body


async def test_while_it_shuts_down_new_streams_are_503() -> None:
    async with serving() as service:
        service.parts.streams.closing = True
        reply = await service.get("/api/v2/stream")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert await reply.body() == b'{"detail":"Server is shutting down. Reconnect.","retry_after":1}'
        polite = await service.get("/api/v2/stream?on_limit=retry")
        assert b'{"reason":"unavailable","retry_ms":1000}' in await polite.body()


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("tickers=", "tickers"),
        ("tickers=AAPL,", "tickers"),
        ("tickers=ABCDEFGHIJK", "tickers"),
        ("tickers=" + ",".join(["A"] * 51), "tickers"),
        ("tickers=A%20B", "tickers"),
        ("tickers=%C3%9F", "tickers"),
        ("tickers=A&tickers=B", "tickers"),
        ("on_limit=wait", "on_limit"),
    ],
)
async def test_a_malformed_parameter_is_400_and_named(query: str, named: str) -> None:
    async with serving() as service:
        for path in ("/api/v2/stream", "/api/v2/stream/snapshot"):
            reply = await service.get(f"{path}?{query}")
            assert reply.status == 400
            assert str((await reply.json())["detail"]).startswith(named)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/event-stream", 200), ("*/*", 200), ("text/*", 200), ("text/html,*/*;q=0.1", 200),
        ("application/json", 406), ("text/event-stream;q=0", 406),
    ],
)  # fmt: skip
async def test_accept_decides_whether_a_stream_is_sent(accept: str, status: int) -> None:
    async with serving() as service:
        assert (await service.get("/api/v2/stream", Accept=accept)).status == status


async def test_another_method_is_405_with_the_allowed_ones() -> None:
    async with serving() as service:
        reply = await service.get("/api/v2/stream?tickers=;", method="POST", Content_Length="0")
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert "POST" in str((await reply.json())["detail"])


async def test_an_unknown_path_is_404_as_json() -> None:
    async with serving() as service:
        reply = await service.get("/api/v1/stream")
        assert (reply.status, await reply.body()) == (404, b'{"detail":"Not found"}')


async def test_a_foreign_host_is_refused_on_loopback_but_not_for_health() -> None:
    async with serving() as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        for path, status in ((b"/api/v2/stream/status", b"421"), (b"/health", b"200")):
            writer.write(b"GET %b HTTP/1.1\r\nHost: evil.example\r\n\r\n" % path)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.split(b" ")[1] == status
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()


async def test_an_allowed_origin_may_read_streams_and_errors_and_others_may_not() -> None:
    async with serving(SSE_CORS_ORIGINS="https://app.example") as service:
        for path in ("/api/v2/stream", "/api/v2/stream?tickers=", "/nowhere"):
            allowed = await service.get(path, Origin="https://app.example")
            assert allowed.headers["access-control-allow-origin"] == "https://app.example"
            assert "Origin" in allowed.headers["vary"]
            refused = await service.get(path, Origin="https://app.example.evil")
            assert "access-control-allow-origin" not in refused.headers
            assert "Origin" in refused.headers["vary"]


async def test_a_preflight_is_answered_with_the_methods_and_the_resume_header() -> None:
    async with serving(SSE_CORS_ORIGINS="https://app.example") as service:
        reply = await service.get(
            "/api/v2/stream", method="OPTIONS", Origin="https://app.example", Access_Control_Request_Method="GET"
        )
        assert reply.status == 204
        assert "GET" in reply.headers["access-control-allow-methods"]
        assert "Last-Event-ID" in reply.headers["access-control-allow-headers"]


async def test_the_page_is_served_only_where_it_is_wanted_and_the_client_always() -> None:
    async with serving() as service:
        assert (await service.get("/")).status == 404
        assert (await service.get("/static/page.css")).status == 404
        assert (await service.get("/static/quartsse.js")).status == 200
    async with serving(SSE_DASHBOARD="1") as service:
        page = await service.get("/")
        assert page.status == 200
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        assert (await service.get("/static/../app.py")).status == 404


@pytest.mark.parametrize(
    ("target", "status"),
    [("?tickers=*", 404), ("http://[", 404), ("*", 404), ("http://localhost/api/v2/stream/status", 200)],
)
async def test_a_target_that_is_no_path_is_unknown_and_a_whole_url_is_its_path(target: str, status: int) -> None:
    async with serving() as service:
        assert (await service.get(target)).status == status
