"""Chromium's own EventSource, on a page of the service's origin, made anew when it has given up.

Arguments: address, user (which it cannot send), and `once` for never anew.
"""

import asyncio
import json
import os
import sys
from urllib.parse import urljoin

from playwright.async_api import async_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
NAMES = ["heartbeat", "metrics", "sentiment_update", "configuration", "resume", "stream_end"]
READ = """
([url, names, once]) => {
  let last = "";
  const open = () => {
    const address = new URL(url);
    if (last) address.searchParams.set("last_event_id", last);
    const source = new EventSource(address);
    for (const name of names) {
      source.addEventListener(name, ({ lastEventId, data }) => {
        last = lastEventId;
        report(name, lastEventId, data);
      });
    }
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED && !once) setTimeout(open, 1000);
    });
  };
  open();
}
"""


def report(name: str, last_event_id: str, data: str) -> None:
    print(json.dumps({"event": name, "id": last_event_id, "data": json.loads(data)}), flush=True)


async def main(url: str, *once: str) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page()
        await page.expose_function("report", report)
        await page.goto(urljoin(url, "/health"))
        await page.evaluate(READ, [url, NAMES, bool(once)])
        await asyncio.Event().wait()


url, _, *words = sys.argv[1:]
asyncio.run(main(url, *words))
