"""A search of two eras, 13 TeV at 10 fb⁻¹ and 13.6 TeV at 30 fb⁻¹: each has its normalisation, the limits that of both."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from search_toys import with_signal

from coffea_ad.results import save_results
from coffea_ad.search.config import SearchConfig
from coffea_ad.search.reading import read_spectra, sqrt_s_of
from coffea_ad.search.search import search

ERAS = {"2018": (13000.0, 10.0, 0.05), "2022": (13600.0, 30.0, 0.08)}
"""√s, fb⁻¹ and cross-section of the signal in pb, of which 30 % are in the tight region."""
CONFIG = {
    "regions": ["tight"], "toys": 0, "fit": {"low": 1500.0, "high": 6000.0, "orders": [3, 3], "envelope": []},
    "widths": [0.05], "limits": {"masses": [3000.0]}, "exports": False,
}  # fmt: skip


def two_eras(folder, *, eras=ERAS, lacking=(), **settings):
    """Save results of data, background and signal in each era, as a run over both writes them."""
    histograms, datasets = {}, {}
    for era, (sqrt_s, lumi, xsec) in eras.items():
        one = with_signal(folder / era, xsec=xsec, background=True, **settings)
        for name, entry in one.report["datasets"].items():
            if f"{name}_{era}" in lacking:
                continue
            about = {"era": era, "sqrt_s": sqrt_s, "process": entry["metadata"].get("process", name)}
            datasets[f"{name}_{era}"] = {**entry, "lumi": lumi, "metadata": {**entry["metadata"], **about}}
            histograms[f"{name}_{era}"] = one.histograms[name]
    results = replace(one, histograms=histograms, report={**one.report, "datasets": datasets, "lumi": None})
    save_results(results.histograms, results.report, folder / "both")
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eras")
    return two_eras(folder), folder


def test_simulation_is_normalised_era_by_era(results):
    both, _ = results
    signal = both.signals("mjj", "tight")["Z'"][{"variation": "nominal"}].sum(flow=True).value
    assert signal == pytest.approx(1000 * 0.3 * (0.05 * 10 + 0.08 * 30), rel=1e-3)
    background = both.background("mjj", "inclusive")["qcd"][{"variation": "nominal"}].sum(flow=True).value
    assert background == pytest.approx(1000 * 2.0 * (10 + 30), rel=1e-3)
    assert both.luminosity() == 40.0
    assert [both.luminosity(era) for era in ERAS] == [10.0, 30.0]


def test_limits_in_pb_are_of_the_luminosity_of_both_eras(results):
    _, folder = results
    content = search(folder / "both", folder / "search", SearchConfig(**CONFIG), figures=False)
    assert content["lumi"] == 40.0
    assert content["sqrt_s"] == 13600.0
    assert "40 fb⁻¹ are the sum of 10 (2018), 30 (2022)" in content["notes"]
    assert any("datasets of √s = 13000, 13600 GeV are added: functions of x = m/√s take" in n for n in content["notes"])
    gaussian, simulated = content["limits"]
    assert gaussian["cross_section"]["observed"] == pytest.approx(gaussian["observed"] / 40_000)
    assert simulated["signal_events"] == pytest.approx(1000 * 0.3 * (0.05 * 10 + 0.08 * 30), rel=1e-3)
    excluded = simulated["strength"]["expected"][2]
    assert simulated["signal_cross_section"]["expected"][2] == pytest.approx(0.08 * excluded)  # at 13.6 TeV
    visible = json.loads((folder / "search" / "limits.json").read_text())["tight"]
    assert visible["lumi"] == 40.0
    assert visible["background"] == pytest.approx(1000 * 2.0 * 0.01 * 40, rel=1e-3)


@pytest.mark.parametrize("era", list(ERAS))
def test_one_era_alone_has_its_energy_and_its_luminosity(results, era):
    _, folder = results
    sqrt_s, lumi, xsec = ERAS[era]
    content = search(folder / "both", folder / era / "search", SearchConfig(**CONFIG, era=era), figures=False)
    assert (content["sqrt_s"], content["lumi"]) == (sqrt_s, lumi)
    assert not any("fb⁻¹ are the sum" in n or "are added" in n for n in content["notes"])
    gaussian, simulated = content["limits"]
    assert gaussian["cross_section"]["observed"] == pytest.approx(gaussian["observed"] / (1000 * lumi))
    assert simulated["signal_events"] == pytest.approx(1000 * 0.3 * xsec * lumi, rel=1e-3)
    assert simulated["signal_cross_section"]["expected"][2] == pytest.approx(
        xsec * simulated["strength"]["expected"][2]
    )


def test_data_of_one_era_alone_are_half_of_both(results):
    _, folder = results
    both, one = (
        read_spectra(folder / "both", regions=["tight"], era=era).spectra[0].region("tight").counts
        for era in (None, "2018")
    )
    np.testing.assert_array_equal(both, 2 * one)  # the same events in either


def test_a_signal_that_one_era_lacks_is_said(tmp_path):
    two_eras(tmp_path, lacking=("zprime_2018",))
    read = read_spectra(tmp_path / "both", regions=["tight"])
    assert "signal Z' was not simulated for 2018: its limits count it as none there" in read.notes


def test_what_trained_the_model_is_not_in_the_luminosity(tmp_path):
    """A run leaves it out of the datasets' luminosities; the number that it was given stays in the report."""
    one = with_signal(tmp_path)
    for entry in one.report["datasets"].values():
        entry["lumi"] = 0.75 * 10
    assert one.report["lumi"] == 10.0
    assert one.luminosity() == 7.5


def test_data_of_several_sections_have_the_luminosity_of_all(tmp_path):
    """Of data alone: two periods are added, two primary datasets of the same sections are one."""
    one = with_signal(tmp_path)
    del one.report["datasets"]["zprime"]
    first = one.report["datasets"]["events"]
    first |= {"lumi": 4.0, "luminosity": {"recorded": 4.0}, "sections": {"1": [[1, 40]]}}
    for sections, expected in (({"2": [[1, 60]]}, 10.0), ({"1": [[1, 40]]}, 6.0), ({"1": [[30, 60]]}, 10.0)):
        recorded = {"lumi": 6.0, "luminosity": {"recorded": 6.0}, "sections": sections}
        one.report["datasets"]["more"] = {**first, **recorded}
        assert one.luminosity() == expected  # what overlaps in part has that of the report


def test_luminosities_that_are_not_known_leave_limits_in_events(tmp_path):
    both = two_eras(tmp_path)
    for name, entry in both.report["datasets"].items():
        entry["lumi"] = None if name.endswith("2018") else entry["lumi"]
    assert both.luminosity() is None
    assert sqrt_s_of(both, "2018") == (13000.0, [])
