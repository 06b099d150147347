"""How views of rows are composed, and what augmentations of jets and of events share.

An augmentation takes particles, (n, N, C), which of the N slots of a row hold one, (n, N) bool, and a generator, and returns both
anew. Rows are independent, empty slots are 0 and remain 0, the same generator gives the same bits, and nothing is written in place.
They are a fifth faster in `torch.inference_mode`; views that are joined outside of it can then train a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor

from coffea_ad.errors import ConfigError

__all__ = [
    "Augmentation",
    "as_number",
    "by_falling_pt",
    "chain",
    "normal",
    "of_planes",
    "one_of",
    "packed",
    "split",
    "to_planes",
    "uniform",
    "wrapped",
]

Augmentation = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]


def _in_turn(
    augmentations: Sequence[Augmentation], x: Tensor, mask: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    for augmentation in augmentations:
        x, mask = augmentation(x, mask, generator)
    return x, mask


def chain(*augmentations: Augmentation) -> Augmentation:
    """Return an augmentation that is several, one after the other; none leaves rows as they are.

    Examples
    --------
    >>> def double(x, mask, generator):
    ...     return 2 * x, mask
    >>> x, mask = torch.ones(1, 1, 3), torch.ones(1, 1, dtype=torch.bool)
    >>> chain(double, double)(x, mask, torch.Generator())[0]
    tensor([[[4., 4., 4.]]])
    """
    return partial(_in_turn, augmentations)


def _picked(
    augmentations: Sequence[Augmentation],
    probabilities: Sequence[float],
    x: Tensor,
    mask: Tensor,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    edges = torch.tensor(probabilities, dtype=torch.float64).cumsum(0)[:-1].to(x)
    which = torch.bucketize(uniform((len(x),), x, generator), edges, right=True)
    out, filled = x.clone(), mask.clone()
    for i, augmentation in enumerate(augmentations):
        rows = torch.nonzero(which == i).squeeze(1)
        out[rows], filled[rows] = augmentation(x[rows], mask[rows], generator)
    return out, filled


def one_of(augmentations: Sequence[Augmentation], probabilities: Sequence[float] | None = None) -> Augmentation:
    """Return an augmentation that is one of several, drawn for each row.

    Parameters
    ----------
    augmentations : sequence of augmentations
    probabilities : sequence of float, optional
        Of each; equal by default.

    Raises
    ------
    ConfigError
        If they are not as many, are negative, or do not sum to 1.

    Examples
    --------
    >>> def double(x, mask, generator):
    ...     return 2 * x, mask
    >>> x, mask = torch.ones(4, 1, 3), torch.ones(4, 1, dtype=torch.bool)
    >>> one_of([chain(), double], [0.5, 0.5])(x, mask, torch.Generator().manual_seed(1))[0][:, 0, 0]
    tensor([2., 1., 1., 2.])
    """
    number = len(augmentations)
    each = [1 / max(number, 1)] * number if probabilities is None else list(probabilities)
    if len(each) != number or min(each, default=-1) < 0 or not math.isclose(sum(each), 1, rel_tol=1e-6):
        raise ConfigError(f"{number} augmentations need as many probabilities that sum to 1, not {each}")
    return partial(_picked, tuple(augmentations), each)


def uniform(shape: tuple[int, ...], like: Tensor, generator: Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Draw from U(low, high), on the generator's device, for tensors like another."""
    return torch.empty(shape, device=generator.device).uniform_(low, high, generator=generator).to(like)


