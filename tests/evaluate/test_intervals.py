"""Bootstrap intervals: they cover the truth as often as they say, and biased statistics are moved back."""

from __future__ import annotations

import math

import numpy as np

from limner.evaluate.intervals import of_mean, of_statistic


def test_95_percent_of_the_intervals_hold_the_true_mean() -> None:
    random = np.random.default_rng(0)
    found = [of_mean(random.normal(3, 2, 60), seed, rounds=200) for seed in range(200)]
    covered = np.mean([each.low <= 3 <= each.high for each in found])
    assert 0.89 <= covered <= 0.99


def test_the_width_falls_with_the_root_of_the_count() -> None:
    values = np.random.default_rng(0).normal(0, 1, 1600)
    few, many = of_mean(values[:100]), of_mean(values)
    assert 3 < (few.high - few.low) / (many.high - many.low) < 5


def test_one_value_has_no_width_and_none_is_no_number() -> None:
    single = of_mean(np.array([0.25]))
    assert (single.value, single.low, single.high) == (0.25, 0.25, 0.25)
    assert math.isnan(of_mean(np.array([])).value)


def test_a_statistic_that_repeated_rows_bias_stays_inside_its_interval() -> None:
    def distinct(rows: np.ndarray) -> float:  # resampling with replacement can only lower it
        return float(len(set(rows.tolist())))

    interval = of_statistic(distinct, 50)
    assert interval.value == 50
    assert interval.low < 50 < interval.high
