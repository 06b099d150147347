"""What differs between NanoAOD flavours: schema, event index on objects, jet constituents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
from coffea.nanoevents import NanoAODSchema as CoffeaNanoAODSchema
from coffea.nanoevents import transforms
from coffea.nanoevents.util import concat

from coffea_ad import entries, provenance
from coffea_ad.candidates import PUPPI_WEIGHTED, said_weighted, usual_name, weights_missing
from coffea_ad.errors import BadFile, ConfigError, MissingBranch, MissingIndex
from coffea_ad.records import record_offsets, unfold_forms
from coffea_ad.typing import Float64s, Ints

__all__ = [
    "CONSTITUENT_TABLES",
    "EVENT_ID",
    "ConstituentTables",
    "Constituents",
    "NanoAODSchema",
    "Objects",
    "as_mask",
    "constituent_branches",
    "event_columns",
    "flat_columns",
    "require",
    "where",
]


EVENT_ID = ("run", "luminosityBlock", "event")
"""The branches that name an event."""


class NanoAODSchema(CoffeaNanoAODSchema):
    """coffea's NanoAOD schema, for v9 to v15 and PFNano, with the entries of events and two more fields on every jagged collection.

    `events.entry` is the number of each event in the tree of its file, also of a chunk that does not begin at 0 and of
    events that were masked, sliced or sorted.

    `eventIdxG` is the position of the object's event in the chunk and `objectIdxG` the object's own position in the
    whole collection of the chunk. They survive every mask, slice and sort, so that event ids and jet constituents are
    found for whatever is left of a collection. RNTuples of records, which uproot writes of awkward arrays, are read as if
    each field were a branch.

    Examples
    --------
    >>> from coffea.nanoevents import NanoEventsFactory
    >>> events = NanoEventsFactory.from_root(f"{svj_file}:Events", schemaclass=NanoAODSchema).events()
    >>> jets = events.FatJet[events.FatJet["pt"] > 300]
    >>> "eventIdxG" in jets.fields
    True
    >>> events[[7, 3]].entry.to_list()
    [7, 3]
    """

    warn_missing_crossrefs = False
    # v15 candidates carry no charge, which coffea's own candidate mixin insists on.
    mixins = {
        **CoffeaNanoAODSchema.mixins,
        "PFCand": "PtEtaPhiMCollection",
        "PFCands": "PtEtaPhiMCollection",
    }

    def __init__(self, base_form: dict[str, Any], version: str = "latest") -> None:
        super().__init__(base_form, version)
        self._form["parameters"][entries.CHUNK] = entries.chunk_mark()

    @classmethod
    def behavior(cls) -> dict[Any, Any]:
        """Return coffea's behavior of NanoAOD, in which events have entries."""
        return entries.with_entries(super().behavior())

    def _build_collections(self, field_names: list[str], input_contents: list[Any]) -> Any:
        forms, records = unfold_forms(dict(zip(field_names, input_contents, strict=True)))
        if forms.get("run", {}).get("class") == "NumpyArray":
            forms[entries.POSITION] = entries.position_form(forms["run"])
        forms |= {f"o{name}": record_offsets(key) for name, key in records.items()}
        # coffea fills in what four-vectors lack, such as Photon_mass; where a file has the branch, it stays.
        missing = {k: v for k, v in CoffeaNanoAODSchema.full_like_items.items() if k not in forms}
        self.full_like_items = missing
        keys = dict(records)
        for counter in list(forms):
            name = counter[1:]
            if counter[0] == "n" and name not in forms and any(f.startswith(name + "_") for f in forms):
                keys[name] = transforms.counts2offsets_form(forms[counter])["form_key"]
        for name, offsets in keys.items():
            filled = concat(offsets, "0.0,!full_like_from_offsets")
            for extra, steps in (("eventIdxG", "!eventindex,!content"), ("objectIdxG", "!content,!eventindex")):
                forms[f"{name}_{extra}"] = {
                    "class": "ListOffsetArray",
                    "offsets": "i64",
                    "parameters": {},
                    "form_key": filled,
                    "content": {
                        "class": "NumpyArray",
                        "primitive": "int64",
                        "itemsize": 8,
                        "format": "l",
                        "parameters": {},
                        "form_key": concat(filled, steps),
                    },
                }
        names, contents = super()._build_collections(list(forms), list(forms.values()))
        collections = {n: c for n, c in zip(names, contents, strict=True) if n[:1] != "o" or n[1:] not in records}
        return list(collections), list(collections.values())


