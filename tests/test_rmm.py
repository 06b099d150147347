from __future__ import annotations

import dataclasses
import itertools
import json
from functools import partial
from types import SimpleNamespace

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import DATA, copy_events, open_events

import coffea_ad as ad
from coffea_ad.errors import BadFile, ConfigError, MissingBranch
from coffea_ad.features import FEATURES, object_options
from coffea_ad.features import rmm as rmm_module
from coffea_ad.features.naive import rmm as naive
from coffea_ad.features.object_options import KINDS
from coffea_ad.features.objects import SelectedObjects, select_objects
from coffea_ad.features.rmm import PRESETS, cell_names, matrix, rmm_rows
from coffea_ad.features.spec import feature_spec
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.scoring import streaming
from coffea_ad.scoring.card import read_card, write_card
from coffea_ad.scoring.specs import InputSpec

# numbers that a campaign decides on otherwise: most events here have none
TAGGER = {"btag": "btagUParTAK4B", "btag_min": 0.1272}
NUMBERS = {"sqrt_s": 13600.0, **TAGGER}
RMMOptions = partial(rmm_module.RMMOptions, **NUMBERS)
AllObjectOptions = partial(object_options.AllObjectOptions, **TAGGER)
FROZEN = json.loads((DATA / "rmm_map2rmm.json").read_text())
MEANS = (8.0, 2.0, 0.7, 0.7, 0.3)
LEPTON_MASSES = (0.0, 0.0, 0.1056583745, 0.00051099895, 0.0)

# Two doubles that are equal within rounding may be stored as neighbouring floats, 2^-23 apart. m² = E² − p² and m_T² carry
# the rounding of E², some 1e-9 GeV², so that what should be 0 is at most 1e-4 GeV: 1e-8 of √s.
FLOAT32, ZERO = 1.5e-7, 1e-8

seeds = st.integers(0, 2**32 - 1)


def ordered(offsets, kind, pt, eta, phi, mass, met, met_phi, most=(50,) * 5):
    """SelectedObjects of what is sorted by event, kind and falling pT; at most so many of a kind."""
    offsets, kind = np.asarray(offsets, np.int64), np.asarray(kind, np.int64)
    event = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    first = np.unique(len(KINDS) * event + kind, return_index=True)[1]
    starts = np.zeros(len(kind), np.int64)
    starts[first] = first
    rank = np.arange(len(kind)) - np.maximum.accumulate(starts)
    kept = rank < np.take(most, kind)
    return SelectedObjects(
        np.r_[0, np.cumsum(np.bincount(event[kept], minlength=len(offsets) - 1))].astype(np.int64), kind[kept], rank[kept],
        *(np.asarray(a, float)[kept] for a in (pt, eta, phi, mass)), np.asarray(met, float), np.asarray(met_phi, float),
        np.ones(len(offsets) - 1, bool),
    )  # fmt: skip


def toys(rng, n=20, most=(10,) * 5, *, eta_max=2.4, means=MEANS):
    """Events of uncorrelated objects."""
    counts = rng.poisson(means, (n, len(KINDS)))
    kind = np.repeat(np.tile(np.arange(len(KINDS)), n), counts.ravel())
    event = np.repeat(np.arange(n), counts.sum(axis=1))
    pt = 30 + rng.exponential(60, len(kind))
    pt = pt[np.lexsort((-pt, kind, event))]
    mass = np.where(kind < 2, rng.uniform(0.05, 0.2, len(kind)) * pt, np.take(LEPTON_MASSES, kind))
    met = rng.exponential(60, n)
    return ordered(
        np.r_[0, np.cumsum(counts.sum(axis=1))], kind, pt, rng.uniform(-eta_max, eta_max, len(kind)),
        rng.uniform(-np.pi, np.pi, len(kind)), mass, np.where(met < 30, 0, met), rng.uniform(-np.pi, np.pi, n), most,
    )  # fmt: skip


def plainly(events):
    """The same events for the twin."""
    out = []
    for i, (a, b) in enumerate(itertools.pairwise(events.offsets)):
        kinds = tuple([] for _ in KINDS)
        for k in range(a, b):
            particle = naive.Particle(*(float(x[k]) for x in (events.pt, events.eta, events.phi, events.mass)))
            kinds[events.kind[k]].append(particle)
        out.append(naive.Event(kinds, float(events.met[i]), float(events.met_phi[i])))
    return out


def one(objects, met=0.0, met_phi=0.0):
    """A single event of (kind, pT, η, φ, mass)."""
    columns = np.array(objects, float).reshape(-1, 5).T
    return ordered([0, len(objects)], columns[0].astype(int), *columns[1:], [met], [met_phi])


def rows_of(events, options, start=0, stop=None):
    return rmm_rows(events, start, len(events.met) if stop is None else stop, options)


def cells_of(events, **options):
    """One event's cells by name."""
    chosen = RMMOptions(**{"drop_masses": False, **options})
    return dict(zip(cell_names(chosen), rows_of(events, chosen)[0].tolist(), strict=True))


def whole(events, **options):
    """Matrices, (n, 51, 51)."""
    chosen = RMMOptions(**{"preset": "T5N10", **options})
    return matrix(rows_of(events, chosen), chosen)


def twin(events, options):
    return np.stack([naive.cells(naive.rmm(event, options), options) for event in plainly(events)])


def assert_same(got, want, rtol=FLOAT32, atol=ZERO):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


# Which cell of a matrix holds what
ROW, COLUMN = np.indices((51, 51))
MASSES = (COLUMN > ROW) & (ROW > 0)
ANGLES = (ROW > COLUMN) & (COLUMN > 0)
FIRST_COLUMN = (COLUMN == 0) & (ROW > 0)
TRANSVERSE_MASSES = (ROW == 0) & (COLUMN > 0)
LEADING = (ROW == COLUMN) & (ROW % 10 == 1)
IMBALANCES = (ROW == COLUMN) & (ROW % 10 != 1) & (ROW > 0)


# ---- events as a file has them


FIELDS = {
    "Jet": ("pt", "eta", "phi", "mass", "btagUParTAK4B"),
    "Muon": ("pt", "eta", "phi", "mediumId", "pfRelIso04_all"),
    "Electron": ("pt", "eta", "phi", "mvaIso_WP90"),
    "Photon": ("pt", "eta", "phi", "mvaID_WP90"),
}


def crowded(rng, n=30):
    """Events with objects close to each other and to φ = ±π, as rows of fields."""
    out = []
    for _ in range(n):
        event = {"PuppiMET": {"pt": float(rng.uniform(0, 90)), "phi": float(rng.uniform(-np.pi, np.pi))}}
        for name, fields in FIELDS.items():
            rows = []
            for _ in range(rng.integers(0, 15 if name == "Jet" else 7)):
                values = {
                    "pt": rng.uniform(25, 90),
                    "eta": rng.uniform(-2.6, 2.6),
                    "phi": (rng.uniform(-0.8, 0.8) + 2 * np.pi) % (2 * np.pi) - np.pi,
                    "mass": rng.uniform(0, 15),
                    "btagUParTAK4B": rng.uniform(0, 0.3),
                    "pfRelIso04_all": rng.exponential(0.1),
                }
                rows.append({f: float(values[f]) if f in values else bool(rng.random() < 0.8) for f in fields})
            event[name] = rows
        out.append(event)
    return out


