"""What was seen of a server means: pure judgements of streams and answers. What only quartsse promises is its alone."""

import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

from quartsse.tools.check.report import Finding, failed, note, ok, skipped, warning
from quartsse.tools.check.tables import duration
from quartsse.tools.check.tape import Answer, Arrival, Tape
from quartsse.tools.load import made_at

FIRST_BYTE_SECONDS = 2.0
HELD_SECONDS = 1.0
"""How much later than the quickest one an event may be."""

HELD_BY_THE_CLOCK = 3.0
"""The same, where only `Date` tells the server's time: whole seconds, and whatever its clock is off."""

BUNCHED_SECONDS = 0.05
IDLE_CUT = 55.0
_SAFE_ID = re.compile(r"[A-Za-z0-9._~-]*", re.ASCII)
_UNBUFFER = (
    "in front of the server: no buffering of this path (nginx: proxy_buffering off, and no proxy_ignore_headers "
    "X-Accel-Buffering; elsewhere whatever flushes at once); docs/proxies.md has configurations that work"
)
_REFUSED = {
    204: ("EventSource never comes back after 204", "answer 200 with an event stream"),
    401: (
        "it wants to know who asks",
        "--header 'Authorization: Bearer …', or 'X-User-ID: …' where a layer in front sets that",
    ),
    403: (
        "something in front, or the server, forbids it",
        "check the rules of whatever stands in front, and the credentials",
    ),
    404: (
        "nothing is there",
        "check the path: a quartsse has /api/v2/stream, and a configuration must belong to the user who asks",
    ),
    421: (
        "the server does not answer to this name",
        "add it to SSE_ALLOWED_HOSTS, or have the proxy send the right Host",
    ),
    429: (
        "this client has as many streams as it may",
        "close some; SSE_MAX_CONNECTIONS_PER_USER, …_PER_ADDRESS, and SSE_TRUSTED_HOPS if a proxy is in front",
    ),
    501: ("this kind of stream is not enabled", "set USERS_TABLE (and SSE_TICKET_SECRET for tickets)"),
    502: ("the proxy in front did not get an answer", "check that the server runs where the proxy looks for it"),
    503: (
        "the server is full, draining or not ready, and EventSource gives up for good on this",
        "more instances, or SSE_MAX_CONNECTIONS; browsers ask with ?on_limit=retry and are told when to come back",
    ),
    504: ("the proxy in front waited in vain", "check the way from the proxy to the server, and its time-outs"),
}


def held_back(name: str, seen: str) -> Finding:
    """Something between the server and here keeps bytes until it has more of them."""
    return failed(name, seen, "viewers see events late and in bunches, or none until a buffer is full", _UNBUFFER)


def answered(status: int, detail: str, tape: Tape) -> Finding:
    """The status of the stream's answer."""
    if status == 200:
        return ok("status", "200")
    why, cure = _REFUSED.get(
        status, ("EventSource gives up for good on any status but 200", "ask the server's log why")
    )
    after = tape.response.header("Retry-After")
    return failed("status", f"{status}: {detail}" + (f" (Retry-After: {after})" if after else ""), why, cure)


def head(tape: Tape, *, quartsse: bool) -> Iterator[Finding]:
    """The headers and the framing of a stream."""
    response = tape.response
    yield _content_type(response.header("Content-Type"))
    coding = response.header("Content-Encoding")
    if coding is not None:
        yield failed(
            "content coding",
            f"{coding}, though none was asked for",
            "a client that did not ask for a coding cannot read it",
            "compress only where Accept-Encoding names the coding",
        )
    yield _caching(response.header("Cache-Control") or "", quartsse=quartsse)
    accel = response.header("X-Accel-Buffering")
    if accel == "no":
        yield ok("X-Accel-Buffering", "no")
    else:
        why = "nginx takes it away once it has obeyed it; if none is in front, the server should send `no`"
        yield note("X-Accel-Buffering", accel or "not there", why)
    yield _framing(tape)


def _content_type(value: str | None) -> Finding:
    essence, _, parameters = (value or "").partition(";")
    if essence.strip().lower() != "text/event-stream":
        return failed(
            "content type",
            value or "none",
            "EventSource refuses anything but text/event-stream, for good",
            "send Content-Type: text/event-stream; if the server does, look for a proxy, a login page or a cache",
        )
    charset = re.search(r"charset=\"?([^;\"\s]+)", parameters, re.IGNORECASE)
    if charset and charset[1].lower() not in {"utf-8", "utf8"}:
        why = "event streams are always read as UTF-8, whatever the charset says"
        return warning("content type", value or "", why, "charset=utf-8, or none")
    return ok("content type", value or "")


