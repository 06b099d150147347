from __future__ import annotations

import gzip
import json
import pickle
import re
import subprocess
import sys
import textwrap

import awkward as ak
import correctionlib.schemav2 as cs
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from coffea.jetmet_tools import (
    CorrectedJetsFactory,
    CorrectionLibJEC,
    CorrectionLibJECStack,
    CorrectionLibJER,
    CorrectionLibJERSF,
    CorrectionLibJUNC,
)
from coffea.nanoevents import NanoEventsFactory
from pydantic import ValidationError
from toys import DATA, assert_identical, copy_events, listed, open_events

import coffea_ad as ad
from coffea_ad import recipes
from coffea_ad import selection as cuts
from coffea_ad.corrections import Corrections, Corrector, EventWeight, with_shifted_jets
from coffea_ad.corrections.files import CorrectionFiles, LumiMask
from coffea_ad.errors import BadFile, CoffeaADError, ConfigError, MissingBranch
from coffea_ad.splits import event_normal

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9", "lepton_pt_min=1e4"]
MC, DATASET = {"is_mc": True, "xsec": 1.0}, {"is_mc": False}


# correction files


def variables(**inputs):
    return [cs.Variable(name=name, type=kind) for name, kind in inputs.items()]


def correction(name, data, **inputs):
    return cs.Correction(
        name=name, version=1, inputs=variables(**inputs), output=cs.Variable(name="out", type="real"), data=data
    )


def category(name, default=None, **values):
    items = [cs.CategoryItem(key=k, value=v) for k, v in values.items()]
    return cs.Category(nodetype="category", input=name, content=items, default=default)


def binning(name, edges, content, flow="error"):
    return cs.Binning(nodetype="binning", input=name, edges=list(edges), content=list(content), flow=flow)


def formula(expression, *inputs):
    return cs.Formula(nodetype="formula", expression=expression, parser="TFormula", variables=list(inputs))