def as_events(rows):
    """The same as an array, which has all fields even where no event has such an object."""
    collections = {}
    for name, fields in FIELDS.items():
        flat = {
            f: np.array([o[f] for e in rows for o in e[name]], bool if "_WP" in f or "Id" in f else float)
            for f in fields
        }
        collections[name] = ak.unflatten(ak.zip(flat), [len(e[name]) for e in rows])
    met = ak.zip({f: np.array([e["PuppiMET"][f] for e in rows], float) for f in ("pt", "phi")})
    return ak.zip({**collections, "PuppiMET": met}, depth_limit=1)


def rows_in(path, collections=tuple(FIELDS), records=("PuppiMET",), stop=None):
    """The same of a file, read by uproot alone."""
    with uproot.open(path) as file:
        tree = file["Events"]
        columns = {
            name: {
                k[len(name) + 1 :]: tree[k].array(entry_stop=stop).to_list()
                for k in tree.keys()
                if k.startswith(name + "_")
            }
            for name in (*collections, *records)
        }
        n = len(tree["event"].array(entry_stop=stop))
    out = []
    for i in range(n):
        event = {name: {f: values[i] for f, values in columns[name].items()} for name in records}
        for name in collections:
            fields = {f: values[i] for f, values in columns[name].items()}
            event[name] = [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
        out.append(event)
    return out


def twin_of(rows, **options):
    chosen = RMMOptions(**options)
    found = [naive.select(event, chosen, chosen.shape) for event in rows]
    return np.stack([naive.cells(naive.rmm(event, chosen), chosen) for event in found])


def values_of(events, **options):
    return ad.features.compute("rmm", events, **{**NUMBERS, **options})[0]


def file_events(name, **kwargs):
    return open_events(DATA / f"{name}.root", **kwargs)


# ---- the definition


@pytest.mark.parametrize("convention", ["map2rmm", "seed"])
@pytest.mark.parametrize(
    "shape",
    [
        {"preset": "ATLAS"},
        {"preset": "T5N10"},
        {"preset": "ATLAS", "drop_masses": False},
        {"preset": "T5N10", "drop_masses": True},
        {"slots": (3, 1, 2, 4, 1), "sqrt_s": 13000.0, "C": 1.0},
        {"slots": (12, 0, 4, 0, 0)},
        {"slots": (0, 0, 3, 3, 2)},
        {"slots": (0, 1, 0, 0, 0)},
        {"slots": (0, 0, 0, 0, 0)},
        {"slots": (50, 1, 1, 1, 50), "C": 7.5},
    ],
    ids=lambda shape: ",".join(f"{k}={v}" for k, v in shape.items()),
)
def test_the_kernel_equals_its_slow_twin(shape, convention):
    options = RMMOptions(convention=convention, **shape)
    events = toys(np.random.default_rng(1), 40, options.shape)
    got = rows_of(events, options)
    assert got.dtype == np.float32
    assert got.shape == (40, len(cell_names(options)))
    assert_same(got, twin(events, options))


def test_events_that_do_not_fit_one_tile_of_work_space_equal_the_twin():
    options = RMMOptions(slots=(50,) * 5)
    events = toys(np.random.default_rng(2), 12, options.shape, means=(45, 45, 45, 45, 45))
    assert events.offsets[-1] > 2048
    assert_same(rows_of(events, options), twin(events, options))


@pytest.mark.parametrize("eta", [4.7, 10.0])
def test_forward_objects_keep_their_digits(eta):
    """m² = E² − p² carries the rounding of E², which is pT² cosh² η; nothing else loses anything."""
    events = toys(np.random.default_rng(3), 60, eta_max=eta)
    options = RMMOptions(preset="T5N10", sqrt_s=1.0)
    got, want = (
        matrix(rows_of(events, options), options).astype(float),
        np.stack([naive.rmm(event, options) for event in plainly(events)]),
    )
    rest = ~MASSES & ~TRANSVERSE_MASSES
    assert_same(got[:, rest], want[:, rest], rtol=1e-6)
    assert_same(got[:, TRANSVERSE_MASSES], want[:, TRANSVERSE_MASSES], rtol=1e-6, atol=1e-4)
    energy = 2 * events.pt.max() * np.cosh(eta)
    np.testing.assert_allclose(got[:, MASSES] ** 2, want[:, MASSES] ** 2, rtol=2e-6, atol=1e-15 * energy**2)


@pytest.mark.parametrize(("C", "which"), [(1.0, "before"), (0.15, "after")])
def test_the_matrix_is_that_of_the_authors_code(C, which):
    """Their masses of what is massless are rounding: at most 3e-10, and 0 here."""
    frozen = FROZEN["events"]
    events = ordered(*(frozen[k] for k in ("offsets", "kind", "pt", "eta", "phi", "mass", "met", "met_phi")), (10,) * 5)
    assert len(events.met) == len(FROZEN["cells"]) == 25
    want = np.zeros((25, 51, 51))
    for i, cells in enumerate(FROZEN["cells"]):
        want[i, cells["row"], cells["col"]] = cells[which]
    got = whole(events, sqrt_s=FROZEN["energy"], C=C)
    assert_same(got, want)
    options = RMMOptions(preset="T5N10", sqrt_s=FROZEN["energy"], C=C)
    assert_same(np.stack([naive.rmm(event, options) for event in plainly(events)]), want)


def test_cells_of_two_objects_are_what_one_writes_on_paper():
    events = one([(0, 60.0, 0.0, 0.0, 0.0), (2, 40.0, 0.0, np.pi / 2, 0.0)], met=50.0, met_phi=np.pi)
    cells = cells_of(events, slots=(1, 0, 1, 0, 0), sqrt_s=100.0)
    assert cells == pytest.approx({
        "met": 0.5, "mt(j1)": np.sqrt(4 * 60 * 50) / 100, "mt(mu1)": np.sqrt(2 * 40 * 50) / 100,
        "hl(j1)": 0, "et(j1)": 0.6, "m(j1,mu1)": np.sqrt(2 * 60 * 40) / 100, "hl(mu1)": 0, "h(mu1,j1)": 0, "et(mu1)": 0.4,
    }, rel=1e-6, abs=1e-12)  # fmt: skip


def test_angles_are_of_half_the_rapidity_difference_in_the_code_and_of_all_of_it_in_the_talk():
    events = one([(0, 60.0, 1.5, 0.3, 0.0), (0, 40.0, -0.5, 2.0, 0.0)])
    for convention, part in (("map2rmm", 0.5), ("seed", 1.0)):
        cells = cells_of(events, convention=convention, C=0.3)
        assert cells["h(j2,j1)"] == pytest.approx(0.3 * (np.cosh(part * 2.0) - 1), rel=1e-6)
        assert cells["hl(j1)"] == pytest.approx(0.3 * (np.cosh(1.5) - 1), rel=1e-6)
        assert cells["det(j2)"] == pytest.approx(0.2, rel=1e-6)


def test_rapidity_is_the_true_one_and_transverse_energy_is_not_pt():
    pt, eta, mass = 40.0, 1.2, 35.0
    pz, p = pt * np.sinh(eta), pt * np.cosh(eta)
    energy = np.hypot(p, mass)
    cells = cells_of(one([(0, pt, eta, 0.0, mass)]), sqrt_s=1000.0)
    assert cells["hl(j1)"] == pytest.approx(0.15 * (np.cosh(0.5 * np.log((energy + pz) / (energy - pz))) - 1), rel=1e-6)
    assert cells["et(j1)"] == pytest.approx(energy * pt / p / 1000, rel=1e-6)
    assert energy * pt / p > 1.05 * pt


def test_the_imbalance_is_negative_where_the_softer_object_has_the_larger_transverse_energy():
    assert cells_of(one([(0, 101.0, 0.2, 0.5, 5.5), (0, 99.0, -0.1, -2.4, 35.0)]))["det(j2)"] < -0.01


def test_a_slice_of_events_is_a_block_of_rows():
    options = RMMOptions()
    events = toys(np.random.default_rng(4), 50)
    events = ordered(
        *(getattr(events, k) for k in ("offsets", "kind", "pt", "eta", "phi", "mass", "met", "met_phi")), options.shape
    )
    everything = rows_of(events, options)
    for a, b in [(0, 13), (13, 50), (7, 7), (49, 50)]:
        assert_same(rows_of(events, options, a, b), everything[a:b])


# ---- names


NINE = {
    "m(j1,j2)", "m(j1,b1)", "m(b1,b2)", "m(j1,mu1)", "m(b1,mu1)", "m(j1,e1)", "m(b1,e1)", "m(j1,g1)", "m(b1,g1)",
}  # fmt: skip


def test_the_presets_have_1287_and_2601_cells():
    atlas, t5n10 = cell_names(RMMOptions()), cell_names(RMMOptions(preset="T5N10"))
    assert (len(atlas), len(t5n10)) == (1287, 2601)
    assert (len(set(atlas)), len(set(t5n10))) == (1287, 2601)
    assert PRESETS == {"ATLAS": ((10, 10, 5, 5, 5), True), "T5N10": ((10, 10, 10, 10, 10), False)}
    assert set(atlas) < set(t5n10)


@pytest.mark.parametrize("preset", ["ATLAS", "T5N10"])
def test_nine_masses_of_leading_objects_are_left_out_and_nothing_else(preset):
    kept, everything = (set(cell_names(RMMOptions(preset=preset, drop_masses=drop))) for drop in (True, False))
    assert everything - kept == NINE
    assert kept < everything


@pytest.mark.parametrize(
    ("slots", "dropped"),
    [
        ((1, 0, 1, 0, 0), {"m(j1,mu1)"}),
        ((2, 0, 0, 1, 1), {"m(j1,j2)", "m(j1,e1)", "m(j1,g1)"}),
        ((0, 2, 1, 0, 0), {"m(b1,b2)", "m(b1,mu1)"}),
        ((1, 1, 0, 0, 0), {"m(j1,b1)"}),
        ((0, 0, 2, 2, 2), set()),
    ],
)
def test_masses_of_kinds_without_slots_are_not_missed(slots, dropped):
    kept, everything = (set(cell_names(RMMOptions(slots=slots, drop_masses=drop))) for drop in (True, False))
    assert everything - kept == dropped


@pytest.mark.parametrize("options", [{}, {"preset": "T5N10"}, {"slots": (2, 1, 0, 1, 0)}, {"slots": (0, 0, 0, 0, 0)}])
def test_the_matrix_puts_every_cell_where_its_name_says(options):
    chosen = RMMOptions(**options)
    names = cell_names(chosen)
    labels = ["met"] + [
        f"{s}{k + 1}" for s, n in zip(("j", "b", "mu", "e", "g"), chosen.shape, strict=True) for k in range(n)
    ]
    values = np.arange(1, 2 * len(names) + 1, dtype=np.float32).reshape(2, -1)
    cells = matrix(values, chosen)
    assert cells.shape == (2, len(labels), len(labels))
    expected = np.zeros_like(cells)
    for i, j in np.ndindex(expected.shape[1:]):
        a, b = labels[i], labels[j]
        candidates = {
            i == j == 0: ["met"], 0 < i == j: [f"et({a})", f"det({a})"], i == 0 < j: [f"mt({b})"], j == 0 < i: [f"hl({a})"],
            0 < i < j: [f"m({a},{b})"], 0 < j < i: [f"h({a},{b})"],
        }[True]  # fmt: skip
        for name in set(candidates) & set(names):
            expected[:, i, j] = values[:, names.index(name)]
    np.testing.assert_array_equal(cells, expected)


def test_the_diagonal_is_named_after_what_it_holds():
    names = set(cell_names(RMMOptions()))
    for short, n in (("j", 10), ("b", 10), ("mu", 5), ("e", 5), ("g", 5)):
        assert f"et({short}1)" in names
        assert f"det({short}1)" not in names
        assert {f"det({short}{k})" for k in range(2, n + 1)} <= names
        assert f"et({short}2)" not in names


def test_columns_of_the_feature_are_the_cells():
    feature = FEATURES["rmm"]
    for options in ({}, {"preset": "T5N10"}, {"slots": [1, 0, 1, 0, 0]}):
        chosen = feature.resolve(options)
        assert tuple(c.name for c in feature.columns(chosen)) == cell_names(chosen)
        assert feature.size(chosen) == len(cell_names(chosen))


# ---- zones


def zones_of(events, **options):
    feature = FEATURES["rmm_zones"]
    chosen = feature.resolve({**NUMBERS, **options})
    values, counts = ad.features.compute("rmm_zones", events, **{**NUMBERS, **options})
    assert (counts == 1).all()
    return [c.name for c in feature.columns(chosen)], values, chosen


def test_there_are_46_zones():
    feature = FEATURES["rmm_zones"]
    names = [c.name for c in feature.columns(feature.resolve({}))]
    kinds = ("j", "b", "mu", "e", "g")
    pairs = [f"{a},{b}" for a, b in itertools.combinations_with_replacement(kinds, 2)]
    assert len(names) == 46
    assert set(names) == {
        "met", *(f"{what}({kind})" for what in ("mt", "hl", "et") for kind in kinds),
        *(f"{what}({pair})" for what in ("m", "h") for pair in pairs),
    }  # fmt: skip


@pytest.mark.parametrize("norm", ["sum", "frobenius"])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"preset": "ATLAS"}, {"preset": "ATLAS", "drop_masses": False}, {"convention": "seed", "C": 1.0}, {"cleaning": 0.0},
        {"slots": (3, 0, 1, 2, 0)}, {"slots": (0, 0, 0, 0, 0)},
    ],
    ids=str,
)  # fmt: skip
def test_zones_equal_their_slow_twin(norm, options):
    rows = crowded(np.random.default_rng(5))
    names, got, chosen = zones_of(as_events(rows), norm=norm, **options)
    for event, values in zip(rows, got, strict=True):
        want = naive.zones(naive.select(event, chosen, chosen.shape), chosen, square=norm == "frobenius")
        assert set(want) == set(names)
        assert_same(values, [want[name] for name in names], rtol=1e-6)  # up to a hundred cells are added in float32


