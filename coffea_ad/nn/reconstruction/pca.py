"""PCA and kernel PCA: the score is what the leading directions of the data do not explain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.model import Batch, Model
from coffea_ad.scoring.specs import Contributions
from coffea_ad.typing import Float64s

__all__ = ["PCA", "KernelPCA", "PCAScore", "moments"]

PCAScore = Literal["reconstruction", "mahalanobis"]
_LARGEST = 1e38  # scores end here, so that none is lost as infinite in float32
_BLOCK = 8192
_FLAT = 1e-12  # directions with less of the largest variance are rounding


def moments(rows: Iterable[tuple[Tensor, Tensor]], d: int) -> tuple[Float64s, Float64s, int]:
    """Return the weighted mean, (d,), the unbiased covariance, (d, d), and how many rows there are.

    Blocks are merged by the differences of their means: sums of products about 0 would lose digits.
    """
    total, squares, n = 0.0, 0.0, 0
    mean, scatter = np.zeros(d), np.zeros((d, d))
    for block, weights in rows:
        z, w = (part.detach().cpu().numpy().astype(np.float64) for part in (block, weights))
        here = w @ z / w.sum()
        centred, shift = z - here, here - mean
        share = w.sum() / (total + w.sum())
        scatter += (w * centred.T) @ centred + total * share * np.outer(shift, shift)
        mean += share * shift
        total, squares, n = total + w.sum(), squares + (w**2).sum(), n + len(w)
    if n == 0:
        raise SkimError("a PCA cannot be fitted to no rows")
    return mean, scatter / max(total - squares / total, np.finfo(float).tiny), n


class PCA(Model):
    """Principal components of the transformed inputs.

    With the mean μ, the covariance C and the matrix B of its `components` leading eigenvectors, c = z − μ:

    reconstruction: E(z) = |c − B Bᵀ c|² / d;    mahalanobis: E(z) = cᵀ C⁻¹ c, with all components.

    μ and C are those of all training rows with their weights, C = Σ w c cᵀ / (Σw − Σw²/Σw), so there is nothing to train,
    and no seed. The graph works in double precision here, since small variances of nearly degenerate inputs are differences of large numbers.

    Parameters
    ----------
    features : int
        Number of input columns, d.
    components : int
        Directions that are kept, 1 … d; the Mahalanobis distance keeps all.
    score : "reconstruction" or "mahalanobis"
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph.

    Raises
    ------
    ConfigError
        There are more components than columns, or none.
    SkimError
        When fitted: some direction does not vary, and the Mahalanobis distance is asked for.

    References
    ----------
    K. Pearson, "On lines and planes of closest fit to systems of points in space", Phil. Mag. 2 (1901) 559;
    P. C. Mahalanobis, "On the generalised distance in statistics", Proc. Natl. Inst. Sci. India 2 (1936) 49.

    Examples
    --------
    >>> model = PCA(2, components=1, transform=nn.Identity())
    >>> rows = torch.linspace(-1, 1, 500)[:, None] * torch.tensor([[1.0, 1.0]])  # all on the diagonal
    >>> model.learn([(rows, torch.ones(500))])
    >>> [round(e, 3) for e in model.energy(torch.tensor([[2.0, 2.0], [1.0, -1.0]])).tolist()]
    [0.0, 1.0]
    """

    method: ClassVar[str] = "PCA"
    plotted: ClassVar[tuple[str, ...]] = ("validation",)

    def __init__(
        self, features: int, *, components: int = 4, score: PCAScore = "reconstruction", transform: nn.Module
    ) -> None:
        super().__init__((features,), transform)
        if not 1 <= components <= features:
            raise ConfigError(
                f"components is {components}, but must lie between 1 and the number of columns, {features}"
            )
        self.components, self.score_kind = components, score
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        width = features if score == "mahalanobis" else components
        self.register_buffer("basis", torch.zeros(features, width, dtype=torch.float64))
        self.mean: Tensor
        self.basis: Tensor

    def learn(self, rows: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the directions to all transformed rows and their weights, (n, d) and (n,), block by block."""
        width = self.basis.shape[1]
        mean, covariance = self._fitted(rows)
        variance, directions = np.linalg.eigh(covariance)
        variance, basis = variance[::-1][:width], directions[:, ::-1][:, :width]
        basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(width)])  # a direction has no sign
        if self.score_kind == "mahalanobis":
            flat = int((variance <= _FLAT * variance[0]).sum())
            if flat:
                raise SkimError(
                    f"the training rows do not vary along {flat} of {width} directions, so there is no Mahalanobis "
                    "distance without shrinkage (recipe nearest); take score=reconstruction, or leave constant and redundant columns out"
                )
            basis = basis / np.sqrt(variance)
        self.mean.copy_(torch.from_numpy(mean))
        self.basis.copy_(torch.from_numpy(np.ascontiguousarray(basis)))

    def _fitted(self, rows: Iterable[tuple[Tensor, Tensor]]) -> tuple[Float64s, Float64s]:
        """Return mean, (d,), and covariance, (d, d)."""
        mean, covariance, n = moments(rows, len(self.mean))
        if n <= self.basis.shape[1]:
            raise SkimError(f"{self.basis.shape[1]} components cannot be fitted to {n} rows")
        return mean, covariance

    def energy(self, z: Tensor) -> Tensor:
        """Score transformed rows, (n, d) → (n,)."""
        centred = z.double() - self.mean
        along = centred @ self.basis
        if self.score_kind == "mahalanobis":
            energy = (along**2).sum(dim=1)
        else:
            energy = ((centred - along @ self.basis.t()) ** 2).mean(dim=1)
        return energy.clamp(max=_LARGEST).to(z.dtype)

    @property
    def contributes(self) -> Contributions | None:
        """Each input's part of the error or of the distance; those of a distance may be negative."""
        return self.by_column()

    def contributions(self, z: Tensor) -> Tensor:
        """(c − B Bᵀ c)ᵢ² / d, or cᵢ (C⁻¹ c)ᵢ, of transformed rows, (n, d) → (n, d)."""
        centred = z.double() - self.mean
        along = centred @ self.basis
        back = along @ self.basis.t()
        parts = centred * back if self.score_kind == "mahalanobis" else (centred - back) ** 2 / len(self.mean)
        return parts.clamp(-_LARGEST, _LARGEST).to(z.dtype)


