"""What the tables' descriptions and answers mean for the service: pure judgements, each with its cure."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quartsse.errors import SourceError
from quartsse.feed.dynamodb import THROTTLING, kind_of
from quartsse.feed.items import PROJECTION, Item, MalformedItem, moment
from quartsse.settings import Settings
from quartsse.tools.check.report import Finding, failed, note, ok, skipped, warning

type Table = Mapping[str, Any]
"""What DescribeTable says of a table."""

type Described = Table | SourceError
"""That, or why it could not be had."""

_UNREACHED = {
    "EndpointConnectionError": "nothing listens there, or no route leads there",
    "ConnectTimeoutError": "it does not answer",
    "ReadTimeoutError": "it took too long to answer",
    "ConnectionClosedError": "it broke the connection off",
    "SSLError": "its certificate does not hold",
    "ProxyConnectionError": "the proxy in HTTPS_PROXY does not answer",
    "TimeoutError": "it took too long to answer",
}
_UNKNOWN = {
    "UnrecognizedClientException": "these credentials are not known there",
    "InvalidSignatureException": "the signature was refused: a wrong secret key, or a clock that is minutes off",
    "ExpiredTokenException": "these credentials have expired",
    "IncompleteSignatureException": "the signature is incomplete",
    "MissingAuthenticationTokenException": "the request was not signed",
    "NoCredentialsError": "no credentials were found",
    "PartialCredentialsError": "the credentials are incomplete",
    "CredentialRetrievalError": "the credentials could not be fetched",
}
_KEY_ERRORS = ("key schema element", "key condition not supported", "does not match the schema")
_MISFITS = {
    "timestamp": "write UTC, as 2025-12-02T10:30:00Z or with +00:00: the index orders times as text",
    "score": "`score` is a number from 0 to 1, or from -1 to 1 beside a `confidence`",
    "confidence": "`confidence` is a number from 0 to 1",
    "matched_tickers": "`matched_tickers` is a list of at most 50 symbols of A-Z, 0-9, `.`, `-`, of 1-10 characters",
    "sources": "`sources` is a list of texts",
}


@dataclass(slots=True)
class Read:
    """What was read of the window. `low`: where it begins; `whole`: whether it was read to there."""

    low: float
    items: dict[str, Item] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    units: float = 0.0
    whole: bool = False
    error: SourceError | None = None

    def whole_units(self, now: float) -> float:
        """What all of it costs: as measured, or else as if the rest were as dense as what was read."""
        if self.whole or not self.items:
            return self.units
        oldest: dict[str, float] = {}
        for item in self.items.values():
            oldest[item.sentiment] = min(item.time, oldest.get(item.sentiment, now))
        covered = max(60.0, now - max(oldest.values()))
        return self.units * max(1.0, (now - self.low) / covered)


def out_of_reach(error: SourceError) -> Finding | None:
    """Why no answer can be had at all, if that is so."""
    kind = kind_of(error.__cause__) if error.__cause__ else "TimeoutError"
    if kind in _UNREACHED:
        return failed(
            "DynamoDB",
            f"not reached: {_UNREACHED[kind]} ({said_by(error)})",
            "without it there is nothing to show: the feed stays `starting` or goes `stale`",
            "check AWS_REGION and AWS_ENDPOINT_URL_DYNAMODB, the way out of this network (a NAT, or a gateway endpoint "
            "for DynamoDB), its security groups and any HTTPS_PROXY",
        )
    if kind in _UNKNOWN:
        return failed(
            "credentials",
            f"refused: {_UNKNOWN[kind]} ({said_by(error)})",
            "every call is refused before DynamoDB looks at the table",
            "renew them (aws sso login, or the task's role), check that they belong to this region's partition, "
            "and set this machine's clock by NTP",
        )
    return None


def described_or_not(described: Described) -> Iterator[Finding]:
    """What it means when a table could not be described: the service itself never asks for that."""
    if not isinstance(described, SourceError):
        return
    kind = kind_of(described.__cause__)
    if kind == "ResourceNotFoundException":
        return
    why = "not allowed" if kind == "AccessDeniedException" else f"not answered ({said_by(described)})"
    yield note("DescribeTable", f"{why}; the service does not need it, what follows is what reading shows")


def table(described: Table) -> Iterator[Finding]:
    """The table's state and its keys."""
    status = described["TableStatus"]
    billing = described.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
    count = f"about {described.get('ItemCount', 0):,} items, {billing.lower().replace('_', ' ')}"
    if status in {"ACTIVE", "UPDATING"}:
        yield ok("table", f"{status.lower()}, {count}")
    else:
        yield failed("table", f"it is {status}", "it cannot be read in this state", "wait until it is ACTIVE")
    shape = keys_of(described)
    if shape == [("source_id", "S"), ("timestamp", "S")]:
        yield ok("keys", "source_id and timestamp, text both")
    else:
        yield failed(
            "keys",
            f"they are {shown(shape)}",
            "an item is known by source_id and timestamp; with other keys every item is skipped",
            "a table whose hash key is source_id and whose range key is timestamp, both of type S",
        )


