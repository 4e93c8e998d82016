import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quartsse.hub.ids import NOWHERE, Place, digest, new_instance, own_place, place_in

PROMISED = re.compile(rb"evt_[A-Za-z0-9._~-]{1,124}")
"""What the contract says of ids, as bytes."""

instances = st.from_regex(re.compile(r"[a-z2-7]{8}"), fullmatch=True)
places = st.builds(
    Place,
    instances,
    st.integers(0, 10**15 - 1),
    st.integers(0, 10**15 - 1).map(lambda milliseconds: milliseconds / 1000),
)


def id_of(place: Place | str, identity: str = "abc-def") -> str:
    return f"evt_{identity}.{place}"


@given(places)
def test_a_place_comes_back_from_the_id_that_carries_it(place: Place) -> None:
    found = place_in(id_of(place))
    assert found is not None
    assert (found.instance, found.number) == (place.instance, place.number)
    assert place.watermark - 0.002 <= found.watermark <= place.watermark


@given(places, st.from_regex(re.compile(r"[A-Za-z0-9_~-]{1,60}"), fullmatch=True))
def test_every_id_is_as_promised(place: Place, identity: str) -> None:
    written = id_of(place, identity).encode()
    assert PROMISED.fullmatch(written)
    assert len(written) <= 128


def test_a_watermark_is_never_rounded_up() -> None:
    found = place_in(id_of(Place("abcdefgh", 1, 1000.0019)))
    assert found is not None
    assert found.watermark == 1000.001


@given(st.text(max_size=140) | st.from_regex(re.compile(r"evt_.*\.[a-z]+\.[0-9]+\.[0-9]+")))
@example("")
@example("evt_")
@example("evt_a")
@example("evt_a.~")
@example("evt_.abc.1.1")
@example("evt_a.abc.1.1\n")
@example("evt_a.abc.1.1\x00")
@example("evt_a.abc.1.1.1")
@example("evt_a.abc.-1.1")
@example("evt_a.abc.1.1e9")
@example("evt_a.abc.\u0661.1")
@example("evt_a.ABC.1.1")
@example("evt_a.abc.1." + "9" * 16)
@example("evt_" + "a" * 61 + ".abc.1.1")
@example("evt_a.b\r\nevent: forged.1.1")
def test_whatever_a_client_sends_is_a_place_or_none_and_nothing_else_is_given_back(sent: str) -> None:
    place = place_in(sent)
    echoed = own_place(sent)
    assert (echoed == NOWHERE) is (place is None)
    assert PROMISED.fullmatch(id_of(echoed).encode())


def test_of_the_nonsense_above_none_is_a_place() -> None:
    for sent in (
        "",
        "evt_a.~",
        "evt_.abc.1.1",
        "evt_a.abc.1.1\n",
        "evt_a.abc.-1.1",
        "evt_a.abc.\u0661.1",
        "evt_a.ABC.1.1",
    ):
        assert place_in(sent) is None


def test_a_place_is_given_back_as_it_was_written() -> None:
    assert own_place("evt_a.abc.0007.0900") == "abc.0007.0900"


@pytest.mark.parametrize("sent", [None, "", "nonsense", "evt_a.~"])
def test_who_has_no_place_gets_one_that_leads_to_a_new_opening(sent: str | None) -> None:
    assert own_place(sent) == NOWHERE
    assert place_in(id_of(NOWHERE)) is None


def test_ten_thousand_instances_have_ten_thousand_names() -> None:
    names = {new_instance() for _ in range(10_000)}
    assert len(names) == 10_000
    assert all(re.fullmatch(r"[a-z2-7]{8}", name) for name in names)


@given(st.text(), st.integers(1, 20))
@example("\ud800", 8)
@example("a\nb", 8)
def test_a_digest_fits_into_an_id_whatever_it_is_of(text: str, size: int) -> None:
    assert re.fullmatch(r"[a-z2-7]+", digest(text, size))
    assert digest(text, size) == digest(text, size)


def test_a_digest_is_the_same_on_every_instance_and_in_every_release() -> None:
    """An instance of the last release must drop what one of the next repeats."""
    assert digest("reuters:1\nAAPL", 8) == "d3dtnvnyvljhq"
