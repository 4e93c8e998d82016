"""What the docs name is there: pages and their parts, variables, paths."""

import re
from collections import Counter
from pathlib import Path

import pytest

from quartsse.feed.source import MemorySource
from quartsse.service import make_openings, make_parts, make_private
from quartsse.settings import VARIABLES, settings_from
from quartsse.web.app import create_app
from tests.docs.blocks import ROOT, pages

MADE_BY_TERRAFORM = {"SSE_TICKET_SECRET_ARN"}
ids = [str(page.relative_to(ROOT)) for page in pages()]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


@pytest.mark.parametrize("page", pages(), ids=ids)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", pages(), ids=ids)
def test_every_variable_of_ours_is_a_setting(page: Path) -> None:
    named = set(re.findall(r"\bSSE_[A-Z]+(?:_[A-Z]+)*\b(?![_…])", page.read_text()))
    assert named <= VARIABLES | MADE_BY_TERRAFORM


async def test_every_path_is_a_route() -> None:
    settings = settings_from({"SENTIMENTS_TABLE": "none", "USERS_TABLE": "none", "SSE_DASHBOARD": "1"})
    parts = make_parts(settings, lambda _: MemorySource())
    app = create_app(make_openings(settings, parts), make_private(settings, parts))
    routes = app.url_map.bind("localhost")
    lost = [(page, path) for page, path in named_paths() if not routes.test(path) and not routes.allowed_methods(path)]
    assert lost == []


def named_paths() -> list[tuple[str, str]]:
    """Every path of ours that a page names; in a proxy's patterns `*` stands for anything."""
    found = [
        (page.name, path.rstrip("*").replace("*", "any"))
        for page in pages()
        for path in re.findall(r"(?:/api/v2|/static|/health)/?[\w./{}*-]*[\w}*]", page.read_text())
    ]
    assert len(found) > 20
    return found
