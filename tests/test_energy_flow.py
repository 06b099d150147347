from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.features.energy_flow import GRAPHS, efp, graph_label
from coffea_ad.features.kitchen_sink import KITCHEN_SINK, TAU_BETAS, kitchen_sink
from coffea_ad.features.naive import energy_flow as naive
from coffea_ad.features.naive.substructure import jets as slow_jets
from coffea_ad.features.substructure import Conventions, substructure

# pT, y, φ of six massless constituents around φ = π, and what EnergyFlow 1.4.0 gives for them (measure "hadr", normed)
JET = np.array([[120.0, 0.31, 3.10], [80.0, -0.12, -3.05], [45.0, 0.02, 2.95], [21.0, 0.44, -3.12], [9.0, -0.35, 3.02], [3.0, 0.15, -2.80]]).T  # fmt: skip
ENERGY_FLOW = {
    1.0: [
        0.2739204829148, 0.1181241638758, 0.07882848745662, 0.05481454541251, 0.03465981962738, 0.02406902094954, 0.02232887918921,
        0.01693834399409, 0.02715816126227, 0.01650197240888, 0.0155424864936, 0.0108837977378, 0.009792021840365, 0.009970805914514,
        0.00787869449354, 0.006713044464218, 0.006380460761933, 0.007081085938889, 0.005192865877022, 0.007669100878317,
    ],
    0.5: [
        0.4311776674183, 0.2739204829148, 0.1930899555629, 0.1780852392741, 0.1231584250024, 0.08996484046388, 0.08542077661957,
        0.07078759348941, 0.1181241638758, 0.08048632431988, 0.07882848745662, 0.05771521321069, 0.0544349986867, 0.05469927859844,
        0.04366350956489, 0.03937060891338, 0.03800658823117, 0.04433012551726, 0.03318887586992, 0.04285538162637,
    ],
}  # fmt: skip


def jet(n, seed, mass=0.14):
    """offsets, pT, η, φ, mass of one jet of n constituents around φ = π."""
    rng = np.random.default_rng(seed)
    phi = math.pi + rng.normal(0, 0.3, n)
    phi = np.where(phi > math.pi, phi - 2 * math.pi, phi)
    return [0, n], rng.exponential(20, n) + 0.3, rng.normal(0.4, 0.3, n), phi, np.full(n, mass)


def all_of(offsets, *columns, **options):
    return efp(list(GRAPHS), offsets, *columns, **options)


