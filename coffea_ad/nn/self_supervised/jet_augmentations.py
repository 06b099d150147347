"""Views of jets: what a jet could as well have looked like, and what it should not look like.

x, (n, N, C) float32, holds constituents by falling pT as the feature `jet_constituents` has them, empty slots behind: pT (GeV), Δη
and Δφ from the centre of the jet, and further columns, which go along with their particle unchanged. Results are sorted
likewise. What changes the share of pT in parts of a jet has its centre moved back to the origin, so a translation comes last.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor

from coffea_ad.errors import ConfigError
from coffea_ad.features.protojets import protojets
from coffea_ad.nn.self_supervised.augmentations import (
    as_number,
    by_falling_pt,
    normal,
    of_planes,
    packed,
    split,
    to_planes,
    uniform,
    wrapped,
)

__all__ = [
    "AUGMENTATIONS",
    "collinear_split",
    "drop",
    "energy_smear",
    "pt_reweight",
    "recluster",
    "rotation",
    "shift_pt",
    "soft_smear",
    "subjet_shift",
    "translation",
]

_TINY = 1e-30  # of an empty jet the sum of pT, which divides 0


def _sum(plane: Tensor) -> Tensor:
    """Return the sum over the constituents of each jet, (…, n, N) → (…, n, 1)."""
    return plane.sum(dim=-1, keepdim=True)


def _shared(planes: Tensor, weight: Tensor, real: Tensor) -> tuple[Tensor, ...]:
    """Share the pT of each jet by weights, and subtract the centroid Σ pT (η, φ) / Σ pT that it has then.

    Azimuths are averaged about the leading constituent, so that a jet across ±π has no centre on the other side.

    planes : (C, n, N); weight : (n, N); real : (n, N), 1 where the weight is above 0, and 0 elsewhere.
    """
    pt, eta, phi, *rest = planes
    share = weight / _sum(weight).clamp_min(_TINY)
    phi = wrapped(phi - phi[:, :1])
    eta, phi = eta - _sum(share * eta), wrapped(phi - _sum(share * phi))
    return share * _sum(pt), eta * real, phi * real, *rest


def rotation(x: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Rotate each jet by its own angle, U(0, 2π), about the origin of the plane (Δη, Δφ).

    References
    ----------
    B. M. Dillon et al., "Symmetries, safety, and self-supervision", arXiv:2108.04253.

    Examples
    --------
    >>> x = torch.tensor([[[2.0, 0.3, 0.4]]])
    >>> y, _ = rotation(x, x[..., 0] > 0, torch.Generator().manual_seed(1))
    >>> round(y[0, 0, 1:].norm().item(), 4)
    0.5
    """
    theta = uniform((len(x), 1), x, generator, high=2 * math.pi)
    cos, sin = theta.cos(), theta.sin()
    pt, eta, phi, *rest = to_planes(x)
    return of_planes(pt, cos * eta - sin * phi, sin * eta + cos * phi, *rest), mask


def translation(x: Tensor, mask: Tensor, generator: Generator, *, width: float = 1.0) -> tuple[Tensor, Tensor]:
    """Move each jet as a whole, at most as far as it is wide.

    Shifts are U(−w, w) times the distance in η of the outermost constituents, and likewise in φ, but only as far as no
    constituent passes ±π.

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    width : float
        w.

    References
    ----------
    B. M. Dillon et al., "Symmetries, safety, and self-supervision", arXiv:2108.04253.

    Examples
    --------
    >>> x = torch.tensor([[[2.0, 0.1, 0.0], [1.0, -0.2, 0.0], [0.0, 0.0, 0.0]]])
    >>> y, _ = translation(x, x[..., 0] > 0, torch.Generator().manual_seed(1))
    >>> (y[0, 0] - y[0, 1]).round(decimals=4), y[0, 2]
    (tensor([1.0000, 0.3000, 0.0000]), tensor([0., 0., 0.]))
    """
    planes, real = to_planes(x), as_number(mask, x)
    # the leading constituent stands in for empty slots, so that these have no part in the extent
    places = torch.lerp(planes[1:3, :, :1], planes[1:3], real)
    least, most = places.amin(dim=2, keepdim=True), places.amax(dim=2, keepdim=True)
    extent, wall = width * (most - least), x.new_tensor([[[math.inf]], [[math.pi]]])
    low, high = torch.maximum(-extent, -(wall + least)), torch.minimum(extent, wall - most)
    shift = torch.lerp(low, high, uniform((2, len(x), 1), x, generator))
    moved = torch.addcmul(planes[1:3], shift, real)
    return torch.cat([planes[:1], moved, planes[3:]]).movedim(0, 2), mask


