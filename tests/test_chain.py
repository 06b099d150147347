"""Skim → train → export → run: the two halves meet in two files, and agree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
from toys import DATA, bare_events, open_events

import coffea_ad as ad
from coffea_ad.errors import BadFile, ConfigError, SkimError
from coffea_ad.skims.files import SKIM_KEY, skim_files
from coffea_ad.skims.reading import load_skim

NAME = "jet_substructure"
ARRANGED = (
    "autoencoder/svj.yaml",
    "nae/svj.yaml",
    "pca/svj.yaml",
    "svdd/reduced.yaml",
    "vae/svj.yaml",
    "wnae/svj.yaml",
)
"""One configuration of each recipe, whose figures are drawn with their layout."""


@pytest.fixture(scope="module")
def fileset():
    return {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": x}}
        for n, x in (("svj", 1.0), ("qcd", 1000.0), ("ttbar", 30.0))
    }


@pytest.fixture(scope="module")
def skims(fileset, tmp_path_factory):
    out = tmp_path_factory.mktemp("skims")
    ad.run(fileset, "skim_jets", config="skim_jets.yaml", executor="iterative", chunksize=50, output=out)
    return out


def test_a_skim_holds_one_row_per_leading_jet_with_its_keys(skims):
    table = pq.read_table(next(iter(skim_files(skims)["svj"])))
    keys = {
        "run",
        "luminosityBlock",
        "event",
        "objectIdx",
        "genWeight",
        "pt",
        "eta",
        "mass",
        "multiplicity",
        "mt",
        "met",
    }
    assert keys <= set(table.column_names)
    assert {f"{NAME}.{c}" for c in ("sigma1", "tau3")} <= set(table.column_names)
    assert f"{NAME}[source=stored].tau4" in table.column_names
    pairs = np.stack([table["event"].to_numpy(), table["objectIdx"].to_numpy()], axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert (table["pt"].to_numpy() > 200).all()
    metadata = json.loads(table.schema.metadata[SKIM_KEY])
    assert metadata["sumw"] == 50
    assert metadata["features"][NAME]["version"] == 1
    assert metadata["flavour"] == "NanoAOD v15"


def test_the_sum_of_weights_is_complete_and_the_manifest_says_what_went_in(skims, fileset):
    manifest = json.loads((skims / "manifest.json").read_text())
    events = open_events(DATA / "qcd_v15.root")
    assert manifest["datasets"]["qcd"]["sumw"] == pytest.approx(float(ak.sum(events.genWeight)))
    assert manifest["datasets"]["qcd"]["events"] == 200
    assert len(manifest["datasets"]["svj"]["files"]) == 3
    data = load_skim(skims, NAME)
    assert data.provenance["sumw"]["qcd"] == pytest.approx(manifest["datasets"]["qcd"]["sumw"])


def test_a_retry_overwrites_itself(skims, fileset):
    before = sorted(p.name for p in skims.rglob("*.parquet"))
    ad.run(
        {"svj": fileset["svj"]},
        "skim_jets",
        config="skim_jets.yaml",
        executor="iterative",
        chunksize=50,
        output=skims,
        force=True,
    )
    assert sorted(p.name for p in skims.rglob("*.parquet")) == before
    assert not list(skims.rglob("*.part"))


def test_weights_are_genweight_times_cross_section_over_sumw(skims):
    data = load_skim(skims, NAME, datasets=["qcd", "ttbar"])
    raw = data.spectators["genWeight"]
    scale = {d: data.weight[data.dataset == d] / raw[data.dataset == d] for d in ("qcd", "ttbar")}
    sumw = data.provenance["sumw"]
    ratio = scale["qcd"][0] / scale["ttbar"][0]
    assert ratio == pytest.approx((1000 / sumw["qcd"]) / (30 / sumw["ttbar"]), rel=1e-5)
    assert np.abs(data.weight).mean() == pytest.approx(1)
    assert (load_skim(skims, NAME, weights="none").weight == 1).all()
    flat = load_skim(skims, NAME, weights="flat_pt")
    content, _ = np.histogram(np.log(flat.spectators["pt"]), 5, weights=flat.weight)
    assert content.max() < 2 * content[:4].min()
    near = (flat.spectators["pt"] > 400) & (flat.spectators["pt"] < 405)  # flat in pT, but the mixture stays
    for d in ("qcd", "ttbar"):
        mine = near & (flat.dataset == d)
        both = load_skim(skims, NAME)
        assert flat.weight[mine].sum() / flat.weight[near].sum() == pytest.approx(
            both.weight[mine].sum() / both.weight[near].sum(), rel=0.02
        )


def test_the_split_follows_events_not_jets(skims):
    data = load_skim(skims, NAME)
    event = np.stack(
        [np.unique(data.dataset, return_inverse=True)[1], data.spectators["event"].astype(np.int64)], axis=1
    )
    for _, first in zip(*np.unique(event, axis=0, return_index=True), strict=True):
        same = (event == event[first]).all(axis=1)
        assert len(set(data.split[same].tolist())) == 1
    assert set(data.split.tolist()) == {"train", "validation", "test"}


def one_file(folder):
    """A manifest of one file, and a place for it."""
    (folder / "svj").mkdir()
    (folder / "manifest.json").write_text(json.dumps({"datasets": {"svj": {"files": ["svj/a.parquet"], "sumw": 1.0}}}))


def test_only_files_of_the_manifest_are_the_skim(skims, fileset, tmp_path):
    """Inputs that were made anew have new names; what the old ones left behind must not count twice."""
    copy = shutil.copytree(skims, tmp_path / "skims")
    shutil.copy(skim_files(copy)["svj"][0], copy / "svj" / "stray.parquet")
    assert len(load_skim(copy, NAME).x) == len(load_skim(skims, NAME).x)
    one = {"svj": fileset["svj"]}
    ad.run(one, "skim_jets", config="skim_jets.yaml", executor="iterative", chunksize=200, output=copy, force=True)
    again = load_skim(copy, NAME)
    np.testing.assert_array_equal(again.x, load_skim(skims, NAME).x)  # other chunks, same rows in the same order
    assert set(again.provenance["rows"]) == {"svj", "qcd", "ttbar"}
    Path(skim_files(copy)["qcd"][0]).unlink()
    with pytest.raises(SkimError, match="not there"):
        load_skim(copy, NAME)


def test_a_file_without_events_does_not_spoil_a_skim(fileset, tmp_path):
    empty = tmp_path / "empty.root"
    bare_events(empty, 0)
    entry = {**fileset["svj"], "files": {**fileset["svj"]["files"], str(empty): "Events"}}
    ad.run({"svj": entry}, "skim_jets", config="skim_jets.yaml", executor="iterative", output=tmp_path / "s")
    assert len(skim_files(tmp_path / "s")["svj"]) == 2
    assert len(load_skim(tmp_path / "s", NAME).x) > 100


def test_data_and_simulation_are_not_mixed_silently(skims, tmp_path):
    copy = shutil.copytree(skims, tmp_path / "skims")
    for path in skim_files(copy)["svj"]:
        table = pq.read_table(path)
        metadata = {**json.loads(table.schema.metadata[SKIM_KEY]), "is_mc": False}
        pq.write_table(table.replace_schema_metadata({SKIM_KEY: json.dumps(metadata)}), path)
    with pytest.raises(SkimError, match="no common weights"):
        load_skim(copy, NAME)
    assert len(load_skim(copy, NAME, weights="none").x) == len(load_skim(skims, NAME).x)
    path = skim_files(copy)["qcd"][0]
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[SKIM_KEY])
    metadata["selection"]["jet_pt_min"] = 400
    pq.write_table(table.replace_schema_metadata({SKIM_KEY: json.dumps(metadata)}), path)
    with pytest.raises(SkimError, match="another selection"):
        load_skim(copy, NAME, datasets=["qcd"])


def test_filters_keep_rows(skims):
    data = load_skim(skims, NAME, filters=[("met", ">", 100)])
    assert len(data.x) > 0
    assert (data.spectators["met"] > 100).all()
    with pytest.raises(SkimError, match="filter"):
        load_skim(skims, NAME, filters=[("nonsense", ">", 1)])


def test_a_skim_that_lacks_what_is_asked_for_is_named(skims, tmp_path):
    with pytest.raises(SkimError, match="no skim here"):
        load_skim(tmp_path, NAME)
    with pytest.raises(SkimError, match="did you mean 'ttbar'"):
        load_skim(skims, NAME, datasets=["tbar"])
    with pytest.raises(SkimError, match=r"unknown feature 'jet_substructure\[R0=1.0\]'"):
        load_skim(skims, NAME, {"R0": 1.0})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t, m: (t.drop_columns([f"{NAME}.tau2"]), m), "columns are missing: jet_substructure.tau2"),
        (
            lambda t, m: (t.rename_columns([c.replace(".tau2", ".tau_2") for c in t.column_names]), m),
            "missing: jet_substructure.tau2",
        ),
        (
            lambda t, m: (t, {**m, "features": {**m["features"], NAME: {**m["features"][NAME], "version": 0}}}),
            "version 0",
        ),
    ],
    ids=["missing", "renamed", "version"],
)
def test_an_edited_skim_is_refused(skims, tmp_path, change, match):
    path = skim_files(skims)["svj"][0]
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[SKIM_KEY])
    table, metadata = change(table, metadata)
    one_file(tmp_path)
    pq.write_table(table.replace_schema_metadata({SKIM_KEY: json.dumps(metadata)}), tmp_path / "svj" / "a.parquet")
    with pytest.raises(SkimError, match=match):
        load_skim(tmp_path, NAME)


def test_a_file_that_is_no_skim_is_named(tmp_path):
    one_file(tmp_path)
    (tmp_path / "svj" / "a.parquet").write_text("hello")
    with pytest.raises(SkimError, match="a.parquet: not a readable parquet file"):
        load_skim(tmp_path, NAME)


def test_a_skim_needs_an_output_and_takes_no_model(fileset):
    with pytest.raises(ConfigError, match="-o FOLDER"):
        ad.run(fileset, "skim_jets", executor="iterative")


def collect(fileset, model, chunksize):
    """Scores of a run through coffea's Runner, by dataset, event and object index."""
    from coffea.processor import IterativeExecutor, ProcessorABC, Runner, column_accumulator

    class Scores(ProcessorABC):
        def __init__(self):
            self.tagger = ad.Tagger(model)

        def process(self, events):
            jets = self.tagger(events.FatJet[events.FatJet["pt"] > 200])
            local = ak.local_index(events.FatJet["pt"])[events.FatJet["pt"] > 200]
            columns = {
                "event": ak.broadcast_arrays(events["event"], jets["pt"])[0], "object": local, "score": jets["ad_score"],
            }  # fmt: skip
            flat = {k: ak.to_numpy(ak.fill_none(ak.flatten(v), np.nan)) for k, v in columns.items()}
            return {events.metadata["dataset"]: {k: column_accumulator(v) for k, v in flat.items()}}

        def postprocess(self, accumulator):
            return accumulator

    out = Runner(IterativeExecutor(status=False), schema=ad.NanoAODSchema, chunksize=chunksize)(fileset, Scores())
    return {
        (dataset, int(e), int(o)): s
        for dataset, c in out.items()
        for e, o, s in zip(*(c[k].value for k in ("event", "object", "score")), strict=True)
    }


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
def test_scores_of_training_and_of_the_run_are_equal_jet_by_jet(skims, fileset, tmp_path):
    """torch on the skim against onnxruntime on NanoAOD, joined by dataset, event id and object index."""
    import torch

    from coffea_ad import nn

    data = load_skim(skims, NAME)
    torch.manual_seed(1)
    model = nn.WNAE(8, transform=nn.QuantileNormal(8), buffer_size=300, long_steps=0)
    history = nn.fit(model, data, nn.TrainConfig(epochs=2, samples_per_epoch=512))
    path = nn.export(
        model, tmp_path / "wnae.onnx", nn.make_card(model, data, name="t", config={}, metrics=history[0]), data.x
    )
    trained = model.scores(data.x)
    keys = zip(data.dataset, data.spectators["event"], data.spectators["objectIdx"], strict=True)
    run = collect(fileset, path, chunksize=37)
    pairs = np.array([(s, run[d, int(e), int(o)]) for (d, e, o), s in zip(keys, trained, strict=True)])
    assert len(pairs) > 500
    assert (np.abs(pairs[:, 0] - pairs[:, 1]) <= 1e-5 * (1 + np.abs(pairs[:, 0]))).all()


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
@pytest.mark.parametrize(
    ("recipe", "config"),
    [
        ("autoencoder", "autoencoder/svj.yaml"),
        ("autoencoder", "autoencoder/stored.yaml"),
        ("nae", "nae/svj.yaml"),
        ("nae", "nae/smeared.yaml"),
        ("nae", "nae/smeared_ttbar.yaml"),
        ("pca", "pca/svj.yaml"),
        ("svdd", "svdd/reduced.yaml"),
        ("vae", "vae/svj.yaml"),
        ("vae", "vae/dirichlet.yaml"),
        ("wnae", "wnae/svj.yaml"),
        ("wnae", "wnae/reference.yaml"),
        ("wnae", "wnae/ttbar.yaml"),
    ],
)
def test_recipes_leave_a_model_that_the_processor_runs(skims, fileset, tmp_path, recipe, config, request):
    from coffea_ad import recipes
    from coffea_ad.config import load_config

    if config not in ARRANGED:
        request.getfixturevalue("unarranged")
    module = recipes.load(recipe)
    overrides = [f"data={skims}", "datasets=[qcd, ttbar]", "train.epochs=2", "train.samples_per_epoch=512"]
    if recipe in ("nae", "wnae"):  # two epochs are no equilibrium however long the chains run
        overrides.append("long_run=[0, 20, 40]")
        overrides += ["long_steps=20"] if "reference" not in config else []  # which has 0
    summary = module.train(load_config(module.Config, recipes.find_config(config), overrides), tmp_path / "m.onnx")
    folder = tmp_path / "m"
    made = {"metrics.jsonl", "checkpoint.pt"} if recipe == "pca" else {"metrics.jsonl", "checkpoint.pt", "training.png"}
    if recipe in ("nae", "wnae"):
        made |= {"long_run.json", "long_run.png", "chains.png", "chains_2d.png", "chain_health.png"}
    assert made <= {p.name for p in folder.iterdir()}
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == (1 if recipe == "pca" else 2)
    assert summary["best"]["epoch"] in (0, 1)
    card = ad.Tagger(tmp_path / "m.onnx").card
    assert card.provenance["config"]["datasets"] == ["qcd", "ttbar"]
    assert card.provenance["config"]["train"]["epochs"] == 2
    assert all(len(h) == 64 for h in card.provenance["files"].values())
    assert card.provenance["versions"]["torch"]
    assert card.selection["jet_pt_min"] == 200
    report = ad.run(
        {"svj": fileset["svj"]}, "semivisible_jets", model=tmp_path / "m.onnx", executor="iterative", preflight=False
    )
    assert report.complete


def test_a_skim_of_a_bad_file_fails_by_name(fileset, tmp_path):
    bad = tmp_path / "bad.root"
    bad.write_text("x" * 500)
    with pytest.raises(BadFile, match="bad.root"):
        ad.run(
            {"bad": {"files": {str(bad): "Events"}, "metadata": {}}},
            "skim_jets",
            executor="iterative",
            output=tmp_path / "s",
        )
