"""The search with the rapidity-mass matrix: masses, regions, the events that trained the model."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
import vector
from test_event_models import graph
from toys import DATA, copy_events, open_events

import coffea_ad as ad
from coffea_ad.corrections import with_jets
from coffea_ad.errors import ConfigError
from coffea_ad.features.two_body import TWO_BODY
from coffea_ad.modelfiles.attach import AttachConfig, attach
from coffea_ad.modelfiles.thresholds import new_regions
from coffea_ad.scoring import regions
from coffea_ad.splits import event_uniform

pytestmark = pytest.mark.torch  # the onnx package comes with it

LOOSE = ["leading_lepton_pt_min=0", "jet_scale=0"]
LUMI = 10.0
XSEC = 30.0


def entry(path, mc=True):
    metadata = {"is_mc": True, "xsec": XSEC} if mc else {"is_mc": False}
    return {"files": {str(path): "Events"}, "metadata": metadata}


def cell_sum(**options):
    """Sum of the 1287 cells, without calibration."""
    plain = graph(
        {"features": [1287]}, [("ReduceSum", ("features", "axis"), "score", {"keepdims": 0})], {"axis": np.array([1])}
    )
    feature = {"name": "rmm", "options": options}
    return plain, AttachConfig(name="rmm-sum", method="sum", features=(feature,))


def skim(fileset, folder, *more):
    ad.run(fileset, "skim_events", overrides=[*more, "leading_lepton_pt_min=0"], executor="iterative", output=folder)
    return folder


@pytest.fixture(scope="module")
def ttbar():
    return {"ttbar": entry(DATA / "ttbar_v15.root")}


@pytest.fixture(scope="module")
def model(ttbar, tmp_path_factory):
    """The sum of cells with regions of 10 % and 1 % of the events of one file."""
    folder = tmp_path_factory.mktemp("rmm")
    data, config = cell_sum()
    made = attach(data, config, background=skim(ttbar, folder / "skim"), efficiencies=(0.5, 0.25, 0.1))
    (folder / "rmm.onnx").write_bytes(made)
    return folder / "rmm.onnx"


def go(fileset, output, *overrides, model=None, **kwargs):
    settings = {"executor": "iterative", "lumi": LUMI, **kwargs}
    return ad.run(fileset, "rmm_two_body", model=model, overrides=[*overrides], output=output, **settings)


def by_hand(events, options):
    """Kinds of objects of every event, as lists of vectors, from the branches."""

    def close(a, others):
        return any(np.hypot(a.eta - b.eta, a.deltaphi(b)) < options["cleaning"] for b in others)

    out = []
    for event in events:
        leptons = {}
        for kind, name, mass, good in (
            ("muon", "Muon", 0.1056583745, lambda o: o["mediumId"] and o["pfRelIso04_all"] < 0.15),
            ("electron", "Electron", 0.00051099895, lambda o: o["mvaIso_WP90"]),
            ("photon", "Photon", 0.0, lambda o: o["mvaID_WP90"]),
        ):
            kept = [o for o in event[name] if o["pt"] > 30 and abs(o["eta"]) < 2.4 and good(o)]
            leptons[kind] = [
                vector.obj(pt=float(o["pt"]), eta=float(o["eta"]), phi=float(o["phi"]), mass=mass) for o in kept
            ]
        leptons["photon"] = [p for p in leptons["photon"] if not close(p, [*leptons["muon"], *leptons["electron"]])]
        jets = {"jet": [], "bjet": []}
        for o in event["Jet"]:
            jet = vector.obj(pt=float(o["pt"]), eta=float(o["eta"]), phi=float(o["phi"]), mass=float(o["mass"]))
            if jet.pt > 30 and abs(jet.eta) < 2.4 and not close(jet, [v for k in leptons.values() for v in k]):
                jets["bjet" if o["btagUParTAK4B"] > 0.2789 else "jet"].append(jet)
        out.append({k: sorted(v, key=lambda o: -o.pt) for k, v in {**leptons, **jets}.items()})
    return out


def test_the_nine_masses_are_those_of_the_leading_objects(ttbar, tmp_path):
    events = open_events(DATA / "ttbar_v15.root")
    from coffea_ad.features.object_options import AllObjectOptions
    from coffea_ad.features.objects import select_objects
    from coffea_ad.features.two_body import two_body_masses
    from coffea_ad.nanoaod.objects import Objects

    options = AllObjectOptions()
    masses = two_body_masses(select_objects(Objects.events(events), options, (50, 50, 20, 20, 20)))
    kinds = by_hand(events, options.model_dump())
    there = dict.fromkeys(TWO_BODY, 0)
    for i, event in enumerate(kinds):
        for name, (one, two) in TWO_BODY.items():
            pair = event[one][:2] if one == two else [*event[one][:1], *event[two][:1]]
            if len(pair) < 2 or (one != two and not (event[one] and event[two])):
                assert np.isnan(masses[name][i]), (i, name)
            else:
                assert masses[name][i] == pytest.approx((pair[0] + pair[1]).mass, rel=1e-6), (i, name)
                there[name] += 1
    assert all(there[name] for name in ("mjj", "mbb", "mjb", "mje", "mbe", "mjmu", "mbmu")), there
    report = go(ttbar, tmp_path, *LOOSE)
    kept = np.array([len(e["jet"]) + len(e["bjet"]) >= 1 for e in kinds])
    assert report.outputs["ttbar"]["cutflow"]["jets"]["events"] == kept.sum()
    histograms = ad.load_results(tmp_path).in_regions["ttbar"]
    assert set(TWO_BODY) <= set(histograms)
    for name in TWO_BODY:
        content = histograms[name][{"region": "inclusive", "variation": "nominal"}]
        good = kept & np.isfinite(masses[name])
        expected = np.histogram(masses[name][good], content.axes[0].edges, weights=np.asarray(events.genWeight)[good])[
            0
        ]
        np.testing.assert_allclose(content.values(), expected, rtol=1e-6)


def test_the_objects_are_those_of_the_model(tmp_path, ttbar):
    data, config = cell_sum(jet_pt_min=80.0)
    (tmp_path / "m.onnx").write_bytes(attach(data, config))
    counts = {}
    for name, model in (("default", None), ("model", tmp_path / "m.onnx")):
        counts[name] = go(ttbar, tmp_path / name, *LOOSE, model=model).outputs["ttbar"]["cutflow"]["jets"]["events"]
    assert 0 < counts["model"] < counts["default"]
    again = go(ttbar, tmp_path / "x", *LOOSE, "objects={jet_pt_min: 30}", model=tmp_path / "m.onnx")
    assert again.outputs["ttbar"]["cutflow"]["jets"]["events"] == counts["default"]
    data, config = cell_sum()
    (tmp_path / "n.onnx").write_bytes(attach(data, config))
    with pytest.raises(ConfigError, match="rmm_two_body: the models have different objects"):
        go(ttbar, tmp_path / "y", *LOOSE, model=[tmp_path / "m.onnx", tmp_path / "n.onnx"])


def test_events_are_in_the_nested_regions_that_their_score_passes(ttbar, model, tmp_path):
    go(ttbar, tmp_path, *LOOSE, model=model)
    histograms = ad.load_results(tmp_path).in_regions["ttbar"]
    tagger = ad.Tagger(model)
    assert [r.name for r in tagger.card.regions] == ["eff0.5", "eff0.25", "loose"]
    events = open_events(DATA / "ttbar_v15.root")
    events = events[np.array([len(e["jet"]) + len(e["bjet"]) > 0 for e in by_hand(events, {"cleaning": 0.4})])]
    logp = ak.to_numpy(tagger(events)["ad_logp"])
    weight = np.asarray(events.genWeight)
    assert list(histograms["met"].axes["region"]) == ["inclusive", "eff0.5", "eff0.25", "loose"]
    for region in ("inclusive", *tagger.card.regions):
        name, threshold = (region, 0.0) if isinstance(region, str) else (region.name, region.thresholds[0])
        content = histograms["met"][{"region": name, "variation": "nominal"}].sum(flow=True).value
        assert content == pytest.approx(weight[logp >= threshold].sum(), rel=1e-6)
    assert {k: sorted(cells) for k, cells in regions.definitions(tagger.card.regions, jets=False).items()} == {
        "inclusive": ["0", "1", "2", "3"], "eff0.5": ["1", "2", "3"], "eff0.25": ["2", "3"], "loose": ["3"],
    }  # fmt: skip


def test_a_card_without_regions_fills_the_inclusive_one(ttbar, tmp_path):
    data, config = cell_sum()
    (tmp_path / "m.onnx").write_bytes(attach(data, config))
    go(ttbar, tmp_path / "r", *LOOSE, model=tmp_path / "m.onnx")
    named = ad.load_results(tmp_path / "r").in_regions["ttbar"]
    assert list(named["mjj"].axes["region"]) == ["inclusive"]
    report = go(ttbar, tmp_path / "none", *LOOSE)
    assert named["met"].sum(flow=True) == report.outputs["ttbar"]["histograms"]["met"].sum(
        flow=True
    )  # all have a score
    assert "ad_logp" not in named  # nor has it a calibration


def test_jet_energies_move_masses_missing_momentum_and_scores(ttbar, model, tmp_path):
    go(ttbar, tmp_path, "leading_lepton_pt_min=0", "jet_scale=0.1", model=model)
    histograms = ad.load_results(tmp_path).in_regions["ttbar"]
    assert list(histograms["mjj"].axes["variation"]) == ["nominal", "jet_scaleUp", "jet_scaleDown"]

    def mean(name, region, variation):
        content = histograms[name][{"region": region, "variation": variation}]
        return np.average(content.axes[0].centers, weights=content.values())

    down, nominal, up = (mean("mjj", "inclusive", v) for v in ("jet_scaleDown", "nominal", "jet_scaleUp"))
    assert down < nominal < up
    assert up / nominal == pytest.approx(1.1, abs=0.05)
    logp = [mean("ad_logp", "inclusive", v) for v in ("jet_scaleDown", "nominal", "jet_scaleUp")]
    assert logp[0] < logp[1] < logp[2]  # the sum of cells grows with every energy
    met = [histograms["met"][{"region": "inclusive", "variation": v}].values() for v in ("nominal", "jet_scaleUp")]
    assert not np.array_equal(*met)


def test_shifted_jets_are_taken_out_of_the_missing_momentum():
    from coffea_ad import recipes

    events = open_events(DATA / "ttbar_v15.root")
    made = recipes.load(recipes.find("rmm_two_body"))
    analysis = made.Processor(made.Config(jet_scale=0.1))
    moved = dict(analysis.corrector.jets(events))["jet_scaleUp"]
    shifted = with_jets(events, moved, "PuppiMET")
    jets = events["Jet"][events["Jet"]["pt"] * 1.1 > 15]
    for f in (np.cos, np.sin):
        wanted = events["PuppiMET"]["pt"] * f(events["PuppiMET"]["phi"]) - 0.1 * ak.sum(
            jets["pt"] * f(jets["phi"]), axis=1
        )
        got = shifted["PuppiMET"]["pt"] * f(shifted["PuppiMET"]["phi"])
        np.testing.assert_allclose(ak.to_numpy(got), ak.to_numpy(wanted), atol=1e-2)


def test_events_that_trained_are_not_searched_and_none_is_lost(ttbar, tmp_path):
    """The skim has exactly the events that the search leaves out, and the luminosity is less by their part."""
    fraction = 0.3
    folder = skim(ttbar, tmp_path / "skim", f"training_fraction={fraction}", "n_jets_min=0")
    events = open_events(DATA / "ttbar_v15.root")
    u = event_uniform("training", *(np.asarray(events[k]) for k in ("run", "luminosityBlock", "event")))
    from coffea_ad.skims.reading import load_skim

    data = load_skim(folder, "rmm")
    assert set(data.spectators["event"].tolist()) == set(np.asarray(events.event)[u < fraction].tolist())
    sumw = np.asarray(events.genWeight)[u < fraction].sum()
    assert data.provenance["sumw"]["ttbar"] == pytest.approx(sumw)
    # the skim stands for the whole visible cross-section, within what the choice of events does to it
    assert data.provenance["total_weight"] == pytest.approx(XSEC, rel=1e-6)

    plain, config = cell_sum()
    model = tmp_path / "m.onnx"
    model.write_bytes(attach(plain, config, background=folder, efficiencies=(0.5,)))
    for name, more in (("card", []), ("config", [f"training_fraction={fraction}"])):
        report = go(ttbar, tmp_path / name, *LOOSE, "n_jets_min=0", *more, model=model if name == "card" else None)
        assert report.outputs["ttbar"]["left_out"] == (u < fraction).sum()
        assert report.outputs["ttbar"]["cutflow"]["all"]["events"] == (u >= fraction).sum()
        assert report.datasets["ttbar"]["events"] == len(events)
        assert report.datasets["ttbar"]["lumi"] == pytest.approx((1 - fraction) * LUMI)
        assert any("trained the model and are left out" in note and "7 of 10 fb⁻¹" in note for note in report.notes)
        results = ad.load_results(tmp_path / name)
        met = results.scaled("ttbar", "met")[{"region": "inclusive", "variation": "nominal"}]
        # all events are selected: cross-section times the luminosity that is left
        assert met.sum(flow=True).value == pytest.approx(XSEC * 1000 * LUMI * (1 - fraction), rel=1e-6)


def test_data_are_not_rescaled_and_have_the_luminosity_that_is_left(tmp_path):
    file = copy_events(DATA / "ttbar_v15.root", tmp_path / "data.root", drop=("Gen", "gen"))
    report = go({"data": entry(file, mc=False)}, tmp_path / "r", *LOOSE, "training_fraction=0.25")
    results = ad.load_results(tmp_path / "r")
    assert results.norm("data") == 1.0
    assert report.datasets["data"]["lumi"] == pytest.approx(0.75 * LUMI)
    n = results.in_regions["data"]["met"][{"region": "inclusive", "variation": "nominal"}].sum(flow=True).value
    assert n == report.outputs["data"]["cutflow"]["jets"]["events"]
    assert list(results.in_regions["data"]["met"].axes["variation"]) == ["nominal"]


def test_another_training_than_the_models_is_refused(ttbar, tmp_path):
    folder = skim(ttbar, tmp_path / "skim", "training_fraction=0.3")
    plain, config = cell_sum()
    model = tmp_path / "m.onnx"
    model.write_bytes(attach(plain, config, background=folder, efficiencies=(0.5,)))
    for wrong in ("training_fraction=0.1", "training_salt=other"):
        with pytest.raises(
            ConfigError, match="rmm-sum was trained on a fraction 0.3 of the events .* do not leave out"
        ):
            go(ttbar, tmp_path / "r", *LOOSE, wrong, model=model)
    report = go(ttbar, tmp_path / "r", *LOOSE, "training_fraction=0.4", model=model)
    assert report.datasets["ttbar"]["lumi"] == pytest.approx(0.6 * LUMI)


def test_data_in_the_tightest_region_are_hidden(model, tmp_path):
    file = copy_events(DATA / "ttbar_v15.root", tmp_path / "data.root", drop=("Gen", "gen"))
    fileset = {"data": entry(file, mc=False)}
    seen = {}
    for name, more in (("blind", []), ("open", ["unblind=true"])):
        report = go(fileset, tmp_path / name, *LOOSE, *more, model=model)
        met = ad.load_results(tmp_path / name).in_regions["data"]["met"]
        seen[name] = [met[{"region": r, "variation": "nominal"}].sum(flow=True).value for r in ("inclusive", "loose")]
        assert report.outputs["data"]["cutflow"]["jets"]["events"] == seen[name][0]
    assert seen["open"][1] > 0
    assert seen["blind"] == [seen["open"][0] - seen["open"][1], 0.0]


def test_undefined_events_are_counted_and_pass_no_cut(tmp_path):
    def spoil(columns):
        columns["PuppiMET_pt"][:7] = np.nan

    file = copy_events(DATA / "ttbar_v15.root", tmp_path / "x.root", change=spoil)
    report = go({"ttbar": entry(file)}, tmp_path / "r", *LOOSE, "n_jets_min=0")
    out = report.outputs["ttbar"]
    assert out["undefined"] == 7
    assert out["cutflow"]["jets"]["events"] == out["cutflow"]["all"]["events"] - 7


def test_a_model_of_jets_is_refused(ttbar, model_file, tmp_path):
    with pytest.raises(ConfigError, match="rmm_two_body: .* is a model of FatJet, and whole events are scored here"):
        go(ttbar, tmp_path, model=model_file)


def test_mass_axes_begin_below_their_end(ttbar, tmp_path):
    with pytest.raises(ConfigError, match="mass_min 5000 is not below mass_max 100"):
        go(ttbar, tmp_path, "mass_min=5000", "mass_max=100")


# Visible cross-sections


class Toy:
    """Background of a known visible cross-section with a falling score."""

    def __init__(self, seed, n=20_000, total=25.0):
        rng = np.random.default_rng(seed)
        self.score, self.weight = rng.exponential(size=n), np.full(n, total / n) * rng.uniform(0.5, 1.5, n)
        self.weight *= total / self.weight.sum()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thresholds_from_histograms_keep_their_visible_cross_section_on_independent_events(seed):
    from coffea_ad import histograms
    from coffea_ad.modelfiles.thresholds import _Rates

    one, other = Toy(seed), Toy(seed + 100)
    table = regions.calibrate(one.score, one.weight, "toy")

    class Card:
        calibrations = (table,)

    axis = histograms.logp_axis(Card)
    filled = histograms.book([axis], ["all"], ["nominal"])
    logp = {"ad_logp": regions.logp(table, one.score)}
    histograms.fill(filled, np.full(len(one.score), "all"), "nominal", logp, one.weight)
    content = filled[{"cell": "all", "variation": "nominal"}]
    values = regions.logp(table, other.score)
    for label, eps in _Rates((), (10.0, 1.0, 0.1)).regions(one.weight.sum()):
        threshold, error, n_eff = regions.binned_threshold(axis.edges, content.values(), content.variances(), eps)
        kept = other.weight[values >= threshold]
        wanted = float(label.removesuffix("pb"))
        sigma = np.hypot(np.sqrt((kept**2).sum()), error * np.log(10) * wanted)
        assert abs(kept.sum() - wanted) < 3.5 * sigma, label
        assert n_eff > 10


def test_a_threshold_within_a_bin_follows_a_falling_spectrum():
    """Of 10^(−x) the fraction 10^(−t) lies above t, also between edges."""
    edges = np.linspace(0, 6, 13)
    values = 10 ** -edges[:-1] - 10 ** -edges[1:]
    for t in (0.2, 0.77, 1.3, 2.6):
        assert regions.binned_threshold(edges, values, values, 10**-t)[0] == pytest.approx(t, abs=1e-3)


@pytest.mark.parametrize("source", ["results", "skim"])
def test_regions_of_visible_cross_sections_are_made_for_models_of_events(source, ttbar, model, tmp_path):
    """X pb of the model's own background, after the cuts, from results and from a skim of the same events."""
    go(ttbar, tmp_path / "results", *LOOSE, model=model)
    skim(ttbar, tmp_path / "skim")
    moved = new_regions(model.read_bytes(), tmp_path / source, visible_cross_sections=(10.0, 3.0), name="m")
    (tmp_path / "new.onnx").write_bytes(moved)
    go(ttbar, tmp_path / "again", *LOOSE, model=tmp_path / "new.onnx")
    results = ad.load_results(tmp_path / "again")
    met = results.scaled("ttbar", "met")
    assert list(met.axes["region"]) == ["inclusive", "10pb", "3pb"]
    for name in ("10pb", "3pb"):
        content = met[{"region": name, "variation": "nominal"}].sum(flow=True)
        wanted = 1000 * LUMI * float(name.removesuffix("pb"))
        assert abs(content.value - wanted) < 3 * np.sqrt(content.variance), name


