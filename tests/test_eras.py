"""Datasets say what they are: kind, process, era, luminosity; sums of them are checked, and exported for combine."""

from __future__ import annotations

import hist
import numpy as np
import pytest
import uproot
from toys import DATA, assert_identical, copy_events

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import ConfigError, MissingBranch, UnknownName
from coffea_ad.filesets.metadata import settled_metadata
from coffea_ad.luminosity.recorded import as_given
from coffea_ad.results.folder import load_results, save_results
from coffea_ad.results.results import Results
from coffea_ad.results.root_export import shapes
from coffea_ad.weights import era_of

REGIONS = {"inclusive": ["0", "1"], "tight": ["1"]}


def filled(variations, value, cells=("0", "1")):
    h = hist.Hist(
        hist.axis.StrCategory(["0", "1", "unscored"], name="cell"), hist.axis.StrCategory(variations, name="variation"),
        hist.axis.Regular(2, 0, 2, name="m"), storage=hist.storage.Weight(),
    )  # fmt: skip
    for i, variation in enumerate(variations):
        for cell in cells:
            h.fill(cell=cell, variation=variation, m=[0.5], weight=value * (1 + i))
    return h


def dataset(lumi, *, mc=True, xsec=1.0, sumw=1000.0, **more):
    metadata = {"is_mc": mc, **({"xsec": xsec} if mc else {}), **more}
    return {
        "metadata": metadata,
        "sumw": sumw,
        "lumi": lumi,
        "events": 10,
        "files": {},
        "failed": [],
        "regions": REGIONS,
    }


def results(datasets, histograms, *, lumi=None, **report):
    named = {name: {"m": h} for name, h in histograms.items()}
    return Results(named, {"datasets": datasets, "lumi": lumi, "notes": [], "throughput": {}, "key": {}, **report})


VARIATIONS = {
    f"{source}{direction}": {"source": source, "direction": direction.lower(), "correlated": source == "pdf", "shape_only": source == "pdf"}
    for source in ("pdf", "jes") for direction in ("Up", "Down")
}  # fmt: skip


@pytest.fixture
def two_eras():
    names = ["nominal", *VARIATIONS]
    datasets = {
        "met_a": dataset(2.0, mc=False, era="a"), "met_b": dataset(5.0, mc=False, era="b"),
        "tt_a": dataset(2.0, era="a", process="tt"), "tt_b": dataset(5.0, era="b", process="tt"),
        "qcd_a": dataset(2.0, era="a", process="qcd"), "qcd_b": dataset(5.0, era="b", process="qcd"),
        "svj_a": dataset(2.0, era="a", process="svj", kind="signal", mass=1000), "svj_b": dataset(5.0, era="b", process="svj", kind="signal"),
    }  # fmt: skip
    histograms = {name: filled(["nominal"] if name.startswith(("met", "qcd")) else names, 1.0) for name in datasets}
    return results(datasets, histograms, variations=VARIATIONS)


def test_datasets_are_added_by_process_and_over_eras(two_eras):
    assert two_eras.data("m").sum().value == 4
    background = two_eras.background("m")
    assert list(background) == ["tt", "qcd"]
    nominal = background["tt"][{"variation": "nominal"}]
    assert nominal.sum().value == 2 * (2.0 + 5.0)  # two cells, at 2 and 5 fb⁻¹, xsec · 1000 / sumw = 1
    assert list(two_eras.signals("m", "tight")) == ["svj"]
    assert two_eras.signals("m", "tight")["svj"][{"variation": "nominal"}].sum().value == 7.0
    assert two_eras.background("m", era="a")["tt"][{"variation": "nominal"}].sum().value == 4.0
    assert two_eras.data("m", "tight", era="b").sum().value == 1


