"""The figures as tables, with the ratio to quartsse."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

type Row = dict[str, Any]
"""A `Result`, as it is kept."""

PACED = {
    "cpu_us": "CPU µs",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "last_ms": "last ms",
    "bytes_per_event": "bytes",
}
TURNS = {
    "cpu_us": "CPU µs",
    "cpu_us_with_feed": "with feed",
    "to_floor": "to the floor",
    "to_floor_quarters": "quartiles",
    "last_ms": "last ms",
    "bytes_per_event": "bytes",
    "late": "late",
}
COLUMNS = {
    "one a second": PACED,
    "5 in a tick": PACED,
    "50 in a tick": PACED,
    **{f"in turns, {events} in a tick": TURNS for events in (1, 5, 50)},
    "saturation": {"deliveries_per_second": "deliveries/s", "cpu_us": "CPU µs", "p99_ms": "p99 ms"},
    "opening": {"cpu_ms_per_connect": "CPU ms", "memory_kib_per_stream": "KiB a stream", "memory_kib": "KiB in all"},
    "at rest": {"core_percent": "% of a core", "memory_kib": "KiB in all"},
    "one event for 500 filters": {"cpu_us": "CPU µs", "last_ms": "last ms"},
    "an event for each of 500 filters": {"cpu_us": "CPU µs", "last_ms": "last ms"},
}


@dataclass(slots=True)
class Result:
    """What one workload was, and what it cost."""

    server: str
    workload: str
    streams: int
    figures: dict[str, Any] = field(default_factory=dict)


def tables(results: list[Row]) -> str:
    """A Markdown table for each workload and number of streams."""
    found = [(workload, streams) for workload in COLUMNS for streams in sorted({row["streams"] for row in results})]
    chosen = {(workload, streams): _of(results, workload, streams) for workload, streams in found}
    return "\n\n".join(_table(workload, COLUMNS[workload], rows) for (workload, _), rows in chosen.items() if rows)


def _of(results: list[Row], workload: str, streams: int) -> list[Row]:
    return [row for row in results if row["workload"] == workload and row["streams"] == streams]


def _table(workload: str, columns: dict[str, str], rows: list[Row]) -> str:
    first = next(iter(columns))
    ours = next((row["figures"][first] for row in rows if row["server"] == "quartsse"), None)
    head = ["server", *columns.values(), "ratio", "gaps", "repeats"]
    lines = [f"### {workload}, {rows[0]['streams']:,} streams", "", _line(head), _line(["---"] * len(head))]
    for row in sorted(rows, key=lambda row: float(row["figures"][first])):
        figures = row["figures"]
        ratio = f"{figures[first] / ours:.2f}" if ours else "-"
        lines.append(
            _line(
                [
                    row["server"],
                    *(figures.get(name, "-") for name in columns),
                    ratio,
                    figures.get("gaps", "-"),
                    figures.get("repeats", "-"),
                ]
            )
        )
    return "\n".join(lines)


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int | float) else str(cell) for cell in cells) + " |"
