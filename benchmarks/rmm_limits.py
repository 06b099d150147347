"""Expected limits of `rmm_search.py --limits`: a signal in the most sensitive of its nine mass spectra, in regions of scores and of cuts.

A region keeps the background of a visible cross-section, by all rows that did not train. In each spectrum the window is the shortest interval that holds two thirds of the
selected signal; spectra of which the signal has fewer than `LEAST` events do not count. The background of a window is its sum of weights plus one
standard deviation of the simulation (1.15 events of mean weight where there are none), and is taken to be known as well as by a fit to as many events beside
it. Counting at `LUMI` gives the limit at 95 % CLs that is expected without a signal, over the part of all generated signal events in the window.
"""

from __future__ import annotations

import numpy as np
import rmm_scores

from coffea_ad.search.counting import counting_limit

LUMI = 138.0  # fb⁻¹
VISIBLE = (10.0, 1.0, 0.1)  # pb
LEAST = 20
PART = 2 / 3
_MANY = 500.0  # from which counting is Gaussian


def masses(x):
    """Return the nine masses, GeV, (n, 9); 0 where there is no such pair."""
    return x[:, rmm_scores.columns(rmm_scores.LEADING)].astype(np.float64) * rmm_scores.SQRT_S


def window(values, weight, part=PART):
    """Return the shortest interval in ln m that holds this part of a signal."""
    order = np.argsort(values)
    m, inside = values[order], np.cumsum(weight[order]) / weight.sum()
    last = np.searchsorted(inside, inside - weight[order] / weight.sum() + part * (1 - 1e-9))
    fits = last < len(m)
    widths = np.log(m[last[fits]] / m[fits])
    first = int(np.argmin(widths))
    return float(m[fits][first]), float(m[last[fits][first]])


def excluded(background, error):
    """Return the number of signal events that is excluded at 95 % CLs, expected without a signal."""
    if background > _MANY:
        return 1.96 * np.sqrt(background + error**2)
    return counting_limit(background, background, error)[1][2]


def expected_limit(background, signal, kept_background, kept_signal):
    """Return the limit on a signal's cross-section in its best spectrum, pb, and which it is.

    Parameters
    ----------
    background, signal : (masses (n, 9), weight (n,) in pb; of the signal the part of a cross-section of 1 pb)
    kept_background, kept_signal : (n,) bool
        In the region.
    """
    (of_b, w_b), (of_s, w_s) = background, signal
    limits = {}
    for i, name in enumerate(rmm_scores.LEADING):
        there = of_s[:, i] > 0
        if there.sum() < LEAST:
            continue
        low, high = window(of_s[there, i], w_s[there])
        b = w_b[kept_background & (of_b[:, i] >= low) & (of_b[:, i] <= high)]
        part = w_s[kept_signal & (of_s[:, i] >= low) & (of_s[:, i] <= high)].sum()
        mean = (w_b**2).sum() / w_b.sum()
        events = 1000 * LUMI * (b.sum() + (np.sqrt((b**2).sum()) if len(b) else 1.15 * mean))
        if part > 0:
            limits[name] = excluded(events, np.sqrt(events)) / (1000 * LUMI * part)
    if not limits:
        return np.nan, ""
    best = min(limits, key=lambda n: limits[n])
    return limits[best], best


def of_regions(scores, test, data, signals, names, threshold):
    """Return {score: {signal: [[acceptance, limit in pb, spectrum] at each visible cross-section]}}, and of all events as `inclusive`.

    Parameters
    ----------
    scores : {score: {dataset: (n,)}}
    test : (n,) bool
        Background rows that count, none of which trained; they stand for all.
    data : Skim
    signals : {name: Skim}
    names : of scores
    threshold : function of (score, weight, efficiency)
    """
    weight = data.event_weight[test] * data.event_weight.sum() / data.event_weight[test].sum()
    background = masses(data.x[test]), weight
    of_signals = {name: (masses(s.x), s.event_weight) for name, s in signals.items()}
    all_of = np.ones(test.sum(), bool)
    out = {"inclusive": {}}
    for name, signal in of_signals.items():
        out["inclusive"][name] = [[1.0, *expected_limit(background, signal, all_of, np.ones(len(signal[1]), bool))]]
    rng = np.random.default_rng(5)  # whole numbers are cut on as if they were not
    for score in names:
        whole = score == "cut: number of jets"
        values = {
            k: s + rng.uniform(0, 1, len(s)) if whole else s
            for k, s in scores[score].items()
            if k in {"background", *signals}
        }
        b = values["background"][test]
        out[score] = {}
        for name, signal in of_signals.items():
            rows = []
            for visible in VISIBLE:
                cut = threshold(b, weight, visible / weight.sum())
                passes = values[name] >= cut
                rows.append([float(passes.mean()), *expected_limit(background, signal, b >= cut, passes)])
            out[score][name] = rows
    return out


def table(seeds, signals):
    """Print acceptance and limit, mean over seeds ± their standard deviation, for each signal and score."""
    for score in seeds[0]:
        for i in range(len(next(iter(seeds[0][score].values())))):
            where = "" if score == "inclusive" else f", {VISIBLE[i]:g} pb"
            print(f"\n{score}{where}")
            for name in signals:
                rows = [s[score][name][i] for s in seeds]
                a, limit = (np.array([r[k] for r in rows], float) for k in (0, 1))
                spread = a.std(ddof=1) if len(a) > 1 else 0.0
                of_limit = limit.std(ddof=1) if len(a) > 1 else 0.0
                spectra = "/".join(sorted({r[2] for r in rows}))
                print(
                    f"  {name:20s} {a.mean():6.3f} ± {spread:5.3f}  {1000 * limit.mean():9.3g} ± {1000 * of_limit:7.2g} fb  {spectra}"
                )