def test_zones_are_sums_over_blocks_of_the_matrix():
    events = as_events(crowded(np.random.default_rng(6)))
    options = RMMOptions(preset="T5N10")
    matrices = matrix(values_of(events, preset="T5N10"), options).astype(float)
    for norm in ("sum", "frobenius"):
        names, got, _ = zones_of(events, norm=norm)
        measure = (
            (lambda cells: cells.sum(axis=1)) if norm == "sum" else (lambda cells: np.sqrt((cells**2).sum(axis=1)))
        )
        block = dict(zip(("j", "b", "mu", "e", "g"), (slice(1 + 10 * k, 11 + 10 * k) for k in range(5)), strict=True))
        for name, values in zip(names, got.T, strict=True):
            mask = np.zeros((51, 51), bool)
            if name == "met":
                mask[0, 0] = True
            else:
                what, kinds = name.removesuffix(")").split("(")
                a, b = (kinds.split(",") * 2)[:2]
                side = {"mt": TRANSVERSE_MASSES, "hl": FIRST_COLUMN, "et": ROW == COLUMN, "m": MASSES, "h": ANGLES}[
                    what
                ]
                for x, y in ((a, b), (b, a)):
                    rows = slice(0, 1) if what == "mt" else block[x]
                    columns = slice(0, 1) if what == "hl" else block[y]
                    mask[rows, columns] = True
                mask &= side
            assert mask.any()
            assert_same(values, measure(matrices[:, mask]), rtol=1e-6)