class KernelPCA(Model):
    """Principal components in the space of a kernel: the squared distance from their span.

    With landmarks l₁ … l_m, kⱼ = k(z, lⱼ), Kᵢⱼ = k(lᵢ, lⱼ), and φ̃ the feature vector minus the mean of the landmarks':

    E(z) = |φ̃(z) − P φ̃(z)|² = k(z, z) − 2 k̄ + K̄ − Σ_a (Σⱼ v_aⱼ k̃ⱼ)² / λ_a,    k̃ⱼ = kⱼ − k̄ − K̄ⱼ + K̄,

    where bars are means over landmarks, and λ_a, v_a the `components` leading eigenvalues and eigenvectors of the centred
    K, from scikit-learn. No pre-image is needed. The landmarks are drawn from the training rows in proportion to
    their weights. Kernels: rbf, exp(−γ |z − l|²), whose score is bounded, so that rows far from all landmarks have one
    score; and polynomial, (γ z·l + 1)^degree, whose score grows without bound.

    Parameters
    ----------
    features : int
        Number of input columns, d.
    components : int
        Directions that are kept, fewer than landmarks.
    kernel : "rbf" or "polynomial"
    gamma : float, optional
        γ. By default 1 / median |lᵢ − lⱼ|² over pairs of landmarks for rbf, and 1/d for polynomial.
    degree : int
        Of the polynomial.
    landmarks : int
        m; the cost of a score is proportional to m d, as is the size of the file (4 bytes a number).
    transform : nn.Module
        Preprocessing x → z.

    Raises
    ------
    ConfigError
        There are as many components as landmarks, or none.
    SkimError
        When fitted: fewer rows than landmarks, or most landmarks are the same.

    References
    ----------
    B. Schölkopf, A. Smola, K.-R. Müller, "Nonlinear component analysis as a kernel eigenvalue problem", Neural
    Computation 10 (1998) 1299; H. Hoffmann, "Kernel PCA for novelty detection", Pattern Recognition 40 (2007) 863.

    Examples
    --------
    >>> model = KernelPCA(2, components=8, landmarks=100, transform=nn.Identity())
    >>> angle = torch.linspace(0, 6.28, 400)
    >>> model.start(Batch.of(torch.stack([angle.cos(), angle.sin()], dim=1)), torch.Generator().manual_seed(1))  # a ring
    >>> on, centre = model.energy(torch.tensor([[0.6, 0.8], [0.0, 0.0]])).tolist()
    >>> centre > 10 * on
    True
    """

    method: ClassVar[str] = "kernel PCA"
    plotted: ClassVar[tuple[str, ...]] = ("validation",)

    def __init__(
        self,
        features: int,
        *,
        components: int = 16,
        kernel: Literal["rbf", "polynomial"] = "rbf",
        gamma: float | None = None,
        degree: int = 3,
        landmarks: int = 500,
        transform: nn.Module,
    ) -> None:
        super().__init__((features,), transform)
        if not 1 <= components < landmarks:
            raise ConfigError(f"components is {components}, but must lie between 1 and the {landmarks} landmarks")
        self.components, self.kernel, self.degree, self.given = components, kernel, degree, gamma
        self.register_buffer("landmarks", torch.zeros(landmarks, features))
        self.register_buffer("gamma", torch.ones((), dtype=torch.float64))
        self.register_buffer("row_mean", torch.zeros(landmarks, dtype=torch.float64))
        self.register_buffer("whole_mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("directions", torch.zeros(landmarks, components, dtype=torch.float64))
        self.landmarks: Tensor
        self.gamma: Tensor
        self.row_mean: Tensor
        self.whole_mean: Tensor
        self.directions: Tensor

    def start(self, batch: Batch, generator: torch.Generator) -> None:
        """Draw the landmarks from transformed rows, (n, d), and find the directions."""
        z = batch.z
        from sklearn import decomposition

        m = len(self.landmarks)
        if len(z) < m:
            raise SkimError(f"{m} landmarks cannot be drawn from {len(z)} rows; lower landmarks")
        self.landmarks.copy_(z[torch.randperm(len(z), generator=generator, device=z.device)[:m]])
        rows = self.landmarks.double()
        self.gamma.fill_(self.given if self.given is not None else self._usual_gamma(rows))
        table = self._kernel(rows).cpu().numpy().astype(np.float64)
        fitted = decomposition.KernelPCA(self.components, kernel="precomputed", eigen_solver="dense").fit(table)
        value = np.maximum(fitted.eigenvalues_, 0)
        carrying = value > _FLAT * value[0]  # the kernel may have fewer directions than were asked for
        directions = fitted.eigenvectors_[:, carrying] / np.sqrt(value[carrying])
        self.directions.zero_()
        self.directions[:, : carrying.sum()] = torch.from_numpy(directions).to(z.device)
        self.row_mean.copy_(torch.from_numpy(table.mean(axis=0)))
        self.whole_mean.fill_(float(table.mean()))

    def _usual_gamma(self, rows: Tensor) -> float:
        if self.kernel == "polynomial":
            return 1 / rows.shape[1]
        median = float(torch.pdist(rows).square().median())
        if median == 0:
            raise SkimError("more than half of all pairs of landmarks are equal; give gamma, or take fewer columns")
        return 1 / median

    def _kernel(self, z: Tensor) -> Tensor:
        """Return k(z, l) in double precision, (n, landmarks)."""
        landmarks = self.landmarks.double()
        product = z @ landmarks.t()
        if self.kernel == "polynomial":
            return (self.gamma * product + 1) ** self.degree
        distance = (z**2).sum(dim=1, keepdim=True) - 2 * product + (landmarks**2).sum(dim=1)
        # The exponential of single precision is many times faster in onnxruntime, and exact enough.
        return (-self.gamma * distance).clamp(-80, 0).float().exp().double()

    def energy(self, z: Tensor) -> Tensor:
        """Score transformed rows, (n, d) → (n,)."""
        if not torch.compiler.is_exporting() and len(z) > _BLOCK:  # a row needs memory for every landmark
            return torch.cat([self.energy(part) for part in z.split(_BLOCK)])
        rows = z.double()
        kernel = self._kernel(rows)
        mean = kernel.mean(dim=1, keepdim=True)
        along = (kernel - mean - self.row_mean + self.whole_mean) @ self.directions
        itself = (self.gamma * (rows**2).sum(dim=1) + 1) ** self.degree if self.kernel == "polynomial" else 1.0
        energy = itself - 2 * mean[:, 0] + self.whole_mean - (along**2).sum(dim=1)
        return energy.clamp(0, _LARGEST).to(z.dtype)
