"""`events.entry` is the number of an event in the tree of its file, whatever was opened and whatever is left of it."""

from __future__ import annotations

import awkward as ak
import cloudpickle
import numpy as np
import pytest
import uproot
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
from test_records import records
from toys import DATA, bare_events, copy_events, open_events

import coffea_ad as ad
from coffea_ad.errors import MissingIndex
from coffea_ad.nanoaod.entries import POSITION, Source, source

IDS = ("run", "luminosityBlock", "event")
FILE = DATA / "svj_v15.root"


def ids_of(path, entries):
    """The ids that stand in a file at some entries."""
    with uproot.open(path) as file:
        return {name: file["Events"][name].array(library="np")[np.asarray(entries)] for name in IDS}


def assert_are_those_of(events, path):
    want = ids_of(path, events.entry)
    for name in IDS:
        assert np.array_equal(ak.to_numpy(events[name]), want[name])


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A few branches of the file, as a tree and as an RNTuple of records."""
    folder = tmp_path_factory.mktemp("entries")
    with uproot.open(FILE) as file:
        names = [k for k in file["Events"].keys() if k.split("_")[0] not in ("FatJet", "nFatJet", "PuppiMET", *IDS)]
    tree = copy_events(FILE, folder / "tree.root", drop=tuple(names))
    return {"tree": tree, "rntuple": records(folder / "rntuple.root", tree)}


@pytest.mark.parametrize("mode", ["virtual", "eager"])
@pytest.mark.parametrize(("start", "stop"), [(None, None), (0, 7), (13, 50)])
@pytest.mark.parametrize("form", ["tree", "rntuple"])
def test_entries_begin_where_the_chunk_does(form, mode, start, stop, paths):
    path = paths[form]
    events = open_events(path, entry_start=start, entry_stop=stop, mode=mode)
    first = start or 0
    assert events.entry.to_list() == list(range(first, first + len(events)))
    assert_are_those_of(events, path)


CHANGES = {
    "mask": lambda e: e[np.arange(len(e)) % 3 == 1],
    "slice": lambda e: e[5:-3:2],
    "reverse": lambda e: e[::-1],
    "sort": lambda e: e[ak.argsort(e.PuppiMET["pt"])],
    "twice": lambda e: e[[4, 4, 2]],
    "several": lambda e: e[e.PuppiMET["pt"] > 20][::-1][[2, 0, 5]],
    "field": lambda e: ak.with_field(e[::2], e[::2].FatJet[:, :1], "FatJet")[1:],
    "none left": lambda e: e[:0],
    "joined again": lambda e: ak.concatenate([e[:4], e[20:22]]),
}


@pytest.mark.parametrize("mode", ["virtual", "eager"])
@pytest.mark.parametrize("change", CHANGES)
def test_entries_stay_with_what_is_left(change, mode, paths):
    events = CHANGES[change](open_events(paths["tree"], entry_start=11, entry_stop=70, mode=mode))
    assert_are_those_of(events, paths["tree"])


def test_one_event_and_events_that_are_masked_out_have_theirs():
    events = open_events(FILE, entry_start=11)
    assert events[4].entry == 15
    first = events[:3]
    assert first.mask[[True, False, True]].entry.to_list() == [11, None, 13]


def test_entries_are_read_from_one_branch_and_when_asked_for():
    log = []
    events = open_events(FILE, access_log=log)
    left = events[np.arange(len(events)) % 2 == 0]
    assert not log
    assert left.entry[:2].to_list() == [0, 2]
    assert {entry.branch for entry in log} == {"run"}


def test_the_file_says_where_the_events_are():
    events = open_events(FILE, entry_start=11)
    with uproot.open(FILE) as file:
        uuid = str(file.file.uuid)
    assert source(events[::3]) == Source(str(FILE), uuid, "Events", 11)
    given = NanoEventsFactory.from_root(
        uproot.open(FILE), treepath="Events", schemaclass=ad.NanoAODSchema, metadata={"filename": "as I call it"}
    ).events()
    assert source(given).file == "as I call it"


def test_a_wrong_start_in_the_metadata_does_not_count():
    events = open_events(FILE, entry_start=11, metadata={"filename": "x", "entrystart": 0})
    assert events.entry[0] == 11


def test_events_of_two_chunks_have_no_entries_together(paths):
    one, two = (open_events(paths["tree"], entry_start=a, entry_stop=a + 10) for a in (0, 10))
    joined = ak.concatenate([one, two])
    with pytest.raises(MissingIndex, match="do not say which entries of which file they are"):
        _ = joined.entry
    assert joined[POSITION].to_list() == [*range(10), *range(10)]  # which says nothing by itself


def test_events_of_a_run_that_were_sent_elsewhere_keep_them():
    metadata = {"filename": str(FILE), "entrystart": 11, "treename": "Events", "fileuuid": "u"}
    events = open_events(FILE, entry_start=11, entry_stop=30, metadata=metadata)[3:5]
    sent = cloudpickle.loads(cloudpickle.dumps(events))
    assert sent.entry.to_list() == [14, 15]
    assert source(sent) == Source(str(FILE), "u", "Events", 11)


def test_coffeas_own_schema_has_none():
    assert hasattr(ad.NanoAODSchema.behavior()["*", "NanoEvents"], "entry")
    assert not hasattr(NanoAODSchema.behavior()["*", "NanoEvents"], "entry")


def test_a_file_without_events_has_no_entries(tmp_path):
    bare_events(tmp_path / "none.root", 0)
    assert open_events(tmp_path / "none.root").entry.to_list() == []


@pytest.mark.real
@pytest.mark.parametrize("name", ["nano_tt_v15", "nano_dimuon"])
def test_entries_of_real_files_are_right(name, real):
    path = real / f"{name}.root"
    events = open_events(path, entry_start=3)
    assert_are_those_of(events[events.event % 2 == 0][::-1], path)