def test_visible_cross_sections_count_the_luminosity_that_is_left(ttbar, model, tmp_path):
    """Half of the events are left out, and the same regions come out within the statistics of the rest."""
    sizes = {}
    for name, more in (("all", []), ("half", ["training_fraction=0.5"])):
        go(ttbar, tmp_path / name, *LOOSE, *more, model=model)
        made = ad.OnnxScorer(new_regions(model.read_bytes(), tmp_path / name, visible_cross_sections=[10.0])).card
        sizes[name] = made.regions[0].efficiency
    assert sizes["half"] == pytest.approx(sizes["all"], rel=0.1)


def test_a_skim_of_data_needs_its_luminosity(model, tmp_path):
    file = copy_events(DATA / "ttbar_v15.root", tmp_path / "data.root", drop=("Gen", "gen"))
    folder = skim({"data": entry(file, mc=False)}, tmp_path / "skim", "training_fraction=0.5")
    settings = {"visible_cross_sections": [0.002], "datasets": ["data"], "name": "m"}
    with pytest.raises(ConfigError, match="m: visible cross-sections in a skim of data need its luminosity"):
        new_regions(model.read_bytes(), folder, **settings)
    made = ad.OnnxScorer(new_regions(model.read_bytes(), folder, lumi=LUMI, **settings)).card.regions
    from coffea_ad.skims.reading import load_skim

    rows = len(load_skim(folder, "rmm").x)
    # so many events a year in half of the luminosity: N / (L / 2)
    assert made[0].efficiency == pytest.approx(0.002 * 1000 * LUMI * 0.5 / rows)


def test_datasets_of_different_luminosities_have_no_common_cross_section(ttbar, model, tmp_path):
    import json

    go({"a": ttbar["ttbar"], "b": ttbar["ttbar"]}, tmp_path, *LOOSE, model=model)
    path = tmp_path / "report.json"
    report = json.loads(path.read_text())
    report["datasets"]["b"]["lumi"] = 3.0
    path.write_text(json.dumps(report))
    with pytest.raises(ConfigError, match=r"different luminosities \(a: 10, b: 3 fb⁻¹\)"):
        new_regions(model.read_bytes(), tmp_path, visible_cross_sections=[1.0], datasets=["a", "b"])