def where(events: Any) -> str:
    """Return the file behind `events` for messages, or an empty string."""
    metadata = getattr(events, "metadata", None) or {}
    return f"{metadata['filename']}: " if "filename" in metadata else ""


def _flat(array: Any) -> npt.NDArray[Any]:
    return np.asarray(ak.to_numpy(ak.flatten(array, axis=None)))


def _offsets(counts: npt.NDArray[Any]) -> Ints:
    out = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=out[1:])
    return out


def flat_columns(events: Any, collection: str, names: Iterable[str]) -> tuple[Ints, dict[str, npt.NDArray[Any]]]:
    """Return offsets (n_events + 1,) and flat fields of a collection.

    Raises
    ------
    MissingBranch
        The collection, or a field, is not there.
    BadFile
        Objects or values are None.
    """
    names = require(events, collection, names)
    # field by field: coffea makes no objects of leptons whose charge, say, is not there
    counts = ak.num(events[collection, names[0]], axis=1)
    if ak.any(ak.is_none(counts)):
        raise BadFile(f"{where(events)}{collection} has missing values: drop these events first")
    offsets = _offsets(ak.to_numpy(counts))
    columns = {name: _flat(events[collection, name]) for name in names}
    for name, column in columns.items():
        if len(column) != offsets[-1]:
            raise BadFile(
                f"{where(events)}{collection}_{name} has missing values; drop such objects or fill them first"
            )
    return offsets, columns


