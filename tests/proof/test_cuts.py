"""Our JavaScript client loses nothing and repeats nothing, wherever in a stream its connection is cut.

What the Python client does then is tested in `tests/client/test_repeats.py`, with the same stream.
"""

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.adversary import Adversary, Ending, Step
from tests.client.history import CODINGS, EXPECTED, cut_where_the_path_says, longest

PROGRAM = Path(__file__).parents[1] / "cut_reader.mjs"


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@pytest.mark.parametrize("ending", [[], [Ending.RESET]], ids=["closed", "reset"])
@pytest.mark.parametrize("coding", CODINGS)
async def test_the_javascript_client_survives_a_cut_at_any_byte(coding: str, ending: list[Step]) -> None:
    async with Adversary(cut_where_the_path_says(coding, ending)) as server:
        arguments = [server.url, str(longest(coding) + 1), str(len(EXPECTED))]
        process = await asyncio.create_subprocess_exec("node", str(PROGRAM), *arguments, stdout=PIPE)
        try:
            told, _ = await asyncio.wait_for(process.communicate(), 20)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    found = {int(number): data for number, data in json.loads(told).items()}
    expected = [json.loads(data) for data in EXPECTED]
    assert len(found) == longest(coding) + 1
    assert {number: data for number, data in found.items() if data != expected} == {}