def test_the_graphs_are_all_connected_multigraphs_of_up_to_four_edges():
    """Made in another way: every edge is added to every graph, and what differs by numbers of vertices counted once."""

    def canonical(graph):
        vertices = sorted({v for edge in graph for v in edge})
        orders = (dict(zip(vertices, order, strict=True)) for order in itertools.permutations(range(len(vertices))))
        return min(tuple(sorted(tuple(sorted((o[a], o[b]))) for a, b in graph)) for o in orders)

    level = {((0, 1),)}
    for d, number in ((1, 1), (2, 2), (3, 5), (4, 12)):
        assert {canonical(g) for name, g in GRAPHS.items() if name.startswith(f"efp_{d}_")} == level
        assert len(level) == number
        grown = set()
        for graph in level:
            n = 1 + max(v for edge in graph for v in edge)
            grown |= {canonical((*graph, edge)) for edge in itertools.combinations(range(n + 1), 2) if edge[0] < n}
        level = grown
    assert all(len(GRAPHS[name]) == int(name.split("_")[1]) for name in GRAPHS)
    assert graph_label("efp_4_11") == "01 02 12 23"


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_polynomials_are_those_of_energyflow(beta):
    got = all_of([0, 6], *JET, np.zeros(6), beta=beta)[0]
    np.testing.assert_allclose(got, ENERGY_FLOW[beta], rtol=1e-11)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 1.3])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_polynomials_equal_their_slow_twin(n, beta):
    columns = jet(n, seed=n)
    (whole,) = slow_jets(*columns)
    want = [naive.efp(graph, whole.particles, beta) for graph in GRAPHS.values()]
    np.testing.assert_allclose(all_of(*columns, beta=beta)[0], want, rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose([naive.efp_of_many(g, whole.particles, beta) for g in GRAPHS.values()], want, rtol=1e-12)


def test_polynomials_of_large_jets_equal_numpys_sums():
    for n in (17, 64, 133):  # blocks of four and vectors of eight end in different places
        columns = jet(n, seed=n)
        (whole,) = slow_jets(*columns)
        want = [naive.efp_of_many(graph, whole.particles) for graph in GRAPHS.values()]
        np.testing.assert_allclose(all_of(*columns)[0], want, rtol=1e-11)


def test_graphs_may_be_given_by_their_edges_in_any_numbering():
    columns = jet(20, seed=1)
    asked = ["efp_4_12", [(3, 7), (7, 9), (9, 5), (5, 3)], ((2, 1), (1, 0)), [[0, 1], [1, 0]]]
    got, named = efp(asked, *columns), efp(["efp_4_12", "efp_4_12", "efp_2_2", "efp_2_1"], *columns)
    np.testing.assert_array_equal(got, named)
    np.testing.assert_allclose(efp(["efp_2_2"], *columns)[0, 0], all_of(*columns)[0, 2], rtol=1e-14)


def test_the_first_polynomial_is_efp1_of_the_substructure():
    columns = jet(40, seed=3)
    np.testing.assert_allclose(efp(["efp_1_1"], *columns), substructure(["efp1"], *columns), rtol=1e-12)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ([(0, 0)], "two different vertices"),
        ([(0, 1), (2, 3)], "not connected"),
        ([], "no graph"),
        ([(0, 1)] * 5, "more than four edges"),
        ([(0, 1, 2)], "no graph"),
    ],
)
def test_what_is_no_small_connected_graph_is_refused(graph, message):
    with pytest.raises(ConfigError, match=message):
        efp([graph], *jet(3, seed=1))


def test_wrong_names_and_powers_are_refused():
    with pytest.raises(UnknownName, match="did you mean 'efp_4_3'"):
        efp(["efp_4_13"], *jet(3, seed=1))
    for beta in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="beta is "):
            efp(["efp_1_1"], *jet(3, seed=1), beta=beta)


def test_few_constituents_are_defined_and_none_are_not():
    _, pt, eta, phi, mass = jet(5, seed=2)
    values = all_of([0, 1, 1, 3, 4], pt, eta, phi, mass)
    np.testing.assert_array_equal(values[0], 0.0)
    assert np.isnan(values[1]).all()
    assert (values[2][[k for k, g in enumerate(GRAPHS.values()) if len({v for e in g for v in e}) == 2]] > 0).all()
    triangle = list(GRAPHS).index("efp_3_5")
    assert values[2][triangle] == 0.0  # two constituents have no triangle
    broken = np.where(np.arange(5) == 1, np.nan, eta)
    assert np.isnan(all_of([0, 5], pt, broken, phi, mass)).all()
    lone = dict(zip(KITCHEN_SINK, kitchen_sink([0, 1], pt, eta, phi, mass)[0], strict=True))
    many = [name for name in KITCHEN_SINK if name.startswith(("efp", "tau")) and not name.startswith("tau1_")]
    assert [lone[name] for name in many] == [0.0] * (20 + 24)
    assert max(lone[f"tau1_beta{beta:g}"] for beta in TAU_BETAS) < 1e-3  # the one axis is the particle, within rounding
    assert lone["multiplicity"] == lone["ptd"] == 1.0
    assert lone["mass"] == pytest.approx(0.14, rel=1e-6)


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 25), angle=st.floats(-3, 3), dy=st.floats(-1, 1), scale=st.floats(0.01, 100))
def test_rotation_boost_order_and_scale_leave_polynomials_alone(seed, n, angle, dy, scale):
    offsets, pt, eta, phi, _ = jet(n, seed)
    massless = np.zeros(n)
    want = all_of(offsets, pt, eta, phi, massless)
    order = np.random.default_rng(seed).permutation(n)
    np.testing.assert_allclose(all_of(offsets, pt[order], eta[order], phi[order], massless), want, rtol=1e-9)
    np.testing.assert_allclose(all_of(offsets, scale * pt, eta, phi, massless), want, rtol=1e-9)
    turned = np.arctan2(np.sin(phi + angle), np.cos(phi + angle))
    np.testing.assert_allclose(all_of(offsets, pt, eta + dy, turned, massless), want, rtol=1e-7, atol=1e-14)
    # about the axis of the jet, in the plane of (y, φ)
    y, x = eta - 0.4, np.arctan2(np.sin(phi - math.pi), np.cos(phi - math.pi))
    new_y, new_x = y * math.cos(angle) - x * math.sin(angle), y * math.sin(angle) + x * math.cos(angle)
    np.testing.assert_allclose(all_of(offsets, pt, new_y, new_x, massless), want, rtol=1e-7, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 25), which=st.integers(0, 24), share=st.floats(0.05, 0.95))
