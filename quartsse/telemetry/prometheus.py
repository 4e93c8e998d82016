"""Prometheus's text format (exposition format 0.0.4), for whoever scrapes `/metrics`."""

import re

from quartsse.telemetry.meter import COUNTERS, MEASURES, Meter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")
_UNITS = {"Seconds": "_seconds", "Milliseconds": "_seconds", "Bytes": "_bytes"}
_LABELS = {"ConnectionsClosed": "reason", "Refused": "reason", "Resumes": "mode", "EventsPublished": "name"}


def text(meter: Meter) -> str:
    """Everything that the meter has, as text. Names are ours in snake case behind `quartsse_`, in base units."""
    lines: list[str] = []
    for gauge, value in meter.gauge_values():
        name = _name(gauge.name, gauge.unit)
        lines += [f"# HELP {name} {gauge.help}", f"# TYPE {name} gauge", f"{name} {_base(value, gauge.unit)}"]
    for counter, help_text in COUNTERS.items():
        name = _name(counter, "Count") + "_total"
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} counter"]
        found = {label: count for (of, label), count in sorted(meter.counters.items()) if of == counter}
        for label, count in (found or {"": 0}).items():
            key = _LABELS.get(counter, "kind")
            lines.append(f'{name}{{{key}="{label}"}} {count:g}' if label else f"{name} {count:g}")
    for measure_name, measure in meter.measures.items():
        unit, help_text = MEASURES[measure_name]
        name = _name(measure_name, unit)
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} summary"]
        lines += [f"{name}_sum {_base(measure.sum, unit)}", f"{name}_count {measure.count}"]
    return "\n".join(lines) + "\n"


def _name(name: str, unit: str) -> str:
    return "quartsse_" + _WORDS.sub("_", name).lower() + _UNITS.get(unit, "")


def _base(value: float, unit: str) -> str:
    return f"{value / 1000 if unit == 'Milliseconds' else value:.10g}"