def soft_smear(
    x: Tensor, mask: Tensor, generator: Generator, *, strength: float = 0.1, floor: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Smear directions, those of soft constituents most: Δη and Δφ by N(0, σ), σ = strength / max(pT, floor).

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    strength, floor : float, GeV

    References
    ----------
    B. M. Dillon et al., "Symmetries, safety, and self-supervision", arXiv:2108.04253.

    Examples
    --------
    >>> x = torch.tensor([[[100.0, 0.1, 0.2], [0.5, 0.1, 0.2], [0.0, 0.0, 0.0]]])
    >>> soft_smear(x, x[..., 0] > 0, torch.Generator().manual_seed(1))[0][0, :, 1:].round(decimals=2)
    tensor([[0.1000, 0.2000],
            [0.1500, 0.1100],
            [0.0000, 0.0000]])
    """
    pt, eta, phi, *rest = to_planes(x)
    sigma = strength / pt.clamp_min(floor) * as_number(mask, x)
    eta, phi = (place + sigma * normal(mask.shape, x, generator) for place in (eta, phi))
    return of_planes(pt, eta, wrapped(phi), *rest), mask


def collinear_split(x: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Split constituents into two of the same direction, as many as there are free slots, each once at most.

    pT → r pT and (1 − r) pT, r ~ U(0, 1). Which ones are split is drawn.

    References
    ----------
    B. M. Dillon et al., "Symmetries, safety, and self-supervision", arXiv:2108.04253.

    Examples
    --------
    >>> x = torch.tensor([[[4.0, 0.1, 0.2], [0.0, 0.0, 0.0]]])
    >>> y, mask = collinear_split(x, x[..., 0] > 0, torch.Generator().manual_seed(1))
    >>> mask, y[0, :, 0].sum(), y[0, :, 1]
    (tensor([[True, True]]), tensor(4.), tensor([0.1000, 0.1000]))
    """
    number = mask.cumsum(dim=1)[:, -1:]
    step = 2.0**-24  # of the random numbers: neither half is empty
    r = uniform(mask.shape, x, generator).clamp(step, 1 - step)
    splits = torch.minimum(number, mask.shape[1] - number)
    planes, mask = split(to_planes(x), mask, mask, splits, r, generator)
    return planes.movedim(0, 2), mask


def energy_smear(
    x: Tensor, mask: Tensor, generator: Generator, *, constant: float = 0.05, stochastic: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Smear the pT of each constituent, whose mean stays: pT → pT e^{σ n − σ²/2}, n ~ N(0, 1).

    σ² = constant² + stochastic² / (pT/GeV), the form of a calorimeter's resolution. Log-normal, so that no constituent
    vanishes. Sorted and centred anew; the pT of the jet changes.

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    constant, stochastic : float

    Examples
    --------
    >>> x = torch.tensor([[[100.0, 0.0, 0.0], [99.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    >>> energy_smear(x, x[..., 0] > 0, torch.Generator().manual_seed(1))[0][0, :, 0].round()
    tensor([103., 100.,   0.])
    """
    pt, *rest = to_planes(x)
    square = constant**2 + stochastic**2 / pt.clamp_min(_TINY)
    exponent = torch.where(mask, square.sqrt() * normal(mask.shape, x, generator) - 0.5 * square, 0.0)
    planes, mask = by_falling_pt(torch.stack([pt * exponent.exp(), *rest]), mask)
    return of_planes(*_shared(planes, planes[0], as_number(mask, x))), mask


def drop(
    x: Tensor, mask: Tensor, generator: Generator, *, probability: float | tuple[float, float] = (0.1, 0.6)
) -> tuple[Tensor, Tensor]:
    """Drop constituents at random, scale the others to the pT of the jet, and centre it: DarkCLR's anomalous view.

    Never the leading one, so that no jet is emptied.

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    probability : float or (float, float)
        Of each constituent to be dropped; of two, each jet draws its own between them.

    Raises
    ------
    ConfigError
        If a probability is not between 0 and 1.

    References
    ----------
    L. Favaro et al., "Semi-visible jets, energy-based models, and self-supervision", arXiv:2312.03067.

    Examples
    --------
    >>> x = torch.tensor([[[4.0, 0.1, 0.2], [2.0, -0.2, -0.4], [0.0, 0.0, 0.0]]])
    >>> drop(x, x[..., 0] > 0, torch.Generator().manual_seed(1), probability=1.0)[0][0, :, 0]
    tensor([6., 0., 0.])
    """
    low, high = (probability, probability) if isinstance(probability, float | int) else probability
    if not 0 <= low <= high <= 1:
        raise ConfigError(f"probability is {probability}, but must be one, or two in rising order, between 0 and 1")
    keep = uniform(mask.shape, x, generator) >= uniform((len(x), 1), x, generator, low, high)
    keep[:, :1] = True
    keep &= mask
    real = as_number(keep, x)
    planes = to_planes(x)
    planes, mask = packed(torch.stack(_shared(planes, planes[0] * real, real)), keep)
    return planes.movedim(0, 2), mask


def pt_reweight(x: Tensor, mask: Tensor, generator: Generator, *, power: float = 1.5) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Share the pT of each jet differently, pT → pT^β, scaled to the pT of the jet, and centre it.

    Above 1 hard constituents get harder, below 1 softer. Nothing is drawn.

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    power : float
        β; at 0 all constituents get equal shares.

    Raises
    ------
    ConfigError
        If the power is negative.

    References
    ----------
    B. M. Dillon et al., "Anomalies, representations, and self-supervision", arXiv:2301.04660.

    Examples
    --------
    >>> x = torch.tensor([[[4.0, 0.1, 0.2], [1.0, -0.2, -0.4]]])
    >>> pt_reweight(x, x[..., 0] > 0, torch.Generator(), power=2.0)[0][0, :, 0]
    tensor([4.7059, 0.2941])
    """
    if not power >= 0:
        raise ConfigError(f"power is {power:g}; below 0 the softest constituent would become the hardest")
    planes, real = to_planes(x), as_number(mask, x)
    weight = (planes[0] / planes[0, :, :1].clamp_min(_TINY)).pow(power).clamp_min(_TINY) * real
    return of_planes(*_shared(planes, weight, real)), mask


def subjet_shift(
    x: Tensor, mask: Tensor, generator: Generator, *, probability: float = 0.5, radius: float = 0.8
) -> tuple[Tensor, Tensor]:
    """Move a random subset of each jet aside, as a second prong, scale to the pT of the jet, and centre it.

    One shift a jet, U(±1/2R) in Δη and Δφ; what it moves out of the radius is dropped. The leading constituent stays.

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    probability : float
        Of each other constituent to be moved.
    radius : float
        R.

    References
    ----------
    B. M. Dillon et al., "Anomalies, representations, and self-supervision", arXiv:2301.04660.

    Examples
    --------
    >>> x = torch.tensor([[[4.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    >>> y, _ = subjet_shift(x, x[..., 0] > 0, torch.Generator().manual_seed(1), probability=1.0)
    >>> (y[0, 1] - y[0, 0])[1:].round(decimals=2)
    tensor([ 0.3200, -0.2800])
    """
    shift = uniform((2, len(x), 1), x, generator, -0.5 / radius, 0.5 / radius)
    moved = (uniform(mask.shape, x, generator) < probability) & mask
    moved[:, :1] = False
    planes = to_planes(x)
    places = torch.addcmul(planes[1:3], shift, as_number(moved, x))
    keep = mask & ~(moved & (places.square().sum(dim=0) > radius**2))
    real = as_number(keep, x)
    planes = torch.cat([planes[:1], places, planes[3:]])
    planes, mask = packed(torch.stack(_shared(planes, planes[0] * real, real)), keep)
    return planes.movedim(0, 2), mask


def shift_pt(
    x: Tensor, mask: Tensor, generator: Generator, *, low: float = 1.0, high: float = 5.0
) -> tuple[Tensor, Tensor]:
    """Scale the pT of each jet by a factor, U(low, high).

    References
    ----------
    L. Favaro et al., "Semi-visible jets, energy-based models, and self-supervision", arXiv:2312.03067.

    Examples
    --------
    >>> x = torch.tensor([[[4.0, 0.1, 0.2], [2.0, -0.2, -0.4]]])
    >>> y, _ = shift_pt(x, x[..., 0] > 0, torch.Generator().manual_seed(1))
    >>> (y / x)[0, :, 0]
    tensor([4.0305, 4.0305])
    """
    pt, *rest = to_planes(x)
    return of_planes(pt * uniform((len(x), 1), x, generator, low, high), *rest), mask


def recluster(x: Tensor, mask: Tensor, generator: Generator, *, fewest: int = 5) -> tuple[Tensor, Tensor]:
    """Recombine the constituents of each jet by kT, until a number of protojets is left that is uniform from `fewest` to all.

    A protojet has the sum of the pT of its constituents, lies at their centroid, and has the further columns of the hardest
    one: pT and centre of the jet are conserved.

    References
    ----------
    Z. Hao, R. Kansal, A. Gandrakota, C. Sun, J. Ngadiuba, J. Duarte, M. Spiropulu, "RINO: renormalization group invariance with
    no labels", arXiv:2509.07486, which has students see jets at such depths.

    Examples
    --------
    >>> x = torch.tensor([[[50.0, 0.0, 0.0], [30.0, 0.5, 0.0], [10.0, 0.7, 0.0]]])
    >>> y, _ = recluster(x, x[..., 0] > 0, torch.Generator().manual_seed(3), fewest=2)
    >>> y[0, :, 0].tolist(), y[0, 1, 1:].tolist()
    ([50.0, 40.0, 0.0], [0.550000011920929, 0.0])
    """
    if fewest < 1:
        raise ConfigError(f"recluster: fewest is {fewest}, but must be at least 1")
    n_real = mask.sum(dim=1)
    spread = (n_real - fewest + 1).clamp_min(1) * uniform((len(x),), x, generator)
    number = torch.minimum(fewest + spread.to(n_real), n_real)
    filled, (pt, eta, phi) = mask.cpu().numpy(), x[..., :3].double().cpu().movedim(2, 0).numpy()
    offsets = np.concatenate([[0], filled.sum(axis=1).cumsum()])
    label = np.zeros(filled.shape, np.int64)
    label[filled] = protojets(offsets, pt[filled], eta[filled], phi[filled], number.cpu().numpy()).clip(min=0)
    place, real = torch.from_numpy(label).to(x.device), as_number(mask, x)
    planes = to_planes(x)

    def summed(plane: Tensor) -> Tensor:
        return torch.zeros_like(plane).scatter_add_(1, place, plane * real)

    hardest = torch.full_like(place, x.shape[1] - 1).scatter_reduce_(
        1, place.masked_fill(~mask, x.shape[1] - 1), torch.arange(x.shape[1], device=x.device).expand_as(place), "amin"
    )
    around = planes[2].gather(1, hardest)
    share = planes[0] / summed(planes[0]).gather(1, place).clamp_min(_TINY)
    centre = (summed(share * planes[1]), around + summed(share * wrapped(planes[2] - around.gather(1, place))))
    left = torch.arange(x.shape[1], device=x.device) < number.unsqueeze(1)
    planes = torch.stack(
        [summed(planes[0]), centre[0], wrapped(centre[1]), *(column.gather(1, hardest) for column in planes[3:])]
    )
    planes, mask = by_falling_pt(planes * as_number(left, x), left)
    return planes.movedim(0, 2), mask


AUGMENTATIONS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "rotation": rotation,
    "translation": translation,
    "soft_smear": soft_smear,
    "collinear_split": collinear_split,
    "energy_smear": energy_smear,
    "drop": drop,
    "pt_reweight": pt_reweight,
    "subjet_shift": subjet_shift,
    "shift_pt": shift_pt,
    "recluster": recluster,
}
