"""The list of a tagger: events in the order of what a model says of them, or of their two leading jets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.event_lists.top import TopEvents
from coffea_ad.scoring.tagger import Tagger
from coffea_ad.typing import Bools

__all__ = ["most_anomalous"]


def most_anomalous(
    k: int,
    events: Any,
    tagged: Any,
    tagger: Tagger,
    values: Mapping[str, npt.NDArray[Any]],
    weight: npt.NDArray[Any],
    parts: Mapping[str, Bools | None],
) -> dict[str, TopEvents]:
    """Return the k most anomalous events by one tagger, of each of several parts of the events.

    Events are ordered by `ad_logp`, whose largest value many may share, and then by the score; with a model of jets by the
    larger value of both leading ones, where both are defined, as in the regions.

    Parameters
    ----------
    k : int
    events : NanoEvents, (n,)
    tagged : ak.Array
        With the scores of the tagger: (n,), or (n, 2) for jets.
    tagger : Tagger
    values : {observable: (n,) or (n, m)}
        What else is listed.
    weight : (n,)
    parts : {name: (n,) bool, or None}
        Which events are ranked in each list; None: all.

    Returns
    -------
    {name: TopEvents}
        Of jets also each one's numbers, as `ad_logp_1` and `ad_logp_2`.
    """
    names = [f"{tagger.name}_{kind}" for kind in ("logp", "score")]
    columns = {name: np.asarray(ak.to_numpy(ak.fill_none(tagged[name], np.nan)), np.float64) for name in names}
    if not tagger.card.calibrations:  # then there are scores alone
        del columns[names[0]]
    each: dict[str, npt.NDArray[Any]] = {}
    if tagger.card.level == "jet":
        each = {name: column.reshape(-1, 2) for name, column in columns.items()}
        columns = {name: np.maximum(column[:, 0], column[:, 1]) for name, column in each.items()}
    return TopEvents.of_parts(events, k, columns, parts, weight=weight, observables={**values, **each})
