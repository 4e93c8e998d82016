"""Looks at what `quartsse serve` would meet with these settings: AWS, the tables, the stream. It never writes."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from quartsse.errors import SourceError
from quartsse.feed.blocking import blocking
from quartsse.feed.configurations import UsersTable
from quartsse.feed.dynamodb import Client, client, kind_of
from quartsse.feed.items import LABELS
from quartsse.feed.query import QuerySource, query_request
from quartsse.feed.source import FOREVER
from quartsse.feed.window import Window
from quartsse.settings import Settings, in_force, unread
from quartsse.tools.check import tables
from quartsse.tools.check.calls import CALL_SECONDS, Watch, ask
from quartsse.tools.check.report import Finding, Heading, Progress, Told, failed, note, ok, skipped, warning
from quartsse.tools.check.tables import Described, Read

PROBE = "quartsse-check"
"""The user and the configuration that are asked for; nobody is called so, and nothing need be found."""

SLOW_SECONDS = 0.3
"""Of one call: three of them side by side are a poll, and a private stream waits for one."""

SKEW_SECONDS = 2.0
"""Clocks are told apart no better than by a second: `Date` has no fractions."""

RECORDS_SAMPLED = 200

_METHODS = {
    "env": "the environment (AWS_ACCESS_KEY_ID)",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the AWS configuration file",
    "container-role": "the container's role",
    "iam-role": "the machine's role",
    "assume-role": "a role that is taken on",
    "assume-role-with-web-identity": "a web identity",
    "sso": "AWS IAM Identity Center",
}
_UNSIGNED = "every call to DynamoDB is signed with them"
_CREDENTIALS = (
    "give the process a role (a task's, a function's, a machine's), or AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY. To try quartsse without any AWS account: make demo"
)


@dataclass(slots=True)
class Look:
    """A look at AWS. `units` bounds what the window is read for; `spent` is what all of it has cost."""

    settings: Settings
    environment: Mapping[str, str] | None = None
    units: float = 200.0
    verbose: bool = False
    progress: Progress = lambda _: None
    watch: Watch = field(default_factory=Watch)
    spent: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    async def run(self) -> AsyncGenerator[Told]:
        """All of it. What cannot be looked at because of what was found before is skipped, and said to be."""
        yield Heading("Settings")
        for finding in self._settings():
            yield finding
        yield Heading("AWS")
        self.progress("looking for credentials …")
        credentials = await self._credentials()
        yield credentials
        made = await self._client()
        if isinstance(made, Finding):
            yield made
            return
        yield ok("region", self._where(made))
        if credentials.state == "failed":
            yield skipped("tables", "they need credentials first")
            return
        async for told in self._tables(made):
            yield told
        yield Heading("Calls")
        for finding in self._calls():
            yield finding
        self.facts["read_units_spent"] = round(self.spent, 1)

    def _settings(self) -> Iterator[Finding]:
        told = in_force(self.settings, self.environment)
        self.facts["settings"] = [asdict(one) for one in told]
        by = Counter(one.origin for one in told)
        by_place = f", {by['place']} by the place it runs at" if by["place"] else ""
        yield ok("settings", f"{by['environment']} from the environment{by_place}, {by['default']} by default")
        for one in told:
            if one.origin != "default" or self.verbose:
                yield note(one.variable, f"{one.value} ({one.origin})")
        for name, meant in unread(self.environment).items():
            yield warning(
                name,
                "is set, and nothing reads it",
                "a setting whose name is misspelt is not in force",
                f"perhaps {meant} is meant; `quartsse settings` lists all"
                if meant
                else "`quartsse settings` lists all",
            )
        yield from _odd_settings(self.settings)

    async def _credentials(self) -> Finding:
        import boto3
        from botocore.exceptions import BotoCoreError

        try:
            found = await blocking(lambda: boto3.Session().get_credentials(), CALL_SECONDS)
            if found is not None:
                await blocking(found.get_frozen_credentials, CALL_SECONDS)
        except (BotoCoreError, TimeoutError) as error:
            return failed("credentials", str(error) or "no answer from where they come from", _UNSIGNED, _CREDENTIALS)
        if found is None:
            return failed("credentials", "none were found", _UNSIGNED, _CREDENTIALS)
        return ok("credentials", f"from {_METHODS.get(found.method, found.method)}")

    async def _client(self) -> Client | Finding:
        from botocore.exceptions import BotoCoreError

        try:
            return await blocking(lambda: self.watch.over(client(self.settings.region)), CALL_SECONDS)
        except (BotoCoreError, ValueError) as error:
            return failed(
                "region",
                str(error),
                "the tables are looked for in one region",
                "set AWS_REGION to the tables' region, as eu-central-1; check AWS_ENDPOINT_URL_DYNAMODB if it is set",
            )

    def _where(self, made: Client) -> str:
        region, endpoint = made.meta.region_name, made.meta.endpoint_url
        origin = "AWS_REGION" if self.settings.region else "the AWS profile"
        own = "" if ".amazonaws." in endpoint else f", at {endpoint} instead of AWS"
        return f"{region} (from {origin}){own}"

    async def _tables(self, made: Client) -> AsyncIterator[Told]:
        settings = self.settings
        yield Heading(f"Sentiment table {settings.sentiments_table}")
        self.progress("looking at the sentiment table …")
        described = await _described(made, settings.sentiments_table)
        if isinstance(described, SourceError) and (unreached := tables.out_of_reach(described)):
            yield unreached
            return
        async for finding in self._sentiments(made, described):
            yield finding
        if settings.users_table:
            yield Heading(f"Users table {settings.users_table}")
            self.progress("looking at the users table …")
            async for finding in self._users(made, settings.users_table):
                yield finding
        if settings.source == "streams":
            yield Heading(f"Change stream of {settings.sentiments_table}")
            self.progress("looking at the table's stream …")
            async for finding in self._stream(described):
                yield finding

    async def _sentiments(self, made: Client, described: Described) -> AsyncIterator[Finding]:
        settings = self.settings
        for finding in tables.described_or_not(described):
            yield finding
        if not isinstance(described, SourceError):
            for finding in (*tables.table(described), *tables.index(described, settings.index)):
                yield finding
        read = await self._window(made)
        for finding in tables.query(read, settings, described):
            yield finding
        if read.error is None:
            newest = None if read.items or read.skipped else await self._newest(made)
            for finding in tables.window(read, settings, described, newest, self.units):
                yield finding

    async def _window(self, made: Client) -> Read:
        """The window, newest first, as the service reads it when it starts, until it is whole or has cost enough."""
        settings, read = self.settings, Read(low=time.time() - 3600 * self.settings.window_hours)
        source = QuerySource(
            lambda: made,
            settings.sentiments_table,
            settings.index,
            budget=settings.read_budget,
            population=Window(settings.window_hours),
            sleep=_briefly,
        )
        try:
            async for batch in source.read(read.low, whole=True):
                read.items |= {item.key: item for item in batch.items}
                read.skipped += Counter(batch.skipped)
                read.units += batch.units
                read.whole = batch.span is not None
                self.progress(f"reading the window: {len(read.items):,} items, {read.units:,.1f} read units …")
                if read.units >= self.units:
                    break
        except SourceError as error:
            read.error = error
        self.spent += read.units
        return read

    async def _newest(self, made: Client) -> str | None:
        """The timestamp of the newest item in the index, however old; None if there is none."""
        found = []
        for label in LABELS:
            request = query_request(self.settings.sentiments_table, self.settings.index, label, 0, FOREVER)
            try:
                answer = await ask(made, self.settings.index, "Query", **request, Limit=1)
            except SourceError:
                return None
            self.spent += float(answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0))
            found += [record.get("timestamp", {}).get("S", "") for record in answer["Items"]]
        return max(found, default=None)

    async def _users(self, made: Client, name: str) -> AsyncIterator[Finding]:
        keys, variable = self.settings.users_keys, "USERS_TABLE"
        described = await _described(made, name)
        for finding in tables.described_or_not(described):
            yield finding
        if not isinstance(described, SourceError):
            shape = tables.keys_of(described)
            if shape != [(key, "S") for key in keys]:
                yield tables.wrong_user_keys(f"they are {tables.shown(shape)}, and SSE_USERS_KEYS is {','.join(keys)}")
                return
            yield ok("keys", f"{keys[0]} and {keys[1]}, text both")
        store, probe = UsersTable(lambda: made, name, keys), (PROBE, PROBE)
        for action, call in (("GetItem", store.get), ("BatchGetItem", lambda key: store.get_all([key]))):
            try:
                await call(probe)
            except SourceError as error:
                kind = kind_of(error.__cause__)
                if kind == "ResourceNotFoundException":
                    yield tables.no_table(name, variable, error)
                    return
                if kind == "ValidationException":
                    yield tables.wrong_user_keys(tables.said_by(error))
                    return
                why = "without it every private stream is refused with 503, or does not follow its configuration"
                yield tables.refusal(action, f"table/{name}", error, described, why)
            else:
                self.spent += 1.0
                yield ok(action, "allowed, and answered")

    async def _stream(self, described: Described) -> AsyncIterator[Finding]:
        """What the service does with the stream, step by step; the first step that fails is the last."""
        settings, action = self.settings, ""
        what = f"the stream of {settings.sentiments_table}"
        streams = await blocking(lambda: self.watch.over(client(settings.region, "dynamodbstreams")), CALL_SECONDS)

        async def step(name: str, **request: Any) -> dict[str, Any]:
            nonlocal action
            action = name
            return await ask(streams, what, name, **request)

        try:
            arn = settings.stream_arn
            if arn is None:
                listed = (await step("ListStreams", TableName=settings.sentiments_table))["Streams"]
                if not listed:
                    yield tables.no_stream("the table has none")
                    return
                yield ok(action, "allowed, and answered")
                arn = str(max(listed, key=lambda stream: str(stream["StreamLabel"]))["StreamArn"])
            for finding in _newer_stream(arn, described):
                yield finding
            stream = (await step("DescribeStream", StreamArn=arn))["StreamDescription"]
            yield ok(action, "allowed, and answered")
            for finding in tables.stream_shape(stream):
                yield finding
            going = [shard for shard in stream["Shards"] if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
            if not going:
                yield skipped("GetRecords", "the stream has no open shard to read")
                return
            place = {"StreamArn": arn, "ShardId": going[0]["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = (await step("GetShardIterator", **place))["ShardIterator"]
            yield ok(action, "allowed, and answered")
            records = (await step("GetRecords", ShardIterator=iterator, Limit=RECORDS_SAMPLED))["Records"]
            self.spent += 1.0
            yield ok(action, "allowed, and answered")
            yield tables.lateness(records)
        except SourceError as error:
            if kind_of(error.__cause__) == "ResourceNotFoundException":
                yield tables.no_stream(tables.said_by(error))
            else:
                where = f"table/{settings.sentiments_table}/stream/*"
                yield tables.refusal(action, where, error, described, "SSE_SOURCE=streams cannot do without it")

    def _calls(self) -> Iterator[Finding]:
        """What all calls together say of the way to DynamoDB."""
        if self.watch.skew is not None:
            yield _clock(self.watch.skew, self.settings.resume_margin)
        if self.watch.latency is not None:
            yield _latency(self.watch.latency, len(self.watch.seconds))
        if self.watch.throttled:
            calls = ", ".join(f"{count} of {action}" for action, count in self.watch.throttled.items())
            yield tables.throttled("capacity", f"{calls}, of {len(self.watch.seconds)} calls in all")
        yield note("spent", f"{self.spent:,.1f} read units for this look")


def _odd_settings(settings: Settings) -> Iterator[Finding]:
    """Settings that are allowed, and that somebody will be sorry for."""
    if settings.keepalive_interval >= 55:
        yield warning(
            "quiet streams",
            f"a stream may be silent for {settings.keepalive_interval:g} s",
            "load balancers and proxies cut connections that are silent for 60 s, and clients take them for dead",
            "SSE_KEEPALIVE_INTERVAL=15",
        )
    if settings.users_table and settings.ticket_secret is None:
        yield note("tickets", "off: SSE_TICKET_SECRET is not set", "browsers need them to open private streams")


def _newer_stream(arn: str, described: Described) -> Iterator[Finding]:
    latest = None if isinstance(described, SourceError) else described.get("LatestStreamArn")
    if latest and latest != arn:
        yield warning(
            "stream",
            f"{arn} is not the table's newest stream",
            "each time a stream is enabled it gets another ARN, and the old one falls silent",
            f"SSE_STREAM_ARN={latest}, or leave it unset where ListStreams is allowed",
        )


def _clock(skew: float, margin: float) -> Finding:
    """`skew`: how far DynamoDB is ahead. A resume elsewhere goes back by `margin` before the other's watermark."""
    seen = f"this machine's is {abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} DynamoDB's"
    why = "a reader that resumes on another instance loses what lies between their clocks beyond SSE_RESUME_MARGIN"
    cure = "set this machine's clock by NTP (chrony; 169.254.169.123 on AWS)"
    if abs(skew) >= max(margin, SKEW_SECONDS):
        return failed("clock", seen, f"{why} ({margin:g} s); beyond five minutes AWS refuses every call", cure)
    if abs(skew) > SKEW_SECONDS:
        return warning("clock", seen, why, cure)
    return ok("clock", f"within {SKEW_SECONDS:g} s of DynamoDB's")


def _latency(seconds: float, calls: int) -> Finding:
    seen = f"{1000 * seconds:.0f} ms a call (median of {calls})"
    if seconds <= SLOW_SECONDS:
        return ok("latency", seen)
    return warning(
        "latency",
        seen,
        "every poll takes at least that long, and a private stream waits for one call before it opens",
        "run in the tables' region, with a gateway endpoint for DynamoDB; look for a busy NAT or proxy",
    )


async def _described(made: Client, name: str) -> Described:
    try:
        answer: dict[str, Any] = (await ask(made, name, "DescribeTable", TableName=name))["Table"]
    except SourceError as error:
        return error
    return answer


async def _briefly(seconds: float) -> None:
    """Wait between attempts that were throttled, but not as long as a service may: somebody sits before this."""
    await asyncio.sleep(min(seconds, 0.5))
