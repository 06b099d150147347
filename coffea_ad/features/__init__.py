"""Events to arrays. One table, `FEATURES`: name → Feature.

A feature is a pure function with one line in the table; it declares the branches it reads and the columns it gives.
Other packages add theirs through the entry-point group `coffea_ad.features`, each under the feature's own name.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadFeature, ConfigError, UnknownName
from coffea_ad.features.base import Column, Feature, Names, Options, Rows, at_once
from coffea_ad.features.constituents import JET_CONSTITUENTS, JET_LUND
from coffea_ad.features.events import DIJET, EVENT_OBJECTS
from coffea_ad.features.images import JET_IMAGES
from coffea_ad.features.jets import JET_KINEMATICS, JET_SUBSTRUCTURE
from coffea_ad.features.rmm import RMM
from coffea_ad.features.zones import RMM_ZONES
from coffea_ad.nanoaod import Objects, refuse_other

__all__ = [
    "FEATURES",
    "GROUP",
    "Column",
    "Feature",
    "Names",
    "Options",
    "Rows",
    "at_once",
    "blocks",
    "compute",
    "get",
    "plugins",
]

FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        JET_SUBSTRUCTURE, JET_KINEMATICS, JET_CONSTITUENTS, JET_LUND, JET_IMAGES, RMM, RMM_ZONES, EVENT_OBJECTS, DIJET,
    )
}  # fmt: skip

GROUP = "coffea_ad.features"


def plugins() -> dict[str, EntryPoint]:
    """Return the features that other installed packages announce, not yet loaded; ours cannot be replaced."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in FEATURES}


def get(name: str) -> Feature:
    """Return the feature of that name; one of another package is loaded when it is first asked for.

    Raises
    ------
    UnknownName
        There is none; the message says the nearest.
    BadFeature
        Another package announces it, but does not deliver.
    """
    if not isinstance(name, str):
        raise UnknownName(f"a feature is asked for by its name, not by a {type(name).__name__}")
    if name not in FEATURES:
        others = plugins()
        if name not in others:
            raise UnknownName.of("feature", name, (*FEATURES, *others))
        FEATURES[name] = _load(others[name])
    return FEATURES[name]


def _load(point: EntryPoint) -> Feature:
    origin = f"feature {point.name!r} of {point.dist.name if point.dist else 'another package'} ({point.value})"
    try:
        feature = point.load()
    except Exception as error:
        raise BadFeature(f"{origin} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(feature, Feature) or feature.name != point.name:
        raise BadFeature(f"{origin} is not a coffea_ad.features.Feature of that name")
    return feature


def _objects(feature: Feature, events: Any, collection: str) -> Objects:
    if feature.level == "event" and collection != "FatJet":
        raise ConfigError(f"{feature.name}: a feature of whole events is of no collection, not of {collection!r}")
    if isinstance(events, Objects):
        return events
    return Objects.events(events) if feature.level == "event" else Objects.of(events, collection)


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
    (rows, *shape) float32
        NaN where undefined.
    """
    feature = get(name)
    chosen = feature.resolve(options)
    refuse_other(events)
    if size < 1:
        raise ConfigError(f"{name}: blocks of {size} rows cannot be made")
    if len(events) == 0:
        return
    objects = _objects(feature, events, collection)
    if len(objects) == 0:
        return
    rows = feature.prepare(objects, chosen)
    for start in range(0, len(objects), size):
        yield rows(start, min(start + size, len(objects)))


def _has(events: Any, collection: str) -> bool:
    return isinstance(events, Objects) or collection in ak.fields(events)


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
    values : (rows, *shape) float32
        NaN where undefined, such as for jets without stored constituents.
    counts : (events,) int64
        Rows of each event.

    Raises
    ------
    UnknownName, ConfigError, MissingBranch, MissingIndex

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
    refuse_other(events)
    nothing = np.zeros((0, *feature.row_shape(chosen)), np.float32)
    if len(events) == 0 and (feature.level == "event" or not _has(events, collection)):
        return nothing, np.zeros(0, np.int64)  # a file without events may lack every branch
    objects = _objects(feature, events, collection)
    counts = np.ones(len(objects), np.int64) if feature.level == "event" else objects.counts
    return (feature.prepare(objects, chosen)(0, len(objects)) if len(objects) else nothing), counts
