"""The refusals, word for word as the contract has them."""

import re

import pytest

from quartsse import errors
from quartsse.errors import Refused


@pytest.mark.parametrize(
    ("refused", "status", "body", "headers"),
    [
        (
            errors.LimitReached(100),
            503,
            {"detail": "Connection limit reached. Try again later.", "max_connections": 100, "retry_after": 30},
            {"Retry-After": "30"},
        ),
        (
            errors.TooManyStreams(),
            429,
            {"detail": "Too many streams for this client.", "retry_after": 30},
            {"Retry-After": "30"},
        ),
        (
            errors.StoreUnavailable(),
            503,
            {"detail": "Configuration store unavailable", "retry_after": 5},
            {"Retry-After": "5"},
        ),
        (errors.FeedStarting(), 503, {"detail": "Feed is starting", "retry_after": 2}, {"Retry-After": "2"}),
        (
            errors.ShuttingDown(),
            503,
            {"detail": "Server is shutting down. Reconnect.", "retry_after": 1},
            {"Retry-After": "1"},
        ),
        (
            errors.Unauthorized("Invalid token", challenge=True),
            401,
            {"detail": "Invalid token"},
            {"WWW-Authenticate": "Bearer"},
        ),
        (errors.Unauthorized("Missing user identification"), 401, {"detail": "Missing user identification"}, {}),
        (errors.Unauthorized("Invalid ticket"), 401, {"detail": "Invalid ticket"}, {}),
        (errors.BadRequest("tickers: 1 to 50"), 400, {"detail": "tickers: 1 to 50"}, {}),
        (errors.NotAcceptable("Accept excludes it"), 406, {"detail": "Accept excludes it"}, {}),
        (errors.WrongHost("not a name of this server"), 421, {"detail": "not a name of this server"}, {}),
        (errors.NotEnabled("Not enabled."), 501, {"detail": "Not enabled."}, {}),
        (errors.NotFound("Configuration not found"), 404, {"detail": "Configuration not found"}, {}),
    ],
)  # fmt: skip
def test_a_refusal_has_its_status_body_and_headers(
    refused: Refused, status: int, body: dict[str, object], headers: dict[str, str]
) -> None:
    assert (refused.status, refused.body(), refused.headers()) == (status, body, headers)
    assert list(refused.body()) == list(body), "in this order"


def test_another_method_names_those_that_are_allowed() -> None:
    refused = errors.MethodNotAllowed("POST", "GET, HEAD")
    assert (refused.status, refused.headers()) == (405, {"Allow": "GET, HEAD"})
    assert "POST" in refused.detail
    assert "GET, HEAD" in refused.detail


CLASSES = [value for value in vars(errors).values() if isinstance(value, type)]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_is_one_of_ours_and_in_the_tree_that_the_module_begins_with(error: type) -> None:
    assert issubclass(error, errors.QuartsseError)
    assert re.search(rf"\b{error.__name__}\b", errors.__doc__ or "")


@pytest.mark.parametrize("error", [one for one in CLASSES if issubclass(one, Refused)], ids=lambda one: one.__name__)
def test_every_refusal_has_a_status_in_the_tree_and_a_reason_of_its_own(error: type[Refused]) -> None:
    assert error is Refused or str(error.status) in (errors.__doc__ or "")
    others = {one.reason for one in CLASSES if issubclass(one, Refused) and one is not error}
    assert error.reason not in others
