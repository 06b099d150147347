from __future__ import annotations

import itertools

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toys import DATA, open_events, toy_jets

import coffea_ad as ad
from coffea_ad.errors import ConfigError, MissingBranch
from coffea_ad.features import FEATURES
from coffea_ad.features.constituents import COLUMNS, constituent_tensor
from coffea_ad.features.grooming import lund_plane
from coffea_ad.features.naive import constituents as naive
from coffea_ad.features.naive import substructure as naive_substructure
from coffea_ad.features.spec import feature_spec
from coffea_ad.nanoaod.constituents import CONSTITUENT_TABLES
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.scoring.specs import InputSpec

# Two doubles that are equal within rounding may be stored as neighbouring floats, 2^-23 apart. Δη and Δφ are differences of
# numbers of order 1, and a constituent on the centre is at 0 within the rounding of those.
FLOAT32, ZERO = 1.5e-7, 1e-13

TYPES = (211, -211, 321, -2212, 130, 310, 2112, 22, 11, -11, 13, -13, 1, 2, 0, 111)

seeds = st.integers(0, 2**32 - 1)


def some_jets(seed, n_jets=5, largest=40):
    """Toy jets with charges and types."""
    rng = np.random.default_rng(seed)
    jets = toy_jets(rng, n_jets, largest)
    n = len(jets[1])
    return (*jets, rng.integers(-1, 2, n), rng.choice(TYPES, n))


def tensor(jets, columns=COLUMNS, n=50, center="centroid"):
    return constituent_tensor(columns, n, *jets, center=center)


def column(name, jets, n=50, center="centroid"):
    return tensor(jets, (name,), n, center)[..., 0]


def one(pt, eta, phi, mass=None):
    return [0, len(pt)], pt, eta, phi, np.zeros(len(pt)) if mass is None else mass


def wrapped(phi):
    return (phi + np.pi) % (2 * np.pi) - np.pi


def assert_same(got, want, atol=ZERO):
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=atol)


# ---- the definition


@pytest.mark.parametrize("center", ["centroid", "axis"])
@pytest.mark.parametrize("n", [1, 7, 39, 60])
def test_the_kernel_equals_its_slow_twin_in_all_columns(center, n):
    jets = some_jets(1, 40)
    got = tensor(jets, n=n, center=center)
    assert got.dtype == np.float32
    assert got.shape == (40, n, len(COLUMNS))
    want = naive.constituent_tensor(COLUMNS, n, *jets, center=center)
    for k, name in enumerate(COLUMNS):
        np.testing.assert_allclose(got[..., k], want[..., k], rtol=FLOAT32, atol=ZERO, err_msg=name)
    assert np.isfinite(want).all()


def test_columns_stand_in_the_order_asked_for_and_alone_are_what_they_are_among_others():
    jets = some_jets(2, 20)
    everything = tensor(jets)
    order = np.random.default_rng(2).permutation(len(COLUMNS))
    np.testing.assert_array_equal(tensor(jets, tuple(COLUMNS[k] for k in order)), everything[..., order])
    for k, name in enumerate(COLUMNS):
        np.testing.assert_array_equal(column(name, jets), everything[..., k])


def test_columns_have_their_names_and_units():
    feature = FEATURES["jet_constituents"]
    options = feature.resolve({"columns": COLUMNS})
    units = {c.name: c.unit for c in feature.columns(options)}
    assert tuple(units) == COLUMNS
    assert {name for name, unit in units.items() if unit == "GeV"} == {"pt", "energy", "mass"}
    assert {name for name, unit in units.items() if unit == "rad"} == {"phi", "dphi"}
    assert units["charge"] == "e"
    assert feature.row_shape(options) == (50, len(COLUMNS))
    assert feature.row_shape(feature.resolve({})) == (50, 3)


