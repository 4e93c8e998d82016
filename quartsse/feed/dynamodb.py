"""DynamoDB's client: made late, impatient, and without the expensive half of its parsing."""

import json
from collections.abc import Callable
from typing import Any

type Client = Any
"""A low-level boto3 client; its methods exist at run time only."""


def client(region: str | None = None, service: str = "dynamodb") -> Client:
    """A client with time-outs of seconds. Blocks for about 0.3 s the first time: boto3 is imported here.

    Endpoint and credentials come from AWS's own variables, and the region where none is given.
    """
    import boto3
    from botocore.config import Config

    settings = Config(
        connect_timeout=1,
        read_timeout=2,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=8,
        tcp_keepalive=True,
        user_agent_extra="quartsse",
        parameter_validation=False,
    )
    made = boto3.client(service, region_name=region, config=settings)
    for operation, member in (("Query", "Items"), ("GetRecords", "Records")):
        made.meta.events.register(f"before-parse.*.{operation}", _keep_plain(member))
    return made


def lazily(make: Callable[[], Client]) -> Callable[[], Client]:
    """The same client for every call, made by the first."""
    made: list[Client] = []

    def get() -> Client:
        if not made:
            made.append(make())
        return made[0]

    return get


def _keep_plain(member: str) -> Callable[..., None]:
    """A handler that takes a list out of an answer before botocore parses it, and puts it back as plain JSON.

    botocore walks every attribute of every item by its model: 38 ms of CPU for 1,000 items, against 8 for `json`.
    The low-level form of an item is the same either way, but for binary attributes, which are not asked for.
    """

    def before_parse(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
        if response_dict["status_code"] != 200:
            return
        try:
            answer = json.loads(response_dict["body"])
        except ValueError:
            return  # botocore says what is wrong with it
        if isinstance(answer, dict) and isinstance(answer.get(member), list):
            customized_response_dict[member] = answer.pop(member)
            response_dict["body"] = json.dumps(answer).encode()

    return before_parse
