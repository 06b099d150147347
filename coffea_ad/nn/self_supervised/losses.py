"""Contrastive losses of representations, and what tells how good a representation is without labels.

z, z′ and z* are representations of N rows, of their positive and of their anomalous views, (N, D), not normalised.
s(a, b) = a·b / |a||b|, and τ is the temperature. Computed in single precision, also under autocast; double stays double.
A representation that is 0 has s = 0, and a finite gradient.

`row`, (N,) int64, says which rows are one and the same: rows are drawn with replacement, and one that was drawn twice is no
negative of itself. By default all are different.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coffea_ad.errors import ConfigError

__all__ = [
    "alignment",
    "anom_clr",
    "anom_clr_plus",
    "decoupled_clr",
    "norm_term",
    "nt_xent",
    "similarity",
    "uniformity",
]


def _units(*views: Tensor) -> list[Tensor]:
    """Return views of length 1, in single precision at least."""
    if views[0].ndim != 2 or 0 in views[0].shape or len({view.shape for view in views}) > 1:
        shapes = " and ".join(str(tuple(view.shape)) for view in views)
        raise ConfigError(f"a loss needs representations (N, D) of equal shape, not {shapes}")
    wide = [view if view.dtype == torch.float64 else view.float() for view in views]
    lengths = [torch.linalg.vector_norm(view, dim=1, keepdim=True) for view in wide]
    return [view / torch.where(length > 0, length, 1.0) for view, length in zip(wide, lengths, strict=True)]


def _similarities(z: Tensor) -> Tensor:
    """Return s of all pairs of unit vectors, (N, D) → (N, N)."""
    with torch.autocast(z.device.type, enabled=False):
        return z @ z.T


def _equal_rows(z: Tensor, row: Tensor | None) -> Tensor:
    """Return which pairs are no negatives, (N, N) bool."""
    row = torch.arange(len(z), device=z.device) if row is None else row
    return row[:, None] == row


def _contrast(z: Tensor, positive: Tensor, temperature: float, row: Tensor | None, *, with_positive: bool) -> Tensor:
    """Return the mean over both views of ln Σ e^{s/τ} − s(z, z′)/τ; an anchor without partners has no sum."""
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature:g}, but must be positive")
    first, second = _units(z, positive)
    logits = _similarities(torch.cat([first, second])) / temperature
    hidden = _equal_rows(z, row).repeat(2, 2)
    if with_positive:
        for view in (len(z), -len(z)):
            hidden.diagonal(view).fill_(False)
    sums = logits.masked_fill(hidden, -torch.inf).logsumexp(dim=1)
    return torch.where(sums > -torch.inf, sums, 0.0).mean() - (first * second).sum(dim=1).mean() / temperature


def nt_xent(z: Tensor, positive: Tensor, *, temperature: float = 0.1, row: Tensor | None = None) -> Tensor:
    """Cross-entropy of which of 2N − 1 others is the second view of a row: the loss of SimCLR and JetCLR.

    ℓ_i = −ln[e^{s(z_i, z_i′)/τ} / Σ_{k≠i} e^{s(z_i, z_k)/τ}],

    where k runs over the other 2N − 1 views, the positive among them; the mean over both views as anchors.

    Parameters
    ----------
    z, positive : (N, D)
    temperature : float
        τ.
    row : (N,) int64, optional

    Returns
    -------
    ()
        Between 0 and ln(2N − 1) + 2/τ.

    Raises
    ------
    ConfigError
        If shapes differ, or the temperature is not positive.

    References
    ----------
    T. Chen et al., "A simple framework for contrastive learning of visual representations", arXiv:2002.05709;
    B. M. Dillon et al., "Symmetries, safety, and self-supervision", arXiv:2108.04253.

    Examples
    --------
    >>> z = torch.eye(2)
    >>> round(nt_xent(z, z, temperature=1.0).item(), 4)  # ln(e + 2) − 1
    0.5514
    """
    return _contrast(z, positive, temperature, row, with_positive=True)


def decoupled_clr(z: Tensor, positive: Tensor, *, temperature: float = 0.1, row: Tensor | None = None) -> Tensor:
    """Contrast with the negatives alone: the CLR of AnomalyCLR.

    ℓ_i = −s(z_i, z_i′)/τ + ln Σ_{j≠i} [e^{s(z_i, z_j)/τ} + e^{s(z_i, z_j′)/τ}],

    2N − 2 terms without the positive; the mean over both views as anchors. A row without negatives has no sum.

    Parameters
    ----------
    z, positive : (N, D)
    temperature : float
        τ.
    row : (N,) int64, optional

    Returns
    -------
    ()
        Between ln(2N − 2) − 2/τ and ln(2N − 2) + 2/τ, with all rows different.

    Raises
    ------
    ConfigError
        If shapes differ, or the temperature is not positive.

    References
    ----------
    C.-H. Yeh et al., "Decoupled contrastive learning", arXiv:2110.06848; B. M. Dillon et al., "Anomalies,
    representations, and self-supervision", arXiv:2301.04660.

    Examples
    --------
    >>> z = torch.eye(2)
    >>> round(decoupled_clr(z, z, temperature=1.0).item(), 4)  # ln 2 − 1
    -0.3069
    """
    return _contrast(z, positive, temperature, row, with_positive=False)


def anom_clr(
    z: Tensor, positive: Tensor, anomaly: Tensor, *, temperature: float = 0.1, row: Tensor | None = None
) -> Tensor:
    """Contrast with the negatives, and with an anomalous view of each row.

    ℓ_i = −[s(z_i, z_i′) − s(z_i, z_i*)]/τ + ln Σ_{j≠i} [e^{s(z_i, z_j)/τ} + e^{s(z_i, z_j′)/τ}];

    the mean over both views as anchors of the sum, while anomalies are compared with z.

    Parameters
    ----------
    z, positive, anomaly : (N, D)
    temperature : float
        τ.
    row : (N,) int64, optional

    Returns
    -------
    ()
        Between ln(2N − 2) − 3/τ and ln(2N − 2) + 3/τ, with all rows different.

    Raises
    ------
    ConfigError
        If shapes differ, or the temperature is not positive.

    References
    ----------
    B. M. Dillon et al., "Anomalies, representations, and self-supervision", arXiv:2301.04660.

    Examples
    --------
    >>> z = torch.eye(2)
    >>> round(anom_clr(z, z, -z, temperature=1.0).item(), 4)  # ln 2 − 1 − 1
    -1.3069
    """
    return decoupled_clr(z, positive, temperature=temperature, row=row) + similarity(z, anomaly) / temperature


def anom_clr_plus(
    z: Tensor,
    positive: Tensor,
    anomaly: Tensor,
    *,
    temperature: float = 0.1,
    row: Tensor | None = None,  # noqa: ARG001
) -> Tensor:
    """Contrast with an anomalous view of each row alone: the loss of DarkCLR, without its `norm_term`.

    ℓ_i = [s(z_i, z_i*) − s(z_i, z_i′)]/τ.

    No negatives, so that the size of a batch does not enter.

    Parameters
    ----------
    z, positive, anomaly : (N, D)
    temperature : float
        τ.
    row : (N,) int64, optional
        As for the others; there are no negatives.

    Returns
    -------
    ()
        Between −2/τ and 2/τ.

    Raises
    ------
    ConfigError
        If shapes differ, or the temperature is not positive.

    References
    ----------
    B. M. Dillon et al., "Anomalies, representations, and self-supervision", arXiv:2301.04660; L. Favaro et al.,
    "Semi-visible jets, energy-based models, and self-supervision", arXiv:2312.03067.

    Examples
    --------
    >>> z = torch.eye(2)
    >>> round(anom_clr_plus(z, z, -z).item(), 4)
    -20.0
    """
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature:g}, but must be positive")
    return (similarity(z, anomaly) - similarity(z, positive)) / temperature


def norm_term(z: Tensor, weight: float = 1e-3) -> Tensor:
    """Return weight · mean |z|, which keeps the lengths finite that the cosines do not see.

    References
    ----------
    L. Favaro et al., "Semi-visible jets, energy-based models, and self-supervision", arXiv:2312.03067.

    Examples
    --------
    >>> round(norm_term(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).item(), 4)
    0.003
    """
    lengths: Tensor = torch.linalg.vector_norm(z if z.dtype == torch.float64 else z.float(), dim=1)
    return weight * lengths.mean()


def similarity(z: Tensor, other: Tensor) -> Tensor:
    """Return the mean of s(z_i, other_i): to the positive near 1, to the anomaly near −1 in a good representation.

    >>> similarity(torch.eye(2), -torch.eye(2)).item()
    -1.0
    """
    first, second = _units(z, other)
    return (first * second).sum(dim=1).mean()


def alignment(z: Tensor, positive: Tensor) -> Tensor:
    """Return the mean squared distance of both views on the unit sphere, |ẑ − ẑ′|² = 2 − 2 s(z, z′).

    Parameters
    ----------
    z, positive : (N, D)

    Returns
    -------
    ()
        Between 0, invariant under what makes the positive view, and 4.

    References
    ----------
    T. Wang, P. Isola, "Understanding contrastive representation learning through alignment and uniformity on the
    hypersphere", arXiv:2005.10242.

    Examples
    --------
    >>> alignment(torch.eye(2), torch.eye(2).flip(0)).item()
    2.0
    """
    first, second = _units(z, positive)
    return (first - second).square().sum(dim=1).mean()


def uniformity(z: Tensor, row: Tensor | None = None) -> Tensor:
    """Return the logarithm of the mean of e^{−2 |ẑ_i − ẑ_j|²} over all pairs of different rows.

    Parameters
    ----------
    z : (N, D)
    row : (N,) int64, optional

    Returns
    -------
    ()
        At most 0, where all are one point, as a collapsed representation is; 0 also without any pair.

    References
    ----------
    T. Wang, P. Isola, "Understanding contrastive representation learning through alignment and uniformity on the
    hypersphere", arXiv:2005.10242.

    Examples
    --------
    >>> uniformity(torch.eye(2)).item()
    -4.0
    """
    (unit,) = _units(z)
    pairs = ~_equal_rows(z, row)
    exponents = torch.where(pairs, 4 * _similarities(unit) - 4, -torch.inf).flatten()
    number = pairs.sum()
    mean = torch.where(number > 0, exponents, 0.0).logsumexp(dim=0) - number.clamp_min(1).to(exponents).log()
    return torch.where(number > 0, mean, 0.0)
