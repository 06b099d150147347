"""New cards on an unchanged network: move the thresholds of a model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from coffea_ad import files
from coffea_ad.errors import ConfigError, SkimError, UnknownName
from coffea_ad.modelfiles.flat import Rows, exact_threshold, flat_regions
from coffea_ad.results.folder import FORMER, HISTOGRAMS, load_results
from coffea_ad.results.results import Results
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import ModelCard, write_card
from coffea_ad.scoring.domains import Domain, binned
from coffea_ad.scoring.members import member_of
from coffea_ad.scoring.modelfile import network_digest
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import RegionSpec
from coffea_ad.scoring.working_points import tied, too_few
from coffea_ad.skims.background import background as background_rows
from coffea_ad.skims.background import background_datasets, rows_in_words, spectator
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Ints
from coffea_ad.weights import is_simulation, n_effective

__all__ = ["new_regions"]

_BLOCK = 4096
Bins = tuple[str, Sequence[float]]
"""A spectator, and inner edges of bins in it."""


def _members(card: ModelCard, skim: Skim) -> Ints | None:
    """Return which member scores every row: that of its window, and none that has seen its event."""
    return member_of(card, lambda name: skim.spectators[name]) if card.members > 1 else None


def _scored(model: OnnxScorer, rows: Any, members: Ints | None = None) -> Float32s:
    """Score rows, which may be sparse or in files, block by block."""
    blocks = (slice(start, start + _BLOCK) for start in range(0, len(rows), _BLOCK))
    parts = [np.asarray(model(np.asarray(rows[b]), None if members is None else members[b])) for b in blocks]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _from_results(
    results: Results, model: OnnxScorer, datasets: Sequence[str], name: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], list[str]]:
    """Return edges, contents at luminosity and variances of the inclusive `ad_logp` histogram of the background."""
    made_with = results.report["models"][0] if results.report.get("models") else {}
    identity = {"network": network_digest(model.data), "calibration": model.card.calibration_digest}
    if {k: made_with.get(k) for k in identity} != identity:
        raise ConfigError(f"the results were made with another model than {name}: {made_with.get('file', 'none')}")
    backgrounds = background_datasets(model.card, datasets, sorted(results.histograms))
    unknown = [d for d in backgrounds if d not in results.report["datasets"]]
    if unknown:
        raise UnknownName.of("dataset", unknown[0], results.report["datasets"])
    missing = [d for d in backgrounds if "ad_logp" not in results.histograms.get(d, {})]
    if missing:
        raise ConfigError(f"the results have no histogram ad_logp of {', '.join(missing)}")
    for d in backgrounds:
        entry = results.report["datasets"][d]
        simulated = is_simulation(entry["metadata"]) is not False
        # folders of before say only what was asked for
        if entry.get("blinded", not simulated and not results.report["config"].get("unblind")):
            raise ConfigError(f"dataset {d} is blinded data; thresholds from it would be wrong")
    picked = [results.scaled(d, "ad_logp")[{"region": "inclusive", "variation": "nominal"}] for d in backgrounds]
    total = sum(picked[1:], start=picked[0])
    content = float(np.asarray(total.values()).sum())
    if not content > 0:
        raise ConfigError(
            f"the background of {name} in the results, {', '.join(backgrounds)}, has no regions: its ad_logp histogram holds "
            + ("nothing" if content == 0 else f"{content:g} events")
        )
    return total.axes[0].edges, np.asarray(total.values()), np.asarray(total.variances()), backgrounds


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
    if skim.provenance["event_weight"] != "1 (data)" and not skim.provenance["event_weight"].endswith("· xsec / sumw"):
        raise ConfigError(
            f"{name}: the skim has no visible cross-section, since a row weighs {skim.provenance['event_weight']}"
        )
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
    domain: Sequence[Domain] = (),
    bins: Bins | None = None,
    flat_in: str | None = None,
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
    domain : sequence of Domain
        Where the model is valid from now on, in place of the card's domain. The calibration is then derived anew, from the
        rows of a skim that lie inside.
    bins : (name, inner edges), optional
        A spectator, a column of the skim, in bins of which there are thresholds of their own, so that each bin keeps the
        same fraction of the background.
    flat_in : str, optional
        A spectator that the thresholds follow smoothly, in bins that are made from the skim. Of a model whose background is all
        rows, the test rows are left for the check; `provenance["flat_in"]` says the error of each threshold and what the check gave.

    Raises
    ------
    ConfigError
        Nothing was asked for, or the background cannot carry any of the regions.
    SkimError
        The skim has not the spectators.

    Notes
    -----
    `provenance["regions_left_out"]` of the new card says of regions that are not written why.
    """
    scorer = OnnxScorer(data, name=name)
    card = _with_domain(scorer.card, domain, name)
    if (domain or bins or flat_in) and _has_histograms(source):
        raise ConfigError(
            f"{name}: a domain and thresholds in bins of a spectator are derived from a skim, not from results"
        )
    if bins and flat_in:
        raise ConfigError(
            f"{name}: give either the bins of {bins[0]}, or the spectator {flat_in} to make bins of, not both"
        )
    if not card.calibrations and files.exists(files.join(source, "report.json")) and _has_histograms(source):
        raise ConfigError(f"{name}: its card has no calibration; derive the regions from a skim")
    if not efficiencies and not visible_cross_sections:
        raise ConfigError("say which regions: --efficiency or --visible-cross-section")
    rates = _Rates(efficiencies, visible_cross_sections)
    about: dict[str, Any] = {}
    if flat_in:
        card, written, left_out, about = _flat(scorer, card, source, datasets, rates, lumi, flat_in, name)
    elif _has_histograms(source):
        written, left_out = _written(*_points_of_results(scorer, source, datasets, rates, name), bins)
    else:
        card, points, origin = _points_of_skim(scorer, card, source, datasets, rates, lumi, bins, name)
        written, left_out = _written(points, origin, bins)
    if not written:
        raise ConfigError("; ".join(left_out))
    former = {k: v for k, v in card.provenance.items() if k != "flat_in"}
    provenance = {**former, "regions_left_out": left_out, **({"flat_in": about} if about else {})}
    return write_card(
        data, ModelCard.model_validate({**card.model_dump(), "regions": written, "provenance": provenance}), name
    )


