"""The contract as data: an OpenAPI 3.2 document, made from the events' models and the errors themselves."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from quartsse import __version__
from quartsse.errors import (
    BadRequest,
    FeedStarting,
    LimitReached,
    NotAcceptable,
    NotEnabled,
    NotFound,
    Refused,
    ShuttingDown,
    StoreUnavailable,
    TooManyStreams,
    Unauthorized,
    WrongHost,
)
from quartsse.hub.events import PAYLOADS
from quartsse.hub.filters import TICKER
from quartsse.web.configurations import NO_CONFIGURATIONS, NO_TICKETS, NOT_FOUND
from quartsse.web.parameters import MOST_TICKERS
from quartsse.web.tickets import LIFETIME_SECONDS

type Json = dict[str, Any]

EVENT_ID = r"^evt_[A-Za-z0-9._~-]{1,124}$"
TICKERS = rf"^(\*|[A-Za-z0-9.\-]{{1,10}}(,[A-Za-z0-9.\-]{{1,10}}){{0,{MOST_TICKERS - 1}}})$"
GLOBAL_EVENTS = ("heartbeat", "metrics", "sentiment_update", "resume", "stream_end")
PRIVATE_EVENTS = ("heartbeat", "configuration", "sentiment_update", "resume", "stream_end")


@cache
def document() -> Json:
    """The whole document; made once, when somebody first asks for it."""
    return {
        "openapi": "3.2.0",
        "info": {
            "title": "quartsse",
            "version": __version__,
            "summary": "A DynamoDB table as Server-Sent Events.",
            "description": "A method that a path does not have is answered with 405, `Allow` and a `detail`. "
            "With `on_limit=retry` a 429 or 503 of a stream becomes a 200 that says `stream_end` and ends.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas(),
            "parameters": _parameters(),
            "securitySchemes": {
                "user": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-User-ID",
                    "description": "Set by a trusted layer in front (`SSE_AUTH=header`).",
                },
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "`SSE_AUTH=jwt`."},
                "ticket": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "ticket",
                    "description": "Opens one stream; for clients that cannot set headers.",
                },
            },
        },
    }


def schemas() -> dict[str, Json]:
    """JSON Schema (2020-12) of every event's data, every event, and every other answer."""
    payloads = {
        name: _without_titles(model.model_json_schema(mode="serialization")) for name, model in PAYLOADS.items()
    }
    made = {PAYLOADS[name].__name__: schema for name, schema in payloads.items()}
    made |= {event_name(name): _event(name) for name in PAYLOADS}
    return made | {
        "Feed": _FEED,
        "Status": _STATUS,
        "Quarter": _QUARTER,
        "Snapshot": _snapshot(),
        "ConfigurationSnapshot": _snapshot(configuration=_ref("Configuration")),
        "Ticket": _closed(
            ticket={"type": "string", "minLength": 1},
            expires_in={"const": LIFETIME_SECONDS, "description": "Seconds"},
        ),
    }


def event_name(name: str) -> str:
    """What the schema of an event is called, beside that of its data."""
    return f"{PAYLOADS[name].__name__}Event"


