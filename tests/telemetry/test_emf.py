import asyncio
import json

import pytest
from jsonschema import ValidationError

from quartsse.telemetry.emf import Emf, camel
from quartsse.telemetry.meter import COUNTERS, Meter
from tests.telemetry.metering import busy_meter, check_emf

DIMENSIONS = {"Service": "quartsse", "Environment": "dev", "Transport": "ecs"}
NOW = 1_795_000_000.123


def emf(meter: Meter) -> Emf:
    return Emf(meter, DIMENSIONS, lambda: NOW)


def test_a_document_is_as_awss_specification_has_it() -> None:
    document = emf(busy_meter()).document()
    check_emf(document, NOW)
    assert document["_aws"]["Timestamp"] == 1_795_000_000_123
    assert document["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Service", "Environment", "Transport"]]
    assert {name: document[name] for name in DIMENSIONS} == DIMENSIONS


@pytest.mark.parametrize("wrong", ["unit", "values", "dimension", "timestamp", "metrics"])
def test_the_check_finds_what_cloudwatch_would_drop(wrong: str) -> None:
    document = emf(busy_meter()).document()
    directive = document["_aws"]["CloudWatchMetrics"][0]
    if wrong == "unit":
        directive["Metrics"][0]["Unit"] = "Furlongs"
    elif wrong == "values":
        document["PollDuration"] = [1.0] * 101
    elif wrong == "dimension":
        del document["Service"]
    elif wrong == "timestamp":
        document["_aws"]["Timestamp"] -= 15 * 86_400_000
    else:
        directive["Metrics"] *= 10
    with pytest.raises((ValidationError, AssertionError, KeyError)):
        check_emf(document, NOW)


def test_a_document_tells_what_came_since_the_last_one() -> None:
    meter = busy_meter()
    writer = emf(meter)
    first = writer.document()
    assert (first["ConnectionsOpened"], first["ConnectionsClosedMaxAge"], first["ReadUnits"]) == (2, 1, 3.0)
    assert (first["EventsPublished"], first["EventsPublishedMetrics"], first["DeliveredBytes"]) == (2, 1, 700_000)
    assert first["PollDuration"] == [25.0, 50.0]
    assert (first["DeliveryLatency"], first["SourceLatency"]) == ([4.0, 6.0], [90.0])
    assert "FeedAge" not in first
    meter.stream_opened()
    second = writer.document()
    check_emf(second, NOW)
    assert (second["ConnectionsOpened"], second["ConnectionsClosed"], second["Connections"]) == (1, 0, 0.0)
    assert "PollDuration" not in second


def test_counters_say_zero_from_the_first_document_on() -> None:
    document = emf(Meter()).document()
    assert {name: document[name] for name in COUNTERS} == dict.fromkeys(COUNTERS, 0)
    check_emf(document, NOW)


def test_with_all_that_can_happen_it_stays_within_what_a_document_may_hold() -> None:
    meter = busy_meter()
    for reason in range(15):
        meter.stream_ended(f"reason_{reason}", 1)
        meter.refused(f"reason_{reason}")
    for _ in range(1000):
        meter.feed_read(0.1, 1)
    document = emf(meter).document()
    check_emf(document, NOW)
    assert len(document["PollDuration"]) == 100
    assert len(json.dumps(document)) < 256 * 1024


async def test_the_last_minute_is_written_when_it_ends() -> None:
    written: list[str] = []
    meter = Meter()
    task = asyncio.create_task(Emf(meter, DIMENSIONS, lambda: NOW, written.append).run(interval=60))
    await asyncio.sleep(0)
    meter.stream_opened()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [json.loads(line)["ConnectionsOpened"] for line in written] == [1]
    assert "\n" not in written[0]


def test_labels_become_parts_of_names() -> None:
    assert camel("configuration_removed") == "ConfigurationRemoved"
