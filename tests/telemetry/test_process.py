import asyncio
import time

from quartsse.telemetry.meter import Meter
from quartsse.telemetry.process import STEP, memory_bytes, open_files, watch_the_loop


def test_the_process_can_see_its_memory_and_files() -> None:
    before = open_files() or 0
    with open(__file__):  # noqa: PTH123 - a descriptor
        assert open_files() == before + 1
    assert (memory_bytes() or 0) > 1e6


async def test_a_loop_that_is_held_up_is_late_by_that_much() -> None:
    meter = Meter()
    watching = asyncio.create_task(watch_the_loop(meter))
    await asyncio.sleep(0)
    time.sleep(STEP + 0.2)  # noqa: ASYNC251 - what is to be seen
    await asyncio.sleep(0.01)
    watching.cancel()
    assert 150 < meter.measures["LoopLag"].sum < 2000
