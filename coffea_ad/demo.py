"""The whole chain on simulated events: samples → skim → models → thresholds → evaluation → dask run → bump hunt."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coffea_ad import evaluation, files, recipes
from coffea_ad.config import load_config
from coffea_ad.modelfiles.thresholds import new_regions
from coffea_ad.plotting.drawing import draw_results
from coffea_ad.report import write_report
from coffea_ad.results.folder import load_results
from coffea_ad.results.results import Results
from coffea_ad.running import run

__all__ = ["demo"]

_PT_HAT = 500.0  # GeV, of all dijets, so that data and simulation begin alike
# More events where the spectrum is low, with weights; what stands for data has none.
_SAMPLES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "qcd": ("qcd", 12_000, {"pthat_min": _PT_HAT, "bias_power": 4.0}),
    "ttbar": ("ttbar", 1500, {"pthat_min": 350.0}),
    "svj": ("svj", 2500, {"m_zprime": 3000.0, "r_inv": 0.1}),
}
_DATA = 12_000  # QCD events; there are as many others as their cross-sections say
# pb: a benchmark, which is in the data; Pythia's own number for a forced width is not meaningful
_SIGNALS = {"svj": 5.0}
_MODELS = {"vae": ("vae", "vae/elbo.yaml", ["folds=3"]), "ae": ("autoencoder", "autoencoder/svj.yaml", []),
           "ae_stored": ("autoencoder", "autoencoder/stored.yaml", [])}  # fmt: skip
"""The first one, which scores no event that it was trained on, sorts the events."""
_EFFICIENCIES = (0.2, 0.05)
# Without the cuts on missing momentum of a search for semivisible jets, so that these few events are enough.
_SEARCH = ["met_min=null", "rt_min=null", "dphi_max=null", "mass_resolution=0.05", "mass_min=1400", "unblind=true"]
_REGIONS = ("inclusive", "eff0.2_2tag")
_console = Console(markup=False, emoji=False)


@contextmanager
def _step(title: str, seconds: dict[str, float]) -> Iterator[None]:
    _console.rule(title, align="left")
    started = time.monotonic()
    yield
    seconds[title] = round(time.monotonic() - started, 1)


def _simulate(folder: Path, seed: int, scale: float) -> tuple[dict[str, Any], float]:
    """Return the fileset of simulation and what stands for data, and the luminosity of the latter in fb⁻¹."""
    from coffea_ad.simulation import simulate

    fileset: dict[str, Any] = {}
    for i, (dataset, (process, n, parameters)) in enumerate(_SAMPLES.items()):
        path = folder / f"{dataset}.root"
        record = simulate(process, max(int(n * scale), 200), path, seed=100 * seed + i, parameters=parameters)
        xsec = _SIGNALS.get(dataset, record["cross_section"])
        metadata = {"is_mc": True, "xsec": xsec, "year": "2018", "is_signal": dataset in _SIGNALS}
        fileset[dataset] = {"files": {str(path.resolve()): "Events"}, "metadata": metadata}
    data = max(int(_DATA * scale), 600)
    per_pb = data / fileset["qcd"]["metadata"]["xsec"]
    paths = []
    for i, (dataset, (process, _, parameters)) in enumerate(_SAMPLES.items()):
        n = max(round(per_pb * fileset[dataset]["metadata"]["xsec"]), 1)
        path = folder / f"data_{dataset}.root"
        usual = {**parameters, "bias_power": 0.0} if "bias_power" in parameters else parameters
        simulate(process, n, path, seed=100 * seed + 50 + i, parameters=usual)
        paths.append(str(path.resolve()))
    fileset["data"] = {"files": dict.fromkeys(paths, "Events"), "metadata": {"is_mc": False, "year": "2018"}}
    files.write(folder / "fileset.json", json.dumps(fileset, indent=1).encode())
    return fileset, per_pb / 1000


def _train(folder: Path, skims: Path, seed: int, scale: float) -> None:
    background = "[" + ",".join(d for d in _SAMPLES if d not in _SIGNALS) + "]"
    for name, (recipe, config_name, more) in _MODELS.items():
        module = recipes.load(recipe)
        overrides = [f"data={skims}", f"datasets={background}", f"train.seed={seed}", *more]
        if scale < 1:
            overrides.append(f"train.epochs={max(int(60 * scale), 2)}")
        config = load_config(module.Config, recipes.find_config(config_name), overrides)
        module.train(config, folder / f"{name}.onnx")


def _thresholds(models: Path, skims: Path) -> None:
    """Let the regions of the model that sorts the events follow pT, so that they keep as much background at any mass."""
    background = [d for d in _SAMPLES if d not in _SIGNALS]
    path = models / f"{next(iter(_MODELS))}.onnx"
    data = new_regions(
        path.read_bytes(), skims, efficiencies=_EFFICIENCIES, datasets=background, flat_in="pt", name=str(path)
    )
    files.write(path, data)


def _evaluate(models: Path, skims: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Compare the models with one another and with trivial columns, on held-out jets."""
    evaluated = evaluation.evaluate_models(
        {name: (models / f"{name}.onnx",) for name in _MODELS}, skims, skims, signal_datasets=list(_SIGNALS), seed=seed, n_bootstrap=20,
    )  # fmt: skip
    evaluation.write(evaluated, folder)
    out: dict[str, Any] = {}
    for row in evaluated.rows:
        if row.signal in _SIGNALS and row.matched is not None:
            plain, flat = row.plain.auc, row.matched.auc
            out.setdefault(row.signal, {})[row.score] = {
                "auc": plain.value, "auc_error": plain.error, "auc_pt": flat.value, "auc_pt_error": flat.error
            }  # fmt: skip
    return out


