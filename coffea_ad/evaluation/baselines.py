"""What a model has to beat on the same inputs: single columns, distances, a forest, and the supervised ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.scaling import Standardised, ZScores
from coffea_ad.typing import Float64s

__all__ = ["COLUMNS", "baselines", "ceiling", "column_baselines", "fit_rows"]

Score = Callable[[npt.NDArray[Any]], Float64s]
_SMALL = 1e-6  # smaller eigenvalues of a correlation matrix are rounding

COLUMNS: dict[str, dict[str, tuple[float, tuple[str, ...]]]] = {
    "jet": {
        "multiplicity": (1.0, ("multiplicity",)),
        "pTD (reversed)": (-1.0, ("ptd",)),
        "mass": (1.0, ("mass",)),
        "tau21 (reversed)": (-1.0, ("tau2", "tau1")),
        "pT": (1.0, ("pt",)),
    },
    "event": {
        "mjj": (1.0, ("mjj",)),
        "HT": (1.0, ("ht",)),
        "MET": (1.0, ("met",)),
        "number of jets": (1.0, ("n_jets",)),
    },
}
"""Single columns by level: the sign, and the column or the numerator and denominator."""


def column_baselines(
    x: npt.NDArray[Any], columns: Sequence[str], spectators: Mapping[str, npt.NDArray[Any]], *, level: str = "jet"
) -> dict[str, Float64s]:
    """Return the scores that are single columns, of the inputs if they are there, else of the spectators.

    Parameters
    ----------
    x : (n, columns)
    columns : sequence of str
        Names of the input's columns; what stands before the last dot does not matter.
    spectators : {name: (n,)}
    level : "jet" or "event"

    Returns
    -------
    {name: (n,)}
        Those whose columns are there; higher = more anomalous.

    Examples
    --------
    >>> column_baselines(np.array([[0.5, 1.0]]), ["ptd", "other"], {"pt": np.array([200.0])})
    {'pTD (reversed)': array([-0.5]), 'pT': array([200.])}
    """
    places = {name.rsplit(".", 1)[-1]: i for i, name in enumerate(columns)} if x.ndim == 2 else {}

    def column(name: str) -> Float64s | None:
        if name in places:
            return np.asarray(x[:, places[name]], np.float64)
        return np.asarray(spectators[name], np.float64) if name in spectators else None

    direct = {"tau21": "tau21 (reversed)"} if level == "jet" else {}
    out: dict[str, Float64s] = {}
    for label, (sign, names) in COLUMNS[level].items():
        parts = [column(name) for name in names]
        if all(part is not None for part in parts):
            numerator = np.asarray(parts[0])
            if len(parts) > 1:
                bottom = np.asarray(parts[1])
                numerator = np.divide(numerator, bottom, out=np.full(len(numerator), np.nan), where=bottom != 0)
            out[label] = sign * numerator
    for name, label in direct.items():
        single = column(name)
        if label not in out and single is not None:
            out[label] = -single
    return out


def _flat(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(x).reshape(len(x), -1)


def _mahalanobis(z: Float64s, weight: Float64s) -> Score:
    mean = np.average(z, axis=0, weights=weight)
    covariance = np.atleast_2d(np.cov(z, rowvar=False, aweights=weight))
    # Directions without variance in the training rows say nothing of how unlikely another row is.
    inverse = np.linalg.pinv(covariance, rcond=_SMALL, hermitian=True)

    def score(rows: npt.NDArray[Any]) -> Float64s:
        d = rows - mean
        return np.asarray(np.sqrt(np.maximum(np.einsum("ij,ij->i", d @ inverse, d), 0.0)))

    return score


def fit_rows(x: npt.NDArray[Any], weight: Float64s, rows: int, seed: int) -> npt.NDArray[Any]:
    """Draw at most so many rows for fits without weights: all if weights are equal, else in proportion to them."""
    positive = np.flatnonzero(weight > 0)
    if len(positive) == 0:
        return x[:0]
    rng, n = np.random.default_rng(seed), min(rows, len(positive))
    share = weight[positive]
    if np.ptp(share) < 1e-9 * share[0]:
        return np.asarray(x[rng.choice(positive, n, replace=False)])
    return np.asarray(x[rng.choice(positive, n, p=share / share.sum())])


def baselines(x: npt.NDArray[Any], weight: Float64s, *, seed: int = 1, rows: int = 20_000) -> dict[str, Score]:
    """Fit the scores that need no training to speak of: Mahalanobis distances and an isolation forest.

    Parameters
    ----------
    x : (n, *shape)
        Background rows that nothing is evaluated on, such as the training split; shaped rows are flattened.
    weight : (n,)
        Rows with negative weights, or with zero, are left out.
    seed : int
        Of the forest, and of the rows that it sees.
    rows : int
        At most so many rows, drawn in proportion to their weights, go into the forest.

    Returns
    -------
    {name: function (n, *shape) -> (n,)}
        Higher = more anomalous.

    Raises
    ------
    ConfigError
        Fewer than ten rows, or scikit-learn is not installed.

    Examples
    --------
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> fitted = baselines(x, np.ones(500))
    >>> all(score(np.array([[9.0, 9.0]]))[0] > score(x).max() * 0.99 for score in fitted.values())
    True
    """
    try:
        from sklearn.ensemble import IsolationForest
    except ImportError as error:
        raise ConfigError("baselines need scikit-learn: pip install 'coffea-ad[train]'") from error
    flat, w = _flat(x)[weight > 0].astype(np.float64), weight[weight > 0]
    if len(flat) < 10:
        raise ConfigError(f"baselines need ten background rows to be fitted to, there are {len(flat)}")
    out: dict[str, Score] = {}
    for label, transform in (("standardised", Standardised(flat, w)), ("quantile-normal", ZScores(flat, w))):
        out[f"Mahalanobis ({label})"] = _after(transform, _mahalanobis(transform(flat), w))
    forest = IsolationForest(n_estimators=100, random_state=seed).fit(fit_rows(flat, w, rows, seed))
    out["IsolationForest"] = lambda x: np.asarray(-forest.score_samples(_flat(x)))
    return out


def _after(transform: Callable[[npt.NDArray[Any]], Float64s], score: Score) -> Score:
    return lambda x: score(transform(_flat(x)))


def ceiling(
    background: npt.NDArray[Any], signal: npt.NDArray[Any], w_background: Float64s, w_signal: Float64s, *, seed: int = 1
) -> Score:
    """Train a classifier that knows the signal: what a score on these inputs can reach at best, about.

    Parameters
    ----------
    background, signal : (n, *shape)
        Rows that nothing is evaluated on.
    w_background, w_signal : (n,)
        Rows with negative weights, or with zero, are left out; both classes get the same sum.
    seed : int

    Returns
    -------
    function (n, *shape) -> (n,)
        Log odds.

    Raises
    ------
    ConfigError
        A class has fewer than ten rows, or scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError as error:
        raise ConfigError("baselines need scikit-learn: pip install 'coffea-ad[train]'") from error
    x, label, weight = [], [], []
    for i, (rows, w) in enumerate(((background, w_background), (signal, w_signal))):
        keep = w > 0
        if keep.sum() < 10:
            raise ConfigError(
                f"the supervised ceiling needs ten rows of each class to train on, there are {keep.sum()}"
            )
        x.append(_flat(rows)[keep])
        label.append(np.full(int(keep.sum()), i))
        weight.append(w[keep] / w[keep].mean())
    shares = [len(w) for w in weight]
    joined = np.concatenate([w * max(shares) / n for w, n in zip(weight, shares, strict=True)])
    classifier = HistGradientBoostingClassifier(early_stopping=min(shares) >= 500, random_state=seed)
    classifier.fit(np.concatenate(x), np.concatenate(label), sample_weight=joined)
    return lambda rows: np.asarray(classifier.decision_function(_flat(rows)), np.float64)
