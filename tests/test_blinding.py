"""Nothing in the folder of a blinded run tells how many events are hidden: not for any search, whatever they cut on.

Two files of data differ in one event: a hidden one in the first, one that fails the selection in the second. What can be
computed from a folder cannot tell the hidden number if both folders are the same to the last byte.
"""

from __future__ import annotations

import json
import re

import awkward as ak
import numpy as np
import pytest
from test_rmm_two_body import cell_sum
from toys import DATA, copy_events

import coffea_ad as ad
from coffea_ad import histograms
from coffea_ad.errors import ConfigError
from coffea_ad.modelfiles.attach import attach
from coffea_ad.modelfiles.thresholds import new_regions
from coffea_ad.scoring import monitoring

pytestmark = pytest.mark.torch  # the onnx package comes with it

WIDE = ["met_min=null", "rt_min=null", "dphi_max=null", "delta_eta_max=null", "lepton_pt_min=null"]
SEARCHES = {
    "two jets only": ("semivisible_jets", WIDE),
    "kinematic cuts": ("semivisible_jets", ["rt_min=0.05", "met_min=10", "dphi_max=3"]),
    "jets": ("rmm_two_body", ["leading_lepton_pt_min=0", "n_jets_min=4"]),
    "leptons": ("event_anomaly", ["leading_lepton_pt_min=35", "ht_min=100"]),
}
VOLATILE = (
    "seconds", "throughput", "events_per_second", "uuid", "key", "layout", "duplicates", "histograms",
)  # fmt: skip
"""What differs between two runs over the same file."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    skim = folder / "skim"
    fileset = {"ttbar": {"files": {str(DATA / "ttbar_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    ad.run(
        fileset, "skim_events", overrides=["leading_lepton_pt_min=0"], executor="iterative", output=skim, progress=False
    )
    data, config = cell_sum()
    (folder / "rmm.onnx").write_bytes(attach(data, config, background=skim, efficiencies=(0.5, 0.25)))
    return {
        "semivisible_jets": DATA / "wnae.onnx",
        **dict.fromkeys(("rmm_two_body", "event_anomaly"), folder / "rmm.onnx"),
    }


SOURCES = {
    "semivisible_jets": DATA / "svj_v15.root",
    **dict.fromkeys(("rmm_two_body", "event_anomaly"), DATA / "ttbar_v15.root"),
}


def without_objects(event):
    """Return a change of columns by which one event has no jet and no lepton any more."""

    def change(columns):
        for name in ("FatJet", "Jet", "Electron", "Muon", "Photon"):
            jets = columns[name]
            here = np.arange(len(jets)) == event
            columns[name] = ak.with_field(jets, ak.where(here, jets["pt"] * 0 + 1, jets["pt"]), "pt")

    return change


def run(search, path, folder, overrides, model, *more, steps=None, preflight=True):
    where = {"object_path": "Events", **({"steps": [steps]} if steps else {})}
    fileset = {"met": {"files": {str(path): where}, "metadata": {"is_mc": False}}}
    config = "none" if search == "semivisible_jets" else None
    return ad.run(
        fileset, search, model=model, config=config, overrides=[*overrides, "jet_scale=0", *more], executor="iterative",
        output=folder, lumi=1.0, progress=False, duplicates="ignore", preflight=preflight,
    )  # fmt: skip


def number_in(folder):
    met = ad.load_results(folder).in_regions["met"]["met"]
    return met[{"region": "inclusive", "variation": "nominal"}].sum(flow=True).value


def hidden_event(search, overrides, model, path, total):
    """Find an event that only the unblinded run shows, by halves of the file: it is in the second if not in the first."""

    def hidden(start, stop):
        reports = (
            run(search, path, None, overrides, model, f"unblind={flag}", steps=[start, stop], preflight=False)
            for flag in ("true", "false")
        )
        shown, left = (list(r.outputs["met"]["cutflow"].values())[-1]["events"] for r in reports)
        return shown - left

    low, high = 0, total
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if hidden(low, middle) else (middle, high)
    assert hidden(low, high) == 1
    return low


def content(folder, path):
    """Return all files of a folder, without what differs between two runs over one file."""
    out = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        if file.name == "report.json":
            out[file.name] = stripped(json.loads(file.read_text().replace(str(path), "FILE")))
        else:
            out[file.name] = file.read_bytes()
    return out


def stripped(value):
    if isinstance(value, dict):
        return {k: stripped(v) for k, v in value.items() if k not in VOLATILE}
    return [stripped(v) for v in value] if isinstance(value, list) else value


def numbers(value):
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


@pytest.mark.parametrize("name", SEARCHES)
def test_a_folder_is_the_same_whether_an_event_is_hidden_or_fails(name, models, tmp_path):
    search, overrides = SEARCHES[name]
    model, source = models[search], SOURCES[search]
    whole = copy_events(source, tmp_path / "whole.root", drop=("gen", "Gen"))
    for flag in ("true", "false"):
        run(search, whole, tmp_path / flag, overrides, model, f"unblind={flag}")
    hidden = int(number_in(tmp_path / "true") - number_in(tmp_path / "false"))
    assert hidden > 1
    total = ad.load_results(tmp_path / "true").report["datasets"]["met"]["events"]
    event = hidden_event(search, overrides, model, whole, total)
    other = copy_events(source, tmp_path / "other.root", drop=("gen", "Gen"), change=without_objects(event))
    run(search, other, tmp_path / "one less", overrides, model, "unblind=false")
    run(search, other, tmp_path / "one less, open", overrides, model, "unblind=true")
    assert number_in(tmp_path / "true") - number_in(tmp_path / "one less, open") == 1  # so the hidden number is another
    one, two = content(tmp_path / "false", whole), content(tmp_path / "one less", other)
    assert one == two
    assert set(one) == {"report.json", "histograms.zip"}

    # and as one would look for it: counts of events before and after
    report = json.loads((tmp_path / "false" / "report.json").read_text())
    entry = report["datasets"]["met"]
    told = {*numbers(entry["cutflow"]), *numbers(report["inputs"]), entry["events"], number_in(tmp_path / "false")}
    told |= {report["outputs"]["met"][k] for k in ("events", "sumw", "unscored", "undefined")}
    assert not [(a, b) for a in told for b in told if a - b == hidden]


def test_the_flag_is_in_the_report_and_regions_obey_it(models, tmp_path):
    model = models["semivisible_jets"]
    path = copy_events(SOURCES["semivisible_jets"], tmp_path / "data.root", drop=("gen", "Gen"))
    report = run("semivisible_jets", path, tmp_path / "r", WIDE, model)
    stored = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report.blinded
    assert stored["blinded"] is stored["datasets"]["met"]["blinded"] is True
    assert not any(m["datasets"] or m["drift"] for m in stored["inputs"].values())  # what the model read is no count
    assert any("met: blinded, so events in the tightest region are in no histogram" in n for n in report.notes)
    stored["config"]["unblind"] = True  # the flag counts, not what was asked for
    (tmp_path / "r" / "report.json").write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match="dataset met is blinded data"):
        new_regions(model.read_bytes(), tmp_path / "r", efficiencies=(0.5,), datasets=["met"])
    assert not run("semivisible_jets", path, None, WIDE, model, "unblind=true").blinded
    assert not run("semivisible_jets", path, None, WIDE, None).blinded  # without a model there is no tightest region


def test_a_selection_without_a_cut_is_refused_for_blinded_data(models, tmp_path):
    path = copy_events(SOURCES["rmm_two_body"], tmp_path / "data.root", drop=("gen", "Gen"))
    nothing = ["leading_lepton_pt_min=0", "n_jets_min=0"]
    with pytest.raises(ConfigError, match="blinded data need a selection that cuts"):
        run("rmm_two_body", path, tmp_path / "r", nothing, models["rmm_two_body"])
    run("rmm_two_body", path, None, nothing, models["rmm_two_body"], "unblind=true")
    run("rmm_two_body", path, None, nothing, None)


def test_a_copied_recipe_is_blind_by_the_same_filler(tmp_path):
    path = ad.recipes.copy("semivisible_jets", tmp_path / "mine.py")[0]
    assert re.search(r"histograms\.RegionFiller\(", path.read_text())
    data = copy_events(SOURCES["semivisible_jets"], tmp_path / "data.root", drop=("gen", "Gen"))
    fileset = {"met": {"files": {str(data): "Events"}, "metadata": {"is_mc": False}}}
    report = ad.run(
        fileset, path, model=DATA / "wnae.onnx", config="none", overrides=WIDE, executor="iterative", progress=False
    )
    assert report.blinded
    assert list(report.datasets["met"]["cutflow"]) == ["all", "two jets"]


def test_nothing_is_recorded_within_unwatched(model_file):
    from toys import open_events

    events = open_events(DATA / "svj_v15.root")
    tagger = ad.Tagger(model_file)
    with monitoring.monitoring() as seen, monitoring.unwatched():
        tagger(events)
    assert seen == {}
    assert not histograms.RegionFiller({"": tagger}, ["a"]).hides(mc=True)