def test_zones_of_an_event_without_objects_are_zero_and_of_an_undefined_one_undefined():
    rows = crowded(np.random.default_rng(7), 3)
    for name in FIELDS:
        rows[0][name] = []
    rows[0]["PuppiMET"]["pt"] = 10.0
    rows[1]["PuppiMET"]["pt"] = np.nan
    for norm in ("sum", "frobenius"):
        _, got, _ = zones_of(as_events(rows), norm=norm)
        assert (got[0] == 0).all()
        assert np.isnan(got[1]).all()
        assert np.isfinite(got[2]).all()


# ---- what a matrix must not depend on


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-10, 10))
def test_nothing_changes_when_the_event_is_rotated_about_the_beam(seed, angle):
    events = toys(np.random.default_rng(seed), 3)

    def turned(phi):
        return (phi + angle + np.pi) % (2 * np.pi) - np.pi

    rotated = dataclasses.replace(events, phi=turned(events.phi), met_phi=turned(events.met_phi))
    assert_same(whole(rotated), whole(events))


def boosted(events, rapidity):
    """All objects moved along the beam; missing momentum has no such component."""
    transverse = np.hypot(events.pt, events.mass)
    y = np.arcsinh(events.pt * np.sinh(events.eta) / transverse)
    return dataclasses.replace(events, eta=np.arcsinh(transverse * np.sinh(y + rapidity) / events.pt))


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-2, 2), st.sampled_from(["map2rmm", "seed"]))
def test_masses_and_angles_between_objects_do_not_change_with_a_boost_along_the_beam(seed, rapidity, convention):
    """E_T of massive objects does, and with it m_T and the imbalance."""
    events = toys(np.random.default_rng(seed), 3)
    before, after = (whole(e, convention=convention) for e in (events, boosted(events, rapidity)))
    for cells in (MASSES, ANGLES):
        assert_same(after[:, cells], before[:, cells])


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-2, 2))
def test_of_massless_objects_only_the_first_column_changes_with_a_boost_along_the_beam(seed, rapidity):
    events = toys(np.random.default_rng(seed), 3)
    events = dataclasses.replace(events, mass=np.zeros(len(events.mass)))
    before, after = (whole(e) for e in (events, boosted(events, rapidity)))
    assert_same(after[:, ~FIRST_COLUMN], before[:, ~FIRST_COLUMN])


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_nothing_changes_when_the_event_is_mirrored_along_or_across_the_beam(seed):
    events = toys(np.random.default_rng(seed), 3)
    assert_same(whole(dataclasses.replace(events, eta=-events.eta)), whole(events))
    assert_same(whole(dataclasses.replace(events, phi=-events.phi, met_phi=-events.met_phi)), whole(events))


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.01, 10))
def test_energies_scale_and_angles_and_imbalances_do_not(seed, factor):
    events = toys(np.random.default_rng(seed), 3)
    scaled = dataclasses.replace(events, pt=factor * events.pt, mass=factor * events.mass, met=factor * events.met)
    before, after = whole(events).astype(float), whole(scaled)
    fixed = ANGLES | FIRST_COLUMN | IMBALANCES
    assert_same(after[:, fixed], before[:, fixed])
    assert_same(after[:, ~fixed], factor * before[:, ~fixed], rtol=2 * FLOAT32, atol=ZERO * max(1, factor))
    assert_same(whole(scaled, sqrt_s=13600.0 * factor), before)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_nothing_changes_with_the_order_of_objects_in_the_file(seed):
    rng = np.random.default_rng(seed)
    rows = crowded(rng, 5)
    shuffled = [
        {k: [v[i] for i in rng.permutation(len(v))] if k in FIELDS else v for k, v in event.items()} for event in rows
    ]
    np.testing.assert_array_equal(values_of(as_events(shuffled)), values_of(as_events(rows)))


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.1, 100))
def test_masses_and_transverse_masses_are_physical(seed, sqrt_s):
    events = toys(np.random.default_rng(seed), 3)
    cells = whole(events, sqrt_s=sqrt_s)
    assert (cells[:, ~IMBALANCES] >= 0).all()
    assert (np.abs(cells[:, IMBALANCES]) < 1).all()
    kinds = plainly(events)
    for event, matrix_ in zip(kinds, cells, strict=True):
        for a, b in itertools.combinations(range(len(event.kinds[0])), 2):
            heavier = event.kinds[0][a].mass + event.kinds[0][b].mass
            assert matrix_[1 + a, 1 + b] * sqrt_s >= heavier * (1 - 1e-6)


# ---- edges


def test_an_event_without_anything_is_all_zeros():
    for options in (RMMOptions(), RMMOptions(preset="T5N10"), RMMOptions(convention="seed")):
        assert (rows_of(one([]), options) == 0).all()


