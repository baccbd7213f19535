"""A figure and the 95 % interval around it, by bootstrap (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 500
_LEVELS = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """`value` with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def of_mean(values: NDArray[np.floating], seed: int = 0, rounds: int = ROUNDS) -> Interval:
    """Mean of (N,) figures, one a prompt, over resampled prompts. NaN throughout when there are none."""
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    draws = np.random.default_rng(seed).integers(0, len(values), (rounds, len(values)))
    low, high = np.quantile(values[draws].mean(1), _LEVELS)
    return Interval(float(values.mean()), float(low), float(high))


def of_statistic(
    statistic: Callable[[NDArray[np.intp]], float], count: int, seed: int = 0, rounds: int = 100
) -> Interval:
    """`statistic(rows)` of `count` rows, for figures that no single row has (distances of distributions).

    Resampled rows repeat, which biases such distances upwards, so only the spread of the resamples is used: it is moved
    to lie around the figure of the whole sample.
    """
    whole = statistic(np.arange(count))
    random = np.random.default_rng(seed)
    draws = np.array([statistic(random.integers(0, count, count)) for _ in range(rounds)])
    low, high = np.quantile(draws - draws.mean(), _LEVELS)
    return Interval(whole, whole + float(low), whole + float(high))