def event_columns(events: Any, collection: str, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Return fields of a record that there is once per event, such as MET.

    Raises
    ------
    MissingBranch, BadFile
        As `flat_columns`.
    """
    names = require(events, collection, names)
    columns = {name: events[collection, name] for name in names}
    for name, column in columns.items():
        if ak.any(ak.is_none(column)):
            raise BadFile(f"{where(events)}{collection}_{name} has missing values: drop these events first")
    return {name: np.asarray(ak.to_numpy(column)) for name, column in columns.items()}


def as_mask(values: Any) -> Any:
    """Return flags as booleans, in whatever numbers a producer has stored them: what is not 0 is true, NaN is false.

    >>> as_mask(np.array([0, 2], np.uint8)), as_mask(ak.Array([[1, 0], []])).to_list()
    (array([False,  True]), [[True, False], []])
    """
    return (values != 0) & (values == values)  # noqa: PLR0124  NaN


def require(events: Any, collection: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of fields of a collection.

    Raises
    ------
    MissingBranch
        Some are not there. coffea would refuse to make four-vectors without all their fields, in words of its own.
    """
    names = tuple(names)
    have = events.layout[collection].fields if collection in ak.fields(events) else ()
    missing = [f"{collection}_{name}" for name in names if name not in have]
    if missing:
        raise MissingBranch(f"{where(events)}branches are missing: {', '.join(missing)}")
    return names


@dataclass(frozen=True)
class Objects:
    """The objects of a collection, flat, with the way back to their events and to their shape.

    Built from events, or from any mask, slice, `[:, 0]` or re-sort of a collection.

    Attributes
    ----------
    collection : str
        Name of the collection, such as "FatJet".
    array : ak.Array
        What was given: `array["pt"]` are the objects' own values, systematic variations included.
    source : ak.Array
        The complete events of the chunk.
    event : (n,) int64
        Position of each object's event in `source`.
    index : (n,) int64
        Position of each object in the collection of the file, flat.
    passed : ak.Array, optional
        The events that were passed, which may hold other constituents than the chunk.
    known : bool
        Whether all this has been compared with the file.
    """

    collection: str
    array: Any
    source: Any
    event: Ints
    index: Ints
    passed: Any = dataclasses.field(default=None, kw_only=True)
    known: bool = dataclasses.field(default=False, kw_only=True)

    @classmethod
    def of(cls, events: Any, collection: str = "FatJet") -> Objects:
        """Flatten `events[collection]`, or the collection itself if that is what was given.

        Raises
        ------
        MissingBranch
            The events have no such collection.
        MissingIndex
            The objects do not say which event they come from.
        """
        refuse_other(events)
        fields = ak.fields(events)
        if collection in fields:
            jets = events[collection]
            if not ak.fields(jets):
                raise MissingIndex(f"{where(events)}{collection} is {_kind(jets)}, not a collection of objects")
            if {"eventIdxG", "objectIdxG"} <= set(ak.fields(jets)):
                return cls._from_collection(jets, collection, events)
            return cls._from_file_order(events, jets, collection)
        if "run" in fields or not fields:
            raise MissingBranch(f"{where(events)}there is no collection {collection!r} (branches {collection}_*)")
        if not {"eventIdxG", "objectIdxG"} <= set(fields):
            raise MissingIndex(
                f"these objects (fields {', '.join(fields[:4])}{', …' if len(fields) > 4 else ''}) do not say which {collection} "
                "of which event they are: open the file with schemaclass=coffea_ad.NanoAODSchema, and pass objects as they "
                "are picked from the collection, not pairs or sums of them; or pass the whole events"
            )
        return cls._from_collection(events, collection)

    @classmethod
    def events(cls, events: Any) -> Objects:
        """Return the events themselves as objects, one each.

        Raises
        ------
        MissingIndex
            This is a collection of objects.
        """
        refuse_other(events)
        if "eventIdxG" in ak.fields(events):
            raise MissingIndex("whole events are needed here, not a collection of their objects")
        place = np.arange(len(events))
        return cls("events", events, events, place, place, known=True)

    @classmethod
    def _from_collection(cls, jets: Any, collection: str, passed: Any = None) -> Objects:
        name = jets.layout.purelist_parameter("collection_name")
        if name is not None and name != collection:
            raise MissingIndex(f"a {collection} collection is needed, but this is {name}")
        source = _chunk(jets, collection)
        picked = _pick(jets)
        event, index = (picked.column(name) for name in ("eventIdxG", "objectIdxG"))
        if event is None or index is None:
            event, index = (_leaf(jets[name])[0] for name in ("eventIdxG", "objectIdxG"))
        objects = cls(collection, jets, source, event, index, passed=passed)
        objects.__dict__["_picked"] = picked
        return objects

    @classmethod
    def _from_file_order(cls, events: Any, jets: Any, collection: str) -> Objects:
        """Take objects that do not say where they are, as with coffea's own schema, for those of the file in their order."""
        if jets.ndim != 2 or _options(jets[ak.fields(jets)[0]]) > 0:
            raise MissingIndex(_lost(events, collection))
        counts = ak.to_numpy(ak.num(jets, axis=1))
        _chunk(events, collection)
        n = int(counts.sum())
        return cls(collection, jets, events, np.repeat(np.arange(len(counts)), counts), np.arange(n))

    @cached_property
    def proven(self) -> Objects:
        """These objects, if they are those of the file: their own fields need no proof, but what belongs to them does.

        Raises
        ------
        MissingIndex
            Objects of another file, of coffea's own schema after a mask or sort, or with constituents of other events.
        """
        if self.known:
            return self
        whole = provenance.file_collection(self.source, self.collection)
        if whole is not None and not self._indexed and not provenance.in_file_order(self.array, whole):
            raise MissingIndex(_lost(self.source, self.collection))
        if whole is not None and self._indexed and not self._are_of(whole):
            raise MissingIndex(
                f"the {self.collection} objects here are not those of the file that the events came from; were events of two "
                "files joined, or the collection replaced by another one? Score those of each file by themselves"
            )
        source = self.source
        altered = "" if self.passed is None else _altered(self.passed, source, self.collection)
        if altered:
            row = np.repeat(np.arange(len(self.counts)), self.counts)
            if len(self.passed) != len(source) or not np.array_equal(row, self.event):
                raise MissingIndex(
                    f"{altered} was replaced in events that had been masked, sorted or joined, and cannot be matched with the "
                    f"{self.collection} collection any more; replace it in the events as they were opened"
                )
            source = self.passed
        return dataclasses.replace(self, source=source, known=True)

    def _are_of(self, whole: provenance.FileCollection) -> bool:
        """Say whether the objects are those of the file at the places that they name."""
        starts, n = whole.offsets, len(self)
        if n == 0:
            return True
        if self.index.min() < 0 or self.index.max() >= starts[-1]:
            return False
        if not np.array_equal(np.searchsorted(starts, self.index, "right") - 1, self.event):
            return False
        if provenance.same_records(self.array.layout, whole.layout, ["objectIdxG"]):
            return True
        have = [name for name in provenance.COMPARED if name in ak.fields(self.array)]
        return provenance.agree({name: self.field(name) for name in have}, whole, self.index)

    def at(self, rows: Ints) -> Objects:
        """Return some of the objects, for what belongs to them in the file: they have no fields of their own but their places.

        Raises
        ------
        MissingIndex
            As `proven`.
        """
        known = self.proven
        event, index = known.event[rows], known.index[rows]
        array = ak.zip({"eventIdxG": event, "objectIdxG": index})
        return Objects(self.collection, array, known.source, event, index, known=True)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.index)

    def field(self, name: str) -> npt.NDArray[Any]:
        """Return one field of the objects as passed in, flat.

        Raises
        ------
        MissingBranch
            The collection has no such field.
        """
        if name not in ak.fields(self.array):
            raise MissingBranch(f"{where(self.source)}there is no branch {self.collection}_{name}")
        values = self._picked.column(name)
        if values is not None:
            return values
        column = self.array[name]  # item access: `jets.tau2` would be vector's mass²
        if self._indexed and _options(column) > _options(self.array["objectIdxG"]):
            raise BadFile(f"{where(self.source)}{self.collection}_{name} has missing values; fill them first")
        return _leaf(column)[0]

    def spectator(self, name: str) -> Float64s | None:
        """Return a number of each object that no feature has to know: its field, or else one of its event.

        Parameters
        ----------
        name : str
            A field of the objects, such as `pt`; or of the events, such as `mjj`, that all objects of an event share. The
            events that were passed come before those of the chunk.

        Returns
        -------
        (n,) float64, or None
            NaN where missing. None if there is no such field.

        Raises
        ------
        ConfigError
            The field is no number of each.
        """
        if len(self) == 0:
            return np.zeros(0)
        if self.collection != "events" and name in ak.fields(self.array):
            return np.asarray(self.field(name), np.float64)
        events = self.source if self.passed is None or name not in ak.fields(self.passed) else self.passed
        if name not in ak.fields(events):
            return None
        column = events[name]
        if column.ndim != 1 or ak.fields(column):
            raise ConfigError(f"{where(events)}the spectator {name} is not one number of each event, but {column.type}")
        values = np.asarray(ak.to_numpy(ak.fill_none(ak.values_astype(column, np.float64), np.nan)))
        if events is self.source:
            return values[self.event]
        return np.repeat(values, self.counts)

    def restore(self, values: npt.NDArray[Any]) -> Any:
        """Give a flat array (one value per object) the shape of what was passed in."""
        return self._picked.shaped(ak.contents.NumpyArray(values))

    def with_fields(self, columns: Mapping[str, Any]) -> Any:
        """Return what was passed in with more fields.

        Awkward's own `with_field` makes a whole object None where the new field is, if objects may be missing, as with
        `ak.firsts`; here an object keeps its other fields.

        Parameters
        ----------
        columns : {name: (n,) ak.Array}
            One value, or None, per object.
        """
        picked = self._picked
        index = ak.index.Index64(picked.places)
        # the index goes from the outside to every old field, where it waits until somebody reads it
        fields = {
            name: ak.contents.IndexedArray.simplified(index, content)
            for name, content in zip(picked.records.fields, picked.records.contents, strict=True)
        } | {name: ak.to_layout(column) for name, column in columns.items()}
        return picked.shaped(
            ak.contents.RecordArray(
                list(fields.values()), list(fields), length=len(self), parameters=picked.records.parameters
            )
        )

    @cached_property
    def constituents(self) -> Constituents:
        """The objects' constituents, gathered when first asked for and shared by all features of the objects.

        Raises
        ------
        MissingBranch, BadFile
        """
        return _gather(self)

    @cached_property
    def _picked(self) -> _Picked:
        return _pick(self.array)

    @property
    def _indexed(self) -> bool:
        return "objectIdxG" in ak.fields(self.array)

    @cached_property
    def counts(self) -> Ints:
        """Number of objects per event, (n_events,), or of ones where there is at most one object an event."""
        ones = self.restore(np.ones(len(self), np.int64))
        while ones.ndim > 1:
            ones = ak.sum(ones, axis=-1)
        return np.asarray(ak.to_numpy(ak.fill_none(ones, 0)), np.int64)


