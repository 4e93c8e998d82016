"""The page's files, as they lie there: what can be held without a browser."""

import gzip
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import quartsse.web

STATIC = Path(quartsse.web.__file__).parent / "static"
SCRIPTS = sorted(path for path in STATIC.rglob("*.js") if "vendor" not in path.parts)
OURS = [*SCRIPTS, STATIC / "quartsse.d.ts", STATIC / "page.css", STATIC / "index.html", STATIC / "icon.svg"]
TSC = Path(__file__).parents[1] / "node_modules" / "typescript" / "bin" / "tsc"
SVG_NAMESPACE = "http://www.w3.org/2000/svg"

# What gets past `default-src 'self'`'s spirit even where the policy would stop it: text taken for markup or code.
MARKUP_FROM_TEXT = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|DOMParser|document\.write|\beval\(|new Function"
    r"|setAttribute\(\s*[\"'](?:style|on\w+)"
)

type Element = tuple[str, dict[str, str | None]]


class Page(HTMLParser):
    """The elements of a document, and the text inside each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.inline: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"} and data.strip():
            self.inline.append(data)

    def values(self, *names: str) -> list[str]:
        return [value for _, attributes in self.elements for name in names if (value := attributes.get(name))]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page((STATIC / "index.html").read_text(encoding="utf-8"))


def compressed(path: Path) -> int:
    return len(gzip.compress(path.read_bytes(), 6))


def test_the_page_has_no_script_or_style_of_its_own(page: Page) -> None:
    assert page.inline == []
    assert "style" not in [tag for tag, _ in page.elements]


def test_no_element_carries_a_style_or_a_handler(page: Page) -> None:
    carried = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in carried if name == "style" or name.startswith("on")}


def test_every_address_on_the_page_is_relative_so_that_it_works_below_a_prefix(page: Page) -> None:
    for address in page.values("href", "src", "action"):
        assert not re.match(r"[a-z]+:|/", address), address


def test_every_file_that_the_page_asks_for_is_there(page: Page) -> None:
    files = [address for address in page.values("href", "src") if address.startswith("static/")]
    assert "static/page/main.js" in files
    for file in files:
        assert (STATIC.parent / file).is_file(), file


def test_every_icon_that_the_page_uses_is_defined(page: Page) -> None:
    defined = {attributes.get("id") for tag, attributes in page.elements if tag == "symbol"}
    used = {attributes["href"] for tag, attributes in page.elements if tag == "use"}
    assert used
    assert {str(address).removeprefix("#") for address in used} <= defined


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_points_outside(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace(SVG_NAMESPACE, "")
    assert not re.search(r"https?://|[\"'(]//[a-z]", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_text_never_becomes_markup_or_code(path: Path) -> None:
    assert not MARKUP_FROM_TEXT.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_modules_import_only_files_beside_them(path: Path) -> None:
    for name in re.findall(r"^import .*from \"([^\"]+)\";$", path.read_text(encoding="utf-8"), re.MULTILINE):
        assert name.startswith("."), name
        assert (path.parent / name).is_file(), name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_modules_look_for_elements_that_are_on_the_page(path: Path, page: Page) -> None:
    ids = set(page.values("id"))
    wanted = re.findall(r"(?:\$|setText|getElementById)\(\"([^\"]+)\"", path.read_text(encoding="utf-8"))
    assert set(wanted) <= ids


def test_ids_are_unique(page: Page) -> None:
    ids = page.values("id")
    assert sorted(ids) == sorted(set(ids))


def test_labels_and_descriptions_point_at_elements_that_are_there(page: Page) -> None:
    ids = set(page.values("id"))
    named = page.values("for", "aria-labelledby", "aria-describedby", "aria-controls")
    assert {name for names in named for name in names.split()} <= ids


def test_every_canvas_has_a_table_beside_it(page: Page) -> None:
    ids = set(page.values("id"))
    charts = [
        str(attributes["id"]) for _, attributes in page.elements if "chart" in str(attributes.get("class")).split()
    ]
    assert len(charts) == 2
    for chart in charts:
        assert chart.replace("-chart", "-table") in ids


def test_live_regions_do_not_read_out_the_log(page: Page) -> None:
    roles = {attributes.get("role"): attributes.get("aria-live") for _, attributes in page.elements}
    assert roles["log"] == "off"
    assert roles["status"] == "polite"


@pytest.mark.parametrize(
    "hook", ["connection", "total", "positive", "neutral", "negative", "tickers", "log", "filter", "retry-now"]
)
def test_the_hooks_of_the_end_to_end_tests_are_there_once(hook: str, page: Page) -> None:
    assert page.values("data-testid").count(hook) == 1


def test_the_client_stays_small_and_stands_alone() -> None:
    client = STATIC / "quartsse.js"
    assert compressed(client) < 8 * 1024
    assert not re.search(r"^import\b|\bimport\(", client.read_text(encoding="utf-8").split("*/", 1)[1], re.MULTILINE)


def test_the_whole_page_stays_small() -> None:
    served = [path for path in STATIC.rglob("*") if path.suffix in {".html", ".css", ".js", ".svg"}]
    assert sum(compressed(path) for path in served) < 80 * 1024


def test_types_and_client_offer_the_same_names() -> None:
    exported = re.compile(r"^export (?:declare )?(?:class|function|const) (\w+)", re.MULTILINE)
    client, types = (set(exported.findall((STATIC / name).read_text())) for name in ("quartsse.js", "quartsse.d.ts"))
    assert client == types == {"EVENTS", "connect", "Stream", "Parser"}


def test_options_and_their_types_have_the_same_names() -> None:
    text = (STATIC / "quartsse.js").read_text(encoding="utf-8")
    defaults = set(re.findall(r"^  (\w+):", text.split("const DEFAULTS = {", 1)[1].split("};", 1)[0], re.MULTILINE))
    typed = (STATIC / "quartsse.d.ts").read_text().split("interface Options {", 1)[1].split("\n}", 1)[0]
    assert set(re.findall(r"^  (\w+)\?:", typed, re.MULTILINE)) == defaults | {"fetch", "EventSource"}


@pytest.mark.skipif(not TSC.exists() or shutil.which("node") is None, reason="no tsc: npm ci --prefix tests")
def test_the_types_are_what_a_program_in_typescript_needs() -> None:
    strictly = ["--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "--noEmit"]
    today = ["--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    command = ["node", str(TSC), *strictly, *today, str(Path(__file__).with_name("client_types.ts"))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_uplot_comes_with_its_licence() -> None:
    vendored = STATIC / "vendor" / "uplot"
    licence = (vendored / "LICENSE").read_text(encoding="utf-8")
    assert "The MIT License (MIT)" in licence
    assert "Leon Sorokin" in licence
    assert "(v1.6.32)" in (vendored / "uPlot.iife.min.js").read_text(encoding="utf-8")[:200]


def test_the_dark_colours_are_the_same_by_choice_and_by_preference() -> None:
    css = (STATIC / "page.css").read_text(encoding="utf-8")
    blocks = [css.split(selector, 1)[1].split("}", 1)[0] for selector in (':not([data-theme="light"]) {', '="dark"] {')]
    preferred, chosen = (sorted(re.findall(r"--[\w-]+: [^;]+", block)) for block in blocks)
    assert preferred == chosen
    assert len(chosen) > 10