def index(described: Table, name: str) -> Iterator[Finding]:
    """The index: that it is there, in use, with the keys that are queried and the attributes that are read."""
    indexes = {one["IndexName"]: one for one in described.get("GlobalSecondaryIndexes", [])}
    if name not in indexes:
        yield no_index(name, f"the table has {', '.join(sorted(indexes)) or 'no index at all'}")
        return
    found = indexes[name]
    status = found.get("IndexStatus", "ACTIVE")
    if status not in {"ACTIVE", "UPDATING"}:
        yield failed(
            "index",
            f"{name} is {status}",
            "while an index is being filled it cannot be read, or shows a part",
            "wait until it is ACTIVE; a large table takes hours",
        )
        return
    shape = keys_of(found, described)
    if shape != [("sentiment", "S"), ("timestamp", "S")]:
        yield wrong_index_keys(name, f"its keys are {shown(shape)}")
        return
    missing = _not_projected(found["Projection"])
    if missing:
        yield failed(
            "index",
            f"{name} does not carry {', '.join(missing)} (projection {found['Projection']['ProjectionType']})",
            "what is not projected cannot be read from the index: items come without it and are skipped",
            "make the index anew with projection ALL: an index's projection cannot be changed",
        )
        return
    projection = found["Projection"]["ProjectionType"]
    yield ok("index", f"{name} is {status.lower()}: sentiment and timestamp, projection {projection}")


def _not_projected(projection: Mapping[str, Any]) -> list[str]:
    if projection["ProjectionType"] == "ALL":
        return []
    keys = {"source_id", "timestamp", "sentiment"}
    return [name for name in PROJECTION if name not in keys | set(projection.get("NonKeyAttributes", ()))]


def query(read: Read, settings: Settings, described: Described) -> Iterator[Finding]:
    """Whether the index could be queried; what only the refusal says, where the table could not be described."""
    error = read.error
    if error is None:
        yield ok("Query", "allowed, and answered")
        return
    kind, text = kind_of(error.__cause__), str(error.__cause__ or error)
    known = not isinstance(described, SourceError)
    where = f"table/{settings.sentiments_table}/index/{settings.index}"
    if kind in {"ValidationException", "ResourceNotFoundException"} and known:
        yield skipped("Query", f"refused for what is said above ({said_by(error)})")
    elif kind in {"ValidationException", "ResourceNotFoundException"} and "index" in text.lower():
        yield no_index(settings.index, said_by(error))
    elif kind == "ValidationException" and any(part in text.lower() for part in _KEY_ERRORS):
        yield wrong_index_keys(settings.index, said_by(error))
    elif kind == "ResourceNotFoundException":
        yield no_table(settings.sentiments_table, "SENTIMENTS_TABLE", error)
    else:
        yield refusal("Query", where, error, described, "without it there is no feed at all")


def no_table(name: str, variable: str, error: SourceError) -> Finding:
    """The table is not there."""
    return failed(
        "table",
        f"there is no {name} in this region and account ({said_by(error)})",
        "every read fails, and no stream gets past its heartbeats",
        f"check {variable} (names are case-sensitive), AWS_REGION and whose credentials these are; "
        "`aws dynamodb list-tables` shows what is there",
    )


def no_index(name: str, seen: str) -> Finding:
    """The index is not there."""
    return failed(
        "index",
        f"there is no {name}: {seen}",
        "items are read from it alone, by sentiment and time",
        "set SSE_INDEX to its name, or make it: a global secondary index with hash key sentiment (S), "
        "range key timestamp (S), projection ALL",
    )


def wrong_index_keys(name: str, seen: str) -> Finding:
    """The index has other keys."""
    return failed(
        "index",
        f"{name} has other keys: {seen}",
        "it is queried by sentiment and timestamp, and DynamoDB refuses that by other keys",
        "set SSE_INDEX to an index with hash key sentiment (S) and range key timestamp (S), or make one",
    )


def wrong_user_keys(seen: str) -> Finding:
    """The users table has other keys than were said."""
    return failed(
        "keys",
        seen,
        "a configuration is fetched by key; with others every private stream answers 503",
        "set SSE_USERS_KEYS to the table's hash and range key, as `PK,SK`; both are text",
    )


