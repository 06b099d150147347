"""Figures of a search: each spectrum with its fit, pulls and scan; and what the largest excess is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad import files
from coffea_ad.plotting import canvas
from coffea_ad.progress import progress
from coffea_ad.search.config import SearchConfig
from coffea_ad.search.hunting import Hunted, Hunts, Statistic
from coffea_ad.search.limits import Limit

__all__ = ["draw_all", "draw_limits", "draw_spectrum", "draw_summary", "draw_toys"]

_FORMATS = ("pdf",)


def draw_all(
    hunts: Hunts, folder: Path, config: SearchConfig, lumi: float | None, limits: Sequence[Limit] = ()
) -> None:
    """Draw every spectrum, the local significances of all, and the distribution of the largest one without signal."""
    folder.mkdir(parents=True, exist_ok=True)
    drawable = _by_spectrum(limits)
    with progress("figures", len(hunts.spectra) + len(drawable) + 2) as advance:
        for (name, width), several in drawable.items():
            draw_limits(several, folder / f"limits_{files.as_name(name.replace(' ', '_'))}_{100 * width:g}.png", lumi)
            advance()
        for name, hunted in hunts.spectra.items():
            draw_spectrum(hunted, folder / f"{files.as_name(name.replace(' ', '_'))}.png", config.statistic, lumi)
            advance()
        if hunts.spectra:
            draw_summary(hunts, folder / "summary.png", config.statistic)
            advance()
        if hunts.largest.get(config.statistic) is not None:
            draw_toys(hunts, folder / "largest_significance.png", config.statistic)
            advance()


def draw_spectrum(hunted: Hunted, path: Path, statistic: Statistic, lumi: float | None = None) -> None:
    """Draw events and fit, their pulls, and the significance of signals against the mass."""
    p = hunted.prepared
    spectrum, fitted, bump = p.spectrum, p.background.fit, p.bumps[statistic]
    edges, centers, widths = spectrum.edges, (spectrum.edges[:-1] + spectrum.edges[1:]) / 2, spectrum.widths
    with canvas(path, 3, 1, size=(6.4, 2.6), formats=_FORMATS) as axes:
        top, middle, bottom = axes[:, 0]
        top.get_gridspec().set_height_ratios([3, 1, 1])
        band = fitted.error / widths
        line = fitted.expected / widths
        label = f"{fitted.family}, {fitted.order} parameters, p = {p.background.goodness.p_value:.2f}"
        top.stairs(line, edges, color="C0", label=label)
        top.fill_between(edges, np.r_[line - band, 0], np.r_[line + band, 0], step="post", color="C0", alpha=0.3, lw=0)
        filled = spectrum.counts > 0
        top.errorbar(
            centers[filled],
            (spectrum.counts / widths)[filled],
            (np.sqrt(spectrum.variance) / widths)[filled],
            fmt="ko",
            ms=3,
            label="events",
        )
        lowest = 0.3 * float((1 / widths).min())
        top.set(yscale="log", ylim=(lowest, 5 * float((spectrum.counts / widths).max())))
        top.set_ylabel("events / GeV")
        title = spectrum.name + ("" if lumi is None else f", {lumi:.3g} fb$^{{-1}}$")
        top.set_title(title, loc="left")
        middle.stairs(fitted.pulls, edges, fill=True, color="0.6")
        middle.axhline(0, color="k", lw=0.8)
        middle.set_ylabel("pull")
        middle.set_ylim(-4, 4)
        _scan(bottom, hunted)
        if bump is not None:
            for ax in (top, middle, bottom):
                ax.axvspan(bump.low, bump.high, color="C1", alpha=0.2, lw=0)
            top.plot([], [], color="C1", alpha=0.4, lw=8, label=_told(hunted, statistic))
        last = int(np.flatnonzero(spectrum.counts > 0)[-1])
        right = float(edges[min(last + 1 + len(widths) // 10, len(widths))])  # some of the empty end
        for ax in (top, middle, bottom):
            ax.set_xlim(edges[0], right)
            if right / edges[0] > 8:
                ax.set_xscale("log")
        bottom.set_xlabel(spectrum.label or "mass [GeV]")
        top.legend()


def _told(hunted: Hunted, statistic: Statistic) -> str:
    bump, worth = hunted.prepared.bumps[statistic], hunted.p_global[statistic]
    assert bump is not None
    behind = "" if worth is None else f", p = {worth.p_value:.2g} in this spectrum"
    return f"largest excess: {bump.local:.1f}σ local{behind}"


def _scan(ax: Any, hunted: Hunted) -> None:
    signals, z = hunted.prepared.hunt.signals, hunted.prepared.scanned.q0[0]
    for i, width in enumerate(dict.fromkeys(signals.width.tolist())):
        of = signals.width == width
        name = "one bin" if width == 0 else f"{100 * width:g} %"
        ax.plot(signals.mass[of], z[of], "-" if of.sum() > 1 else "o", color=f"C{i}", ms=3, lw=1.2, label=name)
    ax.set_ylabel("significance")
    ax.set_ylim(0, max(3.0, 1.4 * float(z.max())))
    ax.legend(title=None, ncols=5, fontsize=8, loc="upper right")


def _by_spectrum(limits: Sequence[Limit]) -> dict[tuple[str, float], list[Limit]]:
    """Return the limits on Gaussian signals that were set, by spectrum and width; two masses or more make a curve."""
    out: dict[tuple[str, float], list[Limit]] = {}
    for limit in limits:
        if limit.expected and not limit.signal:
            out.setdefault((limit.spectrum, limit.width), []).append(limit)
    return {key: several for key, several in out.items() if len(several) > 1}


def draw_limits(limits: Sequence[Limit], path: Path, lumi: float | None = None) -> None:
    """Draw observed and expected limits of one width against the mass, with bands of one and two standard deviations."""
    unit = 1.0 if lumi is None else 1 / (1000 * lumi)
    mass = np.array([limit.mass for limit in limits])
    bands = np.array([limit.expected for limit in limits]).T * unit
    observed = np.array([np.nan if limit.observed is None else limit.observed for limit in limits]) * unit
    with canvas(path, formats=_FORMATS) as axes:
        ax = axes[0, 0]
        ax.fill_between(mass, bands[0], bands[4], color="#F5BB54", lw=0, label="expected ± 2σ")
        ax.fill_between(mass, bands[1], bands[3], color="#607641", lw=0, label="expected ± 1σ")
        ax.plot(mass, bands[2], "k--", label="expected")
        ax.plot(mass, observed, "ko-", ms=4, label="observed")
        ax.set(yscale="log")
        ax.set_xlabel("mass of the signal [GeV]")
        ax.set_ylabel(
            "events, 95 % CL" if lumi is None else r"$\sigma \times A \times \epsilon \times B$ [pb], 95 % CL"
        )
        ax.set_title(f"{limits[0].spectrum}, width {100 * limits[0].width:g} %", loc="left")
        ax.legend()


def draw_summary(hunts: Hunts, path: Path, statistic: Statistic) -> None:
    """Draw the largest local significance of every spectrum, and what a global one of 3 and 5σ needs."""
    names = list(hunts.spectra)
    z = [0.0 if (b := h.prepared.bumps[statistic]) is None else b.local for h in hunts.spectra.values()]
    with canvas(path, size=(7.2, max(2.4, 0.3 * len(names) + 1.2)), formats=_FORMATS) as axes:
        ax = axes[0, 0]
        ax.barh(np.arange(len(names)), z, color="C0", height=0.7)
        ax.set_yticks(np.arange(len(names)), names, fontsize=9)
        ax.invert_yaxis()
        trials = hunts.trials.get(statistic)
        if trials is not None and trials.u > 0:
            for level, style in ((3.0, ":"), (5.0, "--")):
                ax.axvline(trials.local_for(level), color="C3", ls=style, lw=1.2, label=f"{level:g}σ global")
            ax.legend(loc="lower right")
        ax.set_xlim(0, max(7.0, 1.1 * max(z, default=0)))
        ax.set_xlabel("largest local significance")
        ax.minorticks_off()


def draw_toys(hunts: Hunts, path: Path, statistic: Statistic) -> None:
    """Draw how often the largest significance of all spectra exceeds a value without signal, its fit, and the data."""
    values, trials, worth = hunts.largest[statistic], hunts.trials[statistic], hunts.p_global[statistic]
    if trials is None or not len(values):
        return
    top = hunts.largest_bump(statistic)
    z = np.linspace(0, 6.5, 200)
    with canvas(path, formats=_FORMATS) as axes:
        ax = axes[0, 0]
        ordered = np.sort(values[np.isfinite(values)])
        ax.step(
            ordered, 1 - np.arange(len(ordered)) / len(values), color="k", label=f"{len(values)} pseudo-experiments"
        )
        ax.plot(z, [trials.p_value(v) for v in z], color="C0", ls="--", label="fitted tail")
        if top is not None and worth is not None:
            ax.axvline(top[1].local, color="C3", label=f"{top[0]}: {top[1].local:.1f}σ, p = {worth.p_value:.2g}")
        ax.set(yscale="log", ylim=(1e-8, 2), xlim=(0, 6.5))
        ax.set_xlabel("largest local significance of all spectra")
        ax.set_ylabel("probability of a larger one without signal")
        ax.legend(loc="lower left")
