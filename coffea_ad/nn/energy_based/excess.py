"""The excess: by how much data and a model are further apart than samples of one density, with an error."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from coffea_ad.nn.energy_based.distances import w2_squared
from coffea_ad.nn.training.batches import GROUPS

__all__ = ["Excess", "excess", "floors", "groups", "repeated_like"]


class Excess(NamedTuple):
    """What `excess` measures.

    Attributes
    ----------
    value, error : float
        The excess, and its standard error by the jackknife over groups.
    distance : float
        Mean W₂² between data and model.
    floor, floor_model : float
        Mean W₂² between two groups of data, and between two samples of the model.
    """

    value: float
    error: float
    distance: float
    floor: float
    floor_model: float


def groups(z: Tensor, count: int = GROUPS) -> list[Tensor]:
    """Cut rows into groups of the same size, (n, d) → count times (n // count, d)."""
    n = len(z) // count
    return [z[k * n : (k + 1) * n] for k in range(count)]


def repeated_like(points: Tensor, rows: Tensor) -> Tensor:
    """Repeat points as the rows of a sample are repeated, (n, d), (n, d) → (n, d).

    Rows that are drawn in proportion to uneven weights come several times, which puts two samples of data further apart
    than distinct points would be. A model is compared fairly if its points come as often.
    """
    place = torch.unique(rows, dim=0, return_inverse=True)[1]
    row = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(row, len(rows)).scatter_reduce(0, place, row, "amin")
    return points[first[place]]


def floors(data: Sequence[Tensor]) -> Tensor:
    """Return W₂² between each two groups of data, k times (n, d) → (k, k), symmetric with zeros on the diagonal."""
    table = torch.zeros(len(data), len(data), dtype=torch.float64)
    for i, j in itertools.combinations(range(len(data)), 2):
        table[i, j] = table[j, i] = w2_squared(data[i], data[j]).double()
    return table


def excess(data: Sequence[Tensor], model: Sequence[Tensor], table: Tensor) -> Excess:
    """Compare samples of a model with groups of data.

    excess = mean_i W₂²(x_i, y_i) − ½ mean_{i<j} W₂²(x_i, x_j) − ½ mean_{i<j} W₂²(y_i, y_j)

    All samples have the same size n, and points of the model are repeated as data are (`repeated_like`), so that it is 0
    in the mean if the model is perfect, for any n. Without the last term a model narrower than the data would seem
    better than a perfect one: in many dimensions two samples of few points are far apart, and closer to what lies in
    the middle of both.

    Parameters
    ----------
    data : k times (n, d)
        Disjoint groups of data, x_i.
    model : k times (m, d)
        y_i, independent of each other and of x_i; m is a multiple of n, and then the mean over m / n samples counts.
    table : (k, k)
        `floors` of the data.

    Returns
    -------
    Excess

    References
    ----------
    G. J. Székely, M. L. Rizzo, "Energy statistics", J. Stat. Plan. Inference 143 (2013) 1249, and J. Feydy et al.,
    "Interpolating between optimal transport and MMD using Sinkhorn divergences", arXiv:1810.08278, for this form.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(1)
    >>> data, model = ([torch.randn(200, 2, generator=g) for _ in range(4)] for _ in range(2))
    >>> measured = excess(data, model, floors(data))
    >>> abs(measured.value) < 4 * measured.error
    True
    """
    k, n = len(data), len(data[0])
    samples = [[repeated_like(part, data[(i + 1) % k]) for part in y.split(n)] for i, y in enumerate(model)]
    distance = torch.tensor(
        [sum(w2_squared(x, y).item() for y in ys) / len(ys) for x, ys in zip(data, samples, strict=True)],
        dtype=torch.float64,
    )
    table = table.to("cpu", torch.float64)
    table_model = torch.stack([floors(ys) for ys in zip(*samples, strict=True)]).mean(dim=0)

    def estimate(use: Tensor) -> Tensor:
        pairs = len(use) * (len(use) - 1)
        within = [one[use][:, use].sum() / pairs for one in (table, table_model)]
        return torch.stack([distance[use].mean(), *within])

    def value(parts: Tensor) -> Tensor:
        return parts[..., 0] - 0.5 * (parts[..., 1] + parts[..., 2])

    every = torch.arange(k)
    whole = estimate(every)
    left = value(torch.stack([estimate(every[every != i]) for i in range(k)]))
    error = ((k - 1) * left.var(correction=0)).sqrt().item()
    return Excess(value(whole).item(), error, *whole.tolist())
