"""The tables of results come out for any number of seeds, with errors of events."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_skims import NAME, toy_rows, write_skim
from toys import DATA

from coffea_ad import evaluation
from coffea_ad.evaluation import Sample, evaluate
from coffea_ad.skims.files import SKIM_KEY
from coffea_ad.skims.reading import load_skim

SEEDS = {"AE": [1], "WNAE": [1, 2, 3, 11, 12], "untrained": [2, 3]}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory, request):
    """The program, in a folder with three sets of toy jets, two to an event, and copies of a model as its models."""
    spec = importlib.util.spec_from_file_location(
        "physics_tables", request.config.rootpath / "benchmarks" / "physics_tables.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT = tmp_path_factory.mktemp("physics")
    module.REPLICAS = 60
    for i, sample in enumerate(("train", "eval", "fresh")):
        datasets = {}
        for j, (name, shift) in enumerate({"qcd": 0.0, "ttbar": 0.2, "svj_one": 0.6, "svj_two": 0.9}.items()):
            x, rng = toy_rows(500, seed=10 * i + j, shift=shift)
            x, pt = np.repeat(x, 2, axis=0), np.repeat(300 + 50 * rng.random(500), 2)
            weight = np.where(rng.random(500) < 0.05, -1.0, 1.0).repeat(2)
            datasets[name] = {"x": x, "weight": weight, "event": np.arange(1000) // 2, "pt": pt, "xsec": 1.0}
        folder = write_skim(module.ROOT / "skims" / sample, datasets)
        for path in folder.glob("*/*.parquet"):
            skim = pq.read_table(path)
            mass = pa.array(skim["pt"].to_numpy() / 4)
            pq.write_table(skim.append_column("mass", mass).replace_schema_metadata(skim.schema.metadata), path)
            assert SKIM_KEY in pq.read_schema(path).metadata
    for bkg in ("ttbar", "qcd"):
        for name, seeds in SEEDS.items():
            for seed in seeds:
                path = module.ROOT / "models" / bkg / f"{name}_{seed}.onnx"
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(DATA / "wnae.onnx", path)
                folder = path.with_suffix("")
                folder.mkdir()
                history = [{"epoch": e, "excess": 1 / (e + 1), "auc": 0.5 + 0.1 * e} for e in range(3)]
                (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, history)))
                (folder / "cpu.json").write_text(json.dumps({"best": {"epoch": 1, "value": 0.5}}))
                if name == "WNAE":
                    run = {"steps": [0, 500], "floor": 0.7, "buffer": [0.1 * seed, 0.2], "data": [0.1, 0.2]}
                    (folder / "long_run.json").write_text(json.dumps(run))
    return module


@pytest.fixture
def quick(benchmark, monkeypatch):
    """Without the fits, which are not of this program."""
    monkeypatch.setattr(benchmark, "baselines_of", lambda _, jets: {"first column": jets.x[None, :, 0].astype(float)})
    monkeypatch.setattr(evaluation, "ceiling", lambda *_: lambda x: x[:, 0])
    return benchmark


def rows_of(text, title):
    """{first cells: cells} of the table below a title."""
    lines = text[text.index(title) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| ---"))
    out = {}
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        cells = [c.strip() for c in line.strip("|").split("|")]
        out[cells[0]] = cells[1:]
    return out


@pytest.mark.plot
def test_tables_take_any_number_of_seeds_and_draw_events_whole(quick, capsys):
    quick.tables("eval")
    text = capsys.readouterr().out
    rows = rows_of(text, "trained on qcd: AUC ±")
    assert {k: int(v[0]) for k, v in rows.items() if k in SEEDS} == {k: len(v) for k, v in SEEDS.items()}
    assert re.fullmatch(r"0\.\d{3} ± 0\.\d{3}", rows["AE"][1])
    assert re.fullmatch(r"0\.\d{3} ± 0\.\d{3} \[0\.\d{3} to 0\.\d{3}\]", rows["untrained"][1])
    assert re.fullmatch(r"0\.\d{3} ± 0\.\d{3} ± 0\.000", rows["WNAE"][1])
    # values and errors are those of `evaluate` with the ids of events, and signed weights
    skim = load_skim(quick.ROOT / "skims" / "eval", NAME)

    def sample(name, *, events=True):
        mask = skim.dataset == name
        event = skim.spectators["event"][mask] if events else None
        return Sample(
            {"x": skim.x[mask, 0].astype(float)}, skim.event_weight[mask], skim.spectators["pt"][mask], event=event
        )

    names = ("svj_one", "svj_two")
    compared = evaluate(sample("qcd"), {n: sample(n) for n in names}, n_bootstrap=300)
    value, error = map(float, rows["first column"][1].split(" ± "))
    assert value == pytest.approx(np.mean([compared.row("x", n).plain.auc.value for n in names]), abs=6e-4)
    of_mean = np.std(np.mean([compared.row("x", n).plain.auc_replicas for n in names], axis=0), ddof=1)
    assert error == pytest.approx(of_mean, rel=0.3)
    loose = evaluate(sample("qcd", events=False), {n: sample(n, events=False) for n in names}, n_bootstrap=300)
    of_rows = np.std(np.mean([loose.row("x", n).plain.auc_replicas for n in names], axis=0), ddof=1)
    assert of_mean == pytest.approx(np.sqrt(2) * of_rows, rel=0.2)


@pytest.mark.plot
def test_differences_are_paired_and_long_runs_and_epochs_are_listed(quick, capsys):
    quick.tables("eval")
    text = capsys.readouterr().out
    rows = rows_of(text, "trained on ttbar: AUC less that of AE")
    assert rows["WNAE"][0] == "5 − 1"
    assert rows["WNAE"][1:] == ["+0.000 (95 %: +0.000 to +0.000)", "1"] * 2  # copies of one model do not differ
    assert re.fullmatch(r"[+-]0\.\d{3} \(95 %: [+-]0\.\d{3} to [+-]0\.\d{3}\)", rows["first column"][1])
    assert "| qcd | WNAE | 5 | 500 | 0.70 ± 0.00 | 0.20 ± 0.00 | 0.20 ± 0.00 |" in text
    same = "0.700 [0.700 to 0.700]"  # the last epoch is the best one, and that of the smallest excess
    assert f"| qcd | untrained | 2 | {same} | {same} |  |  |  | {same} |" in text
    record = json.loads((quick.ROOT / "tables_eval" / "tables.json").read_text())
    assert len(record["qcd"]["WNAE"]["each"]["matched"]) == 5
    assert record["qcd"]["differences"]["WNAE − AE"]["matched"]["value"] == pytest.approx(0, abs=1e-12)
    assert (quick.ROOT / "tables_eval" / "epochs_qcd.png").stat().st_size > 5000


def test_what_is_looked_at_once_is_shown_in_the_same_way(quick, capsys):
    quick.confirm()
    text = capsys.readouterr().out
    assert re.search(r"\| qcd \| WNAE \| 5 \| 0\.\d+ ± 0\.\d+ ± 0\.000 \| 0\.\d+ ± 0\.\d+ ± 0\.000 \|", text)
    assert "AUC less that of untrained" in text


def test_models_are_found_by_name_and_seed_and_averages_take_common_seeds(quick, monkeypatch):
    assert {k: list(v) for k, v in quick.models_of("qcd").items()} == SEEDS
    jets = quick.Jets("eval")
    monkeypatch.setattr(quick, "COMBINED", ("WNAE", "untrained"))
    scores = quick.scores_of("qcd", jets)
    assert scores["rank average of SVDD, VAE and NAE smeared"].shape == (2, len(jets.x))  # seeds 2 and 3
    np.testing.assert_array_equal(np.diff(np.unique(jets.event, return_counts=True)[1]), 0)
