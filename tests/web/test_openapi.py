"""The contract as data: equal to what is committed, and to what the service does."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from jsonschema import Draft202012Validator, ValidationError
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth
from schemathesis.specs.openapi.definitions import OPENAPI_32

from quartsse.errors import LimitReached, StoreUnavailable, TooManyStreams
from quartsse.feed.configurations import Saved
from quartsse.feed.source import MemorySource
from quartsse.hub.events import PAYLOADS
from quartsse.service import make_openings, make_parts, make_private
from quartsse.settings import settings_from
from quartsse.telemetry.meter import Meter
from quartsse.tools.reference import EXAMPLES, events, openapi
from quartsse.web.app import create_app
from quartsse.web.openapi import document
from tests.schemas import validate, validator
from tests.web.serving import QUICK, item, serving

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = {"/", "/demo/users", "/static/{name}"}
"""The page's own paths: no client's business."""


def test_what_is_committed_is_what_the_code_says() -> None:
    assert (DOCS / "openapi.json").read_text() == openapi(), "quartsse contract openapi > docs/openapi.json"
    assert (DOCS / "events.md").read_text() == events(), "quartsse contract events > docs/events.md"


def test_it_is_openapi_3_2_and_its_schemas_are_json_schema() -> None:
    Draft202012Validator(OPENAPI_32).validate(document())
    for schema in document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere() -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            node = list(node.values())
        if isinstance(node, list):
            for one in node:
                yield from references(one)

    for reference in set(references(document())):
        found: Any = document()
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


async def test_every_route_is_in_it_and_nothing_else() -> None:
    chosen = settings_from({**QUICK, "SSE_DASHBOARD": "1", "SSE_METRICS": "prometheus"})
    parts = make_parts(chosen, lambda _: MemorySource([]))
    app = create_app(make_openings(chosen, parts), make_private(chosen, parts), Meter())
    routes = {rule.rule.replace("<path:", "{").replace("<", "{").replace(">", "}") for rule in app.url_map.iter_rules()}
    assert routes - PAGES == set(document()["paths"]) - {"/static/quartsse.js"}


async def test_it_is_served() -> None:
    async with serving() as service:
        reply = await service.get("/openapi.json")
        assert reply.headers["content-type"] == "application/json"
        assert await reply.json() == document()


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_example_of_an_event_fits_its_schema(name: str) -> None:
    identity, payload = EXAMPLES[name]
    validate(name, {"event": name, "id": f"evt_{identity}", "data": payload.model_dump_json()})


@pytest.mark.parametrize(
    "change",
    [
        {"event": "resume"},
        {"id": "7"},
        {"id": "evt_" + "x" * 125},
        {"data": "{}"},
        {"data": '{"reason":"tired","retry_ms":1}'},
        {"data": '{"reason":"lagged","retry_ms":-1}'},
        {"data": '{"reason":"lagged","retry_ms":1,"more":1}'},
        {"data": "no json"},
    ],
)
def test_an_event_that_breaks_its_contract_does_not_fit(change: dict[str, str]) -> None:
    whole = {"event": "stream_end", "id": "evt_e1.~", "data": '{"reason":"lagged","retry_ms":1}'}
    validate("stream_end", whole)
    with pytest.raises((ValidationError, ValueError)):
        validate("stream_end", whole | change)


@pytest.mark.parametrize("error", [LimitReached(7), TooManyStreams(), StoreUnavailable()], ids=lambda e: e.reason)
def test_an_error_fits_exactly(error: Any) -> None:
    answer = document()["paths"]["/api/v2/configurations/{config_id}/stream"]["get"]["responses"][str(error.status)]
    fits = validator(answer["content"]["application/json"]["schema"])
    assert fits.is_valid(error.body())
    assert not fits.is_valid(error.body() | {"detail": "Something else"})
    assert not fits.is_valid(error.body() | {"retry_after": 1000})
    assert set(answer["headers"]) == set(error.headers())


# --- against the running service ------------------------------------------------------------------------------------

SAVED = {("ann", "one"): Saved("one", "Mine", ("AAPL", "MSFT"))}
SECRET = "thirty-two-bytes-and-a-few-more-for-tickets"


NOT_HERE = [ignored_auth]
"""With `SSE_AUTH=header` whoever the header names is who asks: there are no credentials to be invalid."""


def ask_everything(address: str, examples: int) -> set[tuple[str, int]]:
    """Let schemathesis ask for everything in the document and judge every answer; the statuses that came, by name."""
    seen: set[tuple[str, int]] = set()
    for result in schemathesis.openapi.from_dict(document()).get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        mine = {"config_id": "one"} if "{config_id}" in operation.path else {}
        wrong = [(GenerationMode.NEGATIVE, mine)] if operation.query else []
        for mode, chosen in (
            (GenerationMode.POSITIVE, mine),
            (GenerationMode.POSITIVE, {}),
            *wrong,
        ):

            @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @seed(7)
            @given(case=operation.as_strategy(mode, path_parameters=chosen or None))
            def ask(case: schemathesis.Case[Any]) -> None:
                whose = {"X-User-ID": "ann"} if case.operation.security else {}
                response = case.call_and_validate(base_url=address, headers=whose, timeout=10, excluded_checks=NOT_HERE)
                seen.add((case.operation.definition.raw["operationId"], response.status_code))

            ask()
    return seen


async def test_schemathesis_finds_nothing() -> None:
    items = [item(f"a:{number}", "AAPL", "MSFT", at=time.time() - number) for number in range(5)]
    # Streams end by themselves, so that whoever reads one to its end comes to it.
    bounded = serving(*items, saved=SAVED, SSE_MAX_STREAM_AGE="0.1", SSE_TICKET_SECRET=SECRET)
    async with bounded as service:
        seen = await asyncio.to_thread(ask_everything, f"http://127.0.0.1:{service.port}", 3)
    assert {("stream", 200), ("stream", 400), ("configuration_stream", 200), ("configuration_stream", 404)} <= seen
    assert {("snapshot", 200), ("configuration_snapshot", 200), ("status", 200), ("ticket", 201)} <= seen