def normal(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    """Draw from N(0, 1), on the generator's device, for tensors like another."""
    return torch.randn(shape, generator=generator, device=generator.device).to(like)


def as_number(mask: Tensor, like: Tensor) -> Tensor:
    """Return 1 where a mask is set and 0 elsewhere, of the type of another tensor; by way of bytes, twice as fast."""
    return mask.view(torch.uint8).to(like.dtype)


def wrapped(angle: Tensor) -> Tensor:
    """Return angles within ±π.

    >>> wrapped(torch.tensor([3.0, 4.0, -4.0, 9.0], dtype=torch.float64)).round(decimals=4)
    tensor([ 3.0000, -2.2832,  2.2832,  2.7168], dtype=torch.float64)
    """
    return torch.sub(angle, (angle * (0.5 / math.pi)).round_(), alpha=2 * math.pi)


def to_planes(x: Tensor) -> Tensor:
    """Return particles, (n, N, C), as planes, (C, n, N): what is made of a column is several times as fast where it is together."""
    return x.movedim(2, 0).contiguous()


def of_planes(*planes: Tensor) -> Tensor:
    """Return particles, (n, N, C), of C planes, (n, N); these stay together in memory, so that the way back is free."""
    return torch.stack(planes).movedim(0, 2)


def packed(planes: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Drop particles, and close the gaps: the others move forward in their order.

    Parameters
    ----------
    planes : (C, n, N)
    keep : (n, N) bool

    Returns
    -------
    planes : (C, n, N)
    mask : (n, N) bool
        Of slots with a particle.

    Examples
    --------
    >>> packed(torch.tensor([[[3.0, 2.0, 1.0]]]), torch.tensor([[True, False, True]]))
    (tensor([[[3., 1., 0.]]]), tensor([[ True,  True, False]]))
    """
    columns, n, slots = planes.shape
    number = keep.cumsum(dim=1)
    place = (number * keep).expand(columns, -1, -1)  # what is dropped goes to a slot before the first, which is cut off
    out = planes.new_zeros(columns, n, slots + 1).scatter_(2, place, planes)[..., 1:]
    return out, torch.arange(slots, device=keep.device) < number[:, -1:]


def by_falling_pt(planes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sort the particles of each row by the first plane, equal ones in the order in which they are; empty slots come last.

    >>> by_falling_pt(torch.tensor([[[1.0, 3.0, 0.0]]]), torch.tensor([[True, True, False]]))[0]
    tensor([[[3., 1., 0.]]])
    """
    order = torch.where(mask, planes[0], -torch.inf).argsort(dim=1, descending=True, stable=True)
    return planes.gather(2, order.expand(len(planes), -1, -1)), mask.gather(1, order)


def split(
    planes: Tensor, mask: Tensor, parents: Tensor, number: Tensor, fraction: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Split some particles of each row into two of the same direction, and sort the row by falling pT.

    Parameters
    ----------
    planes : (C, n, N)
        pT first; the others go along.
    mask : (n, N) bool
        Particles come before empty slots, by falling pT.
    parents : (n, N) bool
        Which ones can be split; which of them are is drawn.
    number : (n, 1) int64
        How many are split; at most as many as there are parents and empty slots.
    fraction : (n, N)
        Of the pT of each that its second half would take.
    generator : torch.Generator

    Returns
    -------
    planes, mask
        As they came; the sum of pT stays.

    Examples
    --------
    >>> mask = torch.tensor([[True, False]])
    >>> split(torch.tensor([[[4.0, 0.0]]]), mask, mask, torch.tensor([[1]]), torch.full((1, 2), 0.25), torch.Generator())[0]
    tensor([[[3., 1.]]])
    """
    slot = torch.arange(mask.shape[1], device=mask.device)
    filled = mask.cumsum(dim=1)[:, -1:]
    # parents come first, in random order; the k-th of them has its second half in the k-th empty slot
    order = uniform(mask.shape, planes, generator).masked_fill(~parents, 2.0).argsort(dim=1)
    taken = fraction * torch.zeros_like(fraction).scatter_(
        1, order, as_number(slot < number, fraction).expand(order.shape)
    )
    child = (slot >= filled) & (slot < filled + number)
    source = torch.where(child, order.gather(1, (slot - filled).clamp_min(0)), slot)
    out = planes.gather(2, source.expand(len(planes), -1, -1))
    out[0] *= torch.where(child, taken.gather(1, source), 1 - taken)
    return by_falling_pt(out, mask | child)
