"""What processors compute of selected objects and of two jets, against the formulas object by object."""

from __future__ import annotations

import math

import awkward as ak
import numpy as np
import pytest
import vector

from coffea_ad.features.objects import KINDS, SelectedObjects
from coffea_ad.selection import dijet

vector.register_awkward()


@pytest.fixture
def objects():
    """Return 300 events of up to 8 objects, sorted by kind and falling pT."""
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 9, 300)
    offsets = np.r_[0, np.cumsum(counts)]
    event, kind, pt = (
        np.repeat(np.arange(300), counts),
        rng.integers(0, 5, offsets[-1]),
        rng.exponential(100, offsets[-1]),
    )
    order = np.lexsort((-pt, kind, event))
    kind, pt = kind[order], pt[order]
    rank = np.array([np.sum((event[:i] == event[i]) & (kind[:i] == kind[i])) for i in range(len(kind))], np.int64)
    eta, phi, mass = rng.uniform(-2, 2, len(pt)), rng.uniform(-3, 3, len(pt)), rng.exponential(5, len(pt))
    met = np.zeros(300)
    return SelectedObjects(offsets, kind, rank, pt, eta, phi, mass, met, met, met == 0)


def by_event(objects, kinds):
    """Return of every event its objects of some kinds, by falling pT."""
    for i in range(len(objects)):
        rows = [k for k in range(objects.offsets[i], objects.offsets[i + 1]) if KINDS[objects.kind[k]] in kinds]
        yield sorted(rows, key=lambda k: -objects.pt[k])


@pytest.mark.parametrize("kinds", [("jet",), ("jet", "bjet"), ("muon", "electron"), ("photon",)], ids="+".join)
def test_numbers_and_leading_objects_of_any_kinds(objects, kinds):
    listed = list(by_event(objects, kinds))
    assert objects.n(*kinds).tolist() == [len(rows) for rows in listed]
    assert objects.leading_pt(*kinds).tolist() == [objects.pt[rows[0]] if rows else 0.0 for rows in listed]


def test_ht_is_of_light_and_b_jets(objects):
    want = [sum(objects.pt[k] for k in rows) for rows in by_event(objects, ("jet", "bjet"))]
    np.testing.assert_allclose(objects.ht, want, rtol=1e-12)


@pytest.mark.parametrize(
    ("first", "second"),
    [("jet", "jet"), ("bjet", "electron"), (("jet", "bjet"), ("jet", "bjet")), ("muon", ("jet", "bjet"))],
)
def test_masses_of_leading_objects(objects, first, second):
    kinds = [(k,) if isinstance(k, str) else k for k in (first, second)]
    masses = objects.pair_mass(first, second)
    assert 0 < np.isnan(masses).sum() < len(masses)
    for mass, a, b in zip(masses, by_event(objects, kinds[0]), by_event(objects, kinds[1]), strict=True):
        pair = a[:2] if first == second else [*a[:1], *b[:1]]
        if len(pair) < 2:
            assert math.isnan(mass)
            continue
        p = [vector.obj(**{c: getattr(objects, c)[k] for c in ("pt", "eta", "phi", "mass")}) for k in pair]
        assert mass == pytest.approx((p[0] + p[1]).mass, rel=1e-9)


def test_two_jets_and_missing_momentum():
    rng = np.random.default_rng(2)
    columns = {"pt": rng.exponential(300, (50, 2)), "eta": rng.uniform(-2, 2, (50, 2)), "phi": rng.uniform(-3.1, 3.1, (50, 2)),
               "mass": rng.exponential(50, (50, 2))}  # fmt: skip
    met, met_phi = rng.exponential(200, 50), rng.uniform(-3.1, 3.1, 50)
    event = dijet(ak.zip({k: ak.Array(v.tolist()) for k, v in columns.items()}, with_name="Momentum4D"), met, met_phi)
    for i in range(50):
        one, two = (vector.obj(**{k: v[i, j] for k, v in columns.items()}) for j in (0, 1))
        both, missing = one + two, vector.obj(pt=met[i], phi=met_phi[i])
        transverse = math.hypot(both.mass, both.pt) + missing.pt
        pt = vector.obj(px=both.px, py=both.py) + missing
        assert event.mjj[i] == pytest.approx(both.mass)
        assert event.mt[i] == pytest.approx(math.sqrt(transverse**2 - pt.rho**2))
        assert event.ht[i] == pytest.approx(one.pt + two.pt)
        assert event.dphi_min[i] == pytest.approx(min(abs(missing.deltaphi(j)) for j in (one, two)))
        assert event.delta_eta[i] == pytest.approx(abs(one.eta - two.eta))