def _caching(value: str, *, quartsse: bool) -> Finding:
    words = {word.strip().lower() for word in value.split(",")}
    if not words & {"no-cache", "no-store"}:
        why = "a cache on the way may keep the stream and give one viewer's to the next"
        return warning("Cache-Control", value or "not there", why, "Cache-Control: no-cache, no-transform")
    if "no-transform" not in words and quartsse:
        why = "it keeps proxies from compressing; quartsse sends it, so something on the way took it away"
        return warning("Cache-Control", value, why, "have the proxy leave the header as it is")
    return ok("Cache-Control", value)


def _framing(tape: Tape) -> Finding:
    response = tape.response
    version = response.raw_head[:8].decode("latin-1")
    length = response.header("Content-Length")
    if length is not None:
        return failed(
            "framing",
            f"Content-Length: {length}",
            "a stream has no length: this answer was collected whole before it was sent, or ends there",
            f"send it as it is made. {_UNBUFFER}",
        )
    if version != "HTTP/1.1" or (response.header("Transfer-Encoding") or "").lower() != "chunked":
        return warning(
            "framing",
            f"{version} without chunks: the body ends when the connection does",
            "a stream that is cut looks like one that has ended",
            "HTTP/1.1 on the whole way (nginx: proxy_http_version 1.1)",
        )
    return ok("framing", "HTTP/1.1, chunked")


def looks_like_quartsse(tape: Tape) -> bool:
    """Whether the events are a quartsse's, where its status is out of reach."""
    return any(
        one.event.event == "heartbeat" and one.event.id.startswith("evt_") and "feed" in one.data
        for one in tape.arrivals
    )


def events(tape: Tape, *, quartsse: bool) -> Iterator[Finding]:
    """Names, data, ids and retry."""
    counts: dict[str, int] = {}
    for one in tape.arrivals:
        counts[one.event.event] = counts.get(one.event.event, 0) + 1
    names = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1])[:8])
    if tape.events:
        yield ok("events", names or f"{tape.events:,}")
    elif tape.size > tape.comments * 3 + 64:
        yield failed(
            "events",
            f"none in {tape.size:,} bytes",
            "what is sent does not read as events: each ends with an empty line and has a `data` line",
            "send `data: …` and an empty line after each event",
        )
    else:
        yield note("events", f"none; {tape.comments:,} comments")
    yield from _end(tape, quartsse=quartsse)
    if quartsse and tape.events:
        yield _promised(tape, counts)
    yield _ids(tape, quartsse=quartsse)
    if tape.retry is not None:
        yield ok("retry", f"{tape.retry} ms")
    elif quartsse:
        yield failed("retry", "not set", "quartsse's first bytes set it", "look for what drops the stream's beginning")
    else:
        yield note("retry", "not set", "each browser waits as long as it likes, some seconds, before it comes back")


def _end(tape: Tape, *, quartsse: bool) -> Iterator[Finding]:
    if not tape.ended:
        return
    lived = duration(tape.last_byte - tape.headed)
    farewell = tape.named("stream_end")
    if farewell:
        reason = str(farewell[-1].data.get("reason", "none given"))
        why = "clients come back by themselves after the time that it names"
        if reason in {"deadline", "max_age"}:
            yield note("end", f"after {lived}: {reason}", why)
        else:
            cure = "see the server's log; another instance, or the same in a while, takes readers again"
            yield warning("end", f"after {lived}: {reason}", why, cure)
    elif "more than" in tape.ended:
        yield failed(
            "event size",
            tape.ended,
            "browsers keep an event in memory until it is whole, and clients bound that",
            "send less in one event, or an address to fetch it from",
        )
    elif tape.ended == "ended" and not quartsse:
        yield note("end", f"the server ended the stream after {lived}", "clients come back by themselves")
    else:
        yield failed(
            "end",
            f"{tape.ended} after {lived}, without a word",
            "clients lose the stream and come back in a crowd",
            "a time-out on the way that is shorter than the silence between two bytes (make it more than twice the "
            "heartbeat), a proxy that was restarted, or a server that died: see their logs",
        )


