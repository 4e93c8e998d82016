import base64
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartsse.errors import Unauthorized
from quartsse.hub.clock import Clock
from quartsse.web import tickets as module
from quartsse.web.auth import User
from quartsse.web.tickets import LONGEST_TICKET, Tickets

SECRET = "a secret of at least thirty-two bytes"
ALICE = User("alice")


@dataclass
class Time:
    """A clock that stands still until it is told."""

    now: float = 1_764_671_400.0

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, wall=lambda: self.now)


def tickets(time: Time | None = None, secret: str = SECRET) -> Tickets:
    return Tickets(secret, (time or Time()).clock())


def assert_refused(by: Tickets, ticket: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        by.redeem(ticket)
    assert refusal.value.body() == {"detail": "Invalid ticket"}
    assert refusal.value.__context__ is None


@pytest.mark.parametrize("user", [ALICE, User("ålice ✓", 1_764_675_000.25), User("x" * 256)])
def test_a_ticket_stands_for_the_user_who_asked_for_it(user: User) -> None:
    ours = tickets()
    assert ours.redeem(ours.issue(user)) == user


@given(st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=64))
def test_a_ticket_needs_no_escaping_in_a_query(name: str) -> None:
    ticket = tickets().issue(User(name))
    assert ticket.replace("-", "").replace("_", "").isalnum()
    assert ticket.isascii()
    assert len(ticket) <= LONGEST_TICKET


def test_a_ticket_opens_one_stream() -> None:
    ours = tickets()
    ticket = ours.issue(ALICE)
    ours.redeem(ticket)
    assert_refused(ours, ticket)


def test_another_instance_with_the_same_secret_takes_it() -> None:
    time = Time()
    assert tickets(time).redeem(tickets(time).issue(ALICE)) == ALICE


def test_another_secret_does_not() -> None:
    time = Time()
    assert_refused(tickets(time, "another secret of thirty-two bytes"), tickets(time).issue(ALICE))


@pytest.mark.parametrize(("seconds", "alive"), [(29.9, True), (30, False), (3600, False), (-5, True), (-6, False)])
def test_a_ticket_lives_thirty_seconds_and_instances_clocks_may_differ_a_little(seconds: float, alive: bool) -> None:
    time = Time()
    ours = tickets(time)
    ticket = ours.issue(ALICE)
    time.now += seconds
    if alive:
        assert ours.redeem(ticket) == ALICE
    else:
        assert_refused(ours, ticket)


def test_a_ticket_dies_with_the_token_it_was_bought_with() -> None:
    time = Time()
    ours = tickets(time)
    ticket = ours.issue(User("alice", expires_at=time.now + 10))
    time.now += 10
    assert_refused(ours, ticket)


def test_a_used_ticket_is_forgotten_only_when_it_would_be_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    monkeypatch.setattr(module, "KEPT", 0)
    time = Time()
    ours = tickets(time)
    used = [ours.issue(ALICE) for _ in range(3)]
    for ticket in used:
        ours.redeem(ticket)
    # Full: refusing a good ticket is better than taking a used one.
    assert_refused(ours, ours.issue(ALICE))
    time.now += 29.9
    for ticket in used:
        assert_refused(ours, ticket)
    assert_refused(ours, ours.issue(ALICE))
    time.now += 5.1
    assert ours.redeem(ours.issue(ALICE)) == ALICE
    for ticket in used:
        assert_refused(ours, ticket)


def test_a_wall_clock_that_is_set_back_revives_no_ticket_that_was_used() -> None:
    time = Time()
    ours = Tickets(SECRET, Clock(monotonic=lambda: time.now, wall=lambda: time.now - set_back))
    set_back = 0.0
    used = [ours.issue(ALICE) for _ in range(3)]
    for ticket in used:
        ours.redeem(ticket)
    time.now += 3600
    ours.redeem(ours.issue(ALICE))
    set_back = 3600.0
    for ticket in used:
        assert_refused(ours, ticket)


def test_a_ticket_that_is_kept_is_still_good_once_and_a_used_one_is_not_kept() -> None:
    ours = tickets()
    ticket = ours.issue(ALICE)
    assert [ours.redeem(ticket, keep=True), ours.redeem(ticket, keep=True), ours.redeem(ticket)] == [ALICE] * 3
    with pytest.raises(Unauthorized):
        ours.redeem(ticket, keep=True)


def test_no_bit_of_a_ticket_can_be_changed() -> None:
    ours = tickets()
    ticket = ours.issue(User("alice", 1_764_675_000.0))
    signed = base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))
    for place in range(len(signed) * 8):
        changed = bytearray(signed)
        changed[place // 8] ^= 1 << place % 8
        assert_refused(ours, base64.urlsafe_b64encode(changed).rstrip(b"=").decode())
    assert ours.redeem(ticket).id == "alice"


def test_a_ticket_has_one_spelling() -> None:
    ours = tickets()
    ticket = next(t for t in iter(lambda: ours.issue(User("ab")), None) if len(t) % 4)
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = ticket[:-1] + last[last.index(ticket[-1]) ^ 1]
    for spelling in (other, ticket + "=", ticket + "\n", " " + ticket, ticket.replace(ticket[0], ticket[0] + "!", 1)):
        assert_refused(ours, spelling)
    assert ours.redeem(ticket) == User("ab")


@given(st.one_of(st.text(), st.text("ABCDabcd0123-_=", max_size=600), st.binary().map(lambda b: b.decode("latin-1"))))
def test_garbage_is_refused_and_nothing_else_happens(garbage: str) -> None:
    assert_refused(tickets(), garbage)


def test_a_ticket_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tickets()
    monkeypatch.setattr(module, "_VERSION", 2)
    ticket = ours.issue(ALICE)
    monkeypatch.undo()
    assert_refused(ours, ticket)


def test_a_short_secret_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="SSE_TICKET_SECRET has 31 bytes, fewer than 32"):
        tickets(secret="x" * 31)
    assert Tickets(b"\xff" * 32, Time().clock())


def test_the_refusal_carries_the_challenge_where_tokens_are_used() -> None:
    with pytest.raises(Unauthorized) as refusal:
        Tickets(SECRET, Time().clock(), challenge=True).redeem("nonsense")
    assert refusal.value.headers() == {"WWW-Authenticate": "Bearer"}