def test_values_of_two_constituents_are_what_one_writes_on_paper():
    jets = (*one([30.0, 10.0], [0.5, 0.9], [0.2, -0.2], [3.0, 0.0]), [1, -1], [211, 22])
    values = {name: column(name, jets, 3)[0].tolist() for name in COLUMNS}
    hard, soft = np.hypot(30 * np.cosh(0.5), 3.0), 10 * np.cosh(0.9)
    assert values == {
        name: pytest.approx([*pair, 0.0], rel=1e-6, abs=1e-7)
        for name, pair in {
            "pt": (30, 10), "energy": (hard, soft), "mass": (3, 0), "eta": (0.5, 0.9), "phi": (0.2, -0.2),
            "deta": (-0.1, 0.3), "dphi": (0.1, -0.3), "dr": (np.sqrt(0.02), np.sqrt(0.18)),
            "log_pt": (np.log(30), np.log(10)), "log_energy": (np.log(hard), np.log(soft)), "pt_rel": (0.75, 0.25),
            "energy_rel": (hard / (hard + soft), soft / (hard + soft)), "log_pt_rel": (np.log(0.75), np.log(0.25)),
            "log_energy_rel": (np.log(hard / (hard + soft)), np.log(soft / (hard + soft))), "charge": (1, -1),
            "is_charged_hadron": (1, 0), "is_neutral_hadron": (0, 0), "is_photon": (0, 1), "is_electron": (0, 0),
            "is_muon": (0, 0), "mask": (1, 1),
        }.items()
    }  # fmt: skip


def test_the_axis_is_that_of_the_sum_of_the_constituents():
    pt, eta, phi = np.array([30.0, 10.0]), np.array([0.5, 1.3]), np.array([0.2, -0.6])
    px, py, pz = (float(np.sum(pt * f)) for f in (np.cos(phi), np.sin(phi), np.sinh(eta)))
    jets = one(pt, eta, phi)
    assert column("deta", jets, 2, "axis")[0] == pytest.approx(eta - np.arcsinh(pz / np.hypot(px, py)), rel=1e-6)
    assert column("dphi", jets, 2, "axis")[0] == pytest.approx(phi - np.arctan2(py, px), rel=1e-6)
    assert abs(column("deta", jets, 2, "axis") - column("deta", jets, 2)).max() > 0.01


@pytest.mark.parametrize(
    ("number", "column_name"),
    [(211, "is_charged_hadron"), (321, "is_charged_hadron"), (2212, "is_charged_hadron"), (130, "is_neutral_hadron"),
     (310, "is_neutral_hadron"), (2112, "is_neutral_hadron"), (1, "is_neutral_hadron"), (22, "is_photon"), (2, "is_photon"),
     (11, "is_electron"), (13, "is_muon"), (0, None), (15, None), (111, None)],
)  # fmt: skip
def test_a_constituent_is_of_at_most_one_type(number, column_name):
    names = tuple(c for c in COLUMNS if c.startswith("is_"))
    for sign in (1, -1):
        jets = (*one([1.0], [0.0], [0.0]), [0], [sign * number])
        flags = dict(zip(names, tensor(jets, names, 1)[0, 0].tolist(), strict=True))
        assert flags == {name: float(name == column_name) for name in names}


def test_a_slice_of_the_offsets_is_a_block_of_jets():
    offsets, *rest = some_jets(3, 30)
    everything = tensor((offsets, *rest))
    for a, b in [(0, 11), (11, 30), (7, 7)]:
        np.testing.assert_array_equal(tensor((offsets[a : b + 1], *rest)), everything[a:b])


# ---- slots


def test_slots_are_filled_by_falling_pt_and_equal_ones_in_the_order_of_the_file():
    jets = one([1.0, 5.0, 3.0, 5.0, 3.0, 5.0], np.arange(6) / 10, np.zeros(6))
    assert column("pt", jets, 6)[0].tolist() == [5, 5, 5, 3, 3, 1]
    assert column("eta", jets, 6)[0].round(3).tolist() == np.float32([0.1, 0.3, 0.5, 0.2, 0.4, 0.0]).round(3).tolist()


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_pt_falls_in_every_jet(seed):
    pt = column("pt", some_jets(seed))
    assert (np.diff(pt, axis=1) <= 0).all()


