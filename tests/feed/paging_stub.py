"""A DynamoDB with a large index and nothing else, in its own process: `python -m tests.feed.paging_stub 100000`.

Answers Query over HTTP by `arithmetic.Index`; the emulators are too slow for a hundred thousand items. It ends when
its standard input does.
"""

import json
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from quartsse.feed.items import LABELS
from quartsse.hub.clock import iso
from tests.feed.arithmetic import Index

TICKERS = [f"{a}{b}{c}" for a in "ABCDE" for b in "KLMNO" for c in "VWXYZ"]


def large_index(count: int, item_bytes: int, seed: int = 1) -> Index:
    """An index of items over the last 23 hours, of one to three tickers each."""
    index, chance, now = Index(item_bytes), random.Random(seed), time.time()
    times = sorted(now - 60 - chance.random() * 23 * 3600 for _ in range(count))
    for n, moment in enumerate(times):
        tickers = chance.sample(TICKERS, chance.choice((1, 1, 2, 3)))
        score = f"{chance.random():.4f}"
        index.put(f"tiingo:{n:09d}{chance.getrandbits(64):x}", iso(moment), LABELS[n % 3], score, *tickers)
    return index


def main() -> None:
    """Serve until standard input ends."""
    index = large_index(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1200)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(index.query(**request)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
