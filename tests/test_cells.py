"""Histograms are filled over exclusive cells, and every region is a sum of them."""

from __future__ import annotations

import json
import zipfile

import hist
import numpy as np
import pytest
import uhi.io.json
import uhi.io.zip
from coffea import processor
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import DATA, assert_identical, copy_events

import coffea_ad as ad
from coffea_ad import histograms
from coffea_ad.errors import BadFile, ConfigError, UnknownName
from coffea_ad.results import histogram_files
from coffea_ad.results.folder import load_results, save_results
from coffea_ad.results.results import Results
from coffea_ad.running.merging import added
from coffea_ad.scoring import regions
from coffea_ad.scoring.specs import RegionSpec
from coffea_ad.weights import weight_sums

OPEN = ["met_min=null", "rt_min=null", "dphi_max=null", "delta_eta_max=null", "lepton_pt_min=null"]
AXIS = hist.axis.Regular(4, 0, 1, name="x")


def specs(k):
    return [
        RegionSpec(
            name=f"wp{i}", efficiency=0.5**i, thresholds=(float(i),), error=0, n_effective=99, derived_from="toy"
        )
        for i in range(1, k + 1)
    ]


def region_masks(grades, k):
    """As regions were filled before there were cells: event by event, each region by itself."""
    out = {}
    for row, event in enumerate(grades.tolist()):
        names = []
        if min(event) >= 0:
            names.append("inclusive")
            for level in range(1, k + 1):
                tags = sum(g >= level for g in event)
                if len(event) == 2:
                    names.append(f"wp{level}_{tags}tag")
                elif tags:
                    names.append(f"wp{level}")
        for name in names:
            out.setdefault(name, np.zeros(len(grades), bool))[row] = True
    return out


