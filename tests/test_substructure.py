from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_jets

from coffea_ad.features import naive
from coffea_ad.features.substructure import SUBSTRUCTURE_COLUMNS, softdrop, substructure

OPTIONS = (0.5, 0.8, 0.1, 0.0)
FROZEN = Path(__file__).parent / "data" / "substructure_fastjet.json"


def one(pt, eta, phi, mass=None):
    """Features of a single jet."""
    pt, eta, phi = (np.asarray(a, float) for a in (pt, eta, phi))
    mass = np.zeros(len(pt)) if mass is None else np.asarray(mass, float)
    return substructure(np.array([0, len(pt)]), pt, eta, phi, mass, *OPTIONS)[0]


def test_kernels_equal_their_slow_twins():
    jets = toy_jets(np.random.default_rng(1), 25, 25)
    np.testing.assert_allclose(substructure(*jets, *OPTIONS), naive.substructure(*jets, *OPTIONS), rtol=1e-9, atol=1e-7)


def test_soft_drop_with_angular_exponent_equals_its_slow_twin():
    jets = toy_jets(np.random.default_rng(2), 25, 25)
    options = (0.5, 0.8, 0.1, 1.0)
    np.testing.assert_allclose(
        substructure(*jets, *options)[:, 5], naive.substructure(*jets, *options)[:, 5], rtol=1e-7
    )


