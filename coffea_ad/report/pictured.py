"""The most anomalous events as pictures, and what their scores are made of, out of their files and those of the models."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from coffea_ad import files
from coffea_ad.errors import CoffeaADError
from coffea_ad.event_lists import TopEvents
from coffea_ad.event_lists.joined import joined
from coffea_ad.event_lists.opened import listed_places, open_event
from coffea_ad.explaining.explanations import Explanations
from coffea_ad.explaining.figures import draw
from coffea_ad.explaining.listed import explained, list_of
from coffea_ad.report.events import Contributions, Display
from coffea_ad.report.models import file_of
from coffea_ad.report.sources import Sources
from coffea_ad.scoring.tagger import Tagger
from coffea_ad.weights import kind_of

__all__ = ["Pictured", "pictured"]

_VIEWS = {"jet": ("event", "jet"), "event": ("event", "transverse")}
"""By what a model scores."""
_LEADING = 5
"""Parts of each score in the table; the figure has more."""


@dataclass(frozen=True)
class Pictured:
    """Displays and contributions of some events, figures of the latter, and what is not there."""

    displays: list[Display] = field(default_factory=list)
    contributions: list[Contributions] = field(default_factory=list)
    figures: list[Display] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def pictured(sources: Sources, n: int) -> Pictured:
    """Return pictures of the n best events of the list of each model, of data if there are any, and what each input adds to their scores.

    Only events in the lists of the results are opened, so that of blinded data there is none. What cannot be read any more is said.

    Parameters
    ----------
    sources : Sources
    n : int
    """
    out = Pictured()
    lists = sources.results.event_lists
    if n < 1 or not any(lists.values()):
        return out
    shown: set[tuple[str, int]] = set()
    models = sources.results.report.get("models", ())
    for model in models:
        path, problem = file_of(sources, str(model["file"]), str(model["digest"]))
        try:
            if path is None:
                out.notes.append(f"{problem}; what its scores are made of is not shown")
                continue
            tagger = Tagger(files.read(path), name=str(model["name"]))
            name, _ = list_of(sources.results.report, tagger.scorer)
            top = joined(lists, name, _data(sources, name)).shortened(n)
            _draw(sources, top, tagger.card.level, shown, out)
            if tagger.card.contributions is not None and len(top):
                _explain(explained(tagger, top, n, metadata=_metadata(sources)), out, several=len(models) > 1)
        except CoffeaADError as error:
            out.notes.append(f"model {model['name']}: no pictures of its events, or not all: {error}")
    return out


def _data(sources: Sources, name: str) -> list[str]:
    """Return the datasets of data that have events in a list; none stands for all datasets."""
    lists, metadata = sources.results.event_lists, _metadata(sources)
    return [d for d, of in lists.items() if d in metadata and len(of.get(name, ())) and kind_of(metadata[d]) == "data"]


def _metadata(sources: Sources) -> dict[str, dict[str, object]]:
    return {name: entry["metadata"] for name, entry in sources.results.report["datasets"].items()}


def _draw(sources: Sources, top: TopEvents, level: str, shown: set[tuple[str, int]], out: Pictured) -> None:
    from coffea_ad.plotting.displays import draw_event

    for i, place in enumerate(listed_places(top)):
        if (place.file, place.entry) in shown:
            continue
        shown.add((place.file, place.entry))
        dataset, number = str(top["dataset"][i]), top.ids(i)
        try:
            event = open_event(place, {**_metadata(sources).get(dataset, {}), "dataset": dataset})
            for view in _VIEWS[level]:
                png = io.BytesIO()
                draw_event(event, png, view, scores={score: float(top[score][i]) for score in top.by})
                out.displays.append(Display(f"{number}: {view}", dataset, png.getvalue()))
        except CoffeaADError as error:
            out.notes.append(f"event {number} of {dataset} is not drawn, or not whole: {error}")


def _explain(explanations: Explanations, out: Pictured, *, several: bool) -> None:
    """Add the table of parts and the figure of a model."""
    for row in explanations.rows:
        jet = "" if row.jet is None else f", jet {row.jet}"
        by = f" by {explanations.card.name}" if several else ""
        out.contributions.append(Contributions(f"{row.id}{jet}{by}", row.dataset, row.leading(_LEADING)))
    out.notes.extend(explanations.notes)
    if explanations.rows:
        png = io.BytesIO()
        draw(explanations, png)
        name = f"{explanations.card.name}: what each input adds to the {explanations.of}"
        out.figures.append(Display(name, explanations.rows[0].dataset, png.getvalue()))
