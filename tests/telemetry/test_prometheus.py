import re

from prometheus_client.parser import text_string_to_metric_families as families

from quartsse.telemetry.meter import COUNTERS, GAUGES, MEASURES, Meter
from quartsse.telemetry.prometheus import name_of, text
from tests.telemetry.metering import busy_meter

BASE_UNITS = ("_seconds", "_bytes", "_ratio")


def samples(meter: Meter) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and the values of its labels, as Prometheus reads them."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families(text(meter))
        for sample in family.samples
    }


def test_a_real_parser_reads_every_family_with_its_type_and_help() -> None:
    found = {family.name: family for family in families(text(busy_meter()))}
    types = {name_of(metric).removesuffix("_total"): "counter" for metric in COUNTERS.values()}
    types |= {name_of(metric): "gauge" for name, metric in GAUGES.items() if name != "FeedAge"}
    types |= {name_of(metric): "histogram" for metric in MEASURES.values()}
    assert {name: family.type for name, family in found.items()} == types
    assert all(family.documentation for family in found.values())


def test_values_are_in_base_units() -> None:
    found = samples(busy_meter())
    assert found["quartsse_connections_closed_total", ("max_age",)] == 1
    assert found["quartsse_resumes_total", ("exact",)] == 1
    assert found["quartsse_items_skipped_total", ("timestamp",)] == 2
    assert found["quartsse_poll_errors_total", ("throttled",)] == 1
    assert found["quartsse_delivered_bytes_total", ()] == 700_000
    assert found["quartsse_poll_duration_seconds_sum", ()] == 0.075
    assert found["quartsse_poll_duration_seconds_count", ()] == 2
    assert found["quartsse_poll_duration_seconds_bucket", ("0.025",)] == 1
    assert found["quartsse_poll_duration_seconds_bucket", ("+Inf",)] == 2
    assert found["quartsse_source_latency_seconds_bucket", ("300",)] == 1
    assert found["quartsse_connections_share_ratio", ()] == 0.01


def test_large_counts_are_told_to_the_last_one() -> None:
    meter = Meter()
    meter.delivered(123_456_789_012, 1)
    assert samples(meter)["quartsse_events_delivered_total", ()] == 123_456_789_012


def test_names_end_with_their_base_unit_and_labels_are_words() -> None:
    for metric in (*GAUGES.values(), *COUNTERS.values(), *MEASURES.values()):
        name = name_of(metric).removesuffix("_total")
        assert re.fullmatch(r"quartsse(_[a-z]+)+", name)
        assert metric.unit == "Count" or name.endswith(BASE_UNITS)
        assert re.fullmatch(r"[a-z]*", metric.label)