def _event(name: str) -> Json:
    """One event as a client sees it: `data` is text, which holds JSON (OpenAPI 3.2, section 4.14.3)."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": _ref(PAYLOADS[name].__name__)}
    return {
        "type": "object",
        "description": PAYLOADS[name].__doc__ or "",
        "properties": {
            "event": {"const": name},
            "id": {"type": "string", "pattern": EVENT_ID},
            "data": data,
            "retry": {"type": "integer", "minimum": 0, "description": "Milliseconds until a client comes back"},
        },
        "required": ["event", "id", "data"],
    }


def _without_titles(schema: Any) -> Any:
    """A schema without the titles that pydantic makes of the fields' names."""
    if isinstance(schema, dict):
        return {key: _without_titles(value) for key, value in schema.items() if key != "title"}
    return [_without_titles(value) for value in schema] if isinstance(schema, list) else schema


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _closed(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _number(description: str) -> Json:
    return {"type": "number", "minimum": 0, "description": description}


def _number_or_null(description: str) -> Json:
    return {"type": ["number", "null"], "minimum": 0, "description": description}


_COUNT = {"type": "integer", "minimum": 0}
_FEED_STATE = {"enum": ["starting", "live", "stale", "idle"]}
_TICKER = {"type": "string", "pattern": f"^{TICKER.pattern}$"}

_FEED = {
    **_closed(
        state=_FEED_STATE,
        age_seconds=_number_or_null("Since the last complete read"),
        items=_COUNT,
        sweep_seconds=_number_or_null("How long the last complete coverage of the window took"),
        read_units_per_minute=_number("What reading costs"),
        lateness_seconds={
            "oneOf": [{"type": "null"}, _closed(p50={"type": "number"}, p99={"type": "number"})],
            "description": "From the timestamp of a new item to when it was first seen",
        },
        hot_seconds=_number_or_null("How far back from now every read reaches"),
    ),
}
_FEED["properties"] |= {
    "reason": {"type": "string", "description": "What the last failed read said"},
    "advice": {"type": "string", "description": "What would make the feed faster"},
}

_STATUS = _closed(
    connections=_COUNT,
    max_connections=_COUNT,
    available=_COUNT,
    uptime_seconds=_COUNT,
    version={"type": "string"},
    instance={"type": "string"},
    feed=_ref("Feed"),
)

_QUARTER = {
    **_closed(
        start={"type": "string", "format": "date-time"},
        positive=_COUNT,
        neutral=_COUNT,
        negative=_COUNT,
        tickers={
            "type": "object",
            "propertyNames": _TICKER,
            "additionalProperties": _closed(count=_COUNT, mean_score={"type": "number", "minimum": -1, "maximum": 1}),
        },
    ),
    "description": "A quarter of an hour of the window",
}


def _snapshot(**more: Json) -> Json:
    return _closed(
        id={"type": "string", "pattern": EVENT_ID, "description": "Can be resumed from"},
        feed=_FEED_STATE,
        metrics=_ref("Metrics"),
        sentiment_updates={"type": "array", "items": _ref("SentimentUpdate")},
        history={"type": "array", "items": _ref("Quarter")},
        **more,
    )


# --- parameters -----------------------------------------------------------------------------------------------------


def _parameters() -> dict[str, Json]:
    def parameter(place: str, name: str, description: str, schema: Json) -> Json:
        required = {"required": True} if place == "path" else {}
        return {"name": name, "in": place, "description": description, **required, "schema": schema}

    return {
        "tickers": parameter(
            "query",
            "tickers",
            f"1-{MOST_TICKERS} symbols, separated by commas, whatever their case; `*` for all.",
            {"type": "string", "pattern": TICKERS},
        ),
        "last_event_id": parameter(
            "query", "last_event_id", "For clients that cannot set `Last-Event-ID`, which wins.", {"type": "string"}
        ),
        "last_event_id_header": parameter("header", "Last-Event-ID", "Where to go on from.", {"type": "string"}),
        "on_limit": parameter(
            "query", "on_limit", "Asks for a 200 that ends at once instead of a 429 or 503.", {"const": "retry"}
        ),
        "config_id": parameter("path", "config_id", "One of the user's configurations.", {"type": "string"}),
        "if_none_match": parameter("header", "If-None-Match", "The `ETag` of the last answer.", {"type": "string"}),
    }


_ASKED = ("tickers", "last_event_id", "last_event_id_header", "on_limit")


def _takes(*names: str) -> list[Json]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


# --- answers --------------------------------------------------------------------------------------------------------

_MISSING_USER = Unauthorized("Missing user identification")
_INVALID_TOKEN = Unauthorized("Invalid token")
_INVALID_TICKET = Unauthorized("Invalid ticket")
_FREE = (BadRequest, NotAcceptable, WrongHost)
"""Those whose `detail` names what was wrong, each time in other words."""


def _refusals(*errors: Refused) -> Json:
    """The answers of these errors, by status; each body exactly as it is sent."""
    answers: Json = {}
    for status in sorted({error.status for error in errors}):
        these = [error for error in errors if error.status == status]
        bodies = [_body(error) for error in these]
        headers = {name: {"schema": {"type": "string"}} for error in these for name in error.headers()}
        answers[str(status)] = {
            "description": " ".join(dict.fromkeys((type(error).__doc__ or "").partition("\n")[0] for error in these)),
            **({"headers": headers} if headers else {}),
            "content": {"application/json": {"schema": bodies[0] if len(bodies) == 1 else {"oneOf": bodies}}},
        }
    return answers


def _body(error: Refused) -> Json:
    """What an error's body looks like: all of it is fixed but for a limit that is a setting, and some details."""
    body: Mapping[str, object] = error.body()
    free: Json = {"max_connections": {"type": "integer", "minimum": 1}}
    if isinstance(error, _FREE):
        free["detail"] = {"type": "string", "minLength": 1}
    return _closed(**{name: free.get(name, {"const": value}) for name, value in body.items()})


def _json(description: str, schema: Json, **headers: str) -> Json:
    named = {
        name.replace("_", "-"): {"description": text, "schema": {"type": "string"}} for name, text in headers.items()
    }
    return {
        "description": description,
        **({"headers": named} if named else {}),
        "content": {"application/json": {"schema": schema}},
    }


def _stream(names: Sequence[str]) -> Json:
    fixed = {
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
        "X-Content-Type-Options": "nosniff",
    }
    return {
        "description": "The events, for as long as both sides like.",
        "headers": {name: {"schema": {"const": value}} for name, value in fixed.items()},
        "content": {"text/event-stream": {"itemSchema": {"oneOf": [_ref(event_name(name)) for name in names]}}},
    }


# --- paths ----------------------------------------------------------------------------------------------------------

_HOST = WrongHost("the name that was asked for")
_PRIVATE = (
    _MISSING_USER,
    _INVALID_TOKEN,
    NotFound(NOT_FOUND),
    NotEnabled(NO_CONFIGURATIONS),
    StoreUnavailable(),
    _HOST,
)
_OPENING = (
    BadRequest("a parameter, and what it may be"),
    NotAcceptable("what is not accepted"),
    ShuttingDown(),
    LimitReached(100),
    TooManyStreams(),
)


def _operation(operation: str, summary: str, responses: Json, **more: Any) -> Json:
    return {"operationId": operation, "summary": summary, **more, "responses": responses}


def _both(operation: str, summary: str, responses: Json, **more: Any) -> Json:
    """GET of a stream, and HEAD, which takes no slot and so meets no limit."""
    ways = {
        status: {key: value for key, value in answer.items() if key != "content"}
        for status, answer in responses.items()
        if status != "429"
    }
    return {
        "get": _operation(operation, summary, responses, **more),
        "head": _operation(f"{operation}_head", "The head of the same; takes no slot.", ways, **more),
    }


def _paths() -> Json:
    private: list[Json] = [{"user": []}, {"token": []}]
    unchanged = {
        "304": {"description": "Still what `If-None-Match` names.", "headers": {"ETag": {"schema": {"type": "string"}}}}
    }
    bad = BadRequest("a parameter, and what it may be")
    return {
        "/api/v2/stream": _both(
            "stream",
            "Heartbeats and totals; with `tickers`, their updates.",
            {"200": _stream(GLOBAL_EVENTS), **_refusals(*_OPENING, _HOST)},
            parameters=_takes(*_ASKED),
        ),
        "/api/v2/configurations/{config_id}/stream": _both(
            "configuration_stream",
            "Heartbeats, a configuration, and the updates of its tickers.",
            {
                "200": _stream(PRIVATE_EVENTS),
                **_refusals(*_OPENING, *_PRIVATE, _INVALID_TICKET, NotEnabled(NO_TICKETS)),
            },
            parameters=_takes("config_id", *_ASKED),
            security=[*private, {"ticket": []}],
        ),
        "/api/v2/stream/snapshot": {
            "get": _operation(
                "snapshot",
                "The current state, for who cannot stream.",
                {
                    "200": _json("The current state.", _ref("Snapshot"), ETag="Of everything but `id` and `history`."),
                    **unchanged,
                    **_refusals(bad, FeedStarting(), _HOST),
                },
                parameters=_takes(*_ASKED, "if_none_match"),
            )
        },
        "/api/v2/configurations/{config_id}/snapshot": {
            "get": _operation(
                "configuration_snapshot",
                "The current state of a configuration's tickers.",
                {
                    "200": _json(
                        "The current state.",
                        _ref("ConfigurationSnapshot"),
                        ETag="Of everything but `id` and `history`.",
                    ),
                    **unchanged,
                    **_refusals(bad, FeedStarting(), *_PRIVATE),
                },
                parameters=_takes("config_id", *_ASKED, "if_none_match"),
                security=private,
            )
        },
        "/api/v2/stream/status": {
            "get": _operation(
                "status",
                "How many streams are open, and how the feed is.",
                {"200": _json("The status.", _ref("Status")), **_refusals(_HOST)},
            )
        },
        "/api/v2/stream/tickets": {
            "post": _operation(
                "ticket",
                "A ticket that opens one stream for its user.",
                {
                    "201": _json("The ticket.", _ref("Ticket")),
                    **_refusals(_MISSING_USER, _INVALID_TOKEN, _HOST, NotEnabled(NO_TICKETS)),
                },
                security=private,
            )
        },
        "/health": {
            "get": _operation(
                "health", "Whether the process answers.", {"200": _json("It does.", _closed(status={"const": "ok"}))}
            )
        },
        "/health/feed": {
            "get": _operation(
                "feed_health",
                "Whether the feed is fresh: for an alarm, never for a load balancer.",
                {
                    "200": _json("`live`, `starting` or `idle`.", _ref("Feed")),
                    "503": _json("`stale`, with the reason.", _ref("Feed")),
                    **_refusals(_HOST),
                },
            )
        },
        "/openapi.json": {
            "get": _operation(
                "openapi", "This document.", {"200": _json("This document.", {"type": "object"}), **_refusals(_HOST)}
            )
        },
        "/metrics": {
            "get": _operation(
                "metrics",
                "The service's own metrics, where `SSE_METRICS=prometheus`.",
                {
                    "200": {
                        "description": "Prometheus text.",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    },
                    **_refusals(NotFound("Not found"), _HOST),
                },
            )
        },
        "/static/quartsse.js": {
            "get": _operation(
                "client",
                "The JavaScript client.",
                {
                    "200": {
                        "description": "An ES module.",
                        "content": {"text/javascript": {"schema": {"type": "string"}}},
                    },
                    **_refusals(_HOST),
                },
            )
        },
    }