def test_missing_momentum_alone_fills_its_cell_only():
    cells = cells_of(one([], met=136.0, met_phi=2.0))
    assert cells.pop("met") == pytest.approx(0.01, rel=1e-6)
    assert not any(cells.values())


def test_without_missing_momentum_the_first_row_is_zero():
    events = toys(np.random.default_rng(8), 5)
    cells = whole(dataclasses.replace(events, met=np.zeros(5)))
    assert (cells[:, 0] == 0).all()
    assert (cells[:, 1:] != 0).any()


@pytest.mark.parametrize("kind", range(5))
def test_a_single_object_fills_its_three_cells(kind):
    label = ("j1", "b1", "mu1", "e1", "g1")[kind]
    cells = cells_of(one([(kind, 70.0, 1.1, 0.4, 3.0)], met=40.0, met_phi=-1.0))
    assert {name for name, value in cells.items() if value != 0} == {
        "met",
        f"mt({label})",
        f"hl({label})",
        f"et({label})",
    }


@pytest.mark.parametrize("mass", [0.0, 12.0])
def test_identical_momenta_have_the_mass_of_their_sum_and_no_angle(mass):
    cells = cells_of(one([(0, 95.5, 0.8, 1.2, mass)] * 3 + [(1, 95.5, 0.8, 1.2, mass)]), sqrt_s=13000.0)
    for name in ("m(j1,j2)", "m(j1,j3)", "m(j2,j3)", "m(j1,b1)"):
        assert cells[name] == pytest.approx(2 * mass / 13000, rel=1e-6, abs=ZERO)
    for name in ("h(j2,j1)", "h(j3,j1)", "h(b1,j2)", "det(j2)", "det(j3)"):
        assert cells[name] == pytest.approx(0, abs=1e-12)


def test_phi_of_plus_and_minus_pi_is_one_direction():
    def cells(first, second, met_phi):
        return cells_of(one([(0, 130.0, 0.5, first, 17.0), (0, 121.0, -0.5, second, 12.0)], 70.0, met_phi))

    want = cells(np.pi, np.pi, np.pi)
    for signs in itertools.product((-np.pi, np.pi), repeat=3):
        assert cells(*signs) == pytest.approx(want, rel=FLOAT32, abs=ZERO)


def test_objects_at_rest_in_rapidity_have_no_angles():
    cells = cells_of(one([(0, 60.0, 0.0, 1.0, 9.0), (0, 50.0, 0.0, -1.0, 7.0)]))
    assert cells["hl(j1)"] == cells["hl(j2)"] == cells["h(j2,j1)"] == 0


# ---- which objects


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"preset": "T5N10"},
        {"slots": (4, 0, 2, 2, 1)},
        {"slots": (4, 2, 0, 0, 0)},
        {"slots": (0, 0, 2, 0, 2)},
        {"cleaning": 0.0},
        {"cleaning": 1.0},
        {"muon_cuts": (), "electron_cuts": (), "photon_cuts": (), "btag_min": 0.0},
        {"jet_pt_min": 50.0, "muon_pt_min": 26.0, "jet_eta_max": 1.0, "electron_eta_max": 0.5, "photon_eta_max": 2.6},
        {"muon_cuts": ("pfRelIso04_all>=0.05", "pfRelIso04_all<=0.2"), "jet_cuts": ("mass>2",), "met_min": 60.0},
    ],
    ids=str,
)
def test_selected_and_cleaned_objects_are_those_of_the_slow_twin(options):
    rows = crowded(np.random.default_rng(9), 40)
    want = twin_of(rows, **options)
    assert_same(values_of(as_events(rows), **options), want)
    assert (want != 0).any()


def selected(rows, slots=(10, 10, 10, 10, 10), **options):
    """Objects of each kind of every event, as (pT, η, φ, mass)."""
    events = select_objects(Objects.events(as_events(rows)), AllObjectOptions(**options), slots)
    return [[[tuple(p) for p in kind] for kind in event.kinds] for event in plainly(events)], events


def test_selected_objects_know_kind_rank_and_event():
    rows = crowded(np.random.default_rng(10), 30)
    slots = (5, 3, 2, 1, 4)
    got, events = selected(rows, slots)
    want = [naive.select(event, AllObjectOptions(), slots) for event in rows]
    assert got == [[[tuple(p) for p in kind] for kind in event.kinds] for event in want]
    assert events.met.tolist() == [event.met for event in want]
    for a, b in itertools.pairwise(events.offsets):
        kinds = events.kind[a:b].tolist()
        assert kinds == sorted(kinds)
        assert events.rank[a:b].tolist() == [kinds[:k].count(kind) for k, kind in enumerate(kinds)]
    assert events.valid.all()


def event_with(**collections):
    """One event; what is not named is not there."""
    defaults = {
        "Jet": {"mass": 0.0, "btagUParTAK4B": 0.0}, "Muon": {"mediumId": True, "pfRelIso04_all": 0.0},
        "Electron": {"mvaIso_WP90": True}, "Photon": {"mvaID_WP90": True},
    }  # fmt: skip
    event = {"PuppiMET": {"pt": 0.0, "phi": 0.0}, **{name: [] for name in FIELDS}}
    for name, rows in collections.items():
        event[name] = [{**defaults[name], **dict(zip(("pt", "eta", "phi"), row, strict=False))} for row in rows]
        for row, values in zip(event[name], rows, strict=True):
            row.update(values[3] if len(values) > 3 else {})
    return event


def test_photons_give_way_to_leptons_and_jets_to_both():
    event = event_with(
        Muon=[(50, 0, 0)],
        Electron=[(40, 0, 0.1)],  # leptons do not give way to each other
        Photon=[(45, 0.3, 0), (60, 2.0, 0)],
        Jet=[(90, 0, 0.3), (80, 2.0, 0.35), (70, 0.65, 0), (65, -2, 1), (60, -2, 1.1)],
    )
    (kinds,), _ = selected([event])
    # the first photon is gone, so that the jet beside it stays
    assert [[p[0] for p in kind] for kind in kinds] == [[70, 65, 60], [], [50], [40], [60]]


def test_objects_that_are_not_selected_clean_nothing_and_those_without_a_slot_do():
    poor = event_with(Muon=[(50, 0, 0, {"pfRelIso04_all": 0.9})], Jet=[(90, 0, 0.1)])
    rich = event_with(Muon=[(50, 0, 0), (40, 1, 1)], Jet=[(90, 1, 1.1)])
    (first, second), _ = selected([poor, rich], (1, 1, 1, 1, 1))
    assert [[p[0] for p in kind] for kind in first] == [[90], [], [], [], []]
    assert [[p[0] for p in kind] for kind in second] == [[], [], [50], [], []]


def test_cleaning_looks_across_phi_of_pi():
    event = event_with(Muon=[(50, 0, 3.1)], Jet=[(90, 0, -3.1), (80, 0, -2.7)])
    (kinds,), _ = selected([event])
    assert [p[0] for p in kinds[0]] == [80]