def _promised(tape: Tape, counts: Mapping[str, int]) -> Finding:
    wrong = [name for name in ("error", "message") if name in counts]
    broken = [one.event.event for one in tape.arrivals if not one.data]
    cure = "look for what changes the body on the way; if nothing does, this is a bug: report it"
    if wrong or broken:
        seen = (
            f"events named {', '.join(wrong)}" if wrong else f"data that is no JSON in {', '.join(sorted(set(broken)))}"
        )
        return failed("form", seen, "clients of quartsse rely on its names and on JSON", cure)
    if tape.arrivals[0].event.event != "heartbeat":
        seen = f"the first event is {tape.arrivals[0].event.event}"
        return failed("form", seen, "a stream begins with a heartbeat", cure)
    return ok("form", "begins with a heartbeat; JSON throughout")


def _ids(tape: Tape, *, quartsse: bool) -> Finding:
    ids = [one.event.id for one in tape.arrivals]
    given = [one for one in ids if one]
    judge = failed if quartsse else warning
    if not given:
        return without_ids(quartsse=quartsse) if ids else skipped("ids", "no event came")
    long = [one for one in given if len(one.encode()) > 128]
    if long:
        why = "a Last-Event-ID of more than 128 bytes needs a preflight across origins, and proxies bound headers"
        return judge("ids", f"{len(long):,} are longer than 128 bytes", why, "ids of at most 128 bytes")
    unsafe = [
        one for one in given if not (_SAFE_ID.fullmatch(one) if quartsse else one.isascii() and one.isprintable())
    ]
    if unsafe:
        why = "they do not all come back in a header unchanged, or need a preflight"
        return judge(
            "ids", f"{len(unsafe):,} with unusual characters, as {unsafe[0][:40]!r}", why, "A-Z a-z 0-9 . _ ~ -"
        )
    distinct = len(set(given))
    if quartsse and (distinct < len(ids) or len(given) < len(ids)):
        seen = f"{len(ids):,} events, {distinct:,} distinct ids"
        return failed(
            "ids", seen, "an event that shares an id cannot be told from a repeat", "report it: this is a bug"
        )
    return ok("ids", f"{distinct:,} distinct ones, {max(len(one.encode()) for one in given)} bytes at most")


def without_ids(*, quartsse: bool) -> Finding:
    """No event has an id."""
    why = "a client that comes back cannot say where it stopped: what was sent meanwhile is lost to it"
    return (failed if quartsse else warning)("ids", "no event has one", why, "an `id:` line with every event")


def timing(
    plain: Tape, packed: Tape | None, seconds: float, heartbeat: float, skew: float | None, *, quartsse: bool
) -> Iterator[Finding]:
    """First bytes, heartbeats, and whether anything on the way holds events back."""
    yield _first_bytes(plain, seconds, heartbeat, quartsse=quartsse)
    yield _heartbeats(plain, seconds, heartbeat, quartsse=quartsse)
    yield _buffering(plain, packed, skew, quartsse=quartsse)
    yield _compression(plain, packed)


def _first_bytes(tape: Tape, seconds: float, heartbeat: float, *, quartsse: bool) -> Finding:
    if tape.first_byte is None:
        seen = f"none in {seconds:g} s after the head"
        if quartsse or seconds > heartbeat:
            return held_back("first bytes", seen) if quartsse else _silent(seen)
        return skipped("first bytes", seen)
    took = tape.first_byte - tape.headed
    if took > FIRST_BYTE_SECONDS and quartsse:
        return held_back("first bytes", f"{took:.1f} s after the head")
    return ok("first bytes", f"{1000 * took:.0f} ms after the head")


def _silent(seen: str) -> Finding:
    return warning(
        "heartbeat",
        seen,
        "proxies cut connections that are silent for a minute or less, and a client cannot tell quiet from dead",
        "send a comment line (`:` and an empty line) every 15 seconds or so, as the HTML standard advises",
    )


