"""sseclient-py over requests, in a loop. Arguments: address, user, and `once` for no loop."""

import json
import sys
import time

import requests
import sseclient

url, user, *once = sys.argv[1:]
headers, delay = {"Accept": "text/event-stream", "X-User-ID": user}, 1.0
while True:
    try:
        with requests.get(url, stream=True, headers=headers, timeout=(5, 60)) as response:
            if response.ok:
                for event in sseclient.SSEClient(response.iter_content(None)).events():
                    headers["Last-Event-ID"] = event.id or ""
                    delay = delay if event.retry is None else int(event.retry) / 1000
                    line = {"event": event.event, "id": event.id, "data": json.loads(event.data)}
                    print(json.dumps(line), flush=True)
            else:
                delay = float(response.headers.get("Retry-After", delay))
    except requests.RequestException:
        pass
    if once:
        break
    time.sleep(delay)
