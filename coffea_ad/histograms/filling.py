"""Events into the anomaly regions of models, blind where data must not be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import awkward as ak
import hist
import numpy as np
import numpy.typing as npt
from coffea.analysis_tools import PackedSelection

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.event_lists import TopEvents
from coffea_ad.event_lists.ranking import most_anomalous
from coffea_ad.histograms.booking import book, fill, hidden, logp_axis
from coffea_ad.scoring import regions
from coffea_ad.scoring.expectation import shares
from coffea_ad.scoring.monitoring import unwatched
from coffea_ad.scoring.tagger import Tagger, tag
from coffea_ad.selection import cutflow
from coffea_ad.typing import Bools, Ints

__all__ = ["RegionFiller"]


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
    cells : {prefix: list of str}
        The cells of each model, of which every event is in one.
    regions : {region: frozenset of str}
        All named regions as sets of cells.
    """

    def __init__(
        self, taggers: Mapping[str, Tagger], steps: Sequence[str], *, unblind: bool = False, cuts: bool = True
    ) -> None:
        self.taggers, self.steps, self.unblind, self.cuts = dict(taggers), tuple(steps), unblind, cuts
        self.cells = {} if self.taggers else {"": [regions.EVERYTHING]}
        self.regions: regions.Definitions = {} if self.taggers else {"inclusive": frozenset({regions.EVERYTHING})}
        for prefix, tagger in self.taggers.items():
            specs, jets = tagger.card.regions, _of_jets(tagger)
            self.cells[prefix] = [prefix + cell for cell in regions.cell_names(len(specs), jets=jets)]
            for name, cells in regions.definitions(specs, jets=jets).items():
                self.regions[prefix + name] = frozenset(prefix + cell for cell in cells)

    def hides(self, *, mc: bool) -> bool:
        """Say whether events may be hidden: data, where a model has regions."""
        return not mc and not self.unblind and any(t.card.regions for t in self.taggers.values())

    def begin(
        self, axes: Sequence[Any], variations: Sequence[str], *, mc: bool, against_score: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return what a chunk fills, empty: histograms of the observables and of the models, cutflow, and the flag.

        Parameters
        ----------
        axes : sequence of axis
            Of the observables.
        variations : sequence of str
        mc : bool
        against_score : sequence of str
            Observables that are filled against the score of each model too, without variations. Of a model of jets this is
            the smaller `ad_logp` of the two: of events above a value both jets would be tagged there.

        Raises
        ------
        ConfigError
            Data are blinded, and there is no cut.
        UnknownName
            There is no such observable.
        """
        if self.hides(mc=mc) and not self.cuts:
            raise ConfigError(
                "blinded data need a selection that cuts: without one, the number of hidden events is that of all less those "
                "that are shown; ask for a cut, or unblind"
            )
        observables = [axis.name for axis in axes]
        booked: dict[str, tuple[tuple[Any, ...], Sequence[str]]] = {a.name: ((a,), variations) for a in axes}
        for tagger in self._calibrated():
            axis, score = logp_axis(tagger.card, f"{tagger.name}_logp"), logp_axis(tagger.card, _score(tagger))
            booked[axis.name] = ((axis,), variations)
            for name in against_score:
                if name not in observables:
                    raise UnknownName.of("observable", name, observables)
                booked[f"{name}-{score.name}"] = ((*booked[name][0], score), ["nominal"])
        cells = [cell for of in self.cells.values() for cell in of]
        top = (
            {prefix + cell for prefix, tagger in self.taggers.items() for cell in _top(tagger)}
            if self.hides(mc=mc)
            else set()
        )
        return {
            "histograms": {name: book(of, cells, names) for name, (of, names) in booked.items()},
            "regions": {name: set(of) for name, of in self.regions.items()},
            "cutflow": {},
            "unscored": 0,
            "blinded": {self.hides(mc=mc)},
            "hidden_cells": top,
        }

    def tag(self, objects: Any, *, mc: bool, spectators: Mapping[str, npt.NDArray[Any]] | None = None) -> Any:
        """Score the selected events, or their two leading jets; what may be hidden is not monitored.

        Parameters
        ----------
        objects : ak.Array
        mc : bool
        spectators : {name: (n_events,)}, optional
            What the processor knows of the events, such as `mjj`: models may have a domain, windows or thresholds in it.
            What no model asks for is left aside, and what jets have themselves, such as `pt`, is theirs.
        """
        if not self.taggers:
            return objects
        cards = [tagger.card for tagger in self.taggers.values()]
        asked = {name for card in cards for name in card.spectators}
        asked |= {r.expectation.spectator for card in cards for r in card.regions if r.expectation is not None}
        for name, values in (spectators or {}).items():
            if name in asked and name not in ak.fields(objects):
                objects = ak.with_field(objects, values, name)
        with unwatched() if self.hides(mc=mc) else nullcontext():
            return tag(objects, list(self.taggers.values()))

    def fill(
        self,
        out: dict[str, Any],
        tagged: Any,
        values: Mapping[str, npt.NDArray[Any]],
        weight: Mapping[str, npt.NDArray[Any]],
        selection: PackedSelection,
        passed: Bools,
        *,
        mc: bool,
        expected: Sequence[str] = (),
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
        mc : bool
        expected : sequence of str
            Observables in which an event is not in the cell of its own score, but in all cells of its model, each with the part
            of the template that is there at the event's spectator: the histogram of the template's expectation.

        Returns
        -------
        {observable: int}
            How many values of shown events are undefined, nominal, where any are.
        """
        n = int(passed.sum())
        shown, unscored = np.ones(n, bool), np.zeros(n, bool)
        places = {} if self.taggers else {"": np.full(n, regions.EVERYTHING)}
        filled = dict(values)
        outside: dict[str, Bools] = {}  # without a score, but nothing there is undefined
        for prefix, tagger in self.taggers.items():
            specs, jets = tagger.card.regions, _of_jets(tagger)
            shape = (-1, 2) if jets else (-1, 1)
            grades = self._grades(tagger, tagged).reshape(shape)
            places[prefix] = self._places(prefix, grades)
            unscored |= places[prefix] == prefix + regions.UNSCORED
            if self.hides(mc=mc):
                shown = shown & ~hidden(grades, len(specs))
            logp = ak.to_numpy(ak.fill_none(tagged[f"{tagger.name}_logp"], np.nan))
            filled[f"{tagger.name}_logp"] = logp = logp.reshape(shape) if jets else logp
            filled[_score(tagger)] = logp.min(axis=1) if jets else logp
            if (not_valid := tagger.outside(tagged)) is not None:
                mask = ak.to_numpy(ak.fill_none(not_valid, True)).reshape(shape)
                outside |= {_score(tagger): mask.any(axis=1), f"{tagger.name}_logp": mask if jets else mask[:, 0]}
        if "nominal" in weight:
            out["cutflow"] = self._cutflow(selection, passed, shown, weight["nominal"], mc=mc)
            out["unscored"] += int((unscored & shown).sum())
        undefined: dict[str, int] = {}
        for name, histogram in out["histograms"].items():
            columns = {axis.name: filled[axis.name][shown] for axis in histogram.axes[2:]}
            for variation in set(weight) & set(histogram.axes["variation"]):
                w = weight[variation]
                if name in expected:
                    self._expect(
                        histogram,
                        variation,
                        columns,
                        w[passed][shown],
                        {k: v[shown] for k, v in places.items()},
                        tagged[shown],
                    )
                    continue
                lost = [fill(histogram, at[shown], variation, columns, w[passed][shown]) for at in places.values()]
                without = sum(int(outside[column][shown].sum()) for column in columns if column in outside)
                # those of a plane are counted already
                if lost[0] > without and variation == "nominal" and len(columns) == 1:
                    undefined[name] = lost[0] - without
        return undefined

    def _expect(
        self, histogram: hist.Hist, variation: str, columns: Mapping[str, npt.NDArray[Any]], weight: npt.NDArray[Any],
        places: Mapping[str, npt.NDArray[Any]], tagged: Any,
    ) -> None:  # fmt: skip
        """Fill scored events into all cells of a model, each with the part of the template that is there."""
        for prefix, tagger in self.taggers.items():
            specs = tagger.card.regions
            spectator = next((r.expectation.spectator for r in specs if r.expectation is not None), None)
            if spectator is None or _of_jets(tagger):
                continue
            parts = shares(specs, ak.to_numpy(tagged[spectator]))
            if parts is None:
                continue
            scored = np.isin(places[prefix], self.cells[prefix][:-1])
            for level, cell in enumerate(self.cells[prefix][:-1]):
                at = {name: values[scored] for name, values in columns.items()}
                fill(histogram, np.full(int(scored.sum()), cell), variation, at, (weight * parts[:, level])[scored])

    def _calibrated(self) -> list[Tagger]:
        return [tagger for tagger in self.taggers.values() if tagger.card.calibrations]

    def _grades(self, tagger: Tagger, tagged: Any) -> npt.NDArray[Any]:
        """Return `ad_region`; of a model without a calibration, which has none, 0 for what has a score."""
        if tagger.card.calibrations:
            return np.asarray(ak.to_numpy(ak.fill_none(tagged[f"{tagger.name}_region"], -1)))
        score = ak.to_numpy(ak.fill_none(tagged[f"{tagger.name}_score"], np.nan))
        return np.where(np.isfinite(score), 0, -1)

    def _places(self, prefix: str, grades: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the cell of every event by the grades of its objects."""
        return np.array(self.cells[prefix])[self._index(prefix, grades)]

    def _index(self, prefix: str, grades: npt.NDArray[Any]) -> Ints:
        """Return the place of that cell among those of the model."""
        tagger = self.taggers[prefix]
        of_objects = grades.reshape(-1, 2 if _of_jets(tagger) else 1)
        return regions.cells_of(of_objects, len(tagger.card.regions))

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
        """Return the k most anomalous of the selected events by each model, and in each region; none where events may be hidden.

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
        {tagger or region: TopEvents}
        """
        lists: dict[str, TopEvents] = {}
        if k == 0 or self.hides(mc=mc):
            return lists
        for prefix, tagger in self.taggers.items():
            parts: dict[str, Bools | None] = {tagger.name: None}
            cells, index = self.cells[prefix], self._index(prefix, self._grades(tagger, tagged))
            for name, of in self.regions.items():
                if name.startswith(prefix) and of < set(cells) - {prefix + regions.UNSCORED}:
                    parts[name] = np.array([cell in of for cell in cells])[index]
            lists |= most_anomalous(k, events, tagged, tagger, values, weight, parts)
        return lists

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


def _score(tagger: Tagger) -> str:
    """Name the observable that says of an event at which threshold it would be in a region, with all jets tagged."""
    return f"{tagger.name}_logp_min" if _of_jets(tagger) else f"{tagger.name}_logp"


def _top(tagger: Tagger) -> list[str]:
    """Return the cells with an object in the tightest region."""
    n = len(tagger.card.regions)
    cells = regions.cell_names(n, jets=_of_jets(tagger))[:-1]
    return [cell for cell in cells if n and cell.split("-")[0] == str(n)]
