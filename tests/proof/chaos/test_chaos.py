"""A short chaos run with real processes; `make chaos` is a longer one."""

import pytest

from tests.proof.chaos.report import account, figures
from tests.proof.chaos.run import run


@pytest.mark.slow
async def test_a_minute_of_chaos_breaks_no_promise() -> None:
    outcome = await run(60, seed=274)
    print(*figures(outcome.record, outcome.verdict), sep="\n")
    assert not outcome.verdict.breaches, "\n".join(account(outcome.record, outcome.verdict))
    assert not outcome.left
