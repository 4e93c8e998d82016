"""The app: the routes, and what holds for every request."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from quart import Quart, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from quartsse.errors import MethodNotAllowed, NotFound, Refused
from quartsse.telemetry.meter import Meter
from quartsse.web.answers import answer, refusal
from quartsse.web.configurations import Private, configuration_routes
from quartsse.web.openings import Openings
from quartsse.web.origins import is_preflight
from quartsse.web.pages import pages
from quartsse.web.parts import Parts
from quartsse.web.routes import contract, health, routes, scraped

MOST_BODY = 1024
ANY_HOST = {"/health"}
"""Paths that answer to every name: load balancers probe by address."""


class App(Quart):
    """Quart, for which every target of a request is a path: it raises at an empty one, and at what is no URL."""

    async def asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection's scope."""
        if "path" in scope:
            scope = {**scope, "path": _path(scope["path"])}
        await super().asgi_app(scope, receive, send)


def _path(target: str) -> str:
    """The path in a target, which may be a whole URL (RFC 9112, section 3.2.2), or anything."""
    if not target.startswith("/"):
        try:
            target = urlsplit(target).path
        except ValueError:
            target = ""
    return target if target.startswith("/") else f"/{target}"


def create_app(openings: Openings, private: Private, meter: Meter | None = None) -> Quart:
    """The ASGI app; with `/metrics` for Prometheus if there is a meter."""
    parts = openings.parts
    app = App(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BODY
    app.url_map.merge_slashes = False  # a path is ours or it is not: no redirect to a place that the Host header names
    app.register_blueprint(routes(openings))
    app.register_blueprint(configuration_routes(openings, private))
    app.register_blueprint(health(parts))
    app.register_blueprint(contract())
    if meter is not None:
        app.register_blueprint(scraped(meter))
    app.register_blueprint(pages(dashboard=parts.dashboard, users=parts.dashboard_users))
    _guard(app, parts)
    return app


def _guard(app: Quart, parts: Parts) -> None:
    """The host, preflights, CORS on every answer, errors as JSON."""

    @app.before_request
    async def check() -> Response | None:
        headers = list(request.scope["headers"])
        if request.path not in ANY_HOST:
            parts.hosts.check(headers)
        if is_preflight(request.method, headers):
            return Response("", 204, headers=parts.cors.preflight(headers, _methods()))
        return None

    @app.after_request
    async def allow_origin(response: Response) -> Response:
        _add_to(response, parts.cors.headers(list(request.scope["headers"])))
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    @app.errorhandler(Refused)
    async def refuse(error: Refused) -> Response:
        parts.tell(error)
        return refusal(error)

    @app.errorhandler(HTTPException)
    async def refuse_as_json(error: HTTPException) -> Response:
        if isinstance(error, WrongMethod):
            return refusal(MethodNotAllowed(request.method, ", ".join(_methods())))
        if error.code == NotFound.status:
            return refusal(NotFound("Not found"))
        return answer({"detail": error.description or error.name}, status=error.code or 500)


def _add_to(response: Response, headers: Mapping[str, str]) -> None:
    """Add headers that the answer does not have yet; what it varies by is added to what is there."""
    for name, value in headers.items():
        if name == "Vary":
            response.vary.add(value)
        else:
            response.headers.setdefault(name, value)


def _methods() -> list[str]:
    """The methods that this request's path has."""
    failure = request.routing_exception
    if isinstance(failure, WrongMethod):
        return sorted({*(failure.valid_methods or ()), "OPTIONS"})
    return sorted(request.url_rule.methods or ()) if request.url_rule else []
