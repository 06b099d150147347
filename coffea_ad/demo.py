"""The whole chain on simulated events: samples → skim → models → dask run → regions, table and figures → bump hunt."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from coffea_ad import files, recipes
from coffea_ad.config import load_config
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.results.folder import load_results
from coffea_ad.results.results import Results
from coffea_ad.running import run
from coffea_ad.scoring import regions
from coffea_ad.scoring.scorer import OnnxScorer

__all__ = ["demo"]

# Enough pT-hat that most events pass the preselection; the mixture is what makes the search non-trivial.
_SAMPLES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "qcd": ("qcd", 8000, {"pthat_min": 350.0}),
    "ttbar": ("ttbar", 4000, {"pthat_min": 250.0}),
    "wjets": ("wjets", 2500, {"pthat_min": 250.0}),
    "zjets": ("zjets", 2500, {"pthat_min": 250.0}),
    "svj": ("svj", 3000, {}),
}
_SIGNAL = "svj"
_SIGNAL_XSEC = 1.0  # pb: a benchmark; Pythia's own number for a forced width is not meaningful
_LUMI = 59.8  # fb⁻¹
_MODELS = {"ae": ("autoencoder", "autoencoder/svj.yaml"), "wnae": ("wnae", "wnae/svj.yaml"),
           "ae_stored": ("autoencoder", "autoencoder/stored.yaml")}  # fmt: skip
# Events that neither trained nor calibrated the model; cuts on MET looser than a search's, so that some are left.
_SEARCH = ["splits=[test]", "met_min=50", "rt_min=0.05", "dphi_max=1.6"]
# Events without weights stand for data: what falls smoothly in m_JJ, without the cuts that a search for missing momentum has.
_DIJETS = ("qcd", 4000, {"pthat_min": 500.0, "bias_power": 0.0})
_BUMP_HUNT = ["met_min=null", "rt_min=null", "dphi_max=null", "mass_resolution=0.04", "mass_min=1000", "unblind=true"]
_console = Console(markup=False, emoji=False)


@contextmanager
def _step(title: str, seconds: dict[str, float]) -> Iterator[None]:
    _console.rule(title, align="left")
    started = time.monotonic()
    yield
    seconds[title] = round(time.monotonic() - started, 1)


def _simulate(folder: Path, seed: int, scale: float) -> dict[str, Any]:
    from coffea_ad.simulation import simulate

    fileset = {}
    for i, (dataset, (process, n, parameters)) in enumerate(_SAMPLES.items()):
        path = folder / f"{dataset}.root"
        record = simulate(process, max(int(n * scale), 200), path, seed=100 * seed + i, parameters=parameters)
        xsec = _SIGNAL_XSEC if dataset == _SIGNAL else record["cross_section"]
        metadata = {"is_mc": True, "xsec": xsec, "year": "2018", "is_signal": dataset == _SIGNAL}
        fileset[dataset] = {"files": {str(path.resolve()): "Events"}, "metadata": metadata}
    files.write(folder / "fileset.json", json.dumps(fileset, indent=1).encode())
    return fileset


def _train(folder: Path, skims: Path, seed: int, scale: float) -> None:
    background = "[" + ",".join(d for d in _SAMPLES if d != _SIGNAL) + "]"
    for name, (recipe, config_name) in _MODELS.items():
        module = recipes.load(recipe)
        overrides = [f"data={skims}", f"datasets={background}", f"train.seed={seed}"]
        if scale < 1:
            overrides.append(f"train.epochs={max(int(50 * scale), 2)}")
        config = load_config(module.Config, recipes.find_config(config_name), overrides)
        module.train(config, folder / f"{name}.onnx")


def _bump_hunt(output: Path, seed: int, scale: float, workers: int) -> dict[str, Any]:
    """Search the m_JJ spectrum of other dijets, in the place of data, for bumps, and return what came of it."""
    from coffea_ad.search.config import SearchConfig
    from coffea_ad.search.search import search
    from coffea_ad.simulation import simulate

    process, n, parameters = _DIJETS
    path = output / "samples" / "dijets.root"
    events = max(int(n * scale), 600)
    record = simulate(process, events, path, seed=100 * seed + 50, parameters=parameters)
    fileset = {"dijets": {"files": {str(path.resolve()): "Events"}, "metadata": {"is_mc": False}}}
    run(
        fileset, "semivisible_jets", model=output / "models" / "wnae.onnx", config="semivisible_jets.yaml", executor="dask", workers=workers,
        chunksize=2000, output=output / "dijets", force=True, overrides=_BUMP_HUNT, lumi=events / (1000 * record["cross_section"]),
    )  # fmt: skip
    config = SearchConfig(observables=("mjj",), regions=("inclusive",), toys=300, seed=seed)
    return search(output / "dijets", output / "search", config)


def _evaluate(models: Path, skims: Path, figures: Path, seed: int) -> dict[str, Any]:
    """AUC of each score between held-out background jets and signal jets, as they are and at equal pT spectra."""
    from coffea_ad import evaluation, plotting
    from coffea_ad.skims.reading import load_skim

    columns: dict[str, Any] = {}
    data = load_skim(skims, "jet_substructure")
    stored = load_skim(skims, "jet_substructure", {"source": "stored"})
    for name in _MODELS:
        scorer = OnnxScorer(models / f"{name}.onnx")
        columns[name] = np.asarray(scorer(data.x)) if name != "ae_stored" else _joined(scorer, data, stored)
    columns |= {
        "multiplicity": data.spectators["multiplicity"],
        "mass": data.spectators["mass"],
        "pTD (reversed)": -data.x[:, [c.name for c in data.feature.columns].index("ptd")],
        "pT": data.spectators["pt"],
    }
    signal = data.dataset == _SIGNAL
    background = ~signal & (data.split == "test")
    pt = data.spectators["pt"]
    weight = data.event_weight
    matched, w_matched = evaluation.match_spectrum(pt[background], pt[signal], weight[background], weight[signal])
    ids = np.stack([data.spectators[k].astype(np.int64) for k in EVENT_ID], axis=1)
    event = np.unique(np.c_[np.unique(data.dataset, return_inverse=True)[1], ids], axis=0, return_inverse=True)[1]
    events = (event.reshape(-1)[background], event.reshape(-1)[signal])  # two jets of one event are drawn together
    out, curves = {}, {}
    for name, score in columns.items():
        b, s, w = score[background], score[signal], weight[signal]
        raw = evaluation.auc(b, s, weight[background], w, seed=seed, events=events)
        flat = evaluation.auc(b, s, matched, w_matched, seed=seed, events=events)
        out[name] = {"auc": raw.value, "auc_error": raw.error, "auc_pt": flat.value, "auc_pt_error": flat.error}
        ok = np.isfinite(b)
        curves[name] = (
            *evaluation.roc_curve(b[ok], s[np.isfinite(s)], weight[background][ok], w[np.isfinite(s)]),
            raw.value,
        )
    plotting.roc(curves, figures / "roc.png", models=len(_MODELS))
    return {"auc": out, "regions": _closure(models, data, background), "picture": _picture(models, data, figures)}


def _joined(scorer: OnnxScorer, data: Any, stored: Any) -> Any:
    """Scores of the stored-branch model on the rows of the other skim: the same jets, where both are defined."""
    keys = (*EVENT_ID, "objectIdx")

    def ids(skim: Any) -> list[tuple[Any, ...]]:
        return list(zip(skim.dataset.tolist(), *(skim.spectators[k].tolist() for k in keys), strict=True))

    table = dict(zip(ids(stored), np.asarray(scorer(stored.x)).tolist(), strict=True))
    return np.array([table.get(i, np.nan) for i in ids(data)], np.float32)


def _closure(models: Path, data: Any, test: Any) -> dict[str, Any]:
    """Efficiency of each region on background events that neither trained nor calibrated the model."""
    out = {}
    scorer = OnnxScorer(models / "wnae.onnx")
    card = scorer.card
    values = regions.logp(card.calibration, np.asarray(scorer(data.x[test])))
    for region in card.regions:
        eps, error, _ = regions.efficiency(values, data.event_weight[test], region.thresholds[0])
        nominal_error = region.error * region.efficiency * np.log(10)
        pull = (eps - region.efficiency) / np.hypot(error, nominal_error)
        out[region.name] = {"nominal": region.efficiency, "measured": eps, "error": error, "pull": float(pull)}
    return out


def _picture(models: Path, data: Any, figures: Path) -> str:
    """Score against transverse mass, background and signal, with the regions."""
    from coffea_ad import plotting

    scorer = OnnxScorer(models / "wnae.onnx")
    card = scorer.card
    values = regions.logp(card.calibration, np.asarray(scorer(data.x)))
    event = np.stack([data.spectators[k].astype(np.int64) for k in EVENT_ID], axis=1)
    dataset = np.unique(data.dataset, return_inverse=True)[1]
    _, first, which = np.unique(np.c_[dataset, event], axis=0, return_index=True, return_inverse=True)
    worst = np.zeros(len(first))
    np.maximum.at(worst, which.reshape(-1), values)
    mt, weight, name, split = (
        data.spectators["mt"][first],
        data.event_weight[first],
        data.dataset[first],
        data.split[first],
    )
    groups = {
        "background (held out)": (name != _SIGNAL) & (split == "test"),
        "semivisible jets": name == _SIGNAL,
    }
    plotting.score_and_mass(
        {label: (mt[m], worst[m], weight[m]) for label, m in groups.items()},
        {r.name: r.thresholds[0] for r in card.regions},
        figures / "score_mass.png",
        xlabel="$m_T$ [GeV]",
    )
    return "figures/score_mass.png"


def _yields(results: Results) -> dict[str, dict[str, float]]:
    """Return the expected events per region and dataset, at luminosity."""
    out: dict[str, dict[str, float]] = {}
    for dataset in results.in_regions:
        histogram = results.scaled(dataset, "met")
        for region in histogram.axes["region"]:
            total = histogram[{"region": region, "variation": "nominal"}].sum(flow=True)
            out.setdefault(region, {})[dataset] = float(total.value)
    return out


def _figures(results: Results, folder: Path) -> None:
    from coffea_ad import plotting

    for observable, regions_of in plotting.drawable(results).items():
        for region in regions_of:
            plotting.stack(results, observable, region, folder / f"{observable}_{region}.png")


def _print(summary: dict[str, Any]) -> None:
    table = Table("score", "AUC", "AUC, pT spectra matched", title="held-out background jets against SVJ jets")
    for name, row in summary["auc"].items():
        pair = [f"{row[k]:.3f} ± {row[k + '_error']:.3f}" for k in ("auc", "auc_pt")]
        table.add_row(name, *pair)
    _console.print(table)
    table = Table(
        "region", "nominal", "measured", "pull", title="background efficiency of the WNAE regions, held-out events"
    )
    for name, row in summary["regions"].items():
        measured = f"{row['measured']:.4f} ± {row['error']:.4f}"
        table.add_row(name, f"{row['nominal']:g}", measured, f"{row['pull']:+.1f}")
    _console.print(table)
    datasets = list(_SAMPLES)
    table = Table("region", *datasets, title=f"expected events at {_LUMI} fb⁻¹ (signal at {_SIGNAL_XSEC:g} pb)")
    for region, row in summary["yields"].items():
        table.add_row(region, *(f"{row[d]:.4g}" for d in datasets))
    _console.print(table)
    _console.print(f"dijets in the place of data: {summary['search']['verdict']}", soft_wrap=True)


def demo(output: Path, *, seed: int = 1, scale: float = 1.0, workers: int = 2) -> dict[str, Any]:
    """Run the chain and write everything under `output`.

    Parameters
    ----------
    output : Path
        Gets `samples/`, `skims/`, `models/`, `results/`, `figures/`, `dijets/`, `search/` and `summary.json`.
    seed : int
        Of simulation and training.
    scale : float
        Multiplies the numbers of events; below 1 also the epochs.
    workers : int
        Of the dask cluster.

    Returns
    -------
    dict
        The content of `summary.json`.
    """
    seconds: dict[str, float] = {}
    started = time.monotonic()
    samples, skims, models = output / "samples", output / "skims", output / "models"
    figures, results_folder = output / "figures", output / "results"
    with _step("simulate QCD, tt̄, W, Z and semivisible jets", seconds):
        fileset = _simulate(samples, seed, scale)
    with _step("skim", seconds):
        run(
            fileset,
            "skim_jets",
            config="skim_jets.yaml",
            executor="dask",
            workers=workers,
            chunksize=4000,
            output=skims,
            force=True,
        )
    with _step("train AE and WNAE, export them with their cards", seconds):
        _train(models, skims, seed, scale)
    with _step("run the search on a local dask cluster", seconds):
        run(
            fileset, "semivisible_jets", model=models / "wnae.onnx", config="semivisible_jets.yaml", executor="dask",
            workers=workers, chunksize=4000, output=results_folder, force=True, lumi=_LUMI,
            overrides=_SEARCH,
        )  # fmt: skip
    with _step("evaluate and draw", seconds):
        results = load_results(results_folder)
        summary = {"seed": seed, "scale": scale, **_evaluate(models, skims, figures, seed), "yields": _yields(results)}
        _figures(results, figures)
    with _step("hunt for bumps in the dijet mass, and set limits", seconds):
        hunted = _bump_hunt(output, seed, scale, workers)
    summary["search"] = {"verdict": hunted["verdict"], "global": hunted["global"], "limits": hunted["limits"]}
    summary["seconds"] = {**seconds, "all": round(time.monotonic() - started, 1)}
    files.write(output / "summary.json", json.dumps(summary, indent=1).encode())
    _print(summary)
    _console.print(
        f"{summary['seconds']['all']:.0f} s; summary in {output / 'summary.json'}, figures in {figures}", soft_wrap=True
    )
    return summary
