"""Defects that users of other packages have reported in public, and the tests here that show the right behaviour.

Numbers are those of the issues of the package in front of them.

| report | what is right | test |
| --- | --- | --- |
| pyBumpHunter 35 | a search that goes on has the state that it had, exactly | test_search.py::test_pseudo_experiments_are_the_same_in_any_order_and_after_an_interruption |
| pyhf 1852, 870 | bins without expected events are named, or floored and said | test_channels.py::test_what_a_fit_would_go_wrong_with_is_named, test_channels.py::test_a_floor_raises_bins_and_says_so, test_limits.py::test_a_background_that_is_0_in_a_bin_is_named |
| pyhf 2529, 1427 | failed pseudo-experiments are counted; too many leave no p-value | test_search.py::test_too_many_failed_fits_leave_no_p_value |
| pyhf 2232 | large yields have a fit and a limit | test_search_fits.py::test_large_yields_are_fitted, test_public_reports.py::test_large_yields_have_a_limit |
| cabinetry 404, 388, 424; pyhf 2093, 2577 | negative totals are one sentence, and the rest is finished | test_channels.py::test_what_a_fit_would_go_wrong_with_is_named, test_search_fits.py::test_what_cannot_be_fitted_says_which_spectrum_and_why, test_search.py::test_a_spectrum_that_cannot_be_fitted_does_not_end_the_others, test_abcd.py::test_negative_weights_are_named |
| onnxmltools 728, 708 | trees as ONNX are the model, also where inputs are neighbouring floats; a file is checked before it is written | test_classifiers.py::test_trees_agree_where_all_values_are_neighbouring_floats, test_classifiers.py::test_rounding_down_changes_no_comparison_with_a_float32, test_modelfile.py::test_a_failing_golden_pair_of_a_toy_is_refused |
| PocketCoffea 534 | a score follows its object through sorts, masks and variations | test_provenance.py::test_scores_after_any_masks_sorts_and_joins_are_those_of_the_untouched_file_or_refused, test_corrections.py::test_a_tagger_scores_varied_jets_and_the_search_fills_their_variations |
| PocketCoffea 521 | what has no score is in no bin, those outside of the axis included | test_no_score.py::test_what_has_no_score_is_in_no_bin_and_no_flow_bin |
| PocketCoffea 532 | every variation has its weights and yields; one name twice is an error | test_corrections.py::test_weight_variations_stand_beside_shapes_with_the_right_yields, test_corrections.py::test_wrong_keys_and_names_of_variations_are_refused |
| PocketCoffea 366 | a shift of jet energies moves inputs, masses and what is expected by as much | test_rmm.py::test_a_variation_of_jets_changes_cells_of_jets_only, test_dijet_resonance.py::test_a_shift_of_the_jets_moves_the_mass_and_what_is_expected |
| combine 493, 380 | functions are integrated over bins | test_search_fits.py::test_bins_are_integrals_of_the_formula, test_search_fits.py::test_a_power_at_the_centre_of_a_wide_bin_is_wrong_by_what_is_known |
| coffea 909 | events without numbers of their own are said at once | test_skim_words.py::test_events_without_ids_of_their_own_are_refused, test_skim_words.py::test_files_without_weights_or_ids_are_refused, test_event_numbers.py::test_folds_name_the_file |
| gammacombo 167 | fits without a signal have strengths of both signs, and none is cut off at 0 | test_public_reports.py::test_strengths_without_a_signal_have_both_signs |
| uproot5 696 | ROOT files keep sums of squared weights | test_exports.py::test_shapes_keep_contents_and_sums_of_squared_weights, test_running.py::test_results_are_exported_as_normalised_root_histograms |
| coffea 1270 | cutflows count events and weights | test_public_reports.py::test_a_cutflow_counts_events_and_sums_their_weights |
| PocketCoffea 130 | the sign of genWeight as the weight, where asked for | test_signs_of_weights.py::test_yields_are_those_of_the_signs |
| PocketCoffea 221 | intervals of ratios of few events are not symmetric | test_abcd.py::test_the_interval_is_that_of_the_profile_likelihood |
| PocketCoffea 547 | what no variation changes is not computed again | test_tagger.py::test_variations_of_the_same_jets_are_not_scored_again, test_corrections.py::test_only_what_is_asked_for_travels |
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from coffea.analysis_tools import PackedSelection
from search_toys import EDGES, SQRT_S, falling, spectrum

from coffea_ad.search.fits import fit
from coffea_ad.search.limits import LimitTask, limit_of_task
from coffea_ad.search.signals import gaussian
from coffea_ad.search.spectra import Spectrum
from coffea_ad.selection import cutflow

HERE = Path(__file__).parent
NAMED = re.findall(r"(test_\w+\.py)::(test_\w+)", __doc__)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_test_of_a_report_is_there(file, name):
    assert re.search(rf"^def {name}\(", (HERE / file).read_text(), re.MULTILINE)


def test_every_report_has_a_test():
    rows = [line for line in __doc__.splitlines() if re.match(r"\| \w+ \d", line)]
    assert len(rows) == 18
    assert all(re.search(r"test_\w+\.py::test_\w+", row) for row in rows)


@pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")  # of pyhf
def test_large_yields_have_a_limit():
    """300 million events: the expected limit is that of a normal distribution, twice the error of the strength."""
    pytest.importorskip("pyhf")
    s = Spectrum.of_events("m", EDGES, np.round(falling(3e8)))
    limit = limit_of_task(LimitTask(s, "dijet", 3, SQRT_S, 3000.0, 0.05))
    assert limit.said == ""
    f = fit(s, "dijet", 3, SQRT_S, signal=gaussian(EDGES, 3000.0, 0.05))
    assert limit.expected[2] == pytest.approx(1.96 * f.strength_error, rel=0.15)


def test_strengths_without_a_signal_have_both_signs():
    """As often below 0 as above, and spread as their errors say."""
    pulls = []
    for seed in range(60):
        f = fit(spectrum(5000, 400 + seed), "dijet", 3, SQRT_S, signal=gaussian(EDGES, 3000.0, 0.05))
        pulls.append(f.strength / f.strength_error)
    assert np.mean(np.array(pulls) < 0) == pytest.approx(0.5, abs=3 * np.sqrt(0.25 / 60))
    assert abs(np.mean(pulls)) < 3 / np.sqrt(60)
    assert 0.7 < np.std(pulls) < 1.3


def test_a_cutflow_counts_events_and_sums_their_weights():
    selection, weight = PackedSelection(), np.array([1.0, -0.5, 2.0, 4.0])
    selection.add("first", np.array([True, True, False, True]))
    selection.add("second", np.array([True, False, True, True]))
    assert cutflow(selection, ["first", "second"], weight) == {
        "all": {"events": 4, "weight": 6.5}, "first": {"events": 3, "weight": 4.5}, "second": {"events": 2, "weight": 5.0},
    }  # fmt: skip
