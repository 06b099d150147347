"""Events to arrays. One table, `FEATURES`: name → Feature.

A feature is a pure function with one line in the table; it declares the branches it reads and the columns it gives.
Scripts and recipes add theirs with `register`, other packages through the entry-point group `coffea_ad.features`, each under
the feature's own name.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import awkward as ak
import cloudpickle
import numpy as np

from coffea_ad.errors import BadFeature, ConfigError, UnknownName, unknown_text
from coffea_ad.features.base import Column, Feature, Names, Options, Rows, at_once
from coffea_ad.features.constituents import JET_CONSTITUENTS, JET_LUND
from coffea_ad.features.events import DIJET, EVENT_OBJECTS
from coffea_ad.features.images import JET_IMAGES
from coffea_ad.features.jets import JET_KINEMATICS, JET_SUBSTRUCTURE
from coffea_ad.features.rmm import RMM
from coffea_ad.features.zones import RMM_ZONES
from coffea_ad.nanoaod.objects import Objects, refuse_other
from coffea_ad.typing import Float32s, Ints

__all__ = [
    "FEATURES",
    "GROUP",
    "Column",
    "Feature",
    "Names",
    "Options",
    "Registered",
    "Rows",
    "at_once",
    "blocks",
    "compute",
    "get",
    "plugins",
    "register",
    "registered",
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
            raise UnknownName(_unknown(name, (*FEATURES, *others)))
        FEATURES[name] = _load(others[name])
    return FEATURES[name]


def _unknown(name: str, known: tuple[str, ...]) -> str:
    word, bracket, options = str(name).partition("[")
    if bracket and word in known:
        keys = ", ".join(options.rstrip("]").replace("=", ": ").split(","))
        return (
            f"{name!r} is how a skim names the columns of {word} with options; give them apart: feature={word} "
            f"options='{{{keys}}}'"
        )
    return (
        unknown_text("feature", str(name), known)
        + "; a feature of your own has to be registered first, such as with --plugin FILE.py"
    )


_origins: dict[str, tuple[str, str]] = {}
"""Module and file of each feature that `register` has put into the table."""


def register(feature: Feature) -> Feature:
    """Put a feature of a script, a recipe or a plugin file into the table.

    It then is a feature like all others, also on workers, which get its code with their work. The file that registers it may
    be loaded again; its later version then counts.

    Parameters
    ----------
    feature : Feature
        Its name must be new: neither one of coffea-ad, nor of another package, nor of another file.

    Returns
    -------
    Feature
        The same.

    Raises
    ------
    BadFeature
        It is no feature, says nothing sensible of itself, or its name is taken.

    Examples
    --------
    >>> import numpy as np
    >>> from coffea_ad.features import Column, Feature, at_once, register
    >>> number = Feature(
    ...     name="n_jets",
    ...     version=1,
    ...     level="event",
    ...     columns=lambda options: (Column("n"),),
    ...     reads=lambda collection, options: (("nJet",),),
    ...     rows=at_once(lambda objects, options: np.asarray(ak.num(objects.array.Jet), np.float32)[:, None]),
    ...     convention="number of jets",
    ...     reference="",
    ... )
    >>> register(number).name
    'n_jets'
    """
    if not isinstance(feature, Feature):
        raise BadFeature(f"{type(feature).__name__} cannot be registered: it is no coffea_ad.features.Feature")
    feature.check()
    frame = inspect.currentframe()
    caller = frame.f_back.f_globals if frame is not None and frame.f_back is not None else {}
    origin = (str(caller.get("__name__", "")), str(caller.get("__file__", "")))
    before = _origins.get(feature.name)
    if (feature.name in FEATURES and before is None) or feature.name in plugins():
        raise BadFeature(f"feature {feature.name!r} exists already; give yours another name")
    if before is not None and before[0] != origin[0] and (before[1] != origin[1] or not origin[1]):
        raise BadFeature(f"feature {feature.name!r} was registered by {before[1] or before[0]} already")
    module = sys.modules.get(origin[0])
    if module is not None and "site-packages" not in origin[1]:
        cloudpickle.register_pickle_by_value(module)  # workers need not have the file
    FEATURES[feature.name], _origins[feature.name] = feature, origin
    return feature


def registered() -> dict[str, tuple[Feature, str]]:
    """Return the features that were registered in this process, each with its file."""
    return {name: (FEATURES[name], file) for name, (_, file) in _origins.items()}


class Registered:
    """Features that were registered, as they travel: where this is unpickled, they are registered as well."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _install, ({name: FEATURES[name] for name in _origins}, dict(_origins))


def _install(those: Mapping[str, Feature], origins: Mapping[str, tuple[str, str]]) -> Registered:
    FEATURES.update(those)
    _origins.update(origins)
    return Registered()


def _load(point: EntryPoint) -> Feature:
    origin = f"feature {point.name!r} of {point.dist.name if point.dist else 'another package'} ({point.value})"
    try:
        feature = point.load()
    except Exception as error:
        raise BadFeature(f"{origin} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(feature, Feature) or feature.name != point.name:
        raise BadFeature(f"{origin} is not a coffea_ad.features.Feature of that name")
    feature.check()
    return feature


def _objects(feature: Feature, events: Any, collection: str) -> Objects:
    if feature.level == "event" and collection != "FatJet":
        raise ConfigError(f"{feature.name}: a feature of whole events is of no collection, not of {collection!r}")
    if isinstance(events, Objects):
        return events
    return Objects.events(events) if feature.level == "event" else Objects.of(events, collection)


def blocks(name: str, events: Any, size: int = 4096, collection: str = "FatJet", **options: Any) -> Iterator[Float32s]:
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
    resolved = feature.resolve(options)
    refuse_other(events)
    if size < 1:
        raise ConfigError(f"{name}: blocks of {size} rows cannot be made")
    if len(events) == 0:
        return
    objects = _objects(feature, events, collection)
    if len(objects) == 0:
        return
    rows = feature.prepare(objects, resolved)
    for start in range(0, len(objects), size):
        yield rows(start, min(start + size, len(objects)))


def _has(events: Any, collection: str) -> bool:
    return isinstance(events, Objects) or collection in ak.fields(events)


def compute(name: str, events: Any, collection: str = "FatJet", **options: Any) -> tuple[Float32s, Ints]:
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
    resolved = feature.resolve(options)
    refuse_other(events)
    nothing = np.zeros((0, *feature.row_shape(resolved)), np.float32)
    if len(events) == 0 and (feature.level == "event" or not _has(events, collection)):
        return nothing, np.zeros(0, np.int64)  # a file without events may lack every branch
    objects = _objects(feature, events, collection)
    counts = np.ones(len(objects), np.int64) if feature.level == "event" else objects.counts
    return (feature.prepare(objects, resolved)(0, len(objects)) if len(objects) else nothing), counts
