"""Flags in any type of number, and lists of theory weights of any length: right, or one sentence."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest

from coffea_ad.corrections.weights import Columns, PdfWeights, ScaleWeights, column_weight, pdf_weights, scale_weights
from coffea_ad.errors import BadFile, CoffeaADError, MissingBranch
from coffea_ad.nanoaod.columns import as_mask
from coffea_ad.selection import any_trigger, met_filters

TYPES = (bool, np.uint8, np.int32, np.int64, np.float32)


def events(**branches):
    return ak.Array({"run": np.arange(len(next(iter(branches.values())))), **branches})


@pytest.mark.parametrize("dtype", TYPES)
def test_flags_of_any_type_are_masks(dtype):
    flags = np.array([1, 0, 1, 0]).astype(dtype)
    e = events(HLT=ak.zip({"A": flags}), Flag=ak.zip({"good": flags}))
    for mask in (any_trigger(e, ["HLT_A"]), met_filters(e, ["Flag_good"]), as_mask(flags)):
        assert mask.dtype == bool
        assert mask.tolist() == [True, False, True, False]
    lists = ak.Array([flags, flags[:1]])
    assert lists[as_mask(lists)].to_list() == [[1, 1], [1]]


def test_a_flag_above_one_is_true_and_nan_is_not():
    assert as_mask(np.array([2, -1, 0, np.nan])).tolist() == [True, True, False, False]


def scales(n, value=1.0):
    row = np.full(n, value)
    row[: n // 2] = 0.5
    return row.tolist()


@pytest.mark.parametrize("n", [8, 9])
def test_events_without_numbers_get_no_variation(n):
    e = events(LHEScaleWeight=[scales(n), [], scales(n)])
    one, up, down = scale_weights(ScaleWeights(absent="unit")).make(e)["muRmuF"]
    assert (one.tolist(), up.tolist(), down.tolist()) == ([1, 1, 1], [1, 1, 1], [0.5, 1, 0.5])
    with pytest.raises(MissingBranch, match=f"LHEScaleWeight has 0, {n} numbers per event, but 8 or 9 are needed"):
        scale_weights(ScaleWeights()).make(e)


@pytest.mark.parametrize("n", [1, 18, 44])
@pytest.mark.parametrize("absent", ["error", "unit"])
def test_other_lengths_are_named_truly(n, absent):
    with pytest.raises(MissingBranch, match=f"LHEScaleWeight has {n} numbers per event, but 8 or 9 are needed"):
        scale_weights(ScaleWeights(absent=absent)).make(events(LHEScaleWeight=[scales(n)] * 3))


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
def test_a_central_number_of_zero_costs_its_own_event_only(wrong):
    rows = np.array([scales(9)] * 3)
    rows[1, 4] = wrong
    e = events(LHEScaleWeight=rows.tolist())
    assert scale_weights(ScaleWeights(absent="unit")).make(e)["muR"][2].tolist() == [0.5, 1, 0.5]
    with pytest.raises(BadFile, match="LHEScaleWeight of 1 events has a central number of 0"):
        scale_weights(ScaleWeights()).make(e)


def test_members_of_parton_densities_too():
    row = [1.0, 1.3, 1.4]
    e = events(LHEPdfWeight=[row, [], [0.0, 1.0, 1.0]])
    up = pdf_weights(PdfWeights(last=2, absent="unit")).make(e)["pdf"][1]
    assert up == pytest.approx([1.5, 1, 1])
    with pytest.raises(MissingBranch, match="LHEPdfWeight has 3 numbers per event, but 101 or more are needed"):
        pdf_weights(PdfWeights(absent="unit")).make(e)


def test_places_of_longer_lists_of_showers_mean_something_else():
    config = Columns(up="PSWeight[0]", down="PSWeight[2]")
    four = column_weight("isr", config).make(events(PSWeight=[[1.1, 1, 0.9, 1]] * 2))["isr"]
    assert [w.tolist() for w in four] == [[1, 1], [1.1, 1.1], [0.9, 0.9]]
    with pytest.raises(BadFile, match="PSWeight has 44 numbers per event"):
        column_weight("isr", config).make(events(PSWeight=[[1.0] * 44] * 2))
    with pytest.raises(CoffeaADError, match="PSWeight has no entry"):
        column_weight("isr", config).make(events(PSWeight=[[1.0]] * 2))