def test_b_jets_are_light_jets_where_there_are_no_slots_for_them():
    event = event_with(Jet=[(90, 0, 0, {"btagUParTAK4B": 0.9}), (80, 1, 1), (70, -1, 1, {"btagUParTAK4B": 0.5})])
    (kinds,), _ = selected([event], (5, 5, 0, 0, 0))
    assert [[p[0] for p in kind] for kind in kinds[:2]] == [[80], [90, 70]]
    (kinds,), _ = selected([event], (5, 0, 0, 0, 0))
    assert [[p[0] for p in kind] for kind in kinds[:2]] == [[90, 80, 70], []]


def test_cuts_on_pt_are_exclusive_and_on_missing_momentum_inclusive():
    event = event_with(Jet=[(30, 0, 0), (30.001, 1, 1), (50, 2.4, 2), (50, -2.399, 3)])
    (kinds,), _ = selected([event])
    assert [p[0] for p in kinds[0]] == [50, 30.001]
    rows = []
    for met in (29.999, 30.0, 30.001):
        rows.append(event_with(Jet=[(50, 0, 0)]))
        rows[-1]["PuppiMET"] = {"pt": met, "phi": 1.0}
    values = values_of(as_events(rows))
    names = cell_names(RMMOptions())
    assert (values[0, [names.index("met"), names.index("mt(j1)")]] == 0).all()
    assert values[1, names.index("met")] == np.float32(30.0 / 13600)
    assert (values[1:, names.index("mt(j1)")] > 0).all()


def test_only_as_many_objects_as_slots_count_and_those_of_highest_pt():
    rows = [event_with(Jet=[(40 + 3 * ((7 * k) % 15), 0.3 * (k - 7), 0.8 * k - 3.1) for k in range(15)])]
    (kinds,), _ = selected(rows, (10, 10, 5, 5, 5))
    assert [p[0] for p in kinds[0]] == [82 - 3 * k for k in range(10)]
    assert_same(values_of(as_events(rows)), twin_of(rows))


def test_equal_pt_stay_in_the_order_of_the_file():
    event = event_with(Jet=[(50, 0.1 * k, 0.3 * k) for k in range(8)])
    (kinds,), _ = selected([event], (5, 0, 0, 0, 0))
    assert [p[1] for p in kinds[0]] == [0.1 * k for k in range(5)]


def test_leptons_have_their_masses_whatever_the_file_says():
    event = event_with(Muon=[(50, 0, 0)], Electron=[(40, 1, 1)], Photon=[(60, -1, 2)])
    (kinds,), _ = selected([event])
    assert [kind[0][3] for kind in kinds[2:]] == [0.1056583745, 0.00051099895, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("collection", "field"),
    [(c, f) for c in FIELDS for f in ("pt", "eta", "phi")] + [("Jet", "mass"), ("PuppiMET", "pt"), ("PuppiMET", "phi")],
)
def test_an_event_with_a_number_that_is_not_finite_is_undefined_and_its_neighbours_are_not(collection, field, bad):
    rows = [event_with(Jet=[(90, 0, 1), (80, 1, 2)], Muon=[(50, 0, -1)], Electron=[(40, 1, -2)], Photon=[(60, -2, 0)])
            for _ in range(3)]  # fmt: skip
    good = values_of(as_events(rows))
    spoiled = rows[1][collection]
    (spoiled if isinstance(spoiled, dict) else spoiled[0])[field] = bad
    for options in ({}, {"preset": "T5N10", "convention": "seed"}):
        values = values_of(as_events(rows), **options)
        assert np.isnan(values).all(axis=1).tolist() == [False, True, False]
        assert np.isfinite(values[[0, 2]]).all()
    np.testing.assert_array_equal(values_of(as_events(rows))[[0, 2]], good[[0, 2]])


def test_a_number_that_is_not_finite_does_no_harm_in_a_collection_without_slots():
    rows = [event_with(Jet=[(90, 0, 1)], Photon=[(60, -2, 0)])]
    rows[0]["Photon"][0]["pt"] = np.nan
    assert np.isfinite(values_of(as_events(rows), slots=(2, 2, 2, 2, 0))).all()


# ---- real layouts


@pytest.mark.parametrize(
    "options", [{}, {"preset": "T5N10"}, {"convention": "seed"}, {"slots": (4, 0, 2, 2, 0)}], ids=str
)
def test_the_matrix_of_a_file_is_that_of_its_branches(options):
    rows = rows_in(DATA / "ttbar_v15.root")
    want = twin_of(rows, **options)
    got, counts = ad.features.compute("rmm", file_events("ttbar_v15"), **{**NUMBERS, **options})
    assert_same(got, want)
    assert counts.tolist() == [1] * len(rows)
    assert np.count_nonzero(want) > 20 * len(rows)


def test_the_matrix_of_another_campaign_is_that_of_its_branches():
    options = {"btag": "btagDeepFlavB", "btag_min": 0.3, "met": "MET", "photon_cuts": ("cutBased>=3",)}
    rows = rows_in(DATA / "svj_pfnano.root", records=("MET",))
    assert_same(values_of(file_events("svj_pfnano"), **options), twin_of(rows, **options))


def test_the_two_kinds_of_missing_momentum_are_told_apart():
    names = cell_names(RMMOptions())
    for met in ("PuppiMET", "PFMET"):
        got = values_of(file_events("ttbar_v15"), met=met, met_min=0.0)[:, names.index("met")]
        stored = np.array([e[met]["pt"] for e in rows_in(DATA / "ttbar_v15.root", (), (met,))])
        assert_same(got, stored / 13600)


@pytest.mark.real
def test_the_matrix_of_a_real_file_is_that_of_its_branches(real):
    path = real / "nano_tt_v15.root"
    assert_same(values_of(open_events(path)), twin_of(rows_in(path)))


@pytest.mark.parametrize("name", ["rmm", "rmm_zones"])
def test_blocks_join_to_the_whole(name):
    events = file_events("ttbar_v15")
    parts = list(ad.features.blocks(name, events, size=7))
    assert [len(p) for p in parts] == [7] * 14 + [2]
    assert_same(np.concatenate(parts), ad.features.compute(name, events)[0])


@pytest.mark.parametrize(
    "which",
    [np.arange(100) % 3 == 0, slice(10, 40), slice(None, None, -1), np.array([5, 5, 2]), slice(0, 0)],
    ids=["mask", "slice", "reversed", "picked", "nothing"],
)
def test_some_of_the_events_have_the_rows_they_have_among_all(which):
    events = file_events("ttbar_v15")
    everything = values_of(events)
    got, counts = ad.features.compute("rmm", events[which], **NUMBERS)
    assert_same(got, everything[which])
    assert len(counts) == len(got)


