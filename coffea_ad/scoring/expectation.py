"""What a template of the background leads one to expect in the regions of a model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from coffea_ad.config import Frozen
from coffea_ad.typing import Float64s

if TYPE_CHECKING:
    from coffea_ad.scoring.specs import RegionSpec

__all__ = ["Expectation", "joined_expectations", "shares"]

Finite = Annotated[float, Field(allow_inf_nan=False)]
Part = Annotated[float, Field(ge=0, le=1)]
Error = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Expectation(Frozen):
    """Which part of a template passes the threshold of a region, in bins of a spectator such as the mass.

    It rests on template rows that have not made the threshold.

    Attributes
    ----------
    spectator : str
    edges : tuple of float
        Of the bins, rising; outside of them nothing is expected.
    efficiencies, errors : tuple of float
        In each bin, with statistical errors of the template.
    efficiency, error, n_effective : float
        Over all bins.
    sidebands, sidebands_error : float, optional
        Events of the sidebands above the threshold, over those that a template made for them leads one to expect, and the
        statistical error of this ratio; where it is known. What is expected in the window is multiplied by it.
    """

    spectator: str = Field(min_length=1)
    edges: tuple[Finite, ...] = Field(min_length=2)
    efficiencies: tuple[Part, ...]
    errors: tuple[Error, ...]
    efficiency: Part
    error: Error
    n_effective: Error
    sidebands: Error | None = None
    sidebands_error: Error | None = None

    @property
    def transfer(self) -> float:
        """What the template is multiplied by, so that it is right in the sidebands; 1 where that is not known."""
        return 1.0 if self.sidebands is None else self.sidebands

    @property
    def expected(self) -> float:
        """The part of background events that is expected above the threshold."""
        return min(self.efficiency * self.transfer, 1.0)

    @property
    def uncertainty(self) -> float:
        """The statistical error of `expected`: of the template, and of what the sidebands say of it."""
        return float(np.hypot(self.error * self.transfer, self.efficiency * (self.sidebands_error or 0.0)))

    @model_validator(mode="after")
    def _bins(self) -> Expectation:
        if len(self.efficiencies) != len(self.edges) - 1 or len(self.errors) != len(self.efficiencies):
            raise ValueError("an expectation needs an efficiency and an error for every bin")
        if any(b <= a for a, b in itertools.pairwise(self.edges)):
            raise ValueError(f"the edges in {self.spectator} must rise")
        return self

    def at(self, values: npt.ArrayLike) -> Float64s:
        """Return the part that is expected at values of the spectator, (n,); 0 outside of the edges and where undefined."""
        v = np.asarray(values, np.float64)
        table = np.minimum(np.r_[0.0, self.efficiencies, 0.0] * self.transfer, 1.0)
        place = np.digitize(np.where(np.isfinite(v), v, np.inf), self.edges)
        return np.asarray(table[place])


def shares(regions: Sequence[RegionSpec], values: npt.ArrayLike) -> Float64s | None:
    """Return which part of background events lies in each grade: below all thresholds, above one, …, above all.

    Parameters
    ----------
    regions : sequence of RegionSpec
        Nested, loose → tight.
    values : (n,)
        The spectator of the expectations, such as the mass.

    Returns
    -------
    (n, k + 1) float64, or None
        They sum to 1. None if a region has no expectation.
    """
    stated = [r.expectation for r in regions]
    if not stated or any(e is None for e in stated):
        return None
    passing = np.stack([e.at(values) for e in stated if e is not None], axis=1)
    passing = np.minimum.accumulate(passing, axis=1)  # nested: a tighter one cannot keep more, whatever the statistics
    whole = np.ones((len(passing), 1))
    return np.asarray(-np.diff(np.concatenate([whole, passing, 0 * whole], axis=1), axis=1))


def joined_expectations(several: Sequence[Expectation | None]) -> Expectation | None:
    """Return the expectation of windows side by side; nothing is expected between them, and None if one has none."""
    known = sorted((e for e in several if e is not None), key=lambda e: e.edges[0])
    if len(known) < len(several) or len({e.spectator for e in known}) != 1:
        return None
    edges, efficiencies, errors = [known[0].edges[0]], [], []
    for e in known:
        if e.edges[0] < edges[-1]:
            return None
        if e.edges[0] > edges[-1]:
            edges.append(e.edges[0])
            efficiencies.append(0.0)
            errors.append(0.0)
        edges += e.edges[1:]
        efficiencies += np.minimum(np.multiply(e.efficiencies, e.transfer), 1.0).tolist()
        others = np.multiply(e.efficiencies, e.sidebands_error or 0.0)
        errors += np.hypot(np.multiply(e.errors, e.transfer), others).tolist()
    n = sum(e.n_effective for e in known)
    return Expectation(
        spectator=known[0].spectator, edges=tuple(edges), efficiencies=tuple(efficiencies), errors=tuple(errors),
        efficiency=float(np.mean([e.expected for e in known])),
        error=float(np.sqrt(np.sum([e.uncertainty**2 for e in known])) / len(known)), n_effective=n,
    )  # fmt: skip
