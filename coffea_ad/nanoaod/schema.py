"""NanoAODSchema: coffea's, with the entries of events and the places of objects."""

from __future__ import annotations

from typing import Any

from coffea.nanoevents import NanoAODSchema as CoffeaNanoAODSchema
from coffea.nanoevents import transforms
from coffea.nanoevents.util import concat

from coffea_ad.nanoaod import entries
from coffea_ad.nanoaod.records import record_offsets, unfold_forms

__all__ = ["NanoAODSchema"]


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