def test_a_variation_of_jets_changes_cells_of_jets_only():
    events = file_events("ttbar_v15")
    names = np.array(cell_names(RMMOptions()))
    for field in ("pt", "mass"):
        varied = ak.with_field(events, ak.with_field(events.Jet, events.Jet[field] * np.float32(1.2), field), "Jet")
        changed = names[(values_of(varied) != values_of(events)).any(axis=0)]
        assert {"et(j1)", "m(j2,j3)", "h(j2,j1)"} <= set(changed)
        labels = [set(name.removesuffix(")").split("(")[-1].split(",")) for name in changed]
        assert all(any(label[0] in "jb" for label in pair) for pair in labels)
    rows = rows_in(DATA / "ttbar_v15.root")
    for event in rows:
        for jet in event["Jet"]:
            jet["mass"] = float(np.float32(jet["mass"]) * np.float32(1.2))
    assert_same(values_of(varied), twin_of(rows))


def test_a_variation_of_missing_momentum_changes_the_first_row_only():
    events = file_events("ttbar_v15")
    varied = ak.with_field(
        events, ak.with_field(events.PuppiMET, events.PuppiMET["pt"] * np.float32(1.3), "pt"), "PuppiMET"
    )
    names = np.array(cell_names(RMMOptions()))
    changed = set(names[(values_of(varied) != values_of(events)).any(axis=0)])
    assert changed
    assert all(name == "met" or name.startswith("mt(") for name in changed)


@pytest.mark.parametrize("name", ["rmm", "rmm_zones"])
@pytest.mark.parametrize(
    "options",
    [{}, {"slots": (3, 0, 0, 0, 0)}, {"slots": (0, 2, 0, 0, 1)}, {"slots": (0, 0, 1, 1, 0), "met": "PFMET"},
     {"slots": (0, 0, 0, 0, 0)}, {"electron_cuts": ("cutBased>=3",), "jet_cuts": ("nConstituents>1",)}],
    ids=str,
)  # fmt: skip
def test_only_declared_branches_are_read(name, options):
    log = []
    options = {**NUMBERS, **options}
    ad.features.compute(name, file_events("ttbar_v15", access_log=log), **options)
    feature = FEATURES[name]
    (declared,) = feature.reads("FatJet", feature.resolve(options))
    assert {e.branch for e in log if not (e.branch.startswith("n") and "_" not in e.branch)} == set(declared)


def test_collections_without_slots_are_neither_read_nor_needed(tmp_path):
    path = copy_events(DATA / "ttbar_v15.root", tmp_path / "slim.root", drop=("Muon", "nMuon", "Electron", "nElectron", "Photon", "nPhoton", "Jet_btag"))  # fmt: skip
    slots = {"slots": (5, 0, 0, 0, 0)}
    assert_same(values_of(open_events(path), **slots), values_of(file_events("ttbar_v15"), **slots))
    for wrong, branch in [
        ((5, 1, 0, 0, 0), "Jet_btagUParTAK4B"),
        ((5, 0, 1, 0, 0), "Muon_pt"),
        ((5, 0, 0, 0, 1), "Photon_pt"),
    ]:
        with pytest.raises(MissingBranch, match=branch):
            values_of(open_events(path), slots=wrong)


@pytest.mark.parametrize(
    "branch", ["Jet_mass", "Jet_btagUParTAK4B", "Muon_pfRelIso04_all", "Photon_mvaID_WP90", "PuppiMET_pt"]
)
def test_a_missing_branch_is_named_with_its_file(tmp_path, branch):
    path = copy_events(DATA / "ttbar_v15.root", tmp_path / "slim.root", stop=5, drop=(branch,))
    events = open_events(path, metadata={"filename": str(path), "dataset": "x"})
    with pytest.raises(MissingBranch, match=rf"slim\.root.*{branch}"):
        values_of(events)


def test_neither_tagger_nor_missing_momentum_is_ever_replaced_by_another():
    with pytest.raises(MissingBranch, match="MET_pt"):
        values_of(file_events("ttbar_v15"), met="MET")
    with pytest.raises(MissingBranch, match="PFMET_pt"):
        values_of(file_events("svj_pfnano"), met="PFMET", btag="btagDeepFlavB")
    with pytest.raises(MissingBranch, match="Jet_btagUParTAK4B"):
        values_of(file_events("svj_pfnano"))
    with pytest.raises(MissingBranch, match="Jet_btagDeepFlavB"):
        values_of(file_events("ttbar_v15"), btag="btagDeepFlavB")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda jets: ak.mask(jets, jets["pt"] > 40),
        lambda jets: ak.pad_none(jets, 8),
        lambda jets: ak.with_field(jets, ak.mask(jets["mass"], jets["pt"] > 40), "mass"),
    ],
    ids=["masked", "padded", "field with holes"],
)
def test_missing_objects_and_values_are_refused_by_name(spoil):
    events = file_events("ttbar_v15")
    with pytest.raises(BadFile, match="Jet.* missing values"):
        values_of(ak.with_field(events, spoil(events.Jet), "Jet"))