def refuse_other(events: Any) -> None:
    """Raise if this is not an array of events or objects.

    Raises
    ------
    MissingIndex
    """
    if isinstance(events, ak.Record):
        raise MissingIndex("one event or object alone cannot be scored; pass a slice such as events[3:4]")
    if isinstance(events, Objects) or (isinstance(events, ak.Array) and (ak.fields(events) or len(events) == 0)):
        return
    raise MissingIndex(f"events or objects of a collection are needed, as coffea opens them, not {_kind(events)}")


def _kind(value: Any) -> str:
    """Say what somebody passed instead of events."""
    if value is None or isinstance(value, type):
        return repr(value)
    if isinstance(value, ak.Array):
        return "an awkward array without fields"
    name = f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _chunk(array: Any, collection: str) -> Any:
    """Return the events of the chunk that an array came from.

    Raises
    ------
    MissingIndex
    """
    attrs = array.attrs
    if "@original_array" in attrs:
        return attrs["@original_array"]
    if "@events_factory" not in attrs:
        raise MissingIndex(
            f"this {collection} collection has lost its events (was it pickled, saved or made anew?); score it in the process "
            f"that opened the file, and put objects made anew into the events with events[{collection!r}] = …"
        )
    return attrs["@events_factory"].events()


def _lost(events: Any, collection: str) -> str:
    """Say why objects without their places cannot be matched with their constituents."""
    whole = provenance.file_collection(events, collection)
    if whole is not None and "objectIdxG" in whole.layout.content.fields:
        return (
            f"the {collection} collection was replaced, and the new one does not say which objects of the file it holds; make it "
            "from the old one with ak.with_field, or keep the fields eventIdxG and objectIdxG"
        )
    return (
        "masked, sliced, joined or re-sorted events and collections lose the link between jets and constituents in coffea's "
        "own schema; open the file with schemaclass=coffea_ad.NanoAODSchema"
    )


