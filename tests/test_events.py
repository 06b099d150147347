from __future__ import annotations

import functools

import awkward as ak
import numpy as np
import pytest
import uproot
from toys import DATA, copy_events, open_events

import coffea_ad as ad
from coffea_ad.errors import ConfigError, MissingBranch
from coffea_ad.features import FEATURES
from coffea_ad.features.events import DijetOptions, EventObjectOptions
from coffea_ad.features.naive import events as naive
from coffea_ad.features.spec import feature_spec

FILES = ("ttbar_v15", "svj_v15", "qcd_v15")
COLUMNS = ("pt", "eta", "phi", "sin_phi", "cos_phi", "type", "is_met", "is_electron", "is_muon", "is_jet", "mask")

# Two doubles that are equal within rounding may be stored as neighbouring floats, 2^-23 apart.
FLOAT32 = 1.5e-7


@functools.cache
def rows_in(name, *collections):
    """The events of a file as rows of fields, read by uproot alone; fat jets have their constituents."""
    with uproot.open(DATA / f"{name}.root") as file:
        tree = file["Events"]

        def columns(name):
            return {k[len(name) + 1 :]: tree[k].array().to_list() for k in tree.keys() if k.startswith(name + "_")}

        records = {name: columns(name) for name in ("PuppiMET", "PFMET")}
        objects = {name: columns(name) for name in collections}
        candidates, links = columns("PFCand"), columns("FatJetPFCand")
        n = tree.num_entries
    out = []
    for i in range(n):
        event = {name: {f: values[i] for f, values in fields.items()} for name, fields in records.items()}
        for collection, fields in objects.items():
            event[collection] = [
                dict(zip(fields, row, strict=True))
                for row in zip(*(values[i] for values in fields.values()), strict=True)
            ]
        for j, jet in enumerate(event.get("FatJet", ())):
            mine = [c for k, c in zip(links["jetIdx"][i], links["pfCandIdx"][i], strict=True) if k == j]
            jet["constituents"] = [[candidates[f][i][c] for f in ("pt", "eta", "phi", "mass")] for c in mine]
        out.append(event)
    return out


def table_rows(name):
    return rows_in(name, "Jet", "Muon", "Electron")


def dijet_rows(name):
    return rows_in(name, "FatJet")


def file_events(name, **kwargs):
    return open_events(DATA / f"{name}.root", **kwargs)


def table(events, **options):
    return ad.features.compute("event_objects", events, **options)[0]


def dijet(events, **options):
    return ad.features.compute("dijet", events, **options)[0]


def named(events, **options):
    """The dijet's columns by name."""
    feature = FEATURES["dijet"]
    names = [c.name for c in feature.columns(feature.resolve(options))]
    return dict(zip(names, dijet(events, **options).T, strict=True))


def varied(events, collection, **factors):
    """Events with fields of a collection multiplied."""
    jets = events[collection]
    for field, factor in factors.items():
        jets = ak.with_field(jets, jets[field] * np.float32(factor), field)
    return ak.with_field(events, jets, collection)


def read_by(name, events_name, **options):
    log = []
    ad.features.compute(name, file_events(events_name, access_log=log), **options)
    return {e.branch for e in log if not (e.branch.startswith("n") and "_" not in e.branch)}


# ---- trigger objects


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"scaling": "common"}, {"scaling": "none"}, {"scaling": "talk", "jet_eta_max": 3.0, "muon_eta_max": 1.5},
        {"leading_lepton_pt_min": 0.0}, {"muon_cuts": (), "electron_cuts": (), "cleaning": 0.0, "leading_lepton_pt_min": 3.0},
        {"met": "PFMET", "met_min": 60.0, "leading_lepton_pt_min": 0.0, "jet_pt_min": 80.0},
    ],
    ids=str,
)  # fmt: skip
def test_the_table_equals_its_slow_twin_in_all_columns(name, options):
    chosen = EventObjectOptions(columns=COLUMNS, **options)
    want = naive.event_objects(table_rows(name), chosen)
    got, counts = ad.features.compute("event_objects", file_events(name), columns=COLUMNS, **options)
    assert got.dtype == np.float32
    assert got.shape == (len(want), 19, len(COLUMNS))
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=1e-15)
    assert (counts == 1).all()


