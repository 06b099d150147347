"""Views of events: what an event could as well have looked like, and what it should not look like.

x, (n, 19, C) float32, holds objects as the feature `event_objects` has them with scaling "none": pT (GeV), η, φ and type, then
further columns, which go along with their object and are 0 for new ones. Slot 0 is missing momentum, 1 to 4 are electrons,
5 to 8 muons, 9 to 18 jets, each kind by falling pT with its empty slots behind. Results are sorted likewise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from coffea_ad.errors import ConfigError
from coffea_ad.nn.self_supervised.augmentations import (
    as_number,
    by_falling_pt,
    normal,
    of_planes,
    split,
    to_planes,
    uniform,
    wrapped,
)

__all__ = [
    "ACCEPTANCE",
    "AUGMENTATIONS",
    "THRESHOLDS",
    "energy_smear",
    "eta_phi_smear",
    "multiplicity_shift",
    "multiplicity_shift_constant",
    "pt_met_shift",
    "rotation",
]

THRESHOLDS = (3.0, 3.0, 15.0)
"""Least pT of electrons, muons and jets, GeV, as in the options of `event_objects`."""
ACCEPTANCE = (3.0, 2.1, 4.0)
"""Largest |η| of electrons, muons and jets, as in the options of `event_objects`."""

_SLOTS = (4, 4, 10)
_BLOCKS = (slice(1, 5), slice(5, 9), slice(9, 19))
_JETS = _BLOCKS[2]


def _planes(x: Tensor) -> Tensor:
    """Return the columns of events, (C, n, 19)."""
    if x.ndim != 3 or x.shape[1] != 19 or x.shape[2] < 4:
        raise ConfigError(
            f"events have 19 slots of pt, eta, phi, type and further columns, not the shape {tuple(x.shape)}"
        )
    return to_planes(x)


def _by_slot(of_kinds: Sequence[float], like: Tensor) -> Tensor:
    """Return what belongs to electrons, muons and jets in each slot, (19,); 0 in that of missing momentum."""
    return like.new_tensor([0.0, *(value for value, n in zip(of_kinds, _SLOTS, strict=True) for _ in range(n))])


def _sorted(planes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Empty what is not in the mask, sort each kind, and return events."""
    planes = torch.where(mask, planes, 0.0)
    blocks = [by_falling_pt(planes[..., block], mask[:, block]) for block in _BLOCKS]
    planes = torch.cat([planes[..., :1], *(block for block, _ in blocks)], dim=2)
    return planes.movedim(0, 2), torch.cat([mask[:, :1], *(filled for _, filled in blocks)], dim=1)


