"""Events to arrays. One table, `FEATURES`: name → Feature.

A feature is a pure function with one line in the table; it declares the branches it reads and the columns it gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import UnknownName
from coffea_ad.features.base import Column, Feature
from coffea_ad.features.jets import JET_KINEMATICS, JET_SUBSTRUCTURE
from coffea_ad.nanoaod import Objects, refuse_single

__all__ = ["FEATURES", "Column", "Feature", "blocks", "compute", "get"]

FEATURES: dict[str, Feature] = {feature.name: feature for feature in (JET_SUBSTRUCTURE, JET_KINEMATICS)}


def get(name: str) -> Feature:
    """Return the feature of that name.

    Raises
    ------
    UnknownName
        There is none; the message says the nearest.
    """
    if name not in FEATURES:
        raise UnknownName.of("feature", name, FEATURES)
    return FEATURES[name]


def _objects(feature: Feature, events: Any, collection: str) -> Objects:
    if feature.level == "event":
        n = len(events)
        return Objects(collection, events, events, np.arange(n), np.arange(n))
    return events if isinstance(events, Objects) else Objects.of(events, collection)


def blocks(
    name: str, events: Any, size: int = 4096, collection: str = "FatJet", **options: Any
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield a feature in blocks of at most `size` rows, so that large ones are never dense for a whole chunk.

    Parameters
    ----------
    name : str
        A key of `FEATURES`.
    events : ak.Array
        NanoEvents, or any mask, slice, `[:, 0]` or re-sort of the collection.
    size : int
        Rows per block.
    collection : str
        Which objects, for jet-level features.
    **options
        The feature's options.

    Yields
    ------
    (rows, columns) float32
        NaN where undefined.
    """
    feature = get(name)
    chosen = feature.resolve(options)
    objects = _objects(feature, events, collection)
    for start in range(0, len(objects), size):
        stop = min(start + size, len(objects))
        yield feature.compute(objects if stop - start == len(objects) else objects.block(start, stop), chosen)


def compute(
    name: str, events: Any, collection: str = "FatJet", **options: Any
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Compute a feature for a chunk.

    Parameters
    ----------
    name, events, collection, **options
        As for `blocks`.

    Returns
    -------
    values : (rows, columns) float32
        NaN where undefined, such as for jets without stored constituents.
    counts : (events,) int64
        Rows of each event.

    Raises
    ------
    UnknownName, MissingBranch, MissingIndex

    Examples
    --------
    >>> from coffea.nanoevents import NanoEventsFactory
    >>> import coffea_ad as ad
    >>> events = NanoEventsFactory.from_root(f"{svj_file}:Events", schemaclass=ad.NanoAODSchema).events()
    >>> values, counts = ad.features.compute("jet_substructure", events)
    >>> values.shape == (counts.sum(), 8)
    True
    """
    feature = get(name)
    chosen = feature.resolve(options)
    refuse_single(events)
    nothing = np.zeros((0, len(feature.columns(chosen))), np.float32)
    if len(events) == 0 and not isinstance(events, Objects) and collection not in ak.fields(events):
        return nothing, np.zeros(0, np.int64)  # a file without events may lack every branch
    objects = _objects(feature, events, collection)
    counts = np.ones(len(objects), np.int64) if feature.level == "event" else objects.counts
    return (feature.compute(objects, chosen) if len(objects) else nothing), counts
