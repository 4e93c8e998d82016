"""The contract's schemas, to hold what a service sends against."""

import json
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from quartsse.hub.events import PAYLOADS
from quartsse.web.openapi import document, event_name


def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A validator of a schema of the document, or in it."""
    return Draft202012Validator({**schema, "components": document()["components"]})


EVENTS = {name: validator(document()["components"]["schemas"][event_name(name)]) for name in PAYLOADS}
DATA = {name: validator(document()["components"]["schemas"][PAYLOADS[name].__name__]) for name in PAYLOADS}


def validate(name: str, event: Mapping[str, str]) -> None:
    """Hold one event, as its fields, to its schema, and what its data holds to that of its data."""
    EVENTS[name].validate(dict(event))
    DATA[name].validate(json.loads(event["data"]))