def test_the_files_exercise_the_table():
    values = table(file_events("ttbar_v15"), columns=("type",), leading_lepton_pt_min=0.0)[..., 0]
    assert set(np.unique(values)) == {0, 1, 2, 3, 4}
    assert (values[:, 2] == 2).any()
    assert np.isfinite(table(file_events("ttbar_v15"))).any()


def test_rows_are_missing_momentum_then_electrons_muons_and_jets_by_falling_pt():
    values = table(file_events("ttbar_v15"), columns=("type", "pt"), leading_lepton_pt_min=0.0)
    kind, pt = values[..., 0], values[..., 1]
    for place, number in ((slice(0, 1), 1), (slice(1, 5), 2), (slice(5, 9), 3), (slice(9, 19), 4)):
        assert set(np.unique(kind[:, place])) <= {0, number}
        assert (np.diff(pt[:, place], axis=1) <= 0).all()
    assert ((kind > 0) == (pt > 0)).all()


def test_flags_and_mask_say_what_the_type_says():
    values = table(file_events("ttbar_v15"), columns=COLUMNS, leading_lepton_pt_min=0.0)
    column = dict(zip(COLUMNS, np.moveaxis(values, -1, 0), strict=True))
    for number, name in ((1, "is_met"), (2, "is_electron"), (3, "is_muon"), (4, "is_jet")):
        np.testing.assert_array_equal(column[name], column["type"] == number)
    np.testing.assert_array_equal(column["mask"], column["type"] > 0)
    assert (values[column["mask"] == 0] == 0).all()


def toy_event(jets=(), muons=(), electrons=(), met=(0.0, 0.0)):
    """One event of (pT, η, φ), whose objects pass all identification."""
    more = {
        "Jet": {"mass": 5.0},
        "Muon": {"mediumId": True, "pfRelIso04_all": 0.0},
        "Electron": {"mvaIso_WP90": True},
    }
    out = {}
    for name, rows in (("Jet", jets), ("Muon", muons), ("Electron", electrons)):
        columns = np.array(rows, float).reshape(-1, 3).T
        fields = dict(zip(("pt", "eta", "phi"), columns, strict=True))
        fields |= {f: np.full(len(rows), value) for f, value in more[name].items()}
        out[name] = ak.unflatten(ak.zip(fields), [len(rows)])
    out["PuppiMET"] = ak.zip({"pt": [float(met[0])], "phi": [float(met[1])]})
    return ak.zip(out, depth_limit=1)


def test_an_object_at_phi_of_zero_is_there_and_has_a_cosine_of_one():
    event = toy_event([(50, 0, 0)], [(30, 0, 1.0)], met=(40, 0))
    values = table(event, columns=("phi", "sin_phi", "cos_phi", "mask"))[0]
    for row in (0, 9):
        assert values[row].tolist() == [0, 0, 1, 1]
    assert (values[[1, 2, 6, 10]] == 0).all()


def test_missing_momentum_of_zero_or_below_the_minimum_is_absent():
    for met, met_min in ((0.0, 0.0), (29.0, 30.0)):
        event = toy_event([(50, 0, 1)], [(30, 0, 0)], met=(met, 2.0))
        assert (table(event, columns=COLUMNS, met_min=met_min)[0, 0] == 0).all()
    assert table(event, columns=("pt", "type"))[0, 0].tolist() == [29, 1]


@pytest.mark.parametrize(
    ("scaling", "eta_scales", "phi_scale"),
    [("talk", (3.0, 2.1, 4.0), np.pi), ("common", (4.0, 4.0, 4.0), np.pi), ("none", (1.0, 1.0, 1.0), 1.0)],
)
def test_angles_are_scaled_as_asked_for_and_pt_is_not(scaling, eta_scales, phi_scale):
    event = toy_event([(50, -3.3, 1.0)], [(30, 1.5, -2.0)], [(25, 2.7, 3.0)], met=(40, -1.0))
    values = table(event, columns=("pt", "eta", "phi", "sin_phi"), scaling=scaling)[0]
    for row, (pt, eta, phi), scale in zip(
        (1, 5, 9), ((25, 2.7, 3.0), (30, 1.5, -2.0), (50, -3.3, 1.0)), eta_scales, strict=True
    ):
        assert values[row] == pytest.approx([pt, eta / scale, phi / phi_scale, np.sin(phi)], rel=1e-6)
    assert values[0] == pytest.approx([40, 0, -1 / phi_scale, np.sin(-1)], rel=1e-6)


