"""DynamoDB's client: made late, impatient, and without the expensive half of its parsing."""

import json
import threading
from collections.abc import Callable
from typing import Any

from quartsse import __version__
from quartsse.errors import SourceError

type Client = Any
"""A low-level boto3 client; its methods exist at run time only."""


def client(
    region: str | None = None,
    service: str = "dynamodb",
    *,
    patience: float = 2.0,
    on_throttle: Callable[[], object] | None = None,
) -> Client:
    """A client that waits `patience` seconds for an answer. Blocks for about 0.3 s the first time: boto3 is imported.

    Endpoint and credentials come from AWS's own variables, and the region where none is given. `on_throttle` is called,
    in the calling thread, for each answer that asks for patience, also where botocore's own retry then gets through.
    """
    import boto3
    from botocore.config import Config

    settings = Config(
        connect_timeout=1,
        read_timeout=patience,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=8,
        tcp_keepalive=True,
        user_agent=f"quartsse/{__version__} Boto3/{boto3.__version__}",  # botocore's own is built twice for each call
        parameter_validation=False,
    )
    made = boto3.client(service, region_name=region, config=settings)
    for operation, (member, kind) in _MEMBERS.items():
        made.meta.events.register(f"before-parse.*.{operation}", _checked(member, kind))
    if on_throttle is not None:
        made.meta.events.register("response-received", _told_of_throttling(on_throttle))
    return made


def lazily(make: Callable[[], Client]) -> Callable[[], Client]:
    """The same client for every call, made by the first; other threads wait for it, since making one is not safe."""
    made: list[Client] = []
    making = threading.Lock()

    def get() -> Client:
        with making:
            if not made:
                made.append(make())
        return made[0]

    return get


THROTTLING = {
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "LimitExceededException",
}

_ADVICE = {
    "ResourceNotFoundException": "it does not exist in this region and account; check its name and AWS_REGION",
    "AccessDeniedException": "access denied; allow this role {action} on it",
    "UnrecognizedClientException": "these AWS credentials are not known; check them and AWS_REGION",
    "InvalidSignatureException": "the request's signature was refused; check the credentials and this machine's clock",
    "ExpiredTokenException": "these AWS credentials have expired",
    "NoCredentialsError": "no AWS credentials were found; give the process a role or AWS_ACCESS_KEY_ID and its kin",
    "PartialCredentialsError": "the AWS credentials are incomplete",
    "NoRegionError": "no region is set; set AWS_REGION",
    "EndpointConnectionError": "DynamoDB's address does not accept connections",
    "ConnectTimeoutError": "DynamoDB's address does not answer",
    "ReadTimeoutError": "DynamoDB took too long to answer",
    "ConnectionClosedError": "the connection to DynamoDB broke off",
    "ResponseStreamingError": "what answered is not DynamoDB, or broke off",
} | dict.fromkeys(THROTTLING, "throttled; give it more capacity, or lower SSE_READ_BUDGET or raise SSE_POLL_INTERVAL")


def source_error(what: str, action: str, error: Exception) -> SourceError:
    """The SourceError of what botocore raised: what could not be read, and what to do about it.

    AWS's own words name accounts, roles and addresses. They are for the log, as the cause; this text may be shown.
    """
    kind = kind_of(error)
    said = str(error)
    if kind == "ValidationException" and "index" in said:
        return SourceError(f"cannot read {what}: the table has no such index; check SSE_INDEX")
    if kind == "ResourceNotFoundException" and "index" in said.lower():
        return SourceError(f"cannot read {what}: the table has no such index; check SSE_INDEX")
    advice = _ADVICE.get(kind, "DynamoDB refused or failed").format(action=action)
    return SourceError(f"cannot read {what}: {advice} ({kind})")


def kind_of(error: BaseException | None) -> str:
    """The name of what went wrong: DynamoDB's code, or else botocore's class."""
    answer = getattr(error, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return str(code or type(error).__name__)


def throttled(error: SourceError) -> bool:
    """Whether DynamoDB asked for patience."""
    return kind_of(error.__cause__) in THROTTLING


def _told_of_throttling(tell: Callable[[], object]) -> Callable[..., None]:
    """A handler of botocore's `response-received`, which comes once for each attempt."""

    def received(parsed_response: dict[str, Any] | None, **_: object) -> None:
        if parsed_response is not None and parsed_response.get("Error", {}).get("Code") in THROTTLING:
            tell()

    return received


_MEMBERS: dict[str, tuple[str, type]] = {
    "Query": ("Items", list),
    "GetItem": ("Item", dict),
    "BatchGetItem": ("Responses", dict),
    "ListStreams": ("Streams", list),
    "DescribeStream": ("StreamDescription", dict),
    "GetShardIterator": ("ShardIterator", str),
    "GetRecords": ("Records", list),
}
"""What every good answer of an operation has; but GetItem's is next to empty where there is no `Item`."""

_GET_ITEM = {"Item", "ConsumedCapacity"}


def _checked(member: str, kind: type) -> Callable[..., None]:
    """A handler that lets no answer pass that is not DynamoDB's whole one, and spares botocore the lists.

    Half an answer, or a captive portal's page, is to botocore an answer without content: as if the item were not there.
    And it walks every attribute of every item by its model: 38 ms of CPU for 1,000 items, against 8 for `json`. So a
    list is taken out before and put back as plain JSON; the low-level form of an item is the same either way, but for
    binary attributes, which are not asked for.
    """

    def before_parse(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
        answer = _object_in(response_dict["body"])
        if response_dict["status_code"] != 200:
            if answer is None:
                response_dict["body"] = b"{}"  # some proxy's; botocore would fail on it with whatever Python raises
        elif answer is None or not _is_whole(answer, member, kind):
            from botocore.exceptions import ResponseStreamingError

            raise ResponseStreamingError(error="not a whole answer of DynamoDB's")
        elif kind is list:
            customized_response_dict[member] = answer.pop(member)
            response_dict["body"] = json.dumps(answer).encode()

    return before_parse


def _is_whole(answer: dict[str, Any], member: str, kind: type) -> bool:
    if member == "Item" and member not in answer:
        return answer.keys() <= _GET_ITEM
    return isinstance(answer.get(member), kind)


def _object_in(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is; None if it is anything else."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