@given(
    k=st.integers(0, 4), jets=st.booleans(), n=st.integers(0, 60), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_regions_filled_one_by_one_are_sums_of_cells_to_the_bit(k, jets, n, seed):
    rng = np.random.default_rng(seed)
    grades = rng.integers(-1, k + 1, (n, 2 if jets else 1))
    x = np.where(rng.random(n) < 0.1, np.nan, rng.random(n) * 1.2)
    weight = rng.integers(-64, 64, n) / 16  # sums of these have no rounding
    cells = np.array(regions.cell_names(k, jets=jets))
    filled = histograms.book([AXIS], cells, ["nominal"])
    left_out = histograms.fill(filled, cells[regions.cells_of(grades, k)], "nominal", {"x": x}, weight)
    assert left_out == np.isnan(x).sum()
    definitions = regions.definitions(specs(k), jets=jets)
    summed = regions.add_cells(filled, definitions)
    masks = region_masks(grades, k)
    for name in definitions:
        expected = hist.Hist(AXIS, storage=hist.storage.Weight())
        inside = masks.get(name, np.zeros(n, bool)) & np.isfinite(x)
        expected.fill(x=x[inside], weight=weight[inside])
        assert (
            summed[{"region": name, "variation": "nominal"}].view(flow=True).tolist()
            == expected.view(flow=True).tolist()
        ), name
    assert filled.sum(flow=True).value == weight[np.isfinite(x)].sum()  # every event is in one cell


@pytest.mark.parametrize("k", range(5))
def test_cells_are_as_many_as_pairs_of_grades(k):
    pairs = [tuple(name.split("-")) for name in regions.cell_names(k, jets=True)[:-1]]
    assert len(set(pairs)) == len(pairs) == (k + 1) * (k + 2) // 2
    assert len(regions.cell_names(k, jets=False)) == k + 2
    exclusive = [of for name, of in regions.definitions(specs(k), jets=True).items() if name.startswith(f"wp{k}_")]
    assert sum(map(len, exclusive)) == (len(pairs) if k else 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    data = copy_events(DATA / "svj_v15.root", folder / "data.root", drop=("gen", "Gen"))
    fileset = {
        "svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}},
        "met": {"files": {str(data): "Events"}, "metadata": {"is_mc": False}},
    }
    models = [DATA / "wnae.onnx", DATA / "ae_stored.onnx"]
    for name, more in (("blind", []), ("open", ["unblind=true"])):
        ad.run(
            fileset, "semivisible_jets", model=models, config="none", overrides=[*OPEN, *more], executor="iterative",
            output=folder / name, lumi=2.0, progress=False, duplicates="ignore",
        )  # fmt: skip
    return folder


def test_new_regions_are_made_without_a_new_run(run):
    results = load_results(run / "open")
    r = results.regions
    more = results.with_regions(
        {
            "A": r["medium_2tag"],
            "B": r["loose_2tag"] - r["medium_2tag"],
            "one_medium": ["2-0", "2-1"],
            "loose_only": (r["loose_1tag"] | r["loose_2tag"]) - r["medium_1tag"] - r["medium_2tag"],
        }
    )
    a, b, both = (more.scaled("svj", "mt", name)[{"variation": "nominal"}] for name in ("A", "B", "loose_2tag"))
    assert (a + b) == both
    one, tagged = (more.scaled("svj", "mt", name).view(flow=True) for name in ("one_medium", "medium_1tag"))
    assert one.tolist() == tagged.tolist()
    assert more.region("loose_only")["met"]["mt"].sum(flow=True).value > 0
    assert "A" not in results.regions
    with pytest.raises(ConfigError, match="region A: there is one of this name"):
        more.with_regions({"A": ["0-0"]})
    with pytest.raises(ConfigError, match="region a/b: letters, digits"):
        results.with_regions({"a/b": ["0-0"]})
    with pytest.raises(UnknownName, match="region C: there is no cell 7-7; there are 0-0, "):
        results.with_regions({"C": ["7-7"]})
    with pytest.raises(UnknownName, match="unknown region 'medium_2tags'.*medium_2tag"):
        results.region("medium_2tags")
    with pytest.raises(UnknownName, match="medium_2tag"):
        results.scaled("svj", "mt", "medium_2tags")


def test_the_report_says_what_the_regions_are(run):
    report = load_results(run / "open").report
    assert report["schema_version"] == 2
    card = ad.Tagger(DATA / "wnae.onnx").card
    told = report["regions"]["medium_1tag"]
    spec = next(r for r in card.regions if r.name == "medium")
    assert told["cells"] == ["2-0", "2-1"]
    assert (told["tagger"], told["model"], told["level"], told["region"], told["tags"]) == (
        "ad",
        card.name,
        "jet",
        "medium",
        1,
    )
    assert told["thresholds"] == list(spec.thresholds)
    assert told["efficiency"] == spec.efficiency
    assert told["error"] == spec.error
    assert told["derived_from"] == spec.derived_from
    other = report["regions"]["ad2_inclusive"]
    assert (other["tagger"], other["model"]) == ("ad2", "ae_stored")
    assert report["variations"]["jet_scaleUp"] == {
        "source": "jet_scale", "direction": "up", "of": "jets", "shape_only": False, "correlated": True, "placeholder": True,
    }  # fmt: skip
    assert "regions" not in report["outputs"]["svj"]


def test_hidden_cells_of_data_are_empty_and_named(run):
    results = load_results(run / "blind")
    hidden = results.report["datasets"]["met"]["hidden_cells"]
    assert {"2-0", "2-1", "2-2"} <= set(hidden)
    assert "hidden_cells" not in results.report["datasets"]["svj"]
    for name, h in results.histograms["met"].items():
        assert not any(h[{"cell": cell}].sum(flow=True).value for cell in hidden), name
        assert h.sum(flow=True).value > 0
    for region in ("medium_1tag", "medium_2tag"):
        with pytest.raises(
            ConfigError, match=f"region {region} is hidden in met, which is blinded; run it with --unblind"
        ):
            results.data("mt", region)
    assert results.data("mt", "medium_0tag").sum(flow=True).value > 0
    assert load_results(run / "open").data("mt", "medium_1tag").sum(flow=True).value > 0


def test_a_mass_against_the_score_gives_regions_at_any_threshold(run):
    results = load_results(run / "open")
    plane = results.histograms["svj"]["mt-ad_logp_min"]
    assert list(plane.axes["variation"]) == ["nominal"]
    threshold = 2.0  # that of medium, an edge of the axis
    above = results.scaled("svj", "mt-ad_logp_min", "inclusive")[{"variation": "nominal"}]
    edge = above.axes["ad_logp_min"].index(threshold)
    cut = above[{"ad_logp_min": slice(edge, None, sum)}]
    spectrum = results.scaled("svj", "mt", "medium_2tag")[{"variation": "nominal"}]
    assert cut.view(flow=True).tolist() == spectrum.view(flow=True).tolist()
    with pytest.raises(UnknownName, match="unknown observable 'mtt'.*mt"):
        ad.run(
            {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}},
            "semivisible_jets", model=DATA / "wnae.onnx", config="none", overrides=["against_score=[mtt]"], executor="iterative",
            progress=False,
        )  # fmt: skip


def test_the_archive_is_uhi_and_the_same_for_the_same_histograms(run, tmp_path):
    results = load_results(run / "open")
    with zipfile.ZipFile(run / "open" / "histograms.zip") as archive:
        assert hist.Hist(uhi.io.zip.read(archive, "svj/mt")) == results.histograms["svj"]["mt"]
    assert histogram_files.to_bytes(results.histograms) == (run / "open" / "histograms.zip").read_bytes()
    save_results(results.histograms, results.report, tmp_path)
    assert_identical(results.histograms, load_results(tmp_path).histograms)


def test_names_that_would_be_one_entry_stay_apart():
    h = [hist.Hist(AXIS, data=np.full(4, i)) for i in range(2)]
    named = {"a/b": {"c": h[0]}, "a": {"b/c": h[1]}}
    assert histogram_files.from_bytes(histogram_files.to_bytes(named)) == named


def old_folder(folder):
    """A folder as it was written before there were cells: an axis of regions, JSON, no schema version."""
    h = hist.Hist(
        hist.axis.StrCategory(["inclusive", "loose_1tag"], name="region"), hist.axis.StrCategory(["nominal"], name="variation"),
        AXIS, storage=hist.storage.Weight(),
    )  # fmt: skip
    h.fill(region="inclusive", variation="nominal", x=[0.1, 0.6])
    h.fill(region="loose_1tag", variation="nominal", x=[0.6])
    entry = {"metadata": {"is_mc": True, "xsec": 2.0}, "sumw": 4.0, "lumi": 1.0, "events": 4, "files": {}, "failed": []}
    report = {"datasets": {"tt": entry}, "lumi": 1.0, "notes": [], "throughput": {}, "key": {}}
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "histograms.json").write_text(json.dumps({"tt": {"x": h}}, default=uhi.io.json.default))
    (folder / "histograms.root").write_bytes(b"")
    return h


