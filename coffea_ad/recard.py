"""New cards on an unchanged network: move the thresholds of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad import files, regions
from coffea_ad.card import EVENT_ID, ModelCard, RegionSpec, write_card
from coffea_ad.errors import ConfigError
from coffea_ad.modelfile import network_digest
from coffea_ad.results import Results, load_results
from coffea_ad.scoring import OnnxScorer
from coffea_ad.skims import Skim, load_skim, skim_files
from coffea_ad.weights import fold_of

__all__ = ["new_regions"]

_BLOCK = 4096


def _background(model: OnnxScorer, folder: str | Path, datasets: Sequence[str]) -> tuple[npt.NDArray[np.float32], Skim]:
    """Score the rows of a skim with a model: its own background by default, and not the rows it was trained on."""
    card = model.card
    filters = card.provenance.get("filters", ())
    chosen = _datasets(card, datasets, _skimmed_datasets(folder))
    # one feature may be large and sparse: its rows are made dense block by block
    parts = [
        load_skim(folder, f.name, f.options, datasets=chosen, filters=filters, keep="auto")
        for f in card.inputs[0].features
    ]
    if len({len(p.x) for p in parts}) != 1:
        raise ConfigError(f"{folder}: the features of {card.name} are not defined on the same rows")
    rows: Any = parts[0].x if len(parts) == 1 else np.concatenate([np.asarray(p.x) for p in parts], axis=1)
    if card.folds is not None:  # no member scores a row that it has seen
        ids = (parts[0].bystanders[name] for name in EVENT_ID)
        return _scored(model, rows, fold_of(card.folds.salt, card.folds.k, *ids)), parts[0]
    if "rows" not in card.provenance:
        return _scored(model, rows), parts[0]
    kept = np.flatnonzero(np.isin(parts[0].split, ("validation", "test")))
    return _scored(model, rows, places=kept), parts[0].select(kept)


def _scored(
    model: OnnxScorer,
    rows: Any,
    folds: npt.NDArray[np.int64] | None = None,
    places: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """Score rows, or those at some places, block by block."""
    at = np.arange(len(rows)) if places is None else places
    blocks = (at[start : start + _BLOCK] for start in range(0, len(at), _BLOCK))
    parts = [np.asarray(model(np.asarray(rows[b])) if folds is None else model(rows[b], folds[b])) for b in blocks]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _skimmed_datasets(folder: str | Path) -> list[str]:
    """Return the datasets of a skim."""
    return sorted(skim_files(folder))


def _datasets(card: ModelCard, datasets: Sequence[str], there: Sequence[str]) -> list[str]:
    """Return what counts as background: what was asked for, or else what the model was trained on."""
    if datasets:
        return list(datasets)
    trained = sorted(card.provenance.get("rows", {}))
    if trained and set(trained) <= set(there):
        return trained
    if len(there) == 1:
        return list(there)
    raise ConfigError(f"say which datasets are the background with --datasets; there are: {', '.join(there)}")


def _from_results(
    results: Results, model: OnnxScorer, datasets: Sequence[str], name: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], list[str]]:
    """Return edges, contents at luminosity and variances of the inclusive `ad_logp` histogram of the background."""
    made_with = results.report["models"][0] if results.report.get("models") else {}
    mine = {"network": network_digest(model.data), "calibration": model.card.calibration_digest}
    if {k: made_with.get(k) for k in mine} != mine:
        raise ConfigError(f"the results were made with another model than {name}: {made_with.get('file', 'none')}")
    chosen = _datasets(model.card, datasets, sorted(results.histograms))
    missing = [d for d in chosen if "ad_logp" not in results.histograms.get(d, {})]
    if missing:
        raise ConfigError(f"the results have no histogram ad_logp of {', '.join(missing)}")
    for d in chosen:
        if not results.report["datasets"][d]["metadata"].get("is_mc", True) and not results.report["config"].get(
            "unblind"
        ):
            raise ConfigError(f"dataset {d} is blinded data; thresholds from it would be wrong")
    picked = [results.scaled(d, "ad_logp")[{"region": "inclusive", "variation": "nominal"}] for d in chosen]
    total = sum(picked[1:], start=picked[0])
    return total.axes[0].edges, np.asarray(total.values()), np.asarray(total.variances()), chosen


def _luminosity(results: Results, datasets: Sequence[str]) -> float:
    """Return the luminosity, fb⁻¹, at which the histograms of datasets are normalised."""
    each = {d: float(results.report["datasets"][d].get("lumi", results.report["lumi"])) for d in datasets}
    if len(set(each.values())) > 1:
        listed = ", ".join(f"{d}: {lumi:g}" for d, lumi in each.items())
        raise ConfigError(
            f"the datasets have different luminosities ({listed} fb⁻¹); choose those of one with --datasets"
        )
    return next(iter(each.values()))


def _in_pb(skim: Skim, lumi: float | None, name: str) -> float:
    """Return the visible cross-section of all rows of a skim, pb."""
    total = float(skim.provenance["total_weight"])
    if skim.provenance["xsec"]:
        return total
    if lumi is None:
        raise ConfigError(f"{name}: visible cross-sections in a skim of data need its luminosity; give it with --lumi")
    return total / (1000.0 * lumi * float(skim.provenance["selection"].get("training_fraction", 1.0)))


def new_regions(
    data: bytes,
    source: str | Path,
    *,
    efficiencies: Sequence[float] = (),
    visible_cross_sections: Sequence[float] = (),
    datasets: Sequence[str] = (),
    lumi: float | None = None,
    name: str = "model",
) -> bytes:
    """Write new thresholds on the same network and the same calibration.

    Parameters
    ----------
    data : bytes
        A model with a card.
    source : path
        A results folder, whose inclusive `ad_logp` histogram is used, or a skim, which is scored anew.
    efficiencies : sequence of float
        Nominal background efficiencies.
    visible_cross_sections : sequence of float
        pb: the regions keep objects at this rate; results are taken at their luminosity.
    datasets : sequence of str
        The background; all by default.
    lumi : float, optional
        fb⁻¹, of all the data that a skim was made from; its training fraction is taken into account.
    name : str
        For messages.

    Raises
    ------
    ConfigError
        Nothing was asked for, or the background cannot carry any of the regions.
    """
    scorer = OnnxScorer(data)
    card = scorer.card
    if card.calibration is None and files.exists(files.join(source, "report.json")) and _has_histograms(source):
        raise ConfigError(f"{name}: its card has no calibration; derive the regions from a skim")
    if not efficiencies and not visible_cross_sections:
        raise ConfigError("say which regions: --efficiency or --visible-cross-section")
    update: dict[str, Any] = {}
    if _has_histograms(source):
        results = load_results(source)
        edges, values, variances, chosen = _from_results(results, scorer, datasets, name)
        total = float(values.sum()) / (1000.0 * _luminosity(results, chosen))
        specs = _specs(efficiencies, visible_cross_sections, total)
        found = [(label, eps, *regions.binned_threshold(edges, values, variances, eps)) for label, eps in specs]
        origin = f"results of {', '.join(chosen)}"
    else:
        score, skim = _background(scorer, source, datasets)
        calibration = card.calibration or regions.calibrate(
            score, skim.weight, f"skim {Path(files.absolute(source)).name}"
        )
        update["calibration"] = calibration
        total = _in_pb(skim, lumi, name) if visible_cross_sections else 1.0
        specs = _specs(efficiencies, visible_cross_sections, total)
        found = [(label, eps, *_exact_threshold(calibration, score, skim.weight, eps)) for label, eps in specs]
        origin = f"skim of {', '.join(sorted(skim.provenance['rows']))}"
    kept = tuple(
        RegionSpec(name=label, efficiency=eps, thresholds=(t,), error=error, n_effective=n_eff, derived_from=origin)
        for label, eps, t, error, n_eff in found
        if n_eff >= regions.MIN_EFFECTIVE and error > 0
    )
    if not kept:
        raise ConfigError(
            f"no region rests on {regions.MIN_EFFECTIVE:g} effective background objects within the reach of the calibration"
        )
    return write_card(data, ModelCard.model_validate({**card.model_dump(), **update, "regions": kept}), name)


def _has_histograms(source: str | Path) -> bool:
    return files.exists(files.join(source, "histograms.json"))


def _exact_threshold(calibration: Any, score: Any, weight: Any, eps: float) -> tuple[float, float, float]:
    values = regions.logp(calibration, score)
    order = np.argsort(-values, kind="stable")
    reached = np.cumsum(weight[order]) / weight.sum()
    threshold = float(values[order][min(int(np.searchsorted(reached, eps)), len(order) - 1)])
    achieved, error, n_eff = regions.efficiency(values, weight, threshold)
    if abs(achieved - eps) > 3 * error:
        return threshold, 0.0, 0.0  # ties, or beyond what the calibration can tell apart
    return threshold, error / (eps * np.log(10)), n_eff


def _specs(efficiencies: Sequence[float], cross_sections: Sequence[float], total: float) -> list[tuple[str, float]]:
    """Return (name, efficiency) of the regions, loose to tight; `total` is the whole background in pb."""
    named: Mapping[float, str] = {
        **{eps: regions.region_label(eps) for eps in efficiencies},
        **{x / total: f"{x:g}pb" for x in cross_sections},
    }
    for eps, label in named.items():
        if not 0 < eps < 1:
            raise ConfigError(f"region {label}: the background efficiency would be {eps:g} (the whole is {total:g} pb)")
    return [(named[eps], eps) for eps in sorted(named, reverse=True)]
