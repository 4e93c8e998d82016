"""`quartsse cost`: what so many viewers cost a month on Lambda and on Fargate, by docs/cost.md."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from math import ceil

import click

CEILING_OF_LAMBDA = 1000
"""Concurrent environments that an account has by default: on classic Lambda each holds one stream."""


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars, us-east-1, list prices without free tiers; docs/cost.md says where each is from."""

    lambda_gb_second: float = 0.0000166667
    lambda_request: float = 0.0000002
    instance_hour: float = 0.0725
    managed_surcharge: float = 0.15
    vcpu_hour: float = 0.04048
    gb_hour: float = 0.004445
    balancer_hour: float = 0.0225
    capacity_unit_hour: float = 0.008
    read_unit: float = 0.000000125
    egress_gb: float = 0.09


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be carried. `viewers` are connected all of `hours`; `units` are the read units of one poll."""

    viewers: int
    hours: float = 730.0
    stream_seconds: float = 840.0
    bytes_per_second: float = 100.0
    units: float = 77.0
    interval: float = 2.0
    memory_gb: float = 0.5
    viewers_per_instance: int = 1000
    viewers_per_task: int = 1000
    task_vcpu: float = 0.25
    task_gb: float = 0.5


@dataclass(frozen=True, slots=True)
class Bill:
    """One way to run it: how many processes read the table, and dollars a month."""

    readers: int
    compute: float
    reads: float
    egress: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.compute + self.reads + self.egress


def bills(load: Load, prices: Prices | None = None) -> dict[str, Bill]:
    """The bill of each way."""
    at = prices or Prices()
    gigabytes_per_hour = load.viewers * load.bytes_per_second * 3600 / 1e9
    opened_per_second = load.viewers / load.stream_seconds
    requests = opened_per_second * 3600 * load.hours

    def bill(readers: int, compute: float) -> Bill:
        reads = readers * load.units * 3600 / load.interval * load.hours * at.read_unit
        return Bill(readers, compute, reads, gigabytes_per_hour * load.hours * at.egress_gb)

    instances = max(3, ceil(load.viewers / load.viewers_per_instance))
    tasks = max(2, ceil(load.viewers / load.viewers_per_task))
    task_hour = load.task_vcpu * at.vcpu_hour + load.task_gb * at.gb_hour
    capacity_units = max(load.viewers / 3000, opened_per_second / 25, gigabytes_per_hour)
    return {
        "lambda": bill(
            load.viewers,
            load.viewers * load.hours * 3600 * load.memory_gb * at.lambda_gb_second + requests * at.lambda_request,
        ),
        "managed": bill(
            instances,
            instances * load.hours * at.instance_hour * (1 + at.managed_surcharge) + requests * at.lambda_request,
        ),
        "fargate": bill(
            tasks,
            tasks * load.hours * task_hour
            + load.hours * (at.balancer_hour + at.capacity_unit_hour * capacity_units),
        ),
    }  # fmt: skip


def verdict(load: Load, found: dict[str, Bill]) -> list[str]:
    """What the figures say, in sentences; first of all when not to use Lambda."""
    cheapest = min(found, key=lambda way: found[way].total)
    said = [f"The cheapest here is {NAMES[cheapest]}."]
    dearer = found["lambda"].total / found["fargate"].total
    if dearer > 1:
        said.append(
            f"Do not use classic Lambda for this: it costs {dearer:.1f} times as much as Fargate, because an "
            f"environment is paid for as long as its one stream is open, and each of the {found['lambda'].readers} "
            f"reads the table."
        )
    if load.viewers > CEILING_OF_LAMBDA:
        said.append(f"An account has {CEILING_OF_LAMBDA} concurrent environments by default: ask for more first.")
    return said


NAMES = {"lambda": "classic Lambda", "managed": "Lambda Managed Instances", "fargate": "Fargate"}
_MEANINGS = {
    "viewers": "Streams that are open all the time.",
    "hours": "Hours of the month in which they are.",
    "stream_seconds": "How long one stream lives.",
    "bytes_per_second": "What one viewer is sent.",
    "units": "Read units of one poll (docs/cost.md).",
    "interval": "Seconds between polls.",
    "memory_gb": "Memory of a Lambda environment.",
    "viewers_per_instance": "Viewers that one managed instance carries.",
    "viewers_per_task": "Viewers that one Fargate task carries.",
    "task_vcpu": "vCPU of a task.",
    "task_gb": "Memory of a task.",
}


def _options[F: Callable[..., None]](function: F) -> F:
    """An option for each field of the load; all must be more than nothing."""
    for field in reversed(fields(Load)):
        least = 1 if field.type is int else 1e-9
        of = click.IntRange(min=1) if field.type is int else click.FloatRange(min=least)
        needed = field.name == "viewers"
        name = f"--{field.name.replace('_', '-')}"
        given = {"required": True} if needed else {"default": field.default, "show_default": True}
        function = click.option(name, field.name, type=of, help=_MEANINGS[field.name], **given)(function)
    return function


def _prices(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Prices:
    """The prices, with those of the command line. Raises BadParameter."""
    del context, option
    prices, known = Prices(), {field.name for field in fields(Prices)}
    for one in given:
        name, _, value = one.partition("=")
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(sorted(known))}")
        try:
            prices = replace(prices, **{name: float(value)})
        except ValueError as error:
            raise click.BadParameter(f"{one!r} has no number of dollars") from error
    return prices


@click.command()
@_options
@click.option("--price", "prices", multiple=True, callback=_prices, metavar="NAME=DOLLARS", help="Another price.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def cost(prices: Prices, as_json: bool, **load: float) -> None:
    """What so many viewers cost a month, in dollars: list prices of us-east-1."""
    wanted = Load(**load)  # type: ignore[arg-type] # click has checked them
    found = bills(wanted, prices)
    told = verdict(wanted, found)
    if as_json:
        ways = {way: {**asdict(bill), "total": bill.total} for way, bill in found.items()}
        click.echo(json.dumps({"load": asdict(wanted), "prices": asdict(prices), "ways": ways, "verdict": told}))
        return
    click.echo(f"{'dollars a month':26}{'readers':>9}{'compute':>12}{'reads':>12}{'egress':>10}{'total':>12}")
    for way, bill in found.items():
        click.echo(
            f"{NAMES[way]:26}{bill.readers:9,}{bill.compute:12,.0f}{bill.reads:12,.0f}{bill.egress:10,.0f}{bill.total:12,.0f}"
        )
    for sentence in told:
        click.echo(sentence)
