"""What operators look at: the docs, the dashboards and the alarms name exactly what the service tells."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from quartsse.telemetry.catalogue import table
from quartsse.telemetry.emf import NAMESPACE
from quartsse.telemetry.meter import COUNTERS, GAUGES, MEASURES
from quartsse.telemetry.prometheus import name_of

TOP = Path(__file__).parent.parent
DASHBOARD: dict[str, Any] = json.loads((TOP / "infra" / "grafana" / "quartsse.json").read_text())
GRAFANA = {"job", "instance"}
"""Labels that Prometheus adds."""


def labels_of() -> dict[str, set[str]]:
    """Every series that Prometheus gets, with the labels of ours that it has."""
    series: dict[str, set[str]] = {name_of(gauge): set() for gauge in GAUGES.values()}
    series |= {name_of(counter): {counter.label} - {""} for counter in COUNTERS.values()}
    for measure in MEASURES.values():
        series |= {
            f"{name_of(measure)}_bucket": {"le"},
            f"{name_of(measure)}_sum": set(),
            f"{name_of(measure)}_count": set(),
        }
    return series


SERIES = labels_of()
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def test_the_table_in_the_docs_is_the_one_that_the_code_makes() -> None:
    page = (TOP / "docs" / "operating.md").read_text()
    found = re.search(r"<!-- generated: .* -->\n(.*?)<!-- end -->", page, re.DOTALL)
    assert found is not None
    assert found[1] == table(), "make it again: python -m quartsse.telemetry.catalogue"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_panel_asks_for_what_the_service_tells(expression: str) -> None:
    names = set(re.findall(r"\bquartsse_\w+", expression))
    assert names
    assert names <= set(SERIES)
    known = GRAFANA.union(*(SERIES[name] for name in names))
    grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
    selected = set(re.findall(r"[{,](\w+)=~?\"", expression))
    assert grouped | selected <= known
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")
    for name in names:
        grows = name.endswith(("_total", "_bucket"))
        assert bool(re.search(rf"rate\({name}\{{[^}}]*\}}\[", expression)) == grows, (
            "rates of what grows, and only of that"
        )


def test_legends_name_labels_that_the_panel_has() -> None:
    for target in (target for panel in DASHBOARD["panels"] for target in panel.get("targets", [])):
        wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        kept = set(re.findall(r"\bby \((\w+)\)", target["expr"]))
        assert wanted <= kept or (wanted <= GRAFANA and "sum" not in target["expr"])


def test_every_metric_has_a_panel() -> None:
    shown = " ".join(EXPRESSIONS)
    assert not [
        name for name in map(name_of, (*GAUGES.values(), *COUNTERS.values(), *MEASURES.values())) if name not in shown
    ]


def test_panels_do_not_lie_on_each_other_and_have_ids_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_alarms_and_charts_at_cloudwatch_name_what_the_service_tells() -> None:
    told = {*GAUGES, *COUNTERS, *MEASURES}
    for file in sorted((TOP / "infra").rglob("*.tf")):
        for metric in re.findall(
            rf'namespace\s+= "{NAMESPACE}"(?:, |\s+)metric(?:_name)?\s*= "(\w+)"', file.read_text()
        ):
            assert metric in told, file
    template = (TOP / "infra" / "managed-instances.yaml").read_text()
    assert set(re.findall(rf"Namespace: {NAMESPACE}\n +MetricName: (\w+)", template)) <= told


def alarms_of(root: str) -> dict[str, set[str]]:
    """The alarms of a Terraform root, by what they are of: `AWS/Lambda`, `quartsse`."""
    text = (TOP / "infra" / root / "watch.tf").read_text().partition("alarms = {")[2].partition("charts")[0]
    found: dict[str, set[str]] = {}
    for namespace, metric in re.findall(r'namespace +=\s"([\w/]+)", metric = "(\w+)"', text):
        found.setdefault(namespace, set()).add(metric)
    return found


def test_managed_instances_have_the_alarms_of_the_other_two_ways() -> None:
    template = (TOP / "infra" / "managed-instances.yaml").read_text()
    theirs = re.findall(r"Namespace: ([\w/]+)\n +MetricName: (\w+)", template)
    of_lambda = alarms_of("lambda")["AWS/Lambda"] - {"ConcurrentExecutions"}  # there is no cap but that of the streams
    of_ours = alarms_of("lambda")[NAMESPACE] | alarms_of("ecs")[NAMESPACE]
    assert sorted(theirs) == sorted(
        [("AWS/Lambda", name) for name in of_lambda] + [(NAMESPACE, name) for name in of_ours]
    )
    silences = re.findall(
        rf"Namespace: {NAMESPACE}\n +MetricName: (\w+).*?TreatMissingData: (\w+)", template, re.DOTALL
    )
    assert {name for name, missing in silences if missing != "breaching"} == {"DeliveryLatency"}


def test_silence_of_a_task_is_an_alarm() -> None:
    text = (TOP / "infra" / "ecs" / "watch.tf").read_text()
    ours = re.findall(rf'namespace\s+= "{NAMESPACE}", metric = "(\w+)".*?missing = "(\w+)"', text, re.DOTALL)
    assert {missing for _, missing in ours[:2]} == {"breaching"}
    assert ("FeedStale", "breaching") in ours


def test_every_alarm_is_explained() -> None:
    page = (TOP / "docs" / "operating.md").read_text().partition("## Alarms")[2]
    for root in ("ecs", "lambda"):
        text = (TOP / "infra" / root / "watch.tf").read_text().partition("alarms = {")[2].partition("charts")[0]
        alarms = re.findall(r"^    ([a-z-]+) = \{", text, re.MULTILINE)
        assert alarms
        assert not [alarm for alarm in alarms if f"`{alarm}`" not in page]
    instances = (TOP / "infra" / "managed-instances.yaml").read_text()
    alarms = re.findall(r"AlarmName: !Sub quartsse-instances-\$\{Environment\}-([a-z-]+)", instances)
    assert len(alarms) == 6
    assert not [alarm for alarm in alarms if f"`{alarm}`" not in page]
