import random
from inspect import getmembers, isfunction

import pytest

from quartsse.telemetry.meter import COUNTERS, GAUGES, MEASURES, MOST_VALUES, Measure, Meter
from quartsse.telemetry.metrics import Telemetry
from tests.telemetry.metering import busy_meter

HUNDRED = tuple(range(0, 1000, 10))


def test_every_verb_is_counted_and_every_counter_has_a_verb() -> None:
    meter = busy_meter()
    verbs = {name for name, _ in getmembers(Telemetry, isfunction)}
    assert verbs <= set(vars(Meter)), "a verb that the meter does not know tells nobody"
    assert all(meter.parts(name) != {"": 0} for name in COUNTERS)
    assert all(sum(measure.buckets) for measure in meter.measures.values())
    assert set(meter.measures) == set(MEASURES)


def test_no_name_means_two_things() -> None:
    assert len({*COUNTERS, *GAUGES, *MEASURES}) == len(COUNTERS) + len(GAUGES) + len(MEASURES)


def test_a_gauge_that_nobody_has_heard_of_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Meter().watch("Surprise", lambda: 1)


def test_a_gauge_with_nothing_to_see_is_left_out() -> None:
    assert "FeedAge" not in {metric.name for metric, _ in busy_meter().gauges()}


def test_a_value_on_a_bound_counts_below_it() -> None:
    measure = Measure((1.0, 2.0), random.Random(1))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        measure.add(value)
    assert (measure.buckets, measure.sum) == ([2, 2, 1], 14.0)


def test_a_sample_is_drawn_from_the_whole_time_and_has_the_greatest() -> None:
    measure = Measure(HUNDRED, random.Random(1))
    for value in [999.0, *range(998, -1, -1)]:
        measure.add(value)
    sample = measure.collect()
    assert len(sample) == MOST_VALUES
    assert max(sample) == 999.0
    assert 400 < sum(sample) / len(sample) < 600, "and not only of the newest, which are the smallest"


def test_what_was_collected_is_not_collected_again() -> None:
    measure = Measure(HUNDRED, random.Random(1))
    measure.add(5)
    assert (measure.collect(), measure.collect()) == ([5], [])
    assert sum(measure.buckets) == 1, "buckets go on"
