"""Jets and events without a score: −1 and NaN, counted, in no region, whatever the reason."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad import histograms
from coffea_ad.errors import BadModel
from coffea_ad.features.spec import feature_spec
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import ModelCard, read_card, write_card
from coffea_ad.scoring.monitoring import monitoring
from coffea_ad.scoring.specs import InputSpec, RegionSpec


def graph(*nodes, **constants):
    """A network from features (n, 8) to score (n,)."""
    from onnx import TensorProto, helper, numpy_helper

    body = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes], "toy",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 8])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def card(**changes):
    """The card of wnae.onnx, with calibration, regions and quantiles, but without golden rows."""
    return read_card((DATA / "wnae.onnx").read_bytes()).model_copy(update={"golden": None, **changes})


@pytest.fixture
def nan_only():
    return write_card(
        graph(
            ("ReduceSum", ["features", "axis"], ["sum"], {"keepdims": 0}), ("Mul", ["sum", "nan"], ["score"]),
            axis=np.array([1]), nan=np.float32(np.nan),
        ),
        card(name="nan-only"),
    )  # fmt: skip


@pytest.mark.torch
def test_a_model_that_gives_nan_for_everything_scores_nothing(nan_only, svj):
    tagger = ad.Tagger(nan_only)
    assert np.isnan(tagger.scorer(np.ones((5, 8), np.float32))).all()
    with monitoring() as record:
        jets = tagger(svj)
    assert ak.all(np.isnan(jets["ad_score"]))
    assert ak.all(np.isnan(jets["ad_logp"]))
    assert ak.all(jets["ad_region"] == -1)
    assert len(ak.flatten(jets[jets["ad_region"] >= 0])) == 0
    seen = record[tagger.scorer.digest]
    assert seen["unscored"] == seen["rows"] == ak.count(jets["pt"])


@pytest.mark.torch
def test_a_search_with_a_model_that_gives_nan_counts_every_event_as_unscored(nan_only, tmp_path):
    model = tmp_path / "nan.onnx"
    model.write_bytes(nan_only)
    fileset = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    report = ad.run(
        fileset, "semivisible_jets", model=model, executor="iterative", output=tmp_path / "r", progress=False,
        preflight=False, overrides=["met_min=0", "rt_min=0"],
    )  # fmt: skip
    assert report.datasets["svj"]["unscored"] > 10
    for h in ad.load_results(tmp_path / "r").in_regions["svj"].values():
        assert h.sum(flow=True).value == 0


@pytest.mark.torch
def test_a_model_that_fails_on_rows_says_so_in_one_sentence(svj):
    broken = write_card(
        graph(("Gather", ["features", "place"], ["column"], {"axis": 1}), ("Reshape", ["column", "shape"], ["score"]),
              place=np.array([11]), shape=np.array([-1])),
        card(name="broken"),
    )  # fmt: skip
    with pytest.raises(BadModel, match="^model: onnxruntime cannot "):
        ad.Tagger(broken)(svj)


def binned(**changes):
    entries = {"name": "a", "efficiency": 0.1, "thresholds": (2.0, 0.5), "error": 0, "n_effective": 99,
               "derived_from": "toy", "spectator": "pt", "edges": (500.0,)}  # fmt: skip
    return RegionSpec(**{**entries, **changes})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_an_undefined_spectator_is_in_no_region(value):
    """NaN counts as large when it is sorted into bins, and would get the threshold of the last one."""
    grade = regions.assign(np.array([1.0, 1.0, 1.0]), [binned()], {"pt": np.array([600.0, value, 400.0])})
    assert grade.tolist() == [1, -1, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("field", ["tau1", "mass", "msoftdrop"])
def test_a_jet_with_an_undefined_input_has_region_minus_one_and_the_others_keep_theirs(field, value):
    tagger = ad.Tagger(DATA / "ae_stored.onnx")
    events = open_events(DATA / "svj_v15.root")
    before = tagger(events)
    spoilt = ak.where(ak.local_index(events.FatJet[field]) == 0, np.float32(value), events.FatJet[field])
    with monitoring() as record:
        after = tagger(ak.with_field(events.FatJet, spoilt, field))
    first = ak.local_index(after["pt"]) == 0
    assert ak.all(after["ad_region"][first] == -1)
    assert ak.all(after["ad_region"][~first] == before["ad_region"][~first])
    seen = record[tagger.scorer.digest]
    assert seen["undefined"] == {f"jet_substructure[source=stored].{field}": ak.sum(first)}
    assert seen["unscored"] == ak.sum(after["ad_region"] == -1)


def test_events_with_an_unscored_jet_have_a_cell_that_is_in_no_region():
    wp = RegionSpec(name="a", efficiency=0.1, thresholds=(1.0,), error=0, n_effective=99, derived_from="toy")
    for jets, grades in ((True, [[1, -1], [-1, 1], [-1, -1], [1, 1]]), (False, [[-1], [1]])):
        names = np.array(regions.cell_names(1, jets=jets))[regions.cells_of(np.array(grades, np.int8), 1)]
        assert names.tolist() == ["unscored"] * (len(grades) - 1) + ["1-1" if jets else "1"]
        assert all("unscored" not in cells for cells in regions.definitions([wp], jets=jets).values())


def test_what_has_no_score_is_in_no_bin_and_no_flow_bin():
    events = open_events(DATA / "svj_v15.root")
    tagger = ad.Tagger(DATA / "wnae.onnx")
    jets = ak.flatten(tagger(events))
    h = histograms.book([histograms.logp_axis(tagger.card)], ["all"], ["nominal"])
    logp = {"ad_logp": ak.to_numpy(jets["ad_logp"])}
    left_out = histograms.fill(h, np.full(len(jets), "all"), "nominal", logp, np.ones(len(jets)))
    assert left_out == ak.sum(jets["ad_region"] == -1) > 0
    assert h.sum(flow=True).value == h.sum().value == len(jets) - left_out


def test_without_a_calibration_there_is_no_region():
    bare = ModelCard(name="bare", method="AE", inputs=(InputSpec(features=(feature_spec("jet_substructure"),)),))
    score = np.array([1.0, np.nan], np.float32)
    values = regions.logp(bare.calibration, score)
    assert np.isnan(values).all()
    assert regions.assign(values, bare.regions).tolist() == [-1, -1]