def test_variations_are_of_an_era_where_they_are_uncorrelated(two_eras):
    tt = two_eras.background("m")["tt"]
    value = {v: tt[{"variation": v}].sum().value for v in tt.axes["variation"]}
    assert list(value) == ["nominal", "pdfUp", "pdfDown", "jes_aUp", "jes_aDown", "jes_bUp", "jes_bDown"]
    assert value["pdfUp"] == 2 * 2 * 7.0  # in both
    assert value["jes_aUp"] == 2 * (4 * 2.0 + 5.0)  # varied in a, nominal in b
    assert value["jes_bDown"] == 2 * (2.0 + 5 * 5.0)
    assert list(two_eras.background("m")["qcd"].axes["variation"]) == ["nominal"]
    one = two_eras.background("m", era="a")["tt"]
    assert "jes_aUp" in one.axes["variation"]  # the same name whether one or all are looked at


def test_variations_of_shape_only_keep_the_cross_section():
    entry = dataset(1.0)
    entry["sumw_variations"] = {"nominal": 10.0, "pdfUp": 30.0, "pdfDown": 5.0, "jesUp": 99.0}
    found = results({"tt": entry}, {"tt": filled(["nominal", *VARIATIONS], 1.0)}, lumi=1.0, variations=VARIATIONS)
    h = found.scaled("tt", "m", "tight")
    value = {v: h[{"variation": v}].sum() for v in h.axes["variation"]}
    assert value["nominal"].value == 1.0
    assert value["pdfUp"].value == pytest.approx(2.0 * 10 / 30)
    assert value["pdfUp"].variance == pytest.approx(4.0 * (10 / 30) ** 2)
    assert value["pdfDown"].value == pytest.approx(3.0 * 10 / 5)
    assert value["jesUp"].value == 4.0  # not asked for
    assert found.histograms["tt"]["m"][{"cell": "1", "variation": "pdfUp"}].sum().value == 2.0  # raw


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tt_a": dataset(3.0, era="a")}, "era a: .* is at 2 fb⁻¹ and tt_a at 3 fb⁻¹"),
        ({"met_b": None}, "era b: background, and no data; add one era with era="),
        ({"tt_b": None, "qcd_b": None}, "era b: data, and no background; add one era"),
        ({"met_a": dataset(7.0, mc=False, era="a")}, "era a: tt_a is at 2 fb⁻¹ and met_a at 7 fb⁻¹|era a: .* is at 2 fb⁻¹ and met_a at 7 fb⁻¹"),
    ],
)  # fmt: skip
def test_eras_that_do_not_belong_together_are_refused(two_eras, change, sentence):
    datasets = {**two_eras.report["datasets"], **change}
    datasets = {name: entry for name, entry in datasets.items() if entry is not None}
    odd = Results(two_eras.histograms, {**two_eras.report, "datasets": datasets})
    for add in (odd.data, odd.background):
        with pytest.raises(ConfigError, match=sentence):
            add("m")
    era = "b" if "era a" in sentence else "a"
    assert odd.data("m", era=era).sum().value == 2


def test_one_luminosity_for_several_eras_is_not_added(two_eras):
    odd = Results(two_eras.histograms, {**two_eras.report, "lumi": 5.0})
    with pytest.raises(
        ConfigError, match="simulation of a, b is at 5 fb⁻¹ each.*--lumi a=…,b=…, or take one with era=…"
    ):
        odd.background("m")
    assert odd.background("m", era="b")["tt"][{"variation": "nominal"}].sum().value == 10.0


def test_luminosity_of_data_from_their_sections_is_not_compared(two_eras):
    datasets = dict(two_eras.report["datasets"])
    datasets["met_a"] = {
        **datasets["met_a"],
        "lumi": 1.2,
        "luminosity": {"recorded": 1.2},
    }  # one of two primary datasets
    assert Results(two_eras.histograms, {**two_eras.report, "datasets": datasets}).data("m").sum().value == 4


def test_what_is_not_there_is_one_sentence(two_eras):
    with pytest.raises(UnknownName, match="unknown region of tt_a 'tihgt'.*tight"):
        two_eras.background("m", "tihgt")
    with pytest.raises(ConfigError, match="the results hold no background of era c"):
        two_eras.background("m", era="c")
    with pytest.raises(ConfigError, match="the results hold no data with a histogram mjj over regions"):
        two_eras.data("mjj")