def test_folders_of_before_are_read_and_their_files_are_replaced(tmp_path):
    h = old_folder(tmp_path / "old")
    results = load_results(tmp_path / "old")
    assert results.in_regions["tt"]["x"] == h
    assert results.scaled("tt", "x", "loose_1tag").sum().value == 500.0
    assert results.region("loose_1tag")["tt"]["x"].sum().value == 1
    assert results.background("x", "loose_1tag")["tt"].sum().value == 500.0
    save_results(results.histograms, results.report, tmp_path / "old")
    assert sorted(p.name for p in (tmp_path / "old").iterdir()) == ["histograms.zip", "report.json"]
    assert load_results(tmp_path / "old").report["schema_version"] == 2


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("report.json", lambda text: text.replace(b'"schema_version": 2', b'"schema_version": 3'), "has schema version 3, and this coffea-ad knows those up to 2"),
        ("report.json", lambda text: text.replace(b'"schema_version": 2', b'"schema_version": "x"'), "report.json is damaged at schema_version"),
        ("histograms.zip", lambda data: data[: len(data) // 2], "the histograms are not those of the report"),
    ],
)  # fmt: skip
def test_damaged_and_newer_folders_are_one_sentence(run, name, change, sentence, tmp_path):
    for file in ("report.json", "histograms.zip"):
        content = (run / "open" / file).read_bytes()
        (tmp_path / file).write_bytes(change(content) if file == name else content)
    with pytest.raises(BadFile, match=sentence):
        load_results(tmp_path)


def test_an_archive_that_is_none_is_one_sentence(run, tmp_path):
    for file in ("report.json", "histograms.zip"):
        (tmp_path / file).write_bytes((run / "open" / file).read_bytes())
    (tmp_path / "histograms.zip").write_bytes(b"none")
    report = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**report, "histograms": histogram_files.digest(b"none")}))
    with pytest.raises(BadFile, match="the results are damaged"):
        load_results(tmp_path)


