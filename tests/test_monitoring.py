"""What taggers saw in a run, and whether it is distributed as in the training."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from coffea import processor
from coffea.processor import accumulate
from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad.errors import ConfigError
from coffea_ad.features.spec import feature_spec
from coffea_ad.scoring import monitoring as module
from coffea_ad.scoring.card import ModelCard, read_card, write_card
from coffea_ad.scoring.monitoring import Watch, describe, drift, drifted, monitoring
from coffea_ad.scoring.specs import InputSpec, Quantiles

P = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


@pytest.fixture(scope="module")
def tagger():
    return ad.Tagger(DATA / "wnae.onnx")


def binned(quantiles, column):
    """Counts below the first quantile, at it, between it and the next, …."""
    cuts, column = np.float32(quantiles), np.float32(column)
    out = [(column < cuts[0]).sum()]
    for i, (low, high) in enumerate(zip(cuts, [*cuts[1:], np.inf], strict=True)):
        first = i == 0 or cuts[i - 1] < low
        out += [(column == low).sum() * first, ((column > low) & (column < high)).sum()]
    return np.array(out)


def equal(a, b):
    assert a.keys() == b.keys()
    for digest in a:
        assert {k: v for k, v in a[digest].items() if k != "quantiles"} == {
            k: v for k, v in b[digest].items() if k != "quantiles"
        }
        np.testing.assert_equal(a[digest]["quantiles"], b[digest]["quantiles"])


def test_rows_undefined_values_and_quantiles_are_counted(tagger, svj):
    rows, _ = ad.features.compute("jet_substructure", svj)
    with monitoring() as record:
        tagger(svj)
    assert list(record) == [tagger.scorer.digest]
    seen = record[tagger.scorer.digest]
    good = np.isfinite(rows).all(axis=1)
    assert seen["rows"] == len(rows)
    assert seen["unscored"] == (~good).sum() > 0
    assert seen["undefined"] == {c: (~good).sum() for c in tagger.card.inputs[0].columns}
    for name, column in zip(tagger.card.inputs[0].columns, rows[good].T, strict=True):
        assert seen["quantiles"][name].dtype == np.int64
        np.testing.assert_array_equal(seen["quantiles"][name], binned(tagger.card.quantiles.values[name], column))


def test_nothing_is_recorded_outside_and_blocks_may_be_nested(tagger, svj_file):
    tagger(open_events(svj_file))
    with monitoring() as outer:
        tagger(open_events(svj_file))
        with monitoring() as inner:
            tagger(open_events(svj_file))
    tagger(open_events(svj_file))
    digest = tagger.scorer.digest
    assert outer[digest]["rows"] == 2 * inner[digest]["rows"] == 2 * len(ak.flatten(tagger(open_events(svj_file))))
    inner[digest]["quantiles"].clear()
    assert outer[digest]["quantiles"]
    with monitoring() as record:
        pass
    assert record == {}


def test_a_failed_call_leaves_no_half_of_a_record(tagger, svj_file):
    events = open_events(svj_file)
    with monitoring() as record, pytest.raises(ad.errors.MissingBranch):
        tagger(ak.without_field(events, "FatJet"))
    assert record == {}


def test_records_of_chunks_add_up_to_the_record_of_the_whole(tagger, svj_file):
    with monitoring() as whole:
        tagger(open_events(svj_file))
    parts = []
    for start in range(0, 150, 50):
        with monitoring() as record:
            tagger(open_events(svj_file, entry_start=start, entry_stop=start + 50))
        parts.append(record)
    equal(accumulate(parts), whole)


def test_a_run_is_monitored_without_the_help_of_its_processor(tagger, svj_file):
    class Inner(processor.ProcessorABC):
        def process(self, events):
            return {"n": len(tagger(events.FatJet[:, :2]))}

        def postprocess(self, accumulator):
            return accumulator

    class Outer(Inner):
        def process(self, events):
            with monitoring() as record:
                out = Inner().process(events)
            return {**out, "seen": record}

    runner = processor.Runner(
        processor.IterativeExecutor(status=False), schema=ad.NanoAODSchema, chunksize=40, metadata_cache={}
    )
    out = runner({"svj": [str(svj_file)]}, Outer(), treename="Events")
    with monitoring() as whole:
        tagger(open_events(svj_file).FatJet[:, :2])
    equal(out["seen"], whole)


def test_kept_scores_are_counted_once_and_varied_inputs_anew(tagger, svj, stored_model):
    stored = ad.Tagger(stored_model, name="stored")
    n = len(ak.flatten(svj.FatJet))
    with monitoring() as record:
        for factor in (1.0, 1.1, 0.9):
            ad.tag(ak.with_field(svj.FatJet, svj.FatJet["pt"] * np.float32(factor), "pt"), [tagger, stored])
    assert record[tagger.scorer.digest]["rows"] == n
    assert record[stored.scorer.digest]["rows"] == 3 * n


def test_a_bounded_number_of_rows_is_binned_whatever_the_blocks_are(tagger, svj_file, monkeypatch):
    monkeypatch.setattr(module, "_VALUES", 8 * 50)
    records = []
    for size in (8_000_000, 1):
        monkeypatch.setattr("coffea_ad.scoring.streaming._BLOCK_BYTES", size)
        small = ad.Tagger(DATA / "wnae.onnx", batch=64)
        with monitoring() as record:
            small(open_events(svj_file))
        records.append(record)
    equal(*records)
    seen = records[0][tagger.scorer.digest]
    assert seen["rows"] == 297
    assert seen["unscored"] == 2  # over all rows
    used = {int(c.sum()) for c in seen["quantiles"].values()}
    assert len(used) == 1
    assert 40 < used.pop() <= 50


def test_a_model_without_quantiles_counts_rows_only(svj, model_file):
    data = model_file.read_bytes()
    bare = ad.Tagger(write_card(data, read_card(data).model_copy(update={"quantiles": None})))
    with monitoring() as record:
        bare(svj)
    seen = record[bare.scorer.digest]
    assert (seen["rows"], seen["unscored"], seen["quantiles"]) == (297, 2, {})
    assert drift(bare.card, seen) == []


def test_undefined_values_of_rows_that_are_not_flat_are_counted_by_column():
    specs = (
        InputSpec(name="constituents", features=(feature_spec("jet_constituents", {"n": 4}),)),
        InputSpec(name="image", features=(feature_spec("jet_images", {"pixels": 5}),)),
    )
    card = ModelCard(name="two", method="toy", inputs=specs)
    constituents, image = np.zeros((6, 4, 3), np.float32), np.zeros((6, 5, 5), np.float32)
    constituents[0, :, 1], constituents[1, 2, 1], image[2, 3, :], image[0, 0, 0] = np.nan, np.inf, -np.inf, np.nan
    score = np.array([np.nan, np.nan, np.nan, 0, 0, np.nan], np.float32)
    record = {}
    watch = Watch(card, "digest", 6, (record,))
    watch.see(0, {"constituents": constituents, "image": image}, score)
    watch.finish()
    names = [spec.columns for spec in specs]
    assert record["digest"]["undefined"] == {names[0][1]: 2, names[1][0]: 2}
    assert record["digest"]["unscored"] == 4


# drift


def toy_card(*training):
    """A card whose quantiles are those of columns of a large sample."""
    columns = [{"name": f"x{i}"} for i in range(len(training))]
    values = {
        f"jet_substructure.x{i}": tuple(np.quantile(x, P, method="inverted_cdf").tolist())
        for i, x in enumerate(training)
    }
    inputs = [{"features": [{"name": "jet_substructure", "version": 1, "columns": columns}]}]
    return ModelCard.model_validate(
        {"name": "toy", "method": "AE", "inputs": inputs, "quantiles": {"probability": P, "values": values}}
    )


def counts(card, *columns):
    """What a monitored model would have counted."""
    watch = Watch(card, str(id(card)), len(columns[0]), (record := {},))
    watch.see(0, {"features": np.float32(columns).T}, np.zeros(len(columns[0]), np.float32))
    watch.finish()
    module._cuts.clear()
    (seen,) = record.values()
    for (name, quantiles), x in zip(card.quantiles.values.items(), columns, strict=True):
        np.testing.assert_array_equal(seen["quantiles"][name], binned(quantiles, x))
    return seen


SHAPES = {
    "normal": lambda rng, n: rng.normal(0, 1, n),
    "exponential": lambda rng, n: rng.exponential(30, n),
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.7, 0, rng.exponential(30, n)),
    "nearly always zero": lambda rng, n: np.where(rng.random(n) < 0.9995, 0, rng.exponential(30, n)),
    "zero in the middle": lambda rng, n: np.where(rng.random(n) < 0.3, 0, rng.normal(0, 1, n)),
    "small numbers": lambda rng, n: rng.poisson(1.3, n),
    "large numbers": lambda rng, n: rng.poisson(40, n),
    "yes or no": lambda rng, n: rng.random(n) < 0.4,
    "constant": lambda _, n: np.full(n, 3.5),
    "two atoms": lambda rng, n: np.where(rng.random(n) < 0.25, 1, np.where(rng.random(n) < 0.5, 2, rng.random(n) * 3)),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_sample_of_the_training_distribution_is_no_drift(shape):
    rng = np.random.default_rng(7)
    card = toy_card(np.float32(shape(rng, 200_000)))
    above = 0
    for n in (100, 1000, 10_000):
        for _ in range(100):
            (found,) = drift(card, counts(card, np.float32(shape(rng, n))))
            assert found.n == n
            above += found.distance > found.bound
    assert above <= 20  # of 300; the bound is that of the supremum over all values, and 5 % may lie above
    (found,) = drift(card, counts(card, np.float32(shape(rng, 200_000))))
    assert found.distance < 0.005
    assert drifted(card, counts(card, np.float32(shape(rng, 200_000)))) == []


def test_a_shift_has_the_distance_of_kolmogorov_and_smirnov():
    rng = np.random.default_rng(3)
    card = toy_card(rng.normal(0, 1, 200_000))
    run = rng.normal(0.5, 1, 50_000)
    (found,) = drifted(card, counts(card, run))
    at = np.quantile(rng.normal(0, 1, 200_000), P)
    want = np.abs((run[:, None] <= at).mean(axis=0) - P).max()
    assert found.distance == pytest.approx(want, abs=0.01)
    assert found.distance == pytest.approx(0.19, abs=0.02)  # Φ(0) − Φ(−½)
    assert found.expected - found.observed == pytest.approx(found.distance)


def test_atoms_that_grow_or_shrink_are_drift():
    rng = np.random.default_rng(4)

    def zeros(fraction, n):
        return np.where(rng.random(n) < fraction, 0, rng.exponential(30, n))

    card = toy_card(zeros(0.7, 200_000))
    (fewer,) = drifted(card, counts(card, zeros(0.2, 20_000)))
    assert (fewer.strict, fewer.expected) == (False, 0.75)
    assert fewer.distance == pytest.approx(0.75 - 0.2 - 0.8 * (1 - np.exp(-fewer.value / 30)), abs=0.01)
    (more,) = drifted(card, counts(card, zeros(0.95, 20_000)))
    assert (more.strict, more.expected) == (True, 0.75)
    assert more.distance == pytest.approx(0.2, abs=0.01)
    card = toy_card(rng.random(200_000) < 0.4)
    (fewer,) = drifted(card, counts(card, rng.random(20_000) < 0.8))
    # 50 % is the last quantile that is 0: at least half of the training lay there
    assert (fewer.value, fewer.strict, fewer.expected) == (0.0, False, 0.5)
    assert fewer.observed == pytest.approx(0.2, abs=0.01)


def test_small_samples_do_not_drift_by_chance():
    rng = np.random.default_rng(5)
    card = toy_card(rng.normal(0, 1, 200_000))
    few = [drift(card, counts(card, rng.normal(0, 1, 20)))[0] for _ in range(200)]
    assert sum(d.distance > 0.1 for d in few) > 20
    alarms = [drifted(card, counts(card, rng.normal(0, 1, 20))) for _ in range(200)]
    assert sum(bool(a) for a in alarms) <= 15


def test_the_statistics_of_the_card_widen_the_bound(model_file):
    card = read_card(model_file.read_bytes())
    number = {name: np.array([10_000]) * np.ones(2 * len(v) + 1, int) for name, v in card.quantiles.values.items()}
    found = drift(card, {"quantiles": number})[0]
    assert found.bound == pytest.approx(1.36 * np.sqrt(1 / found.n + 1 / card.calibration.n_effective))


def test_drifts_are_sorted_and_described_with_numbers():
    rng = np.random.default_rng(6)
    sample = [rng.normal(0, 1, 100_000) for _ in range(5)]
    card = toy_card(*sample)
    seen = counts(card, *(x[:1000] + shift for x, shift in zip(sample, (0.3, 2.0, 0.0, 0.6, -1.0), strict=True)))
    found = drifted(card, seen)
    assert [d.column for d in found] == [f"jet_substructure.x{i}" for i in (1, 4, 3, 0)]
    text = describe(card, found)
    assert text.startswith("toy: 4 of 5 inputs are not distributed as in the training: jet_substructure.x1 ≤ ")
    assert "% of 1000 rows, not in" in text
    assert text.endswith("; and 1 more")
    assert describe(card, []) == "toy: no input is distributed otherwise than in the training"
    assert len(drifted(card, seen, threshold=0.5)) == 1
    assert drift(card, {"quantiles": {}}) == []
    with pytest.raises(ConfigError, match=r"counts of jet_substructure\.x0 are not of the quantiles of toy"):
        drift(card, {"quantiles": {"jet_substructure.x0": np.ones(5, np.int64)}})


def test_events_that_are_not_the_training_are_found_out(tagger, data):
    """The background of the training against the signal."""
    distance = {}
    for name in ("qcd", "svj"):
        events = open_events(data / f"{name}_v15.root")
        with monitoring() as record:
            tagger(events.FatJet[events.FatJet["pt"] > 200][:, :2])
        distance[name] = {d.column: d.distance for d in drift(tagger.card, record[tagger.scorer.digest])}
    assert max(distance["qcd"].values()) < 0.2
    assert min(distance["svj"].values()) > 0.3


@pytest.mark.parametrize(
    ("probability", "values", "match"),
    [
        ((0.5, 0.1), (1.0, 2.0), "probabilities must rise"),
        ((0.0, 0.5), (1.0, 2.0), "probabilities must rise"),
        ((0.1, 0.5), (1.0,), "quantiles of f.x must be as many"),
        ((0.1, 0.5), (2.0, 1.0), "and not fall"),
    ],
)
def test_quantiles_that_are_none_are_refused(probability, values, match):
    with pytest.raises(ValueError, match=match):
        Quantiles(probability=probability, values={"f.x": values})


@pytest.mark.torch
def test_quantiles_of_the_training_are_the_smallest_values_that_reach_a_probability():
    from coffea_ad.modelfiles.quantiles import weighted_quantiles

    rng = np.random.default_rng(8)
    x = np.float32(np.where(rng.random(5000) < 0.6, 0, rng.poisson(3, 5000)))
    made = weighted_quantiles(x[:, None], np.ones(5000), ["f.x"])
    np.testing.assert_array_equal(made.values["f.x"], np.quantile(x, made.probability, method="inverted_cdf"))