def _altered(passed: Any, source: Any, collection: str) -> str:
    """Return the first table of constituents in the passed events that is not the chunk's, or an empty string."""
    if passed is source:
        return ""
    for table in CONSTITUENT_TABLES:
        for name, fields in table.fields(collection).items():
            if not all(name in ak.fields(events) for events in (passed, source)):
                continue
            one, other = passed[name].layout, source[name].layout
            shared = [f for f in fields if f in one.fields and f in other.fields]
            if not provenance.same_records(one, other, shared) and not _same_values(passed[name], source[name], shared):
                return name
    return ""


def _same_values(some: Any, whole: Any, fields: Iterable[str]) -> bool:
    """Say whether objects that were copied have the values that stand at their places in the chunk."""
    if "objectIdxG" not in ak.fields(some):
        return False
    index = _flat(some["objectIdxG"])
    columns = [(_flat(some[f]), _flat(whole[f])) for f in fields]
    return all(
        index.max(initial=-1) < len(b) and np.array_equal(a, b[index], equal_nan=b.dtype.kind == "f")
        for a, b in columns
    )


def _options(array: Any) -> int:
    """Count the places where values may be missing."""
    text = str(ak.type(array))
    return text.count("?") + text.count("option[")


def _leaf(array: Any) -> tuple[npt.NDArray[Any], Any]:
    """Return the flat values of a nested array of numbers, and the packed array they belong to."""

    def index(layout: Any, **_: Any) -> Any:
        return layout.to_IndexedOptionArray64() if layout.is_option and not layout.is_indexed else None

    # what is masked out is not among the values: only an index, unlike a mask, drops it when packed
    packed = ak.to_packed(ak.transform(index, array))
    found: list[npt.NDArray[Any]] = []

    def look(layout: Any, **_: Any) -> Any:
        if layout.is_numpy:
            found.append(np.asarray(layout.data))
            return layout
        return None

    ak.transform(look, packed)
    return (found[0] if found else np.zeros(0, np.int64)), packed