def plain_storage(variations):
    axes = [
        hist.axis.StrCategory(list(REGIONS["inclusive"]), name="cell"),
        hist.axis.StrCategory(variations, name="variation"),
    ]
    h = hist.Hist(*axes, hist.axis.Regular(2, 0, 2, name="m"), storage=hist.storage.Double())
    for variation in variations:
        h.fill(cell="1", variation=variation, m=[0.5])
    return h


def test_histograms_without_variances_are_scaled_and_added_as_well():
    entry = dataset(1.0)
    entry["sumw_variations"] = {"nominal": 10.0, "pdfUp": 30.0}
    found = results({"tt": entry}, {"tt": plain_storage(["nominal", "pdfUp"])}, lumi=1.0, variations=VARIATIONS)
    tt = found.background("m", "tight")["tt"]
    assert [tt[{"variation": v}].sum() for v in ("nominal", "pdfUp")] == pytest.approx([1.0, 10 / 30])


def test_histograms_without_a_nominal_are_not_added():
    found = results({"tt": dataset(1.0)}, {"tt": plain_storage(["central"])}, lumi=1.0)
    with pytest.raises(ConfigError, match="histogram m of tt has no variation nominal"):
        found.background("m", "tight")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"kind": "data"}, {"is_mc": False}),
        ({"kind": "signal", "mass": 2000}, {"is_mc": True}),
        ({"kind": "background", "era": 2018}, {"is_mc": True, "era": "2018"}),
        ({"kind": "background", "isMC": 1}, {"is_mc": True}),
    ],
)
def test_kind_settles_what_a_dataset_is(metadata, expected):
    assert expected.items() <= settled_metadata("x", metadata).items()


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"kind": "mc"}, "dataset x: kind is 'mc', but must be data, background, signal"),
        ({"kind": "data", "is_mc": True}, "dataset x: is_mc and kind contradict each other"),
        ({"kind": "background", "is_signal": True}, "dataset x: kind and is_signal contradict each other"),
        ({"process": "t/t"}, "dataset x: process is 't/t', but must be a name"),
        ({"era": 1.5}, "dataset x: era is 1.5, but must be a name"),
        ({"lumi": -1}, "dataset x: lumi is -1, but must be a positive number of fb⁻¹"),
        ({"mass": "heavy"}, "dataset x: mass is 'heavy', but must be a positive number of GeV"),
    ],
)
def test_metadata_that_say_nothing_of_the_kind_are_one_sentence(metadata, sentence):
    with pytest.raises(ConfigError, match=sentence):
        settled_metadata("x", metadata)


