"""The page and its files; the JavaScript client is served even where the page is not."""

from pathlib import Path

from quart import Blueprint, Response, send_from_directory

from quartsse.errors import NotFound

STATIC = Path(__file__).parent / "static"
CLIENT = "quartsse.js"

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def pages(*, dashboard: bool) -> Blueprint:
    """`/` and `/static/…` when `dashboard` is wanted; `/static/quartsse.js` always."""
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

    return blueprint


async def _file(name: str) -> Response:
    response = await send_from_directory(STATIC, name)
    response.headers.update(HEADERS)
    return response