def test_fewer_slots_are_the_first_ones_of_more():
    jets = some_jets(4, 20)
    everything = tensor(jets, n=60)
    for n in (1, 5, 39):
        np.testing.assert_array_equal(tensor(jets, n=n), everything[:, :n])


def test_constituents_without_a_slot_still_count_in_centre_and_sums():
    jets = one([30.0, 10.0], [0.5, 0.9], [0.0, 0.4])
    assert column("pt_rel", jets, 1)[0, 0] == 0.75
    assert column("energy_rel", jets, 1)[0, 0] < 1
    assert tensor(jets, ("deta", "dphi"), 1)[0, 0] == pytest.approx([-0.1, -0.1], rel=1e-6)


def test_the_mask_tells_constituents_from_empty_slots_which_hold_zeros():
    jets = some_jets(5, 20)
    values = tensor(jets, n=30)
    mask = column("mask", jets, 30)
    assert mask.sum(axis=1).tolist() == np.minimum(np.diff(jets[0]), 30).tolist()
    assert (values[mask == 0] == 0).all()
    assert set(np.unique(mask)) == {0, 1}


def test_constituents_without_pt_do_not_count():
    got = tensor(one([30, 0, 10, -5], [0.2, 9.0, -0.2, 3.0], [0.0, 0.5, 0.3, -2.0]), n=4)
    np.testing.assert_array_equal(got, tensor(one([30, 10], [0.2, -0.2], [0.0, 0.3]), n=4))


# ---- undefined


def test_jets_without_constituents_are_undefined_and_their_neighbours_are_not():
    jets = [0, 0, 1, 1, 3], [5.0, 0.0, -1.0], np.zeros(3), np.zeros(3), np.zeros(3)
    for center in ("centroid", "axis"):
        values = tensor(jets, n=2, center=center)
        assert np.isnan(values[[0, 2, 3]]).all()
        assert np.isfinite(values[1]).all()
    assert tensor(([0], *jets[1:])).shape == (0, 50, len(COLUMNS))


@pytest.mark.parametrize("center", ["centroid", "axis"])
@pytest.mark.parametrize("which", ["pt", "eta", "phi", "mass", "charge"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_constituent_that_is_not_finite_makes_its_jet_undefined_and_no_other(bad, which, center):
    offsets, *rest = some_jets(6, 3)
    rest = [np.array(a, float) if k < 5 else a for k, a in enumerate(rest)]
    good = tensor((offsets, *rest), center=center)
    if which == "pt" and bad < 0:
        bad = np.nan  # what has no positive pT does not count
    rest[("pt", "eta", "phi", "mass", "charge").index(which)][offsets[1]] = bad
    for columns in (COLUMNS, ("pt",), ("mask",), ("dphi", "is_muon")):
        values = tensor((offsets, *rest), columns, center=center)
        assert np.isnan(values[1]).all()
        assert np.isfinite(values[[0, 2]]).all()
    np.testing.assert_array_equal(tensor((offsets, *rest), center=center)[[0, 2]], good[[0, 2]])


def test_a_constituent_that_is_not_finite_but_has_no_pt_does_no_harm():
    jets = one([3.0, 0.0], [0.1, np.nan], [0.2, np.inf])
    np.testing.assert_array_equal(tensor(jets, n=2), tensor(one([3.0], [0.1], [0.2]), n=2))


# ---- directions


@pytest.mark.parametrize("center", ["centroid", "axis"])
def test_particles_on_both_sides_of_phi_of_pi_are_close_to_each_other(center):
    phi = np.array([3.1, -3.1, 3.0, -3.0])
    jets = one([4.0, 3.0, 2.0, 1.0], np.zeros(4), phi)
    dphi = column("dphi", jets, 4, center)[0]
    assert np.abs(dphi).max() < 0.3
    there = np.where(phi > 0, phi - np.pi, phi + np.pi)  # the same jet at φ = 0
    assert_same(dphi, column("dphi", one([4.0, 3.0, 2.0, 1.0], np.zeros(4), there), 4, center)[0], atol=1e-9)


@pytest.mark.parametrize("center", ["centroid", "axis"])
@pytest.mark.parametrize("phi", [np.pi, -np.pi, float(np.float32(np.pi)), -float(np.float32(np.pi))])
def test_phi_of_plus_and_minus_pi_is_one_direction(phi, center):
    """As a float, π is a little more than π."""
    dphi = column("dphi", one([4.0, 3.0, 2.0], np.zeros(3), [phi, -phi, phi]), 3, center)[0]
    assert np.abs(dphi).max() < 2e-7


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-10, 10), st.sampled_from(["centroid", "axis"]))
def test_nothing_but_phi_changes_when_the_jet_is_rotated_about_the_beam(seed, angle, center):
    offsets, pt, eta, phi, *rest = some_jets(seed)
    others = tuple(c for c in COLUMNS if c != "phi")
    got, want = (tensor((offsets, pt, eta, p, *rest), others, center=center) for p in (wrapped(phi + angle), phi))
    assert_same(got, want, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-2, 2))