@dataclass(frozen=True)
class _Picked:
    """Objects as places among records: what masks, slices and sorts leave of a collection."""

    records: Any
    places: Ints
    structure: Any

    def column(self, name: str) -> npt.NDArray[Any] | None:
        """Return a field that is as it was read: picked from the records, instead of projecting every index again."""
        content = self.records.content(name)
        if not content.is_numpy or content.is_option:
            return None
        return np.asarray(ak.to_numpy(ak.Array(content)))[self.places]

    def shaped(self, content: Any) -> Any:
        """Give one value or record per object the shape of what was passed in."""

        def put(layout: Any, **_: Any) -> Any:
            return content if layout.is_numpy else None

        return ak.transform(put, self.structure)


def _pick(array: Any) -> _Picked:
    """Find the records that objects are picked from.

    Raises
    ------
    MissingIndex
        They come from more than one array.
    """
    found: list[Any] = []

    def number(layout: Any, **_: Any) -> Any:
        if not layout.is_record:
            return None
        found.append(layout)
        return ak.contents.NumpyArray(np.arange(layout.length))

    places, structure = _leaf(ak.transform(number, array))
    if len(found) != 1:
        raise MissingIndex("objects of different arrays were joined here; score each array by itself")
    return _Picked(found[0], places, structure)


@dataclass(frozen=True)
class ConstituentTables:
    """Where one NanoAOD flavour keeps the constituents of a jet collection.

    `links` has one row per (jet, candidate), with `jetIdx` and `index`; `puppi` is the branch of `candidates` that holds
    the PUPPI weight, or None where NanoAOD has multiplied it to pT and mass and stores none. `charge` is the branch that
    tells the charge: itself, or `pdgId`.
    """

    flavour: str
    links: str
    index: str
    candidates: str
    puppi: str | None
    charge: str

    def fields(self, collection: str, *more: str) -> dict[str, tuple[str, ...]]:
        """Return the fields to read of each table; `more` are further fields of the candidates."""
        puppi = (self.puppi,) if self.puppi else ()
        return {
            self.links.format(collection): ("jetIdx", self.index),
            self.candidates: ("pt", "eta", "phi", "mass", *puppi, *more),
        }

    def branches(self, collection: str, *more: str) -> tuple[str, ...]:
        """Return the branches to read; `more` are further fields of the candidates."""
        return tuple(f"{name}_{f}" for name, fields in self.fields(collection, *more).items() for f in fields)


CONSTITUENT_TABLES = (
    ConstituentTables("NanoAOD v15", "{}PFCand", "pfCandIdx", "PFCand", None, "pdgId"),
    ConstituentTables("PFNano", "{}PFCands", "pFCandsIdx", "PFCands", "puppiWeight", "charge"),
)


def constituent_branches(collection: str, *, charge: bool = False, pdg_id: bool = False) -> tuple[tuple[str, ...], ...]:
    """Return the alternatives: the branches that hold constituents in each flavour, with charge or type if asked for."""
    return tuple(
        table.branches(
            collection, *dict.fromkeys([*([table.charge] if charge else []), *(["pdgId"] if pdg_id else [])])
        )
        for table in CONSTITUENT_TABLES
    )


