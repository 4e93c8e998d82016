"""What telemetry costs: `python -m tests.bench.telemetry [--streams 1000] [--rounds 8] [--seconds 5]`.

Two services side by side, one with metrics and traces and one without, each with so many streams. They take turns, in
an order that changes, at twenty ticks a second. The CPU of a delivery, feed included, is compared by the best round of
each: what else the machine does only ever makes one dearer.
"""

import argparse
import sys
import time

from tests.bench.listening import Load
from tests.bench.machine import cpu_seconds
from tests.bench.servers import FILTERS, Quartsse, compiled

TICK = 0.05
MOST = 1.03
"""What it may cost: 3 % of the CPU of a delivery."""


class Telling(Quartsse):
    """With all telemetry that can be on."""

    name = "quartsse-telling"
    telemetry = ("prometheus", "xray")

    def environment(self) -> dict[str, str]:
        """As ever, but for telemetry. Nobody listens at the daemon's address."""
        metrics, tracing = self.telemetry
        told = {"SSE_METRICS": metrics, "SSE_TRACING": tracing, "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:9"}
        return super().environment() | told


class Silent(Telling):
    """With none."""

    name = "quartsse-silent"
    telemetry = ("off", "off")


def cost(server: Quartsse, load: Load, seconds: float, *, own: bool) -> float:
    """Microseconds of CPU for a delivery."""
    if own:
        server.own(1.0)
    else:
        server.pace(TICK, 1)
    time.sleep(0.5)
    load.reset()
    before = cpu_seconds(server.pid)
    time.sleep(seconds)
    used, events = cpu_seconds(server.pid) - before, load.report()["events"]
    server.rest()
    time.sleep(0.2)
    return float(1e6 * used / events)


def main() -> int:
    """Measure, and say whether it is within what it may cost."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.telemetry", description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--own", action="store_true", help="a filter for every second reader, and an event for each")
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    costs: dict[str, list[float]] = {Telling.name: [], Silent.name: []}
    with Telling() as telling, Silent() as quiet:
        binary = compiled("load")
        if asked.own:
            telling.paths = quiet.paths = [f"/api/v2/stream?tickers=O{number}" for number in range(FILTERS)]
        with (
            Load(binary, telling.port, asked.streams, telling.paths) as to_one,
            Load(binary, quiet.port, asked.streams, quiet.paths) as to_other,
        ):
            pairs = [(telling, to_one), (quiet, to_other)]
            for number in range(asked.rounds):
                order = pairs if number % 2 else pairs[::-1]
                for server, load in order:
                    costs[server.name].append(cost(server, load, asked.seconds, own=asked.own))
                print(", ".join(f"{name} {found[-1]:.2f} µs" for name, found in costs.items()), flush=True)
    least, silent = min(costs[Telling.name]), min(costs[Silent.name])
    print(f"the best of {asked.rounds} rounds: {least:.2f} and {silent:.2f} µs, {100 * (least / silent - 1):+.1f} %")
    return 0 if least <= MOST * silent else 1


if __name__ == "__main__":
    sys.exit(main())