def test_kernels_equal_frozen_values_of_fastjet_contrib():
    frozen = json.loads(FROZEN.read_text())
    got = substructure(*(np.array(frozen["jets"][k]) for k in ("offsets", "pt", "eta", "phi", "mass")), *OPTIONS)
    for name, column, tolerance in (
        ("tau1", 8, 1e-9), ("tau2", 6, 1e-9), ("tau3", 7, 1e-9), ("tau4", 9, 1e-9), ("c2", 3, 1e-10), ("msoftdrop", 5, 1e-3),
    ):  # fmt: skip
        np.testing.assert_allclose(got[:, column], frozen["values"][name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.simulate
def test_frozen_values_are_what_fastjet_contrib_gives():
    from data.substructure_fastjet import fastjet_values

    frozen = json.loads(FROZEN.read_text())
    again = fastjet_values(*(np.array(frozen["jets"][k]) for k in ("offsets", "pt", "eta", "phi", "mass")))
    for name, values in again.items():
        np.testing.assert_allclose(values, frozen["values"][name], rtol=0, atol=1e-9, err_msg=name)


def test_columns_stand_in_the_order_of_the_contract():
    assert SUBSTRUCTURE_COLUMNS == ("sigma1", "sigma2", "efp1", "c2", "ptd", "msoftdrop", "tau2", "tau3")


def test_two_particles_have_the_values_of_the_formulas():
    values = dict(zip((*SUBSTRUCTURE_COLUMNS, "tau1", "tau4"), one([30.0, 10.0], [0.2, -0.2], [0.0, 0.3]), strict=True))
    theta, z = 0.5, np.array([0.75, 0.25])
    assert values["efp1"] == pytest.approx(2 * z[0] * z[1] * theta)
    assert values["c2"] == 0.0  # no triple
    assert values["ptd"] == pytest.approx(np.sqrt(1000) / 40)
    w = np.array([900, 100]) / 1000
    assert values["sigma1"] == pytest.approx(theta * np.sqrt(w[0] * w[1]))  # all the spread is along the line
    assert values["sigma2"] == pytest.approx(0, abs=1e-7)
    assert values["tau2"] == pytest.approx(0, abs=1e-12)


def test_no_constituent_is_undefined_and_one_is_not():
    out = substructure(np.array([0, 0, 1]), *(np.array([v]) for v in (50.0, 0.1, 3.0, 0.2)), *OPTIONS)
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()
    assert out[1, 5] == pytest.approx(0.2, rel=1e-3)  # groomed to the particle itself


def test_candidates_without_pt_do_not_count():
    with_zero = one([30, 0, 10], [0.2, 0.4, -0.2], [0.0, 0.5, 0.3])
    np.testing.assert_array_equal(with_zero, one([30, 10], [0.2, -0.2], [0.0, 0.3]))


def test_identical_momenta_stay_finite():
    assert np.isfinite(one([10.0] * 5, [0.3] * 5, [1.0] * 5)).all()


def test_soft_drop_subjets_sum_to_the_groomed_mass():
    jets = toy_jets(np.random.default_rng(3), 30)
    p = softdrop(*jets, 0.1, 0.0, 0.8).sum(axis=1)
    mass = np.sqrt(np.maximum(p[:, 3] ** 2 - (p[:, :3] ** 2).sum(axis=1), 0))
    np.testing.assert_allclose(mass, substructure(*jets, *OPTIONS)[:, 5], atol=1e-4)


seeds = st.integers(0, 2**32 - 1)


def assert_same(got, want, energy, rtol=1e-6, atol=1e-5):
    """Equal within rounding: m² = E² − p² carries the rounding of E², which is all there is where m = 0."""
    others = np.arange(10) != 5
    np.testing.assert_allclose(got[:, others], want[:, others], rtol=rtol, atol=atol)
    difference = np.abs(got[:, 5] ** 2 - want[:, 5] ** 2)
    assert (difference <= 2 * rtol * want[:, 5] ** 2 + 100 * np.finfo(float).eps * energy**2).all()


def energies(offsets, pt, eta, mass):
    """Energy of each jet."""
    return np.add.reduceat(np.hypot(pt * np.cosh(eta), mass), offsets[:-1])


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-10, 10))
def test_nothing_changes_when_the_event_is_rotated_about_the_beam(seed, angle):
    offsets, pt, eta, phi, mass = toy_jets(np.random.default_rng(seed), 5)
    turned = (phi + angle + np.pi) % (2 * np.pi) - np.pi
    assert_same(
        substructure(offsets, pt, eta, turned, mass, *OPTIONS),
        substructure(offsets, pt, eta, phi, mass, *OPTIONS),
        energies(offsets, pt, eta, mass),
    )


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_nothing_changes_when_constituents_are_reordered(seed):
    rng = np.random.default_rng(seed)
    offsets, pt, eta, phi, mass = toy_jets(rng, 5)
    order = np.concatenate([a + rng.permutation(b - a) for a, b in itertools.pairwise(offsets)])
    assert_same(
        substructure(offsets, pt[order], eta[order], phi[order], mass[order], *OPTIONS),
        substructure(offsets, pt, eta, phi, mass, *OPTIONS),
        energies(offsets, pt, eta, mass),
    )


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-1.0, 1.0))
def test_massless_jets_do_not_change_under_boosts_along_the_beam(seed, boost):
    offsets, pt, eta, phi, _ = toy_jets(np.random.default_rng(seed), 5)
    zero = np.zeros(len(pt))
    assert_same(
        substructure(offsets, pt, eta + boost, phi, zero, *OPTIONS),
        substructure(offsets, pt, eta, phi, zero, *OPTIONS),
        energies(offsets, pt, abs(eta) + abs(boost), zero),
        rtol=1e-5,
        atol=1e-4,
    )


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(1.5, 100))
def test_scaling_all_momenta_scales_the_mass_and_nothing_else(seed, factor):
    offsets, pt, eta, phi, mass = toy_jets(np.random.default_rng(seed), 5)
    got = substructure(offsets, factor * pt, eta, phi, factor * mass, *OPTIONS)
    want = substructure(offsets, pt, eta, phi, mass, *OPTIONS)
    want[:, 5] *= factor
    assert_same(got, want, factor * energies(offsets, pt, eta, mass))


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.1, 0.9))
def test_irc_safe_observables_ignore_collinear_splittings_and_soft_particles(seed, fraction):
    """EFP1 and soft-drop mass are safe; pTD and the pT²-weighted moments are not, by definition."""
    _, pt, eta, phi, _ = toy_jets(np.random.default_rng(seed), 1, 30)
    whole = one(pt, eta, phi)
    split = one(np.r_[fraction * pt[0], pt[1:], (1 - fraction) * pt[0]], np.r_[eta, eta[0]], np.r_[phi, phi[0]])
    soft = one(np.r_[pt, 1e-9], np.r_[eta, eta[0] + 0.3], np.r_[phi, phi[0]])
    for other in (split, soft):
        np.testing.assert_allclose(other[[2, 5]], whole[[2, 5]], rtol=1e-5, atol=1e-3)
