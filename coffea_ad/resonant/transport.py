"""Optimal transport between the sidebands, interpolated into the signal region, as the template."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from coffea_ad.errors import SkimError
from coffea_ad.nn.scorable import Scorable
from coffea_ad.resonant.classifiers import fit_classifier, labelled
from coffea_ad.resonant.masses import sample_masses
from coffea_ad.resonant.method import Method
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Float64s

__all__ = ["Transport", "transport_pairs"]

_BLOCK = 1000  # rows that are matched at once: the cost grows with the third power


def transport_pairs(below: Float64s, above: Float64s, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Match rows of two sets so that Σ |x − y|² is least, in random blocks of 1000.

    Parameters
    ----------
    below, above : (n, d), (k, d)
        In units in which distances make sense, such as of standardised columns.
    rng : Generator

    Returns
    -------
    (p,), (p,) int64
        Places of the matched rows; p is the lesser of n and k.

    Examples
    --------
    >>> rows = np.arange(4.0)[:, None]
    >>> one, two = transport_pairs(rows, rows + 10, np.random.default_rng(1))
    >>> bool((one == two).all())
    True
    """
    n = min(len(below), len(above))
    first, second = rng.permutation(len(below))[:n], rng.permutation(len(above))[:n]
    ones, twos = [], []
    for start in range(0, n, _BLOCK):
        a, b = first[start : start + _BLOCK], second[start : start + _BLOCK]
        i, j = linear_sum_assignment(cdist(below[a], above[b], "sqeuclidean"))
        ones.append(a[i])
        twos.append(b[j])
    return np.concatenate(ones), np.concatenate(twos)


class Transport(Method):
    """x(m) = x₁ + (m − m₁)/(m₂ − m₁) (x₂ − x₁) for rows of the two sidebands that optimal transport matches.

    Nothing is trained for the template; a classifier then tells the data from it. It is of the class of the template by
    optimal transport (RAD-OT) that transport flows such as CURTAINs are compared with.

    References
    ----------
    "CURTAINs for your sliding window", arXiv:2203.09470; "TRANSIT your events into a new mass", arXiv:2503.04342, which compares
    with such a template.
    """

    name: ClassVar[str] = "transport"
    reference: ClassVar[str] = "arXiv:2203.09470, arXiv:2503.04342"

    def fit(
        self, sidebands: Skim, signal_region: Skim, *, simulation: Skim | None = None, background: Skim | None = None,  # noqa: ARG002
        signal: Skim | None = None,  # noqa: ARG002
    ) -> Scorable:  # fmt: skip
        """Match the sidebands' rows, and learn the classifier."""
        self.like, self.masses = signal_region, self.mass(signal_region.splits("train", "validation"))
        self.sidebands = sidebands
        n = int(self.settings.oversampling * len(self.masses))
        rows = labelled(signal_region, self._interpolated(("train", "validation"), n, 1000 + self.seed), self.seed)
        return fit_classifier(
            self.settings.classifier, rows, self.inputs(rows), self.folder / "classifier", self.seed, "transport"
        )

    def template(self, n: int, seed: int) -> Skim:
        """Return n rows that are interpolated between test rows of the sidebands."""
        return self._interpolated(("test",), n, seed)

    def _matched(self, splits: tuple[str, ...]) -> tuple[Float32s, Float32s, Float64s, Float64s]:
        rows = self.sidebands.splits(*splits)
        m = self.mass(rows)
        x = np.asarray(rows.x[:], np.float32)
        below, above = m < self.window.low, m >= self.window.high
        if not below.any() or not above.any():
            raise SkimError(f"window {self.window.name}: a sideband has no {' or '.join(splits)} rows")
        keep = [i for i, c in enumerate(rows.columns) if c != self.window.mass]
        scale = np.maximum(x[:, keep].std(axis=0), 1e-12)
        z = (x[:, keep] / scale).astype(np.float64)
        # distances of residuals about each sideband's mean: a common drift with the mass is no reason to match otherwise
        i, j = transport_pairs(
            z[below] - z[below].mean(axis=0), z[above] - z[above].mean(axis=0), np.random.default_rng(self.seed)
        )
        return x[below][i], x[above][j], m[below][i], m[above][j]

    def _interpolated(self, splits: tuple[str, ...], n: int, seed: int) -> Skim:
        x1, x2, m1, m2 = self._matched(splits)
        masses = sample_masses(self.masses, self.window, n, seed)
        pair = np.random.default_rng(seed + 1).integers(len(x1), size=n)
        share = ((masses - m1[pair]) / (m2[pair] - m1[pair]))[:, None].astype(np.float32)
        return self.rows_at(self.like, x1[pair] + share * (x2[pair] - x1[pair]), masses, "template", seed)