def test_differences_from_the_centroid_do_not_change_when_the_jet_is_shifted_in_eta(seed, shift):
    offsets, pt, eta, *rest = some_jets(seed)
    for name in ("deta", "dphi", "dr", "pt_rel", "log_pt_rel", "mask"):
        assert_same(
            column(name, (offsets, pt, eta + shift, *rest)), column(name, (offsets, pt, eta, *rest)), atol=1e-12
        )


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(["centroid", "axis"]))
def test_nothing_changes_when_constituents_are_reordered(seed, center):
    offsets, *rest = some_jets(seed)
    assume(len(np.unique(rest[0])) == len(rest[0]))
    rng = np.random.default_rng(seed)
    order = np.concatenate([a + rng.permutation(b - a) for a, b in itertools.pairwise(offsets)])
    got = tensor((offsets, *(c[order] for c in rest)), center=center)
    assert_same(got, tensor((offsets, *rest), center=center), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_the_weighted_means_of_differences_from_the_centroid_are_zero(seed):
    jets = some_jets(seed)
    pt, deta, dphi = (column(name, jets).astype(float) for name in ("pt_rel", "deta", "dphi"))
    assume(np.abs(dphi).max() < 2)  # what is more than π from the hardest one is on its other side
    for difference in (deta, dphi):
        np.testing.assert_allclose(np.sum(pt * difference, axis=1), 0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.01, 100))
def test_relative_columns_do_not_change_when_all_momenta_are_scaled(seed, factor):
    offsets, pt, eta, phi, mass, *rest = some_jets(seed)
    scaled = offsets, factor * pt, eta, phi, factor * mass, *rest
    for name in ("pt_rel", "energy_rel", "log_pt_rel", "log_energy_rel", "deta", "dphi", "dr"):
        for center in ("centroid", "axis"):
            got, want = (column(name, jets, center=center) for jets in (scaled, (offsets, pt, eta, phi, mass, *rest)))
            assert_same(got, want, atol=1e-12)


# ---- files


def values_of(events, **options):
    return ad.features.compute("jet_constituents", events, **options)[0]


def branches(path, candidates, links, index, puppi=None):
    """Constituents of every fat jet of a file with all their fields, read by uproot alone."""
    with uproot.open(path) as file:
        tree = file["Events"]
        fields = [k.removeprefix(candidates + "_") for k in tree.keys() if k.startswith(candidates + "_")]
        table = {f: tree[f"{candidates}_{f}"].array().to_list() for f in fields}
        jet, candidate = (tree[f"{links}_{f}"].array().to_list() for f in ("jetIdx", index))
        n_jets = tree["nFatJet"].array().to_list()
    out = []
    for event, n in enumerate(n_jets):
        for j in range(n):
            rows = [c for k, c in zip(jet[event], candidate[event], strict=True) if k == j]
            jet_fields = {f: np.array([table[f][event][c] for c in rows], float) for f in fields}
            if puppi:
                for f in ("pt", "mass"):
                    jet_fields[f] = jet_fields[f] * jet_fields[puppi]
            out.append(jet_fields)
    return out


