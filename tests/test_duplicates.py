"""Events that are there twice: found whatever the order of chunks, counted, and left out of data on request."""

from __future__ import annotations

import re

import hist
import numpy as np
import pytest
from coffea import processor
from toys import DATA, assert_identical, copy_events

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import ConfigError
from coffea_ad.running import duplicates
from coffea_ad.splits import event_hash
from coffea_ad.weights import weight_sums

pytestmark = pytest.mark.usefixtures("undrawn")

SVJ, QCD = DATA / "svj_v15.root", DATA / "qcd_v15.root"
GENERATED = ("gen", "Gen")


class Met(processor.ProcessorABC):
    """A histogram, and the ids of what it was filled with."""

    def process(self, events):
        h = hist.Hist(
            hist.axis.StrCategory(["inclusive"], name="region"), hist.axis.StrCategory(["nominal"], name="variation"),
            hist.axis.Regular(20, 0, 500, name="met"), storage=hist.storage.Weight(),
        )  # fmt: skip
        met = events.PuppiMET["pt"].to_numpy()
        h.fill(region="inclusive", variation="nominal", met=met)
        ids = set(zip(events.run.tolist(), events.event.tolist(), strict=True))
        return {events.metadata["dataset"]: {**weight_sums(np.ones(len(events))), "ids": ids, "histograms": {"met": h}}}

    def postprocess(self, accumulator):
        return accumulator


def shifted(columns):
    """The first 100 events under other numbers; the other 50 stay."""
    columns["event"][:100] += 10_000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twice")
    return {
        "a": copy_events(SVJ, folder / "a.root", drop=GENERATED),
        "b": copy_events(SVJ, folder / "b.root", drop=GENERATED, change=shifted),  # 50 of its 150 are in a
        "c": copy_events(QCD, folder / "c.root", drop=GENERATED),
        "mc": copy_events(SVJ, folder / "mc.root"),
        "mc2": copy_events(SVJ, folder / "mc2.root", change=shifted),
    }


def entry(*paths, mc=False):
    return {"files": {str(p): "Events" for p in paths}, "metadata": {"is_mc": mc, **({"xsec": 1.0} if mc else {})}}


def run(fileset, output=None, executor="iterative", **kwargs):
    settings = {"chunksize": 40, "lumi": 1.0, "progress": False, **kwargs}
    return ad.run(fileset, Met(), executor=executor, output=output, **settings)


def counted(report):
    return {(c["first"], c["again"]): c["events"] for c in report.duplicates["counts"]}


def met(report, dataset):
    return report.outputs[dataset]["histograms"]["met"].sum(flow=True).value


def by_hand(ids, order, data):
    seen, counts, entries = {}, {}, {}
    for dataset, path, start in order:
        group = "" if dataset in data else "simulation"
        for i, key in enumerate(ids[dataset, path, start].tolist()):
            if (group, key) in seen:
                pair = (seen[group, key], dataset)
                counts[pair] = counts.get(pair, 0) + 1
                if group == "":
                    entries.setdefault((dataset, path), []).append(start + i)
            else:
                seen[group, key] = dataset
    return counts, {place: sorted(found) for place, found in entries.items()}


@pytest.mark.parametrize("part", [2**24, 64, 8])
def test_sorting_by_parts_finds_what_a_set_finds(part, monkeypatch):
    monkeypatch.setattr(duplicates, "_PART", part)
    rng = np.random.default_rng(part)
    for _ in range(5):
        order = [(d, f"{d}{i}", 30 * k) for d in "abmn" for i in range(2) for k in range(2)]
        pool = rng.integers(0, 2**64, size=300, dtype=np.uint64)
        ids = {chunk: pool[rng.integers(0, 300, 30)] for chunk in order}
        found = duplicates.find(ids, order, {"a", "b"})
        assert (found.counts, found.entries) == by_hand(ids, order, {"a", "b"})
        assert found == duplicates.find(dict(reversed(ids.items())), order, {"a", "b"})
        assert len(duplicates.sentences(found, dropped=False, data={"a", "b"})) == len(found.counts)


def test_nothing_is_found_in_nothing():
    assert duplicates.find({}, [], set()).counts == {}
    empty = {("a", "x", 0): np.zeros(0, np.uint64)}
    assert duplicates.find(empty, list(empty), {"a"}).counts == {}


def test_hashes_tell_events_apart():
    event = np.arange(100_000, dtype=np.uint64)
    assert len(np.unique(event_hash("duplicates", 1, 1, event))) == len(event)
    assert event_hash("duplicates", 1, 2, [3]) != event_hash("duplicates", 2, 1, [3])


def test_repeated_events_are_counted_in_a_dataset_and_across_data(files, tmp_path):
    fileset = {"one": entry(files["a"], files["b"]), "two": entry(files["c"], files["b"]), "mc": entry(files["mc"], files["mc2"], mc=True)}  # fmt: skip
    report = run(fileset, tmp_path)
    assert counted(report) == {("one", "one"): 50, ("one", "two"): 150, ("mc", "mc"): 50}
    notes = "\n".join(report.notes)
    assert "one: 50 events are there twice (run, luminosity section, event), such as entry 100 of" in notes
    assert "two: 150 events are in one as well" in notes
    assert "mc: 50 events are there twice" in notes
    assert "those of simulation are counted only" in notes
    assert "--duplicates drop leaves them out" in notes
    assert met(report, "one") == 300  # said, and nothing else
    assert ad.load_results(tmp_path).report["duplicates"] == report.duplicates


