"""Where a model is valid: domains, windows in one file, and thresholds in bins of a spectator."""

from __future__ import annotations

import itertools
import json
import re

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_skims import NAME, write_skim
from toys import DATA, listed, open_events

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import BadModel, CardMismatch, ConfigError, SkimError
from coffea_ad.features.spec import feature_spec
from coffea_ad.histograms import RegionFiller
from coffea_ad.modelfiles.attach import AttachConfig, attach
from coffea_ad.modelfiles.thresholds import new_regions
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import ModelCard, parse_card, read_card, write_card
from coffea_ad.scoring.domains import Domain, Windows
from coffea_ad.scoring.members import member_of
from coffea_ad.scoring.monitoring import monitoring
from coffea_ad.scoring.specs import Calibration, Folds, Golden, InputSpec, RegionSpec
from coffea_ad.skims.background import background
from coffea_ad.skims.reading import load_skim
from coffea_ad.splits import fold_of

pytestmark = pytest.mark.torch  # the onnx package comes with it
SALT = "window folds"
WIDTH = {"jet_substructure": 8, "rmm": 1287, "dijet": 5}
LOOSE = ("lepton_pt_min=null", "delta_eta_max=null", "met_min=null", "rt_min=null", "dphi_max=null")


def graph(seed, feature="jet_substructure", members=1):
    """√(1 + (w x₀)²), another w for every member: exact to the bit, however many rows the runtime takes at a time."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    weights, nodes = {"axis": np.array([1]), "one": np.float32(1)}, []
    outputs = ["score"] if members == 1 else [f"score_{m}" for m in range(members)]
    for m, output in enumerate(outputs):
        weights[f"w{m}"] = np.zeros(WIDTH[feature], np.float32)
        weights[f"w{m}"][0] = rng.uniform(0.5, 2)
        nodes += [
            helper.make_node("Mul", ["features", f"w{m}"], [f"a{m}"]),
            helper.make_node("ReduceSum", [f"a{m}", "axis"], [f"b{m}"], keepdims=0),
            helper.make_node("Mul", [f"b{m}", f"b{m}"], [f"c{m}"]),
            helper.make_node("Add", [f"c{m}", "one"], [f"d{m}"]),
            helper.make_node("Sqrt", [f"d{m}"], [output]),
        ]
    made = helper.make_graph(
        nodes, "toy", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", WIDTH[feature]])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, ["rows"]) for o in outputs],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )  # fmt: skip
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def table(seed=0):
    rng = np.random.default_rng(seed)
    return Calibration(
        score=tuple(np.sort(rng.uniform(1, 6, 5)).tolist()), logp=(0, 0.3, 1, 1.5, 2.5), n_effective=315.3,
        derived_from=f"toy {seed}",
    )  # fmt: skip


def region(name, threshold, **more):
    efficiency = more.pop("efficiency", 10.0**-threshold)
    entries = {"error": 0.01 * threshold, "n_effective": 100 - threshold, "derived_from": "toy"} | more
    return RegionSpec(name=name, efficiency=efficiency, thresholds=(threshold,), **entries)


def model(seed, domain=(), feature="jet_substructure", folds=None, **changes):
    """Bytes of a model with a calibration for every fold, regions and golden rows."""
    k = 1 if folds is None else folds.k
    rows = np.random.default_rng(seed).random((3, WIDTH[feature])).astype(np.float32)
    entries = {
        "name": f"toy{seed}", "method": "toy", "level": "jet" if feature == "jet_substructure" else "event",
        "inputs": (InputSpec(features=(feature_spec(feature),)),), "folds": folds, "domain": domain,
        "calibrations": tuple(table(10 * seed + f) for f in range(k)),
        "regions": (region("loose", 0.4), region("tight", 1.1)),
    }  # fmt: skip
    card = ModelCard(**entries | changes)
    scorer = ad.OnnxScorer(write_card(graph(seed, feature, k), card))
    scores = [float(s) for f in range(k) for s in scorer(rows, np.full(3, f) if folds else None)]
    golden = Golden(inputs={"features": tuple(tuple(map(float, r)) for r in rows)}, scores=tuple(scores))
    return write_card(scorer.data, card.model_copy(update={"golden": golden}))


def within(low, high, name="mjj"):
    return (Domain(spectator=name, low=low, high=high),)


def saved(folder, *models):
    paths = [folder / f"m{i}.onnx" for i in range(len(models))]
    for path, data in zip(paths, models, strict=True):
        path.write_bytes(data)
    return paths


def fields(tagged, prefix="ad"):
    return [listed(tagged[f"{prefix}_{name}"]) for name in ("score", "logp", "region")]


def mjj_of(events):
    """A number of each event, the same wherever the event is read."""
    return (np.asarray(events.event) % 40) * 100.0


@pytest.fixture
def events(svj):
    return ak.with_field(svj, mjj_of(svj), "mjj")


# the domain


def test_outside_of_its_domain_a_model_has_no_score_and_inside_it_has_that_of_before(svj):
    everywhere = ad.Tagger(model(1))(svj)
    tagged = ad.Tagger(model(1, within(400, 600, "pt")))(svj)
    inside = (svj.FatJet.pt >= 400) & (svj.FatJet.pt < 600)
    assert 20 < ak.sum(inside) < ak.sum(ak.num(inside)) - 20
    for name in ("score", "logp"):
        expected = ak.where(inside, everywhere[f"ad_{name}"], np.float32(np.nan))
        assert listed(tagged[f"ad_{name}"]) == listed(expected)
    assert listed(tagged.ad_region) == listed(ak.where(inside, everywhere.ad_region, np.int8(-1)))


def test_the_lower_edge_is_inside_and_the_upper_edge_and_undefined_values_are_not(svj):
    first = svj.FatJet[ak.num(svj.FatJet) > 0][:, 0][:6]
    jets = ak.with_field(first, np.array([400, 600, np.nextafter(600, 0), np.nan, np.inf, -np.inf]), "mjj")
    tagged = ad.Tagger(model(1, within(400, 600)))(jets)
    assert (~np.isnan(ak.to_numpy(tagged.ad_score))).tolist() == [True, False, True, False, False, False]
    assert (ak.to_numpy(tagged.ad_region) >= 0).tolist() == [True, False, True, False, False, False]


def test_all_conditions_of_a_domain_have_to_hold(events):
    both = ad.Tagger(model(1, within(1000, 3000) + within(300, 500, "pt")))(events)
    pt, mjj = events.FatJet.pt, ak.broadcast_arrays(events.mjj, events.FatJet.pt)[0]
    expected = (mjj >= 1000) & (mjj < 3000) & (pt >= 300) & (pt < 500)
    assert ak.sum(expected) > 0
    assert (~np.isnan(both.ad_score)).to_list() == expected.to_list()


def test_a_number_of_the_event_belongs_to_all_its_jets_however_they_are_passed(events):
    tagger = ad.Tagger(model(1, within(1000, 2000)))
    whole = tagger(events)
    inside = ak.broadcast_arrays((events.mjj >= 1000) & (events.mjj < 2000), events.FatJet.pt)[0]
    everywhere = ad.Tagger(model(1))(events)
    assert listed(whole.ad_score) == listed(ak.where(inside, everywhere.ad_score, np.float32(np.nan)))
    some = np.arange(len(events))[::-3]
    assert fields(tagger(events[some])) == fields(whole[some])
    jets = ak.with_field(events.FatJet[:, :2], events.mjj, "mjj")
    assert fields(tagger(jets)) == fields(whole[:, :2])
    assert fields(tagger(jets[some])) == fields(whole[some][:, :2])


def test_a_jet_field_comes_before_a_number_of_its_event(events):
    jets = ak.with_field(events.FatJet, events.FatJet.pt * 0 + 1500, "mjj")
    everywhere, tagged = ad.Tagger(model(1))(events), ad.Tagger(model(1, within(1000, 2000)))(jets)
    assert fields(tagged) == fields(everywhere)


def test_events_without_a_value_have_no_score(events):
    some = ak.with_field(events, ak.mask(events.mjj, events.mjj >= 2000), "mjj")
    tagged = ad.Tagger(model(2, within(0, 1e9), feature="rmm"))(some)
    assert (~np.isnan(tagged.ad_score)).to_list() == (events.mjj >= 2000).to_list()
    assert ad.Tagger(model(1, within(0, 1e9)))(some[:0]).ad_score.to_list() == []


JETS = (
    "toy1 needs the spectator 'mass_of_all', but neither the FatJet objects nor their events have such a field; give it "
    "before tagging: jets = ak.with_field(jets, …, 'mass_of_all'), one number of each event"
)
EVENTS = (
    "toy1 needs the spectator 'mass_of_all', but the events have no such field; give it before tagging: "
    "events = ak.with_field(events, …, 'mass_of_all')"
)


@pytest.mark.parametrize(("feature", "sentence"), [("jet_substructure", JETS), ("rmm", EVENTS)])
def test_a_missing_spectator_is_one_sentence(svj, feature, sentence):
    domain = within(0, 1, "mass_of_all")
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        ad.Tagger(model(1, domain, feature=feature))(svj)
    binned = (region("loose", 0.4).model_copy(update={"spectator": "mass_of_all"}),)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        ad.Tagger(model(1, feature=feature, regions=binned))(svj)


def test_a_collection_is_no_spectator(svj):
    with pytest.raises(ConfigError, match="the spectator Jet is not one number of each event"):
        ad.Tagger(model(1, within(0, 1, "Jet"), feature="rmm"))(svj)


@pytest.mark.parametrize("feature", ["jet_substructure", "rmm"])
def test_rows_outside_are_not_seen_by_the_monitoring(events, feature):
    spoilt = ak.with_field(events.FatJet, ak.where(events.FatJet.tau1 > 0, np.float32(np.nan), 0), "tau1")
    events["FatJet"] = spoilt
    tagger = ad.Tagger(model(1, within(1000, 2000), feature=feature), batch=16)
    with monitoring() as record:
        tagged = tagger(events)
    inside = (events.mjj >= 1000) & (events.mjj < 2000)
    rows = ak.sum(inside) if feature == "rmm" else ak.sum(ak.num(events.FatJet)[inside])
    seen = record[tagger.scorer.digest]
    assert seen["rows"] == rows > 0
    assert seen["unscored"] == rows - ak.sum(~np.isnan(tagged.ad_score))
    with monitoring() as record:
        tagger(ak.with_field(events, events.mjj * 0, "mjj"))
    assert tagger.scorer.digest not in record


def test_scores_that_are_kept_within_the_chunk_follow_a_spectator_that_varies(events, tmp_path):
    from coffea_ad import nn

    data = nn.bundle(saved(tmp_path, model(1, within(1000, 2000)), model(2, within(2000, 3000))))
    tagger = ad.Tagger(data)
    for shift in (0, 500, -700, 0):
        shifted = ak.with_field(events, events.mjj + shift, "mjj")
        again = open_events(DATA / "svj_v15.root")
        again = ak.with_field(again, mjj_of(again) + shift, "mjj")
        assert fields(tagger(shifted)) == fields(ad.Tagger(data)(again)), shift


# windows in one file


def members_with(feature, folds):
    return [
        model(1, within(2000, 3000), feature=feature, folds=folds),
        model(2, within(500, 1500), feature=feature),
        model(3, within(1500, 2000), feature=feature, folds=folds),
    ]


@pytest.mark.parametrize("feature", ["jet_substructure", "dijet"])
@pytest.mark.parametrize("folds", [None, Folds(k=3, salt=SALT)], ids=["one network", "folds"])
def test_a_bundle_gives_what_its_members_give_by_themselves_to_the_bit(events, tmp_path, feature, folds):
    from coffea_ad import nn

    parts = members_with(feature, folds)
    data = nn.bundle(saved(tmp_path, *parts))
    bundled = ad.Tagger(data, batch=7)(events)
    alone = [ad.Tagger(part)(events) for part in parts]
    for name, none in (("score", np.float32(np.nan)), ("logp", np.float32(np.nan)), ("region", np.int8(-1))):
        expected = alone[0][f"ad_{name}"] * 0 + none
        for one in alone:
            expected = ak.where(np.isnan(one.ad_score), expected, one[f"ad_{name}"])
        assert listed(bundled[f"ad_{name}"]) == listed(expected), name
    n_scored = [int(ak.sum(~np.isnan(tagged.ad_score))) for tagged in (*alone, bundled)]
    assert min(n_scored) > 0
    assert sum(n_scored[:3]) == n_scored[3] < ak.count(bundled.ad_score)
    card = read_card(data)
    assert card.windows.bounds == ((500, 1500), (1500, 2000), (2000, 3000))
    assert card.members == len(card.calibrations) == len(card.outputs) == (3 if folds is None else 9)
    assert card.domain == ()


def test_the_output_of_a_row_is_that_of_its_window_and_fold(tmp_path):
    from coffea_ad import nn

    folds = Folds(k=2, salt=SALT)
    scorer = ad.OnnxScorer(nn.bundle(saved(tmp_path, *[
        model(s, within(1000 * s, 1000 * s + 1000), folds=folds) for s in (1, 2)
    ])))  # fmt: skip
    rng = np.random.default_rng(1)
    columns = {"mjj": rng.choice([0.0, 1000.0, 1999.0, 2000.0, 2500.0, 3000.0, np.nan], 60), "run": np.full(60, 3),
               "luminosityBlock": np.arange(60), "event": np.arange(60)}  # fmt: skip
    members = member_of(scorer.card, columns.__getitem__)
    fold = fold_of(SALT, 2, columns["run"], columns["luminosityBlock"], columns["event"])
    window = {0.0: -1, 1000.0: 0, 1999.0: 0, 2000.0: 1, 2500.0: 1, 3000.0: -1}
    expected = [-1 if (w := window.get(m, -1)) < 0 else 2 * w + f for m, f in zip(columns["mjj"], fold, strict=True)]
    assert members.tolist() == expected
    assert set(expected) == {-1, 0, 1, 2, 3}
    rows = rng.random((60, 8)).astype(np.float32)
    score = scorer(rows, members)
    assert np.isnan(score).tolist() == (members < 0).tolist()
    for i, output in enumerate(scorer.card.outputs):
        got = scorer.sessions[i].run([output], {"features": rows[members == i]})[0]
        np.testing.assert_array_equal(score[members == i], got)
    with pytest.raises(CardMismatch, match=r"has 4 members; give the member of every row \(members.member_of\)"):
        scorer(rows)
    with pytest.raises(CardMismatch, match="members must be 60 integers from -1 to 3, one for every row"):
        scorer(rows, members + 1)


def test_chunks_and_partial_reads_do_not_change_the_windows(tmp_path):
    from coffea_ad import nn

    tagger = ad.Tagger(nn.bundle(saved(tmp_path, *members_with("jet_substructure", Folds(k=2, salt=SALT)))))
    path = DATA / "svj_v15.root"

    def tagged(**part):
        events = open_events(path, **part)
        return fields(tagger(ak.with_field(events, mjj_of(events), "mjj")))

    whole = tagged()
    edges = (0, 1, 64, 149, 150)
    parts = [tagged(entry_start=a, entry_stop=b) for a, b in itertools.pairwise(edges)]
    assert [[event for part in parts for event in part[i]] for i in range(3)] == whole


def test_conditions_that_all_members_share_stay_conditions(tmp_path):
    from coffea_ad import nn

    both = [model(s, within(100 * s, 100 * s + 100) + within(200, 900, "pt")) for s in (1, 2)]
    card = read_card(nn.bundle(saved(tmp_path, *both)))
    assert card.domain == within(200, 900, "pt")
    assert card.windows == Windows(spectator="mjj", bounds=((100, 200), (200, 300)))


def test_regions_are_those_that_mean_the_same_in_every_window(tmp_path):
    from coffea_ad import nn

    second = (region("loose", 0.4, error=0.2, n_effective=20.0, derived_from="other"), region("tight", 1.2))
    card = read_card(nn.bundle(saved(tmp_path, model(1, within(1, 2)), model(2, within(2, 3), regions=second))))
    assert [(r.name, r.thresholds, r.error, r.n_effective, r.derived_from) for r in card.regions] == [
        ("loose", (0.4,), 0.2, 20.0, "toy; other")
    ]
    assert card.provenance["regions_left_out"] == [
        "region tight is not written: its thresholds on ad_logp differ between the windows; derive them anew with --background"
    ]


@pytest.mark.parametrize(
    ("second", "error", "sentence"),
    [
        (lambda: model(2, within(1900, 2500)), CardMismatch,
         r"m1.onnx: its window, 1900 ≤ mjj < 2500, overlaps with that of .*m0.onnx, 1000 ≤ mjj < 2000"),
        (lambda: model(2, within(1000, 2000)), CardMismatch, "m1.onnx: its window, .* overlaps"),
        (lambda: model(2, within(2000, 3000, "mt")), CardMismatch,
         "m1.onnx: its domain is in mt, but that of .*m0.onnx in mjj"),
        (lambda: model(2), ConfigError, "m1.onnx: its card has no domain, and so no window"),
        (lambda: model(2, within(2000, 3000), calibrations=(), regions=()), ConfigError,
         "m1.onnx: its card has no calibration"),
        (lambda: model(2, within(2000, 3000), collection="Jet"), CardMismatch, "its collection are not those"),
        (lambda: model(2, within(2000, 3000), feature="rmm"), CardMismatch, "its level are not those"),
        (lambda: model(2, within(2000, 3000), selection={"training_fraction": 0.5}), CardMismatch,
         "m1.onnx: training_fraction of its training is 0.5, and None in .*m0.onnx"),
    ],
    ids=["overlap", "same window", "other spectator", "no domain", "no calibration", "collection", "level", "training"],
)  # fmt: skip
def test_what_makes_no_bundle_is_one_sentence(tmp_path, second, error, sentence, capsys):
    paths = saved(tmp_path, model(1, within(1000, 2000)), second())
    assert cli.main(["combine", "--by", "window", *map(str, paths), "-o", str(tmp_path / "b.onnx")]) == 1
    from coffea_ad import nn

    with pytest.raises(error, match=sentence) as raised:
        nn.bundle(paths)
    assert str(raised.value).split() == " ".join(capsys.readouterr().err.split()).removeprefix("error: ").split()


def test_domains_that_differ_in_two_spectators_are_no_windows(tmp_path):
    from coffea_ad import nn

    paths = saved(tmp_path, *[model(s, within(s, s + 1) + within(s, s + 1, "pt")) for s in (1, 2)])
    with pytest.raises(
        CardMismatch, match="the domains differ in mjj and pt; the windows of a bundle are in one spectator"
    ):
        nn.bundle(paths)


def test_ranks_are_not_averaged_over_different_windows(tmp_path):
    from coffea_ad import nn

    paths = saved(tmp_path, model(1, within(1000, 2000)), model(2, within(2000, 3000)))
    with pytest.raises(CardMismatch, match=r"valid 2000 ≤ mjj < 3000, but .* 1000 ≤ mjj < 2000; .* with --by window"):
        nn.combine(paths)
    (tmp_path / "b.onnx").write_bytes(nn.bundle(paths))
    with pytest.raises(ConfigError, match="b.onnx: it is a bundle of windows already"):
        nn.bundle([tmp_path / "b.onnx", paths[0]])
    same = saved(tmp_path, model(1, within(1000, 2000)), model(2, within(1000, 2000)))
    assert read_card(nn.combine(same)).domain == within(1000, 2000)


def test_the_command_line_makes_and_shows_a_bundle(tmp_path, capsys):
    paths = saved(tmp_path, *members_with("jet_substructure", Folds(k=2, salt=SALT)))
    assert cli.main(["combine", "--by", "window", *map(str, paths), "-o", str(tmp_path / "b.onnx")]) == 0
    assert cli.main(["card", str(tmp_path / "b.onnx")]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "window 1 1500 ≤ mjj < 2000 by output score_2, score_3; no score outside of all windows" in shown
    assert "golden rows 9 re-evaluated, all right" in shown
    assert cli.main(["card", str(saved(tmp_path, model(1, within(400, 600, "pt")))[0])]) == 0
    assert "domain 400 ≤ pt < 600; no score elsewhere" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_a_golden_row_that_does_not_come_out_of_one_window_is_found(tmp_path):
    from coffea_ad import nn

    data = nn.bundle(saved(tmp_path, model(1, within(1, 2)), model(2, within(2, 3))))
    card = read_card(data)
    scores = (*card.golden.scores[:-1], card.golden.scores[-1] + 0.1)
    wrong = card.model_copy(update={"golden": card.golden.model_copy(update={"scores": scores})})
    with pytest.raises(BadModel, match="its golden rows do not give their scores"):
        ad.OnnxScorer(write_card(data, wrong)).sessions  # noqa: B018


# skims: calibration, regions, evaluation


def window_skim(folder, n=6000):
    """Background whose first column grows with mjj: a common threshold would sculpt."""
    rng = np.random.default_rng(5)
    mjj = rng.uniform(1000, 3000, n)
    x = rng.normal(size=(n, 8)).astype(np.float32)
    x[:, 0] += (mjj / 1000).astype(np.float32)
    mjj[::50] = np.nan
    write_skim(folder, {"qcd": {"x": x, "weight": rng.exponential(size=n) + 0.1, "xsec": 1.0}})
    path = folder / "qcd" / "toy.parquet"
    table = pq.read_table(path)
    meta = table.schema.metadata
    pq.write_table(table.append_column("mjj", pa.array(mjj)).replace_schema_metadata(meta), path)
    return folder


def background_rows(skims, low=-np.inf, high=np.inf):
    skim = load_skim(skims, NAME)
    mjj = skim.spectators["mjj"]
    inside = (mjj >= low) & (mjj < high)
    return skim.x[inside], skim.event_weight[inside], mjj[inside]


def test_calibration_and_regions_count_rows_inside_only_and_say_so(tmp_path):
    skims = window_skim(tmp_path / "skims")
    config = AttachConfig(name="a", method="AE", features=[{"name": NAME}], domain=within(1500, 2000))
    card = read_card(attach(graph(4), config, background=skims, efficiencies=(0.1,)))
    x, weight, _ = background_rows(skims, 1500, 2000)
    origin = "all rows of qcd with 1500 ≤ mjj < 2000, each weighing genWeight · xsec / sumw"
    score = np.asarray(ad.OnnxScorer(write_card(graph(4), card.model_copy(update={"golden": None})))(x))
    assert card.calibration == regions.calibrate(score, weight, origin)
    assert card.provenance["unscored"] == {"rows": len(x), "unscored": 0}
    assert 1000 < len(x) < 2000


def test_regions_give_an_old_model_a_domain_and_calibrate_it_there(tmp_path, capsys):
    skims = window_skim(tmp_path / "skims")
    path = saved(tmp_path, model(4))[0]
    words = ["regions", str(path), "--from", str(skims), "--efficiency", "0.1", "-o", str(tmp_path / "n.onnx")]
    assert cli.main([*words, "--domain", "mjj=1500,2000"]) == 0
    scorer = ad.OnnxScorer(tmp_path / "n.onnx")
    assert scorer.card.domain == within(1500, 2000)
    x, weight, _ = background_rows(skims, 1500, 2000)
    values = regions.card_logp(scorer.card, np.asarray(scorer(x)))
    passed = values >= scorer.card.regions[0].thresholds[0]
    assert weight[passed].sum() / weight.sum() == pytest.approx(0.1, abs=0.002)
    assert scorer.card.calibration.derived_from.startswith("all rows of qcd with 1500 ≤ mjj < 2000, ")
    for wrong in ("mjj", "mjj=1", "mjj=2,1", "mjj=1,x", "=1,2", "mjj=1,nan"):
        assert cli.main([*words, "--force", "--domain", wrong]) == 1
        assert f"--domain {wrong}: write a spectator" in capsys.readouterr().err


def test_a_visible_cross_section_is_that_of_the_rows_inside(tmp_path):
    skims = window_skim(tmp_path / "skims")
    data = new_regions(model(4), skims, visible_cross_sections=(0.02,), domain=within(1500, 2000))
    _, inside, _ = background_rows(skims, 1500, 2000)
    whole = load_skim(skims, NAME).event_weight.sum()
    assert whole == pytest.approx(1.0)
    assert read_card(data).regions[0].efficiency == pytest.approx(0.02 / inside.sum())


def test_every_window_of_a_bundle_keeps_the_same_fraction_of_its_background(tmp_path):
    from coffea_ad import nn

    skims = window_skim(tmp_path / "skims")
    config = {"method": "AE", "features": [{"name": NAME}]}
    bounds = [(1000, 1600), (1600, 2200), (2200, 2800)]
    parts = [
        attach(graph(i), AttachConfig(name=f"w{i}", domain=within(*b), **config), background=skims, efficiencies=(0.1,))
        for i, b in enumerate(bounds)
    ]
    paths = saved(tmp_path, *parts)
    bundled, derived = (ad.OnnxScorer(nn.bundle(paths, **more)) for more in ({}, {
        "background": skims, "efficiencies": (0.05,)}))  # fmt: skip
    x, weight, mjj = background_rows(skims, 0)
    members = member_of(bundled.card, {"mjj": mjj}.__getitem__)
    assert set(members.tolist()) == {-1, 0, 1, 2}
    for scorer, eps in ((bundled, 0.1), (derived, 0.05)):
        values = regions.card_logp(scorer.card, np.asarray(scorer(x, members)), members)
        passed = values >= scorer.card.regions[0].thresholds[0]
        for i in range(3):
            assert np.average(passed[members == i], weights=weight[members == i]) == pytest.approx(eps, abs=0.01)
        assert not passed[members < 0].any()
    assert bundled.card.quantiles is None
    assert derived.card.quantiles.values.keys() == set(derived.card.inputs[0].columns)
    assert "mjj in [1000, 1600), [1600, 2200), [2200, 2800)" in derived.card.regions[0].derived_from


def test_thresholds_in_bins_of_a_spectator_keep_the_same_fraction_in_every_bin(tmp_path):
    skims = window_skim(tmp_path / "skims")
    config = AttachConfig(name="a", method="AE", features=[{"name": NAME}])
    path = saved(tmp_path, attach(graph(4), config, background=skims))[0]
    words = ["regions", str(path), "--from", str(skims), "--efficiency", "0.1", "--in-bins", "mjj=1500,2200"]
    assert cli.main([*words, "-o", str(tmp_path / "b.onnx")]) == 0
    scorer = ad.OnnxScorer(tmp_path / "b.onnx")
    spec = scorer.card.regions[0]
    assert (spec.spectator, spec.edges, len(set(spec.thresholds))) == ("mjj", (1500.0, 2200.0), 3)
    x, weight, mjj = background_rows(skims)
    grade = regions.assign(regions.card_logp(scorer.card, np.asarray(scorer(x))), [spec], {"mjj": mjj})
    for low, high in ((0, 1500), (1500, 2200), (2200, 9999)):
        inside = (mjj >= low) & (mjj < high)
        assert np.average(grade[inside] == 1, weights=weight[inside]) == pytest.approx(0.1, abs=0.003)
    events = open_events(DATA / "svj_v15.root")
    events = ak.with_field(events, ak.where(events.event % 3 == 0, np.nan, mjj_of(events)), "mjj")
    tagged = ad.Tagger(tmp_path / "b.onnx")(events)
    jets, mjj = ak.flatten(tagged), ak.to_numpy(ak.flatten(ak.broadcast_arrays(events.mjj, tagged.pt)[0]))
    expected = regions.assign(ak.to_numpy(jets.ad_logp), [spec], {"mjj": mjj})
    assert ak.to_numpy(jets.ad_region).tolist() == expected.tolist()
    assert (expected[np.isnan(mjj)] == -1).all()
    assert {-1, 0, 1} >= set(expected.tolist()) > {-1}


def test_a_bin_that_cannot_carry_a_region_is_named(tmp_path):
    skims = window_skim(tmp_path / "skims")
    with pytest.raises(
        ConfigError, match=r"region medium is not written: it would rest on .* with mjj < 1010, 10 are needed"
    ):
        new_regions(model(4), skims, efficiencies=(0.01,), bins=("mjj", [1010.0]))
    for edges in ([], [2.0, 1.0], [np.nan]):
        with pytest.raises(ConfigError, match="the edges in mjj must be numbers that rise"):
            new_regions(model(4), skims, efficiencies=(0.1,), bins=("mjj", edges))
    with pytest.raises(SkimError, match="toy4 needs the spectator 'mj', but unknown column 'mj'; did you mean"):
        new_regions(model(4), skims, efficiencies=(0.1,), bins=("mj", [1.0]))
    with pytest.raises(SkimError, match="no row lies where toy4 is valid: 1 ≤ mjj < 2"):
        new_regions(model(4), skims, efficiencies=(0.1,), domain=within(1, 2))


def test_a_domain_needs_a_skim_and_goes_with_other_windows_only(tmp_path):
    from coffea_ad import nn

    (tmp_path / "histograms.json.zip").write_bytes(b"")
    (tmp_path / "histograms.json").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match="are derived from a skim, not from results"):
        new_regions(model(4), tmp_path, efficiencies=(0.1,), bins=("mjj", [1.0]))
    skims = window_skim(tmp_path / "skims")
    data = nn.bundle(saved(tmp_path, model(1, within(1, 2)), model(2, within(2, 3))))
    with pytest.raises(ConfigError, match="two conditions of the domain are on the same spectator: mjj, mjj"):
        new_regions(data, skims, efficiencies=(0.1,), domain=within(1, 3))


def test_background_rows_are_those_inside(tmp_path):
    skims = window_skim(tmp_path / "skims")
    mjj = background(read_card(model(4, within(1500, 2000))), skims).spectators["mjj"]
    assert len(mjj) == len(background_rows(skims, 1500, 2000)[0])
    assert ((mjj >= 1500) & (mjj < 2000)).all()


def test_an_evaluation_leaves_out_rows_where_a_model_is_not_valid(tmp_path):
    from coffea_ad.evaluation.processes import Process

    skims = window_skim(tmp_path / "skims")
    scorer = ad.OnnxScorer(model(4, within(1500, 2000)))
    process = Process(skims, ["qcd"], scorer)
    every = np.ones(len(process.rows.x), bool)
    score = process.score(scorer, process.inputs(scorer.card, scorer.name), every)
    mjj = process.rows.spectators["mjj"]
    assert (~np.isnan(score)).tolist() == ((mjj >= 1500) & (mjj < 2000)).tolist()


# cards


def test_a_card_of_before_that_says_bystander_is_read():
    card = read_card(model(1, regions=(region("loose", 0.4, spectator="pt"),)))
    text = card.model_dump_json().replace('"spectator":"pt"', '"bystander":"pt"')
    assert '"bystander"' in text
    former = json.loads(text)
    del former["domain"], former["windows"]
    assert parse_card(json.dumps(former)) == card
    assert '"bystander"' not in parse_card(text).model_dump_json()
    former["regions"][0]["spectator"] = "pt"
    with pytest.raises(BadModel, match="spectator and bystander, its former name, are given at once"):
        parse_card(json.dumps(former))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"domain": [{"spectator": "mjj", "low": 2, "high": 2}]}, "the domain in mjj is empty: 2 is not below 2"),
        ({"domain": [{"spectator": "mjj", "low": 1, "high": 2}] * 2}, "two conditions of the domain are on the same"),
        ({"windows": {"spectator": "mjj", "bounds": [[1, 3], [2, 4]]}}, r"the windows \[1, 3\) and \[2, 4\) in mjj overlap"),
        ({"windows": {"spectator": "mjj", "bounds": [[3, 4], [1, 2]]}}, r"\[3, 4\) and \[1, 2\) in mjj overlap, or do not rise"),
        ({"windows": {"spectator": "mjj", "bounds": [[1, 2]]}}, "windows.bounds: Tuple should have at least 2 items"),
        ({"windows": {"spectator": "mjj", "bounds": [[1, 2], [2, 3], [3, 4]]}, "calibrations": [table()] * 2, "golden": None},
         "2 calibrations; there must be one, or one for every window"),
        ({"domain": [{"spectator": "mjj", "low": 1, "high": "NaN"}]}, "domain.0.high"),
    ],
)  # fmt: skip
def test_a_wrong_domain_is_one_sentence(changes, sentence):
    card = json.loads(read_card(model(1)).model_dump_json())
    changes = {k: [t.model_dump() for t in v] if k == "calibrations" else v for k, v in changes.items()}
    with pytest.raises(BadModel, match=sentence):
        parse_card(json.dumps(card | changes))


def test_a_graph_without_an_output_for_every_window_is_refused():
    card = read_card(model(1)).model_copy(update={"golden": None})
    windows = Windows(spectator="mjj", bounds=((1, 2), (2, 3)))
    data = write_card(graph(1, members=3), card.model_copy(update={"windows": windows}))
    with pytest.raises(
        CardMismatch, match="the card has 2 windows, but the graph the outputs score_0, score_1, score_2"
    ):
        ad.OnnxScorer(data).sessions  # noqa: B018


# runs


@pytest.mark.parametrize("executor", ["iterative", pytest.param("dask", marks=pytest.mark.dask)])
def test_a_bundle_is_one_model_of_a_run_of_jets(fileset, tmp_path, executor):
    from coffea_ad import nn

    path = tmp_path / "bundle.onnx"
    path.write_bytes(nn.bundle(saved(tmp_path, model(1, within(600, 1000)), model(2, within(1000, 1400)))))
    alone = saved(tmp_path, model(1, within(600, 1000)), model(2, within(1000, 1400)))
    settings = {"lumi": 1.0, "overrides": LOOSE}
    together = ad.run(
        fileset, "semivisible_jets", model=path, output=tmp_path / "t", executor=executor, chunksize=80, **settings
    ).outputs
    for name, out in together.items():
        counts = out["histograms"]["mjj"][{"variation": "nominal"}]
        outside = counts[{"cell": "unscored"}].values().sum() / counts.values().sum()
        assert 0 < outside < 1
        mjj = counts.axes["mjj"].centers
        scored = sum(counts[{"cell": n}].values() for n in counts.axes["cell"] if n != "unscored")
        assert scored[(mjj < 600) | (mjj > 1400)].sum() == 0, name
        assert scored[(mjj > 600) & (mjj < 1400)].sum() > 0, name
        assert "ad_logp" not in out["undefined_in"]
    settings["executor"] = "iterative"
    parts = [ad.run(fileset, "semivisible_jets", model=p, output=tmp_path / p.stem, **settings).outputs for p in alone]
    for name, out in together.items():
        for region_name, cells in out["regions"].items():

            def content(o, cells=cells):
                return sum(o["histograms"]["mt"][{"cell": c, "variation": "nominal"}].values() for c in cells)

            np.testing.assert_allclose(
                content(out), sum(content(p[name]) for p in parts), rtol=1e-12, err_msg=region_name
            )


def test_a_domain_in_what_the_event_processor_knows(tmp_path):
    path = saved(tmp_path, model(1, within(60, 120, "met") + within(0, 1e4), feature="rmm"))[0]
    fileset = {"ttbar": {"files": {str(DATA / "ttbar_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    report = ad.run(
        fileset, "rmm_two_body", model=path, output=tmp_path / "r", executor="iterative", lumi=1.0,
        overrides=["leading_lepton_pt_min=0", "mass_bins=40"],
    )  # fmt: skip
    out = report.outputs["ttbar"]
    counts = out["histograms"]["met"][{"variation": "nominal"}]
    scored = sum(counts[{"cell": n}].values() for n in counts.axes["cell"] if n != "unscored")
    edges = counts.axes["met"].edges
    inside = (edges[:-1] >= 60) & (edges[1:] <= 120)
    assert scored[inside].sum() > 0
    assert scored[~inside].sum() == 0
    assert counts[{"cell": "unscored"}].values()[inside].sum() == 0
    assert counts[{"cell": "unscored"}].values()[~inside].sum() > 0
    assert "ad_logp" not in out["undefined_in"]


def test_spectators_of_events_have_the_values_that_a_skim_stores(tmp_path, monkeypatch):
    """Although the search tells b jets from light ones, and the skim does not."""
    fileset = {"ttbar": {"files": {str(DATA / "ttbar_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    overrides = ["leading_lepton_pt_min=0"]
    ad.run(fileset, "skim_events", executor="iterative", output=tmp_path / "s", overrides=overrides)
    skim = load_skim(tmp_path / "s", "rmm", filters=[]).spectators
    seen = {}
    tag = RegionFiller.tag

    def spy(self, events, *, mc, spectators):
        seen.update(spectators, event=np.asarray(events.event))
        return tag(self, events, mc=mc, spectators=spectators)

    monkeypatch.setattr(RegionFiller, "tag", spy)
    overrides += ["jet_scale=0"]
    ad.run(fileset, "rmm_two_body", executor="iterative", output=tmp_path / "r", lumi=1.0, overrides=overrides)
    one, two = np.argsort(skim["event"]), np.argsort(seen["event"])
    both, i, j = np.intersect1d(skim["event"][one], seen["event"][two], return_indices=True)
    assert len(both) > 50
    for name in ("met", "ht", "mjj", "n_jets", "n_leptons", "leading_jet_pt", "leading_lepton_pt"):
        np.testing.assert_array_equal(seen[name][two][j], skim[name][one][i], err_msg=name)
    assert (seen["mjj"] > 0).sum() > np.isfinite(seen["mbb"]).sum() > 0


def test_a_run_that_lacks_a_spectator_ends_in_one_sentence(fileset, tmp_path, capsys):
    path = saved(tmp_path, model(1, within(0, 1, "mass_of_all")))[0]
    (tmp_path / "f.json").write_text(json.dumps(fileset))
    words = ["run", "semivisible_jets", "--fileset", str(tmp_path / "f.json"), "--model", str(path), "--lumi", "1"]
    assert cli.main([*words, "-o", str(tmp_path / "r"), *LOOSE]) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert JETS in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "r" / "report.json").exists()


def test_jets_outside_of_a_domain_of_theirs_are_not_counted_as_undefined(fileset, tmp_path):
    path = saved(tmp_path, model(1, within(0, 400, "pt")))[0]
    settings = {"lumi": 1.0, "overrides": LOOSE, "executor": "iterative", "output": tmp_path / "r"}
    report = ad.run({"qcd": fileset["qcd"]}, "semivisible_jets", model=path, **settings)
    out = report.outputs["qcd"]
    bare = ad.run({"qcd": fileset["qcd"]}, "semivisible_jets", **settings | {"output": tmp_path / "s"}).outputs["qcd"]
    assert out["undefined"] == bare["undefined"]
    assert out["unscored"] > 0