@pytest.mark.parametrize("kind", ["muons", "electrons"])
def test_events_without_a_hard_enough_lepton_are_undefined(kind):
    for pt, defined in ((22.9, False), (23.0, True), (40.0, True)):
        event = toy_event([(50, 1, 1)], **{kind: [(pt, 0, 0)]})
        assert np.isfinite(table(event)).all() == defined
        assert np.isnan(table(event)).all() != defined
        assert np.isfinite(table(event, leading_lepton_pt_min=0.0)).all()
    event = toy_event([(50, 1, 1)])
    assert np.isnan(table(event)).all()
    assert np.isfinite(table(event, leading_lepton_pt_min=0.0)).all()


def test_the_lepton_that_counts_has_to_be_selected():
    assert np.isnan(table(toy_event([(50, 1, 1)], [(40, 2.2, 0)]))).all()  # beyond the acceptance
    assert np.isfinite(table(toy_event([(50, 1, 1)], [(40, 2.2, 0)]), muon_eta_max=2.4)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_event_with_a_number_that_is_not_finite_is_undefined(bad):
    good = toy_event([(50, 1, 1)], [(40, 1, 0)])
    for event in (
        toy_event([(50, bad, 1)], [(40, 1, 0)]), toy_event([(bad, 1, 1)], [(40, 1, 0)]),
        toy_event([(50, 1, 1)], [(40, 1, bad)]), toy_event([(50, 1, 1)], [(40, 1, 0)], met=(bad, 0)),
    ):  # fmt: skip
        values = table(ak.concatenate([good, event, good]))
        assert np.isnan(values).all(axis=(1, 2)).tolist() == [False, True, False]
        np.testing.assert_array_equal(values[0], table(good)[0])


def test_only_so_many_objects_have_a_row():
    ring = [(90 - 5 * k, 0.3 * (k - 6), 0.5 * k - 3) for k in range(13)]
    values = table(
        toy_event(ring, [(40 - k, 1, 0.1 * k) for k in range(6)], met=(20, 0)), columns=("pt",), cleaning=0.0
    )[0, :, 0]
    assert values[5:9].tolist() == [40, 39, 38, 37]
    assert values[9:].tolist() == [90 - 5 * k for k in range(10)]


@pytest.mark.parametrize(
    "options", [{}, {"met": "PFMET", "muon_cuts": ("tightId",), "jet_cuts": ("nConstituents>1",)}], ids=str
)
def test_the_table_reads_declared_branches_only(options):
    feature = FEATURES["event_objects"]
    (declared,) = feature.reads("FatJet", feature.resolve(options))
    assert read_by("event_objects", "ttbar_v15", **options) == set(declared)
    assert not any(branch.startswith(("Photon", "Jet_btag")) for branch in declared)


def test_the_table_of_varied_jets_differs_in_jets_only():
    events = file_events("ttbar_v15")
    plain, shifted = (table(e, leading_lepton_pt_min=0.0) for e in (events, varied(events, "Jet", pt=1.1)))
    np.testing.assert_array_equal(shifted[:, :9], plain[:, :9])
    assert (shifted[:, 9] != plain[:, 9]).any()


def test_columns_of_the_table_are_checked_by_name():
    with pytest.raises(
        ConfigError, match="event_objects: option columns .*unknown column 'sinphi'; did you mean 'sin_phi'"
    ):
        table(file_events("ttbar_v15"), columns=("pt", "sinphi"))
    for wrong in ((), ("pt", "pt")):
        with pytest.raises(ConfigError, match="name each column once"):
            table(file_events("ttbar_v15"), columns=wrong)
    for option, value in (("scaling", "pi"), ("jet_eta_max", 0.0), ("leading_lepton_pt_min", -1.0)):
        with pytest.raises(ConfigError, match=f"event_objects: option {option} is "):
            table(file_events("ttbar_v15"), **{option: value})


def test_units_of_the_table_follow_the_scaling():
    feature = FEATURES["event_objects"]
    units = {s: [c.unit for c in feature.columns(feature.resolve({"scaling": s}))] for s in ("talk", "common", "none")}
    assert units == {"talk": ["GeV", "", "", ""], "common": ["GeV", "", "", ""], "none": ["GeV", "", "rad", ""]}
    assert feature.row_shape(feature.resolve({})) == (19, 4)


# ---- the dijet


DIJETS = [
    {},
    {"delta_r": True, "mass": "msoftdrop"},
    {"inputs": "extended1", "shift": 0.1},
    {"inputs": "extended2", "epsilon": 0.0, "jet_pt_min": 150.0, "jet_eta_max": 2.0},
    {"inputs": "extended3", "delta_r": True},
    {"inputs": "kitchen_sink", "delta_r": True, "R0": 1.0},
    {"source": "stored"},
    {"source": "stored", "epsilon": 0.01, "mass": "msoftdrop", "shift": -0.2, "delta_r": True},
    {"axes": "WTA_KT", "R0": 1.0},
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("options", DIJETS, ids=str)
def test_the_dijet_equals_its_slow_twin(name, options):
    n = {"baseline": 20, "extended1": 6, "extended2": 6, "extended3": 3, "kitchen_sink": 2}[
        options.get("inputs", "baseline")
    ]
    want = naive.dijet(dijet_rows(name)[:n], DijetOptions(**options))
    got, counts = ad.features.compute("dijet", file_events(name)[:n], **options)
    np.testing.assert_allclose(got, want, rtol=2e-7, atol=1e-9)
    assert (counts == 1).all()
    assert np.isfinite(want).all(axis=1).any()


def test_the_first_jet_is_the_lighter_one():
    for mass in ("mass", "msoftdrop"):
        values = named(file_events("svj_v15"), mass=mass)
        defined = np.isfinite(values["mjj"])
        assert defined.sum() > 50
        assert (values["delta_mj"][defined] >= 0).all()
        assert (values["mj1"][defined] >= 0).all()
    lighter_is_softer = 0
    for event, mj1 in zip(dijet_rows("svj_v15"), named(file_events("svj_v15"))["mj1"], strict=True):
        if np.isfinite(mj1):
            two = sorted((j for j in event["FatJet"] if j["pt"] > 200 and abs(j["eta"]) < 2.5), key=lambda j: -j["pt"])[
                :2
            ]
            assert mj1 == np.float32(min(j["mass"] for j in two))
            lighter_is_softer += two[1]["mass"] < two[0]["mass"]
    assert 0 < lighter_is_softer < defined.sum()


def test_ratios_of_both_jets_belong_to_their_jets():
    values = named(file_events("svj_v15"), source="stored", epsilon=0.0)
    checked = 0
    for event, mj1, one, two in zip(
        dijet_rows("svj_v15"), values["mj1"], values["tau21_j1"], values["tau21_j2"], strict=True
    ):
        if np.isfinite(mj1):
            jets = sorted(
                (j for j in event["FatJet"] if j["pt"] > 200 and abs(j["eta"]) < 2.5), key=lambda j: -j["pt"]
            )[:2]
            light, heavy = sorted(jets, key=lambda j: j["mass"])
            assert one == pytest.approx(light["tau2"] / light["tau1"], rel=1e-6)
            assert two == pytest.approx(heavy["tau2"] / heavy["tau1"], rel=1e-6)
            checked += 1
    assert checked > 50


def test_epsilon_is_added_to_the_denominator():
    small, large = (named(file_events("svj_v15"), source="stored", epsilon=e)["tau21_j1"] for e in (0.0, 1e9))
    defined = np.isfinite(small)
    assert (small[defined] > 0.01).all()
    assert (large[defined] < 1e-8).all()
    inputs = (
        named(file_events("svj_v15"), inputs="extended2"),
        named(file_events("svj_v15"), inputs="extended1", epsilon=0.5),
    )
    for n in (2, 3, 4, 5):
        want = inputs[0][f"tau{n}_j2"] / (inputs[0][f"tau{n - 1}_j2"] + np.float32(0.5))
        np.testing.assert_allclose(inputs[1][f"tau{n}{n - 1}_j2"], want, rtol=1e-6)


def test_the_shift_adds_a_part_of_the_dijet_mass_to_both_masses():
    plain, shifted = (named(file_events("svj_v15"), source="stored", shift=shift) for shift in (0.0, 0.1))
    for name in ("mj1", "delta_mj"):
        np.testing.assert_allclose(shifted[name], plain[name] + 0.1 * plain["mjj"], rtol=3e-7)
    for name in ("mjj", "tau21_j1", "tau21_j2"):
        np.testing.assert_array_equal(shifted[name], plain[name])


def test_delta_r_is_the_last_input_and_at_most_what_acceptance_allows():
    values = named(file_events("svj_v15"), source="stored", delta_r=True)
    assert list(values)[-1] == "delta_r"
    defined = np.isfinite(values["delta_r"])
    assert (values["delta_r"][defined] < np.hypot(np.pi, 5)).all()
    assert np.median(values["delta_r"][defined]) > 2.5


@pytest.fixture
def jets_file(tmp_path):
    """Write events of jets (pT, η, φ, mass and further fields) and open them."""

    def write(*events):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.root"
        fields = dict.fromkeys(
            [*("pt", "eta", "phi", "mass", "tau1", "tau2"), *(f for e in events for j in e for f in j[4])]
        )
        rows = [{**dict(zip(fields, (*j[:4], 0.4, 0.2), strict=False)), **j[4]} for e in events for j in e]
        flat = ak.zip({f: np.array([row[f] for row in rows], np.float32) for f in fields})
        ids = {"run": np.uint32, "luminosityBlock": np.uint32, "event": np.uint64}
        columns = {k: np.arange(1, len(events) + 1).astype(t) for k, t in ids.items()}
        columns["FatJet"] = ak.unflatten(flat, [len(e) for e in events])
        with uproot.recreate(path) as new:
            types = {k: v.dtype if isinstance(v, np.ndarray) else ak.type(v).content for k, v in columns.items()}
            new.mktree("Events", types).extend(columns)
        return open_events(path)

    return write


def jet(pt, eta, phi, mass, **more):
    return pt, eta, phi, mass, more


def test_delta_r_looks_across_phi_of_pi(jets_file):
    events = jets_file([jet(500, 0.2, 3.1, 50), jet(400, -0.1, -3.1, 40)])
    values = named(events, source="stored", delta_r=True)
    assert values["delta_r"][0] == pytest.approx(np.hypot(0.3, 2 * np.pi - 6.2), rel=1e-6)


def test_inputs_of_two_back_to_back_jets_are_what_one_writes_on_paper(jets_file):
    values = named(jets_file([jet(400, 0, 0, 0), jet(400, 0, np.pi, 0)]), source="stored", epsilon=0.1)
    assert {k: v[0] for k, v in values.items()} == pytest.approx(
        {"mjj": 800, "mj1": 0, "delta_mj": 0, "tau21_j1": 0.4, "tau21_j2": 0.4}, rel=1e-6
    )


def test_of_two_equally_heavy_jets_the_harder_is_the_first(jets_file):
    values = named(
        jets_file([jet(300, 0, 0, 50, tau2=0.1), jet(400, 0, 3, 50, tau2=0.3)]), source="stored", epsilon=0.0
    )
    assert (values["tau21_j1"][0], values["tau21_j2"][0]) == pytest.approx((0.75, 0.25), rel=1e-6)


def test_negative_soft_drop_masses_count_as_zero(jets_file):
    events = jets_file([jet(400, 0, 0, 50, msoftdrop=-1.0), jet(300, 0, 3, 40, msoftdrop=12.0)])
    values = named(events, source="stored", mass="msoftdrop")
    assert (values["mj1"][0], values["delta_mj"][0]) == (0, 12)


@pytest.mark.parametrize(
    "jets",
    [
        [],
        [jet(400, 0, 0, 50)],
        [jet(400, 0, 0, 50), jet(199, 0, 3, 40)],
        [jet(400, 0, 0, 50), jet(200, 0, 3, 40)],
        [jet(400, 2.6, 0, 50), jet(300, 0, 3, 40)],
    ],
    ids=["none", "one", "soft", "at the edge", "forward"],
)
def test_events_with_fewer_than_two_jets_are_undefined_and_their_neighbours_are_not(jets_file, jets):
    good = [jet(400, 0, 0, 50), jet(300, 0, 3, 40), jet(250, 1, 1, 500)]
    values = dijet(jets_file(good, jets, good), source="stored")
    assert np.isnan(values).all(axis=1).tolist() == [False, True, False]
    assert np.isfinite(values[[0, 2]]).all()


@pytest.mark.parametrize(
    "options", [{}, {"source": "stored"}, {"inputs": "extended3", "delta_r": True}, {"inputs": "kitchen_sink"}], ids=str
)
def test_a_chunk_without_any_dijet_is_undefined(options):
    values = dijet(file_events("svj_v15"), jet_pt_min=1e6, **options)
    assert values.shape == (150, FEATURES["dijet"].size(DijetOptions(**options)))
    assert np.isnan(values).all()


def test_jets_without_stored_constituents_have_masses_and_no_shapes():
    events = file_events("svj_v15")
    outer = ak.with_field(events, events.FatJet[abs(events.FatJet["eta"]) > 1.2], "FatJet")
    values = named(outer, jet_eta_max=5.0, jet_pt_min=0.0)
    without = np.isnan(values["tau21_j1"]) | np.isnan(values["tau21_j2"])
    assert (without & np.isfinite(values["mjj"])).any()
    assert (np.isnan(values["mjj"]) <= without).all()


def test_stored_shapes_are_the_stored_branches():
    stored, computed = (named(file_events("svj_v15"), source=s) for s in ("stored", "constituents"))
    for name in ("mjj", "mj1", "delta_mj"):
        np.testing.assert_array_equal(stored[name], computed[name])
    ratios = np.array([j["tau2"] / (j["tau1"] + 1e-5) for event in dijet_rows("svj_v15") for j in event["FatJet"]])
    for name in ("tau21_j1", "tau21_j2"):
        for value in stored[name][np.isfinite(stored[name])]:
            assert np.abs(ratios / value - 1).min() < FLOAT32


@pytest.mark.parametrize(
    ("inputs", "n"), [("baseline", 4), ("extended1", 10), ("extended2", 12), ("extended3", 56), ("kitchen_sink", 104)]
)
def test_sets_have_as_many_inputs_as_in_the_papers_beside_the_dijet_mass(inputs, n):
    feature = FEATURES["dijet"]
    names = [c.name for c in feature.columns(feature.resolve({"inputs": inputs}))]
    assert len(names) == len(set(names)) == n + 1
    assert names[:3] == ["mjj", "mj1", "delta_mj"]
    assert [name for name in names if name.endswith("_j1")] == [
        n.replace("_j2", "_j1") for n in names if n.endswith("_j2")
    ]
    assert names.index(next(n for n in names if n.endswith("_j2"))) == 3 + (len(names) - 3) // 2
    with_delta_r = [c.name for c in feature.columns(feature.resolve({"inputs": inputs, "delta_r": True}))]
    assert with_delta_r == [*names, "delta_r"]


def test_names_of_the_inputs_tell_ratio_power_and_jet():
    feature = FEATURES["dijet"]

    def names(inputs):
        return [c.name for c in feature.columns(feature.resolve({"inputs": inputs}))][3:]

    assert names("baseline") == ["tau21_j1", "tau21_j2"]
    assert names("extended1") == [f"tau{n}{n - 1}_j{j}" for j in (1, 2) for n in (2, 3, 4, 5)]
    assert names("extended2") == [f"tau{n}_j{j}" for j in (1, 2) for n in (1, 2, 3, 4, 5)]
    assert names("extended3") == [
        f"tau{n}_beta{b}_j{j}" for j in (1, 2) for b in ("0.5", "1", "2") for n in range(1, 10)
    ]


@pytest.mark.parametrize("inputs", ["extended1", "extended2", "extended3", "kitchen_sink"])
def test_stored_shapes_are_refused_for_inputs_that_are_not_stored(inputs):
    with pytest.raises(
        ConfigError, match=f"dijet: .*inputs={inputs} needs source=constituents: NanoAOD stores no tau5"
    ):
        dijet(file_events("svj_v15"), source="stored", inputs=inputs)


@pytest.mark.parametrize("options", DIJETS, ids=str)
def test_the_dijet_reads_declared_branches_only(options):
    if options.get("inputs") in ("extended3", "kitchen_sink"):
        options = {**options, "jet_pt_min": 450.0}
    feature = FEATURES["dijet"]
    alternatives = feature.reads("FatJet", feature.resolve(options))
    read = read_by("dijet", "svj_v15", **options)
    assert any(read == set(branches) for branches in alternatives), sorted(read)


def test_the_dijet_of_pfnano_is_that_of_v15():
    for options in ({}, {"source": "stored"}):
        v15, pfnano = (dijet(file_events(f"svj_{k}"), **options) for k in ("v15", "pfnano"))
        np.testing.assert_array_equal(v15, pfnano)


def test_a_variation_of_the_jets_is_what_the_dijet_is_made_of():
    events = file_events("svj_v15")
    rows = [{"FatJet": [{**jet} for jet in event["FatJet"]]} for event in dijet_rows("svj_v15")]
    for event in rows:
        for jet in event["FatJet"]:
            for field, factor in (("pt", 1.1), ("mass", 0.9)):
                jet[field] = float(np.float32(jet[field]) * np.float32(factor))
    for source, n in (("stored", 150), ("constituents", 20)):
        got = dijet(varied(events, "FatJet", pt=1.1, mass=0.9)[:n], source=source)
        np.testing.assert_allclose(got, naive.dijet(rows[:n], DijetOptions(source=source)), rtol=2e-7, atol=1e-9)
    plain, got = dijet(events), dijet(varied(events, "FatJet", pt=1.1, mass=0.9))
    both = np.isfinite(plain[:, 0]) & np.isfinite(got[:, 0])
    assert np.isfinite(got[:, 0]).sum() > both.sum()  # softer jets come in
    assert np.median(got[both, 0] / plain[both, 0]) > 1.05


def test_a_sort_of_the_jets_in_place_changes_nothing():
    events = file_events("svj_v15")
    resorted = ak.with_field(events, events.FatJet[ak.argsort(events.FatJet["mass"], axis=1)], "FatJet")
    np.testing.assert_array_equal(dijet(resorted), dijet(events))


@pytest.mark.parametrize("name", ["event_objects", "dijet"])
@pytest.mark.parametrize(
    "which",
    [np.arange(150) % 3 == 0, slice(20, 70), slice(None, None, -1), slice(0, 0)],
    ids=["mask", "slice", "reversed", "nothing"],
)
def test_some_of_the_events_have_the_rows_they_have_among_all(name, which):
    events = file_events("svj_v15")
    whole, _ = ad.features.compute(name, events)
    got, counts = ad.features.compute(name, events[which])
    np.testing.assert_array_equal(got, whole[which])
    assert len(counts) == len(got)


@pytest.mark.parametrize("name", ["event_objects", "dijet"])
def test_blocks_join_to_the_whole(name):
    events = file_events("svj_v15")
    parts = list(ad.features.blocks(name, events, size=7))
    assert {len(p) for p in parts[:-1]} == {7}
    np.testing.assert_array_equal(np.concatenate(parts), ad.features.compute(name, events)[0])


def test_another_collection_of_jets_is_never_taken_for_the_one_asked_for():
    with pytest.raises(MissingBranch, match="ScoutingFatJet"):
        dijet(file_events("svj_v15"), jets="ScoutingFatJet", source="stored")
    options = FEATURES["dijet"].resolve({"jets": "SubJet", "source": "stored"})
    assert all(branch.startswith("SubJet_") for branch in FEATURES["dijet"].reads("FatJet", options)[0])


def test_a_missing_branch_is_named_with_its_file(tmp_path):
    path = copy_events(DATA / "svj_v15.root", tmp_path / "slim.root", stop=20, drop=("FatJet_tau2", "Muon_mediumId", "FatJetPFCand_pfCandIdx"))  # fmt: skip
    events = open_events(path, metadata={"filename": str(path), "dataset": "x"})
    with pytest.raises(MissingBranch, match=r"slim\.root.*FatJet_tau2"):
        dijet(events, source="stored")
    with pytest.raises(MissingBranch, match=r"slim\.root.*FatJetPFCand_pfCandIdx"):
        dijet(events)
    with pytest.raises(MissingBranch, match=r"slim\.root.*Muon_mediumId"):
        table(events, muon_cuts=("mediumId",))


def test_options_of_the_dijet_are_checked_by_name():
    for option, value in (
        ("inputs", "all"),
        ("delta_r", 1),
        ("source", "file"),
        ("epsilon", -1.0),
        ("mass", "groomed"),
        ("shift", "x"),
    ):
        with pytest.raises(ConfigError, match=f"dijet: option {option} is "):
            dijet(file_events("svj_v15"), **{option: value})


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dijet", {"jets": "AK8", "inputs": "extended1", "delta_r": True, "source": "stored", "mass": "msoftdrop",
                   "epsilon": 0.0, "shift": 0.1, "jet_pt_min": 300.0, "jet_eta_max": 2.0, "axes": "KT", "R0": 1.0}),
        ("event_objects", {"columns": ("pt", "mask"), "scaling": "none", "leading_lepton_pt_min": 0.0, "jet_pt_min": 30.0,
                           "met": "PFMET", "cleaning": 0.4, "muon_cuts": ("mediumId",)}),
    ],
)  # fmt: skip
def test_every_option_makes_another_input(name, changes):
    keys = [feature_spec(name, {option: value}).key for option, value in changes.items()]
    assert len({*keys, name}) == len(changes) + 1


