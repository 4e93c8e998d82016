"""The deadline of a Lambda invocation, as the Web Adapter hands it on."""

import json

from quartsse.web.origins import Headers, values

CONTEXT = b"x-amzn-lambda-context"


def seconds_left(headers: Headers, now: float) -> float | None:
    """Seconds until Lambda cuts the response; None if the header does not say.

    Only to be asked on Lambda: there the adapter replaces whatever a client sent, elsewhere the header is the
    client's. The key is `deadline`, in Unix milliseconds; the adapter's own documentation calls it `deadline_ms`.
    """
    sent = values(headers, CONTEXT)
    if len(sent) != 1:
        return None
    try:
        context = json.loads(sent[0])
    except ValueError:
        return None
    deadline = context.get("deadline", context.get("deadline_ms")) if isinstance(context, dict) else None
    if isinstance(deadline, bool) or not isinstance(deadline, int | float):
        return None
    return deadline / 1000 - now
