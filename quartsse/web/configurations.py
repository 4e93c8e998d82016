"""Streams of one's own: a user's configuration, its stream and its snapshot, and tickets to open it with."""

from collections.abc import Callable
from dataclasses import dataclass

from quart import Blueprint, Response, request

from quartsse.errors import NotEnabled, NotFound, SourceError, StoreUnavailable
from quartsse.feed.configurations import Configurations, Saved
from quartsse.hub.events import Configuration, Event
from quartsse.hub.filters import Filter
from quartsse.hub.hub import Hub
from quartsse.web.answers import answer
from quartsse.web.auth import Authenticator, User
from quartsse.web.limits import Slot
from quartsse.web.openings import Openings
from quartsse.web.parameters import Asked
from quartsse.web.snapshots import snapshot
from quartsse.web.stream import Stream, View
from quartsse.web.tickets import LIFETIME_SECONDS, Tickets


@dataclass(frozen=True, slots=True)
class Private:
    """What private streams need: who the user is, their tickets, and their configurations; None where not enabled."""

    authenticator: Authenticator
    tickets: Tickets | None
    configurations: Configurations | None


def configuration_routes(openings: Openings, private: Private) -> Blueprint:
    """The paths that belong to a user."""
    blueprint = Blueprint("configurations", __name__)
    parts = openings.parts

    @blueprint.get("/api/v2/configurations/<config_id>/stream")
    async def stream(config_id: str) -> Response:
        async def start(slot: Slot, wanted: Asked, user: User | None) -> Stream:
            if user is None:
                raise NotFound(_NOT_FOUND)
            return _start(openings, private, slot, wanted, (user, await _saved(private, user, config_id)))

        return await openings.open(start, lambda: _user(private, with_ticket=True))

    @blueprint.get("/api/v2/configurations/<config_id>/snapshot")
    async def snapshot_of(config_id: str) -> Response:
        wanted = openings.asked()
        user = await _user(private, with_ticket=False)
        saved = await _saved(private, user, config_id)
        configuration = Configuration(config_id=saved.config_id, name=saved.name, tickers=list(saved.tickers))
        return await snapshot(parts, _filter(saved, wanted), {"configuration": configuration.model_dump()})

    @blueprint.post("/api/v2/stream/tickets")
    async def tickets() -> Response:
        user = await private.authenticator.user(list(request.scope["headers"]))
        if private.tickets is None:
            raise NotEnabled("Tickets are not enabled on this server.")
        return answer({"ticket": private.tickets.issue(user), "expires_in": LIFETIME_SECONDS}, status=201)

    return blueprint


_NOT_FOUND = "Configuration not found"


async def _user(private: Private, *, with_ticket: bool) -> User:
    """Whoever asks: by ticket, where one is shown, else as the settings say."""
    ticket = request.args.get("ticket")
    if with_ticket and ticket is not None:
        if private.tickets is None:
            raise NotEnabled("Tickets are not enabled on this server.")
        return private.tickets.redeem(ticket)
    return await private.authenticator.user(list(request.scope["headers"]))


async def _saved(private: Private, user: User, config_id: str) -> Saved:
    """The user's configuration. One answer for unknown, inactive and foreign; and never that for a failed read."""
    if private.configurations is None:
        raise NotEnabled("Configuration streams are not enabled on this server.")
    try:
        saved = await private.configurations.get((user.id, config_id))
    except SourceError as error:
        raise StoreUnavailable from error
    if saved is None:
        raise NotFound(_NOT_FOUND)
    return saved


def _start(openings: Openings, private: Private, slot: Slot, wanted: Asked, whose: tuple[User, Saved]) -> Stream:
    """A stream of a configuration that follows its changes, and ends with it or with the user's token."""
    user, saved = whose
    streams = openings.parts.streams
    stream = streams.start(slot, _view(openings.parts.hub, saved, wanted), wanted.last_event_id)
    if private.configurations is not None:
        key = (user.id, saved.config_id)
        stream.on_close = private.configurations.follow(key, saved, _follower(openings.parts.hub, stream, wanted))
    if user.expires_at is not None:
        stream.end_after(user.expires_at - streams.clock.wall(), "unauthorized")
    return stream


def _follower(hub: Hub, stream: Stream, wanted: Asked) -> Callable[[Saved | None], None]:
    """What a stream does when its configuration changes."""

    def changed(saved: Saved | None) -> None:
        if saved is None:
            stream.end("configuration_removed", 1000)
        else:
            stream.show(_view(hub, saved, wanted))

    return changed


def _filter(saved: Saved, wanted: Asked) -> Filter:
    """The configuration's tickers; if some were asked for, only those of them."""
    saved_ones = frozenset(saved.tickers)
    return Filter(saved_ones & wanted.tickers if wanted.tickers else saved_ones, metrics=False)


def _view(hub: Hub, saved: Saved, wanted: Asked) -> View:
    def state() -> Event:
        payload = Configuration(config_id=saved.config_id, name=saved.name, tickers=list(saved.tickers))
        return hub.event("configuration", payload)

    return View(_filter(saved, wanted), state)
