"""Calls to DynamoDB as the service makes them, watched: how long each took, and what its answer says of the time."""

import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from quartsse.errors import SourceError
from quartsse.feed.blocking import blocking
from quartsse.feed.dynamodb import THROTTLING, Client, source_error

CALL_SECONDS = 10.0


@dataclass(slots=True)
class Watch:
    """What was seen of the answers. `skews`: how far DynamoDB's clock is ahead of ours, in seconds."""

    seconds: list[float] = field(default_factory=list)
    skews: list[float] = field(default_factory=list)
    throttled: Counter[str] = field(default_factory=Counter)
    _sent: tuple[float, float] = (0.0, 0.0)

    def over(self, client: Client) -> Client:
        """Watch every attempt of a client, also those that botocore repeats by itself."""
        client.meta.events.register("before-send", self._sending)
        client.meta.events.register("response-received", self._received)
        return client

    @property
    def skew(self) -> float | None:
        """The median; a `Date` has whole seconds, cut off, so half a second is added to each."""
        return statistics.median(self.skews) if self.skews else None

    @property
    def latency(self) -> float | None:
        """The median time of an attempt, without the first, which also makes the connection."""
        return statistics.median(self.seconds[1:] or self.seconds) if self.seconds else None

    def _sending(self, **_: object) -> None:
        self._sent = (time.monotonic(), time.time())

    def _received(
        self, response_dict: Mapping[str, Any] | None, parsed_response: Mapping[str, Any] | None, **more: Any
    ) -> None:
        if response_dict is None:
            return
        monotonic, wall = self._sent
        took = time.monotonic() - monotonic
        self.seconds.append(took)
        date = _date(response_dict["headers"].get("date"))
        if date is not None:
            self.skews.append(date + 0.5 - (wall + took / 2))
        code = str((parsed_response or {}).get("Error", {}).get("Code", ""))
        if code in THROTTLING:
            self.throttled[str(more["context"].get("operation_name", "a call"))] += 1


def _date(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None


async def ask(client: Client, what: str, action: str, **request: Any) -> dict[str, Any]:
    """One call, by its name at AWS. Raises SourceError, with what botocore raised as its cause."""
    from botocore import xform_name
    from botocore.exceptions import BotoCoreError, ClientError

    def call() -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(client, xform_name(action))(**request)
        except (BotoCoreError, ClientError) as error:
            raise source_error(what, f"dynamodb:{action}", error) from error
        return answer

    try:
        return await blocking(call, CALL_SECONDS)
    except TimeoutError as error:
        raise SourceError(f"cannot read {what}: no answer within {CALL_SECONDS:g} s") from error