class _Point(NamedTuple):
    """A threshold, in a bin of a spectator or for all rows, and what it rests on."""

    where: str
    n_all: float
    threshold: float
    error: float
    n_effective: float
    achieved: float


_Points = list[tuple[str, float, list[_Point]]]
"""Of every region its name, its efficiency and its thresholds."""


class _Rates(NamedTuple):
    """How much of the background the regions are to keep."""

    efficiencies: Sequence[float]
    visible_cross_sections: Sequence[float]
    """pb"""

    def regions(self, total: float) -> list[tuple[str, float]]:
        """Return (name, efficiency) of the regions, loose to tight; `total` is the whole background in pb."""
        named: Mapping[float, str] = {
            **{eps: regions.region_label(eps) for eps in self.efficiencies},
            **{x / total: f"{x:g}pb" for x in self.visible_cross_sections},
        }
        for eps, label in named.items():
            if not 0 < eps < 1:
                raise ConfigError(
                    f"region {label}: the background efficiency would be {eps:g} (the whole is {total:g} pb)"
                )
        return [(named[eps], eps) for eps in sorted(named, reverse=True)]


def _points_of_results(
    scorer: OnnxScorer, source: str | Path, datasets: Sequence[str], rates: _Rates, name: str
) -> tuple[_Points, str]:
    """Return the thresholds on the inclusive histogram of the background, and what they were derived from."""
    results = load_results(source)
    edges, contents, variances, backgrounds = _from_results(results, scorer, datasets, name)
    total = float(contents.sum()) / (1000.0 * _luminosity(results, backgrounds))
    n_all = float(contents.sum()) ** 2 / float(variances.sum())
    points = [
        (label, eps, [_Point("", n_all, *regions.binned_threshold(edges, contents, variances, eps), eps)])
        for label, eps in rates.regions(total)
    ]
    return points, f"results of {', '.join(backgrounds)}"


def _points_of_skim(
    scorer: OnnxScorer, card: ModelCard, source: str | Path, datasets: Sequence[str], rates: _Rates, lumi: float | None,
    bins: Bins | None, name: str,
) -> tuple[ModelCard, _Points, str]:  # fmt: skip
    """Return the card with a calibration, the thresholds on the scored rows of a skim, and what they were derived from."""
    skim = background_rows(card, source, datasets)
    weight, origin = skim.event_weight, rows_in_words(card, skim)
    card, values = _calibrated(scorer, card, skim, origin, name)
    named = rates.regions(_in_pb(skim, lumi, name) if rates.visible_cross_sections else 1.0)
    place = np.zeros(len(values), np.int64) if bins is None else _binned(card, skim, source, bins)
    values = np.where(place < 0, np.nan, values)  # rows without a score are in no region, and in no calibration
    in_bin = {where: np.isfinite(values) & (place == i) for i, where in enumerate(_bin_names(bins))}
    points = [
        (label, eps, [_point(where, values[rows], weight[rows], eps) for where, rows in in_bin.items()])
        for label, eps in named
    ]
    return card, points, origin


def _calibrated(
    scorer: OnnxScorer, card: ModelCard, skim: Skim, origin: str, name: str
) -> tuple[ModelCard, npt.NDArray[Any]]:
    """Return the card with a calibration, made of these rows if it has none, and `ad_logp` of the rows."""
    members = _members(card, skim)
    score = _scored(scorer, skim.x, members)
    try:
        calibrations = card.calibrations or regions.calibrate_members(card, score, skim.event_weight, origin, members)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    card = card.model_copy(update={"calibrations": calibrations})
    return card, regions.card_logp(card, score, members)


