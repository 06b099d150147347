"""Does a template describe data at all? A test without a classifier that has to generalise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression

from coffea_ad.errors import ConfigError
from coffea_ad.typing import Float64s

__all__ = ["Goodness", "goodness_of_fit"]


class Goodness(NamedTuple):
    """t of the data, those of permutations, and the part of them that is at least as large: p = (1 + number) / (1 + all)."""

    t: float
    null: Float64s
    p: float


def goodness_of_fit(
    data: npt.ArrayLike, template: npt.ArrayLike, *, permutations: int = 100, kernels: int = 100, penalty: float = 1.0, seed: int = 1
) -> Goodness:  # fmt: skip
    """Compare data with a template by the likelihood ratio of the best tilt of the template.

    t = 2 Σ_data f(x) − 2 (N_D/N_T) Σ_template (e^f(x) − 1), where f is the log-ratio of the two, learnt by logistic regression on
    Gaussian kernels, on the very rows that t is summed over. What t is worth is seen from permutations of the labels, each
    with a fit of its own.

    Parameters
    ----------
    data, template : (n, d), (k, d)
    permutations : int
    kernels : int
        Centres of the kernels, whose width is the median distance of rows.
    penalty : float
        Inverse strength of the L2 penalty.
    seed : int

    Raises
    ------
    ConfigError
        There are too few rows, or other columns.

    References
    ----------
    R. T. D'Agnolo, A. Wulzer, "Learning new physics from a machine", arXiv:1806.02350;
    M. Letizia et al., "Learning new physics efficiently with nonparametric methods", arXiv:2204.02317.
    """
    x, y = np.asarray(data, np.float64), np.asarray(template, np.float64)
    if x.ndim != 2 or x.shape[1:] != y.shape[1:] or min(len(x), len(y)) < 2 * kernels:
        raise ConfigError(
            f"a goodness of fit needs the same columns and at least {2 * kernels} rows of each, not {x.shape} and {y.shape}"
        )
    rng = np.random.default_rng(seed)
    rows = np.concatenate([x, y])
    rows = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-12)
    some = rows[rng.permutation(len(rows))[:500]]
    distance = ((some[:, None] - some[None]) ** 2).sum(axis=2)
    kernel = Nystroem(gamma=1 / np.median(distance[distance > 0]), n_components=kernels, random_state=seed)
    z = kernel.fit_transform(rows)
    label: Float64s = np.r_[np.ones(len(x)), np.zeros(len(y))]
    t = _statistic(z, label, penalty)
    null = np.array([_statistic(z, label[rng.permutation(len(label))], penalty) for _ in range(permutations)])
    return Goodness(t, null, float((1 + (null >= t).sum()) / (1 + permutations)))


def _statistic(z: Float64s, label: Float64s, penalty: float) -> float:
    """Return t of rows in the space of the kernels."""
    share = label.mean() / (1 - label.mean())
    fit = LogisticRegression(C=penalty, max_iter=200).fit(z, label)
    f = np.clip(fit.decision_function(z) - np.log(share), -20, 20)
    return float(2 * f[label == 1].sum() - 2 * share * np.expm1(f[label == 0]).sum())