@pytest.mark.parametrize(
    ("metadata", "era"),
    [
        ({"year": "2018", "era": "B"}, "2018"), ({"year": 2017, "era": "Run2017C"}, "2017"), ({"year": "2022_postEE"}, "2022_postEE"),
        ({"era": "2022EE"}, "2022EE"), ({"year": 2022, "era": "2022EE"}, "2022EE"), ({"era": "F"}, "F"), ({}, ""),
    ],
)  # fmt: skip
def test_periods_of_data_taking_are_no_eras(metadata, era):
    assert era_of(metadata) == era


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("2022=8,2022=9", "names an era twice"),
        ("2022=8,2023", "lumi is 2022=8,2023, but must be"),
        ("2022=-8", "lumi of era 2022 is -8, but must be a positive number"),
        ({"2022": "many"}, "lumi of era 2022 is many"),
        (0, "lumi is 0, but must be a positive number of fb⁻¹"),
        ("nowhere.csv", "lumi is nowhere.csv, but must be a positive number of fb⁻¹, numbers of eras as in"),
    ],
)
def test_what_is_no_luminosity_is_one_sentence(given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        as_given(given)


@pytest.fixture(scope="module")
def fileset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eras")
    out = {}
    for era in ("2022", "2022EE"):
        for name, drop in (("met", ("gen", "Gen")), ("qcd", ())):
            path = copy_events(
                DATA / f"{'svj' if name == 'met' else name}_v15.root", folder / f"{name}{era}.root", drop=drop
            )
            kind = {"kind": "data"} if name == "met" else {"kind": "background", "xsec": 1.0, "process": "qcd"}
            out[f"{name}_{era}"] = {"files": {str(path): "Events"}, "metadata": {**kind, "era": era}}
    return out


WORDS = ["met_min=null", "rt_min=null", "dphi_max=null", "delta_eta_max=null", "lepton_pt_min=null"]


def go(fileset, output, **more):
    return ad.run(
        fileset, "semivisible_jets", model=DATA / "wnae.onnx", config="none", overrides=WORDS, executor="iterative",
        output=output, progress=False, duplicates="ignore", **more,
    )  # fmt: skip


def test_a_run_over_two_eras_is_added_and_exported(fileset, tmp_path, capsys):
    report = go(fileset, tmp_path / "r", lumi="2022=2,2022EE=3")
    assert report.lumi is None
    assert {d: e["lumi"] for d, e in report.datasets.items()} == {
        "met_2022": 2.0,
        "qcd_2022": 2.0,
        "met_2022EE": 3.0,
        "qcd_2022EE": 3.0,
    }
    found = load_results(tmp_path / "r")
    nominal = found.background("mt")["qcd"][{"variation": "nominal"}].sum(flow=True).value
    raw = found.in_regions["qcd_2022"]["mt"][{"region": "inclusive", "variation": "nominal"}].sum(flow=True).value
    assert nominal == pytest.approx(raw * 1000 * (2 + 3) / report.datasets["qcd_2022"]["sumw"])
    out = tmp_path / "shapes.root"
    assert cli.main(["export", str(tmp_path / "r"), "-o", str(out), "--observable", "mt", "--observable", "met"]) == 0
    said = capsys.readouterr().out
    assert "note: region medium_2tag is hidden in met_2022, which is blinded" in said
    with uproot.open(out) as file:
        names = set(file.keys(cycle=False, recursive=True))
        assert {
            "mt/loose_0tag/qcd",
            "mt/loose_0tag/data_obs",
            "mt/medium_2tag/qcd_jet_scaleUp",
            "met/inclusive/qcd",
        } <= names
        assert "mt/medium_2tag/data_obs" not in names
        assert (
            file["mt/loose_0tag/data_obs"].values(flow=True).sum()
            == found.data("mt", "loose_0tag").sum(flow=True).value
            > 0
        )
        stored = file["mt/loose_0tag/qcd"]
        expected = found.background("mt", "loose_0tag")["qcd"][{"variation": "nominal"}]
        np.testing.assert_allclose(stored.variances(flow=True), expected.variances(flow=True))
    assert cli.main(["export", str(tmp_path / "r"), "-o", str(out)]) == 1
    assert "exists already" in capsys.readouterr().err
    words = [
        "export",
        str(tmp_path / "r"),
        "-o",
        str(tmp_path / "a.root"),
        "--asimov",
        "--region",
        "medium_2tag",
        "--observable",
        "mt",
    ]
    assert cli.main(words) == 0
    with uproot.open(tmp_path / "a.root") as file:
        one, two = (file[f"mt/medium_2tag/{name}"].values() for name in ("data_obs", "qcd"))
        np.testing.assert_array_equal(one, two)
    for more, sentence in (
        (["--region", "medum_2tag"], "unknown region 'medum_2tag'"),
        (["--observable", "mtt"], "unknown observable 'mtt'"),
        (["--era", "2023"], "the results hold no background of era 2023"),
    ):
        assert cli.main([*words, "--force", *more]) == 1
        assert sentence in " ".join(capsys.readouterr().err.split())


def test_runs_of_two_eras_that_are_merged_keep_their_luminosities(fileset, tmp_path):
    """Each run has its `--lumi`; in the folder of both simulation is at its own era's, and the sum is that of both."""
    for era, lumi in (("2022", 2.0), ("2022EE", 3.0)):
        of_era = {d: e for d, e in fileset.items() if e["metadata"]["era"] == era}
        go(of_era, tmp_path / era, lumi=lumi)
    assert cli.main(["merge", *(str(tmp_path / e) for e in ("2022", "2022EE")), "-o", str(tmp_path / "both")]) == 0
    both, apart = load_results(tmp_path / "both"), [load_results(tmp_path / e) for e in ("2022", "2022EE")]
    assert (both.luminosity(), both.luminosity("2022"), both.luminosity("2022EE")) == (5.0, 2.0, 3.0)
    total, *each = (r.background("mt")["qcd"][{"variation": "nominal"}] for r in (both, *apart))
    np.testing.assert_allclose(total.values(flow=True), sum(h.values(flow=True) for h in each))
    assert [h.sum(flow=True).value for h in each] == pytest.approx(
        [2 / 5 * total.sum(flow=True).value, 3 / 5 * total.sum(flow=True).value]
    )


def test_metadata_give_the_luminosity_of_a_dataset(fileset, tmp_path):
    stated = {d: {**e, "metadata": {**e["metadata"], "lumi": 4.0}} for d, e in fileset.items()}
    assert {e["lumi"] for e in go(stated, tmp_path / "r").datasets.values()} == {4.0}
    del stated["met_2022EE"]["metadata"]["lumi"]
    with pytest.raises(ConfigError, match="dataset met_2022EE: these are data; give their luminosity"):
        go(stated, tmp_path / "s")


def test_luminosities_of_eras_must_fit_the_fileset(fileset, tmp_path):
    with pytest.raises(UnknownName, match="unknown era '2022E'.*2022EE"):
        go(fileset, tmp_path / "r", lumi="2022=2,2022E=3")
    with pytest.raises(
        ConfigError, match=r"dataset met_2022EE: the luminosity is given by era, and none is for it \(of era 2022EE\)"
    ):
        go(fileset, tmp_path / "r", lumi={"2022": 2.0})
    report = go({d: e for d, e in fileset.items() if d != "met_2022"}, tmp_path / "r", lumi=5.0)
    assert any(
        "eras 2022, 2022EE: simulation of each is at 5 fb⁻¹; give each era its own with --lumi 2022=…" in n
        for n in report.notes
    )


def test_exported_names_are_not_taken_twice(two_eras):
    datasets = dict(two_eras.report["datasets"])
    for name, change, sentence in (
        ("svj_a", {"process": "tt"}, "process tt is both background and signal"),
        ("qcd_a", {"process": "tt_pdfUp"}, "two histograms would be m/inclusive/tt_pdfUp"),
        ("qcd_a", {"process": "data_obs"}, "two histograms would be m/inclusive/data_obs"),
    ):
        entry = {**datasets[name], "metadata": {**datasets[name]["metadata"], **change}}
        odd = Results(two_eras.histograms, {**two_eras.report, "datasets": {**datasets, name: entry}})
        with pytest.raises(ConfigError, match=sentence):
            shapes(odd)


def test_without_data_there_is_a_note(two_eras, tmp_path):
    datasets = {name: entry for name, entry in two_eras.report["datasets"].items() if not name.startswith("met")}
    only = Results(
        {d: h for d, h in two_eras.histograms.items() if d in datasets}, {**two_eras.report, "datasets": datasets}
    )
    assert any("no data_obs, which combine asks for" in note for note in shapes(only)[1])
    found, notes = shapes(only, asimov=True)
    assert not notes
    assert found["m/tight/data_obs"].sum().value == 14.0
    save_results({}, {**two_eras.report}, tmp_path)
    empty = load_results(tmp_path)
    with pytest.raises(ConfigError, match="no histogram over regions"):
        shapes(empty)


def test_one_configuration_has_options_by_era(fileset, tmp_path):
    only = {d: e for d, e in fileset.items() if d.startswith("qcd")}
    by_era = ["eras.2022.met_min=50", "eras.2022EE.jet_pt_min=300", "eras.2022EE.unblind=true"]
    (tmp_path / "c.yaml").write_text(
        "rt_min: null\ndphi_max: null\ndelta_eta_max: null\nlepton_pt_min: null\nmet_min: null\n"
    )

    def events(overrides, output=None, entries=only):
        report = ad.run(
            entries, "semivisible_jets", config=tmp_path / "c.yaml", overrides=overrides, executor="iterative", progress=False,
            duplicates="ignore", output=output,
        )  # fmt: skip
        return report, {d: list(e["cutflow"].values())[-1]["events"] for d, e in report.datasets.items()}

    report, both = events(by_era, tmp_path / "r")
    _, low = events(["met_min=50"])
    _, high = events(["jet_pt_min=300"])
    assert both == {"qcd_2022": low["qcd_2022"], "qcd_2022EE": high["qcd_2022EE"]}
    assert low["qcd_2022"] != high["qcd_2022"]
    assert {era: (c["met_min"], c["jet_pt_min"]) for era, c in report.config["eras"].items()} == {
        "2022": (50.0, 200.0), "2022EE": (None, 300.0),
    }  # fmt: skip
    assert load_results(tmp_path / "r").report["config"]["eras"]["2022"]["met_min"] == 50.0
    assert "MET" in report.datasets["qcd_2022"]["cutflow"]
    assert "MET" not in report.datasets["qcd_2022EE"]["cutflow"]


def test_branches_are_asked_for_in_their_era_only(fileset, tmp_path):
    """A trigger that one era has and the other has not, before the run and on the workers."""
    path = copy_events(DATA / "qcd_v15.root", tmp_path / "late.root", drop=("HLT_PFHT1050",))
    only = {
        "early": fileset["qcd_2022"],
        "late": {"files": {str(path): "Events"}, "metadata": fileset["qcd_2022EE"]["metadata"]},
    }
    words = [*WORDS, "eras.2022.triggers=[HLT_PFHT1050]", "eras.2022EE.triggers=[]"]
    for preflight in (True, False):
        report = ad.run(
            only, "semivisible_jets", config="none", overrides=words, executor="iterative", progress=False, preflight=preflight,
            duplicates="ignore",
        )  # fmt: skip
        assert report.complete
    with pytest.raises(MissingBranch, match=r"late.root: .*HLT_PFHT1050"):
        ad.run(
            only,
            "semivisible_jets",
            config="none",
            overrides=[*WORDS, "triggers=[HLT_PFHT1050]"],
            executor="iterative",
            progress=False,
        )


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        (["eras.2022.met_min=1"], UnknownName, "unknown era of qcd_2022EE in the configuration '2022EE'"),
        (["eras.2022.met_mim=1"], ConfigError, r"unknown key 'met_mim'; did you mean 'met_min'\?.*\(in eras.2022\)"),
        (["eras=2022"], ConfigError, "eras must hold an era and its keys"),
        (["eras.2022=5"], ConfigError, "eras must hold an era and its keys"),
    ],
)
def test_wrong_eras_in_a_configuration_are_one_sentence(fileset, words, error, sentence):
    only = {"qcd_2022EE": fileset["qcd_2022EE"]}
    with pytest.raises(error, match=sentence):
        ad.run(only, "semivisible_jets", config="none", overrides=words, executor="iterative", progress=False)


