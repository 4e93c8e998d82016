"""httpx-sse, in the loop that its docs suggest. Arguments: address, user, and `once` for no loop."""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

url, user, *once = sys.argv[1:]
last_event_id, delay = "", 1.0
with httpx.Client(timeout=httpx.Timeout(5, read=60)) as client:  # read: twice the heartbeat
    while True:
        headers = {"X-User-ID": user}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                source.response.raise_for_status()
                for sse in source.iter_sse():
                    last_event_id = sse.id
                    delay = delay if sse.retry is None else sse.retry / 1000
                    if sse.data:  # it gives blocks without data as well
                        print(json.dumps({"event": sse.event, "id": sse.id, "data": json.loads(sse.data)}), flush=True)
        except httpx.HTTPStatusError as error:
            delay = float(error.response.headers.get("Retry-After", delay))
        except httpx.TransportError:
            pass
        if once:
            break
        time.sleep(delay)
