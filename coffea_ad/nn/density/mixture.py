"""GaussianMixture: the density of rows as a sum of a few normal distributions."""

from __future__ import annotations

import math
import warnings
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, SkimError, unknown_text
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.scoring.specs import Density

__all__ = ["Covariance", "GaussianMixture"]

Covariance = Literal["full", "diag"]

_LARGEST = 1e38  # scores end here, so that none is lost as infinite in float32
_ITERATIONS = 200


class GaussianMixture(Model):
    """A mixture of normal distributions: the score is −ln p(x), or −ln p(z).

    With z = transform(x) of D columns, K weights π, means μ and covariances Σ,

        −ln p(z) = −ln Σ_k π_k exp(−½ (z − μ_k)ᵀ Σ_k⁻¹ (z − μ_k)) / √((2π)ᴰ det Σ_k),

    and −ln p(x) = −ln p(z) − ln |det ∂z/∂x| where the preprocessing has a Jacobian. The mixture is fitted by
    scikit-learn's expectation maximisation to training rows that are drawn in proportion to their weights, and evaluated in
    double precision here. `floor` is added to every variance: it keeps a component from shrinking onto a row that is drawn
    several times, and covariances of few rows invertible.

    Parameters
    ----------
    features : int
        Number of columns of z, D.
    components : int
        K.
    covariance : "full" or "diag"
        K D²/2 numbers, or K D without correlations: for many columns and few rows.
    floor : float
        Smallest variance, in units of z.
    rows : int
        So many at most are drawn; the time of a fit goes with them, and with K D² for full covariances.
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph. `density` says whether the score is one of x or z.

    Raises
    ------
    ConfigError
        A number is out of range, or a word unknown.
    SkimError
        When fitted: there are fewer rows than components.

    References
    ----------
    G. McLachlan, D. Peel, "Finite Mixture Models", Wiley 2000; on embeddings of jets H. F. Tsoi, D. Rankin, arXiv:2601.11719.

    Examples
    --------
    >>> model = GaussianMixture(1, components=1, transform=nn.Identity())
    >>> rows = torch.randn(2000, 1, generator=torch.Generator().manual_seed(1))
    >>> model.start(Batch.of(rows), torch.Generator().manual_seed(1))
    >>> [round(e) for e in model.energy(torch.tensor([[0.0], [2.0]])).tolist()]  # ½ z² + ½ ln 2π
    [1, 3]
    """

    method: ClassVar[str] = "Gaussian mixture"
    plotted: ClassVar[tuple[str, ...]] = ("validation",)

    def __init__(
        self,
        features: int,
        *,
        components: int = 4,
        covariance: Covariance = "full",
        floor: float = 1e-4,
        rows: int = 20_000,
        transform: nn.Module,
    ) -> None:
        super().__init__((features,), transform)
        if covariance not in get_args(Covariance):
            raise ConfigError(f"mixture: {unknown_text('covariance', covariance, get_args(Covariance))}")
        if not 1 <= components <= rows:
            raise ConfigError(f"mixture: components is {components}, but must lie between 1 and the {rows} rows")
        if not 0 < floor < math.inf:
            raise ConfigError(f"mixture: floor is {floor}, but must be a positive number")
        self.components, self.covariance, self.floor, self.rows = components, covariance, floor, rows
        self.density: Density | None = "x" if getattr(transform, "has_jacobian", True) else "z"
        scale = (features, components * features) if covariance == "full" else (components, features)
        self.register_buffer("scale", torch.zeros(scale, dtype=torch.float64))
        self.register_buffer("place", torch.zeros(components, features, dtype=torch.float64))
        self.register_buffer("height", torch.zeros(components, dtype=torch.float64))
        self.scale: Tensor
        self.place: Tensor
        self.height: Tensor

    def start(self, batch: Batch, generator: torch.Generator) -> None:
        """Fit to transformed rows, (n, D), which are drawn in proportion to their weights."""
        from sklearn import exceptions, mixture

        order = torch.randperm(len(batch.z), generator=generator, device=batch.z.device)[: self.rows]
        z = batch.z[order].cpu().numpy().astype(np.float64)
        if len(z) < self.components:
            raise SkimError(f"{self.components} components cannot be fitted to {len(z)} rows; lower components")
        seed = int(torch.randint(2**31, (), generator=generator, device=batch.z.device))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            fitted = mixture.GaussianMixture(
                self.components, covariance_type=self.covariance, reg_covar=self.floor, max_iter=_ITERATIONS, random_state=seed
            ).fit(z)  # fmt: skip
        if not fitted.converged_:
            warnings.warn(
                f"mixture: the fit has not converged after {_ITERATIONS} iterations; take fewer components",
                stacklevel=2,
            )
        # L with Σ⁻¹ = L Lᵀ, (K, D, D) or (K, D): the distance is |L (z − μ)|, and ln det Σ = −2 Σ ln L_ii
        precision = fitted.precisions_cholesky_
        if self.covariance == "full":
            diagonal = np.diagonal(precision, axis1=1, axis2=2)
            place = np.einsum("kd,kde->ke", fitted.means_, precision)
            precision = np.ascontiguousarray(precision.transpose(1, 0, 2)).reshape(self.scale.shape)
        else:
            diagonal, place = precision, fitted.means_ * precision
        height = np.log(fitted.weights_) + np.log(diagonal).sum(axis=1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
        for buffer, values in ((self.scale, precision), (self.place, place), (self.height, height)):
            buffer.copy_(torch.from_numpy(values))

    def energy(self, z: Tensor) -> Tensor:
        """−ln p of transformed rows in z, (n, D) → (n,)."""
        rows = z.double()
        if self.covariance == "full":
            scaled = (rows @ self.scale).unflatten(1, self.place.shape)
        else:
            scaled = rows[:, None, :] * self.scale
        square = ((scaled - self.place) ** 2).sum(dim=2)
        return -torch.logsumexp(self.height - 0.5 * square, dim=1).clamp(min=-_LARGEST).to(z.dtype)

    def score(self, x: Tensor) -> Tensor:
        """−ln p of raw rows, (n, *shape) → (n,); NaN for a row with a NaN or infinite value."""
        score = super().score(x)
        if self.density == "x" and isinstance(self.transform, Transform):
            score = score - self.transform.log_det(torch.nan_to_num(x, 0.0, 0.0, 0.0))
        return score