def test_a_collinear_splitting_and_a_soft_particle_leave_polynomials_alone(seed, n, which, share):
    offsets, pt, eta, phi, _ = jet(n, seed)
    want, i = all_of(offsets, pt, eta, phi, np.zeros(n)), which % n
    split = [np.r_[a, a[i]] for a in (pt, eta, phi)]
    split[0][[i, n]] = share * pt[i], (1 - share) * pt[i]
    np.testing.assert_allclose(all_of([0, n + 1], *split, np.zeros(n + 1)), want, rtol=1e-9)
    soft = [np.r_[pt, 1e-12 * pt.sum()], np.r_[eta, 1.4], np.r_[phi, 2.0]]
    np.testing.assert_allclose(all_of([0, n + 1], *soft, np.zeros(n + 1)), want, rtol=1e-7, atol=1e-10)


def test_a_collinear_splitting_moves_what_is_not_safe():
    """The counterpart: the multiplicity and pTD of the set do change."""
    offsets, pt, eta, phi, mass = jet(10, seed=4)
    hardest = int(np.argmax(pt))
    split = [np.r_[a, a[hardest]] for a in (pt, eta, phi, mass)]
    split[0][[hardest, 10]] = pt[hardest] / 2
    before, after = kitchen_sink(offsets, pt, eta, phi, mass)[0], kitchen_sink([0, 11], *split)[0]
    unsafe = [KITCHEN_SINK.index(name) for name in ("multiplicity", "ptd")]
    assert (np.abs(after[unsafe] / before[unsafe] - 1) > 0.01).all()


@pytest.mark.parametrize("axes", ["OnePass_KT", "KT", "OnePass_WTA_KT", "WTA_KT"])
def test_the_kitchen_sink_holds_what_its_parts_compute(axes):
    parts = [jet(n, seed=n) for n in (1, 2, 4, 9, 30, 71)]
    offsets = np.r_[0, np.cumsum([p[0][1] for p in parts])]
    columns = [np.concatenate([p[k] for p in parts]) for k in range(1, 5)]
    c = Conventions(axes=axes, R0=1.0, z_cut=0.15, softdrop_beta=1.0)
    got = dict(zip(KITCHEN_SINK, kitchen_sink(offsets, *columns, c, efp_beta=0.5).T, strict=True))
    for beta in TAU_BETAS:
        taus = [f"tau{n}" for n in range(1, 10)]
        want = substructure(taus, offsets, *columns, conventions=c.model_copy(update={"tau_beta": beta}))
        np.testing.assert_allclose(np.stack([got[f"{t}_beta{beta:g}"] for t in taus], 1), want, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(
        np.stack([got[name] for name in GRAPHS], 1), all_of(offsets, *columns, beta=0.5), rtol=1e-12
    )
    names = ["msoftdrop", "multiplicity", "ptd"]
    want = substructure(names, offsets, *columns, conventions=c)
    np.testing.assert_allclose(np.stack([got[n] for n in names], 1), want, rtol=1e-9, atol=1e-9)
    masses = [math.sqrt(whole.axis.mass2) for whole in slow_jets(offsets, *columns)]
    np.testing.assert_allclose(got["mass"], masses, rtol=1e-7, atol=1e-5)
    assert (got["msoftdrop"] <= got["mass"] * (1 + 1e-9) + 1e-6).all()
