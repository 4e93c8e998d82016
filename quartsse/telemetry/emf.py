"""CloudWatch's embedded metric format: one JSON document on stdout a minute, with all that the meter has.

Facts from AWS's specification of the format: at most 100 metrics in a directive, at most 100 values in a metric, one
document a line. Only three dimensions, since each combination of values is a metric that is billed.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from quartsse.telemetry.meter import COUNTERS, MEASURES, Meter

NAMESPACE = "quartsse"
INTERVAL = 60.0


class Emf:
    """Writes a document at every interval: counters as what came since the last one, gauges as they are.

    A counter that stands still says so with a zero: where nothing comes, nobody runs. What is counted stays in memory
    until it is written: a process that Lambda has frozen writes it after its thaw, or when it is told to end.
    """

    def __init__(
        self,
        meter: Meter,
        dimensions: dict[str, str],
        now: Callable[[], float],
        write: Callable[[str], object] | None = None,
    ) -> None:
        self._meter = meter
        self._dimensions = dimensions
        self._now = now
        self._write = write or _to_stdout
        self._told: Counter[str] = Counter()

    async def run(self, interval: float = INTERVAL) -> None:
        """Write until cancelled, and once more then: the last minute counts as well."""
        try:
            while True:
                await asyncio.sleep(interval)
                self.flush()
        finally:
            self.flush()

    def flush(self) -> None:
        """Write one document."""
        self._write(json.dumps(self.document(), separators=(",", ":")))

    def document(self) -> dict[str, Any]:
        """What is to be told now; calling it counts as having told it."""
        values: dict[str, tuple[str, Any]] = {
            metric.name: (metric.unit, value) for metric, value in self._meter.gauges()
        }
        values |= self._grown()
        for name, measure in self._meter.measures.items():
            sample = measure.collect()
            if sample:
                values[name] = (MEASURES[name].unit, [round(value, 3) for value in sample])
        directive = {
            "Namespace": NAMESPACE,
            "Dimensions": [list(self._dimensions)],
            "Metrics": [{"Name": name, "Unit": unit} for name, (unit, _) in values.items()],
        }
        return {
            "_aws": {"Timestamp": int(self._now() * 1000), "CloudWatchMetrics": [directive]},
            **self._dimensions,
            **{name: value for name, (_, value) in values.items()},
        }

    def _grown(self) -> dict[str, tuple[str, float]]:
        """What came to each counter, and to each of its parts, since the last document."""
        totals: Counter[str] = Counter()
        units: dict[str, str] = {}
        for name, metric in COUNTERS.items():
            for label, count in self._meter.parts(name).items():
                for told in {name, name + camel(label)}:
                    totals[told] += count  # type: ignore[assignment]  # a Counter adds up fractions as well
                    units[told] = metric.unit
        before, self._told = self._told, totals
        return {name: (units[name], totals[name] - before[name]) for name in totals}


def camel(label: str) -> str:
    """`max_age` as it stands at the end of a metric's name: `MaxAge`."""
    return "".join(word.capitalize() for word in label.split("_"))


def _to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
