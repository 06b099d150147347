"""Weighted ROC curves of scores that are sorted once, signed weights included, and the replicas of a bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.typing import Float64s

__all__ = ["MIN_EFFECTIVE", "Curve", "Ranking", "resamplings", "rising"]

MIN_EFFECTIVE = 25.0
"""A working point resting on fewer effective background objects (relative error of ε_B above 20 %) does not count."""


def rising(fractions: Float64s) -> Float64s:
    """Return fractions that passed ever looser cuts, kept from falling where weights are negative.

    >>> rising(np.array([-0.1, 0.2, 0.1, 1.2, 1.0]))
    array([0. , 0.2, 0.2, 1. , 1. ])
    """
    return np.clip(np.maximum.accumulate(fractions), 0.0, 1.0)


@dataclass(frozen=True)
class Curve:
    """A ROC curve with one point for every distinct background score, from tight to loose.

    Where rows with negative weights would make it fall, it stays level: ε is the largest of all tighter cuts, as in the
    calibration of a model, and not more than 1.

    Attributes
    ----------
    eps_b, eps_s : (points,)
        Fractions of the background and of the signal with at least this score.
    eps_s_above : (points,)
        Fraction of the signal with more than this score.
    n_effective : (points,)
        Effective number of background objects with at least this score: (Σw)² / Σw² of them, and not more than ε_B
        times that of the whole background, since light rows that pass do not say how many heavy ones could have. All
        NaN where it was not asked for.
    area : float
        Area under the curve of the weights as they are, before it is made to rise.
    """

    eps_b: Float64s
    eps_s: Float64s
    eps_s_above: Float64s
    n_effective: Float64s
    area: float = float("nan")

    def auc(self) -> float:
        """Return Σ w_b w_s [s > b] / (Σ w_b Σ w_s); a pair with tied scores counts one half, a negative weight is subtracted.

        Without bias for weights of either sign; of few rows it may then lie outside 0 to 1, within its error.
        """
        return self.area

    def at(self, eps_b: npt.ArrayLike) -> tuple[Float64s, Float64s]:
        """Return ε_S and the effective number of background objects at background efficiencies.

        Background objects whose tied score straddles the working point pass with the probability that fills it up.

        Parameters
        ----------
        eps_b : (n,)
            Between 0 and 1.

        Returns
        -------
        eps_s, n_effective : (n,)
        """
        target = np.atleast_1d(np.asarray(eps_b, np.float64))
        place = np.minimum(np.searchsorted(self.eps_b, target * (1 - 1e-12)), len(self.eps_b) - 1)
        below = np.where(place > 0, self.eps_b[place - 1], 0.0)
        width = self.eps_b[place] - below
        part = np.clip(np.divide(target - below, width, out=np.ones(len(target)), where=width > 0), 0.0, 1.0)
        eps_s = self.eps_s_above[place] + part * (self.eps_s[place] - self.eps_s_above[place])
        n_effective = self.n_effective[place] * np.minimum(target / np.maximum(self.eps_b[place], 1e-300), 1.0)
        return eps_s, n_effective

    def significance_improvement(self) -> Float64s:
        """Return ε_S/√ε_B at every point; 0 where no background passes."""
        root = np.sqrt(self.eps_b)
        return np.divide(self.eps_s, root, out=np.zeros(len(root)), where=root > 0)


@dataclass(frozen=True)
class Ranking:
    """Background and signal in the order of their scores, so that any weights give a curve in one pass.

    Attributes
    ----------
    background, signal : (rows,) integers
        Places of the rows with a finite score, highest score first.
    last : (points,) integers
        The last background row, in that order, of each distinct score.
    above, at_least : (points,) integers
        Number of signal rows with more than, and with at least, each distinct background score.
    """

    background: npt.NDArray[np.intp]
    signal: npt.NDArray[np.intp]
    last: npt.NDArray[np.intp]
    above: npt.NDArray[np.intp]
    at_least: npt.NDArray[np.intp]

    @classmethod
    def of(cls, background: npt.ArrayLike, signal: npt.ArrayLike) -> Ranking:
        """Sort scores; those that are not finite are left out.

        Raises
        ------
        ConfigError
            One of the samples has no finite score.
        """
        b, s = np.asarray(background, np.float64), np.asarray(signal, np.float64)
        orders = []
        for name, score in (("background", b), ("signal", s)):
            defined = np.flatnonzero(np.isfinite(score))
            if len(defined) == 0:
                raise ConfigError(f"there is no {name} with a score and a positive weight")
            orders.append(defined[np.argsort(-score[defined], kind="stable")])
        falling, rising = b[orders[0]], s[orders[1]][::-1]
        last = np.flatnonzero(np.append(np.diff(falling) != 0, True))
        value = falling[last]
        above = len(rising) - np.searchsorted(rising, value, side="right")
        at_least = len(rising) - np.searchsorted(rising, value, side="left")
        return cls(orders[0], orders[1], last, above, at_least)

    def curve(self, w_background: Float64s, w_signal: Float64s, *, errors: bool = True) -> Curve:
        """Return the curve of weights of either sign; all NaN if those of a sample do not sum to something positive.

        Parameters
        ----------
        w_background, w_signal : (n,)
            In the order of the scores that were sorted.
        errors : bool
            Also the effective numbers; replicas of a bootstrap do without.
        """
        w, v = w_background[self.background], w_signal[self.signal]
        passed = np.cumsum(w)[self.last]
        caught = np.concatenate([[0.0], np.cumsum(v)])
        if not (passed[-1] > 0 and caught[-1] > 0):
            nothing = np.full(len(self.last), np.nan)
            return Curve(nothing, nothing, nothing, nothing)
        n_effective = np.full(len(passed), np.nan)
        if errors:
            square = np.cumsum(w * w)[self.last]
            n_effective = np.divide(passed**2, square, out=np.zeros(len(passed)), where=square > 0)
            # the rule of calibration.n_effective_passing, at every cut at once
            n_effective = np.minimum(n_effective, n_effective[-1] * np.maximum(passed, 0.0) / passed[-1])
        eps_b, eps_s, above = passed / passed[-1], caught[self.at_least] / caught[-1], caught[self.above] / caught[-1]
        area = float(np.sum(np.diff(eps_b, prepend=0.0) * 0.5 * (eps_s + above)))
        if w.min() < 0:
            eps_b = rising(eps_b)
        if v.min() < 0:
            above, eps_s = rising(np.stack([above, eps_s], axis=1).ravel()).reshape(-1, 2).T
        return Curve(eps_b, eps_s, above, n_effective, area)

    def areas(self, w_background: npt.NDArray[Any], w_signal: npt.NDArray[Any]) -> Float64s:
        """Return the AUC for many sets of weights at once, such as the replicas of a bootstrap.

        Parameters
        ----------
        w_background, w_signal : (sets, n)
            In the order of the scores that were sorted; of either sign.

        Returns
        -------
        (sets,)
            NaN for a set in which the weights of a sample do not sum to something positive.
        """
        w = w_background[:, self.background]
        if len(self.last) < w.shape[1]:  # tied rows stand for one
            w = np.add.reduceat(w, np.concatenate([[0], self.last[:-1] + 1]), axis=1)
        caught = np.zeros((len(w), len(self.signal) + 1))
        np.cumsum(w_signal[:, self.signal], axis=1, out=caught[:, 1:])
        wins = 0.5 * np.einsum("ij,ij->i", w, caught[:, self.at_least] + caught[:, self.above])
        sums = w.sum(axis=1), caught[:, -1]
        positive = (sums[0] > 0) & (sums[1] > 0)
        return np.asarray(np.divide(wins, sums[0] * sums[1], out=np.full(len(w), np.nan), where=positive))


def resamplings(
    sizes: Sequence[int], n: int, seed: int, events: Sequence[npt.NDArray[Any] | None] | None = None
) -> list[npt.NDArray[np.uint8]]:
    """Draw how often every row of several samples occurs in each replica of a bootstrap.

    The same seed gives a sample the same replicas, so that all scores are compared on the same ones.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each sample.
    n : int
        Replicas.
    seed : int
    events : sequence of (rows,) integers or None, optional
        Rows with the same number, such as the jets of an event, are drawn together.

    Returns
    -------
    list of (n, rows) uint8

    Examples
    --------
    >>> counts, = resamplings([4], 3, seed=1)
    >>> counts.shape, counts.sum(axis=1).tolist()
    ((3, 4), [4, 4, 4])
    """
    out = []
    for i, size in enumerate(sizes):
        rng = np.random.default_rng((seed, i))
        labels = None if events is None else events[i]
        unit = None if labels is None else np.unique(labels, return_inverse=True)[1]
        units = size if unit is None else int(unit.max(initial=-1)) + 1
        counts = np.empty((n, size), np.uint8)
        for replica in counts:
            drawn = np.minimum(np.bincount(rng.integers(0, units, units), minlength=units), 255)
            replica[:] = drawn if unit is None else drawn[unit]
        out.append(counts)
    return out
