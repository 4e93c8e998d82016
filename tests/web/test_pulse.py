import asyncio
import time

from quartsse.feed.source import MemorySource
from quartsse.service import make_parts
from quartsse.settings import settings_from
from quartsse.telemetry.meter import Meter
from tests.web.serving import QUICK


async def test_a_loop_that_is_held_up_is_late_by_that_much() -> None:
    meter = Meter()
    parts = make_parts(settings_from(QUICK), lambda _: MemorySource(), meter=meter)
    beating = asyncio.create_task(parts.pulse.run())
    await asyncio.sleep(0)
    time.sleep(0.45)  # noqa: ASYNC251 - what is to be seen; a step is a quarter of a second
    await asyncio.sleep(0.01)
    beating.cancel()
    assert 150 < meter.measures["LoopLag"].sum < 2000
