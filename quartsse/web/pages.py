"""The page and its files; the JavaScript client is served even where the page is not."""

import mimetypes
from collections.abc import Sequence
from pathlib import Path

from quart import Blueprint, Response, request
from werkzeug.security import safe_join

from quartsse.errors import NotFound
from quartsse.web.answers import answer, etag

STATIC = Path(__file__).parent / "static"
CLIENT = "quartsse.js"

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def pages(*, dashboard: bool, users: Sequence[str] = ()) -> Blueprint:
    """`/` and `/static/…` when `dashboard` is wanted; `/static/quartsse.js` always.

    `users` are the `user/configuration` pairs that a demo's page offers to view as.
    """
    blueprint = Blueprint("pages", __name__)

    @blueprint.get("/static/<path:name>")
    async def static(name: str) -> Response:
        if not dashboard and name != CLIENT:
            raise NotFound("Not found")
        return await _file(name)

    if dashboard:

        @blueprint.get("/")
        async def page() -> Response:
            return await _file("index.html")

        @blueprint.get("/demo/users")
        async def demo_users() -> Response:
            pairs = [pair.partition("/")[::2] for pair in users]
            return answer({"users": [{"user_id": user, "configurations": [{"config_id": of}]} for user, of in pairs]})

    return blueprint


async def _file(name: str) -> Response:
    """A file, read whole: one that is open while it is sent stays open when its client leaves at the wrong moment."""
    content = _content(name)
    response = Response(content, headers=HEADERS, mimetype=mimetypes.guess_type(name)[0])
    response.set_etag(etag(content))
    await response.make_conditional(request, accept_ranges=True, complete_length=len(content))
    return response


def _content(name: str) -> bytes:
    path = safe_join(str(STATIC), name)
    if path is None or "\0" in path or not Path(path).is_file():
        raise NotFound("Not found")
    return Path(path).read_bytes()