def _heartbeats(tape: Tape, seconds: float, heartbeat: float, *, quartsse: bool) -> Finding:
    """A quartsse beats by events; any other by whatever comes."""
    allowed = heartbeat + max(0.5, heartbeat / 10)
    silence = tape.silence()
    if quartsse:
        beats = [one.at for one in tape.named("heartbeat")]
        times = [tape.headed, *beats, tape.headed + seconds if not tape.ended else tape.last_byte]
        longest = max(later - earlier for earlier, later in pairwise(times))
        if longest > allowed:
            return failed(
                "heartbeat",
                f"{longest:.1f} s without one; {heartbeat:g} s are allowed (--heartbeat)",
                "clients take the connection for dead, and do not hear that the feed is stale",
                "check SSE_HEARTBEAT_INTERVAL, and what holds bytes back on the way; a server whose loop hangs is slow "
                "to answer anything",
            )
        if seconds < allowed:
            return skipped("heartbeat", f"{seconds:g} s are too short to tell; --seconds {allowed + 2:.0f}")
        return ok("heartbeat", f"{len(beats)}, never more than {longest:.1f} s apart")
    if silence > allowed:
        return _silent(f"{silence:.1f} s without a byte")
    if seconds < allowed:
        return skipped("heartbeat", f"{seconds:g} s are too short to tell; --seconds {allowed + 2:.0f}")
    return ok("heartbeat", f"never more than {silence:.1f} s without a byte")


def _made(tape: Tape, *, quartsse: bool) -> list[tuple[float, Arrival]]:
    """When events were made by their own word, as far as that is when they were sent."""
    told = [one for one in tape.arrivals if not quartsse or one.event.event in {"heartbeat", "metrics"}]
    made = ((made_at(one.event, one.wall), one) for one in told)
    return [(moment, one) for moment, one in made if moment is not None]


def _buffering(plain: Tape, packed: Tape | None, skew: float | None, *, quartsse: bool) -> Finding:
    made = _made(plain, quartsse=quartsse)
    if not made:
        return skipped("buffering", "no event says when it was made")
    delays = [one.wall - moment for moment, one in made]
    others = _made(packed, quartsse=quartsse) if packed is not None and not _coding(packed) else []
    quickest = min(delays + [one.wall - moment for moment, one in others])
    worst = max(delays) - quickest
    bunches = sum(
        later[0] - earlier[0] >= HELD_SECONDS and later[1].at - earlier[1].at < BUNCHED_SECONDS
        for earlier, later in pairwise(made)
    )
    if bunches:
        seen = f"{bunches} times events came at once that were made a second or more apart"
        return held_back("buffering", seen) if quartsse else _perhaps_held(seen)
    if quartsse and worst > HELD_SECONDS:
        return held_back("buffering", f"an event came {worst:.1f} s later after it was made than another")
    if quartsse and skew is not None and quickest + skew > HELD_BY_THE_CLOCK:
        return held_back("buffering", f"every event comes {quickest + skew:.0f} s or more after it was made")
    if not quartsse and worst > 5:
        return _perhaps_held(f"delays between an event's own time and its arrival differ by {worst:.1f} s")
    return ok("buffering", f"none seen: events are at most {1000 * worst:.0f} ms later than the quickest")


def _perhaps_held(seen: str) -> Finding:
    why = "if these times say when an event was sent, something holds events back"
    return warning("buffering", seen, why, _UNBUFFER)


def _coding(tape: Tape) -> str:
    return (tape.response.header("Content-Encoding") or "identity").lower()


def _compression(plain: Tape, packed: Tape | None) -> Finding:
    """Whether a compressed stream is flushed: what the plain one got and it has not is held in a compressor."""
    if packed is None:
        return skipped("compression", "a second stream, one that takes gzip, was not given")
    coding = _coding(packed)
    if coding == "identity":
        return ok("compression", "none")
    behind = (
        plain.arrivals[-1].at - (packed.arrivals[-1].at if packed.arrivals else packed.headed) if plain.arrivals else 0
    )
    if (plain.events > packed.events + 1 and behind > HELD_SECONDS) or (plain.events and not packed.events):
        return failed(
            "compression",
            f"{coding} that holds events back: {packed.events:,} came through, {plain.events:,} without it",
            "browsers always ask for gzip: they see events only when the compressor has filled a block",
            "no compression of text/event-stream on the way (nginx: gzip off, or leave the type out of gzip_types), "
            "or one that is flushed after every event",
        )
    return ok("compression", f"{coding}, flushed with every event")


def opened(tape: Tape) -> bool:
    """Whether a quartsse's opening is complete; a user's stream has no `metrics` in it."""
    if not tape.named("resume"):
        return False
    return bool(tape.named("metrics") or time.monotonic() - tape.last_byte > 0.5)


def refused_resume(seen: str) -> Finding:
    """Coming back was refused."""
    why = "every client comes back with Last-Event-ID, after each deployment and each lost network"
    if seen.startswith("not reached"):
        return failed("resume", seen, why, "the server went away during the visit: visit again once it is back")
    return failed("resume", seen, why, "accept the header; look for a proxy that refuses or drops it, and for limits")


