"""Any model of whole events in NanoAOD: objects, regions, observables, variations, blinding."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
import vector
from test_event_models import graph
from toys import DATA, assert_identical, copy_events, open_events

import coffea_ad as ad
from coffea_ad import features, recipes
from coffea_ad.corrections import scale_jets, with_jets
from coffea_ad.errors import ConfigError
from coffea_ad.features.object_options import AllObjectOptions, ObjectOptions
from coffea_ad.features.spec import feature_spec
from coffea_ad.modelfiles.attach import AttachConfig, attach
from coffea_ad.scoring.specs import InputSpec
from coffea_ad.scoring.trained_on import model_jets, model_objects
from coffea_ad.splits import event_uniform

pytestmark = pytest.mark.torch  # the onnx package comes with it

TTBAR = DATA / "ttbar_v15.root"
PT_ONLY = {"scaling": "none", "columns": ["pt"]}
OBSERVABLES = ("met", "ht", "n_jets", "n_leptons", "leading_lepton_pt", "leading_jet_pt", "mll", "mlj", "mjj")
MASSES = {"muon": 0.1056583745, "electron": 0.00051099895}


def entry(path, mc=True):
    return {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 30.0} if mc else {"is_mc": False}}


def sum_of(feature, options, **more):
    """A model that adds all numbers of a row up."""
    shape = list(features.get(feature).row_shape(features.get(feature).resolve(options)))
    axes = {"axes": np.arange(1, 1 + len(shape))}
    plain = graph({"features": shape}, [("ReduceSum", ("features", "axes"), "score", {"keepdims": 0})], axes)
    config = AttachConfig(name=f"sum-{feature}", method="sum", features=({"name": feature, "options": options},))
    return attach(plain, config, **more)


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    """Rows of three features, of all events of one file."""
    folder = tmp_path_factory.mktemp("skim")
    wanted = [
        {"name": "event_objects", "options": PT_ONLY},
        {"name": "dijet", "options": {"source": "stored"}},
        {"name": "rmm_zones", "options": {}},
    ]
    overrides = [f"features={wanted}", "leading_lepton_pt_min=0", "n_jets_min=null"]
    ad.run({"ttbar": entry(TTBAR)}, "skim_events", overrides=overrides, executor="iterative", output=folder)
    return folder


@pytest.fixture(scope="module")
def models(skim, tmp_path_factory):
    """Sums of the rows of each feature, with two regions."""
    folder = tmp_path_factory.mktemp("models")
    for feature, options in (("event_objects", PT_ONLY), ("dijet", {"source": "stored"}), ("rmm_zones", {})):
        data = sum_of(feature, options, background=skim, efficiencies=(0.5, 0.25))
        (folder / f"{feature}.onnx").write_bytes(data)
    return folder


def go(output, *overrides, model=None, path=TTBAR, mc=True, **how):
    settings = {"executor": "iterative", "lumi": 1.0, "progress": False} | how
    report = ad.run({"x": entry(path, mc)}, "event_anomaly", model=model, config="none", overrides=[*overrides],
                    output=output, **settings)  # fmt: skip
    return report.outputs["x"], ad.load_results(output).in_regions["x"]


def content(histograms, name, region, variation="nominal"):
    return histograms[name][{"region": region, "variation": variation}]


def total(histograms, name, region, variation="nominal"):
    return content(histograms, name, region, variation).sum(flow=True).value


def by_hand(event, o):
    """Leptons and jets of an event by falling pT, from its branches, with nothing identified or cleaned."""

    def vectors(objects, low, high, mass):
        kept = [v for v in objects if v["pt"] > low and abs(v["eta"]) < high]
        made = [
            vector.obj(
                **{k: float(v[k]) for k in ("pt", "eta", "phi")}, mass=float(v["mass"]) if mass is None else mass
            )
            for v in kept
        ]
        return sorted(made, key=lambda v: -v.pt)

    leptons = [
        v for kind, mass in MASSES.items()
        for v in vectors(event[kind.title()], o[f"{kind}_pt_min"], o[f"{kind}_eta_max"], mass)
    ]  # fmt: skip
    return sorted(leptons, key=lambda v: -v.pt), vectors(event["Jet"], o["jet_pt_min"], o["jet_eta_max"], None)


def numbers_by_hand(event, options):
    leptons, jets = by_hand(event, options)
    out = {
        "met": float(event["PuppiMET"]["pt"]),
        "ht": sum(j.pt for j in jets),
        "n_jets": len(jets),
        "n_leptons": len(leptons),
    }
    pairs = {"mll": leptons[:2], "mlj": [*leptons[:1], *jets[:1]] if leptons and jets else [], "mjj": jets[:2]}
    leading = {"leading_lepton_pt": leptons, "leading_jet_pt": jets}
    out |= {name: v[0].pt if v else np.nan for name, v in leading.items()}
    return out | {name: (v[0] + v[1]).mass if len(v) == 2 else np.nan for name, v in pairs.items()}


def test_every_observable_is_that_of_the_objects_of_the_model_in_the_region_of_the_events_score(models, tmp_path):
    """A slow twin: vectors of one event after another, and the sum of pT of what a trigger sees as its score."""
    out, histograms = go(tmp_path, model=models / "event_objects.onnx")
    tagger = ad.Tagger(models / "event_objects.onnx")
    options = features.get("event_objects").resolve(PT_ONLY).model_dump()
    events = open_events(TTBAR)
    slow = [numbers_by_hand(event, options) for event in events]
    selected = np.array([n["leading_lepton_pt"] >= 23 for n in slow])
    assert out["cutflow"]["lepton"]["events"] == selected.sum() > 30
    leptons_and_jets = [by_hand(event, options) for event in events]
    score = np.array([
        float(event["PuppiMET"]["pt"]) + sum(v.pt for v in jets[:10]) + sum(v.pt for v in leptons)
        for event, (leptons, jets) in zip(events, leptons_and_jets, strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(ak.to_numpy(tagger(events)["ad_score"])[selected], score[selected], rtol=1e-5)
    logp = ak.to_numpy(tagger(events)["ad_logp"])
    regions = {"inclusive": selected} | {r.name: selected & (logp >= r.thresholds[0]) for r in tagger.card.regions}
    assert list(histograms["met"].axes["region"]) == list(regions)
    for name in OBSERVABLES:
        column = np.array([n[name] for n in slow], float)
        for region, passed in regions.items():
            got = content(histograms, name, region)
            edges = [-np.inf, *got.axes[0].edges, np.inf]
            values = column[passed & np.isfinite(column)]
            np.testing.assert_array_equal(got.values(flow=True), np.histogram(values, edges)[0], err_msg=name)
    assert total(histograms, "mll", "inclusive") < total(histograms, "met", "inclusive")


@pytest.mark.parametrize(
    ("feature", "collection"), [("event_objects", "Jet"), ("dijet", "FatJet"), ("rmm_zones", "Jet")]
)
def test_a_shift_of_the_jets_that_a_model_takes_moves_events_between_regions(feature, collection, models, tmp_path):
    _, histograms = go(tmp_path, "jet_scale=0.1", "leading_lepton_pt_min=0", model=models / f"{feature}.onnx")
    tagger, events = ad.Tagger(models / f"{feature}.onnx"), open_events(TTBAR)
    loose = []
    for variation, factor in (("jet_scaleDown", 0.9), ("nominal", 1.0), ("jet_scaleUp", 1.1)):
        jets = scale_jets(events[collection], np.float32(factor))
        shifted = ak.with_field(jets, jets["pt"] - events[collection]["pt"], "pt_shift")
        grade = ak.to_numpy(tagger(with_jets(events, shifted, "PuppiMET", collection=collection))["ad_region"])
        assert total(histograms, "met", "inclusive", variation) == (grade >= 0).sum()
        for i, region in enumerate(tagger.card.regions):
            assert total(histograms, "met", region.name, variation) == (grade > i).sum()
        loose.append(total(histograms, "met", tagger.card.regions[0].name, variation))
    assert loose[0] < loose[1] < loose[2]


def test_models_of_different_features_sort_the_same_events_side_by_side(models, tmp_path):
    paths = [models / "event_objects.onnx", models / "rmm_zones.onnx"]
    with pytest.raises(ConfigError, match="event_anomaly: the models have different objects; say with `objects` which"):
        go(tmp_path / "a", model=paths)
    out, histograms = go(tmp_path / "b", "objects={jet_pt_min: 30}", model=paths)
    names = ["inclusive", "eff0.5", "eff0.25", "ad2_inclusive", "ad2_eff0.5", "ad2_eff0.25"]
    assert list(histograms["met"].axes["region"]) == names
    assert {"ad_logp", "ad2_logp", "ht-ad_logp", "ht-ad2_logp"} <= set(histograms)
    selected = out["cutflow"]["lepton"]["events"]
    assert total(histograms, "ht", "inclusive") == total(histograms, "ht", "ad2_inclusive") == selected > 20
    assert set(out["event_lists"]) == {"ad", "ad2", *names} - {"inclusive", "ad2_inclusive"}


def test_jets_of_two_kinds_are_not_corrected_at_once(models, tmp_path):
    paths = [models / "dijet.onnx", models / "event_objects.onnx"]
    with pytest.raises(
        ConfigError, match="event_anomaly: the models are of different jets, FatJet and Jet, and those of one"
    ):
        go(tmp_path / "a", model=paths)
    out, histograms = go(tmp_path / "b", "jet_scale=0", model=paths)
    assert total(histograms, "met", "ad2_inclusive") == out["cutflow"]["lepton"]["events"]
    assert 0 < out["unscored"] < out["cutflow"]["lepton"]["events"]  # events without two AK8 jets have no dijet


def test_objects_and_jets_are_those_that_the_cards_say():
    def card(feature, **options):
        spec = InputSpec(features=(feature_spec(feature, options),))
        return ad.ModelCard(name=feature, method="toy", level="event", inputs=(spec,))

    rmm, table, dijets = card("rmm", jet_pt_min=50.0), card("event_objects", jet_pt_min=50.0), card("dijet", jets="Fat")
    assert model_objects([rmm, dijets], AllObjectOptions, "x") == AllObjectOptions(jet_pt_min=50.0)
    assert model_objects([table], AllObjectOptions, "x") is None
    assert model_objects([table], ObjectOptions, "x").electron_eta_max == 3.0  # the feature's default, not the class's
    assert model_objects([], ObjectOptions, "x") is None
    with pytest.raises(ConfigError, match="x: the models have different objects"):
        model_objects([rmm, table], ObjectOptions, "x")
    assert model_jets([rmm, table]) == {"Jet"}
    assert model_jets([dijets, table]) == {"Fat", "Jet"}


def test_a_feature_of_ones_own_will_do(tmp_path):
    number = features.Feature(
        name="number_of_jets", version=1, level="event", columns=lambda _: (features.Column("n"),),
        reads=lambda _, __: (("Jet_pt",),), convention="", reference="",
        rows=features.at_once(lambda objects, _: np.asarray(ak.num(objects.array.Jet), np.float32)[:, None]),
    )  # fmt: skip
    features.register(number)
    (tmp_path / "n.onnx").write_bytes(sum_of("number_of_jets", {}))
    out, histograms = go(tmp_path / "r", "leading_lepton_pt_min=null", "n_jets_min=2", model=tmp_path / "n.onnx")
    assert list(out["cutflow"]) == ["all", "trigger", "filters", "defined", "jets"]
    assert total(histograms, "met", "inclusive") == out["cutflow"]["jets"]["events"] > 50
    assert total(histograms, "n_leptons", "inclusive") == 0  # not looked at, which is not 0 of them
    assert out["unscored"] == 0
    first = ad.load_results(tmp_path / "r").events("x", "ad")[0]
    assert first["ad_score"] == ak.max(ak.num(open_events(TTBAR).Jet))


def test_photons_are_read_only_to_clean_jets_of_them(tmp_path):
    module = recipes.load("event_anomaly")

    def selection(**options):
        return {b for way in module.Processor(module.Config(**options)).reads()["the selection"] for b in way}

    assert not any(b.startswith("Photon") for b in selection())
    assert "Photon_pt" in selection(objects={"jet_pt_min": 40})
    without = {"objects": {"cleaning": 0}, "leading_lepton_pt_min": None}
    assert {b.split("_")[0] for b in selection(**without)} == {"Jet", "PuppiMET"}


@pytest.mark.parametrize(
    ("cut", "observable"), [("ht_min=300", "ht"), ("met_min=60", "met"), ("n_jets_min=5", "n_jets")]
)
def test_a_cut_takes_what_is_at_least_that(cut, observable, tmp_path):
    _, histograms = go(tmp_path, cut, "leading_lepton_pt_min=0", "jet_scale=0")
    content_of = content(histograms, observable, "inclusive")
    filled = content_of.axes[0].centers[content_of.values() > 0]
    assert filled.min() > float(cut.partition("=")[2]) - 1
    assert 5 < content_of.sum(flow=True).value < 95


def test_data_in_the_tightest_region_are_hidden(models, tmp_path):
    file = copy_events(TTBAR, tmp_path / "data.root", drop=("Gen", "gen"))
    seen = {}
    for name, more in (("blind", []), ("open", ["unblind=true"])):
        out, histograms = go(tmp_path / name, *more, model=models / "event_objects.onnx", path=file, mc=False)
        seen[name] = [total(histograms, "mll", r) for r in ("inclusive", "eff0.25")]
        assert bool(out["event_lists"]) is (name == "open")
    assert list(histograms["met"].axes["variation"]) == ["nominal"]
    assert seen["open"][1] > 0
    assert seen["blind"] == [seen["open"][0] - seen["open"][1], 0.0]
    with pytest.raises(ConfigError, match="blinded data need a selection that cuts"):
        go(tmp_path / "all", "leading_lepton_pt_min=0", model=models / "event_objects.onnx", path=file, mc=False)


def test_undefined_events_pass_no_cut_and_are_counted(models, tmp_path):
    def spoil(columns):
        columns["PuppiMET_pt"][:7] = np.nan

    file = copy_events(TTBAR, tmp_path / "x.root", change=spoil)
    model = models / "event_objects.onnx"
    out, histograms = go(tmp_path / "r", "leading_lepton_pt_min=0", model=model, path=file)
    assert (out["undefined"], out["undefined_in"]) == (7, {"PuppiMET_pt": 7})
    assert out["cutflow"]["lepton"]["events"] == out["cutflow"]["all"]["events"] - 7 == 93
    # what the selection takes and the feature does not, events without a lepton of 23 GeV, has no score
    grade = ak.to_numpy(ad.Tagger(model)(open_events(file))["ad_region"])
    assert out["unscored"] == (grade[7:] < 0).sum() > 0
    assert total(histograms, "met", "inclusive") == (grade[7:] >= 0).sum()


def test_events_that_trained_the_model_are_left_out(tmp_path):
    overrides = [
        f"features=[{{name: event_objects, options: {PT_ONLY}}}]",
        "training_fraction=0.3",
        "leading_lepton_pt_min=0",
    ]
    ad.run(
        {"x": entry(TTBAR)},
        "skim_events",
        overrides=overrides,
        executor="iterative",
        output=tmp_path / "s",
        progress=False,
    )
    (tmp_path / "m.onnx").write_bytes(sum_of("event_objects", PT_ONLY, background=tmp_path / "s", efficiencies=(0.5,)))
    with pytest.raises(
        ConfigError, match="event_anomaly: sum-event_objects was trained on a fraction 0.3 of the events"
    ):
        go(tmp_path / "r", "training_fraction=0.1", model=tmp_path / "m.onnx")
    out, _ = go(tmp_path / "r", model=tmp_path / "m.onnx")
    ids = (np.asarray(open_events(TTBAR)[k]) for k in ("run", "luminosityBlock", "event"))
    assert out["left_out"] == (event_uniform("training", *ids) < 0.3).sum()


@pytest.mark.dask
def test_a_spawned_worker_and_chunks_give_the_same(models, on, tmp_path):
    paths = [models / "event_objects.onnx", models / "dijet.onnx"]
    for executor, chunksize in (("iterative", 1000), ("dask", 30)):
        how = {**on(executor), "chunksize": chunksize}
        go(tmp_path / executor, "jet_scale=0", model=paths, **how)
    one, two = (ad.load_results(tmp_path / executor) for executor in ("iterative", "dask"))
    assert_identical(one.histograms, two.histograms)
    assert one.report["outputs"]["x"]["cutflow"] == two.report["outputs"]["x"]["cutflow"]
    events = [r.events("x", "ad") for r in (one, two)]
    assert events[0]["entry"].to_list() == events[1]["entry"].to_list()


def test_a_model_of_jets_is_refused(model_file, tmp_path):
    with pytest.raises(ConfigError, match="event_anomaly: .* is a model of FatJet, and whole events are scored here"):
        go(tmp_path, model=model_file)


@pytest.mark.real
def test_real_events_are_sorted_as_the_tagger_sorts_them(models, real, tmp_path):
    """Simulation without photons; data; a file without events."""
    model, names = models / "event_objects.onnx", ("nano_tt_v12", "nano_dimuon", "nano_dy_empty")
    fileset = {name: entry(real / f"{name}.root", mc=name != "nano_dimuon") for name in names}
    report = ad.run(fileset, "event_anomaly", model=model, config="none", overrides=["unblind=true", "jet_scale=0"],
                    executor="iterative", output=tmp_path, lumi=1.0, progress=False, preflight=False)  # fmt: skip
    histograms = ad.load_results(tmp_path).in_regions
    assert report.outputs["nano_dy_empty"]["events"] == 0
    for name in names[:2]:
        events = open_events(real / f"{name}.root")
        grade = ak.to_numpy(ad.Tagger(model)(events)["ad_region"])
        # the feature asks for a lepton of 23 GeV, too
        assert report.outputs[name]["cutflow"]["lepton"]["events"] == (grade >= 0).sum() > 5
        weight = np.asarray(events.genWeight) if name != "nano_dimuon" else np.ones(len(events))
        assert total(histograms[name], "met", "eff0.25") == pytest.approx(weight[grade == 2].sum())
        assert report.outputs[name]["undefined"] == 0