def write(path, *corrections, compound=()):
    whole = cs.CorrectionSet(schema_version=2, corrections=list(corrections), compound_corrections=list(compound))
    text = whole.model_dump_json(exclude_unset=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


PILEUP = {w: np.random.default_rng(i).uniform(0.5, 1.5, 100) for i, w in enumerate(("nominal", "up", "down"))}


def pileup_file(folder):
    words = {w: binning("NumTrueInteractions", np.arange(101.0), values) for w, values in PILEUP.items()}
    return write(
        folder / "puWeights.json.gz",
        correction("Collisions", category("weights", **words), NumTrueInteractions="real", weights="string"),
    )


def veto_file(folder):
    """One hot region, and another that only the second map knows."""
    edges = [[-5.191, 0.2, 1.0, 5.191], [-3.1415926535897931, 0.0, 1.5, 3.1415926535897931]]
    maps = {
        word: cs.MultiBinning(nodetype="multibinning", inputs=["eta", "phi"], edges=edges, content=cells, flow="error")
        for word, cells in {
            "jetvetomap": [0, 0, 0, 0, 100, 0, 0, 0, 0],
            "jetvetomap_fpix": [100, 0, 0, 0, 0, 0, 0, 0, 0],
        }.items()
    }
    return write(
        folder / "jetvetomaps.json", correction("Run3", category("type", **maps), type="string", eta="real", phi="real")
    )


def energy_file(folder):
    """L1 and residual corrections, two sources, resolution; as in fatJet_jerc.json.gz."""
    stack = [
        correction("L1", formula("1-0.0005*x*y", "JetA", "Rho"), JetA="real", Rho="real", JetPt="real"),
        correction("L2", formula("1.05-0.00001*x", "JetPt"), JetPt="real", JetEta="real"),
    ]
    whole = cs.CompoundCorrection(
        name="MC_L1L2", inputs=variables(JetA="real", JetEta="real", JetPt="real", Rho="real"),
        output=cs.Variable(name="out", type="real"), inputs_update=["JetPt"], input_op="*", output_op="*",
        stack=["L1", "L2"],
    )  # fmt: skip
    return write(
        folder / "fatJet_jerc.json.gz",
        *stack,
        correction("DATA_L2", 0.97, JetPt="real", run="real"),
        correction("MC_Total", formula("0.01+0.005*abs(x)", "JetEta"), JetEta="real", JetPt="real"),
        correction("MC_Flavor", formula("0.00001*x", "JetPt"), JetEta="real", JetPt="real"),
        correction("MC_Resolution", formula("0.05+2/x", "JetPt"), JetEta="real", JetPt="real", Rho="real"),
        correction(
            "MC_Scale", category("systematic", nom=1.15, up=1.25, down=1.05), JetEta="real", systematic="string"
        ),
        compound=[whole],
    )


def golden_file(folder, runs):
    path = folder / "golden.json"
    path.write_text(json.dumps(runs))
    return str(path)


JEC = {
    "level": "MC_L1L2", "uncertainties": {"jes": "MC_Total", "flavor": "MC_Flavor"},
    "resolution": "MC_Resolution", "resolution_scale": "MC_Scale",
}  # fmt: skip
COLUMNS = {
    "prefiring": {"nominal": "L1PreFiringWeight_Nom", "up": "L1PreFiringWeight_Up", "down": "L1PreFiringWeight_Dn"},
    "isr": {"up": "PSWeight[0]", "down": "PSWeight[2]"},
    "fsr": {"up": "PSWeight[1]"},
}


def everything(folder):
    """A configuration with all corrections."""
    return {
        "lumi_mask": golden_file(folder, {"1": [[1, 1]]}),
        "jet_veto_map": {"file": veto_file(folder), "name": "Run3", "stored_id": True},
        "pileup": {"file": pileup_file(folder), "name": "Collisions"},
        "columns": COLUMNS,
        "scale": {},
        "pdf": {"alpha_s": [101, 102]},
        "jec": {"file": energy_file(folder), **JEC, "level_data": "stored"},
    }


# a file with what real ones have and the simulation of the fixtures has not


def enrich(columns):
    rng = np.random.default_rng(7)
    n = len(columns["event"])

    def lists(size):
        return ak.from_regular(ak.Array(rng.uniform(0.8, 1.2, (n, size)).astype(np.float32)))

    columns["Pileup_nTrueInt"] = rng.uniform(0, 99, n).astype(np.float32)
    for name in ("Nom", "Up", "Dn"):
        columns[f"L1PreFiringWeight_{name}"] = rng.uniform(0.9, 1, n).astype(np.float32)
    columns["PSWeight"], columns["LHEScaleWeight"], columns["LHEPdfWeight"] = lists(4), lists(9), lists(103)
    columns["Rho_fixedGridRhoFastjetAll"] = rng.uniform(10, 40, n).astype(np.float32)
    jets = columns["Jet"]
    counts = ak.num(jets["pt"])
    total = int(ak.sum(counts))
    for field, low, high in (("chEmEF", 0, 0.6), ("neEmEF", 0, 0.6), ("muEF", 0, 1)):
        jets = ak.with_field(jets, ak.unflatten(rng.uniform(low, high, total).astype(np.float32), counts), field)
    for field, values in (
        ("jetId", [0, 2, 6]),
        ("puId", [0, 4, 7]),
        ("chMultiplicity", [0, 9]),
        ("neMultiplicity", [0, 9]),
    ):
        jets = ak.with_field(jets, ak.unflatten(rng.choice(values, total).astype(np.uint8), counts), field)
    columns["Jet"] = jets
    fat = columns["FatJet"]
    counts = ak.num(fat["pt"])
    area = ak.unflatten(rng.uniform(1.8, 2.2, int(ak.sum(counts))).astype(np.float32), counts)
    # generated jets stand in the opposite order; every third is far away
    smear = ak.unflatten(rng.normal(1, 0.05, int(ak.sum(counts))).astype(np.float32), counts)
    index = counts - 1 - ak.local_index(fat["pt"])
    generated = {"pt": fat["pt"] * smear, "eta": fat["eta"] + 0.01, "phi": fat["phi"], "mass": fat["mass"]}
    columns["GenJetAK8"] = ak.zip(generated)[:, ::-1]
    place = ak.unflatten(np.arange(int(ak.sum(counts))), counts)
    columns["FatJet"] = ak.with_field(
        ak.with_field(fat, area, "area"),
        ak.values_astype(ak.where(place % 3 == 0, -1, index), np.int16),
        "genJetAK8Idx",
    )
    columns["Muon"] = ak.with_field(columns["Muon"], columns["Muon"]["pt"] > 5, "isPFcand")


SIMULATED = ("gen", "Gen", "Pileup", "L1Pre", "PSW", "LHE", "nGen", "nPSW", "nLHE")


@pytest.fixture(scope="module")
def mc_file(tmp_path_factory):
    return copy_events(DATA / "svj_v15.root", tmp_path_factory.mktemp("mc") / "svj.root", change=enrich)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    """The same events as data of three runs."""

    def collisions(columns):
        enrich(columns)
        n = len(columns["event"])
        columns["run"] = (355100 + np.arange(n) % 3).astype(np.uint32)
        columns["luminosityBlock"] = (1 + np.arange(n) // 3).astype(np.uint32)
        for name in [k for k in columns if k.startswith(SIMULATED)]:
            del columns[name]
        columns["FatJet"] = columns["FatJet"][[f for f in columns["FatJet"].fields if f != "genJetAK8Idx"]]

    return copy_events(DATA / "svj_v15.root", tmp_path_factory.mktemp("data") / "data.root", change=collisions)


@pytest.fixture
def mc(mc_file):
    return open_events(mc_file, metadata={"dataset": "svj", "filename": str(mc_file), **MC})


@pytest.fixture
def data(data_file):
    return open_events(data_file, metadata={"dataset": "data", "filename": str(data_file), **DATASET})


def corrector(collection="FatJet", **config):
    return Corrector(Corrections.model_validate(config), collection)


def search(files, tmp_path, *, model=DATA / "wnae.onnx", overrides=(), corrections=None, **kwargs):
    """Run the search over {dataset: (path, metadata)}; corrections go in through a YAML file, as an analyst's would."""
    fileset = {d: {"files": {str(path): "Events"}, "metadata": metadata} for d, (path, metadata) in files.items()}
    config = tmp_path / "search.yaml"
    config.write_text(json.dumps({"corrections": corrections or {}}))
    report = ad.run(
        fileset, "semivisible_jets", model=model, config=config, overrides=[*LOOSE, *overrides],
        executor="iterative", output=tmp_path / "results", force=True, **{"lumi": 1.0, **kwargs},
    )  # fmt: skip
    return report, ad.load_results(tmp_path / "results").in_regions


def inclusive(histogram, variation, region="inclusive"):
    return histogram[{"region": region, "variation": variation}].sum(flow=True).value


def selected(events, factor=1.0):
    """The loose selection of the search, written down again: both leading jets above 200 GeV and central, and scored."""
    jets = ad.Tagger(DATA / "wnae.onnx")(events)
    pt = jets["pt"] * np.float32(factor)
    leading = ak.argsort(pt, axis=1, ascending=False)[:, :2]
    good = (pt[leading] > 200) & (abs(jets["eta"][leading]) < 2.4) & (jets["ad_region"][leading] >= 0)
    return ak.to_numpy(ak.sum(good, axis=1) == 2)


# certified data


def test_the_lumi_mask_agrees_with_sets(tmp_path):
    from coffea.lumi_tools import LumiMask as CoffeaLumiMask  # compiles for seconds when it is imported

    ranges = {"355100": [[1, 3], [5, 5], [6, 9]], "355102": [[20, 40]]}
    sections = {(int(r), b) for r, pairs in ranges.items() for low, high in pairs for b in range(low, high + 1)}
    run = np.repeat(np.arange(355099, 355104), 50).astype(np.uint32)
    block = np.tile(np.arange(50), 5).astype(np.uint32)
    want = [(int(r), int(b)) in sections for r, b in zip(run, block, strict=True)]
    path = golden_file(tmp_path, ranges)
    assert LumiMask(path)(run, block).tolist() == want
    assert np.asarray(CoffeaLumiMask(path)(run, block)).tolist() == want


def test_only_certified_data_is_left_and_simulation_is_not_asked(data_file, mc_file, data, tmp_path):
    golden = golden_file(tmp_path, {"355100": [[1, 20]], "355102": [[11, 30]]})
    report, histograms = search(
        {"data": (data_file, DATASET), "svj": (mc_file, MC)},
        tmp_path,
        corrections={"lumi_mask": golden},
        overrides=["unblind=true"],
    )
    certified = corrector(lumi_mask=golden).certified(data)
    assert certified.sum() == 40
    steps = report.datasets["data"]["cutflow"]
    assert list(steps)[:2] == ["all", "certified"]
    assert (steps["all"]["events"], steps["certified"]["events"]) == (150, 40)
    assert inclusive(histograms["data"]["mt"], "nominal") == (selected(data) & certified).sum() > 5
    assert report.datasets["svj"]["cutflow"]["certified"]["events"] == 150
    assert corrector().certified(data).all()


# weights


def test_pileup_weights_agree_with_a_lookup(mc, data, tmp_path):
    own = corrector(pileup={"file": pileup_file(tmp_path), "name": "Collisions"})
    weights = own.weights(mc)
    n = ak.to_numpy(mc.Pileup.nTrueInt)
    for variation, word in ((None, "nominal"), ("pileupUp", "up"), ("pileupDown", "down")):
        np.testing.assert_allclose(weights.weight(variation), PILEUP[word][np.floor(n).astype(int)], rtol=1e-12)
    assert own.weight_variations == ("pileupUp", "pileupDown")
    of_data = own.weights(data)
    assert of_data.weight().tolist() == [1.0] * 150
    assert of_data.variations == set()


def test_columns_are_weights_relative_to_one_or_to_their_nominal(mc):
    own = corrector(columns=COLUMNS)
    weights = own.weights(mc)
    nominal, up, down = (ak.to_numpy(mc.L1PreFiringWeight[k]) for k in ("Nom", "Up", "Dn"))
    shower = ak.to_numpy(mc.PSWeight)
    expected = {
        None: nominal, "prefiringUp": up, "prefiringDown": down, "isrUp": nominal * shower[:, 0],
        "isrDown": nominal * shower[:, 2], "fsrUp": nominal * shower[:, 1], "fsrDown": nominal,
    }  # fmt: skip
    for variation, values in expected.items():
        np.testing.assert_allclose(weights.weight(variation), values, rtol=1e-6)
    assert own.weight_variations == tuple(expected)[1:]


@pytest.mark.parametrize("size", [8, 9])
def test_scales_are_taken_relative_to_the_central_one(size, tmp_path):
    scales = [(r, f) for r in (0.5, 1, 2) for f in (0.5, 1, 2)]
    values = {s: 1 + 0.1 * i for i, s in enumerate(scales)}
    if size == 8:  # relative to a central one that is not written
        values = {s: v / values[1, 1] for s, v in values.items() if s != (1, 1)}

    def change(columns):
        columns["LHEScaleWeight"] = ak.from_regular(ak.Array(np.tile(np.float32(list(values.values())), (150, 1))))

    path = copy_events(DATA / "svj_v15.root", tmp_path / "mc.root", change=change)
    own = corrector(scale={})
    weights = own.weights(open_events(path, metadata=MC))
    centre = values.get((1, 1), 1.0)
    for name, up in (("muR", (2, 1)), ("muF", (1, 2)), ("muRmuF", (2, 2))):
        down = tuple(1 / s for s in up)
        for direction, scale in (("Up", up), ("Down", down)):
            np.testing.assert_allclose(weights.weight(f"{name}{direction}"), values[scale] / centre, rtol=1e-6)
    assert own.weight_variations == ("muRUp", "muRDown", "muFUp", "muFDown", "muRmuFUp", "muRmuFDown")


@pytest.mark.parametrize("kind", ["hessian", "replicas"])
def test_parton_densities_spread_around_the_central_member(mc, kind):
    weights = corrector(pdf={"kind": kind, "alpha_s": [101, 102]}).weights(mc)
    table = ak.to_numpy(mc.LHEPdfWeight).astype(np.float64)
    for event, row in enumerate(table):
        members = [w / row[0] for w in row[1:101]]
        spread = sum((m - 1) ** 2 for m in members) ** 0.5 if kind == "hessian" else np.std(members, ddof=1)
        assert weights.weight("pdfUp")[event] == pytest.approx(1 + spread)
        assert weights.weight("pdfDown")[event] == pytest.approx(1 - spread)
    np.testing.assert_allclose(weights.weight("alphaSUp"), table[:, 102] / table[:, 0])
    np.testing.assert_allclose(weights.weight("alphaSDown"), table[:, 101] / table[:, 0])


def test_the_spread_of_events_is_no_less_than_that_of_their_sum(mc):
    up = corrector(pdf={}).weights(mc).weight("pdfUp").sum() - len(mc)
    table = ak.to_numpy(mc.LHEPdfWeight)[:, :101].astype(np.float64)
    of_sum = np.sqrt(((table[:, 1:] / table[:, :1] - 1).sum(axis=0) ** 2).sum())
    assert up >= of_sum > 0


def scale_factor_file(folder):
    words = {w: binning("eta", [-2.5, 0, 2.5], [f, f + 0.1]) for w, f in (("sf", 0.9), ("sfup", 0.95), ("sfdown", 0.8))}
    by_point = category("WP", Medium=category("ValType", **words))
    inputs = {"ValType": "string", "WP": "string", "eta": "real", "pt": "real"}
    return write(folder / "muons.json", correction("ID", by_point, **inputs))


def test_a_scale_factor_is_the_product_over_the_objects_in_its_range(mc, data, tmp_path):
    weight = {
        "file": scale_factor_file(tmp_path), "name": "ID",
        "inputs": {"eta": "Muon_eta", "pt": "Muon_pt", "WP": "Medium"}, "nominal": "sf", "up": "sfup", "down": "sfdown",
        "ranges": {"Muon_eta": [-2.5, 2.5], "Muon_pt": [20, 1000], "Muon_tightId": [1, 2]},
    }  # fmt: skip
    weights = corrector(correctionlib={"muon_id": weight}).weights(mc)
    objects = 0
    for event, muons in enumerate(mc.Muon[["pt", "eta", "tightId"]].to_list()):
        for variation, low in ((None, 0.9), ("muon_idUp", 0.95), ("muon_idDown", 0.8)):
            expected = 1.0
            for muon in muons:
                if muon["pt"] >= 20 and abs(muon["eta"]) < 2.5 and muon["tightId"]:
                    expected *= low if muon["eta"] < 0 else low + 0.1
                    objects += 1
            assert weights.weight(variation)[event] == pytest.approx(expected)
    assert objects > 30
    assert corrector(correctionlib={"muon_id": weight}).weights(data).weight().tolist() == [1.0] * 150


def test_a_correction_without_a_word_for_variations_is_a_weight_only(mc, tmp_path):
    path = write(
        tmp_path / "k.json",
        correction("K", binning("ht", [0, 30, 200], [1.5, 2.0], flow="clamp"), ht="real", n="int"),
    )
    weight = {"file": path, "name": "K", "inputs": {"ht": "Pileup_nTrueInt", "n": 3}}
    own = corrector(correctionlib={"k_factor": weight})
    expected = np.where(ak.to_numpy(mc.Pileup.nTrueInt) < 30, 1.5, 2.0)
    assert own.weights(mc).weight().tolist() == expected.tolist()
    assert own.weight_variations == ()


def top_pt(events):
    nominal = 1 + np.arange(len(events)) / 100
    return {"top_pt": (nominal, nominal**2, np.ones(len(events)))}


def test_a_weight_of_ones_own_stands_beside_the_others(mc):
    own = Corrector(
        Corrections.model_validate({"columns": COLUMNS}),
        more=[EventWeight("top pT", ("GenPart_pt",), ("top_pt",), top_pt)],
    )
    assert own.weight_variations[-2:] == ("top_ptUp", "top_ptDown")
    assert own.reads()["weight top pT"] == (("GenPart_pt",), ())
    base = corrector(columns=COLUMNS).weights(mc).weight()
    np.testing.assert_allclose(own.weights(mc).weight("top_ptUp"), base * (1 + np.arange(150) / 100) ** 2)


def test_sums_of_weights_tell_what_a_variation_changes_in_all(mc, data):
    own = corrector(scale={})
    sums = own.sums(own.weights(mc))
    assert sums["nominal"] == 150
    table = ak.to_numpy(mc.LHEScaleWeight).astype(np.float64)
    assert sums["muRUp"] == pytest.approx((table[:, 7] / table[:, 4]).sum())
    assert own.sums(own.weights(mc[:0])) == dict.fromkeys(("nominal", *own.weight_variations), 0.0)


# jets


def slow_veto(events, *, recipe="run3", regions=((0.2, 1.0, 0.0, 1.5),), good=None):
    keep = []
    for jets, muons in zip(events.Jet.to_list(), events.Muon.to_list(), strict=True):
        hit = False
        for jet in jets:
            use = jet["pt"] > 15 and jet["chEmEF"] + jet["neEmEF"] < 0.9
            use = use and (good(jet) if good else bool(jet["jetId"] & (4 if recipe == "run3" else 2)))
            if recipe == "run2":
                use = use and (jet["pt"] > 50 or jet["puId"] >= 4)
                for muon in muons:
                    d = (jet["phi"] - muon["phi"] + np.pi) % (2 * np.pi) - np.pi
                    use = use and not (muon["isPFcand"] and np.hypot(jet["eta"] - muon["eta"], d) < 0.2)
            inside = any(a <= jet["eta"] < b and c <= jet["phi"] < d for a, b, c, d in regions)
            hit = hit or (use and inside)
        keep.append(not hit)
    return keep


@pytest.mark.parametrize("recipe", ["run3", "run2"])
def test_the_veto_map_agrees_with_a_loop(mc, data, tmp_path, recipe):
    own = corrector(jet_veto_map={"file": veto_file(tmp_path), "name": "Run3", "stored_id": True, "recipe": recipe})
    for events in (mc, data):
        keep = own.outside_veto(events)
        assert keep.tolist() == slow_veto(events, recipe=recipe)
        assert 0 < keep.sum() < 150


def test_several_maps_veto_together_and_jets_may_be_identified_by_a_file(mc, tmp_path):
    identity = correction(
        "Tight", binning("multiplicity", [-1, 8, 99], [0.0, binning("muEF", [-1, 0.8, 2], [1.0, 0.0])]),
        eta="real", muEF="real", multiplicity="int",
    )  # fmt: skip
    own = corrector(jet_veto_map={
        "file": veto_file(tmp_path), "name": "Run3", "stored_id": True, "types": ["jetvetomap", "jetvetomap_fpix"],
        "id_file": write(tmp_path / "jetid.json", identity), "id_name": "Tight",
    })  # fmt: skip
    assert own.outside_veto(mc).tolist() == slow_veto(
        mc,
        regions=((0.2, 1.0, 0.0, 1.5), (-5.2, 0.2, -4, 0)),
        good=lambda jet: (
            jet["chMultiplicity"] + jet["neMultiplicity"] >= 8 and jet["muEF"] < 0.8 and abs(jet["eta"]) <= 5
        ),
    )
    needed = own.reads()["the jet veto map"][0]
    assert "Jet_jetId" not in needed
    assert {"Jet_chMultiplicity", "Jet_neMultiplicity", "Jet_muEF"} <= set(needed)


def test_jets_at_the_edges_of_the_map_are_looked_up(mc, tmp_path):
    """π of float32 lies above π, and forward jets lie beyond the map."""
    jets = mc.Jet
    for field, value in (
        ("phi", np.float32(np.pi)),
        ("eta", np.float32(5.5)),
        ("pt", np.float32(99)),
        ("jetId", np.uint8(6)),
    ):
        jets = ak.with_field(jets, ak.full_like(jets["pt"], value), field)
    events = ak.with_field(mc, jets, "Jet")
    assert (
        corrector(jet_veto_map={"file": veto_file(tmp_path), "name": "Run3", "stored_id": True})
        .outside_veto(events)
        .all()
    )


def test_events_with_vetoed_jets_leave_data_and_simulation(mc_file, data_file, mc, data, tmp_path):
    config = {"jet_veto_map": {"file": veto_file(tmp_path), "name": "Run3", "stored_id": True}}
    report, histograms = search(
        {"svj": (mc_file, MC), "data": (data_file, DATASET)}, tmp_path, corrections=config, overrides=["unblind=true"]
    )
    for name, events in (("svj", mc), ("data", data)):
        keep = np.array(slow_veto(events))
        steps = report.datasets[name]["cutflow"]
        assert steps["trigger"]["events"] - steps["jet veto"]["events"] == (~keep).sum()
        assert inclusive(histograms[name]["mt"], "nominal") == (selected(events) & keep).sum()


def coffeas_jets(events, folder, *, resolution):
    """What coffea's factory makes of the same file."""
    import correctionlib

    file = correctionlib.CorrectionSet.from_file(str(folder / "fatJet_jerc.json.gz"))
    jets = events.FatJet
    raw = 1 - jets["rawFactor"]
    more = {"pt_raw": jets["pt"] * raw, "mass_raw": jets["mass"] * raw}
    more["event_rho"] = ak.broadcast_arrays(events.Rho.fixedGridRhoFastjetAll, jets["pt"])[0]
    gen = ak.pad_none(events.GenJetAK8["pt"], 1)[ak.where(jets["genJetAK8Idx"] < 0, 0, jets["genJetAK8Idx"])]
    more["pt_gen"] = ak.values_astype(ak.fill_none(ak.where(jets["genJetAK8Idx"] < 0, 0.0, gen), 0), np.float32)
    for field, values in more.items():
        jets = ak.with_field(jets, values, field)
    names = {
        "JetPt": "pt", "JetMass": "mass", "JetEta": "eta", "JetA": "area", "Rho": "event_rho", "ptRaw": "pt_raw",
        "massRaw": "mass_raw", "ptGenJet": "pt_gen",
    }  # fmt: skip
    smearing = {"jer": CorrectionLibJER(file["MC_Resolution"]), "jersf": CorrectionLibJERSF(file["MC_Scale"])}
    stack = CorrectionLibJECStack(
        jec=CorrectionLibJEC(file.compound["MC_L1L2"]),
        junc=CorrectionLibJUNC([("jes", file["MC_Total"]), ("flavor", file["MC_Flavor"])]),
        **(smearing if resolution else {}),
    )
    return CorrectedJetsFactory(names, stack).build(jets)


@pytest.mark.parametrize("resolution", [False, True])
def test_jet_energies_agree_with_coffeas_factory(mc, tmp_path, resolution):
    """Everywhere, but for the random numbers of jets without a generated one."""
    left_out = {} if resolution else {"resolution": "", "resolution_scale": ""}
    own = dict(corrector(jec={"file": energy_file(tmp_path), **JEC, **left_out}).jets(mc))
    theirs = coffeas_jets(mc, tmp_path, resolution=resolution)
    expected = {"nominal": theirs}
    for source in ("jes", "flavor"):
        expected |= {f"{source}Up": theirs[f"JES_{source}"].up, f"{source}Down": theirs[f"JES_{source}"].down}
    if resolution:
        expected |= {"jerUp": theirs["JER"].up, "jerDown": theirs["JER"].down}
    assert list(own) == list(expected)
    sure = ak.to_numpy(ak.flatten(mc.FatJet["genJetAK8Idx"] >= 0)) if resolution else slice(None)
    for variation, jets in expected.items():
        for field in ("pt", "mass"):
            one, two = (ak.to_numpy(ak.flatten(j[field]))[sure] for j in (own[variation], jets))
            # a jet that is 3σ from its generated one is none for either, but the two take σ at different precision
            assert np.isclose(one, two, rtol=2e-5).mean() > 0.98, (variation, field)
    stored = mc.FatJet["pt"]
    assert ak.all(own["jesUp"]["pt"] > own["nominal"]["pt"])
    np.testing.assert_allclose(ak.flatten(own["jesUp"]["pt_shift"]), ak.flatten(own["jesUp"]["pt"] - stored), rtol=1e-6)
    ratio = ak.flatten(own["jesUp"]["pt"] / own["nominal"]["pt"])
    np.testing.assert_allclose(
        ak.flatten(own["jesUp"]["msoftdrop"]), ak.flatten(mc.FatJet["msoftdrop"]) * ratio, rtol=1e-5
    )


def test_jets_are_smeared_by_the_ratio_of_resolutions_and_alike_in_every_chunk(mc, tmp_path):
    config = {"jec": {"file": energy_file(tmp_path), **JEC, "level": ""}}
    whole = {v: j["pt"] for v, j in corrector(**config).jets(mc)}
    parts = [
        {v: j["pt"] for v, j in corrector(**config).jets(mc[s])} for s in (slice(0, 40), slice(40, 41), slice(41, None))
    ]
    for variation, pt in whole.items():
        assert ak.concatenate([p[variation] for p in parts]).to_list() == pt.to_list()
    lonely = ak.to_numpy(ak.flatten(mc.FatJet["genJetAK8Idx"] < 0))
    before, after = (ak.to_numpy(ak.flatten(p))[lonely].astype(np.float64) for p in (mc.FatJet["pt"], whole["nominal"]))
    pull = (after / before - 1) / ((0.05 + 2 / before) * np.sqrt(1.15**2 - 1))
    assert abs(pull.mean()) < 4 / np.sqrt(len(pull))
    assert pull.std() == pytest.approx(1, abs=4 / np.sqrt(2 * len(pull)))


def test_random_numbers_are_normal_and_follow_the_ids():
    x = event_normal("a", 1, 1, np.arange(100_000), 0)
    assert abs(x.mean()) < 4 / np.sqrt(len(x))
    assert x.std() == pytest.approx(1, abs=0.01)
    assert np.mean(np.abs(x) > 2) == pytest.approx(0.0455, abs=0.003)
    others = [event_normal("b", 1, 1, np.arange(100_000), 0), event_normal("a", 1, 1, np.arange(100_000), 1)]
    assert all(abs(np.corrcoef(x, other)[0, 1]) < 0.02 for other in others)


def test_a_tagger_scores_varied_jets_and_the_search_fills_their_variations(mc_file, mc, tmp_path):
    config = {"jec": {"file": energy_file(tmp_path), **JEC}}
    tagger = ad.Tagger(DATA / "ae_stored.onnx")
    scores = {v: tagger(j)["ad_score"] for v, j in corrector(**config).jets(mc)}
    assert ak.num(scores["nominal"]).to_list() == ak.num(mc.FatJet).to_list()
    constituents = ad.Tagger(DATA / "wnae.onnx")
    jets = dict(corrector(**config).jets(mc))
    assert listed(constituents(jets["jesUp"])["ad_score"]) == listed(constituents(mc)["ad_score"])  # not rescaled
    assert listed(scores["jesUp"]) != listed(scores["nominal"])
    report, histograms = search({"svj": (mc_file, MC)}, tmp_path, corrections=config)
    shapes = ["jesUp", "jesDown", "flavorUp", "flavorDown", "jerUp", "jerDown"]
    assert list(histograms["svj"]["ht"].axes["variation"]) == ["nominal", *shapes]
    for variation in ("nominal", *shapes):
        leading = ak.sort(jets[variation]["pt"], axis=1, ascending=False)
        assert inclusive(histograms["svj"]["ht"], variation) > 50, leading
    assert report.datasets["svj"]["sumw"] == 150


def test_a_shift_of_jets_is_taken_out_of_missing_momentum(mc, tmp_path):
    """By hand, for one event."""
    jets = dict(corrector(jec={"file": energy_file(tmp_path), **JEC}).jets(mc))["jesUp"]
    order = ak.argsort(jets["pt"], axis=1, ascending=False)
    pair = jets[order][:, :2]
    two = ak.num(pair) == 2
    pt, phi = with_shifted_jets(mc.PuppiMET[two], pair[two])
    stored = {round(float(p), 2): p for p in mc.FatJet["phi"][two][3]}
    x, y = (float(mc.PuppiMET["pt"][two][3] * f(mc.PuppiMET["phi"][two][3])) for f in (np.cos, np.sin))
    for jet in pair[two][3]:
        before = mc.FatJet["pt"][two][3][mc.FatJet["phi"][two][3] == stored[round(float(jet["phi"]), 2)]][0]
        x -= float((jet["pt"] - before) * np.cos(jet["phi"]))
        y -= float((jet["pt"] - before) * np.sin(jet["phi"]))
    assert pt[3] == pytest.approx(np.hypot(x, y), rel=1e-4)
    assert phi[3] == pytest.approx(np.arctan2(y, x), rel=1e-4)


def test_jets_of_data_are_corrected_only_where_asked_for_and_never_varied(data, tmp_path):
    config = {"file": energy_file(tmp_path), **JEC}
    with pytest.raises(
        ConfigError, match="jec corrects the jets of simulation, and this is data: give level_data too, or level_d"
    ):
        dict(corrector(jec=config).jets(data))
    plain = dict(corrector(jec={**config, "level_data": "stored"}).jets(data))
    assert list(plain) == ["nominal"]
    assert plain["nominal"]["pt"].to_list() == data.FatJet["pt"].to_list()
    again = dict(corrector(jec={**config, "level_data": "DATA_L2"}).jets(data))["nominal"]
    expected = data.FatJet["pt"] * (1 - data.FatJet["rawFactor"]) * 0.97
    np.testing.assert_allclose(ak.flatten(again["pt"]), ak.flatten(expected), rtol=1e-6)


# whole runs


def test_weight_variations_stand_beside_shapes_with_the_right_yields(mc_file, data_file, mc, tmp_path):
    config = {k: v for k, v in everything(tmp_path).items() if k not in ("jec", "jet_veto_map")}
    files = {"svj": (mc_file, MC), "data": (data_file, DATASET)}
    report, histograms = search(files, tmp_path, corrections=config, overrides=["unblind=true"])
    own = corrector(**config)
    weights, chosen = own.weights(mc), selected(mc)
    h = histograms["svj"]["met"]
    assert list(h.axes["variation"]) == ["nominal", "jet_scaleUp", "jet_scaleDown", *own.weight_variations]
    assert inclusive(h, "nominal") == pytest.approx(weights.weight()[chosen].sum())
    for variation in own.weight_variations:
        assert inclusive(h, variation) == pytest.approx(weights.weight(variation)[chosen].sum()), variation
        assert inclusive(h, variation) != inclusive(h, "nominal") or variation == "fsrDown"  # one-sided
    assert inclusive(h, "jet_scaleUp") == pytest.approx(weights.weight()[selected(mc, 1.02)].sum())
    assert report.datasets["svj"]["sumw"] == 150  # of the generator, not of the corrections
    sums = report.outputs["svj"]["sumw_variations"]
    assert sums == {v or "nominal": pytest.approx(weights.weight(v).sum()) for v in (None, *own.weight_variations)}
    assert list(histograms["data"]["met"].axes["variation"]) == ["nominal"]
    assert report.outputs["data"]["sumw_variations"] == {}


def test_corrected_results_do_not_depend_on_chunks(mc_file, tmp_path):
    runs = []
    for name, size in (("whole", 1000), ("parts", 37)):
        folder = tmp_path / name
        folder.mkdir()
        runs.append(search({"svj": (mc_file, MC)}, folder, corrections=everything(tmp_path), chunksize=size))
    assert_identical(runs[0][1], runs[1][1])
    assert runs[0][0].outputs["svj"]["sumw_variations"] == pytest.approx(runs[1][0].outputs["svj"]["sumw_variations"])


def make(taggers=("wnae",), **config):
    module = recipes.load("semivisible_jets")
    loose = {"met_min": 0, "rt_min": 0, "dphi_max": 4, "delta_eta_max": 9, "lepton_pt_min": 1e4}
    named = [ad.Tagger(DATA / f"{t}.onnx", name="ad" if i == 0 else f"ad{i + 1}") for i, t in enumerate(taggers)]
    return module.Processor(module.Config.model_validate({**loose, **config}), named)


def test_the_axis_of_variations_is_the_same_in_chunks_with_and_without_events(mc, data, tmp_path):
    processor = make(corrections=everything(tmp_path))
    full, none = (processor.process(events)["svj"] for events in (mc, mc[:0]))
    assert none["sumw_variations"] == dict.fromkeys(full["sumw_variations"], 0.0)
    for name, h in full["histograms"].items():
        assert list(none["histograms"][name].axes["variation"]) == list(h.axes["variation"])
    assert len(full["histograms"]["mt"].axes["variation"]) == 1 + 6 + 2 * 9
    for events in (data, data[:0]):
        h = processor.process(events)["data"]["histograms"]["mt"]
        assert list(h.axes["variation"]) == ["nominal"]


@pytest.mark.parametrize("kind", ["mc", "data"])
def test_declared_branches_are_all_that_is_read(kind, mc_file, data_file, tmp_path):
    """Where only they are opened, with ids, genWeight and counters, the same histograms come out."""
    path, metadata = (mc_file, MC) if kind == "mc" else (data_file, DATASET)
    config = everything(tmp_path)
    config["jec"]["level_data"] = "DATA_L2"
    config["correctionlib"] = {"muon_id": {
        "file": scale_factor_file(tmp_path), "name": "ID", "inputs": {"eta": "Muon_eta", "pt": "Muon_pt", "WP": "Medium"},
        "nominal": "sf", "up": "sfup", "down": "sfdown", "ranges": {"Muon_eta": [-2.5, 2.5]},
    }}  # fmt: skip
    processor = make(
        corrections=config, triggers=["HLT_PFHT1050", "HLT_IsoMu24"], met_filters=["Flag_goodVertices"], unblind=True
    )
    declared = {b for ways in processor.reads().values() for way in ways for b in way}
    declared |= {"run", "luminosityBlock", "event", "genWeight"} | {"n" + b.split("_")[0] for b in declared}
    metadata = {"dataset": "x", "filename": str(path), **metadata}
    out = []
    for options in ({}, {"iteritems_options": {"filter_name": lambda name: name in declared}}):
        log = []
        events = NanoEventsFactory.from_root(
            f"{path}:Events", schemaclass=ad.NanoAODSchema, metadata=metadata, access_log=log, **options
        ).events()
        out.append(processor.process(events)["x"])
        assert {entry.branch for entry in log} <= declared
    assert_identical({"x": out[0]["histograms"]}, {"x": out[1]["histograms"]})
    assert {k: v for k, v in out[0].items() if k != "histograms"} == {
        k: v for k, v in out[1].items() if k != "histograms"
    }


# what a worker gets


def test_a_worker_needs_none_of_the_files(mc_file, data_file, mc, data, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    config = everything(folder)
    config["lumi_mask"] = golden_file(folder, {str(355100 + 3 * i): [[1, 30], [40, 900]] for i in range(450)})
    own = corrector(**config)
    weights = own.weights(mc)
    expected = {v: float(weights.weight(v).sum()) for v in own.weight_variations}
    expected |= {"certified": int(own.certified(data).sum()), "veto": int(own.outside_veto(mc).sum())}
    expected |= {v: float(ak.sum(j["pt"])) for v, j in own.jets(mc)}
    pickled = pickle.dumps(own)
    assert len(pickled) < 20_000
    (tmp_path / "corrector.pkl").write_bytes(pickled)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    code = f"""
        import json, pickle, sys
        import awkward as ak
        sys.path.insert(0, {str(DATA.parent)!r})
        from toys import open_events
        own = pickle.load(open({str(tmp_path / "corrector.pkl")!r}, "rb"))
        mc = open_events({str(mc_file)!r}, metadata={MC!r})
        data = open_events({str(data_file)!r}, metadata={DATASET!r})
        weights = own.weights(mc)
        out = {{v: float(weights.weight(v).sum()) for v in own.weight_variations}}
        out |= {{"certified": int(own.certified(data).sum()), "veto": int(own.outside_veto(mc).sum())}}
        out |= {{v: float(ak.sum(j["pt"])) for v, j in own.jets(mc)}}
        print(json.dumps(out))
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == pytest.approx(expected)


def test_only_what_is_asked_for_travels(tmp_path):
    big = [
        correction(f"other{i}", binning("x", range(2001), np.random.default_rng(i).random(2000)), x="real")
        for i in range(20)
    ]
    path = write(tmp_path / "big.json", correction("small", 2.0, x="real"), *big)
    assert len(pickle.dumps(CorrectionFiles().correction(path, "small"))) < 1000


@pytest.mark.dask
def test_a_cluster_gives_the_same(mc_file, tmp_path, on):
    runs = []
    for executor in ("iterative", "dask"):
        folder = tmp_path / executor
        folder.mkdir()
        config = folder / "search.yaml"
        config.write_text(json.dumps({"corrections": everything(folder)}))
        fileset = {"svj": {"files": {str(mc_file): "Events"}, "metadata": MC}}
        ad.run(
            fileset, "semivisible_jets", model=DATA / "wnae.onnx", config=config, overrides=LOOSE, **on(executor),
            chunksize=80, output=folder / "results",
        )  # fmt: skip
        runs.append(ad.load_results(folder / "results").in_regions)
    assert_identical(*runs)


# no model and several


def test_without_a_model_there_is_one_region_for_control_plots(mc_file, mc, data_file, data, tmp_path):
    report, histograms = search({"svj": (mc_file, MC), "data": (data_file, DATASET)}, tmp_path, model=None)
    assert list(histograms["svj"]["mt"].axes["region"]) == ["inclusive"]
    assert set(histograms["svj"]) == {"mt", "mjj", "met", "ht", "msoftdrop"}
    steps = report.datasets["svj"]["cutflow"]
    assert inclusive(histograms["svj"]["mt"], "nominal") == steps["dphi"]["events"] >= selected(mc).sum()
    assert report.datasets["svj"]["unscored"] == 0
    assert inclusive(histograms["data"]["mt"], "nominal") > 50  # nothing to hide


def test_several_models_have_regions_and_histograms_of_their_own(mc_file, data_file, tmp_path):
    models = [DATA / "wnae.onnx", DATA / "ae_stored.onnx"]
    files = {"svj": (mc_file, MC), "data": (data_file, DATASET)}
    folders = {name: tmp_path / name for name in ("both", "first", "second", "open")}
    for folder in folders.values():
        folder.mkdir()
    _, both = search(files, folders["both"], model=models)
    _, opened = search(files, folders["open"], model=models, overrides=["unblind=true"])
    singles = [
        search(files, folders[n], model=m, overrides=["unblind=true"])[1]
        for n, m in zip(("first", "second"), models, strict=True)
    ]
    cards = [ad.Tagger(m).card for m in models]
    own = [
        f"{p}{r}"
        for p, c in zip(("", "ad2_"), cards, strict=True)
        for r in ad.regions.definitions(c.regions, jets=True)
    ]
    assert list(both["svj"]["mt"].axes["region"]) == own
    assert {"ad_logp", "ad2_logp"} <= set(both["svj"])
    for prefix, card, single in zip(("", "ad2_"), cards, singles, strict=True):
        for region in ad.regions.definitions(card.regions, jets=True):
            for variation in ("nominal", "jet_scaleDown"):
                where = {"region": prefix + region, "variation": variation}
                alone = single["svj"]["mt"][{**where, "region": region}]
                assert opened["svj"]["mt"][where].values().tolist() == alone.values().tolist()
    # data in the tightest region of any of the models is nowhere
    tight = [f"{p}{c.regions[-1].name}_{n}tag" for p, c in zip(("", "ad2_"), cards, strict=True) for n in (1, 2)]
    assert all(inclusive(both["data"]["mt"], "nominal", region) == 0 for region in tight)
    assert sum(inclusive(opened["data"]["mt"], "nominal", region) for region in tight) > 0
    hidden = hidden_events(data_file, models)
    shown = inclusive(opened["data"]["mt"], "nominal") - inclusive(both["data"]["mt"], "nominal")
    assert shown == hidden


def hidden_events(path, models):
    """Events of the loose selection that one of the models puts into its tightest region, if the first one scores them."""
    events = open_events(path)
    chosen = selected(events)
    order = ak.argsort(events.FatJet["pt"], axis=1, ascending=False)
    leading = events.FatJet[order][:, :2][chosen]
    hidden = np.zeros(len(leading), bool)
    for model in models:
        tagger = ad.Tagger(model)
        grade = tagger(leading)["ad_region"]
        hidden |= ak.to_numpy(ak.any(grade >= len(tagger.card.regions), axis=1))
    return hidden.sum()


def test_models_that_do_not_go_together_are_refused():
    module = recipes.load("semivisible_jets")
    with pytest.raises(ConfigError, match="different jets, FatJet and Jet"):
        module.Processor(
            module.Config(), [ad.Tagger(DATA / "wnae.onnx"), ad.Tagger(DATA / "ae_stored.onnx", "b", collection="Jet")]
        )


# triggers


def test_an_event_of_several_primary_datasets_counts_in_the_first_only(data_file):
    menu = {
        "JetMET": ("HLT_PFHT1050", "HLT_AK8PFJet500"),
        "MET": ("HLT_PFMETNoMu120_PFMHTNoMu120_IDTight",),
        "Muon": ("HLT_IsoMu24",),
    }
    fired, taken = {}, {}
    for name, paths in menu.items():
        events = open_events(data_file, metadata={**DATASET, "primaryDataset": name})
        fired[name] = np.any([ak.to_numpy(events.HLT[p.removeprefix("HLT_")]) for p in paths], axis=0)
        taken[name] = cuts.triggered(events, menu)
        assert taken[name].sum() <= fired[name].sum()
    assert (sum(t.astype(int) for t in taken.values()) == np.any(list(fired.values()), axis=0)).all()
    assert taken["JetMET"].tolist() == fired["JetMET"].tolist()
    assert 0 < taken["MET"].sum() < fired["MET"].sum()
    simulated = open_events(data_file, metadata=MC)
    assert cuts.triggered(simulated, menu).tolist() == np.any(list(fired.values()), axis=0).tolist()
    assert cuts.trigger_reads(menu)["the trigger"][:2] == (("HLT_PFHT1050",), ("HLT_AK8PFJet500",))
    with pytest.raises(
        ConfigError, match="primaryDataset .* is 'EGamma', but triggers are given for JetMET, MET, Muon"
    ):
        cuts.triggered(open_events(data_file, metadata={**DATASET, "primaryDataset": "EGamma"}), menu)


def test_primary_datasets_are_told_in_the_configuration(data_file, tmp_path):
    menu = "triggers={JetMET: [HLT_PFHT1050], MET: [HLT_PFMETNoMu120_PFMHTNoMu120_IDTight]}"
    files = {name: (data_file, {**DATASET, "primaryDataset": name}) for name in ("JetMET", "MET")}
    report, _ = search(files, tmp_path, model=None, overrides=[menu])
    steps = [report.datasets[name]["cutflow"]["trigger"]["events"] for name in files]
    events = open_events(data_file)
    either = events.HLT.PFHT1050 | events.HLT.PFMETNoMu120_PFMHTNoMu120_IDTight
    assert sum(steps) == ak.sum(either)
    assert min(steps) > 0


# skims


@pytest.mark.parametrize("name", ["skim_jets", "skim_events"])
def test_skims_hold_certified_data_without_vetoed_jets(name, data_file, data, tmp_path):
    golden = golden_file(tmp_path, {"355101": [[1, 25]], "355102": [[5, 40]]})
    config = tmp_path / "skim_jets.yaml"
    veto = {"file": veto_file(tmp_path), "name": "Run3", "stored_id": True}
    loose = {"lepton_pt_min": 1e4} if name == "skim_jets" else {"leading_lepton_pt_min": 0, "n_jets_min": 0}
    fileset = {"data": {"files": {str(data_file): "Events"}, "metadata": DATASET}}
    rows = {}
    for kind, more in (("all", {}), ("clean", {"lumi_mask": golden, "jet_veto_map": veto})):
        config.write_text(json.dumps({**loose, **more}))
        report = ad.run(fileset, name, config=config, executor="iterative", output=tmp_path / kind)
        table = pq.read_table(next((tmp_path / kind / "data").glob("*.parquet")))
        rows[kind] = set(zip(*(table[k].to_pylist() for k in ("run", "luminosityBlock", "event")), strict=True))
    keep = corrector(lumi_mask=golden, jet_veto_map=veto)
    mask = keep.certified(data) & keep.outside_veto(data)
    good = set(zip(*(ak.to_numpy(data[k])[mask].tolist() for k in ("run", "luminosityBlock", "event")), strict=True))
    assert rows["clean"] == rows["all"] & good
    assert 0 < len(rows["clean"]) < len(rows["all"])
    assert list(report.datasets["data"]["cutflow"])[1] == "certified"


@pytest.mark.parametrize("name", ["skim_jets", "skim_events"])
def test_skims_read_declared_branches_only(name, data_file, tmp_path):
    module = recipes.load(name)
    config = {
        "lumi_mask": golden_file(tmp_path, {"355101": [[1, 25]]}),
        "jet_veto_map": {"file": veto_file(tmp_path), "name": "Run3", "stored_id": True, "recipe": "run2"},
    }
    more = {} if name == "skim_jets" else {"triggers": ["HLT_PFHT1050"], "leading_lepton_pt_min": 0}
    processor = module.Processor(module.Config.model_validate({**config, **more}), (), tmp_path)
    declared = {b for ways in processor.reads().values() for way in ways for b in way}
    declared |= {"run", "luminosityBlock", "event", "genWeight"} | {"n" + b.split("_")[0] for b in declared}
    place = {"fileuuid": "a", "entrystart": 0, "entrystop": 150, "filename": "data.root", "dataset": "data"}
    log = []
    events = open_events(data_file, metadata={**place, **DATASET}, access_log=log)
    assert processor.process(events)["data"]["rows"] > 0
    assert {entry.branch for entry in log} <= declared


# what goes wrong


def test_wrong_correction_files_are_named(tmp_path):
    path = pileup_file(tmp_path)
    text = tmp_path / "text.json"
    text.write_text("hello")
    other = tmp_path / "other.json"
    other.write_text('{"a": 1}')
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes((tmp_path / "puWeights.json.gz").read_bytes()[:200])
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"schema_version": 2, "corrections": [
        {"name": "a", "inputs": [{"name": "x", "type": "real"}], "output": {"name": "o", "type": "real"}, "data": {"nodetype": "?"}}]}))  # fmt: skip
    for pileup, error, match in (
        ({"file": "nowhere.json", "name": "a"}, BadFile, "nowhere.json: cannot be read"),
        ({"file": str(tmp_path), "name": "a"}, BadFile, "cannot be read"),
        ({"file": str(text), "name": "a"}, BadFile, "text.json: this is not JSON"),
        ({"file": str(cut), "name": "a"}, BadFile, "cut.json.gz: this is not JSON"),
        (
            {"file": str(other), "name": "a"},
            BadFile,
            "other.json: this is not a correctionlib file of schema version 2",
        ),
        ({"file": str(broken), "name": "a"}, BadFile, "broken.json: correction a is damaged"),
        ({"file": path, "name": "Colisions"}, ConfigError, "unknown correction 'Colisions'; did you mean 'Collisions'"),
    ):
        with pytest.raises(error, match=match):
            corrector(pileup=pileup)
    many = [correction(f"Summer22_MC_{i}_AK8PFPuppi", 1.0, x="real") for i in range(300)]
    with pytest.raises(ConfigError, match="did you mean 'Summer22_MC_7_AK8PFPuppi'.*300 in all") as caught:
        CorrectionFiles().correction(write(tmp_path / "many.json", *many), "Summer22_MC_7_AK8PFPupi")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[[1, 2]]", "a golden JSON maps runs to ranges"),
        ("{}", "a golden JSON maps runs to ranges"),
        ('{"A": [[1, 2]]}', "'A' is not a run"),
        ('{"1": {"1": 2}}', "'1' is not a run with its ranges"),
        ('{"1": [[1, 2, 3]]}', r"run 1: \[1, 2, 3\] is not a range"),
        ('{"1": [[3, 2]]}', r"run 1: \[3, 2\] is not a range"),
        ('{"1": [[5, 9], [1, 2]]}', r"run 1: \[1, 2\] is not a range \[first, last\] above those before"),
        ('{"1": [["a", 2]]}', r"run 1: \['a', 2\] is not a range"),
        ("{", "this is not JSON"),
    ],
)
def test_wrong_golden_files_are_named(tmp_path, content, match):
    path = tmp_path / "golden.json"
    path.write_text(content)
    with pytest.raises(BadFile, match=f"golden.json: {match}"):
        corrector(lumi_mask=str(path))


def test_wrong_inputs_and_words_are_named(mc, tmp_path):
    file = scale_factor_file(tmp_path)
    good = {"eta": "Muon_eta", "pt": "Muon_pt", "WP": "Medium"}
    words = {"nominal": "sf", "up": "sfup", "down": "sfdown"}
    for change, match in (
        ({"inputs": {**good, "etaa": "Muon_eta"}}, "correction ID: unknown input 'etaa'; did you mean 'eta'"),
        ({"inputs": {"WP": "Medium", "eta": "Muon_eta"}}, "correction ID: say what goes into ValType, pt"),
        ({"inputs": {**good, "WP": "Medum"}}, "unknown WP 'Medum'; did you mean 'Medium'"),
        ({"up": "sfupp"}, "unknown ValType 'sfupp'; did you mean 'sfup'"),
    ):
        with pytest.raises(ConfigError, match=match):
            corrector(correctionlib={"muon": {"file": file, "name": "ID", "inputs": good, **words, **change}})
    weight = {"file": file, "name": "ID", "inputs": {**good, "eta": "Jet_eta"}, **words}
    with pytest.raises(ConfigError, match="Jet_eta and Muon_pt are not of the same objects"):
        corrector(correctionlib={"muon": weight}).weights(mc)
    weight = {"file": file, "name": "ID", "inputs": {**good, "eta": "Pileup_nTrueInt"}, **words}
    with pytest.raises(BadFile, match="muons.json: correction ID is not defined for eta = .*Index above bounds"):
        corrector(correctionlib={"muon": weight}).weights(mc)


def test_what_a_file_lacks_is_named_with_the_weight(mc_file, tmp_path):
    events = open_events(DATA / "svj_v15.root", metadata={**MC, "filename": "plain.root"})
    pileup = {"file": pileup_file(tmp_path), "name": "Collisions"}
    for config, match in (
        ({"pileup": pileup}, r"plain.root: there is no branch Pileup_nTrueInt \(asked for by the weight pileup\)"),
        ({"columns": COLUMNS}, "plain.root: there is no branch L1PreFiringWeight_Nom"),
        ({"columns": {"isr": COLUMNS["isr"]}}, r"no branch PSWeight \(asked for by the weight isr\)"),
        ({"scale": {}}, "no branch LHEScaleWeight"),
        ({"pdf": {}}, "no branch LHEPdfWeight"),
    ):
        with pytest.raises(MissingBranch, match=match):
            corrector(**config).weights(events)
    with pytest.raises(MissingBranch, match=r"Jet_chEmEF.*\(asked for by the jet veto map; give id_file"):
        corrector(jet_veto_map={"file": veto_file(tmp_path), "name": "Run3", "stored_id": True}).outside_veto(events)
    with pytest.raises(MissingBranch, match=r"FatJet_area.*\(asked for by jec\)"):
        list(corrector(jec={"file": energy_file(tmp_path), **JEC}).jets(events))
    with pytest.raises(MissingBranch, match="svj_v15.root: there is no branch Pileup_nTrueInt"):
        search({"svj": (DATA / "svj_v15.root", MC)}, tmp_path, corrections={"pileup": pileup})
    allowed = corrector(
        columns={"isr": {**COLUMNS["isr"], "absent": "unit"}}, scale={"absent": "unit"}, pdf={"absent": "unit"}
    )
    weights = allowed.weights(events)
    assert all(weights.weight(v).tolist() == [1.0] * 150 for v in allowed.weight_variations)
    mc = open_events(mc_file, metadata={**MC, "filename": "mc.root"})
    for config, match in (
        ({"columns": {"isr": {"up": "PSWeight[4]"}}}, r"mc.root: PSWeight has no entry \[4\] in some events"),
        ({"pdf": {"last": 103}}, "LHEPdfWeight has 103 numbers per event, but 104 or more are needed"),
        ({"scale": {"branch": "PSWeight"}}, "PSWeight has 4 numbers per event"),
    ):
        with pytest.raises(MissingBranch, match=match):
            corrector(**config).weights(mc)
    for column, match in (
        ("PSWeight", "is a list of numbers per event"),
        ("Pileup_nTrueInt[0]", "is one number per event"),
    ):
        with pytest.raises(ConfigError, match=match):
            corrector(columns={"a": {"up": column}}).weights(mc)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    def change(columns):
        columns["Weird"] = np.where(np.arange(150) == 3, np.nan, 1).astype(np.float32)

    path = copy_events(DATA / "svj_v15.root", tmp_path / "mc.root", change=change)
    with pytest.raises(BadFile, match="the weight weird is not finite"):
        corrector(columns={"weird": {"nominal": "Weird"}}).weights(open_events(path, metadata=MC))


def test_wrong_jet_corrections_are_named(tmp_path):
    file = energy_file(tmp_path)
    for change, collection, match in (
        ({"level": "MC_L1L3"}, "FatJet", "unknown correction 'MC_L1L3'; did you mean 'MC_L1L2'"),
        ({"resolution_scale": ""}, "FatJet", "belong together"),
        ({}, "SubJet", "generated jets are known for FatJet and Jet, but not for SubJet"),
        ({"resolution_scale": "MC_Total"}, "FatJet", "unknown input 'systematic'"),
        ({"level": "MC_Scale"}, "FatJet", "it needs systematic, which is not known of jets"),
    ):
        with pytest.raises(ConfigError, match=match):
            corrector(collection, jec={"file": file, **JEC, **change})
    with pytest.raises(ConfigError, match="unknown type 'jetvetomapp'; did you mean 'jetvetomap'"):
        corrector(
            jet_veto_map={"file": veto_file(tmp_path), "name": "Run3", "stored_id": True, "types": ["jetvetomapp"]}
        )


def test_wrong_keys_and_names_of_variations_are_refused(mc_file, tmp_path):
    for config, match in (
        (
            {"pileup": {"fil": "a", "name": "b"}},
            "unknown key 'fil'; did you mean 'file'",
        ),
        ({"columns": {"isrUp": {"up": "PSWeight[0]"}}}, "'isrUp' cannot name a variation"),
        ({"columns": {"pileup": {"up": "PSWeight[0]"}}}, "'pileup' is the name of another variation"),
        ({"columns": {"a": {"up": "PSWeight[x]"}}}, "corrections.columns.a.up = 'PSWeight.x.'"),
        ({"jet_veto": {}}, "did you mean 'corrections.jet_veto_map'"),
    ):
        with pytest.raises(CoffeaADError, match=match):
            search({"svj": (mc_file, MC)}, tmp_path, corrections=config)
    with pytest.raises(ValidationError, match="frozen"):
        Corrections().lumi_mask = "x"


# real files


@pytest.mark.real
def test_real_simulation_has_all_that_is_asked_for(real, tmp_path):
    events = open_events(real / "nano_tt_v15.root", metadata=MC)
    own = corrector(
        pileup={"file": pileup_file(tmp_path), "name": "Collisions"},
        columns={k: COLUMNS[k] for k in ("isr", "fsr")}, scale={}, pdf={"alpha_s": [101, 102]},
        jec={"file": energy_file(tmp_path), **JEC},
    )  # fmt: skip
    weights = own.weights(events)
    assert np.isfinite(weights.weight()).all()
    mean = {v: weights.weight(v).sum() / weights.weight().sum() for v in own.weight_variations}
    assert mean["muRUp"] < 1 < mean["muRDown"]  # αS falls with the scale
    assert all(0.5 < m < 1.6 for m in mean.values()), mean
    scored = {v: ad.Tagger(DATA / "wnae.onnx")(j) for v, j in own.jets(events)}
    assert set(scored) == {"nominal", *own.jet_variations}
    assert ak.sum(scored["jerUp"]["ad_region"] >= 0) == 62


@pytest.mark.real
@pytest.mark.parametrize(("name", "metadata"), [("nano_tt_v12", MC), ("nano_dimuon", DATASET), ("pfnano", MC)])
def test_real_files_go_through_the_jet_veto_map(real, name, metadata, tmp_path):
    own = corrector(jet_veto_map={"file": veto_file(tmp_path), "name": "Run3", "stored_id": True})
    events = open_events(real / f"{name}.root", metadata=metadata)
    assert own.outside_veto(events).tolist() == slow_veto(events)


@pytest.mark.real
def test_the_search_runs_over_real_simulation_and_data_with_corrections(real, tmp_path):
    config = {
        "lumi_mask": golden_file(tmp_path, {"1": [[1, 1]]}), "pileup": {"file": pileup_file(tmp_path), "name": "Collisions"},
        "jet_veto_map": {"file": veto_file(tmp_path), "name": "Run3", "stored_id": True}, "scale": {}, "pdf": {},
    }  # fmt: skip
    files = {"tt": (real / "nano_tt_v12.root", MC), "data": (real / "nano_dimuon.root", DATASET)}
    report, histograms = search(
        files, tmp_path, model=DATA / "ae_stored.onnx", corrections=config, overrides=["jet_pt_min=170"]
    )
    assert list(report.datasets["data"]["cutflow"].values())[-1]["events"] == 0  # blinded: the first and the last line
    assert len(histograms["tt"]["mt"].axes["variation"]) == 3 + 2 * 5
    assert report.outputs["tt"]["sumw_variations"]["muRUp"] != report.outputs["tt"]["sumw_variations"]["nominal"]


# the page


def blocks(language):
    page = (DATA.parent.parent / "docs" / "corrections.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_every_example_of_the_page_is_a_configuration():
    module = recipes.load("semivisible_jets")
    assert len(blocks("yaml")) >= 5
    for text in blocks("yaml"):
        module.Config.model_validate(yaml.safe_load(text))
    shipped = recipes.find("semivisible_jets").with_suffix(".yaml").read_text()
    commented = (
        shipped[shipped.index("# corrections:") : shipped.index("mass_max")].replace("# ", "", 1).replace("\n# ", "\n")
    )
    assert set(module.Config.model_validate(yaml.safe_load(commented)).corrections.columns) == {
        "prefiring",
        "isr",
        "fsr",
    }


def test_own_weights_and_own_jets_as_on_the_page(mc_file, tmp_path):
    _, weight, jets = blocks("python")
    copied = recipes.copy("semivisible_jets", tmp_path / "mine.py")[0]
    text = copied.read_text()
    made = "Corrector(config.corrections, self.collection, jet_scale=config.jet_scale)"
    assert made in text
    text = text.replace("class Config(", f"{weight}\n\n{jets}\n\nclass Config(").replace(
        made, f"Shifted{made[9:-1]}, more=[TOP_PT])"
    )
    copied.write_text(text)
    fileset = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": MC}}
    report = ad.run(
        fileset,
        copied,
        model=DATA / "wnae.onnx",
        config="none",
        overrides=LOOSE,
        executor="iterative",
        output=tmp_path / "results",
    )
    h = ad.load_results(tmp_path / "results").in_regions["svj"]["ht"]
    names = ["nominal", "jet_scaleUp", "jet_scaleDown", "forwardUp", "forwardDown", "top_ptUp", "top_ptDown"]
    assert list(h.axes["variation"]) == names
    assert all(inclusive(h, name) > 50 for name in names)
    assert report.outputs["svj"]["sumw_variations"]["top_ptDown"] == 150
