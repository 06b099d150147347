"""Where a model is valid: intervals of spectators, which are numbers of a jet or an event that the network does not see."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from coffea_ad.config import Frozen
from coffea_ad.errors import listed
from coffea_ad.typing import Bools, Ints

__all__ = ["Domain", "Windows", "binned", "in_words"]

Finite = Annotated[float, Field(allow_inf_nan=False)]
Column = Callable[[str], npt.NDArray[Any]]
"""Gives a column by its name."""


class Domain(Frozen):
    """Rows with low ≤ spectator < high, in the unit of the spectator; no other row has a score.

    Examples
    --------
    >>> signal_region = Domain(spectator="mjj", low=3300, high=3700)
    >>> print(signal_region)
    3300 ≤ mjj < 3700
    >>> signal_region.contains([3299.9, 3300.0, 3700.0, np.nan])
    array([False,  True, False, False])
    """

    spectator: str = Field(min_length=1)
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _rising(self) -> Domain:
        if not self.low < self.high:
            raise ValueError(f"the domain in {self.spectator} is empty: {self.low:g} is not below {self.high:g}")
        return self

    def contains(self, values: npt.ArrayLike) -> Bools:
        """Say which values lie inside; undefined ones do not."""
        v = np.asarray(values, np.float64)
        return np.asarray((v >= self.low) & (v < self.high))

    def __str__(self) -> str:
        return f"{self.low:g} ≤ {self.spectator} < {self.high:g}"


class Windows(Frozen):
    """Windows low ≤ spectator < high, rising, that do not overlap; each has a member of the model.

    Examples
    --------
    >>> Windows(spectator="mjj", bounds=((1500, 2000), (2000, 2500))).index([1500.0, 2000.0, 2500.0, np.nan])
    array([ 0,  1, -1, -1])
    """

    spectator: str = Field(min_length=1)
    bounds: tuple[tuple[Finite, Finite], ...] = Field(min_length=2, max_length=1000)

    @model_validator(mode="after")
    def _apart(self) -> Windows:
        for window in self.parts:  # each refuses to be empty
            str(window)
        for (low, high), (other, end) in itertools.pairwise(self.bounds):
            if other < high:
                raise ValueError(
                    f"the windows [{low:g}, {high:g}) and [{other:g}, {end:g}) in {self.spectator} overlap, or do not rise"
                )
        return self

    @property
    def parts(self) -> tuple[Domain, ...]:
        """The windows one by one."""
        return tuple(Domain(spectator=self.spectator, low=low, high=high) for low, high in self.bounds)

    def index(self, values: npt.ArrayLike) -> Ints:
        """Return the window of every value, −1 outside of all and where undefined."""
        v = np.asarray(values, np.float64)
        low, high = np.array(self.bounds).T
        place = np.searchsorted(low, v, side="right") - 1
        inside = np.isfinite(v) & (place >= 0)
        inside[inside] = v[inside] < high[place[inside]]
        return np.where(inside, place, -1).astype(np.int64)

    def __str__(self) -> str:
        return f"{self.spectator} in " + listed((f"[{low:g}, {high:g})" for low, high in self.bounds), 20)


def binned(values: npt.ArrayLike, edges: Sequence[float]) -> Ints:
    """Return the bin of every value between inner edges, 0 … len(edges), −1 where undefined; a bin has its lower edge.

    >>> binned([1.0, 2.0, 5.0, np.nan], [2.0, 4.0])
    array([ 0,  1,  2, -1])
    """
    v = np.asarray(values, np.float64)
    return np.where(np.isfinite(v), np.digitize(v, edges), -1).astype(np.int64)


def in_words(domain: Sequence[Domain], windows: Windows | None) -> str:
    """Say where a model is valid, or nothing if it is everywhere.

    >>> in_words((Domain(spectator="mjj", low=3300, high=3700), Domain(spectator="met", low=0, high=200)), None)
    '3300 ≤ mjj < 3700 and 0 ≤ met < 200'
    """
    return " and ".join([*map(str, domain), *([str(windows)] if windows is not None else [])])