def test_different_events_are_no_matter(files):
    report = run({"one": entry(files["a"]), "two": entry(files["c"]), "mc": entry(files["mc"], mc=True)})
    assert report.duplicates == {"mode": "note", "looked_at": 500, "counts": [], "examples": []}
    said = [note for note in report.notes if re.search(r"\btwice\b|as well", note)]
    assert said == []


def test_nothing_is_looked_for_if_it_is_not_wanted(files, monkeypatch):
    fileset = {"one": entry(files["a"], files["b"])}
    assert run(fileset, duplicates="ignore").duplicates == {"mode": "ignore"}
    monkeypatch.setattr("coffea_ad.running.repeated.LIMIT", 299)
    report = run(fileset)
    assert report.duplicates == {"mode": "note"}
    assert any("not looked for repeated events: 300 are more than 299" in note for note in report.notes)
    with pytest.raises(ConfigError, match="duplicates is 'forget', but must be note, drop, ignore"):
        run(fileset, duplicates="forget")


def test_dropping_leaves_every_event_of_data_once(files, tmp_path):
    fileset = {
        "one": entry(files["a"], files["b"]),
        "two": entry(files["b"]),
        "mc": entry(files["mc"], files["mc2"], mc=True),
    }
    report = run(fileset, tmp_path / "r", duplicates="drop")
    assert {d: met(report, d) for d in fileset} == {"one": 250, "two": 0, "mc": 300}
    kept = [report.outputs[d]["ids"] for d in ("one", "two")]
    assert len(kept[0] | kept[1]) == len(kept[0]) + len(kept[1]) == 250
    notes = "\n".join(report.notes)
    assert "they were left out" in notes
    assert "were not left out" not in notes
    plain = run({"one": entry(files["a"]), "mc": fileset["mc"]})
    shifted_only = met(run({"one": entry(files["b"])}), "one") - 50
    assert met(report, "one") == met(plain, "one") + shifted_only
    assert met(report, "mc") == met(plain, "mc")


@pytest.mark.parametrize("executor", ["futures", pytest.param("dask", marks=pytest.mark.dask)])
def test_executors_and_chunks_drop_the_same(files, executor, on):
    fileset = {"one": entry(files["b"], files["a"]), "two": entry(files["c"], files["a"])}
    one = run(fileset, duplicates="drop", chunksize=1000)
    two = run(fileset, duplicates="drop", chunksize=30, **on(executor))
    assert_identical(*({d: r.outputs[d]["histograms"] for d in fileset} for r in (one, two)))
    assert one.outputs["one"]["ids"] == two.outputs["one"]["ids"]
    assert counted(one) == counted(two)


def test_checkpoints_know_what_was_left_out(files, tmp_path):
    kept = str(tmp_path / "kept")
    alone = run({"two": entry(files["b"])}, duplicates="drop", checkpoints=kept)
    assert met(alone, "two") == 150
    both = {"one": entry(files["a"]), "two": entry(files["b"])}
    report = run(both, duplicates="drop", checkpoints=kept)
    assert met(report, "two") == 100
    again = run(both, duplicates="drop", checkpoints=kept)
    assert again.throughput["resumed_chunks"] == len(again.datasets["one"]["files"]) * 4 + 4
    assert met(again, "two") == 100
    assert counted(again) == counted(report)


def test_events_whose_ids_cannot_be_read_are_said(files, tmp_path, monkeypatch):
    from coffea_ad.running import chunks

    whole = chunks.hashes

    def sometimes(events):
        if events.metadata["entrystart"] >= 80:
            raise OSError("no ids")
        return whole(events)

    monkeypatch.setattr(chunks, "hashes", sometimes)
    report = run({"one": entry(files["a"])})
    assert report.datasets["one"]["events"] == 150
    assert report.duplicates["looked_at"] < 150
    assert any("could not be read of" in note for note in report.notes)


def test_the_option_of_the_command_line(files, tmp_path, capsys):
    import json

    (tmp_path / "f.json").write_text(json.dumps({"one": entry(files["a"], files["b"])}))
    words = ["run", "semivisible_jets", "--fileset", str(tmp_path / "f.json"), "-e", "iterative", "--lumi", "1", "-o"]
    assert cli.main([*words, str(tmp_path / "r"), "--duplicates", "drop"]) == 0
    assert "they were left out" in capsys.readouterr().out
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    report["datasets"]["one"]["failed"] = [
        {"file": "x", "start": -1, "stop": -1, "uuid": "", "error": "E", "cause": "x"}
    ]
    (tmp_path / "r" / "report.json").write_text(json.dumps(report))
    assert cli.main(["run", "--resubmit", str(tmp_path / "r")]) == 1
    assert "run it again with its checkpoints" in capsys.readouterr().err