def _flat(
    scorer: OnnxScorer, card: ModelCard, source: str | Path, datasets: Sequence[str], rates: _Rates, lumi: float | None,
    flat_in: str, name: str,
) -> tuple[ModelCard, list[RegionSpec], list[str], dict[str, Any]]:  # fmt: skip
    """Return card, regions and reasons as above, of thresholds that follow a spectator, and what test rows say of them."""
    every = background_rows(card, source, datasets, splits=("validation", "test"))
    skim, check = (every.select(mask) for mask in (every.split != "test", every.split == "test"))
    if not len(skim.event_weight):
        raise SkimError(f"{source}: {', '.join(sorted(set(every.dataset.tolist())))} has no validation rows")
    whole = card.folds is not None or "rows" not in card.provenance
    origin = rows_in_words(card, skim) + (", without test rows" if whole and len(check.event_weight) else "")
    card, values = _calibrated(scorer, card, skim, origin, name)
    named = rates.regions(_in_pb(skim, lumi, name) if rates.visible_cross_sections else 1.0)
    rows = Rows(values, skim.event_weight, spectator(card, skim, flat_in, source))
    other: npt.NDArray[Any] = np.zeros(0)
    if len(check.event_weight):
        other = regions.card_logp(card, _scored(scorer, check.x, _members(card, check)), _members(card, check))
    others = Rows(other, check.event_weight, spectator(card, check, flat_in, source))
    written, left_out, about = flat_regions(rows, others, named, flat_in, origin)
    return card, written, left_out, {"spectator": flat_in, "regions": about}


def _written(points: _Points, origin: str, bins: Bins | None = None) -> tuple[list[RegionSpec], list[str]]:
    """Make regions of (name, efficiency, threshold of each bin), or say why not; every bin has to carry a region."""
    written, left_out = [], []
    for label, eps, of in points:
        reasons = [reason for point in of if (reason := _unfit(point, eps))]
        if reasons:
            left_out.append(f"region {label} is not written: {reasons[0]}")
            continue
        spectator, edges = (None, ()) if bins is None else bins
        written.append(
            RegionSpec(
                name=label,
                efficiency=eps,
                thresholds=tuple(point.threshold for point in of),
                error=max(point.error for point in of),
                n_effective=min(point.n_effective for point in of),
                derived_from=origin,
                spectator=spectator,
                edges=tuple(edges),
            )
        )
    return written, left_out


def _unfit(point: _Point, eps: float) -> str:
    """Say why a threshold makes no region of an efficiency; nothing if it does."""
    if point.n_effective < regions.MIN_EFFECTIVE * (1 - 1e-9):
        return too_few(point.n_effective, point.n_all, eps, point.where)
    if abs(point.achieved - eps) > 3 * point.error * eps * np.log(10):
        return tied(point.achieved, eps, point.where)
    return ""


def _with_domain(card: ModelCard, domain: Sequence[Domain], name: str) -> ModelCard:
    """Return the card with another domain, and without the calibration of the former one."""
    if not domain:
        return card
    changes = {"domain": [d.model_dump() for d in domain], "calibrations": (), "regions": ()}
    try:
        return ModelCard.model_validate({**card.model_dump(), **changes})
    except ValidationError as error:
        raise ConfigError(f"{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _binned(card: ModelCard, skim: Skim, folder: str | Path, bins: Bins) -> Ints:
    """Return the bin of every row, −1 where the spectator is undefined."""
    name, edges = bins
    if not edges or any(b <= a for a, b in itertools.pairwise(edges)) or not np.isfinite(edges).all():
        raise ConfigError(f"the edges in {name} must be numbers that rise, one or more, not {list(edges)}")
    return binned(spectator(card, skim, name, folder), edges)


def _bin_names(bins: Bins | None) -> list[str]:
    """Say which rows a bin has, for messages."""
    if bins is None:
        return [""]
    name, edges = bins
    inner = [f" with {Domain(spectator=name, low=low, high=high)}" for low, high in itertools.pairwise(edges)]
    return [f" with {name} < {edges[0]:g}", *inner, f" with {name} ≥ {edges[-1]:g}"]


def _point(where: str, values: Any, weight: Any, eps: float) -> _Point:
    if not len(values):
        return _Point(where, 0.0, 0.0, 0.0, 0.0, 0.0)
    return _Point(where, n_effective(weight), *exact_threshold(values, weight, eps))


def _has_histograms(source: str | Path) -> bool:
    return any(files.exists(files.join(source, name)) for name in (HISTOGRAMS, FORMER[0]))