def rotation(x: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Turn each event about the beam by its own angle, U(−π, π).

    References
    ----------
    B. M. Dillon et al., "Anomalies, representations, and self-supervision", arXiv:2301.04660.

    Examples
    --------
    >>> x = torch.zeros(1, 19, 4)
    >>> x[0, 9:11] = torch.tensor([[50.0, 0.1, 3.0, 4.0], [40.0, 0.2, -3.0, 4.0]])
    >>> y, _ = rotation(x, x[..., 0] > 0, torch.Generator().manual_seed(1))
    >>> y[0, 9:12, 2].round(decimals=2)
    tensor([-1.6600, -1.3800,  0.0000])
    """
    pt, eta, phi, *rest = _planes(x)
    angle = uniform((len(x), 1), x, generator, -math.pi, math.pi)
    return of_planes(pt, eta, wrapped(phi + angle) * as_number(mask, x), *rest), mask


def eta_phi_smear(
    x: Tensor,
    mask: Tensor,
    generator: Generator,
    *,
    strength: float = 1.0,
    acceptance: Sequence[float] = ACCEPTANCE,
) -> tuple[Tensor, Tensor]:
    """Smear directions of all objects but missing momentum, and drop what leaves the acceptance.

    η and φ by N(0, σ), σ = 0.028 s / (1 + e^{(pT − 25 GeV) / 0.1 GeV}): 0.028 s below 25 GeV, and 0 above.

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    strength : float
        s.
    acceptance : (3,)
        Largest |η| of electrons, muons and jets.

    References
    ----------
    B. M. Dillon et al., "Anomalies, representations, and self-supervision", arXiv:2301.04660.

    Examples
    --------
    >>> x = torch.zeros(1, 19, 4)
    >>> x[0, 9:11] = torch.tensor([[50.0, 0.1, 3.0, 4.0], [20.0, 0.1, 3.0, 4.0]])
    >>> eta_phi_smear(x, x[..., 0] > 0, torch.Generator().manual_seed(1))[0][0, 9:11, 1].round(decimals=3)
    tensor([0.1000, 0.1490])
    """
    pt, eta, phi, *rest = _planes(x)
    sigma = 0.028 * strength * torch.sigmoid((25 - pt) * 10) * as_number(mask, x)
    sigma[:, 0] = 0
    eta = eta + sigma * normal(mask.shape, x, generator)
    phi = wrapped(phi + sigma * normal(mask.shape, x, generator))
    return _sorted(torch.stack([pt, eta, phi, *rest]), mask & (eta.abs() <= _by_slot(acceptance, x)))


def energy_smear(x: Tensor, mask: Tensor, generator: Generator, *, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Smear the pT of jets by N(0, σ), σ² = s² (0.052 pT² + 1.502 GeV pT), and drop those that are left with none.

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    strength : float
        s.

    References
    ----------
    B. M. Dillon et al., "Anomalies, representations, and self-supervision", arXiv:2301.04660.

    Examples
    --------
    >>> x = torch.zeros(1, 19, 4)
    >>> x[0, 9:11] = torch.tensor([[50.0, 0.1, 3.0, 4.0], [20.0, 0.1, 3.0, 4.0]])
    >>> energy_smear(x, x[..., 0] > 0, torch.Generator().manual_seed(1))[0][0, 9:12, 0].round()
    tensor([59., 22.,  0.])
    """
    planes = _planes(x).clone()
    jets = planes[0, :, _JETS]
    sigma = strength * (0.052 * jets.square() + 1.502 * jets).sqrt()
    jets += sigma * normal((len(x), 10), x, generator)
    return _sorted(planes, mask & (planes[0] > 0))


def _recoil(pt: Tensor, phi: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Return missing momentum minus that of new objects, pT and φ, (n,) each; the same bits without new ones."""
    sign = -as_number(new, pt)
    sign[:, 0] = 1
    px, py = (sign * pt * phi.cos()).sum(dim=1), (sign * pt * phi.sin()).sum(dim=1)
    any_new = new.any(dim=1)
    return torch.where(any_new, torch.hypot(px, py), pt[:, 0]), torch.where(any_new, torch.atan2(py, px), phi[:, 0])


def multiplicity_shift(
    x: Tensor,
    mask: Tensor,
    generator: Generator,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    acceptance: Sequence[float] = ACCEPTANCE,
) -> tuple[Tensor, Tensor]:
    """Add electrons, muons and jets, and give their recoil to missing momentum.

    Of each kind U{0 … free slots}, with pT ~ U(threshold, highest pT of the event), η ~ U(acceptance), φ ~ U(−π, π); the
    missing momentum is p⃗ − Σ p⃗_new. Events without any object stay empty. The authors smear with `eta_phi_smear` afterwards.

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    thresholds, acceptance : (3,)
        Least pT (GeV) and largest |η| of electrons, muons and jets.

    References
    ----------
    B. M. Dillon et al., "Anomalies, representations, and self-supervision", arXiv:2301.04660.

    Examples
    --------
    >>> x = torch.zeros(1, 19, 4)
    >>> x[0, 9] = torch.tensor([50.0, 0.1, 3.0, 4.0])
    >>> y, mask = multiplicity_shift(x, x[..., 0] > 0, torch.Generator().manual_seed(1))
    >>> mask.sum().item(), round(y[0, 0, 0].item(), 1)
    (10, 64.7)
    """
    pt, eta, phi, kind, *rest = _planes(x)
    added = [torch.zeros_like(mask[:, :1])]
    for number, block in zip(_SLOTS, _BLOCKS, strict=True):
        slot, filled = torch.arange(number, device=x.device), mask[:, block].cumsum(dim=1)[:, -1:]
        most = number - filled + 1
        added.append((slot >= filled) & (slot < filled + (most * uniform(most.shape, x, generator)).long()))
    new = torch.cat(added, dim=1) & mask.any(dim=1, keepdim=True)
    least, draw = _by_slot(thresholds, x), uniform((3, *mask.shape), x, generator)
    highest = torch.maximum(pt.amax(dim=1, keepdim=True), least)
    pt = torch.where(new, least + (highest - least) * draw[0], pt)
    eta = torch.where(new, _by_slot(acceptance, x) * (2 * draw[1] - 1), eta)
    phi = torch.where(new, math.pi * (2 * draw[2] - 1), phi)
    kind = torch.where(new, _by_slot((2, 3, 4), x), kind)
    any_new = new.any(dim=1)
    pt[:, 0], phi[:, 0] = _recoil(pt, phi, new)
    kind[:, 0] = torch.where(any_new, 1.0, kind[:, 0])
    filled = mask | new
    filled[:, 0] = torch.where(any_new, pt[:, 0] > 0, mask[:, 0])
    return _sorted(torch.stack([pt, eta, phi, kind, *rest]), filled)


def multiplicity_shift_constant(
    x: Tensor,
    mask: Tensor,
    generator: Generator,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    leading_lepton_pt_min: float = 23.0,
) -> tuple[Tensor, Tensor]:
    """Split electrons, muons and jets into two of the same direction, which leaves all sums of momenta as they are.

    Of each kind U{0 … splittable ones, at most the free slots}, which ones is drawn, each once at most. Both halves
    are above the threshold, pT → (1 − f) pT and f pT with f ~ U(threshold / pT, 1/2); the leading lepton is still
    above `leading_lepton_pt_min`, if it was. The authors smear with `eta_phi_smear` afterwards.

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    thresholds : (3,)
        Least pT of electrons, muons and jets, GeV.
    leading_lepton_pt_min : float, GeV

    References
    ----------
    B. M. Dillon et al., "Anomalies, representations, and self-supervision", arXiv:2301.04660.

    Examples
    --------
    >>> x = torch.zeros(1, 19, 4)
    >>> x[0, 9:11] = torch.tensor([[50.0, 0.1, 3.0, 4.0], [40.0, 0.2, -3.0, 4.0]])
    >>> y, mask = multiplicity_shift_constant(x, x[..., 0] > 0, torch.Generator().manual_seed(1))
    >>> mask.sum().item(), round(y[..., 0].sum().item(), 4)
    (4, 90.0)
    """
    planes = _planes(x)
    pt = planes[0]
    leading = pt[:, 1:9].amax(dim=1, keepdim=True)
    leading = torch.where(leading >= leading_lepton_pt_min, leading, torch.inf)
    parts = [(planes[..., :1], mask[:, :1])]
    for block, threshold in zip(_BLOCKS, thresholds, strict=True):
        real, of_kind = mask[:, block], pt[:, block].clamp_min(1e-30)
        least, most = threshold / of_kind, torch.full_like(of_kind, 0.5)
        if block != _JETS:
            most = torch.where(of_kind >= leading, most.minimum(1 - leading_lepton_pt_min / of_kind), most)
        parents = real & (least <= most)
        number = torch.minimum(parents.cumsum(dim=1), (~real).cumsum(dim=1))[:, -1:] + 1
        number = (number * uniform(number.shape, x, generator)).long()
        fraction = least + (most - least) * uniform(of_kind.shape, x, generator)
        parts.append(split(planes[..., block], real, parents, number, fraction, generator))
    blocks, masks = zip(*parts, strict=True)
    return torch.cat(blocks, dim=2).movedim(0, 2), torch.cat(masks, dim=1)


def pt_met_shift(
    x: Tensor,
    mask: Tensor,
    generator: Generator,
    *,
    met: tuple[float, float] = (0.5, 5.0),
    objects: tuple[float, float] = (1.0, 5.0),
) -> tuple[Tensor, Tensor]:
    """Scale, a third of the events each, missing momentum, the pT of all objects, or both.

    Factors are U(0.5, 5) for missing momentum alone, and U(1, 5), one an event, for objects and for both.

    Parameters
    ----------
    x, mask, generator
        As for all augmentations.
    met, objects : (float, float)
        Ranges of the factors.

    References
    ----------
    B. M. Dillon et al., "Anomalies, representations, and self-supervision", arXiv:2301.04660.

    Examples
    --------
    >>> x = torch.zeros(1, 19, 4)
    >>> x[0, 9:11] = torch.tensor([[50.0, 0.1, 3.0, 4.0], [40.0, 0.2, -3.0, 4.0]])
    >>> y, _ = pt_met_shift(x, x[..., 0] > 0, torch.Generator().manual_seed(1))
    >>> y[0, 9:11, 0]
    tensor([130.6138, 104.4911])
    """
    pt, *rest = _planes(x)
    which = (3 * uniform((len(x), 1), x, generator)).long()
    alone, both = (uniform((len(x), 1), x, generator, *edges) for edges in (met, objects))
    of_met = torch.where(which == 0, alone, torch.where(which == 1, 1.0, both))
    of_objects = torch.where(which == 0, 1.0, both)
    return of_planes(torch.cat([pt[:, :1] * of_met, pt[:, 1:] * of_objects], dim=1), *rest), mask


AUGMENTATIONS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "rotation": rotation,
    "eta_phi_smear": eta_phi_smear,
    "energy_smear": energy_smear,
    "multiplicity_shift": multiplicity_shift,
    "multiplicity_shift_constant": multiplicity_shift_constant,
    "pt_met_shift": pt_met_shift,
}