def resumed(witness: Tape, before: Tape, after: Tape, *, quartsse: bool) -> Iterator[Finding]:
    """What came after coming back, held against who never left."""
    known = {_identity(one, quartsse=quartsse): None for one in before.arrivals}
    last = before.arrivals[-1].at
    new = [_identity(one, quartsse=quartsse) for one in after.arrivals if _lasting(one, quartsse=quartsse)]
    answer = next((one.data for one in after.named("resume")), None) if quartsse else None
    if quartsse:
        if answer is None and _feed_state(after) in {"starting", "stale"}:
            yield skipped("resume", f"the feed is {_feed_state(after)}, and what resumes waits for it")
            return
        if answer is None:
            why = "a client that is not told cannot know whether it missed something"
            yield failed("resume", "no `resume` event", why, "look for what drops Last-Event-ID on the way")
            return
        seen = f"{answer.get('mode')}, {answer.get('replayed')} replayed"
        if answer.get("mode") == "exact":
            yield ok("resume", seen)
        else:
            why = "another instance answered, or this one is young: fewer events are certain to be replayed"
            yield note("resume", seen, why)
    elif not set(known) & {_identity(one, quartsse=quartsse) for one in witness.arrivals}:
        yield skipped("resume", "two streams share no events, so nothing can be compared")
        return
    repeats = sum(one in known for one in new) if answer is None or answer.get("mode") == "exact" else 0
    if repeats:
        why = "what was already handled is handled again"
        cure = "go on behind the Last-Event-ID; or let clients drop what they know by its id"
        yield (failed if quartsse else warning)("repeats", f"{repeats:,} events came again", why, cure)
    else:
        yield ok("repeats", "none")
    until = after.last_byte
    missed = [
        one
        for one in witness.arrivals
        if last < one.at < until - 0.5
        and _lasting(one, quartsse=quartsse)
        and _identity(one, quartsse=quartsse) not in {*known, *new}
    ]
    if missed and (answer is None or answer.get("mode") != "snapshot"):
        why = "a client that was away for a moment never hears of them"
        cure = "keep the last events and send what is behind the Last-Event-ID when a client comes back"
        yield (failed if quartsse else warning)("gaps", f"{len(missed):,} events were missed", why, cure)
    else:
        yield ok("gaps", "none")


def _feed_state(tape: Tape) -> str:
    """What the last heartbeat says of the feed."""
    beats = tape.named("heartbeat")
    return str(beats[-1].data.get("feed")) if beats else ""


def _lasting(one: Arrival, *, quartsse: bool) -> bool:
    """Whether an event is one that a reader must not miss: not what only tells how things are now."""
    return one.event.event == "sentiment_update" if quartsse else bool(one.event.id)


def _identity(one: Arrival, *, quartsse: bool) -> str:
    return one.event.id.partition(".")[0] if quartsse else one.event.id


def head_request(answer: Answer | str, *, quartsse: bool) -> Finding:
    """HEAD of the stream."""
    cure = "answer HEAD with the headers of GET and no body"
    why = "monitors and link checkers use it"
    if isinstance(answer, str):
        return (failed if quartsse else note_with)("HEAD", answer, why, cure)
    kind = (answer.header("Content-Type") or "").partition(";")[0]
    if answer.status == 200 and kind == "text/event-stream":
        return ok("HEAD", f"200 in {1000 * answer.seconds:.0f} ms")
    return (failed if quartsse else note_with)("HEAD", f"{answer.status}, {kind or 'no type'}", why, cure)


def note_with(name: str, seen: str, why: str, _: str) -> Finding:
    """A note, in the place of something worse."""
    return note(name, seen, why)


def refusal(name: str, status: int, answer: Answer | str, names: str) -> Finding:
    """An answer to a request that quartsse refuses: its status, and a `detail` that says why."""
    why = "a client that asks wrongly should hear what was wrong"
    cure = "look for a proxy that answers in the server's stead, or replaces error pages (proxy_intercept_errors)"
    if isinstance(answer, str):
        return failed(name, answer, why, cure)
    detail = answer.json.get("detail")
    if answer.status != status or not isinstance(detail, str) or names not in detail:
        return failed(name, f"{answer.status}: {detail or answer.body[:80]!r}", why, cure)
    if status == 405 and not answer.header("Allow"):
        return failed(name, "no Allow header", why, cure)
    return ok(name, detail)


