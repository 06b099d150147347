"""Lists of the most anomalous events: the same however the work was divided, and found again in the files they name."""

from __future__ import annotations

import copy
import csv
import functools
import itertools
import json
import math
import pickle
import shutil

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.nanoevents import NanoAODSchema
from coffea.processor import accumulate, dict_accumulator
from hypothesis import given, settings
from hypothesis import strategies as st
from test_blinding import WIDE
from test_entries import ids_of
from test_records import records
from test_rmm_two_body import cell_sum
from toys import DATA, HERE, copy_events, open_events

import coffea_ad as ad
from coffea_ad.cli.main import main
from coffea_ad.errors import BadFile, ConfigError, IncompleteRun, MissingIndex, NotWritten, UnknownName
from coffea_ad.event_lists import TopEvents
from coffea_ad.event_lists.originals import write_originals
from coffea_ad.event_lists.storage import from_parquet, to_parquet
from coffea_ad.features.two_body import TWO_BODY
from coffea_ad.modelfiles.attach import attach
from coffea_ad.running.adding import not_addable

LISTING = HERE / "listing_processor.py"
SVJ = DATA / "svj_v15.root"
QCD = DATA / "qcd_v15.root"


def toy_list(rows, k, *, ranked=None):
    """A list of (dataset, file, entry, score) with an observable, the weight and ids made of them."""
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("dataset", "file", "entry", "ad_logp"))}
    n = len(rows)
    columns |= {"uuid": columns["file"], "tree": ["Events"] * n, "weight": np.ones(n), "mt": columns["entry"]}
    columns |= dict.fromkeys(("run", "luminosityBlock", "event"), columns["entry"])
    defined = sum(not math.isnan(row[3]) for row in rows)
    return TopEvents.from_columns(k, ("ad_logp",), columns, ranked=defined if ranked is None else ranked)


def described(top):
    """Which events are listed, in their order."""
    return [
        (top["dataset"][i], top["file"][i], int(top["entry"][i]), float(top["ad_logp"][i])) for i in range(len(top))
    ]


PLACES = st.tuples(st.sampled_from(["qcd", "tt"]), st.sampled_from(["b", "a"]), st.integers(0, 12))
EVENTS = st.dictionaries(PLACES, st.sampled_from([0.0, 1.0, 1.5, math.inf, math.nan]), max_size=25)


@settings(deadline=None, max_examples=150)
@given(EVENTS, st.integers(0, 8), st.data())
def test_any_division_and_any_order_give_the_same_list(events, k, data):
    rows = [(*place, score) for place, score in events.items()]
    ranked = [row for row in rows if not math.isnan(row[3])]
    want = sorted(ranked, key=lambda row: (-row[3], *row[:3]))[:k]
    shuffled = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    edges = [0, *cuts, len(rows)]
    parts = [toy_list(shuffled[a:b], k) for a, b in itertools.pairwise(edges)]
    while len(parts) > 1:  # any grouping
        i = data.draw(st.integers(0, len(parts) - 2))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    assert described(parts[0]) == want
    assert parts[0].ranked == len(ranked)
    assert parts[0] == toy_list(rows, k)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 5)), min_size=2, max_size=4))
def test_lists_of_different_length_add_up_in_any_order_to_the_shortest(parts):
    lists = [toy_list([(*p, s) for p, s in events.items()], k) for events, k in parts]
    total = functools.reduce(lambda a, b: a + b, lists)
    assert total == functools.reduce(lambda a, b: b + a, lists)
    assert total == lists[0] + functools.reduce(lambda a, b: a + b, lists[1:])
    assert total.k == min(k for _, k in parts)


def test_rows_that_are_equal_in_all_that_orders_them_do_not_depend_on_the_order_of_adding():
    one, two = (toy_list([("qcd", "a", 1, 2.0)], 1) for _ in range(2))
    two.columns["weight"] = two.columns["weight"] * 3
    assert one + two == two + one


def test_lists_are_accumulators_as_coffea_knows_them():
    one, two = toy_list([("qcd", "a", 1, 2.0)], 2), toy_list([("qcd", "a", 2, 3.0)], 2)
    before = copy.deepcopy(one)
    both = accumulate([{"qcd": {"top": one}}, {"qcd": {"top": two}}, {"tt": {"top": two}}])
    assert described(both["qcd"]["top"]) == [("qcd", "a", 2, 3.0), ("qcd", "a", 1, 2.0)]
    assert one == before
    total = dict_accumulator()
    total.add({"top": one})
    total.add({"top": two})
    assert total["top"] == one + two
    assert one + one.identity() == one.identity() + one == one
    assert pickle.loads(pickle.dumps(one)) == one
    assert repr(one + two) == "<TopEvents: 2 of 2 events by ad_logp, at most 2>"