def test_a_dataset_without_an_era_has_no_configuration_by_era(fileset):
    plain = {"qcd": {**fileset["qcd_2022"], "metadata": {"xsec": 1.0, "is_mc": True}}}
    with pytest.raises(
        ConfigError, match=r"dataset qcd: the configuration is by era \(2022\), and its metadata name none"
    ):
        ad.run(
            plain,
            "semivisible_jets",
            config="none",
            overrides=["eras.2022.met_min=1"],
            executor="iterative",
            progress=False,
        )


@pytest.mark.dask
def test_workers_process_each_era_by_its_own_configuration(fileset, on, tmp_path):
    words = [*WORDS, "eras.2022.jet_pt_min=250", "eras.2022EE.corrections.shape_only=[]"]
    for executor in ("iterative", "dask"):
        ad.run(
            fileset, "semivisible_jets", model=DATA / "wnae.onnx", config="none", overrides=words, output=tmp_path / executor,
            lumi="2022=2,2022EE=3", progress=False, duplicates="ignore", chunksize=60, **on(executor),
        )  # fmt: skip
    one, two = (load_results(tmp_path / executor) for executor in ("iterative", "dask"))
    assert_identical(one.histograms, two.histograms)
    assert one.regions == two.regions != {}
    for part in ("regions", "variations", "config"):
        assert one.report[part] == two.report[part], part
    assert (
        one.report["datasets"]["met_2022"]["hidden_cells"] == two.report["datasets"]["met_2022"]["hidden_cells"] != []
    )