def charge_of(pdg_id):
    """Leptons with positive numbers are negative."""
    return {211: 1, 321: 1, 2212: 1, 11: -1, 13: -1}.get(abs(pdg_id), 0) * (1 if pdg_id > 0 else -1)


LAYOUTS = {
    "svj_v15": ("PFCand", "FatJetPFCand", "pfCandIdx"),
    "ttbar_v15": ("PFCand", "FatJetPFCand", "pfCandIdx"),
    "svj_pfnano": ("PFCands", "FatJetPFCands", "pFCandsIdx", "puppiWeight"),
}


@pytest.mark.parametrize("center", ["centroid", "axis"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_tensor_of_a_file_is_that_of_its_branches(name, center):
    jets = branches(DATA / f"{name}.root", *LAYOUTS[name])
    offsets = np.r_[0, np.cumsum([len(j["pt"]) for j in jets])]
    flat = {f: np.concatenate([j[f] for j in jets]) for f in ("pt", "eta", "phi", "mass", "pdgId")}
    if name == "svj_pfnano":
        charge = np.concatenate([j["charge"] for j in jets])
    else:
        charge = [charge_of(int(i)) for i in flat["pdgId"]]
    want = naive.constituent_tensor(
        COLUMNS,
        20,
        offsets,
        *(flat[f] for f in ("pt", "eta", "phi", "mass")),
        charge,
        flat["pdgId"].astype(int),
        center,
    )
    events = open_events(DATA / f"{name}.root")
    got, counts = ad.features.compute("jet_constituents", events, n=20, columns=COLUMNS, center=center)
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=ZERO)
    np.testing.assert_array_equal(counts, ak.to_numpy(ak.num(events.FatJet)))
    for flag in ("is_charged_hadron", "is_photon", "is_neutral_hadron"):
        assert np.nansum(want[..., COLUMNS.index(flag)]) > 0
    assert set(np.unique(got[..., COLUMNS.index("charge")][got[..., COLUMNS.index("mask")] == 1])) == {-1, 0, 1}


def test_v15_and_pfnano_layouts_of_the_same_events_give_the_same_tensor():
    columns = tuple(c for c in COLUMNS if c != "charge")
    v15, pfnano = (values_of(open_events(DATA / f"svj_{k}.root"), columns=columns) for k in ("v15", "pfnano"))
    np.testing.assert_array_equal(v15, pfnano)


@pytest.mark.parametrize(
    "view",
    [
        lambda e: e.FatJet[ak.num(e.FatJet) > 0][:, 0],
        lambda e: e.FatJet[ak.argsort(e.FatJet["mass"], axis=1)],
        lambda e: e.FatJet[e.FatJet["pt"] > 300],
        lambda e: ak.mask(e.FatJet, e.FatJet["pt"] > 300),
        lambda e: ak.firsts(e.FatJet),
        lambda e: e[20:70].FatJet,
        lambda e: e.FatJet[e.FatJet["pt"] > 1e9],
    ],
    ids=["leading", "sorted", "cut", "masked", "firsts", "events", "none left"],
)
@pytest.mark.parametrize(
    ("name", "options"), [("jet_constituents", {"columns": COLUMNS, "n": 9}), ("jet_lund", {"n": 5})]
)
def test_any_view_of_a_collection_has_the_rows_of_its_jets(svj, name, options, view):
    whole, _ = ad.features.compute(name, svj, **options)
    jets = view(svj)
    got, counts = ad.features.compute(name, jets, **options)
    np.testing.assert_array_equal(got, whole[Objects.of(jets).index])
    assert counts.sum() == len(got)


@pytest.mark.parametrize("name", ["jet_constituents", "jet_lund"])
def test_blocks_join_to_the_whole(svj, name):
    parts = list(ad.features.blocks(name, svj, size=50))
    assert {len(p) for p in parts[:-1]} == {50}
    np.testing.assert_array_equal(np.concatenate(parts), ad.features.compute(name, svj)[0])


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(
    ("feature", "options", "more"),
    [
        ("jet_constituents", {}, ()),
        ("jet_constituents", {"columns": ("pt_rel", "charge")}, ("charge",)),
        ("jet_constituents", {"columns": ("is_photon", "mask")}, ("pdgId",)),
        ("jet_constituents", {"columns": COLUMNS}, ("charge", "pdgId")),
        ("jet_lund", {}, ()),
    ],
    ids=["default", "charge", "type", "all", "lund"],
)
def test_only_declared_branches_are_read(name, feature, options, more):
    log = []
    ad.features.compute(feature, open_events(DATA / f"{name}.root", access_log=log), **options)
    read = {e.branch for e in log if not (e.branch.startswith("n") and "_" not in e.branch)}
    table = CONSTITUENT_TABLES[name == "svj_pfnano"]
    more = dict.fromkeys(table.charge if f == "charge" else f for f in more)
    if table.puppi:  # whether pT is weighted already is told by the jets
        assert read >= {"FatJet_pt", "FatJet_eta", "FatJet_rawFactor"}
        read -= {"FatJet_pt", "FatJet_eta", "FatJet_rawFactor"}
    assert read == set(table.branches("FatJet", *more))
    assert any(read == set(b) for b in FEATURES[feature].reads("FatJet", FEATURES[feature].resolve(options)))


def test_constituents_that_are_not_stored_are_named(svj):
    for name in ("jet_constituents", "jet_lund"):
        with pytest.raises(MissingBranch, match="Jet constituents needs JetPFCand_jetIdx"):
            ad.features.compute(name, svj, collection="Jet")


def test_jets_outside_the_acceptance_of_stored_constituents_are_undefined(svj):
    forward = np.abs(ak.to_numpy(ak.flatten(svj.FatJet["eta"]))) > 2.5
    assert forward.any()
    for name in ("jet_constituents", "jet_lund"):
        values, _ = ad.features.compute(name, svj)
        np.testing.assert_array_equal(np.isnan(values).all(axis=(1, 2)), forward)
        assert np.isfinite(values[~forward]).all()


# ---- the Lund plane


@pytest.mark.parametrize("n", [1, 4, 12, 60])
def test_the_lund_feature_is_the_lund_plane_padded(svj, n):
    got, _ = ad.features.compute("jet_lund", svj, n=n)
    c = Objects.of(svj).constituents
    counts, plane = lund_plane(c.offsets, c.pt, c.eta, c.phi, c.mass)
    assert got.shape == (len(counts), n, 4)
    assert (counts > n).any() == (n < 60)
    assert np.isfinite(plane).all()
    first = 0
    for row, count in zip(got, counts, strict=True):
        if count < 0:
            assert np.isnan(row).all()
            continue
        kept = min(count, n)
        np.testing.assert_array_equal(row[:kept, :3], plane[first : first + kept].astype(np.float32))
        assert (row[:kept, 3] == 1).all()
        assert (row[kept:] == 0).all()
        first += count
    assert first == len(plane)


def test_the_lund_feature_equals_the_slow_twin_of_the_plane(svj):
    some = svj[:12]
    got, _ = ad.features.compute("jet_lund", some, n=30)
    c = Objects.of(some).constituents
    counts, plane = naive_substructure.lund_plane(c.offsets, c.pt, c.eta, c.phi, c.mass)
    assert (got[..., 3] > 0).sum(axis=1).tolist() == np.clip(counts, 0, 30).tolist()
    kept = np.concatenate([np.arange(n) < 30 for n in counts if n > 0])
    np.testing.assert_allclose(got[got[..., 3] > 0][:, :3], plane[kept], rtol=1e-6, atol=1e-9)


def lund_of(constituents, n=4):
    """The feature for jets whose constituents are (pT, η, φ, mass), by way of a minimal event."""
    counts = [len(jet) for jet in constituents]
    flat = np.array([row for jet in constituents for row in jet], float).reshape(-1, 4)
    names = ("pt", "eta", "phi", "mass")
    events = ak.zip(
        {
            "FatJet": ak.unflatten(ak.zip({"pt": np.ones(len(counts)), "eta": np.ones(len(counts)), "phi": np.ones(len(counts))}), [len(counts)]),
            "FatJetPFCand": ak.unflatten(
                ak.zip({"jetIdx": np.repeat(np.arange(len(counts)), counts), "pfCandIdx": np.arange(len(flat))}), [len(flat)]
            ),
            "PFCand": ak.unflatten(ak.zip(dict(zip(names, flat.T, strict=True))), [len(flat)]),
        },
        depth_limit=1,
    )  # fmt: skip
    events.attrs["@original_array"] = events  # made by hand: these are the events of the chunk
    return ad.features.compute("jet_lund", events, n=n)[0]


def test_a_splitting_of_identical_directions_has_no_place_in_the_plane():
    twins = [(10.0, 0.3, 0.4, 0.0), (5.0, 0.3, 0.4, 0.0)]
    got = lund_of([twins, [*twins, (8.0, 0.0, 0.0, 0.0)], [(7.0, 0.1, 0.2, 0.0)]])
    assert (got[0] == 0).all()
    assert got[1, :, 3].tolist() == [1, 0, 0, 0]
    assert got[1, 0] == pytest.approx([-np.log(0.5), np.log(8.0 * 0.5), 8 / 23, 1], rel=1e-6)
    assert (got[2] == 0).all()


def test_jets_without_constituents_have_no_lund_plane_and_a_jet_that_is_not_finite_neither():
    good = [(10.0, 0.3, 0.4, 0.0), (5.0, 0.1, 0.4, 0.0)]
    got = lund_of([good, [], [(10.0, np.nan, 0.4, 0.0), (5.0, 0.1, 0.4, 0.0)], good])
    assert np.isnan(got).all(axis=(1, 2)).tolist() == [False, True, True, False]
    np.testing.assert_array_equal(got[0], got[3])


# ---- options


@pytest.mark.parametrize("n", [0, -1, 1001, 2.5, "ten", True])
@pytest.mark.parametrize("name", ["jet_constituents", "jet_lund"])
def test_a_number_of_slots_that_is_none_is_refused(name, n):
    with pytest.raises(ConfigError, match=rf"{name}: option n is {n!r}: "):
        FEATURES[name].resolve({"n": n})


def test_unknown_columns_get_the_nearest_right_name():
    with pytest.raises(
        ConfigError, match="jet_constituents: option columns .*unknown column 'log_ptrel'; did you mean 'log_pt_rel'"
    ):
        FEATURES["jet_constituents"].resolve({"columns": ("pt", "log_ptrel")})


@pytest.mark.parametrize("columns", [("pt", "eta", "pt"), ()])
def test_each_column_is_named_once(columns):
    with pytest.raises(ConfigError, match="option columns .*name each column once"):
        FEATURES["jet_constituents"].resolve({"columns": columns})


def test_unknown_options_and_centres_are_refused_by_name():
    with pytest.raises(ConfigError, match="did you mean 'columns'"):
        FEATURES["jet_constituents"].resolve({"colums": ("pt",)})
    with pytest.raises(ConfigError, match="option center is 'jet': Input should be 'centroid' or 'axis'"):
        FEATURES["jet_constituents"].resolve({"center": "jet"})


def test_options_stand_in_the_key_and_make_another_input():
    key = FEATURES["jet_constituents"].key
    assert key({}) == key({"n": 50, "columns": ["pt", "deta", "dphi"], "center": "centroid"}) == "jet_constituents"
    assert key({"n": 20, "center": "axis"}) == "jet_constituents[center=axis,n=20]"
    assert key({"columns": ("pt", "mask")}) == "jet_constituents[columns=pt+mask]"
    assert FEATURES["jet_lund"].key({"n": 3}) == "jet_lund[n=3]"
    spec = feature_spec("jet_constituents", {"n": 7, "columns": ("pt", "mask")})
    assert spec.row_shape == (7, 2)
    again = InputSpec.model_validate_json(InputSpec(features=(spec,)).model_dump_json())
    assert again.features[0].key == spec.key
    again.features[0].check()
