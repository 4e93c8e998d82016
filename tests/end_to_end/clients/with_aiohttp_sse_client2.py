"""aiohttp-sse-client2, in a loop for what it does not come back from. Arguments: address, user, `once` for no loop."""

import asyncio
import json
import sys

import aiohttp
from aiohttp_sse_client2.client import EventSource

url, user, *once = sys.argv[1:]


async def main() -> None:
    headers = {"X-User-ID": user}
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)  # aiohttp's own ends every stream after five minutes
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            try:
                async with EventSource(url, session=session, headers=headers) as source:
                    async for event in source:
                        headers["Last-Event-Id"] = event.last_event_id
                        line = {"event": event.type, "id": event.last_event_id, "data": json.loads(event.data)}
                        print(json.dumps(line), flush=True)
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                if once:
                    return
                await asyncio.sleep(1)


asyncio.run(main())
