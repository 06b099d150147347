"""The command line: `coffea-ad VERB …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coffea_ad.errors import BadModel, CoffeaADError, ConfigError

__all__ = ["main"]

_out = Console()


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _demo(args: argparse.Namespace) -> int:
    from coffea_ad.demo import demo

    demo(Path(args.output), seed=args.seed, scale=args.scale, workers=args.workers)
    return 0


def _simulate(args: argparse.Namespace) -> int:
    from coffea_ad.config import parse_overrides
    from coffea_ad.simulation import PROCESSES, simulate

    if args.name is None:
        table = _table("processes", "name", "what", "parameters")
        for name, process in PROCESSES.items():
            parameters = ", ".join(f"{k}={v}" for k, v in process.parameters.items())
            table.add_row(name, process.title, parameters)
        _out.print(table)
        return 0
    output = args.output or f"{args.name}.root"
    record = simulate(
        args.name, args.events, output, seed=args.seed, layout=args.layout,
        parameters=parse_overrides(args.parameters), workers=args.workers,
    )  # fmt: skip
    _out.print(f"{output}: {record['n_events']} events, cross-section {record['cross_section']:.4g} pb", soft_wrap=True)
    return 0


def _ls(_: argparse.Namespace) -> int:
    from coffea_ad import recipes

    table = _table("recipes: run them by name, or take one with `coffea-ad cp`", "name", "kind", "what")
    for recipe in recipes.available():
        table.add_row(recipe.name, recipe.kind, recipe.title)
    _out.print(table)
    return 0


def _features(args: argparse.Namespace) -> int:
    from coffea_ad.config import parse_overrides
    from coffea_ad.features import listing

    if args.name is None:
        table, broken = listing.overview()
        _out.print(table)
        for sentence in broken:
            _out.print(f"note: {sentence}", soft_wrap=True)
    else:
        for table in listing.details(args.name, parse_overrides(args.options), args.collection, every=args.all):
            _out.print(table)
    return 0


def _cp(args: argparse.Namespace) -> int:
    from coffea_ad import recipes

    for path in recipes.copy(args.name, args.target):
        _out.print(str(path), soft_wrap=True)
    return 0


def _run(args: argparse.Namespace) -> int:
    from coffea_ad import recipes

    overrides = [*args.overrides, *(["unblind=true"] if args.unblind else [])]
    module = recipes.load(args.recipe)
    if recipes.kind_of(module) == "training":
        return _train(module, args, overrides)
    if args.fileset is None:
        raise ConfigError(f"{args.recipe}: a processor needs --fileset")
    from coffea_ad.running import run

    report = run(
        args.fileset, args.recipe, model=args.model, config=args.config, overrides=overrides, executor=args.executor,
        workers=args.workers, scheduler=args.scheduler, chunksize=args.chunksize, output=args.output, lumi=args.lumi,
        test=args.test, allow_missing=args.allow_missing,
    )  # fmt: skip
    table = _table(
        f"{args.recipe}: {report.events_per_second / 1000:.2f} kHz", "dataset", "files", "chunks", "events", "sumw"
    )
    for name, d in report.datasets.items():
        chunks = f"{d['chunks_processed']}/{d['chunks_expected']}"
        table.add_row(name, str(len(d["files"])), chunks, str(d["events"]), f"{d['sumw']:.6g}")
    _out.print(table)
    for note in report.notes:
        _out.print(f"note: {note}", soft_wrap=True)
    for d in report.datasets.values():
        for missing in d["missing"]:
            _out.print(f"missing: {missing}", soft_wrap=True)
    if args.output is not None:
        drawn = _draw(Path(args.output))
        _out.print(f"results in {args.output}" + (f", {drawn} figures" if drawn else ""), soft_wrap=True)
    return 0


def _draw(folder: Path) -> int:
    """Draw every observable in every region; nothing without histograms or without the plot extra."""
    import importlib.util

    from coffea_ad.results import load_results

    results = load_results(folder)
    if not results.histograms or importlib.util.find_spec("mplhep") is None:
        return 0
    from coffea_ad import plotting

    drawn = 0
    first = next(iter(results.histograms.values()))
    for observable, histogram in first.items():
        for region in histogram.axes["region"]:
            plotting.stack(results, observable, region, folder / "figures" / f"{observable}_{region}.png")
            drawn += 1
    return drawn


def _train(module: Any, args: argparse.Namespace, overrides: Sequence[str]) -> int:
    from coffea_ad import recipes
    from coffea_ad.config import load_config

    if args.output is None:
        raise ConfigError(f"{args.recipe}: say where the model goes with -o MODEL.onnx")
    path = recipes.find_config(args.config) if args.config is not None else None
    config = load_config(module.Config, path, overrides)
    summary = module.train(config, Path(args.output))
    _out.print(f"{args.output}: regions {', '.join(summary['regions']) or 'none'}", soft_wrap=True)
    _out.print("kept epoch: " + ", ".join(f"{k} {v:.4g}" for k, v in summary["best"].items()), soft_wrap=True)
    _out.print(f"effective number of rows: {summary['n_effective']:.0f}")
    return 0


def _card(args: argparse.Namespace) -> int:
    words = args.words
    if words[0] == "attach":
        return _attach(args)
    if len(words) != 1:
        raise ConfigError("card takes one model file, or: card attach MODEL CARD.yaml")
    from coffea_ad.tagger import Tagger

    tagger = Tagger(words[0])
    card = tagger.card
    session = tagger.scorer.session
    table = _table(f"{words[0]}", "what", "value")
    table.add_row(
        "name",
        f"{card.name} ({card.method}, " + (f"jet level, {card.collection})" if card.level == "jet" else "event level)"),
    )
    table.add_row("digest", f"{tagger.scorer.digest[:16]}… verified")
    rows = len(card.golden.scores) if card.golden else 0
    table.add_row("golden rows", f"{rows} re-evaluated, all right" if rows else "none")
    for spec in card.inputs:
        for f in spec.features:
            shown = [c.name + (f" [{c.unit}]" if c.unit else "") for c in f.columns[:60]]
            columns = ", ".join(shown) + (f", … ({len(f.columns)})" if len(f.columns) > 60 else "")
            table.add_row(
                f"input {spec.name}",
                f"{f.key} v{f.version}: {columns}",
            )
            table.add_row("  options", ", ".join(f"{k}={v}" for k, v in f.options.items()))
    table.add_row("graph", f"{len(session.get_inputs())} input, output {card.output}")
    if card.calibration:
        table.add_row("calibration", f"{card.calibration.derived_from}; N_eff {card.calibration.n_effective:.0f}")
    for r in card.regions:
        where = ", ".join(f"{t:.3f}" for t in r.thresholds)
        table.add_row(
            f"region {r.name}", f"ad_logp ≥ {where} ± {r.error:.3f}; ε_B {r.efficiency:g}, N_eff {r.n_effective:.0f}"
        )
    table.add_row("NanoAOD", ", ".join(card.flavours))
    table.add_row("versions", ", ".join(f"{k} {v}" for k, v in card.provenance.get("versions", {}).items()))
    _out.print(table)
    return 0


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadModel(f"{path}: cannot be read ({error.strerror})") from None


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)
    _out.print(str(path), soft_wrap=True)


def _attach(args: argparse.Namespace) -> int:
    from coffea_ad.config import load_config
    from coffea_ad.recard import AttachConfig, attach

    if len(args.words) != 3:
        raise ConfigError("card attach takes a model file and a YAML file")
    model, described = args.words[1:]
    config = load_config(AttachConfig, described)
    sealed = attach(_read(model), config, background=args.background, datasets=args.datasets, name=model)
    _write(Path(args.output or Path(model).with_name(Path(model).stem + "-card.onnx")), sealed)
    return 0


def _regions(args: argparse.Namespace) -> int:
    from coffea_ad.recard import new_regions

    sealed = new_regions(
        _read(args.model), args.source, efficiencies=args.efficiency,
        visible_cross_sections=args.visible_cross_section, datasets=args.datasets, name=args.model,
    )  # fmt: skip
    _write(Path(args.output or Path(args.model).with_name(Path(args.model).stem + "-regions.onnx")), sealed)
    return 0


def _parser() -> argparse.ArgumentParser:
    from coffea_ad._version import __version__

    parser = argparse.ArgumentParser(prog="coffea-ad", description="Anomaly detection for coffea.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    p = verbs.add_parser("demo", help="the whole chain on simulated events")
    p.add_argument("-o", "--output", default="build/demo")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of events and epochs")
    p.add_argument("--workers", type=int, default=2)
    p.set_defaults(do=_demo)

    p = verbs.add_parser("simulate", help="physics samples in NanoAOD layout; without a name: what there is")
    p.add_argument("name", nargs="?")
    p.add_argument("parameters", nargs="*", metavar="key=value", help="parameters of the process")
    p.add_argument("-n", "--events", type=int, default=1000)
    p.add_argument("-o", "--output", help="ROOT file (default: NAME.root)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--layout", choices=("v15", "pfnano"), default="v15")
    p.add_argument("--workers", type=int, help="processes (default: all cores)")
    p.set_defaults(do=_simulate)

    p = verbs.add_parser("ls", help="processors and training recipes")
    p.set_defaults(do=_ls)

    p = verbs.add_parser("features", help="the table of features; with a name: one in full")
    p.add_argument("name", nargs="?")
    p.add_argument("options", nargs="*", metavar="key=value", help="options of the feature")
    p.add_argument("--collection", default="FatJet")
    p.add_argument("--all", action="store_true", help="all columns")
    p.set_defaults(do=_features)

    p = verbs.add_parser("cp", help="copy a recipe, to edit it")
    p.add_argument("name")
    p.add_argument("target")
    p.set_defaults(do=_cp)

    p = verbs.add_parser("run", help="run a processor or a training recipe, by name or by path")
    p.add_argument("recipe")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the configuration")
    p.add_argument("--config", help="YAML file, or a shipped one such as wnae/svj.yaml")
    p.add_argument("-o", "--output", help="results folder, or model file of a training")
    p.add_argument("--fileset", help="JSON: dataset → files and metadata")
    p.add_argument("--model", action="append", default=[], help="model file; may be given several times")
    p.add_argument("--executor", choices=("iterative", "futures", "dask"), default="dask")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--scheduler", help="address of a dask scheduler (default: an own cluster on the loopback address)")
    p.add_argument("--chunksize", type=int, default=100_000)
    p.add_argument("--lumi", type=float, default=1.0, help="fb⁻¹, for normalised histograms")
    p.add_argument("--test", action="store_true", help="one file and one chunk per dataset")
    p.add_argument("--allow-missing", action="store_true", help="go on without unreadable files, and name them")
    p.add_argument("--unblind", action="store_true", help="show data in the tightest region")
    p.set_defaults(do=_run)

    p = verbs.add_parser("card", help="print and re-check a model's card; card attach MODEL CARD.yaml: give it one")
    p.add_argument("words", nargs="+", metavar="MODEL | attach MODEL CARD.yaml")
    p.add_argument("-o", "--output")
    p.add_argument("--background", help="skim that calibrates an attached model")
    p.add_argument("--datasets", nargs="+", default=(), help="datasets of the background")
    p.set_defaults(do=_card)

    p = verbs.add_parser("regions", help="new thresholds on the same network")
    p.add_argument("model")
    p.add_argument("--from", dest="source", required=True, help="results folder or skim")
    p.add_argument("--efficiency", type=float, nargs="+", default=())
    p.add_argument("--visible-cross-section", type=float, nargs="+", default=(), help="pb")
    p.add_argument("--datasets", nargs="+", default=(), help="datasets of the background")
    p.add_argument("-o", "--output")
    p.set_defaults(do=_regions)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; an error of ours is one sentence on standard error and exit code 1."""
    parser = _parser()
    # argparse takes positional words in one piece only; key=value may stand anywhere.
    args, rest = parser.parse_known_args(argv)
    wrong = [word for word in rest if word.startswith("-") or "=" not in word or args.verb not in ("run", "simulate")]
    if wrong:
        parser.error(f"{args.verb}: {' '.join(wrong)} is not understood")
    if rest:
        name = "overrides" if args.verb == "run" else "parameters"
        setattr(args, name, [*getattr(args, name), *rest])
    try:
        return int(args.do(args))
    except CoffeaADError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