# ---- options


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ("quality>=3", [3, 4]), ("quality<=3", [0, 1, 2, 3]), ("quality==3", [3]), ("quality>3", [4]), ("quality<3", [0, 1, 2]),
        ("quality", [1, 2, 3, 4]), ("quality>=-1", [0, 1, 2, 3, 4]), ("quality<2.5", [0, 1, 2]), ("quality>1e0", [2, 3, 4]),
    ],
)  # fmt: skip
def test_a_cut_is_a_branch_that_is_true_or_a_comparison(cut, kept):
    jets = ak.zip({"pt": [[90.0, 80.0, 70.0, 60.0, 50.0]], "eta": [[0.0] * 5], "phi": [[-2.0, -1.0, 0.0, 1.0, 2.0]],
                   "mass": [[0.0] * 5], "quality": [[0, 1, 2, 3, 4]]})  # fmt: skip
    events = ak.zip({"Jet": jets, "PuppiMET": ak.zip({"pt": [0.0], "phi": [0.0]})}, depth_limit=1)
    options = AllObjectOptions(jet_cuts=(cut,))
    chosen = select_objects(Objects.events(events), options, (5, 0, 0, 0, 0))
    assert chosen.pt.tolist() == [90.0 - 10 * k for k in kept]
    assert "Jet_quality" in FEATURES["rmm"].reads("", RMMOptions(jet_cuts=(cut,)))[0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("muon_cuts", ("!mediumId",)), ("muon_cuts", ("pt>",)), ("electron_cuts", ("cutBased=>3",)), ("jet_cuts", ("",)),
        ("photon_cuts", ("cutBased >= 3",)), ("jet_cuts", ("pt>30 and eta<2",)), ("jet_cuts", ("pt>x",)), ("jet_cuts", "pt>30"),
        ("preset", "CMS"), ("slots", (1, 2, 3)), ("slots", (1, 2, 3, 4, -1)), ("slots", (1, 2, 3, 4, 51)),
        ("slots", (1, 2, 3, 4, 1.5)), ("C", 0.0), ("C", float("nan")), ("sqrt_s", -1.0), ("sqrt_s", "13 TeV"),
        ("convention", "paper"), ("met", "CaloMET"), ("cleaning", -0.1), ("jet_pt_min", -1.0), ("jet_eta_max", 11.0),
        ("muon_eta_max", float("inf")), ("met_min", True),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_the_name_of_the_option(option, value):
    with pytest.raises(ConfigError, match=rf"rmm: option {option}\b"):
        values_of(as_events(crowded(np.random.default_rng(0), 1)), **{option: value})


def test_an_unknown_option_gets_the_nearest_right_one():
    with pytest.raises(ConfigError, match="did you mean 'convention'"):
        values_of(as_events(crowded(np.random.default_rng(0), 1)), convension="seed")


def test_presets_and_conventions_stand_in_the_key():
    key = FEATURES["rmm"].key
    assert key({}) == "rmm"
    assert key({"preset": "ATLAS", "convention": "map2rmm"}) == "rmm"
    assert key({"preset": "T5N10"}) == "rmm[preset=T5N10]"
    assert key({"convention": "seed"}) == "rmm[convention=seed]"
    assert key({"slots": (1, 0, 1, 0, 0)}) == "rmm[slots=1+0+1+0+0]"
    assert key({"slots": [1, 0, 1, 0, 0], "preset": "T5N10"}) == "rmm[preset=T5N10,slots=1+0+1+0+0]"
    assert FEATURES["rmm_zones"].key({"norm": "frobenius"}) == "rmm_zones[norm=frobenius]"


CHANGES = {
    "jet_pt_min": 25.0, "jet_eta_max": 2.5, "jet_cuts": ("mass>2",), "muon_pt_min": 25.0, "muon_eta_max": 2.5,
    "muon_cuts": ("tightId",), "electron_pt_min": 25.0, "electron_eta_max": 2.5, "electron_cuts": (), "photon_pt_min": 25.0,
    "photon_eta_max": 2.5, "photon_cuts": (), "btag": "btagDeepFlavB", "btag_min": 0.3, "btag_point": "loose",
    "cleaning": 0.2, "met": "PFMET", "met_min": 0.0, "preset": "T5N10", "slots": (10, 10, 5, 5, 4), "drop_masses": False, "sqrt_s": 13000.0, "C": 1.0,
    "convention": "seed",
}  # fmt: skip


def test_every_option_makes_another_input():
    assert set(CHANGES) == set(rmm_module.RMMOptions.model_fields)
    also = {"btag_min": {"btag": "btagUParTAK4B"}}  # a number belongs to one tagger
    keys = [FEATURES["rmm"].key({name: value, **also.get(name, {})}) for name, value in CHANGES.items()]
    assert len({*keys, "rmm"}) == len(CHANGES) + 1


@pytest.mark.parametrize("name", ["convention", "slots", "muon_cuts", "met"])
def test_a_card_keeps_its_options_and_another_choice_is_another_input(name):
    spec, default = feature_spec("rmm", {name: CHANGES[name]}), feature_spec("rmm")
    again = InputSpec.model_validate_json(InputSpec(features=(spec,)).model_dump_json())
    assert again.features[0].key == spec.key != default.key
    assert FEATURES["rmm"].resolve(again.features[0].options) == rmm_module.RMMOptions(**{name: CHANGES[name]})
    assert set(again.columns).isdisjoint(InputSpec(features=(default,)).columns)


def test_conventions_give_other_numbers_in_the_angles_only():
    events = toys(np.random.default_rng(11), 10)
    authors, talk = whole(events), whole(events, convention="seed")
    np.testing.assert_array_equal(authors[:, ~ANGLES], talk[:, ~ANGLES])
    filled = authors[:, ANGLES] > 1e-4
    assert (talk[:, ANGLES][filled] > 3.9 * authors[:, ANGLES][filled]).all()


# ---- never dense for a chunk


@pytest.fixture
def asked(monkeypatch):
    """The (start, stop) that anybody asks the matrix for, and how often a chunk was prepared."""
    feature, log = FEATURES["rmm"], SimpleNamespace(spans=[], prepared=0)

    def rows(objects, options):
        read = feature.rows(objects, options)
        log.prepared += 1

        def spy(start, stop):
            log.spans.append((start, stop))
            return read(start, stop)

        return spy

    monkeypatch.setitem(FEATURES, "rmm", dataclasses.replace(feature, rows=rows))
    return log


def assert_covers(spans, n, largest):
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    assert spans[-1][1] == n
    assert max(stop - start for start, stop in spans) <= largest


def test_blocks_ask_for_as_many_rows_as_they_are_told(asked):
    list(ad.features.blocks("rmm", file_events("ttbar_v15"), size=7))
    assert_covers(asked.spans, 100, 7)
    assert asked.prepared == 1


def test_blocks_are_made_when_they_are_asked_for(asked):
    blocks = ad.features.blocks("rmm", file_events("ttbar_v15"), size=10)
    next(blocks)
    next(blocks)
    assert asked.spans == [(0, 10), (10, 20)]


def test_a_tagger_streams_blocks_into_the_network(asked, monkeypatch, model_file):
    """A network of eight inputs takes the eight cells of a jet and a muon."""
    data = model_file.read_bytes()
    spec = feature_spec("rmm", {"slots": (1, 0, 1, 0, 0)})
    assert len(spec.columns) == 8
    card = read_card(data).model_copy(
        update={"level": "event", "inputs": (InputSpec(features=(spec,)),), "quantiles": None}
    )
    events = file_events("ttbar_v15")
    at_once = ad.Tagger(write_card(data, card))(events)
    asked.spans.clear()
    asked.prepared = 0
    tagger = ad.Tagger(write_card(data, card))
    monkeypatch.setattr(streaming, "_BLOCK_BYTES", 32 * 4 * 8)
    monkeypatch.setattr(tagger.scorer, "batch", 16)
    tagged = tagger(events)
    assert_covers(asked.spans, 100, 32)
    assert asked.prepared == 1
    np.testing.assert_allclose(tagged["ad_score"], at_once["ad_score"], rtol=1e-5)


def test_the_matrix_of_the_search_is_never_dense_for_more_than_a_block(asked, model_file):
    tagger = ad.Tagger(model_file)
    tagger.card = tagger.card.model_copy(
        update={"level": "event", "inputs": (InputSpec(features=(feature_spec("rmm", NUMBERS),)),)}
    )
    tagger._features = {"features": [("rmm", ad.features.get("rmm").resolve(NUMBERS).model_dump_json())]}
    scored = []
    tagger.scorer = SimpleNamespace(
        batch=1024,
        step=1024,
        digest="none",
        numpy_call=lambda rows: scored.append(rows["features"].nbytes) or rows["features"][:, 0],
    )
    n = 5000
    rows = crowded(np.random.default_rng(12), 4) * (n // 4)
    streaming._stream(Objects.events(as_events(rows)), [tagger], [None])
    assert_covers(asked.spans, n, 2048)
    assert max(scored) <= streaming._BLOCK_BYTES
    assert asked.prepared == 1