@dataclass(frozen=True)
class Constituents:
    """PUPPI-weighted constituents of n objects: object i owns rows offsets[i] … offsets[i+1].

    Attributes
    ----------
    offsets : (n + 1,) int64
    pt, eta, phi, mass : (n_constituents,) float64, GeV and radians
    table, source, candidate
        The flavour's tables, the events, and the place of each constituent among all candidates, for further fields.
    """

    offsets: Ints
    pt: Float64s
    eta: Float64s
    phi: Float64s
    mass: Float64s
    table: ConstituentTables
    source: Any
    candidate: Ints

    def part(self, start: int, stop: int) -> tuple[Ints, slice]:
        """Return the offsets of the objects start … stop in their own constituents, and where those are."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return self.offsets[start : stop + 1] - first, slice(first, last)

    def field(self, name: str) -> npt.NDArray[Any]:
        """Return one more field of the candidates, (n_constituents,).

        Raises
        ------
        MissingBranch
        """
        candidates = self.source[self.table.candidates]
        if name not in ak.fields(candidates):
            raise MissingBranch(f"{where(self.source)}there is no branch {self.table.candidates}_{name}")
        return _flat(candidates[name])[self.candidate]

    @property
    def charge(self) -> Float64s:
        """Electric charge, (n_constituents,); NanoAOD v15 stores the type only, whose sign tells it."""
        values = self.field(self.table.charge)
        if self.table.charge != "pdgId":
            return values.astype(np.float64)
        positive = np.isin(values, (211, 321, 2212, -11, -13))
        negative = np.isin(values, (-211, -321, -2212, 11, 13))
        return positive.astype(np.float64) - negative


def missing_branches(needs: Mapping[str, tuple[tuple[str, ...], ...]], branches: Iterable[str]) -> str:
    """Say in one sentence what is missing, or return an empty string.

    Parameters
    ----------
    needs : {what: alternatives}
        Each alternative is a set of branches that would do.
    branches : iterable of str
        What the file has.

    Examples
    --------
    >>> missing_branches({"jet pT": (("FatJet_pt",),)}, ["Jet_pt"])
    'jet pT needs FatJet_pt'
    >>> missing_branches({"jet pT": (("FatJet_pt",),)}, ["FatJet_pt"])
    ''
    """
    have = {usual_name(branch) for branch in branches}
    lacking = []
    for what, alternatives in needs.items():
        gaps = [[b for b in alternative if b not in have] for alternative in alternatives]
        if gaps and all(gaps):
            # once each, and none that lacks what another one lacks and more
            least = [g for i, g in enumerate(gaps) if not any(set(o) < set(g) for o in gaps) and g not in gaps[:i]]
            lacking.append(f"{what} needs " + " or ".join(", ".join(gap) for gap in least))
    return "; ".join(lacking)


def _tables(source: Any, collection: str) -> ConstituentTables:
    stored = {f"{c}_{f}": f for c in ak.fields(source) if "PFCand" in c for f in ak.fields(source[c])}
    have = {usual_name(branch): field for branch, field in stored.items()}
    for table in CONSTITUENT_TABLES:
        if set(table.branches(collection)) <= have.keys():
            index = have[f"{table.links.format(collection)}_{table.index}"]
            weight = "puppiWeight" if f"{table.candidates}_puppiWeight" in have else None
            return dataclasses.replace(table, index=index, puppi=weight)
    raise MissingBranch(
        f"{where(source)}" + missing_branches({f"{collection} constituents": constituent_branches(collection)}, have)
    )


def _gather(objects: Objects) -> Constituents:
    """Gather the constituents of objects, from NanoAOD v15 or PFNano.

    Counts come from `jetIdx`, never from `nConstituents`: forward jets have a count but no stored candidates.

    Raises
    ------
    MissingIndex
        The objects are not those of the file, or tables were replaced by others that do not go together.
    MissingBranch
        The file has constituents of neither flavour.
    BadFile
        A link points outside its event.
    """
    objects = objects.proven
    source, collection = objects.source, objects.collection
    table = _tables(source, collection)
    links = source[table.links.format(collection)]
    candidates = source[table.candidates]
    whole = provenance.file_collection(source, collection)
    jets_per_event = np.diff(whole.offsets) if whole is not None else ak.to_numpy(ak.num(source[collection], axis=1))
    stored = provenance.file_collection(source, table.candidates)
    if stored is not None and not provenance.in_file_order(candidates, stored):
        raise MissingIndex(
            f"{table.candidates} was masked, re-sorted or replaced, and the links of the jets would lead to other candidates; "
            "change its fields with ak.with_field, and leave number and order as they are"
        )
    links_per_event = ak.to_numpy(ak.num(links, axis=1))
    candidates_per_event = ak.to_numpy(ak.num(candidates, axis=1))

    local_jet, local_candidate = _flat(links["jetIdx"]), _flat(links[table.index])
    if np.any((local_jet < 0) | (local_jet >= np.repeat(jets_per_event, links_per_event))) or np.any(
        (local_candidate < 0) | (local_candidate >= np.repeat(candidates_per_event, links_per_event))
    ):
        name = table.links.format(collection)
        if provenance.replaced(source, name, ("jetIdx", table.index)):
            raise MissingIndex(f"{name} was replaced, and now points outside its event")
        raise BadFile(f"{where(source)}{name} points outside its event")
    jet = local_jet + np.repeat(_offsets(jets_per_event)[:-1], links_per_event)
    candidate = local_candidate + np.repeat(_offsets(candidates_per_event)[:-1], links_per_event)
    if np.any(np.diff(jet) < 0):
        order = np.argsort(jet, kind="stable")
        jet, candidate = jet[order], candidate[order]

    multiply = table.puppi is not None and _unweighted(source, collection, table, jet, candidate, jets_per_event)
    starts = _offsets(np.bincount(jet, minlength=int(jets_per_event.sum())))
    counts = np.diff(starts)[objects.index]
    offsets = _offsets(counts)
    rows = candidate[np.repeat(starts[objects.index] - offsets[:-1], counts) + np.arange(offsets[-1])]
    pt, eta, phi, mass = (_flat(candidates[f])[rows].astype(np.float64) for f in ("pt", "eta", "phi", "mass"))
    if multiply:
        weight = _flat(candidates[table.puppi])[rows].astype(np.float64)
        pt, mass = pt * weight, mass * weight
    pt[np.isneginf(pt)] = np.nan  # undefined, where a pT of 0 or below means that PUPPI has taken the constituent out
    return Constituents(offsets, pt, eta, phi, mass, table, source, rows)


def _unweighted(
    source: Any, collection: str, table: ConstituentTables, jet: Ints, candidate: Ints, jets_per_event: Ints
) -> bool:
    """Say whether the stored pT of candidates has to be multiplied by their PUPPI weights.

    The metadata of the dataset decide, or else the sums over the jets; where neither of them tells it, PFNano's names do.

    Raises
    ------
    BadFile
        It cannot be told.
    ConfigError
        The metadata say something else than true or false.
    """
    said = said_weighted(getattr(source, "metadata", None) or {})
    if said is not None:
        return not said
    candidates, jets = source[table.candidates], source[collection]
    weight = _flat(candidates[str(table.puppi)])[candidate].astype(np.float64)
    if np.all(weight == 1):
        return False
    have = ak.fields(jets)
    # a collection that was masked in place has other jets than the links
    if {"pt", "eta", "rawFactor"} <= set(have) and np.array_equal(ak.to_numpy(ak.num(jets)), jets_per_event):
        pt, eta, phi = (_flat(candidates[f])[candidate].astype(np.float64) for f in ("pt", "eta", "phi"))
        jet_pt, jet_eta, raw = (_flat(jets[f]).astype(np.float64) for f in ("pt", "eta", "rawFactor"))
        told = weights_missing((pt, eta, phi), weight, jet, jet_pt * (1 - raw), jet_eta)
        if told is not None:
            return told
    if table.candidates == "PFCands":
        return True
    raise BadFile(
        f"{where(source)}it cannot be told from {collection}_pt and {collection}_rawFactor whether {table.candidates}_pt is "
        f"multiplied by {table.candidates}_{table.puppi} already; say {PUPPI_WEIGHTED}: true or false in the metadata of the dataset"
    )
