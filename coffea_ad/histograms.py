"""Histograms of anomaly regions: booking, filling, blinding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import awkward as ak
import hist
import numpy as np
import numpy.typing as npt
from coffea.analysis_tools import PackedSelection

from coffea_ad import regions
from coffea_ad.card import ModelCard, RegionSpec
from coffea_ad.errors import ConfigError
from coffea_ad.event_lists import TopEvents
from coffea_ad.event_lists.ranking import most_anomalous
from coffea_ad.monitoring import unwatched
from coffea_ad.selection import cutflow
from coffea_ad.tagger import Tagger, tag

__all__ = ["RegionFiller", "blinded", "book", "fill", "logp_axis"]


def logp_axis(card: ModelCard, name: str = "ad_logp", bins_per_decade: int = 10) -> hist.axis.Regular:
    """Return the axis of `ad_logp`; it closes above the largest possible value, so nothing sits in overflow.

    Parameters
    ----------
    card : ModelCard
    name : str
    bins_per_decade : int
    """
    top = max((c.max_logp for c in card.calibrations), default=1.0)
    bins = int(np.floor(top * bins_per_decade)) + 1
    return hist.axis.Regular(bins, 0, bins / bins_per_decade, name=name, label=r"$-\log_{10}$ background efficiency")


def book(axis: Any, regions: Sequence[str], variations: Sequence[str]) -> hist.Hist:
    """Return an empty weighted histogram over region, variation and one observable."""
    return hist.Hist(
        hist.axis.StrCategory(list(regions), name="region", label="region"),
        hist.axis.StrCategory(list(variations), name="variation", label="variation"),
        axis,
        storage=hist.storage.Weight(),
    )


def fill(
    histogram: hist.Hist,
    masks: Mapping[str, npt.NDArray[np.bool_]],
    variation: str,
    values: npt.NDArray[Any],
    weight: npt.NDArray[Any],
) -> int:
    """Fill one observable in all regions.

    Parameters
    ----------
    histogram : Hist
        As booked.
    masks : {region: (n_events,) bool}
    variation : str
    values : (n_events,) or (n_events, objects)
        One or more entries per event; NaN lands in no bin.
    weight : (n_events,)

    Returns
    -------
    int
        The number of undefined values that were left out.
    """
    axis = histogram.axes[-1].name
    table = np.asarray(values)
    table = table[:, None] if table.ndim == 1 else table
    weights = np.broadcast_to(weight[:, None], table.shape)
    finite = np.isfinite(table)
    for region, mask in masks.items():
        chosen = finite & mask[:, None]
        histogram.fill(region=region, variation=variation, weight=weights[chosen], **{axis: table[chosen]})
    return int((~finite).sum())


def blinded(grades: npt.NDArray[Any], regions: Sequence[RegionSpec]) -> npt.NDArray[np.bool_]:
    """Return which events of data must not be looked at: those with a jet in the tightest region.

    They are taken out of every histogram, the inclusive ones too: otherwise a subtraction would show them.

    Parameters
    ----------
    grades : (n_events, jets) integer
        `ad_region` of the jets, −1 if unscored.
    regions : sequence of RegionSpec

    Returns
    -------
    (n_events,) bool
    """
    if not regions:
        return np.zeros(len(grades), bool)
    return np.asarray(np.any(grades >= len(regions), axis=1))


class RegionFiller:
    """Sorts events into the anomaly regions of models, fills the histograms of a search, and keeps it blind.

    Data in the tightest region of any model are *hidden*, unless they are unblinded: they are in no histogram and no count,
    and nothing tells them from events that fail the selection. Therefore the cutflow of blinded data has its first and
    its last line only: with the events that fail each cut, the hidden ones would be what is left. For the same reason
    taggers are not monitored on them, and a selection without any cut is refused.

    Parameters
    ----------
    taggers : {prefix: Tagger}
        All of whole events, or all of jets, of which two of each event are tagged. The prefix stands before the regions.
    steps : sequence of str
        The cuts, as in the cutflow.
    unblind : bool
        Nothing is hidden.
    cuts : bool
        Whether any step can fail, other than for undefined numbers, which are counted.

    Attributes
    ----------
    names : list of str
        All regions.
    """

    def __init__(
        self, taggers: Mapping[str, Tagger], steps: Sequence[str], *, unblind: bool = False, cuts: bool = True
    ) -> None:
        self.taggers, self.steps, self.unblind, self.cuts = dict(taggers), tuple(steps), unblind, cuts
        self.names = [] if self.taggers else ["inclusive"]
        for prefix, tagger in self.taggers.items():
            specs = tagger.card.regions
            events = ["inclusive", *(r.name for r in specs)]
            self.names += [prefix + n for n in (regions.region_names(specs) if _of_jets(tagger) else events)]

    def hides(self, *, mc: bool) -> bool:
        """Say whether events may be hidden: data, where a model has regions."""
        return not mc and not self.unblind and any(t.card.regions for t in self.taggers.values())

    def begin(self, axes: Sequence[Any], variations: Sequence[str], *, mc: bool) -> dict[str, Any]:
        """Return what a chunk fills, empty: histograms of the observables and of the models, cutflow, and the flag.

        Raises
        ------
        ConfigError
            Data are blinded, and there is no cut.
        """
        if self.hides(mc=mc) and not self.cuts:
            raise ConfigError(
                "blinded data need a selection that cuts: without one, the number of hidden events is that of all less those "
                "that are shown; ask for a cut, or unblind"
            )
        booked = list(axes)
        for prefix, tagger in self.taggers.items():
            booked.append(logp_axis(tagger.card, f"{tagger.name}_logp"))
            points = [prefix + r.name for r in tagger.card.regions] if _of_jets(tagger) else []
            booked += [hist.axis.Integer(0, 3, name=f"n_{point}", label=f"{point} jets") for point in points]
        return {
            "histograms": {axis.name: book(axis, self.names, variations) for axis in booked},
            "cutflow": {},
            "unscored": 0,
            "blinded": {self.hides(mc=mc)},
        }

    def tag(self, objects: Any, *, mc: bool) -> Any:
        """Score the selected events, or their two leading jets; what may be hidden is not monitored."""
        if not self.taggers:
            return objects
        with unwatched() if self.hides(mc=mc) else nullcontext():
            return tag(objects, list(self.taggers.values()))

    def fill(
        self,
        out: dict[str, Any],
        tagged: Any,
        values: Mapping[str, npt.NDArray[Any]],
        weight: Mapping[str, npt.NDArray[Any]],
        selection: PackedSelection,
        passed: npt.NDArray[np.bool_],
        *,
        mc: bool,
    ) -> dict[str, int]:
        """Fill the selected events of a chunk.

        Parameters
        ----------
        out : dict
            From `begin`.
        tagged : ak.Array
            From `tag`, of the events that passed.
        values : {observable: (n_passed,) or (n_passed, objects)}
        weight : {variation: (n_events,)}
        selection : PackedSelection
            With the steps, of all events.
        passed : (n_events,) bool

        Returns
        -------
        {observable: int}
            How many values of shown events are undefined, nominal, where any are.
        """
        n = int(passed.sum())
        shown, unscored = np.ones(n, bool), np.zeros(n, bool)
        masks = {} if self.taggers else {"inclusive": shown}
        filled = dict(values)
        for prefix, tagger in self.taggers.items():
            specs, grade = tagger.card.regions, tagged[f"{tagger.name}_region"]
            sort = regions.event_regions if _of_jets(tagger) else regions.nested_regions
            inside, lost = sort(grade, specs)
            masks |= {prefix + region: mask for region, mask in inside.items()}
            unscored |= lost
            shape = (-1, 2) if _of_jets(tagger) else (-1, 1)
            grades = ak.to_numpy(ak.fill_none(grade, -1)).reshape(shape)
            if self.hides(mc=mc):
                shown = shown & ~blinded(grades, specs)
            logp = ak.to_numpy(ak.fill_none(tagged[f"{tagger.name}_logp"], np.nan))
            filled[f"{tagger.name}_logp"] = logp.reshape(shape) if _of_jets(tagger) else logp
            if _of_jets(tagger):
                filled |= {f"n_{prefix}{r.name}": (grades > i).sum(axis=1) for i, r in enumerate(specs)}
        if "nominal" in weight:
            out["cutflow"] = self._cutflow(selection, passed, shown, weight["nominal"], mc=mc)
            out["unscored"] += int((unscored & shown).sum())
        undefined: dict[str, int] = {}
        masks = {name: mask[shown] for name, mask in masks.items()}
        for name, column in filled.items():
            for variation, w in weight.items():
                lost = fill(out["histograms"][name], masks, variation, column[shown], w[passed][shown])
                if lost and variation == "nominal":
                    undefined[name] = lost
        return undefined

    def rank(
        self,
        k: int,
        events: Any,
        tagged: Any,
        values: Mapping[str, npt.NDArray[Any]],
        weight: npt.NDArray[Any],
        *,
        mc: bool,
    ) -> dict[str, TopEvents]:
        """Return the k most anomalous of the selected events by each model; none at all where events may be hidden.

        What a list of the shown ones lacks would be the hidden ones.

        Parameters
        ----------
        k : int
        events, tagged : ak.Array, (n_passed,)
            The events that passed, and what `tag` returned.
        values : {observable: (n_passed,) or (n_passed, objects)}
            What is listed beside the scores.
        weight : (n_passed,)

        Returns
        -------
        {tagger: TopEvents}
        """
        if k == 0 or self.hides(mc=mc):
            return {}
        return {t.name: most_anomalous(k, events, tagged, t, values, weight) for t in self.taggers.values()}

    def _cutflow(
        self, selection: PackedSelection, passed: Any, shown: Any, weight: npt.NDArray[Any], *, mc: bool
    ) -> dict[str, dict[str, float]]:
        steps = cutflow(selection, self.steps, weight)
        if not self.hides(mc=mc):
            return steps
        selected = weight[passed][shown]
        last = {"events": len(selected), "weight": float(selected.sum())}
        return {"all": steps["all"], self.steps[-1]: last}


def _of_jets(tagger: Tagger) -> bool:
    return tagger.card.level == "jet"