def _search(output: Path, seed: int) -> dict[str, Any]:
    from coffea_ad.search.config import FitConfig, SearchConfig
    from coffea_ad.search.search import search

    # more parameters would describe so wide a signal as well
    config = SearchConfig(observables=("mt",), regions=_REGIONS, fit=FitConfig(orders=(3, 3)), toys=300, seed=seed)
    return search(output / "results", output / "search", config)


def _yields(results: Results) -> dict[str, dict[str, float]]:
    """Return the expected events per region and dataset, at luminosity, and those of data."""
    out: dict[str, dict[str, float]] = {}
    for dataset in results.in_regions:
        histogram = results.scaled(dataset, "mt")
        for region in histogram.axes["region"]:
            total = histogram[{"region": region, "variation": "nominal"}].sum(flow=True)
            out.setdefault(region, {})[dataset] = float(total.value)
    return out


def _print(summary: dict[str, Any]) -> None:
    for signal, rows in summary["auc"].items():
        table = Table(
            "score", "AUC", "AUC, pT spectra matched", title=f"held-out background jets against jets of {signal}"
        )
        for name, row in rows.items():
            table.add_row(name, *(f"{row[k]:.3f} ± {row[k + '_error']:.3f}" for k in ("auc", "auc_pt")))
        _console.print(table)
    datasets = [*_SAMPLES, "data"]
    signals = ", ".join(f"{name} at {xsec:g} pb" for name, xsec in _SIGNALS.items())
    table = Table("region", *datasets, title=f"events at {summary['lumi']:.3g} fb⁻¹ ({signals})")
    for region, yields in summary["yields"].items():
        table.add_row(region, *(f"{yields.get(d, 0.0):.4g}" for d in datasets))
    _console.print(table)
    _console.print(summary["search"]["verdict"], soft_wrap=True)


def demo(output: Path, *, seed: int = 1, scale: float = 1.0, workers: int = 2) -> dict[str, Any]:
    """Run the chain and write everything under `output`.

    Parameters
    ----------
    output : Path
        Gets `samples/`, `skims/`, `models/`, `evaluation/`, `results/`, `search/`, `report.html` and `summary.json`.
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
    skims, models, results_folder = output / "skims", output / "models", output / "results"
    cluster: dict[str, Any] = {"executor": "dask", "workers": workers, "chunksize": 4000, "force": True}
    with _step("simulate QCD, tt̄ and semivisible jets, and what stands for data", seconds):
        fileset, lumi = _simulate(output / "samples", seed, scale)
    with _step("skim", seconds):
        simulated = {name: fileset[name] for name in _SAMPLES}
        run(simulated, "skim_jets", config="skim_jets.yaml", output=skims, **cluster)
    with _step("train a VAE and two AEs, export them with their cards, let thresholds follow pT", seconds):
        _train(models, skims, seed, scale)
        _thresholds(models, skims)
    with _step("evaluate", seconds):
        summary: dict[str, Any] = {"seed": seed, "scale": scale, "lumi": lumi}
        summary["auc"] = _evaluate(models, skims, output / "evaluation", seed)
    with _step("run the search on a local dask cluster, and draw", seconds):
        run(
            fileset, "semivisible_jets", model=models / f"{next(iter(_MODELS))}.onnx", config="semivisible_jets.yaml",
            output=results_folder, lumi=lumi, overrides=_SEARCH, **cluster,
        )  # fmt: skip
        draw_results(results_folder)
    with _step("hunt for bumps in the transverse mass, and set limits", seconds):
        hunted = _search(output, seed)
    with _step("write all of it onto one page", seconds):
        others = [output / "search", output / "evaluation", models]
        write_report(results_folder, others, output / "report.html", title=f"coffea-ad demo, seed {seed}")
    summary["yields"] = _yields(load_results(results_folder))
    bumps = {name: of["bumps"][of["statistic"]] for name, of in hunted["spectra"].items()}
    summary["search"] = {"bumps": bumps} | {key: hunted[key] for key in ("verdict", "statistic", "global", "limits")}
    summary["seconds"] = {**seconds, "all": round(time.monotonic() - started, 1)}
    files.write(output / "summary.json", json.dumps(summary, indent=1).encode())
    _print(summary)
    _console.print(f"{summary['seconds']['all']:.0f} s; summary in {output / 'summary.json'}", soft_wrap=True)
    _console.print(str(output / "report.html"), soft_wrap=True)
    return summary
