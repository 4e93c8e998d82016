"""The contract on paper: `docs/openapi.json` and `docs/events.md`, made from what the code says."""

import json
from typing import Any

import click

from quartsse.hub.events import (
    PAYLOADS,
    Configuration,
    Heartbeat,
    Metrics,
    Payload,
    Resume,
    SentimentUpdate,
    StreamEnd,
    event,
)
from quartsse.web.openapi import GLOBAL_EVENTS, PRIVATE_EVENTS, document, schemas

EXAMPLES: dict[str, tuple[str, Payload]] = {
    "heartbeat": (
        "h1.~",
        Heartbeat(
            timestamp="2026-11-24T12:13:23.152Z",
            connections=15,
            uptime_seconds=3600,
            feed="live",
            feed_age_seconds=0.412,
        ),
    ),
    "metrics": (
        "m4.bg4hwryl.12.1795522403152",
        Metrics(
            total=614,
            positive=241,
            neutral=190,
            negative=183,
            by_tag={"AAPL": 77, "MSFT": 61},
            rate_last_hour=39,
            rate_last_24h=614,
            timestamp="2026-11-24T12:13:23.463Z",
        ),
    ),
    "sentiment_update": (
        "4qjjop4ioyzke-wrzqqb7f.bg4hwryl.13.1795522403152",
        SentimentUpdate(
            ticker="AAPL",
            score=0.91,
            label="positive",
            confidence=0.91,
            source="tiingo",
            timestamp="2026-11-24T12:13:20.994Z",
            count=78,
            mean_score=0.68,
        ),
    ),
    "configuration": ("c2.~", Configuration(config_id="tech", name="Technology", tickers=["AAPL", "MSFT"])),
    "resume": ("r1.bg4hwryl.12.1795522403152", Resume(mode="exact", replayed=3)),
    "stream_end": ("e1.bg4hwryl.13.1795522403152", StreamEnd(reason="draining", retry_ms=4127)),
}
"""One of each, with its identity and place."""

_WHEN = {
    "heartbeat": "First of all, every `SSE_HEARTBEAT_INTERVAL`, and when `feed` changes.",
    "metrics": "In the opening, when a count changes, and at least every `SSE_METRICS_INTERVAL`. "
    "None before the window has been read whole.",
    "sentiment_update": "One per item and ticker: when an item with a sentiment appears, or its sentiment, score or "
    "confidence changes. In the opening, the last one of every ticker asked for.",
    "configuration": "In the opening, and on every change.",
    "resume": "After the first heartbeat, for a client that sent a `Last-Event-ID`.",
    "stream_end": "Last, when the server ends the stream; `retry` says the same as `retry_ms`.",
}


@click.command()
@click.argument("page", type=click.Choice(["openapi", "events"]))
def contract(page: str) -> None:
    """Print the contract as data, as docs/openapi.json and docs/events.md have it."""
    click.echo(openapi() if page == "openapi" else events(), nl=False)


def openapi() -> str:
    """`docs/openapi.json`."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def events() -> str:
    """`docs/events.md`."""
    made = schemas()
    return _PAGE + "\n".join(_section(name, made) for name in PAYLOADS)


def _section(name: str, made: dict[str, Any]) -> str:
    schema = made[PAYLOADS[name].__name__]
    id_, payload = EXAMPLES[name]
    identity, _, place = id_.partition(".")
    rows = "\n".join(
        f"| `{field}` | {_type(about)} | {about.get('description', '')} |"
        for field, about in schema["properties"].items()
    )
    where = [text for text, names in (("global", GLOBAL_EVENTS), ("private", PRIVATE_EVENTS)) if name in names]
    return _SECTION.format(
        name=name,
        what=schema["description"],
        when=_WHEN[name],
        where=" and ".join(where),
        rows=rows,
        frame=event(name, identity, payload).frame(place).decode().rstrip("\n"),
    )


def _type(schema: dict[str, Any]) -> str:
    """A property's type in words."""
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema["type"])
    if kind == "array":
        return f"list of {_type(schema['items'])}s"
    if kind == "object":
        return f"{_type(schema['additionalProperties'])} per key"
    if schema.get("format") == "date-time":
        return "time"
    low, high = schema.get("minimum"), schema.get("maximum")
    return kind if low is None else f"{kind}, {low:g} or more" if high is None else f"{kind}, {low:g} to {high:g}"


_PAGE = """# Events

Made from the models in `quartsse/hub/events.py`: `quartsse contract events > docs/events.md`. The same as JSON Schema
is in [openapi.json](openapi.json), which a running service has at `/openapi.json`.

Every event has an `event`, an `id`, and `data`: one line of compact JSON. Times are UTC, to the millisecond. An id says
two things: up to the first `.`, what the event is; the rest, where to go on from. A client sends the last one back as
`Last-Event-ID`, and drops a `sentiment_update` when its first part equals the last one that it saw for the same item
and ticker (up to the `-`).

"""

_SECTION = """## `{name}`

{what} On {where} streams. {when}

```
{frame}
```

| field | type | meaning |
| --- | --- | --- |
{rows}
"""


if __name__ == "__main__":
    contract()