class OverCells(processor.ProcessorABC):
    """A search of somebody's own, with cells of its own."""

    def __init__(self, regions):
        self.regions = regions

    def process(self, events):
        h = histograms.book([hist.axis.Regular(4, 0, 400, name="met")], ["low", "high"], ["nominal"])
        met = np.asarray(events.PuppiMET["pt"])
        histograms.fill(h, np.where(met > 100, "high", "low"), "nominal", {"met": met}, np.ones(len(met)))
        out = {**weight_sums(np.asarray(events.genWeight)), "histograms": {"met": h}}
        return {events.metadata["dataset"]: out | ({} if self.regions is None else {"regions": self.regions})}

    def postprocess(self, accumulator):
        return accumulator


def run_own(regions, output):
    fileset = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    return ad.run(fileset, OverCells(regions), executor="iterative", output=output, progress=False, chunksize=40)


def test_cells_of_a_processor_of_ones_own(tmp_path):
    run_own({"all": {"low", "high"}, "SR": {"high"}}, tmp_path)
    results = load_results(tmp_path)
    assert results.regions == {"all": {"low", "high"}, "SR": {"high"}}
    total, signal = (results.scaled("svj", "met", name).sum(flow=True).value for name in ("all", "SR"))
    assert 0 < signal < total == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("regions", "sentence"),
    [
        (None, "histogram met of svj is over cells, and the processor returns no regions"),
        ({"SR": ["high"]}, "histogram met of svj is over cells, and the processor returns no regions"),
        ({"SR": {"high", "higher"}}, "region SR of svj: histogram met has no cell higher; it has low, high"),
    ],
)
def test_cells_without_regions_are_refused_before_the_run(regions, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        run_own(regions, tmp_path / "r")


def test_merging_says_which_regions_differ(run):
    one = load_results(run / "open")
    other = json.loads(json.dumps(one.report))
    name = "tt"
    other["datasets"] = {name: {**other["datasets"]["svj"], "files": {}}}
    other["regions"]["medium_2tag"] |= {"thresholds": [9.0], "derived_from": "another"}
    both = added(one, Results({name: one.histograms["svj"]}, other), resubmission=False)
    told = both.report["regions"]
    assert told["medium_2tag"]["differing"] == ["derived_from", "thresholds"]
    assert told["medium_2tag"]["cells"] == ["2-2"]
    assert "thresholds" not in told["medium_2tag"]
    assert "differing" not in told["loose_2tag"]
    assert "these regions are not the same in all runs, see `runs`: medium_2tag" in both.report["notes"]
    assert [r["regions"]["medium_2tag"]["thresholds"] for r in both.report["runs"]] == [[2.0], [9.0]]
    assert both.scaled(name, "mt", "medium_2tag") == one.scaled("svj", "mt", "medium_2tag")


def test_one_dataset_with_other_cells_is_not_added(run):
    one = load_results(run / "open")
    other = json.loads(json.dumps(one.report))
    other["datasets"] = {"svj": {**other["datasets"]["svj"], "files": {}}}
    other["datasets"]["svj"]["regions"]["medium_2tag"] = ["2-1"]
    with pytest.raises(ConfigError, match="svj: its regions are made of other cells in both"):
        added(one, Results({}, other), resubmission=False)


@pytest.mark.parametrize(
    ("words", "edges"),
    [
        ([], np.linspace(0, 5000, 51)),
        (["mass_min=1000", "mass_max=2000", "mass_bins=4"], [1000, 1250, 1500, 1750, 2000]),
        (["mass_min=1000", "mass_max=1500", "mass_resolution=0.2"], [1000, 1200, 1440, 1728]),
        (["mass_edges=[900, 1000, 4000]"], [900, 1000, 4000]),
    ],
)
def test_masses_have_the_edges_that_are_asked_for(words, edges):
    fileset = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    report = ad.run(
        fileset, "semivisible_jets", config="none", overrides=[*OPEN, *words], executor="iterative", progress=False
    )
    for name in ("mt", "mjj"):
        np.testing.assert_allclose(report.outputs["svj"]["histograms"][name].axes[name].edges, edges)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mass_edges=[2, 1]"], "mass_edges must be two numbers or more that rise"),
        (["mass_resolution=0.1"], "bins as wide as the resolution begin above 0: give mass_min"),
        (["mass_min=6000"], "mass_min 6000 is not below mass_max 5000"),
    ],
)
def test_edges_that_are_none_are_one_sentence(words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ad.run({"svj": {"files": {"x.root": "Events"}}}, "semivisible_jets", config="none", overrides=words)