def cors(name: str, answer: Answer | str, origin: str) -> Finding:
    """Whether a page of an origin may read the answer."""
    why = "a browser keeps the answer from the page, and EventSource only says `error`"
    if isinstance(answer, str):
        return failed(name, answer, why, "see above")
    allowed = [value for key, value in answer.headers if key.lower() == "access-control-allow-origin"]
    if len(allowed) > 1 or any("," in value for value in allowed):
        cure = "let only one of the two answer CORS: the server (SSE_CORS_ORIGINS) or the proxy"
        return failed(name, f"Access-Control-Allow-Origin {len(allowed)} times: {', '.join(allowed)}", why, cure)
    if not allowed:
        return failed(name, f"{origin} is not allowed", why, f"SSE_CORS_ORIGINS={origin} (exactly so, no path)")
    if allowed[0] == "*":
        return warning(
            name,
            "every origin is allowed, none with credentials",
            "any page may read it, and none may send cookies or use withCredentials",
            "name the origins, with Access-Control-Allow-Credentials",
        )
    if allowed[0] != origin:
        return failed(name, f"only {allowed[0]} is allowed", why, f"SSE_CORS_ORIGINS={origin} (exactly so, no path)")
    return ok(name, f"{origin} is allowed")


def preflight(answer: Answer | str, origin: str) -> Finding:
    """A browser's question before a request with headers of its own."""
    found = cors("preflight", answer, origin)
    if found.state != "ok" or isinstance(answer, str):
        return found
    headers = (answer.header("Access-Control-Allow-Headers") or "").lower()
    missing = [name for name in ("authorization", "last-event-id") if name not in headers and headers != "*"]
    if answer.status >= 300 or missing:
        why = "a browser does not send the request at all"
        cure = "let OPTIONS through to the server, which answers it"
        return failed("preflight", f"{answer.status}; not allowed: {', '.join(missing) or 'nothing'}", why, cure)
    return ok("preflight", "Authorization and Last-Event-ID are allowed")


def limit(count: int, refusal: str, answer: Tape | None) -> Finding:
    """How many streams could be opened, and how the next was refused."""
    if not refusal:
        return ok("limit", f"{count:,} more streams opened, none refused")
    seen = f"{count:,} more streams, then {refusal}"
    if answer is None:
        why = "clients that are not answered try again at once, all of them"
        return warning("limit", seen, why, "a limit below what the process can hold: SSE_MAX_CONNECTIONS, ulimit -n")
    if answer.response.status not in {429, 503} or answer.response.header("Retry-After") is None:
        why = "a client that is not told when to come back comes at once, or never"
        return warning("limit", seen, why, "429 or 503 with Retry-After")
    return ok("limit", f"{seen} (Retry-After: {answer.response.header('Retry-After')})")


def status(told: Mapping[str, Any]) -> Iterator[Finding]:
    """What a quartsse says of itself."""
    yield ok("version", f"quartsse {told.get('version')}, instance {told.get('instance')}")
    taken, most = _number(told.get("connections")), _number(told.get("max_connections"))
    seen = f"{taken:,.0f} of {most:,.0f} streams open"
    if most and taken / most > 0.8:
        why = "the next ones are refused with 503"
        yield warning("connections", seen, why, "more instances, or SSE_MAX_CONNECTIONS")
    else:
        yield ok("connections", seen)
    feed = told.get("feed")
    yield _feed(feed if isinstance(feed, dict) else {})


def _feed(feed: Mapping[str, Any]) -> Finding:
    state, age = feed.get("state"), feed.get("age_seconds")
    aged = f", {_number(age):.1f} s old" if age is not None else ""
    seen = f"{state}{aged}, {_number(feed.get('items')):,.0f} items"
    if state in {"live", "idle"}:
        return ok("feed", seen)
    reason = ": ".join(str(feed[name]) for name in ("reason", "advice") if feed.get(name))
    return (failed if state == "stale" else warning)(
        "feed",
        f"{seen}{f': {reason}' if reason else ''}",
        "viewers see old numbers, or none yet",
        "run `quartsse check` with the server's settings and role: it says what its reads meet",
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def skew_of(answer: Answer) -> float | None:
    """How far the server's clock is ahead, by its `Date`; within a second."""
    try:
        return parsedate_to_datetime(answer.header("Date") or "").timestamp() + 0.5 - time.time()
    except ValueError:
        return None
