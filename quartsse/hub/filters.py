"""Filters: which events a reader asked for and may see. Live, replayed and current events all pass the same one."""

import re
from collections.abc import Collection
from dataclasses import dataclass

TICKER = re.compile(r"[A-Z0-9.\-]{1,10}", re.ASCII)
"""A ticker as it stands in events; the parameter and the table may write it in lower case."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A set of tickers, or all of them (`tickers` is None); `metrics` is whether totals are for this reader."""

    tickers: frozenset[str] | None = frozenset()
    metrics: bool = True

    def matches(self, ticker: str | None) -> bool:
        """Whether an event with this ticker is for this reader; one without a ticker is for everyone."""
        return ticker is None or self.tickers is None or ticker in self.tickers

    def of(self, tickers: Collection[str]) -> list[str]:
        """Those of some tickers that it lets through, sorted."""
        return sorted(tickers if self.tickers is None else self.tickers.intersection(tickers))