def refusal(action: str, where: str, error: SourceError, described: Described, why: str) -> Finding:
    """A call that was refused, or failed."""
    kind = kind_of(error.__cause__)
    if kind == "AccessDeniedException":
        arn = f"{_arn_prefix(described)}:{where}"
        statement = f'{{"Effect": "Allow", "Action": "dynamodb:{action}", "Resource": "{arn}"}}'
        return failed(action, f"denied ({said_by(error)})", why, f"add to the role's policy: {statement}")
    if kind in THROTTLING:
        return throttled(action, f"refused for want of capacity ({said_by(error)})")
    return out_of_reach(error) or failed(
        action, said_by(error), why, "try again; if it stays so, DynamoDB's own words above say where to look"
    )


def throttled(action: str, seen: str) -> Finding:
    """DynamoDB gave less than was asked for."""
    return failed(
        action,
        f"throttled: {seen}",
        "the feed goes stale whenever reads are refused, and viewers see old numbers",
        "give the table and its index more read capacity or make them on-demand; or lower SSE_READ_BUDGET, raise "
        "SSE_POLL_INTERVAL, or run fewer instances: each reads for itself",
    )


def window(read: Read, settings: Settings, described: Described, newest: str | None, bound: float) -> Iterator[Finding]:
    """What lies in the window, how fresh it is, and what reading it costs."""
    now, hours = time.time(), f"{settings.window_hours:g} h"
    if not read.items:
        yield _empty(settings, described, newest, read)
    else:
        part = "" if read.whole else f", read as far as {bound:g} read units go (--units)"
        yield ok("window", f"{len(read.items):,} items in the last {hours}{part}")
        yield _freshness(max(item.time for item in read.items.values()), now)
    yield from misfits(read.skipped, len(read.items))
    yield from cost(read.whole_units(now), settings, described, about=not read.whole)


def _empty(settings: Settings, described: Described, newest: str | None, read: Read) -> Finding:
    hours = f"{settings.window_hours:g} h"
    why = "streams open, and show totals of zero and no ticker"
    if read.skipped:
        return warning("window", f"no item of the last {hours} fits", why, "mend what is named below")
    if newest:
        return warning(
            "window",
            f"empty: the newest item is of {newest}, none is of the last {hours}",
            why,
            "see that whatever writes and analyses items still runs; or look further back with SSE_WINDOW_HOURS",
        )
    count = "" if isinstance(described, SourceError) else f"; the table itself holds about {described['ItemCount']:,}"
    return warning(
        "window",
        f"empty: no item of any age has a sentiment of positive, neutral or negative{count}",
        why,
        "an item enters the index once `sentiment` is set to one of these (lower case): see that the analysis runs, "
        "and that this is the right table",
    )


def _freshness(newest: float, now: float) -> Finding:
    age = now - newest
    if age < -5:
        return warning(
            "newest item",
            f"its timestamp lies {duration(-age)} ahead",
            "an item of the future counts in no rate and stays the last of its ticker until then",
            "have whatever writes items take their time in UTC",
        )
    if age > 3600:
        return warning(
            "newest item",
            f"published {duration(age)} ago",
            "viewers see nothing move",
            "if the market or the source is not just quiet: see that whatever writes and analyses items still runs",
        )
    return ok("newest item", f"published {duration(max(0.0, age))} ago")


def misfits(skipped_items: Counter[str], fitting: int) -> Iterator[Finding]:
    """Items that the service skips, by the attribute that does not fit."""
    for kind, count in skipped_items.most_common():
        cure = _MISFITS.get(kind, f"`{kind}` is a text of 1 to 1024 characters")
        yield warning(
            f"misfit {kind}",
            f"{count:,} of {count + fitting:,} items have a `{kind}` that does not fit",
            "such an item is skipped whole: it is in no total and never sent",
            cure,
        )


def cost(units: float, settings: Settings, described: Described, *, about: bool) -> Iterator[Finding]:
    """Read units of one window, and what that means per hour, against the budget and the capacity there is."""
    fits = units <= settings.read_budget
    per_poll = max(1.5, units) if fits else settings.read_budget
    an_hour = per_poll * 3600 / settings.poll_interval
    roughly = "about " if about else ""
    what = f"one window costs {roughly}{units:,.1f} read units"
    if settings.source == "streams":
        yield ok("read units", f"{what}, at a start and after a gap; between them the stream is read")
        return
    if fits:
        seen = f"{what} and is read whole every {settings.poll_interval:g} s: {an_hour:,.0f} an hour and instance"
        yield ok("read units", seen)
    else:
        sweep = settings.poll_interval * units / (settings.read_budget / 2)
        seen = (
            f"{what}, more than SSE_READ_BUDGET={settings.read_budget:g}: the last minutes are read every "
            f"{settings.poll_interval:g} s, the rest within {duration(sweep)}; {an_hour:,.0f} an hour and instance"
        )
        yield (
            ok("read units", seen)
            if sweep <= 60
            else warning(
                "read units",
                seen,
                "an item that comes late, with a timestamp further back, is seen no sooner than that",
                "raise SSE_READ_BUDGET, lower SSE_WINDOW_HOURS, or set SSE_SOURCE=streams",
            )
        )
    yield from _capacity(per_poll / settings.poll_interval, settings, described)


