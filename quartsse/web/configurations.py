"""Streams of one's own: a user's configuration, its stream and its snapshot, and tickets to open it with."""

from collections.abc import Callable
from dataclasses import dataclass

from quart import Blueprint, Response, request

from quartsse.errors import NotEnabled, NotFound, SourceError, StoreUnavailable
from quartsse.feed.configurations import Configurations, Key, Saved
from quartsse.hub.events import Configuration, Event
from quartsse.hub.filters import Filter
from quartsse.hub.hub import Hub
from quartsse.hub.ids import Place
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


MOST_REMEMBERED = 20_000
"""Configurations whose last change is remembered: some 5 MB."""


class Changes:
    """When each configuration's tickers last changed, in the hub's numbers, for readers who come back.

    Who was away meanwhile gets the last update of every ticker: those of the new ones were published before, and to
    others. Those that were opened longest ago are forgotten; then whoever comes back gets what was missed, no more.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._last: dict[Key, tuple[int, int]] = {}

    def note(self, key: Key, saved: Saved) -> Callable[[Place], bool]:
        """Say what a configuration is now; whether it has been so since a place can be asked of what is returned."""
        tickers = hash(frozenset(saved.tickers))
        before, changed_at = self._last.pop(key, (tickers, -1))
        if before != tickers:
            changed_at = self._hub.place.number
        self._last[key] = (tickers, changed_at)
        if len(self._last) > MOST_REMEMBERED:
            del self._last[next(iter(self._last))]
        return lambda place: place.instance == self._hub.instance and place.number > changed_at


def configuration_routes(openings: Openings, private: Private) -> Blueprint:
    """The paths that belong to a user."""
    blueprint = Blueprint("configurations", __name__)
    parts, changes = openings.parts, Changes(openings.parts.hub)

    @blueprint.get("/api/v2/configurations/<config_id>/stream")
    async def stream(config_id: str) -> Response:
        async def start(slot: Slot, wanted: Asked, user: User | None) -> Stream:
            if user is None:
                raise NotFound(NOT_FOUND)
            saved = await _saved(private, user, config_id)
            show = _Show(parts.hub, changes, (user.id, config_id), wanted)
            stream = parts.streams.start(slot, show.view(saved), wanted.last_event_id)
            if private.configurations is not None:
                stream.on_close = private.configurations.follow(show.key, saved, show.changes_of(stream))
            if user.expires_at is not None:
                stream.end_after(user.expires_at - parts.streams.clock.wall(), "unauthorized")
            return stream

        return await openings.open(
            start,
            lambda wanted: _user(private, wanted.ticket),
            lambda user: _saved(private, user, config_id),
        )

    @blueprint.get("/api/v2/configurations/<config_id>/snapshot")
    async def snapshot_of(config_id: str) -> Response:
        wanted = openings.asked()
        user = await _user(private)
        saved = await _saved(private, user, config_id)
        changes.note((user.id, config_id), saved)
        configuration = Configuration(config_id=saved.config_id, name=saved.name, tickers=list(saved.tickers))
        return await snapshot(parts, _filter(saved, wanted), {"configuration": configuration.model_dump()})

    @blueprint.post("/api/v2/stream/tickets")
    async def tickets() -> Response:
        user = await private.authenticator.user(list(request.scope["headers"]))
        if private.tickets is None:
            raise NotEnabled(NO_TICKETS)
        ticket = {"ticket": private.tickets.issue(user), "expires_in": LIFETIME_SECONDS}
        return answer(ticket, status=201, headers={"Cache-Control": "no-store"})

    return blueprint


NOT_FOUND = "Configuration not found"
NO_CONFIGURATIONS = "Configuration streams are not enabled on this server."
NO_TICKETS = "Tickets are not enabled on this server."


async def _user(private: Private, ticket: str | None = None) -> User:
    """Whoever asks: by ticket, where one is shown, else as the settings say. `HEAD` does not use a ticket up."""
    if ticket is not None:
        if private.tickets is None:
            raise NotEnabled(NO_TICKETS)
        return private.tickets.redeem(ticket, keep=request.method == "HEAD")
    return await private.authenticator.user(list(request.scope["headers"]))


async def _saved(private: Private, user: User, config_id: str) -> Saved:
    """The user's configuration. One answer for unknown, inactive and foreign; and never that for a failed read."""
    if private.configurations is None:
        raise NotEnabled(NO_CONFIGURATIONS)
    try:
        saved = await private.configurations.get((user.id, config_id))
    except SourceError as error:
        raise StoreUnavailable from error
    if saved is None:
        raise NotFound(NOT_FOUND)
    return saved


@dataclass(frozen=True, slots=True)
class _Show:
    """What one request sees of a configuration, now and whenever it changes."""

    hub: Hub
    changes: Changes
    key: Key
    wanted: Asked

    def view(self, saved: Saved) -> View:
        """The view of a configuration as it is now."""

        def state() -> Event:
            payload = Configuration(config_id=saved.config_id, name=saved.name, tickers=list(saved.tickers))
            return self.hub.event("configuration", payload)

        return View(_filter(saved, self.wanted), state, self.changes.note(self.key, saved), private=True)

    def changes_of(self, stream: Stream) -> Callable[[Saved | None], None]:
        """What a stream does when its configuration changes."""

        def changed(saved: Saved | None) -> None:
            if saved is None:
                stream.end("configuration_removed", 1000)
            else:
                stream.show(self.view(saved))

        return changed


def _filter(saved: Saved, wanted: Asked) -> Filter:
    """The configuration's tickers; if some were asked for, only those of them."""
    saved_ones = frozenset(saved.tickers)
    return Filter(saved_ones & wanted.tickers if wanted.tickers else saved_ones, metrics=False)