def test_nothing_is_cut_and_cleaned_by_default_but_pt_and_eta():
    reads = ad.features.get("event_objects").reads("FatJet", ad.features.get("event_objects").resolve({}))[0]
    assert {branch.split("_")[1] for branch in reads} == {"pt", "eta", "phi", "mass"}


def test_a_dijet_whose_jets_cannot_be_ordered_is_undefined():
    """A jet without a pT may be one of the two: the next pair must not take its place."""
    events = file_events("svj_v15")
    jets = events.FatJet
    broken = ak.with_field(jets, ak.where(ak.local_index(jets["pt"]) == 0, np.float32(np.nan), jets["pt"]), "pt")
    values, _ = ad.features.compute("dijet", ak.with_field(events, broken, "FatJet"), source="stored")
    whole, _ = ad.features.compute("dijet", events, source="stored")
    has = ak.to_numpy(ak.num(jets)) > 0
    assert np.isnan(values[has]).all()
    assert np.isfinite(whole[has]).all(axis=1).sum() > 50


def test_whole_events_of_the_stock_schema_will_do(monkeypatch):
    from coffea.nanoevents import NanoAODSchema as Stock

    monkeypatch.setattr(Stock, "warn_missing_crossrefs", False)
    stock = open_events(DATA / "svj_v15.root", schema=Stock)
    for options in ({}, {"source": "stored"}):
        ours, _ = ad.features.compute("dijet", file_events("svj_v15"), **options)
        np.testing.assert_array_equal(ad.features.compute("dijet", stock, **options)[0], ours)


def test_features_of_events_take_no_collection_and_no_objects():
    events = file_events("svj_v15")
    with pytest.raises(ConfigError, match="dijet: a feature of whole events is of no collection, not of 'Jet'"):
        ad.features.compute("dijet", events, collection="Jet")
    with pytest.raises(ad.errors.MissingIndex, match="whole events are needed here"):
        ad.features.compute("dijet", events.FatJet)


def test_missing_fat_jets_are_refused_by_name():
    events = file_events("svj_v15")
    holes = ak.with_field(events.FatJet, ak.mask(events.FatJet["pt"], events.FatJet["pt"] > 300), "pt")
    with pytest.raises(ad.errors.BadFile, match="FatJet_pt has missing values"):
        ad.features.compute("dijet", ak.with_field(events, holes, "FatJet"))
