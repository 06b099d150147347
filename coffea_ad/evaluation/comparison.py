"""Scores of background and signals in, rows of a table out."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.curves import MIN_EFFECTIVE, Curve, Ranking, resamplings
from coffea_ad.evaluation.matching import Matching
from coffea_ad.evaluation.record import MIN_SEEDS, Estimate, Evaluation, Metrics, Row, Sample
from coffea_ad.evaluation.sculpting import Divergence, Sculpting, sculpting
from coffea_ad.typing import Bools, Float64s
from coffea_ad.weights import n_effective

__all__ = ["EFFICIENCIES", "evaluate"]

EFFICIENCIES = (1e-1, 1e-2, 1e-3, 1e-4)
"""ε_B at which ε_S is given."""
_GRID = np.geomspace(1e-5, 1, 151)  # ε_B of the curves that are drawn


@dataclass(frozen=True)
class _Numbers:
    """The metrics of one model and one set of weights, as a vector: AUC, ε_S…, SIC."""

    ranking: Ranking
    efficiencies: tuple[float, ...]
    minimum: float
    w_background: Float64s
    w_signal: Float64s

    def nominal(self) -> tuple[Float64s, Bools, float, Curve]:
        """Return the vector, the working points that count, ε_B of the largest SIC, and the curve on the grid."""
        curve = self.ranking.curve(self.w_background, self.w_signal)
        eps_s, passing = curve.at(self.efficiencies)
        enough = self.minimum * (1 - 1e-9)
        allowed = curve.n_effective >= enough
        sic = np.where(allowed, curve.significance_improvement(), -1.0)
        best = int(np.argmax(sic)) if allowed.any() else -1
        shown = np.where(passing >= enough, eps_s, np.nan)
        values = np.array([curve.auc(), *shown, sic[best] if best >= 0 else np.nan])
        on_grid, n_eff = curve.at(_GRID)
        drawn = Curve(_GRID, on_grid, on_grid, n_eff)
        return values, allowed, float(curve.eps_b[best]) if best >= 0 else float("nan"), drawn

    def replica(self, w_background: Float64s, w_signal: Float64s, allowed: Bools) -> Float64s:
        """Return the vector for other weights, the working points that count staying as they are."""
        curve = self.ranking.curve(w_background, w_signal, errors=False)
        sic = curve.significance_improvement()[allowed]
        return np.array([curve.auc(), *curve.at(self.efficiencies)[0], sic.max() if len(sic) else np.nan])


def _spread(values: Float64s, axis: int = 0) -> Float64s:
    """Return standard deviations of what is finite; NaN for fewer than two numbers."""
    counted = np.isfinite(values).sum(axis=axis)
    centred = values - np.sum(np.where(np.isfinite(values), values, 0.0), axis=axis) / np.maximum(counted, 1)
    square = np.sum(np.where(np.isfinite(values), centred**2, 0.0), axis=axis)
    return np.asarray(np.where(counted > 1, np.sqrt(square / np.maximum(counted - 1, 1)), np.nan))


@dataclass(frozen=True)
class _Replicas:
    """Weights of a bootstrap, made one replica at a time: all of them would not fit into memory."""

    w_background: Float64s
    w_signal: Float64s
    background: npt.NDArray[np.uint8]
    signal: npt.NDArray[np.uint8]
    matching: Matching | None = None

    def __iter__(self) -> Iterator[tuple[Float64s, Float64s]]:
        for b, s in zip(self.background, self.signal, strict=True):
            weights = self.w_background * b, self.w_signal * s
            yield self.matching.weights(*weights) if self.matching else weights


def _metrics(models: Sequence[_Numbers], replicas: _Replicas) -> Metrics:
    """Combine models that differ by their seed, with errors from the same replicas for all of them."""
    nominal = [m.nominal() for m in models]
    values = np.stack([n[0] for n in nominal])
    each = [
        np.mean([m.replica(*weights, n[1]) for m, n in zip(models, nominal, strict=True)], axis=0)
        for weights in replicas
    ]
    drawn = np.array(each).reshape(len(each), values.shape[1])
    mean = values.mean(axis=0)
    errors = np.where(np.isfinite(mean), _spread(drawn), np.nan)
    spreads = _spread(values) if len(values) >= MIN_SEEDS else np.full(len(mean), np.nan)
    first, *middle, last = (
        Estimate(float(m), float(e), float(s), tuple(each.tolist()) if len(each) > 1 else ())
        for m, e, s, each in zip(mean, errors, spreads, values.T, strict=True)
    )
    curves = [n[3] for n in nominal]
    eps_s = np.mean([c.eps_s for c in curves], axis=0)
    counts = [
        (n_effective(m.w_background[m.ranking.background]), n_effective(m.w_signal[m.ranking.signal])) for m in models
    ]
    return Metrics(
        auc=first,
        signal_efficiency=dict(zip(models[0].efficiencies, middle, strict=True)),
        significance_improvement=last,
        eps_b=float(np.mean([n[2] for n in nominal])),
        n_effective=float(np.mean([c[0] for c in counts])),
        n_effective_signal=float(np.mean([c[1] for c in counts])),
        curve=Curve(_GRID, eps_s, eps_s, np.min([c.n_effective for c in curves], axis=0), first.value),
        auc_replicas=drawn[:, 0],
    )


def _checked(name: str, sample: Sample) -> tuple[Float64s, list[str]]:
    """Return weights, and a note if some are negative.

    Raises
    ------
    ConfigError
        Lengths differ, a weight is not finite, or the weights do not sum to something positive.
    """
    lengths = {f"score {k}": np.shape(v)[-1] for k, v in sample.scores.items()}
    lengths |= {k: len(getattr(sample, k)) for k in ("weight", "pt", "mass", "event") if getattr(sample, k) is not None}
    if not sample.scores or len(set(lengths.values())) != 1:
        listed = ", ".join(f"{k} {n}" for k, n in lengths.items()) or "no score at all"
        raise ConfigError(f"{name}: scores, weights and spectators must have one number for every row, but: {listed}")
    n = next(iter(lengths.values()))
    weight = np.ones(n) if sample.weight is None else np.asarray(sample.weight, np.float64)
    if not np.isfinite(weight).all():
        raise ConfigError(f"{name}: {int((~np.isfinite(weight)).sum())} weights are not finite numbers")
    if not (weight > 0).any():
        raise ConfigError(f"{name}: there is no row with a positive weight")
    if not weight.sum() > 0:
        raise ConfigError(f"{name}: the weights sum to {weight.sum():.3g}, so that no efficiency can be given")
    negative, share = weight < 0, -weight[weight < 0].sum() / np.abs(weight).sum()
    note = (
        f"{name}: {int(negative.sum())} rows have negative weights, {share:.2g} of all |weights|; they are subtracted"
    )
    return weight, [note] if negative.any() else []


def _matching(background: Sample, signal: Sample, bins: int) -> tuple[Matching | None, str | None]:
    if background.pt is None or signal.pt is None:
        alone = (background.pt is None) != (signal.pt is None)
        return None, "only one sample has a pT, so nothing is shown at equal spectra" if alone else None
    if not (np.isfinite(background.pt).all() and np.isfinite(signal.pt).all()):
        return (
            None,
            "pT is not defined for all rows, so nothing is shown at equal spectra",
        )
    return Matching(background.pt, signal.pt, bins), None


def _stacked(name: str, sample: str, scores: npt.ArrayLike, weight: Float64s) -> Float64s:
    """Return scores as (models, rows), NaN where a row has no weight.

    Raises
    ------
    ConfigError
        None is a finite number.
    """
    s = np.atleast_2d(np.asarray(scores, np.float64))
    s = np.where((weight != 0) & np.isfinite(s), s, np.nan)
    if not np.isfinite(s).any(axis=1).all():
        raise ConfigError(f"{name}: no row of {sample} has a score")
    totals = np.where(np.isfinite(s), weight, 0.0).sum(axis=1)
    if not (totals > 0).all():
        raise ConfigError(f"{name}: the weights of the rows of {sample} that have a score sum to {totals.min():.3g}")
    return s


def _against(
    background: Sample, wb: Float64s, name: str, signal: Sample, *, efficiencies: tuple[float, ...], n_bootstrap: int,
    minimum: float, bins: int, seed: int,
) -> tuple[list[Row], list[str]]:  # fmt: skip
    """Return the rows of one signal, and what was left out."""
    ws, notes = _checked(name, signal)
    matching, why = _matching(background, signal, bins)
    notes += [f"{name}: {why}"] if why else []
    (in_b,) = resamplings([len(wb)], n_bootstrap, seed, [background.event])  # the same for every signal
    (in_s,) = resamplings([len(ws)], n_bootstrap, zlib.crc32(f"{seed} {name}".encode()), [signal.event])
    plain = _Replicas(wb, ws, in_b, in_s)
    rows = []
    for score in (s for s in background.scores if s in signal.scores):
        b = _stacked(score, "the background", background.scores[score], wb)
        s = _stacked(score, name, signal.scores[score], ws)
        if len(b) != len(s):
            raise ConfigError(f"{score}: {len(b)} models scored the background, but {len(s)} scored {name}")
        rankings = [Ranking.of(*pair) for pair in zip(b, s, strict=True)]
        metrics = _metrics([_Numbers(r, efficiencies, minimum, wb, ws) for r in rankings], plain)
        matched = None
        if matching:
            weights = matching.weights(wb, ws)
            at_pt = [_Numbers(r, efficiencies, minimum, *weights) for r in rankings]
            matched = _metrics(at_pt, _Replicas(wb, ws, in_b, in_s, matching))
        lost = [int((np.isnan(a) & (w != 0)).sum(axis=1).max()) for a, w in ((b, wb), (s, ws))]
        rows.append(Row(score, name, len(b), metrics, matched, *lost))
        if any(lost):
            notes.append(
                f"{score}: {lost[0]} of {int((wb != 0).sum())} background rows and {lost[1]} of "
                f"{int((ws != 0).sum())} rows of {name} have no score, and are left out for it"
            )
        if 1 < len(b) < MIN_SEEDS:
            notes.append(f"{score}: {len(b)} models are too few for a spread over seeds, which takes {MIN_SEEDS}")
    return rows, notes


def evaluate(
    background: Sample,
    signals: Mapping[str, Sample],
    *,
    efficiencies: Sequence[float] = EFFICIENCIES,
    cuts: Sequence[float] = (0.1, 0.01),
    n_bootstrap: int = 100,
    n_effective_min: float = MIN_EFFECTIVE,
    matching_bins: int = 20,
    seed: int = 1,
) -> Evaluation:
    """Compare scores: every score of the background against every signal that has it too.

    Negative weights are subtracted. Errors are standard deviations over bootstrap replicas of the events of both
    samples, the same ones for all scores, so that `difference` is paired. In matched metrics the matching is done anew
    in every replica.

    Parameters
    ----------
    background : Sample
        Its `mass` gives the sculpting.
    signals : {name: Sample}
    efficiencies : sequence of float
        ε_B at which ε_S is given.
    cuts : sequence of float
        ε_B of the cuts that may sculpt.
    n_bootstrap : int
        Replicas.
    n_effective_min : float
        A working point with a smaller effective number of passing background rows (`Curve.n_effective`) is not shown
        and is no maximum; its inverse root is the relative error of ε_B.
    matching_bins : int
        Bins of pT, with equal shares of the signal.
    seed : int
        Of replicas, subsamples and random cuts.

    Returns
    -------
    Evaluation

    Raises
    ------
    ConfigError
        Samples are empty, lengths differ, an efficiency is not between 0 and 1, a score is undefined everywhere, or
        weights do not sum to something positive.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> score = {"shift": rng.normal(size=2000), "noise": rng.normal(size=2000)}
    >>> signal = {"shift": rng.normal(1.0, size=500), "noise": rng.normal(size=500)}
    >>> table = evaluate(Sample(score), {"signal": Sample(signal)}, n_bootstrap=20)
    >>> [round(table.row(name, "signal").plain.auc.value, 1) for name in ("shift", "noise")]
    [0.8, 0.5]
    """
    for eps in (*efficiencies, *cuts):
        if not 0 < eps < 1:
            raise ConfigError(f"a background efficiency is {eps:g}, but must lie between 0 and 1")
    wb, notes = _checked("background", background)
    rows: list[Row] = []
    for name, signal in signals.items():
        signal_rows, said = _against(
            background, wb, name, signal, efficiencies=tuple(efficiencies), n_bootstrap=n_bootstrap,
            minimum=n_effective_min, bins=matching_bins, seed=seed,
        )  # fmt: skip
        rows += signal_rows
        notes += said
    settings = {
        "efficiencies": list(efficiencies), "cuts": list(cuts), "n_bootstrap": n_bootstrap, "seed": seed,
        "n_effective_min": n_effective_min, "matching_bins": matching_bins,
    }  # fmt: skip
    return Evaluation(tuple(rows), _sculpted(background, wb, cuts, seed), tuple(dict.fromkeys(notes)), settings)


def _sculpted(background: Sample, weight: Float64s, cuts: Sequence[float], seed: int) -> dict[str, Sculpting]:
    if background.mass is None:
        return {}
    by_score: dict[str, Sculpting] = {}
    for name, scores in background.scores.items():
        each = [sculpting(s, background.mass, weight, cuts=cuts, seed=seed) for s in np.atleast_2d(scores)]
        by_score[name] = each[0] if len(each) == 1 else _mean(each)
    return by_score


def _mean(each: Sequence[Sculpting]) -> Sculpting:
    def mean(values: Sequence[Any]) -> Any:
        return np.mean(values, axis=0)

    fields = ("value", "random", "random_error", "n_effective")
    return Sculpting(
        divergence={
            eps: Divergence(*(float(mean([getattr(s.divergence[eps], f) for s in each])) for f in fields))
            for eps in each[0].divergence
        },
        distance_correlation=float(mean([s.distance_correlation for s in each])),
        distance_correlation_random=float(mean([s.distance_correlation_random for s in each])),
        rank_correlation=float(mean([s.rank_correlation for s in each])),
        edges=each[0].edges,
        before=each[0].before,
        after=each[0].after,
    )
