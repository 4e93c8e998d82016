"""The page and its files; the JavaScript client is served even where the page is not."""

from collections.abc import Sequence
from pathlib import Path

from quart import Blueprint, Response, send_from_directory

from quartsse.errors import NotFound
from quartsse.web.answers import answer

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
    response = await send_from_directory(STATIC, name)
    response.headers.update(HEADERS)
    return response
