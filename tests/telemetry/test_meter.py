"""What is counted, and how CloudWatch and Prometheus are told of it."""

import json

from quartsse.telemetry.emf import Emf, camel
from quartsse.telemetry.meter import Meter
from quartsse.telemetry.process import memory_bytes, open_files
from quartsse.telemetry.prometheus import text

DIMENSIONS = {"Service": "quartsse", "Environment": "dev", "Transport": "ecs"}


def busy_meter() -> Meter:
    meter = Meter()
    meter.watch("Connections", "Count", "Streams that are open", lambda: 3)
    meter.watch("FeedAge", "Seconds", "Since the last complete read", lambda: None)
    meter.stream_opened()
    meter.stream_opened()
    meter.stream_ended("max_age", 840.0)
    meter.refused("connection_limit")
    meter.resumed("exact", 7)
    meter.published("sentiment_update")
    meter.feed_read(0.025, 1.5)
    meter.feed_read(0.05, 1.5)
    meter.feed_failed("anything")
    meter.items_skipped("timestamp", 2)
    return meter


def test_an_emf_document_is_as_awss_specification_has_it() -> None:
    document = Emf(busy_meter(), DIMENSIONS, lambda: 1_795_000_000.123).document()
    directive = document["_aws"]["CloudWatchMetrics"][0]
    assert document["_aws"]["Timestamp"] == 1_795_000_000_123
    assert directive["Dimensions"] == [["Service", "Environment", "Transport"]]
    assert len(directive["Metrics"]) <= 100
    for metric in directive["Metrics"]:
        values = document[metric["Name"]]
        values = values if isinstance(values, list) else [values]
        assert 1 <= len(values) <= 100
        assert all(isinstance(value, int | float) for value in values)
    assert {name: document[name] for name in DIMENSIONS} == DIMENSIONS
    assert "\n" not in json.dumps(document)


def test_a_document_tells_what_came_since_the_last_one() -> None:
    meter = busy_meter()
    emf = Emf(meter, DIMENSIONS, lambda: 0)
    first = emf.document()
    assert (first["ConnectionsOpened"], first["ConnectionsClosedMaxAge"], first["ReadUnits"]) == (2, 1, 3.0)
    assert first["PollDuration"] == [25.0, 50.0]
    assert "FeedAge" not in first
    meter.stream_opened()
    second = emf.document()
    assert (second["ConnectionsOpened"], second["ConnectionsClosed"], second["Connections"]) == (1, 0, 3)
    assert "PollDuration" not in second


def test_a_measure_keeps_a_hundred_values_at_the_most() -> None:
    meter = Meter()
    for number in range(1000):
        meter.feed_read(number / 1000, 0)
    assert len(Emf(meter, DIMENSIONS, lambda: 0).document()["PollDuration"]) == 100


def test_prometheus_gets_every_counter_and_gauge_in_base_units() -> None:
    lines = text(busy_meter()).splitlines()
    assert "quartsse_connections 3" in lines
    assert 'quartsse_connections_closed_total{reason="max_age"} 1' in lines
    assert 'quartsse_resumes_total{mode="exact"} 1' in lines
    assert 'quartsse_items_skipped_total{kind="timestamp"} 2' in lines
    assert "quartsse_poll_duration_seconds_sum 0.075" in lines
    assert "quartsse_poll_duration_seconds_count 2" in lines
    assert "quartsse_poll_errors_total 1" in lines


def test_names_of_labels_become_parts_of_names() -> None:
    assert camel("configuration_removed") == "ConfigurationRemoved"


def test_the_process_can_see_itself() -> None:
    assert (memory_bytes() or 0) > 1e6
    assert (open_files() or 0) >= 3
