"""Differences between scores that were evaluated on the same events, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.record import Metrics

__all__ = ["Difference", "difference", "difference_of_means"]


@dataclass(frozen=True)
class Difference:
    """How much better one score is than another.

    Attributes
    ----------
    value : float
    events : float
        Standard error by the events, of these very models: bootstrap replicas that both scores share.
    seeds : float
        Standard error by the seeds of the trainings; NaN if each score is of one model only.
    low, high : float
        Interval at 95 % by Student's t.
    degrees : float
        Degrees of freedom behind the interval.
    p_value : float
        Two-sided, of no difference.
    """

    value: float
    events: float
    seeds: float
    low: float
    high: float
    degrees: float
    p_value: float

    def __str__(self) -> str:
        """Return the difference with its interval, such as "+0.020 (95 %: +0.011 to +0.029)"."""
        if not np.isfinite(self.low):
            return f"{self.value:+.3f}"
        return f"{self.value:+.3f} (95 %: {self.low:+.3f} to {self.high:+.3f})"


def difference(first: Metrics | Sequence[Metrics], second: Metrics | Sequence[Metrics]) -> Difference:
    """Return how much larger the AUC of one score is than that of another on the same events.

    Δ = ⟨A⟩ − ⟨B⟩ with means over signals and seeds; its variance is σ² + s_A²/k_A + s_B²/k_B with the bootstrap variance σ²
    of Δ over the events and the variances s² over k seeds. With few seeds s² is hardly known: the interval is that of
    Student's t with the degrees of freedom of Welch and Satterthwaite, ν = (Σ v)²/Σ(v²/ν_v) of these three terms.

    Parameters
    ----------
    first, second : Metrics or sequence of Metrics
        Of one `evaluate`, or of two with the same seed and samples; of several signals, in the same order.

    Returns
    -------
    Difference
        A score of one model contributes no spread over seeds: the interval is then that of this model.

    Raises
    ------
    ConfigError
        The metrics are not of as many signals, or of other replicas.

    References
    ----------
    F. E. Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bull. 2 (1946) 110;
    B. L. Welch, "The generalization of 'Student's' problem", Biometrika 34 (1947) 28.

    Examples
    --------
    >>> from coffea_ad.evaluation import Sample, evaluate
    >>> rng = np.random.default_rng(1)
    >>> b, s = rng.normal(size=2000), rng.normal(1, 1, 2000)
    >>> scores = [{"x": x, "blurred": x + 0.5 * rng.normal(size=2000)} for x in (b, s)]
    >>> compared = evaluate(Sample(scores[0]), {"signal": Sample(scores[1])}, n_bootstrap=50)
    >>> delta = difference(*(compared.row(name, "signal").plain for name in ("x", "blurred")))
    >>> delta.low > 0
    True
    """
    a, b = ((f,) if isinstance(f, Metrics) else tuple(f) for f in (first, second))
    if len(a) != len(b) or not a:
        raise ConfigError(f"a difference is of the same signals, not of {len(a)} and {len(b)}")
    if len({len(f.auc_replicas) for f in (*a, *b)}) != 1:
        raise ConfigError("a difference is of metrics with the same bootstrap replicas")
    means = (np.mean([f.auc.each or (f.auc.value,) for f in metrics], axis=0) for metrics in (a, b))
    replicas = (np.mean([f.auc_replicas for f in metrics], axis=0) for metrics in (a, b))
    return difference_of_means(*means, *replicas)


def difference_of_means(
    first: npt.ArrayLike, second: npt.ArrayLike, first_replicas: npt.ArrayLike, second_replicas: npt.ArrayLike
) -> Difference:
    """Return the difference of two means over seeds, as `difference` does, of any metric.

    Parameters
    ----------
    first, second : (seeds,)
        The metric of every model; as many models as there are.
    first_replicas, second_replicas : (n_bootstrap,)
        Its means over the models, in replicas of the same events.

    Returns
    -------
    Difference

    Examples
    --------
    >>> str(difference_of_means([0.8], [0.7], [0.81, 0.80, 0.79], [0.72, 0.70, 0.68]))
    '+0.100 (95 %: +0.057 to +0.143)'
    """
    from scipy.special import stdtr, stdtrit

    a, b = (np.atleast_1d(np.asarray(x, np.float64)) for x in (first, second))
    value = float(a.mean() - b.mean())
    replicas = np.asarray(first_replicas, np.float64) - np.asarray(second_replicas, np.float64)
    replicas = replicas[np.isfinite(replicas)]
    # Variances and their degrees of freedom: events, seeds of one, seeds of the other.
    terms = [(float(np.var(replicas, ddof=1)), len(replicas) - 1)] if len(replicas) > 1 else []
    of_seeds = [(float(np.var(x, ddof=1)) / len(x), len(x) - 1) for x in (a, b) if len(x) > 1]
    events = np.sqrt(terms[0][0]) if terms else np.nan
    seeds = np.sqrt(sum(v for v, _ in of_seeds)) if of_seeds else np.nan
    terms += of_seeds
    total, spread = sum(v for v, _ in terms), sum(v * v / n for v, n in terms)
    if not terms or not total > 0:
        known = bool(terms)  # scores that are the same in every replica do not differ
        edge, p = (value, 1.0) if known and value == 0 else (np.nan, np.nan)
        return Difference(value, float(events), float(seeds), edge, edge, np.nan, p)
    degrees, sigma = total * total / spread, np.sqrt(total)
    half = float(stdtrit(degrees, 0.975)) * sigma
    p_value = 2 * float(stdtr(degrees, -abs(value) / sigma))
    return Difference(
        value, float(events), float(seeds), float(value - half), float(value + half), float(degrees), p_value
    )