def _capacity(per_second: float, settings: Settings, described: Described) -> Iterator[Finding]:
    if isinstance(described, SourceError):
        return
    found = next(
        (one for one in described.get("GlobalSecondaryIndexes", []) if one["IndexName"] == settings.index), None
    )
    if found is None:
        return
    provisioned = float(found.get("ProvisionedThroughput", {}).get("ReadCapacityUnits") or 0)
    most = float(found.get("OnDemandThroughput", {}).get("MaxReadRequestUnits") or -1)
    capacity = provisioned or (most if most > 0 else 0.0)
    if not capacity:
        return
    seen = f"{capacity:g} read units a second for the index; one instance takes {per_second:,.1f}"
    if per_second > capacity:
        yield warning(
            "capacity",
            seen,
            "what is asked for beyond it is refused, and the feed goes stale",
            "raise the index's read capacity, or lower SSE_READ_BUDGET or raise SSE_POLL_INTERVAL",
        )
    else:
        yield ok("capacity", seen)


def stream_shape(stream: Mapping[str, Any]) -> Iterator[Finding]:
    """The change stream's state, and what its records carry."""
    if stream["StreamStatus"] not in {"ENABLED", "ENABLING"}:
        yield no_stream(f"it is {stream['StreamStatus']}")
        return
    view = stream.get("StreamViewType", "unknown")
    if "NEW" in view:
        yield ok("stream", f"enabled, with {view}, {len(stream['Shards'])} shards")
    else:
        yield failed(
            "stream",
            f"its records carry {view}",
            "an item is taken from the stream itself: without new images there is nothing to take",
            "disable the stream and enable it with NEW_AND_OLD_IMAGES (its ARN changes), or set SSE_SOURCE=query",
        )


def no_stream(seen: str) -> Finding:
    """The stream is not there, or off."""
    return failed(
        "stream",
        f"no stream to follow: {seen}",
        "SSE_SOURCE=streams reads every change from it; without it the feed never starts",
        "enable the table's stream with NEW_AND_OLD_IMAGES (and update SSE_STREAM_ARN if it is set), "
        "or set SSE_SOURCE=query",
    )


def lateness(records: Iterable[Mapping[str, Any]]) -> Finding:
    """How long after its timestamp an item got its sentiment, as far as the stream's oldest records tell."""
    late = sorted(_late(records))
    if not late:
        return skipped("lateness", "the records at hand show no item becoming visible")
    median, worst = duration(late[len(late) // 2]), duration(late[-1])
    seen = f"items become visible {median} after their timestamp (median of {len(late)}), {worst} at worst"
    return note("lateness", seen, "what comes late has a timestamp behind what was already shown")


def _late(records: Iterable[Mapping[str, Any]]) -> Iterator[float]:
    for record in records:
        change = record["dynamodb"]
        new, old = change.get("NewImage", {}), change.get("OldImage", {})
        made = change.get("ApproximateCreationDateTime")
        if "sentiment" in new and "sentiment" not in old and isinstance(made, int | float):
            try:
                yield max(0.0, made - moment(new["timestamp"]["S"]))
            except (MalformedItem, KeyError):
                continue


def keys_of(shaped: Mapping[str, Any], described: Table | None = None) -> list[tuple[str, str]]:
    """The names and types of a table's or index's keys, the hash key first."""
    types = {one["AttributeName"]: one["AttributeType"] for one in (described or shaped)["AttributeDefinitions"]}
    ordered = sorted(shaped["KeySchema"], key=lambda key: str(key["KeyType"]))
    return [(key["AttributeName"], types.get(key["AttributeName"], "?")) for key in ordered]


def shown(shape: Sequence[tuple[str, str]]) -> str:
    """Keys and their types, as text."""
    return " and ".join(f"{name} ({kind})" for name, kind in shape)


def said_by(error: SourceError) -> str:
    """What AWS or botocore said, in its own words: here, unlike in a status, whoever reads may see them."""
    if error.__cause__ is None:
        return str(error)
    _, operation, words = str(error.__cause__).rpartition(" operation: ")
    return f"{kind_of(error.__cause__)}: {words}" if operation else str(error.__cause__)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _arn_prefix(described: Described) -> str:
    if isinstance(described, SourceError):
        return "arn:aws:dynamodb:REGION:ACCOUNT"
    return str(described["TableArn"]).rpartition(":")[0]
