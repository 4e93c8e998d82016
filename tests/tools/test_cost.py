"""The calculator against the formulas and figures that the docs print."""

import json
import re
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path

import pytest
from click.testing import CliRunner

from quartsse.__main__ import main
from quartsse.tools.cost import Load, Prices, bills, verdict

PAGE = (Path(__file__).parents[2] / "docs" / "cost.md").read_text()
SECTION = PAGE.partition("## Per month")[2]
FORMULAS = dict(re.findall(r"^(lambda|managed|fargate|reads|egress) {2,}(.+)$", SECTION, re.MULTILINE))
LOADS = [
    Load(1),
    Load(1000),
    Load(25_000, hours=100, stream_seconds=60, bytes_per_second=20_000, task_vcpu=1, task_gb=2, viewers_per_task=700),
]


def by_the_page(formula: str, load: Load, readers: int) -> float:
    """What a formula of the page says."""
    gigabytes = load.viewers * load.bytes_per_second * 3600 / 1e9
    known = asdict(Prices()) | asdict(load) | {
        "V": load.viewers, "H": load.hours, "S": load.stream_seconds, "m": load.memory_gb, "u": load.units,
        "t": load.interval, "R": readers, "G": gigabytes,
        "I": max(3, ceil(load.viewers / load.viewers_per_instance)),
        "T": max(2, ceil(load.viewers / load.viewers_per_task)),
        "L": max(load.viewers / 3000, load.viewers / load.stream_seconds / 25, gigabytes),
    }  # fmt: skip
    return float(eval(formula.replace("\N{MULTIPLICATION SIGN}", "*"), {"__builtins__": {}}, known))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("way", ["lambda", "managed", "fargate"])
def test_the_page_and_the_calculator_agree(way: str, load: Load) -> None:
    bill = bills(load)[way]
    assert bill.compute == pytest.approx(by_the_page(FORMULAS[way], load, bill.readers))
    assert bill.reads == pytest.approx(by_the_page(FORMULAS["reads"], load, bill.readers))
    assert bill.egress == pytest.approx(by_the_page(FORMULAS["egress"], load, bill.readers))


def test_the_pages_figures_are_the_calculators() -> None:
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", SECTION, re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        viewers, *totals = [int(cell.replace(",", "")) for cell in row]
        assert [round(bill.total) for bill in bills(Load(viewers)).values()] == totals


def test_the_pages_prices_are_the_calculators() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| ([\d., ]+) \|", SECTION, re.MULTILINE)
    pairs = [pair for names, values in rows for pair in zip(names.split(", "), values.split(", "), strict=True)]
    assert {name.strip("`"): float(value) for name, value in pairs} == asdict(Prices())


def test_lambda_is_advised_against_where_it_is_dearer_and_only_there() -> None:
    crowd, one = Load(1000), Load(1)
    assert any("Do not use classic Lambda" in said for said in verdict(crowd, bills(crowd)))
    assert verdict(one, bills(one)) == ["The cheapest here is classic Lambda."]


def test_the_command_prints_what_was_computed_with_another_price() -> None:
    asked = ["cost", "--viewers", "1000", "--price", "egress_gb=0", "--json"]
    told = json.loads(CliRunner().invoke(main, asked, catch_exceptions=False).output)
    expected = bills(Load(1000), replace(Prices(), egress_gb=0))
    assert {way: bill["total"] for way, bill in told["ways"].items()} == {
        way: pytest.approx(bill.total) for way, bill in expected.items()
    }


@pytest.mark.parametrize("wrong", ["--price=tea=1", "--price=egress_gb=much", "--viewers=0"])
def test_what_makes_no_sense_is_refused(wrong: str) -> None:
    assert CliRunner().invoke(main, ["cost", "--viewers", "1", wrong]).exit_code == 2