def test_what_cannot_be_added_is_named():
    one = toy_list([("qcd", "a", 1, 2.0)], 2)
    other = copy.deepcopy(one)
    other.by = ("score",)
    with pytest.raises(ValueError, match="the events are ordered by ad_logp and by score"):
        _ = one + other
    other = copy.deepcopy(one)
    other.columns["mjj"] = other.columns.pop("mt")
    with pytest.raises(ValueError, match="only one of the lists says mjj, mt of its events"):
        _ = one + other
    assert not_addable({"qcd": one}, {"qcd": other}).startswith("list of events qcd: only one of the lists says")
    assert not not_addable({"qcd": one}, {"qcd": one})
    assert not_addable({"qcd": one}, {"qcd": np.zeros(2)}) == "qcd is TopEvents and ndarray"
    with pytest.raises(TypeError, match="a list of events and int cannot be added"):
        one.add(3)


def test_events_are_described_by_file_entry_and_ids():
    events = open_events(SVJ, entry_start=40, metadata={"dataset": "svj"})
    events = events[events.event % 2 == 1][::-1]
    met = events.PuppiMET["pt"]
    score = ak.where(met > 150, np.nan, met // 30)  # no score where it would be highest, and many are equal
    top = TopEvents.of(events, 9, {"met": score}, weight=met, observables={"x": met, "pair": np.stack([met, -met], 1)})
    want = sorted((-int(s), int(e)) for s, e in zip(score, events.entry, strict=True) if np.isfinite(s))[:9]
    assert [(-int(s), int(e)) for s, e in zip(top["met"], top["entry"], strict=True)] == want
    assert all(np.array_equal(top[name], column) for name, column in ids_of(SVJ, top["entry"]).items())
    assert set(top["dataset"]) == {"svj"}
    assert set(top["file"]) == {str(SVJ)}
    assert set(top["uuid"]) == {str(uproot.open(SVJ).file.uuid)}
    assert top.ranked == int(np.isfinite(ak.to_numpy(score)).sum()) < len(events)
    assert np.array_equal(top["weight"], top["x"])
    assert np.array_equal(top["pair_1"], -top["pair_2"])
    assert top.observables == ("pair_1", "pair_2", "x")


@pytest.mark.parametrize("k", [0, 3, 20, 200])
def test_lists_of_parts_are_those_of_their_events_alone(k):
    events = open_events(SVJ)
    met = np.asarray(events.PuppiMET["pt"])
    scores = {
        "met": np.where(met > 300, np.nan, met // 40),
        "rest": met % 7 // 2,
    }  # many equal ones, and some have none
    more = {"weight": met, "observables": {"pair": np.stack([met, -met], 1)}}
    parts = {
        "all": None,
        "even": met // 1 % 2 == 0,
        "few": met > 250,
        "none": np.zeros(len(met), bool),
        "high": met > 300,
    }
    lists = TopEvents.of_parts(events, k, scores, parts, **more)
    assert list(lists) == list(parts)
    for name, inside in parts.items():
        at = np.flatnonzero(np.ones(len(met), bool) if inside is None else inside)
        columns = {n: c[at] for n, c in scores.items()}
        of_these = {"weight": met[at], "observables": {"pair": more["observables"]["pair"][at]}}
        assert lists[name] == TopEvents.of(events[at], k, columns, **of_these)
    assert lists["none"].ranked == lists["high"].ranked == 0 < lists["few"].ranked < lists["all"].ranked


def test_none_is_no_score_and_an_empty_or_a_zero_list_is_empty():
    events = open_events(SVJ)
    met = ak.mask(events.PuppiMET["pt"], events.event % 2 == 0)
    assert set(TopEvents.of(events, 200, {"met": met})["event"] % 2) == {0}
    assert len(TopEvents.of(events, 0, {"met": met})) == 0
    assert TopEvents.of(events, 0, {"met": met}).ranked == 75
    assert len(TopEvents.of(events, 5, {"met": np.full(len(events), np.nan)})) == 0
    assert len(TopEvents.of(events[:0], 5, {"met": np.zeros(0)})) == 0


def test_a_wrong_list_is_refused_by_name():
    events = open_events(SVJ)
    n = np.zeros(len(events))
    with pytest.raises(ConfigError, match=r"a list of 150 events: met has the shape \(3,\)"):
        TopEvents.of(events, 5, {"met": n[:3]})
    with pytest.raises(ConfigError, match="a list of 150 events: which of them are tight is said of 3"):
        TopEvents.of_parts(events, 5, {"met": n}, {"tight": n[:3] > 0})
    with pytest.raises(ConfigError, match="a list of events has entry already"):
        TopEvents.of(events, 5, {"met": n}, observables={"entry": n})
    with pytest.raises(ConfigError, match="a list of events needs a score"):
        TopEvents.of(events, 5, {})
    with pytest.raises(ConfigError, match="a list of -1 events cannot be"):
        TopEvents(-1)
    with pytest.raises(ConfigError, match="it has no dataset, file, uuid"):
        TopEvents.from_columns(3, ["x"], {"x": n}, ranked=3)
    coffeas = open_events(SVJ, type("Coffeas", (NanoAODSchema,), {"warn_missing_crossrefs": False}))
    with pytest.raises(MissingIndex, match=r"schemaclass=coffea_ad.NanoAODSchema"):
        TopEvents.of(coffeas, 5, {"met": n})


def test_lists_are_the_same_after_parquet():
    one = toy_list([("qcd", "a", 1, 2.0), ("qcd", "b", 1, math.inf)], 2)
    two = TopEvents.of(open_events(SVJ), 3, {"met": open_events(SVJ).PuppiMET["pt"]})
    lists = {"ad": one, "ad2": two, "none": TopEvents(4, "x")}
    assert from_parquet(to_parquet(lists), "x") == lists
    with pytest.raises(BadFile, match="x.parquet: this holds no lists of events"):
        from_parquet(to_parquet(lists)[:-9], "x.parquet")


def entry(*paths, mc=True):
    return {"files": {str(p): "Events" for p in paths}, "metadata": {"is_mc": mc, **({"xsec": 1.0} if mc else {})}}


def run(fileset, output, *overrides, recipe=LISTING, executor="iterative", **kwargs):
    ad.run(fileset, recipe, overrides=list(overrides), executor=executor, output=output, progress=False, **kwargs)
    return ad.load_results(output)


@pytest.fixture(scope="module")
def both():
    return {name: entry(DATA / f"{name}_v15.root") for name in ("svj", "qcd")}


@pytest.fixture(scope="module")
def reference(both, tmp_path_factory):
    return run(both, tmp_path_factory.mktemp("reference") / "r")


def test_a_run_lists_events_that_are_in_the_files_at_these_entries(reference):
    assert set(reference.event_lists) == {"svj", "qcd"}
    for dataset in reference.event_lists:
        events = reference.events(dataset)
        assert len(events) == 7
        assert set(events["list"]) == {"met"}
        assert set(events["dataset"]) == {dataset}
        (path,) = set(events["file"])
        assert all(np.array_equal(ak.to_numpy(events[n]), c) for n, c in ids_of(path, events["entry"]).items())
        with uproot.open(path) as file:
            met = file["Events"]["PuppiMET_pt"].array(library="np") // 20
            assert str(file.file.uuid) == events["uuid"][0]
            ids = file["Events"]["event"].array(library="np")
        candidates = np.flatnonzero(ids % 3 > 0)
        best = candidates[np.lexsort([candidates, -met[candidates]])][:7]
        assert events["entry"].to_list() == best.tolist()
        first = events[0]
        again = uproot.open(first.file)[first.tree]["event"].array(entry_start=first.entry, entry_stop=first.entry + 1)
        assert again[0] == first.event


def test_the_report_says_how_many_are_listed_of_how_many_and_by_what(reference):
    said = reference.report["event_lists"]["svj"]
    assert said["file"] == "events/svj.parquet"
    assert said["lists"] == {"met": {"k": 7, "listed": 7, "ranked": 100, "by": ["met"]}}
    assert "event_lists" not in reference.report["outputs"]["svj"]
    assert not any("not written" in note for note in reference.report["notes"])


@pytest.mark.parametrize("chunksize", [13, 40, 200])
@pytest.mark.parametrize("executor", ["iterative", "futures", pytest.param("dask", marks=pytest.mark.dask)])
def test_chunks_and_executors_do_not_matter(executor, chunksize, reference, both, on, tmp_path):
    more = on(executor) | ({"workers": 2} if executor == "futures" else {})
    assert run(both, tmp_path / "r", chunksize=chunksize, **more).event_lists == reference.event_lists


def test_chunks_of_one_event_give_the_same_list(reference, both, tmp_path):
    results = run({"svj": both["svj"]}, tmp_path / "r", chunksize=1)
    assert results.event_lists == {"svj": reference.event_lists["svj"]}


def test_finished_chunks_give_their_events_again(reference, both, tmp_path):
    results = [run(both, tmp_path / name, chunksize=30, checkpoints=str(tmp_path / "kept")) for name in ("one", "two")]
    assert results[1].report["throughput"]["resumed_chunks"] == 5 + 7
    assert [r.event_lists for r in results] == [reference.event_lists] * 2


def test_a_resubmission_adds_its_events(both, tmp_path):
    later = tmp_path / "qcd.root"
    fileset = {"svj": both["svj"], "qcd": entry(SVJ, later)}
    with pytest.raises(IncompleteRun):
        run(fileset, tmp_path / "r", "top_events=150", chunksize=40)
    assert set(ad.load_results(tmp_path / "r").events("qcd")["file"]) == {str(SVJ)}
    shutil.copy(DATA / "qcd_v15.root", later)
    ad.resubmit(tmp_path / "r", executor="iterative", progress=False)
    again = run(fileset, tmp_path / "again", "top_events=150")
    results = ad.load_results(tmp_path / "r")
    assert results.event_lists == again.event_lists
    assert results.report["event_lists"] == again.report["event_lists"]
    assert set(results.events("qcd")["file"]) == {str(SVJ), str(later)}


def test_a_resubmission_without_a_list_leaves_the_one_that_is_there(tmp_path):
    fileset = {"svj": entry(SVJ, tmp_path / "qcd.root")}
    with pytest.raises(IncompleteRun):
        run(fileset, tmp_path / "r", "only=svj")
    before = ad.load_results(tmp_path / "r")
    shutil.copy(DATA / "qcd_v15.root", tmp_path / "qcd.root")
    ad.resubmit(tmp_path / "r", executor="iterative", progress=False)
    assert ad.load_results(tmp_path / "r").event_lists == before.event_lists
    assert len(before.events("svj")) == 7


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Two files of one dataset, each run by itself and both together."""
    folder = tmp_path_factory.mktemp("halves")
    paths = [shutil.copy(DATA / f"{name}_v15.root", folder / f"{name}.root") for name in ("svj", "qcd")]
    for i, path in enumerate(paths):
        run({"mc": entry(path)}, folder / f"half{i}")
    run({"mc": entry(*paths)}, folder / "whole")
    run({"mc": entry(paths[1])}, folder / "short", "top_events=4")
    run({"mc": entry(paths[1])}, folder / "none", "top_events=0")
    run({"other": entry(paths[0])}, folder / "other", "top_events=5")
    return folder


def test_merged_folders_have_the_list_of_a_run_over_all(halves, tmp_path):
    for order in (("half0", "half1"), ("half1", "half0")):
        merged = ad.merge([halves / name for name in order], tmp_path / order[0])
        assert merged.event_lists == ad.load_results(tmp_path / order[0]).event_lists
        assert merged.event_lists == ad.load_results(halves / "whole").event_lists


def test_of_lists_of_different_length_the_shorter_one_counts(halves, tmp_path):
    merged = ad.merge([halves / "half0", halves / "short"], tmp_path / "m")
    assert len(merged.events("mc")) == 4
    whole = ad.load_results(halves / "whole").event_lists["mc"]["met"]
    assert merged.event_lists["mc"]["met"] == whole.shortened(4)
    note = "mc: the list of events met has the best 4 only, as many as the shorter one of both folders"
    assert note in merged.report["notes"]
    side_by_side = ad.merge([halves / "half0", halves / "other"], tmp_path / "n")
    assert [len(side_by_side.events(d)) for d in ("mc", "other")] == [7, 5]
    assert not any("list of events" in n for n in side_by_side.report["notes"])


@pytest.mark.parametrize("why", ["none asked for", "an older folder"])
def test_a_folder_that_kept_no_list_leaves_none_of_the_sum(why, halves, tmp_path):
    folder = halves / "none"
    if why == "an older folder":
        folder = shutil.copytree(halves / "half1", tmp_path / "old")
        shutil.rmtree(folder / "events")
        report = json.loads((folder / "report.json").read_text())
        del report["event_lists"]
        (folder / "report.json").write_text(json.dumps(report))
        assert ad.load_results(folder).event_lists == {}
    for name, order in {"a": (halves / "half0", folder), "b": (folder, halves / "half0")}.items():
        merged = ad.merge(order, tmp_path / name)
        assert len(merged.events("mc")) == 0
        assert "mc: there is no list of events met, since one of the folders has kept none" in merged.report["notes"]
    # and it is not forgotten when more is added
    parts = [ad.merge([halves / "other", folder], tmp_path / "c"), ad.load_results(halves / "half0")]
    assert len(parts[0].event_lists.get("mc", {}).get("met", ())) == 0
    more = ad.merge([tmp_path / "c", halves / "half0"], tmp_path / "d")
    assert (len(more.events("mc")), len(more.events("other"))) == (0, 5)


def test_lists_by_other_scores_are_not_merged(halves, tmp_path):
    results = ad.load_results(halves / "half1")
    other = copy.deepcopy(results.event_lists["mc"]["met"])
    columns = {"ht" if n == "met" else n: c for n, c in other.columns.items()}
    lists = {"mc": {"met": TopEvents.from_columns(7, ["ht"], columns, ranked=9)}}
    from coffea_ad.results.folder import save_results

    save_results(results.histograms, results.report, tmp_path / "ht", lists)
    with pytest.raises(
        ConfigError, match="mc: met: two lists of events cannot be added: the events are ordered by met and by ht"
    ):
        ad.merge([halves / "half0", tmp_path / "ht"], tmp_path / "m")


def test_lists_are_taken_from_anywhere_in_what_a_processor_returns(both, tmp_path, reference):
    deep = run(both, tmp_path / "deep", "deep=true")
    assert deep.event_lists["svj"]["of/mine/met"] == reference.event_lists["svj"]["met"]
    flat = run(both, tmp_path / "flat", "flat=true")
    assert list(flat.event_lists) == ["all"]
    want = reference.event_lists["svj"]["met"] + reference.event_lists["qcd"]["met"]
    assert flat.event_lists["all"]["best"] == want
    with pytest.raises(UnknownName, match="unknown dataset with a list of events 'al'; did you mean 'all'"):
        flat.events("al")
    with pytest.raises(UnknownName, match="unknown list of events of all 'bst'; did you mean 'best'"):
        flat.events("all", "bst")


def test_several_lists_are_one_table():
    one, two = toy_list([("qcd", "a", 1, 2.0)], 2), TopEvents.of(open_events(SVJ), 1, {"x": np.arange(150)})
    results = ad.load_results.__globals__["Results"](
        {}, {"datasets": {}}, {"qcd": {"ad": one, "x": two, "n": TopEvents(1)}}
    )
    table = results.events("qcd")
    assert table["list"].to_list() == ["ad", "x"]
    assert table["entry"].to_list() == [1, 149]
    assert np.isnan(table["x"][0])
    assert np.isnan(table["ad_logp"][1])
    assert results.events("qcd", "x")["event"].to_list() == [150]
    assert len(results.events("qcd", "n")) == 0


def test_lists_that_cannot_be_added_are_failed_chunks(both, tmp_path):
    with pytest.raises(IncompleteRun, match="list of events svj: event_lists: met: only one of the lists says phi"):
        run({"svj": both["svj"]}, tmp_path / "r", "differ=true", chunksize=75)


def test_files_of_a_folder_belong_to_its_report(both, tmp_path):
    folder = tmp_path / "r"
    run(both, folder)
    (folder / "events" / "mine.parquet").write_bytes(b"of somebody else")
    run({"svj": both["svj"]}, folder, force=True)
    assert sorted(p.name for p in (folder / "events").iterdir()) == ["mine.parquet", "svj.parquet"]
    (folder / "events" / "svj.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadFile, match=r"svj.parquet: this list of events is not that of the report"):
        ad.load_results(folder)
    (folder / "events" / "svj.parquet").unlink()
    with pytest.raises(BadFile, match=r"svj.parquet"):
        ad.load_results(folder)
    report = json.loads((folder / "report.json").read_text())
    report["event_lists"]["svj"]["file"] = "events/../../svj.parquet"
    (folder / "report.json").write_text(json.dumps(report))
    with pytest.raises(BadFile, match="a list of events cannot be in 'events/../../svj.parquet'"):
        ad.load_results(folder)


def test_names_of_datasets_name_no_other_files(tmp_path):
    names = ["QCD", "qcd", "QCD_2"]
    results = run({name: entry(SVJ) for name in names}, tmp_path / "r", "top_events=2")
    assert sorted(p.name.lower() for p in (tmp_path / "r" / "events").iterdir()) == [
        "qcd.parquet", "qcd_2.parquet", "qcd_3.parquet",
    ]  # fmt: skip
    assert all(set(results.events(name)["dataset"]) == {name} for name in names)


def test_repeated_events_that_are_left_out_are_in_no_list(tmp_path):
    copies = [copy_events(SVJ, tmp_path / f"{name}.root", drop=("gen", "Gen")) for name in "ab"]
    results = run({"met": entry(*copies, mc=False)}, tmp_path / "r", "top_events=200", duplicates="drop", lumi=1.0)
    events = results.events("met")
    assert set(events["file"]) == {str(copies[0])}
    assert len(events) == 100


# the searches

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]


def search(fileset, output, *overrides, model=DATA / "wnae.onnx", **kwargs):
    return run(fileset, output, *LOOSE, *overrides, recipe="semivisible_jets", model=model, config="none", **kwargs)


def test_the_jet_search_lists_the_most_anomalous_events_of_each_model(tmp_path):
    models = [DATA / "wnae.onnx", DATA / "ae_stored.onnx"]
    whole = search({"svj": entry(SVJ)}, tmp_path / "whole", "top_events=500", model=models)
    lists = whole.event_lists["svj"]
    assert set(lists) == {"ad", "ad2", *whole.regions} - {"inclusive", "ad2_inclusive"}
    mt = whole.in_regions["svj"]["mt"][{"region": "inclusive", "variation": "nominal"}]
    assert len(lists["ad"]) == lists["ad"].ranked == round(mt.sum(flow=True).value / lists["ad"]["weight"][0])
    tagger = ad.Tagger(models[0])
    events = open_events(SVJ)[lists["ad"]["entry"]]
    jets = tagger(events.FatJet[ak.argsort(events.FatJet["pt"], ascending=False)][:, :2])
    assert np.array_equal(lists["ad"]["ad_logp"], ak.to_numpy(ak.max(jets["ad_logp"], axis=1)))
    assert np.all(np.diff(lists["ad"]["ad_logp"]) <= 0)
    few = search({"svj": entry(SVJ)}, tmp_path / "few", model=models, chunksize=20)
    assert few.event_lists["svj"] == {n: top.shortened(100) for n, top in lists.items()}
    assert search({"svj": entry(SVJ)}, tmp_path / "off", "top_events=0").event_lists == {}
    assert search({"svj": entry(SVJ)}, tmp_path / "control", model=None).event_lists == {}
    with pytest.raises(ConfigError, match="top_events"):
        search({"svj": entry(SVJ)}, None, "top_events=-1")


def test_every_region_has_the_list_of_its_events(tmp_path):
    whole = search({"svj": entry(SVJ)}, tmp_path / "whole", "top_events=500")
    lists, listed = whole.event_lists["svj"], []
    for region in set(whole.regions) - {"inclusive"}:
        mt = whole.in_regions["svj"]["mt"][{"region": region, "variation": "nominal"}]
        assert lists[region].ranked == len(lists[region]) == round(mt.sum(flow=True).value / lists["ad"]["weight"][0])
        inside = lists[region]["entry"] if len(lists[region]) else []
        assert [e for e in lists["ad"]["entry"] if e in inside] == list(inside)  # in the same order
        listed += list(inside)
    assert len(listed) > 20
    assert lists["loose_2tag"]["ad_logp_1"].min() >= 1 > lists["loose_1tag"]["ad_logp_2"].min()


# the verb


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listed") / "r"
    search({"svj": entry(SVJ), "qcd": entry(QCD), "again": entry(SVJ)}, folder)
    return folder


def test_lists_are_written_for_other_programs(listed, tmp_path, capsys):
    assert main(["events", str(listed), "-n", "3", "--datasets", "svj", "qcd", "--format", "ids"]) == 0
    ids = capsys.readouterr().out.split()
    results = ad.load_results(listed)
    top = (results.event_lists["svj"]["ad"] + results.event_lists["qcd"]["ad"]).shortened(3)
    assert ids == [f"{top['run'][i]}:{top['luminosityBlock'][i]}:{top['event'][i]}" for i in range(3)]
    assert main(["events", str(listed), "-n", "3", "--datasets", "svj", "qcd", "--format", "json"]) == 0
    assert [record["entry"] for record in json.loads(capsys.readouterr().out)] == top["entry"].tolist()
    assert main(["events", str(listed), "-n", "3", "--datasets", "svj", "qcd", "-o", str(tmp_path / "top.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "top.csv").read_text().splitlines()))
    assert [float(row["ad_logp"]) for row in rows] == top["ad_logp"].tolist()
    assert main(["events", str(listed), "--list", "loose_2tag", "--datasets", "qcd"]) == 0
    assert "by ad_logp, ad_score" in capsys.readouterr().out


def test_events_that_are_there_twice_are_named(listed, capsys):
    assert main(["events", str(listed), "-n", "4", "--format", "ids"]) == 0
    shown = capsys.readouterr()
    assert "is there 2 times: again (" in shown.err
    ids = shown.out.split()
    assert shown.err.count("is there 2 times") == len(ids) - len(set(ids)) > 0
    assert main(["events", str(listed), "-n", "4", "--datasets", "svj", "qcd"]) == 0
    assert "is there" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--list", "tight"], "list of events 'tight'"),
        (["--datasets", "svi"], "did you mean 'svj'"),
        (["-n", "0"], "-n is 0"),
        (["--skim", "few.txt"], "few.txt"),
    ],
)
def test_wrong_words_for_lists_are_named(listed, words, match, capsys):
    assert main(["events", str(listed), *words]) == 1
    assert match in capsys.readouterr().err


def test_listed_events_are_written_with_all_their_branches(listed, tmp_path, capsys):
    few = tmp_path / "few.root"
    assert main(["events", str(listed), "-n", "9", "--datasets", "svj", "qcd", "--skim", str(few)]) == 0
    assert "9 events in" in capsys.readouterr().out
    results = ad.load_results(listed)
    top = (results.event_lists["svj"]["ad"] + results.event_lists["qcd"]["ad"]).shortened(9)
    tagger = ad.Tagger(DATA / "wnae.onnx")
    events = open_events(few)
    assert ak.to_numpy(events.event).tolist() == top["event"].tolist()
    for i, where in enumerate(top["file"]):
        before = open_events(where)[top["entry"][i] : top["entry"][i] + 1]
        np.testing.assert_allclose(
            ak.flatten(tagger(events[i : i + 1])["ad_score"]), ak.flatten(tagger(before)["ad_score"]), rtol=1e-6
        )
    with uproot.open(few) as new, uproot.open(SVJ) as old:
        assert set(new["Events"].keys()) == set(old["Events"].keys())
        types = {n: str(b.interpretation) for n, b in new["Events"].items()}
        assert types == {n: str(b.interpretation) for n, b in old["Events"].items()}


def test_events_of_an_rntuple_are_written_as_a_tree(tmp_path):
    """Whose collections are records there, and branches with a counter in the file."""
    path = records(tmp_path / "rntuple.root", SVJ)
    events = open_events(path)
    top = TopEvents.of(events, 5, {"met": events.PuppiMET["pt"]})
    with (tmp_path / "few.root").open("w+b") as file:
        assert write_originals(top, file) == []
    tagger = ad.Tagger(DATA / "wnae.onnx")
    few = tagger(open_events(tmp_path / "few.root"))["ad_score"]
    before = tagger(events[top["entry"]])["ad_score"]
    np.testing.assert_allclose(ak.flatten(few), ak.flatten(before), rtol=1e-6)


@pytest.mark.real
def test_real_events_are_written_as_they_are(real, tmp_path):
    name = "nano_tt_v12"
    events = open_events(real / f"{name}.root")
    top = TopEvents.of(events, 4, {"met": np.arange(len(events)) % 7})
    with (tmp_path / "few.root").open("w+b") as file:
        assert write_originals(top, file) == []
    with uproot.open(tmp_path / "few.root") as new, uproot.open(real / f"{name}.root") as old:
        assert set(new["Events"].keys()) == set(old["Events"].keys())
        for branch in list(old["Events"].keys())[::23]:
            before = old["Events"][branch].array()[top["entry"]]
            now = new["Events"][branch].array()  # counters are int32, of old campaigns too
            assert ak.array_equal(now, before, equal_nan=True, dtype_exact=not branch.startswith("n")), branch


def test_a_damaged_file_of_listed_events_is_named(listed, tmp_path, monkeypatch):
    """Whatever a codec raises."""
    import uproot

    def damaged(*_, **__):
        raise ValueError("corrupt data")

    top = ad.load_results(listed).event_lists["svj"]["ad"].shortened(2)
    monkeypatch.setattr(uproot.TTree, "arrays", damaged)
    with (
        (tmp_path / "few.root").open("w+b") as file,
        pytest.raises(BadFile, match=r"root: cannot be read \(ValueError"),
    ):
        write_originals(top, file)


def test_a_file_that_was_replaced_gives_no_events(listed, tmp_path):
    top = ad.load_results(listed).event_lists["svj"]["ad"].shortened(2)
    other = TopEvents.from_columns(
        2, top.by, {**top.columns, "file": np.full(2, str(QCD), object)}, ranked=2
    )  # the UUID is that of another file
    with (tmp_path / "few.root").open("w+b") as file, pytest.raises(BadFile, match="its UUID is another one"):
        write_originals(other, file)
    with (tmp_path / "none.root").open("w+b") as file, pytest.raises(ConfigError, match="the list is empty"):
        write_originals(TopEvents(3, "met"), file)


@pytest.mark.torch
def test_the_search_with_events_lists_them_too(tmp_path):
    fileset = {"ttbar": entry(DATA / "ttbar_v15.root")}
    data, config = cell_sum()
    run(fileset, tmp_path / "skim", "leading_lepton_pt_min=0", recipe="skim_events")
    (tmp_path / "rmm.onnx").write_bytes(attach(data, config, background=tmp_path / "skim", efficiencies=(0.5, 0.25)))
    args = {"recipe": "rmm_two_body", "model": tmp_path / "rmm.onnx"}
    results = run(fileset, tmp_path / "r", "leading_lepton_pt_min=0", "top_events=9", chunksize=17, **args)
    top = results.event_lists["ttbar"]["ad"]
    assert (len(top), top.by) == (9, ("ad_logp", "ad_score"))
    scores = ad.Tagger(tmp_path / "rmm.onnx")(open_events(DATA / "ttbar_v15.root"))["ad_score"]
    assert top["ad_score"] == pytest.approx(ak.to_numpy(scores[top["entry"]]), rel=1e-6)  # of other batches
    assert {"met", "ht", *TWO_BODY} == set(top.observables)


def test_blinded_data_have_no_list_and_the_report_says_so(tmp_path, capsys):
    path = copy_events(SVJ, tmp_path / "data.root", drop=("gen", "Gen"))
    fileset = {"met": entry(path, mc=False), "svj": entry(SVJ)}
    blinded = search(fileset, tmp_path / "blinded", *WIDE, lumi=1.0)
    assert set(blinded.event_lists) == {"svj"}
    assert [p.name for p in (tmp_path / "blinded" / "events").iterdir()] == ["svj.parquet"]
    assert "met: blinded, so there is no list of the most anomalous events" in blinded.report["notes"]
    shown = search(fileset, tmp_path / "shown", *WIDE, "unblind=true", lumi=1.0)
    assert set(shown.event_lists) == {"met", "svj"}
    assert not any("no list of the most" in note for note in shown.report["notes"])
    assert main(["events", str(tmp_path / "blinded"), "-n", "2"]) == 0
    assert "there is no list of met; blinded data have none" in capsys.readouterr().out
    silent = search(fileset, tmp_path / "silent", *WIDE, "top_events=0", lumi=1.0)
    assert not any("no list of the most" in note for note in silent.report["notes"])


@pytest.mark.parametrize("place", ["deep", "flat"])
def test_a_list_that_a_processor_makes_of_blinded_data_is_taken_out(place, tmp_path):
    path = copy_events(SVJ, tmp_path / "data.root", drop=("gen", "Gen"))
    report = ad.run({"met": entry(path, mc=False)}, LISTING, overrides=["blinded=true", f"{place}=true"], lumi=1.0,
                    executor="iterative", output=tmp_path / "r", progress=False)  # fmt: skip
    assert "best" not in report.outputs
    assert report.outputs["met"].get("of", {}) in ({}, {"mine": {}})
    assert not (tmp_path / "r" / "events").exists()
    assert "met: blinded, so there is no list of the most anomalous events" in report.notes


def test_a_folder_at_an_address_has_its_lists(both, reference):
    results = run(both, "memory://event-lists/results")
    assert results.event_lists == reference.event_lists


@pytest.mark.real
def test_events_of_a_real_file_are_found_again(real, tmp_path):
    path = real / "nano_tt_v15.root"
    results = run({"tt": entry(path)}, tmp_path / "r", chunksize=70)
    events = results.events("tt")
    assert len(events) == 7
    assert all(np.array_equal(ak.to_numpy(events[n]), c) for n, c in ids_of(path, events["entry"]).items())


def test_a_list_that_cannot_be_written_leaves_all_as_it_was(both, tmp_path):
    folder = tmp_path / "r"
    before = run({"svj": both["svj"]}, folder)
    (folder / "events" / "qcd.parquet").mkdir()
    with pytest.raises(NotWritten, match=r"qcd.parquet: cannot be written"):
        run(both, folder, force=True)
    results = ad.load_results(folder)
    assert results.report == before.report
    assert results.event_lists == before.event_lists


def test_the_length_of_lists_is_found_where_the_configuration_is_by_era():
    from coffea_ad.running.event_lists import _keeps_none, without_option

    one, two = (
        {"eras": {"2022": {"met_min": 1, "top_events": n}, "2022EE": {"met_min": 2, "top_events": 5}}} for n in (0, 9)
    )
    assert without_option(one) == without_option(two) != one
    report = {"datasets": {"tt": {"events": 3}}, "event_lists": {}}
    assert _keeps_none({**report, "config": one}, "tt")
    assert not _keeps_none({**report, "config": two}, "tt")
