"""Mahalanobis: the distance from the mean of the background in units of its covariance, which may be shrunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.reconstruction.pca import PCA, moments
from coffea_ad.typing import Float64s

__all__ = ["Mahalanobis", "Shrinkage"]

Shrinkage = Literal["ledoit_wolf"] | float


class Mahalanobis(PCA):
    """The Mahalanobis distance, squared, with a covariance that may be shrunk towards a multiple of the identity.

    E(z) = cᵀ Ĉ⁻¹ c with c = z − μ and Ĉ = (1 − α) C + α (tr C / D) 1, where μ and C are those of `PCA`: of all training rows with
    their weights. Without shrinkage this is `PCA(score="mahalanobis")`. C of fewer rows than columns has no inverse, and
    of not many more a bad one; shrinkage then keeps the directions of little variance from deciding alone. Ledoit and Wolf's α
    minimises the expected squared error of Ĉ; with S = Σ w c cᵀ / Σ w,

    α = min(1, Σ w² |c cᵀ − S|² / (Σ w)² / |S − (tr S / D) 1|²),

    which for equal weights is that of scikit-learn. It goes to 0 with the number of rows. Shrinkage compares variances of
    different columns: the distance depends on their units, and is meant for standardised ones.

    Parameters
    ----------
    features : int
        Number of columns of z, D.
    shrinkage : "ledoit_wolf" or float
        α from the rows, or given, 0 … 1.
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph.

    Raises
    ------
    ConfigError
        α lies outside 0 … 1.
    SkimError
        When fitted: there are too few rows, or without shrinkage a direction does not vary.

    References
    ----------
    P. C. Mahalanobis, "On the generalised distance in statistics", Proc. Natl. Inst. Sci. India 2 (1936) 49; O. Ledoit, M. Wolf,
    "A well-conditioned estimator for large-dimensional covariance matrices", J. Multivar. Anal. 88 (2004) 365.

    Examples
    --------
    >>> import torch
    >>> model = Mahalanobis(2, shrinkage=1.0, transform=nn.Identity())  # α = 1: all directions alike
    >>> rows = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    >>> model.learn([(rows, torch.ones(2))])
    >>> model.energy(torch.tensor([[2.0, 2.0], [2.0, -2.0]])).tolist()
    [4.0, 4.0]
    """

    method: ClassVar[str] = "Mahalanobis"

    def __init__(self, features: int, *, shrinkage: Shrinkage = "ledoit_wolf", transform: nn.Module) -> None:
        super().__init__(features, components=features, score="mahalanobis", transform=transform)
        if not (shrinkage == "ledoit_wolf" if isinstance(shrinkage, str) else 0 <= shrinkage <= 1):
            raise ConfigError(f"shrinkage is {shrinkage!r}, but must be ledoit_wolf, or lie between 0 and 1")
        self.shrinkage = shrinkage

    def _fitted(self, rows: Iterable[tuple[Tensor, Tensor]]) -> tuple[Float64s, Float64s]:
        if self.shrinkage == 0:
            return super()._fitted(rows)
        products = _Products()
        mean, covariance, n = moments(products.of(rows), len(self.mean))
        if n < 2:
            raise SkimError("a covariance cannot be fitted to one row")
        alpha = products.ledoit_wolf(mean, covariance) if self.shrinkage == "ledoit_wolf" else float(self.shrinkage)
        size = np.trace(covariance) / len(mean)
        return mean, (1 - alpha) * covariance + alpha * size * np.eye(len(mean))


class _Products:
    """Sums over rows that say how much their c cᵀ scatter about the covariance; taken about a row's place near the mean."""

    def __init__(self) -> None:
        self.total, self.squares = 0.0, 0.0

    def of(self, rows: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Hand on blocks of rows and weights, and add them up on the way."""
        for block, weights in rows:
            z, w = (part.detach().cpu().numpy().astype(np.float64) for part in (block, weights))
            if self.total == 0:
                d = z.shape[1]
                self.origin = w @ z / w.sum()
                self.first, self.second, self.third, self.fourth = np.zeros(d), np.zeros((d, d)), np.zeros(d), 0.0
            y, v = z - self.origin, w**2
            size = (y**2).sum(axis=1)
            self.total, self.squares = self.total + w.sum(), self.squares + v.sum()
            self.first += v @ y
            self.second += (v * y.T) @ y
            self.third += (v * size) @ y
            self.fourth += v @ size**2
            yield block, weights

    def ledoit_wolf(self, mean: Float64s, covariance: Float64s) -> float:
        """Return α for the mean, (d,), and the unbiased covariance, (d, d), of the same rows."""
        m, v = mean - self.origin, self.squares
        s = covariance * (1 - v / self.total**2)
        # Σ w² |c|⁴ and Σ w² c cᵀ with c = y − m
        fourth = (
            self.fourth + 4 * m @ self.second @ m + v * (m @ m) ** 2 - 4 * self.third @ m
            + 2 * (m @ m) * np.trace(self.second) - 4 * (m @ m) * (self.first @ m)
        )  # fmt: skip
        second = self.second - np.outer(self.first, m) - np.outer(m, self.first) + v * np.outer(m, m)
        noise = (fourth - 2 * (second * s).sum() + v * (s**2).sum()) / self.total**2
        spread = (s**2).sum() - np.trace(s) ** 2 / len(m)
        return float(np.clip(noise / spread, 0.0, 1.0)) if spread > 0 else 1.0
