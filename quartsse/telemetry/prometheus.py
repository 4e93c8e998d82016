"""Prometheus's text format (exposition format 0.0.4), for whoever scrapes `/metrics`."""

import re
from collections.abc import Iterator
from itertools import accumulate

from quartsse.telemetry.meter import COUNTERS, MEASURES, Meter, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")
_UNITS = {"Seconds": "_seconds", "Milliseconds": "_seconds", "Bytes": "_bytes", "Percent": "_ratio"}
_SMALLER = {"Milliseconds": 1000, "Percent": 100}
"""How many of a unit make one of the base unit."""


def text(meter: Meter) -> str:
    """Everything that the meter has, as text, in base units."""
    return "\n".join(_lines(meter)) + "\n"


def name_of(metric: Metric) -> str:
    """What a metric is called here: ours in snake case behind `quartsse_`, with its base unit at the end."""
    unit = _UNITS.get(metric.unit, "")
    name = "quartsse_" + _WORDS.sub("_", metric.name).lower().removesuffix(unit) + unit
    return name + "_total" if metric.name in COUNTERS else name


def _lines(meter: Meter) -> Iterator[str]:
    for metric, value in meter.gauges():
        yield from _head(metric, "gauge")
        yield f"{name_of(metric)} {_base(value, metric)}"
    for counter in COUNTERS.values():
        yield from _head(counter, "counter")
        for label, count in meter.parts(counter.name).items():
            pair = f'{{{counter.label}="{label}"}}' if label else ""
            yield f"{name_of(counter)}{pair} {_number(count)}"
    for metric in MEASURES.values():
        yield from _head(metric, "histogram")
        yield from _histogram(metric, meter)


def _histogram(metric: Metric, meter: Meter) -> Iterator[str]:
    measure, name = meter.measures[metric.name], name_of(metric)
    counts = list(accumulate(measure.buckets))
    for bound, count in zip(metric.bounds, counts, strict=False):
        yield f'{name}_bucket{{le="{_base(bound, metric)}"}} {count}'
    yield f'{name}_bucket{{le="+Inf"}} {counts[-1]}'
    yield f"{name}_sum {_base(measure.sum, metric)}"
    yield f"{name}_count {counts[-1]}"


def _head(metric: Metric, kind: str) -> tuple[str, str]:
    name = name_of(metric)
    return f"# HELP {name} {metric.help}", f"# TYPE {name} {kind}"


def _base(value: float, metric: Metric) -> str:
    return _number(value / _SMALLER.get(metric.unit, 1))


def _number(value: float) -> str:
    return f"{value:.15g}"
