"""requests-sse, in a loop for what it does not come back from. Arguments: address, user, `once` for no loop."""

import json
import sys
import time

import requests
from requests_sse import EventSource

url, user, *once = sys.argv[1:]
last_event_id, delay = "", 1.0
while True:
    try:
        headers = {"X-User-ID": user}
        with EventSource(url, headers=headers, timeout=60, latest_event_id=last_event_id) as source:
            for event in source:
                last_event_id = event.last_event_id
                line = {"event": event.type, "id": event.last_event_id, "data": json.loads(event.data)}
                print(json.dumps(line), flush=True)
    except requests.RequestException as error:
        refused = error.response
        delay = float(refused.headers.get("Retry-After", 1)) if refused is not None else 1.0
    if once:
        break
    time.sleep(delay)
