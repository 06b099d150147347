"""Spectra: counts in bins of a mass, and the spectra of all regions of an observable as sums of exclusive cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import hist
import numpy as np

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.typing import Bools, Float64s

__all__ = ["Spectra", "Spectrum", "resolution_edges"]

_SAME = 1e-9  # of edges, relative


@dataclass(frozen=True)
class Spectrum:
    """Counts in bins.

    Attributes
    ----------
    name : str
        As messages and figures say it, such as "mjj in 1pb".
    edges : (n + 1,) float64, GeV
    counts : (n,) float64
        Events, or sums of weights.
    variance : (n,) float64
        Of counts; of events these are the counts themselves.
    label : str
        Of the axis.

    Raises
    ------
    ConfigError
        Edges do not rise, or a number is not finite.

    Examples
    --------
    >>> s = Spectrum.of_events("m", [0.0, 1.0, 2.0, 4.0], [3, 0, 2])
    >>> s.weighted, s.merged([0.0, 2.0, 4.0]).counts
    (False, array([3., 2.]))
    """

    name: str
    edges: Float64s
    counts: Float64s
    variance: Float64s
    label: str = ""

    def __post_init__(self) -> None:
        n = len(self.edges) - 1
        if n < 1 or not np.all(np.isfinite(self.edges)) or not np.all(np.diff(self.edges) > 0):
            raise ConfigError(f"spectrum {self.name}: its edges must be finite numbers that rise, two or more")
        for what in ("counts", "variance"):
            values = getattr(self, what)
            if values.shape != (n,):
                raise ConfigError(f"spectrum {self.name}: {n} bins and {values.size} numbers for their {what}")
            if not np.all(np.isfinite(values)):
                i = int(np.argmin(np.isfinite(values)))
                raise ConfigError(f"spectrum {self.name}, {self.bin_name(i)}: {what} {values[i]}")

    @classmethod
    def of_events(cls, name: str, edges: Any, counts: Any, label: str = "") -> Spectrum:
        """Return a spectrum of events, each of which counts once."""
        n = np.asarray(counts, np.float64)
        return cls(name, np.asarray(edges, np.float64), n, n, label)

    @classmethod
    def of_histogram(cls, name: str, histogram: hist.Hist) -> Spectrum:
        """Return the spectrum of a histogram of one axis; what lies beside the axis is no part of it."""
        if histogram.ndim != 1:
            raise ConfigError(f"spectrum {name}: a histogram of one axis is needed, not of {histogram.ndim}")
        values = np.asarray(histogram.values(), np.float64)
        variance = histogram.variances()
        spread = values if variance is None else np.asarray(variance, np.float64)
        axis = histogram.axes[0]
        return cls(name, np.asarray(axis.edges, np.float64), values, spread, getattr(axis, "label", "") or "")

    @property
    def weighted(self) -> bool:
        """Whether an entry does not simply count once."""
        return not np.allclose(self.counts, self.variance, rtol=1e-9, atol=0)

    @property
    def widths(self) -> Float64s:
        """Of the bins, GeV."""
        return np.diff(self.edges)

    @property
    def scale(self) -> Float64s:
        """Mean weight of the entries of each bin, Σw²/Σw; of all entries where there are none."""
        total, squares = float(self.counts.sum()), float(self.variance.sum())
        mean = squares / total if total > 0 else 1.0
        filled = (self.counts > 0) & (self.variance > 0)
        return np.where(filled, self.variance / np.where(filled, self.counts, 1.0), mean)

    def bin_name(self, i: int) -> str:
        """Say which bin it is, for messages: 2000–2100."""
        return f"{self.edges[i]:g}–{self.edges[i + 1]:g}"

    def inside(self, low: float, high: float) -> Bools:
        """Return which bins lie between two masses as a whole."""
        slack = _SAME * float(np.abs(self.edges).max())
        return np.asarray((self.edges[:-1] >= low - slack) & (self.edges[1:] <= high + slack))

    def between(self, low: float, high: float) -> Spectrum:
        """Return the bins that lie between two masses as a whole.

        Raises
        ------
        ConfigError
            There are none.
        """
        bins = np.flatnonzero(self.inside(low, high))
        if not len(bins):
            raise ConfigError(f"spectrum {self.name}: no bin lies between {low:g} and {high:g} GeV")
        part = slice(bins[0], bins[-1] + 1)
        edges = self.edges[bins[0] : bins[-1] + 2]
        return replace(self, edges=edges, counts=self.counts[part], variance=self.variance[part])

    def merged(self, edges: Any) -> Spectrum:
        """Return wider bins, each of whole ones.

        Raises
        ------
        ConfigError
            An edge is none of the spectrum's.
        """
        wanted = np.asarray(edges, np.float64)
        place = np.abs(self.edges[:, None] - wanted).argmin(axis=0)
        wrong = ~np.isclose(self.edges[place], wanted, rtol=_SAME, atol=_SAME * abs(self.edges).max())
        if wrong.any():
            raise ConfigError(f"spectrum {self.name}: it has no edge at {wanted[wrong][0]:g}, so bins cannot be merged")
        sums = [
            np.add.reduceat(v, place[:-1])[: len(wanted) - 1]
            for v in (self.counts[: place[-1]], self.variance[: place[-1]])
        ]
        return replace(self, edges=self.edges[place], counts=sums[0], variance=sums[1])

    def with_counts(self, counts: Any) -> Spectrum:
        """Return the same bins with other events."""
        n = np.asarray(counts, np.float64)
        return replace(self, counts=n, variance=n)


def resolution_edges(edges: Float64s, resolution: float) -> Float64s:
    """Return those edges between which bins are at least as wide as the resolution.

    Parameters
    ----------
    edges : (n + 1,) float64, GeV
    resolution : float
        σ(m)/m.

    Examples
    --------
    >>> resolution_edges(np.arange(1000.0, 1501.0, 50.0), 0.08)
    array([1000., 1100., 1200., 1300., 1450.])
    """
    out = [float(edges[0])]
    for edge in edges[1:]:
        if edge - out[-1] >= resolution * out[-1] * (1 - _SAME):
            out.append(float(edge))
    return np.asarray(out)


@dataclass(frozen=True)
class Spectra:
    """One observable in all regions, by exclusive cells: an event is in one cell, and a region is a sum of cells.

    Nested regions share events. What is drawn for pseudo-experiments are therefore cells.

    Attributes
    ----------
    observable : str
    cells : {cell: Spectrum}
        All with the same edges.
    regions : {region: frozenset of cells}
    """

    observable: str
    cells: Mapping[str, Spectrum]
    regions: Mapping[str, frozenset[str]]

    @classmethod
    def single(cls, spectrum: Spectrum, region: str = "inclusive") -> Spectra:
        """Return a spectrum alone, as one region of one cell."""
        return cls(spectrum.name, {"all": spectrum}, {region: frozenset({"all"})})

    @property
    def edges(self) -> Float64s:
        """(n + 1,) float64, GeV."""
        return next(iter(self.cells.values())).edges

    def region(self, name: str) -> Spectrum:
        """Return the spectrum of a region.

        Raises
        ------
        UnknownName
        """
        if name not in self.regions:
            raise UnknownName.of(f"region of {self.observable}", name, self.regions)
        parts = [self.cells[cell] for cell in sorted(self.regions[name])]
        title = self.observable if list(self.regions) == ["inclusive"] else f"{self.observable} in {name}"
        return Spectrum(
            title, parts[0].edges, _sum(p.counts for p in parts), _sum(p.variance for p in parts), parts[0].label
        )

    def changed(self, change: Any) -> Spectra:
        """Return the spectra with a function applied to each cell."""
        return replace(self, cells={name: change(cell) for name, cell in self.cells.items()})


def _sum(arrays: Iterable[Float64s]) -> Float64s:
    return np.asarray(np.sum(list(arrays), axis=0), np.float64)
