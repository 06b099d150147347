"""Windows, masses of templates, expectations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

resonant = pytest.importorskip("coffea_ad.resonant")
from resonant_toys import background, skim

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.resonant.masses import TiltedExponential, sample_masses
from coffea_ad.resonant.windows import PRESETS, Window, mass_of, refuse_empty, scan, windows_of
from coffea_ad.scoring.expectation import Expectation, joined_expectations, shares
from coffea_ad.scoring.specs import RegionSpec

pytestmark = pytest.mark.torch
WINDOW = Window(low=3300, high=3700, outer_low=1500, outer_high=5500)


@given(m=st.floats(0, 10_000))
def test_a_mass_is_in_the_signal_region_or_in_the_sidebands_or_outside_of_both(m):
    inside, beside = WINDOW.in_signal_region([m])[0], WINDOW.in_sidebands([m])[0]
    assert not (inside and beside)
    assert (inside or beside) == (1500 <= m < 5500)


def test_the_windows_of_the_lhc_olympics_are_nine_in_steps_of_a_tenth_of_a_tev():
    windows = PRESETS["lhco"]
    assert [w.low for w in windows] == [2900 + 100 * k for k in range(9)]
    assert {w.high - w.low for w in windows} == {400}
    assert windows[4].low == 3300


@given(width=st.floats(0.02, 0.5), step=st.floats(0.2, 1))
def test_windows_of_a_scan_grow_with_the_mass_and_leave_no_gap(width, step):
    windows = scan(1800, 6000, width=width, step=step, outer_low=1000, outer_high=8000)
    for w in windows:
        assert (w.high - w.low) / ((w.high + w.low) / 2) == pytest.approx(width, rel=1e-3)
    for one, two in itertools.pairwise(windows):
        assert one.low < two.low <= one.high * (1 + 1e-5)
    assert windows[-1].high <= 6000 * (1 + 1e-5)


def test_a_window_that_lacks_events_is_refused_by_name_region_and_number():
    x = background(2000, 1)
    with pytest.raises(
        SkimError, match=r"window 5000_5400: its signal region, 5000 ≤ mjj < 5400, has \d+ rows, but needs"
    ):
        refuse_empty(Window(low=5000, high=5400, outer_low=2500, outer_high=7000), skim(x), least=200)
    with pytest.raises(SkimError, match="upper sideband"):
        refuse_empty(Window(low=2600, high=5300, outer_low=2500, outer_high=5500), skim(x), least=50)


def test_wrong_windows_are_refused():
    with pytest.raises(ValueError, match="outer_low < low < high < outer_high"):
        Window(low=3700, high=3300, outer_low=1500, outer_high=5500)
    with pytest.raises(ConfigError, match="did you mean 'lhco'"):
        windows_of("lhc")
    with pytest.raises(ConfigError, match="differ in their edges"):
        windows_of([WINDOW, WINDOW])
    with pytest.raises(ConfigError, match="no window of the relative width"):
        scan(1800, 1900, width=0.5, outer_low=1000, outer_high=8000)


def test_the_mass_is_a_column_or_a_spectator_or_refused_with_the_nearest_name():
    rows = skim(background(10, 1))
    assert mass_of(rows, "mjj").tolist() == rows.x[:, 0].astype(float).tolist()
    assert mass_of(rows, "event").tolist() == list(range(10))
    with pytest.raises(SkimError, match="unknown mass 'mj'; did you mean"):
        mass_of(rows, "mj")


@given(seed=st.integers(0, 10_000), n=st.integers(2, 400))
def test_masses_of_a_template_lie_in_the_window_also_as_single_numbers(seed, n):
    m = np.random.default_rng(seed).uniform(3300, 3700, n)
    drawn = sample_masses(m, WINDOW, 500, seed)
    assert WINDOW.in_signal_region(drawn).all()
    assert WINDOW.in_signal_region(drawn.astype(np.float32)).all()


def test_masses_of_a_template_follow_those_of_the_data():
    m = background(100_000, 3)[:, 0].astype(float)
    m = m[WINDOW.in_signal_region(m)]
    drawn = sample_masses(m, WINDOW, 100_000, 1)
    edges = np.linspace(3300, 3700, 9)
    ours, theirs = np.histogram(drawn, edges)[0] / 100_000, np.histogram(m, edges)[0] / len(m)
    error = np.sqrt(theirs / len(m) + theirs / 100_000)
    assert np.abs((ours - theirs) / error).max() < 4.5


@pytest.mark.parametrize("seed", [1, 2])
def test_a_smooth_spectrum_is_normalised_and_describes_a_falling_one(seed):
    m = background(100_000, seed)[:, 0].astype(float)
    m = m[WINDOW.in_signal_region(m)]
    density = TiltedExponential(m, WINDOW)
    grid = np.linspace(3300, 3700, 20_001)
    assert np.trapezoid(np.exp(density.log_prob(grid)), grid) == pytest.approx(1, abs=1e-4)
    edges = np.linspace(3300, 3700, 11)
    expected = len(m) * np.array(
        [
            np.trapezoid(np.exp(density.log_prob(g)), g)
            for g in (np.linspace(a, b, 101) for a, b in itertools.pairwise(edges))
        ]
    )
    observed = np.histogram(m, edges)[0]
    assert ((observed - expected) ** 2 / expected).sum() < 25  # 7 degrees of freedom


def expectation(low, high, *efficiencies):
    edges = np.linspace(low, high, len(efficiencies) + 1)
    return Expectation(
        spectator="mjj", edges=tuple(edges), efficiencies=efficiencies, errors=(0.01,) * len(efficiencies),
        efficiency=float(np.mean(efficiencies)), error=0.01, n_effective=100,
    )  # fmt: skip


def region(name, eps, expected):
    return RegionSpec(name=name, efficiency=eps, thresholds=(-np.log10(eps),), error=0, n_effective=99, derived_from="toy",
                      expectation=expected)  # fmt: skip


def test_shares_of_a_template_sum_to_one_and_follow_the_mass():
    regions = [
        region("loose", 0.1, expectation(3300, 3700, 0.1, 0.2)),
        region("tight", 0.01, expectation(3300, 3700, 0.02, 0.01)),
    ]
    parts = shares(regions, [3400, 3600, 3800, np.nan])
    assert parts.sum(axis=1) == pytest.approx(1)
    assert parts[0] == pytest.approx([0.9, 0.08, 0.02])
    assert parts[1] == pytest.approx([0.8, 0.19, 0.01])
    assert parts[2].tolist() == [1, 0, 0]
    assert shares([region("loose", 0.1, None)], [3400.0]) is None


def test_expectations_of_windows_side_by_side_become_one():
    one, two = expectation(3300, 3700, 0.1), expectation(3800, 4000, 0.3, 0.4)
    both = joined_expectations([two, one])
    assert both.at([3500, 3750, 3850, 3950]).tolist() == [0.1, 0.0, 0.3, 0.4]
    assert joined_expectations([one, None]) is None
    assert joined_expectations([one, expectation(3500, 3900, 0.1)]) is None


def test_the_shipped_search_reads_what_the_shipped_skim_writes():
    """And the processor cuts where the feature does, so that a model and the events that it is applied to go together."""
    from coffea_ad import recipes
    from coffea_ad.config import load_config

    def config_of(name, file):
        data = ["data=skims"] if name == "resonant" else []
        return load_config(recipes.load(name).Config, recipes.configuration(name, file), data)

    skim, search = config_of("skim_events", "skim_events/dijet.yaml"), config_of("resonant", "resonant/dijet.yaml")
    (written,) = skim.features
    assert (written.name, written.options) == (search.feature, search.options)
    assert written.options["delta_eta_max"] == recipes.load("dijet_resonance").Config().delta_eta_max
    assert config_of("resonant", "resonant/lhco.yaml").options == {"R0": 1.0}
