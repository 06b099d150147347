"""The events of a list, out of the files where they are, as rows of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.event_lists import TopEvents
from coffea_ad.event_lists.opened import events_between, listed_places
from coffea_ad.event_lists.originals import entry_ranges
from coffea_ad.explaining.explanations import Attribution, Explanations, Rows, explain, only_input
from coffea_ad.nanoaod.columns import where
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.scoring.members import member_of
from coffea_ad.scoring.modelfile import network_digest
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.tagger import Tagger
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = ["explained", "list_of", "listed_rows"]

_SAME = 1e-3  # by how much of 1 + |score| a score may differ from that of the list, which was scored in another batch


def explained(
    model: str | Path | bytes | Tagger,
    top: TopEvents,
    n: int = 10,
    *,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    attribution: Attribution | None = None,
    same_model: bool = True,
) -> Explanations:
    """Take the scores of the most anomalous events of a list apart.

    Parameters
    ----------
    model : path, bytes or Tagger
    top : TopEvents
        Of results: `Results.event_lists`, or several as one by `event_lists.joined.joined`.
    n : int
        So many events, the best ones.
    metadata, same_model
        As of `listed_rows`.
    attribution : Attribution, optional
        By default the contributions of the model file.

    Returns
    -------
    Explanations

    Raises
    ------
    BadFile, ConfigError, CardMismatch, MissingBranch
        As of `listed_rows` and `explain`.

    Examples
    --------
    >>> from coffea_ad.event_lists import TopEvents
    >>> explained(model_file, TopEvents(5, "ad_logp"))
    Traceback (most recent call last):
    coffea_ad.errors.ConfigError: there is no event to explain: the list is empty
    """
    tagger = model if isinstance(model, Tagger) else Tagger(model)
    rows = listed_rows(tagger, top, n=n, metadata=metadata, same_model=same_model)
    return explain(tagger.scorer, rows, attribution)


def listed_rows(
    tagger: Tagger,
    top: TopEvents,
    *,
    n: int = 10,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    same_model: bool = True,
) -> Rows:
    """Return the inputs of a model for the best events of a list; of a model of jets for the more anomalous jet of each.

    The events are read from their files, where features are computed as for a tagger. Which jet it is tells the score in the list:
    a run may have corrected the jets, and so have picked others than those that lead in the file.

    Parameters
    ----------
    tagger : Tagger
    top : TopEvents
    n : int
    metadata : {dataset: mapping}, optional
        Of the datasets, as the run had it: campaign and year decide on b tags and energies.
    same_model : bool
        Whether the list was made with this model. If not, jets are not matched by their scores, and the one with the highest
        score is taken.

    Returns
    -------
    Rows
        `notes` say whose scores are not those of the list.

    Raises
    ------
    BadFile
        A file cannot be read any more, or is not the one that was read.
    ConfigError
        The list is empty, or a spectator of the card is neither in the list nor in the file.
    MissingBranch
        A file lacks branches that the features need.
    """
    only_input(tagger.card)
    if n < 1:
        raise ConfigError(f"-n is {n}, but must be at least 1")
    top = top.shortened(n)
    if not len(top):
        raise ConfigError("there is no event to explain: the list is empty")
    score = next((name for name in top.by if name.endswith("_score")), None) if same_model else None
    wanted = np.full(len(top), np.nan) if score is None else np.asarray(top[score], np.float64)
    places = [*zip(top["dataset"], top["file"], top["tree"], strict=True)]
    picks: dict[int, _Pick] = {}
    for dataset, path, tree in dict.fromkeys(places):
        rows = np.array([i for i, place in enumerate(places) if place == (dataset, path, tree)])
        picks |= _of_file(tagger, top, rows, {**(metadata or {}).get(dataset, {}), "dataset": dataset}, wanted)
    order = sorted(picks)
    notes = [f"{_name(top, i)}: it has no {tagger.collection} any more" for i in range(len(top)) if i not in picks]
    return Rows(
        np.stack([picks[i].x for i in order]) if order else np.zeros((0, *tagger.card.inputs[0].shape), np.float32),
        np.array([picks[i].member for i in order], np.int64) if _has_members(tagger) else None,
        tuple(top.ids(i) for i in order),
        tuple(top["dataset"][order].tolist()),
        tuple(picks[i].jet for i in order),
        (*notes, *_differing(top, wanted, picks, ordered=score is not None, of_jets=tagger.card.level == "jet")),
    )


def list_of(report: Mapping[str, Any], scorer: OnnxScorer) -> tuple[str, bool]:
    """Return the list of results that a model has ordered, and whether it is one of theirs; if not, the list of their first model.

    Thresholds and calibration may be others since: the network tells.
    """
    network = network_digest(scorer.data, scorer.name)
    which = [i for i, entry in enumerate(report.get("models") or ()) if entry.get("network") == network]
    return f"ad{which[0] + 1}" if which and which[0] else "ad", bool(which)


@dataclass(frozen=True)
class _Pick:
    """What was picked of an event: its row, member, jet and score."""

    x: Float32s
    member: int
    jet: int | None
    score: float


def _has_members(tagger: Tagger) -> bool:
    return tagger.card.members > 1 or bool(tagger.card.validity)


def _name(top: TopEvents, i: int) -> str:
    return f"{top.ids(i)} {top['dataset'][i]}"


def _of_file(
    tagger: Tagger, top: TopEvents, rows: Ints, metadata: Mapping[str, Any], wanted: Float64s
) -> dict[int, _Pick]:
    """Return what some events of one file are for a model, {row of the list: pick}."""
    place = listed_places(top)[rows[0]]
    needs = {branch for ways in tagger.card.reads.values() for way in ways for branch in way}
    needs |= {f"{tagger.collection}_pt"} if tagger.card.level == "jet" else set()
    picks: dict[int, _Pick] = {}
    for start, stop in entry_ranges(top["entry"][rows]):
        here = rows[(top["entry"][rows] >= start) & (top["entry"][rows] < stop)]
        events = events_between(place, start, stop, metadata, branches=needs)
        picks |= _of_chunk(tagger, top, here, events, top["entry"][here] - start, wanted)
    return picks


def _of_chunk(
    tagger: Tagger, top: TopEvents, here: Ints, events: Any, places: Ints, wanted: Float64s
) -> dict[int, _Pick]:
    """Score the events of a chunk that are in the list, or their jets, and pick one row for each."""
    card, picked = tagger.card, events[places]
    if card.level == "event":
        objects, of = Objects.events(picked), here
        jets = np.zeros(0, np.int64)
    else:
        objects = Objects.of(picked, card.collection)
        of = np.zeros(len(events), np.int64)
        of[places] = here
        of = of[objects.event]
        first = np.r_[0, np.cumsum(ak.to_numpy(ak.num(events[card.collection], axis=1)))]
        jets = objects.index - first[objects.event]
    x: Float32s = tagger.rows(objects)[card.inputs[0].name]
    members = member_of(card, lambda name: _column(tagger, top, objects, of, name)) if _has_members(tagger) else None
    score = np.asarray(tagger.scorer(x, members), np.float64)
    picks = {}
    for i in here:
        ours = np.flatnonzero(of == i)
        if len(ours):
            away = -score[ours] if np.isnan(wanted[i]) else np.abs(score[ours] - wanted[i])
            k = ours[np.argmin(np.where(np.isnan(away), np.inf, away))]
            picks[int(i)] = _Pick(
                x[k], 0 if members is None else int(members[k]), int(jets[k]) if len(jets) else None, score[k]
            )
    return picks


def _column(tagger: Tagger, top: TopEvents, objects: Objects, of: Ints, name: str) -> npt.NDArray[Any]:
    """Return what tells the member that scores each object: a field of the jets, a column of the list, or a field of the events."""
    its_field = tagger.card.level == "jet" and name in ak.fields(objects.array)
    if name in top.columns and not its_field:
        return np.asarray(top[name][of])
    values = objects.spectator(name)
    if values is None:
        raise ConfigError(
            f"{where(objects.source)}{tagger.card.name} needs the spectator {name!r}, which neither the list nor the file has"
        )
    return values


def _differing(
    top: TopEvents, wanted: Float64s, picks: Mapping[int, _Pick], *, ordered: bool, of_jets: bool
) -> list[str]:
    """Say which scores are not those of the list."""
    if not ordered:
        which = ", and of each event the jet with the highest score is explained" if of_jets else ""
        return [f"the list has no scores of this model to compare with{which}"]
    gaps = {i: abs(pick.score - wanted[i]) for i, pick in picks.items() if np.isfinite(wanted[i])}
    others = [gap for i, gap in gaps.items() if not gap <= _SAME * (1 + abs(wanted[i]))]
    if not others:
        return []
    nearest = ", and their jets with the nearest scores are explained" if of_jets else ""
    sentence = (
        f"{len(others)} of {len(top)} events have other scores here than in the list, by up to {max(others):.2g}: the run corrected or "
        f"replaced what goes into the model{nearest}"
    )
    return [sentence]
