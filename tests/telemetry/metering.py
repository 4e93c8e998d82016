"""A meter to which everything has happened, and the specifications that what is made of it must meet."""

import random
from typing import Any

from jsonschema import Draft202012Validator

from quartsse.telemetry.meter import GAUGES, Meter

# AWS, "Specification: Embedded metric format": the schema of a document, with the limits that the text adds.
EMF: dict[str, Any] = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer"},
                "CloudWatchMetrics": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "additionalProperties": False,
                        "properties": {
                            "Namespace": {"type": "string", "minLength": 1, "maxLength": 1024},
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "minItems": 1,
                                    "maxItems": 30,
                                    "uniqueItems": True,
                                    "items": {"type": "string", "minLength": 1, "maxLength": 250},
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "Name": {"type": "string", "minLength": 1, "maxLength": 1024},
                                        "Unit": {"$ref": "#/$defs/unit"},
                                        "StorageResolution": {"enum": [1, 60]},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
    "$defs": {
        # CloudWatch API Reference, MetricDatum.
        "unit": {
            "enum": [
                "Seconds", "Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes",
                "Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count", "Bytes/Second",
                "Kilobytes/Second", "Megabytes/Second", "Gigabytes/Second", "Terabytes/Second", "Bits/Second",
                "Kilobits/Second", "Megabits/Second", "Gigabits/Second", "Terabits/Second", "Count/Second", "None",
            ]
        },
        "target": {
            "anyOf": [
                {"type": "number"},
                {"type": "array", "minItems": 1, "maxItems": 100, "items": {"type": "number"}},
            ]
        },
    },
}  # fmt: skip


def check_emf(document: dict[str, Any], now: float) -> None:
    """Hold a document to AWS's specification at a moment (Unix seconds)."""
    Draft202012Validator(EMF).validate(document)
    age = now - document["_aws"]["Timestamp"] / 1000
    assert -2 * 3600 <= age <= 14 * 86_400, "CloudWatch takes values of the last two weeks and the next two hours"
    target = Draft202012Validator(EMF["$defs"]["target"])
    for directive in document["_aws"]["CloudWatchMetrics"]:
        names = [metric["Name"] for metric in directive["Metrics"]]
        assert len(set(names)) == len(names)
        for name in names:
            target.validate(document[name])
        for dimension in (name for names in directive["Dimensions"] for name in names):
            assert isinstance(document[dimension], str)
            assert 1 <= len(document[dimension]) <= 1024


def busy_meter() -> Meter:
    """One that has been told each verb, and watches every gauge but the feed's age, which is not known."""
    meter = Meter(random.Random(1))
    for number, name in enumerate(GAUGES):
        meter.watch(name, lambda number=number: float(number))  # type: ignore[misc]
    meter.watch("FeedAge", lambda: None)
    meter.stream_opened()
    meter.stream_opened()
    meter.stream_ended("max_age", 840.0)
    meter.refused("connection_limit")
    meter.resumed("exact", 7)
    meter.published("sentiment_update")
    meter.published("metrics")
    meter.delivered(2000, 700_000)
    meter.handed_over(0.004, 90.0)
    meter.handed_over(0.006, None)
    meter.feed_read(0.025, 1.5)
    meter.feed_read(0.05, 1.5)
    meter.feed_failed("throttled")
    meter.throttled()
    meter.items_skipped("timestamp", 2)
    meter.loop_late(0.002)
    return meter
