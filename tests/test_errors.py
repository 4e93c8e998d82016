"""The refusals, word for word as the contract has them."""

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
        (errors.NotFound("Configuration not found"), 404, {"detail": "Configuration not found"}, {}),
    ],
)  # fmt: skip
def test_a_refusal_has_its_status_body_and_headers(
    refused: Refused, status: int, body: dict[str, object], headers: dict[str, str]
) -> None:
    assert (refused.status, refused.body(), refused.headers()) == (status, body, headers)
    assert next(iter(refused.body())) == "detail"


def test_another_method_names_those_that_are_allowed() -> None:
    refused = errors.MethodNotAllowed("POST", "GET, HEAD")
    assert (refused.status, refused.headers()) == (405, {"Allow": "GET, HEAD"})
    assert "POST" in refused.detail
    assert "GET, HEAD" in refused.detail


def test_every_error_is_in_the_tree_that_the_module_begins_with() -> None:
    classes = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert [name for name in classes if name == "ClassVar" or name not in (errors.__doc__ or "")] == []
