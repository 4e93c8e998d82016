"""A chaos run from its beginning to its verdict."""

import asyncio
import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.proof.chaos.checker import Verdict, by_kind, check
from tests.proof.chaos.history import Episode, Record
from tests.proof.chaos.instance import held_by
from tests.proof.chaos.plan import Planned, plan
from tests.proof.chaos.readers import readers, wishes
from tests.proof.chaos.report import account, figures
from tests.proof.chaos.stage import Stage, stage

READERS = 120
RATE = 5.0
"""Items a second, beside those that are analysed again."""
WARM = 12.0
"""Seconds in which everyone comes, and an instance has run for long enough to stand in for another."""
QUIET = 30.0
"""Seconds at the end in which everyone hears what is left."""
ALLOWED = {"tasks": 3, "descriptors": 12}
"""What an instance may hold beyond what it began with: a pool of connections to the table, one to a health check."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run was, and what came of it. `left`: what was still held when everyone had gone."""

    record: Record
    verdict: Verdict
    left: list[str]
    directory: Path
    """Where the logs are."""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.verdict.breaches and not self.left


async def run(
    seconds: float,
    seed: int,
    count: int = READERS,
    settings: Mapping[str, str] | None = None,
    planned: Sequence[Planned] | None = None,
) -> Outcome:
    """Let it happen: everyone comes, the plan is carried out, then quiet, then everyone goes."""
    planned = planned or plan(seed, seconds)
    episodes: list[Episode] = []
    asked = wishes(count, seed)
    async with stage(seed, settings or {}) as on:
        await on.configure(asked)
        began = time.monotonic()
        on.news.rate = RATE
        writing = asyncio.create_task(on.news.write())
        async with readers(on.origins, asked) as crowd:
            await asyncio.sleep(WARM)
            for one in planned:
                await asyncio.sleep(one.pause)
                _say(f"{time.monotonic() - began:6.1f} s: {'; '.join(map(str, one.faults))}")
                episodes.append(await on.inflict(one))
                _say(f"{time.monotonic() - began:6.1f} s: over")
            await asyncio.sleep(QUIET / 3)
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
            await asyncio.sleep(QUIET * 2 / 3)
            over = time.monotonic()
        left = await _left(on)
    histories = [reader.history for reader in crowd]
    record = Record(on.news.written, histories, episodes, began, over)
    return Outcome(record, check(record), left, on.directory)


async def _left(on: Stage, seconds: float = 10.0) -> list[str]:
    """What the instances still hold some seconds after everyone has gone: nothing but what they began with."""
    for _ in range(int(seconds)):
        await asyncio.sleep(1)
        left = [words for number in range(len(on.instances)) for words in await _held(on, number)]
        if not left:
            break
    return left


async def _held(on: Stage, number: int) -> list[str]:
    instance = on.instances[number]
    held = await held_by(instance.control)
    words = [
        f"instance {number} holds {held[name]} {name}" for name in ("streams", "slots", "subscriptions") if held[name]
    ]
    for name, more in ALLOWED.items():
        if held[name] > instance.at_first[name] + more:
            words.append(f"instance {number} holds {held[name]} {name}, and began with {instance.at_first[name]}")
    return words


def main(seconds: float, seed: int, count: int, settings: Mapping[str, str]) -> int:
    """Run, report, and give the exit status."""
    outcome = asyncio.run(run(seconds, seed, count, settings))
    record, verdict = outcome.record, outcome.verdict
    print(*figures(record, verdict), sep="\n")
    if outcome.passed:
        print(f"seed {seed}: no breach")
        return 0
    print(f"SEED {seed}: {len(verdict.breaches)} breaches {dict(by_kind(verdict.breaches))}", *outcome.left, sep="\n")
    if verdict.breaches:
        print("The first one:", *account(record, verdict), sep="\n  ")
    kept = outcome.directory / "record.pickle"
    kept.write_bytes(pickle.dumps(record))
    print(f"logs, and the record as a pickle: {kept.parent}")
    return 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
