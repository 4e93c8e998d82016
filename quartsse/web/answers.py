"""Answers that are no streams: JSON, whole."""

import json
from collections.abc import Mapping
from hashlib import blake2b

from quart import Response

from quartsse.errors import Refused


def answer(body: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; not kept by caches."""
    return Response(
        json.dumps(body, separators=(",", ":")),
        status,
        headers={"Cache-Control": "no-cache", **(headers or {})},
        content_type="application/json",
    )


def refusal(error: Refused) -> Response:
    """The answer to a request that is refused."""
    return answer(error.body(), status=error.status, headers=error.headers())


def etag(body: bytes) -> str:
    """The entity tag of some bytes."""
    return blake2b(body, digest_size=12).hexdigest()
