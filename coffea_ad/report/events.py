"""The most anomalous events: lists, displays, and what each input has to do with their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from coffea_ad.errors import ConfigError
from coffea_ad.event_lists import TopEvents
from coffea_ad.event_lists.joined import joined, twice, unlisted
from coffea_ad.explaining.explanations import Part
from coffea_ad.report.blocks import Block, Figure, Figures, Section, Sentences, Table
from coffea_ad.report.sources import Sources
from coffea_ad.tables import Listing
from coffea_ad.weights import is_simulation

__all__ = ["Contributions", "Display", "events_section"]


@dataclass(frozen=True)
class Display:
    """A picture of an event of a dataset.

    Attributes
    ----------
    title, dataset : str
    png : bytes
    """

    title: str
    dataset: str
    png: bytes


@dataclass(frozen=True)
class Contributions:
    """What each input has to do with the score of an event of a dataset.

    Attributes
    ----------
    event, dataset : str
    parts : sequence of Part
        As `Explanation.leading` has them.
    """

    event: str
    dataset: str
    parts: Sequence[Part]


def events_section(
    sources: Sources, most: int, displays: Sequence[Display] = (), contributions: Sequence[Contributions] = (),
    figures: Sequence[Display] = (),
) -> Section | None:  # fmt: skip
    """Return the lists of events of all datasets together, and pictures of events; None if there are none.

    Raises
    ------
    ConfigError
        A picture is of a dataset without a list of events, such as a blinded one.
    """
    results = sources.results
    lacking = unlisted(results.event_lists, results.report["datasets"])
    for dataset in (*(d.dataset for d in displays), *(c.dataset for c in contributions)):
        if dataset in lacking or dataset not in results.report["datasets"]:
            raise ConfigError(
                f"an event of {dataset} is to be shown, which has no list of events; blinded data have none"
            )
    if not results.event_lists or not (most or displays or contributions):
        return None
    said = [f"there is no list of {', '.join(lacking)}; blinded data have none"] if lacking else []
    names = dict.fromkeys(n for of in results.event_lists.values() for n in of) if most else {}
    parts = [_list(sources, name, most) for name in names]
    if displays:
        pictures = tuple(Figure(f"{d.title} ({d.dataset})", d.png) for d in displays)
        parts.append(Section("Displays", [Figures(pictures)]))
    if contributions:
        pictures = tuple(Figure(f.title, f.png) for f in figures)
        blocks: list[Block] = [Table(_shares(contributions)), *([Figures(pictures)] if pictures else [])]
        parts.append(Section("What each input contributes", blocks))
    return Section(
        "Most anomalous events", [Sentences(tuple(said))] if said else [], [part for part in parts if part.blocks]
    )


def _list(sources: Sources, name: str, most: int) -> Section:
    try:
        everything = joined(sources.results.event_lists, name)
    except ConfigError as error:
        return Section(name, [Sentences((str(error),))])
    top = everything.shortened(most)
    if not len(top):
        return Section(name)
    simulated = [d for d, entry in sources.results.report["datasets"].items() if is_simulation(entry["metadata"])]
    again = twice(top, simulated)
    blocks: list[Block] = [Table(_table(top, f"{len(top)} of {everything.ranked} events by {', '.join(top.by)}"))]
    return Section(name, [*blocks, *([Sentences(tuple(again))] if again else [])])


def _table(top: TopEvents, title: str) -> Listing:
    of_objects = [n for n in top.observables if n.endswith(("_1", "_2"))]
    numbers = [*top.by, *(n for n in top.observables if n not in of_objects), *of_objects]
    rows = tuple(
        (top.ids(i), str(top["dataset"][i]), str(top["entry"][i]), f"{top['weight'][i]:.4g}",
         *(f"{top[n][i]:.4g}" for n in numbers), str(top["file"][i]))
        for i in range(len(top))
    )  # fmt: skip
    return Listing(title, ("run:lumi:event", "dataset", "entry", "weight", *numbers, "file"), rows)


def _shares(contributions: Sequence[Contributions]) -> Listing:
    def number(value: float) -> str:
        return "–" if math.isnan(value) else f"{value:.4g}"

    rows = [
        (shown.event, shown.dataset, p.name, number(p.value), number(p.typical), number(p.contribution), f"{100 * p.share:.1f} %")
        for shown in contributions
        for p in shown.parts
    ]  # fmt: skip
    columns = ("event", "dataset", "input", "value", "median of the background", "contribution", "share")
    return Listing("", columns, tuple(rows))
