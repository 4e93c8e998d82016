"""The catalogue: every metric as `docs/operating.md` has it. `python -m quartsse.telemetry.catalogue` prints it."""

import sys

from quartsse.telemetry.meter import COUNTERS, GAUGES, MEASURES
from quartsse.telemetry.prometheus import name_of


def table() -> str:
    """A table in Markdown: what a metric is called at CloudWatch and by Prometheus, and what it is."""
    lines = ["| CloudWatch (unit) | Prometheus | what it is |", "| --- | --- | --- |"]
    for kind, metrics in (("gauge", GAUGES), ("counter", COUNTERS), ("histogram", MEASURES)):
        for metric in metrics.values():
            label = f"{{{metric.label}}}" if metric.label else ""
            lines.append(f"| `{metric.name}` ({metric.unit}) | `{name_of(metric)}{label}`, {kind} | {metric.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
