"""The lists of several datasets as one, and the events that stand in it twice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.event_lists.top import TopEvents
from coffea_ad.nanoaod.columns import EVENT_ID

__all__ = ["joined", "twice", "unlisted"]


def joined(
    lists: Mapping[str, Mapping[str, TopEvents]], name: str | None = None, datasets: Sequence[str] = ()
) -> TopEvents:
    """Return the most anomalous events of several datasets, best first.

    Parameters
    ----------
    lists : {dataset: {name: TopEvents}}
        Of results: `Results.event_lists`.
    name : str, optional
        Of the list; by default the first one of the first dataset.
    datasets : sequence of str, optional
        All by default.

    Raises
    ------
    UnknownName
        There is no such dataset with lists, or none of them has that list.
    ConfigError
        There are no lists at all, or they are ordered by other scores.

    Examples
    --------
    >>> joined({"qcd": {"ad": TopEvents(3, "ad_logp")}, "svj": {"ad": TopEvents(2, "ad_logp")}})
    <TopEvents: 0 of 0 events by ad_logp, at most 2>
    """
    if not lists:
        raise ConfigError("these results have no lists of events: blinded data have none, and top_events=0 keeps none")
    for dataset in datasets:
        if dataset not in lists:
            raise UnknownName.of("dataset with a list of events", dataset, lists)
    wanted = {d: of for d, of in lists.items() if not datasets or d in datasets}
    names = list(dict.fromkeys(n for of in wanted.values() for n in of))
    if not names:
        raise ConfigError(f"there is no list of events of {', '.join(wanted)}")
    asked = names[0] if name is None else name
    parts = [of[asked] for of in wanted.values() if asked in of]
    if not parts:
        raise UnknownName.of("list of events", asked, names)
    total = parts[0]
    for part in parts[1:]:
        if problem := total.unlike(part):
            raise ConfigError(f"the lists {asked} of these datasets cannot be joined: {problem}")
        total = total + part
    return total


def unlisted(lists: Mapping[str, Mapping[str, TopEvents]], datasets: Iterable[str]) -> list[str]:
    """Return the datasets that no list of events is of: none, if a list is of all of them together.

    >>> unlisted({"qcd": {}}, ["qcd", "met"]), unlisted({"all": {}}, ["qcd", "met"])
    (['met'], [])
    """
    datasets = list(datasets)
    return [name for name in datasets if name not in lists] if set(lists) <= set(datasets) else []


def twice(top: TopEvents, simulated: Collection[str]) -> list[str]:
    """Return a sentence for each event that a list has more than once.

    Of data, an event is known by run, luminosity section and event number. Simulated samples number their events alike: there
    weight and observables have to be the same as well; scores may differ by rounding, which depends on the batch.

    Parameters
    ----------
    top : TopEvents
    simulated : collection of str
        Datasets that are simulation.

    Examples
    --------
    >>> twice(TopEvents(3, "ad_logp"), ["qcd"])
    []
    """
    places: dict[tuple[object, ...], list[int]] = {}
    names = ["weight", *(n for n in top.observables if not n.startswith(top.by))]
    numbers = [top[n] for n in names] if len(top) else []
    for i in range(len(top)):
        key: tuple[object, ...] = tuple(int(top[n][i]) for n in EVENT_ID)
        if top["dataset"][i] in simulated:
            key += tuple(np.float64(column[i]).tobytes() for column in numbers)
        places.setdefault(key, []).append(i)
    return [
        f"{top.ids(rows[0])} is there {len(rows)} times: "
        + ", ".join(f"{top['dataset'][i]} ({top['file'][i]}, entry {top['entry'][i]})" for i in rows)
        for rows in places.values()
        if len(rows) > 1
    ]
