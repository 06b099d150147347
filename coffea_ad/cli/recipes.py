"""What there is: recipes, features, simulated processes, and the demo."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from coffea_ad.cli.words import forcible, out, table_of
from coffea_ad.errors import ConfigError
from coffea_ad.outputs import check_file, check_folder

__all__ = ["add_cp", "add_demo", "add_features", "add_ls", "add_simulate", "add_skim_from"]

_OPTION = re.compile(r"[A-Za-z_]\w*=")


def _demo(args: argparse.Namespace) -> int:
    import importlib.util

    from coffea_ad.demo import demo

    for package in (
        "pythia8mc",
        "torch",
        "onnx",
        "sklearn",
        "mplhep",
        "iminuit",
        "pyhf",
        "jinja2",
    ):  # of all its steps, before the first
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(package, name=package)
    check_folder(args.output, ("report.json", "manifest.json", "evaluation.json"), force=args.force)  # of other verbs
    demo(Path(args.output), seed=args.seed, scale=args.scale, workers=args.workers)
    return 0


def _simulate(args: argparse.Namespace) -> int:
    from coffea_ad.config import parse_overrides
    from coffea_ad.simulation import PROCESSES, simulate

    if args.name is None:
        table = table_of("processes", "name", "what", "parameters")
        for name, process in PROCESSES.items():
            parameters = ", ".join(f"{k}={v}" for k, v in process.parameters.items())
            table.add_row(name, process.title, parameters)
        out.print(table)
        return 0
    output = args.output or f"{args.name}.root"
    if args.name in PROCESSES:
        check_file(output, suffix=".root", force=args.force)
    record = simulate(
        args.name, args.events, output, seed=args.seed, layout=args.layout,
        parameters=parse_overrides(args.parameters), workers=args.workers,
    )  # fmt: skip
    out.print(f"{output}: {record['n_events']} events, cross-section {record['cross_section']:.4g} pb", soft_wrap=True)
    return 0


def _skim_from(args: argparse.Namespace) -> int:
    from coffea_ad.config import parse_overrides
    from coffea_ad.skims.importing import FORMATS, skim_from

    if not args.files:
        table = table_of("formats of public files", "format", "what", "feature")
        for name, form in FORMATS.items():
            options = ", ".join(f"{k}={v}" for k, v in form.options.items())
            table.add_row(name, form.title, f"{form.feature} {options}".strip())
        out.print(table)
        return 0
    if args.format is None or args.output is None:
        raise ConfigError("skim-from needs --format and -o FOLDER; without files it lists the formats")
    overrides = [word for word in args.files if _OPTION.match(word)]
    check_folder(args.output, ("manifest.json", "report.json", "evaluation.json"), force=args.force)
    datasets = skim_from(
        [word for word in args.files if not _OPTION.match(word)], args.format, args.output,
        options=parse_overrides(overrides), dataset=args.dataset, signals=args.signal or ("signal",), events=args.events,
    )  # fmt: skip
    table = table_of(str(args.output), "dataset", "events", "undefined", "sum of weights", "")
    for name, facts in sorted(datasets.items()):
        kind = "signal" if facts["is_signal"] else ""
        table.add_row(name, str(facts["events"]), str(facts["undefined"]), f"{facts['sumw']:.6g}", kind)
    out.print(table)
    return 0


def _ls(_: argparse.Namespace) -> int:
    from coffea_ad import recipes

    title = (
        "recipes: run them by name, list their keys with `coffea-ad run NAME --help`, or take one with `coffea-ad cp`"
    )
    table = table_of(title, "name", "kind", "what", "configurations")
    table.columns[-1].no_wrap = True
    for recipe in recipes.available():
        table.add_row(recipe.name, recipe.kind, recipe.title, "\n".join(recipe.configurations))
    out.print(table)
    return 0


def _features(args: argparse.Namespace) -> int:
    from coffea_ad.config import parse_overrides
    from coffea_ad.features import listing

    if args.name is None:
        table, broken = listing.overview()
        out.print(table)
        for sentence in broken:
            out.print(f"note: {sentence}", soft_wrap=True)
    else:
        for table in listing.details(args.name, parse_overrides(args.options), args.collection, every=args.all):
            out.print(table)
    return 0


def _cp(args: argparse.Namespace) -> int:
    from coffea_ad import recipes

    for path in recipes.copy(args.name, args.target, force=args.force):
        out.print(str(path), soft_wrap=True)
    return 0


def add_demo(verbs: Any) -> None:
    """Add the words of `demo`."""
    p = verbs.add_parser("demo", help="the whole chain on simulated events")
    p.add_argument("-o", "--output", default="build/demo")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of events and epochs")
    p.add_argument("--workers", type=int, default=2)
    forcible(p)
    p.set_defaults(do=_demo)


def add_simulate(verbs: Any) -> None:
    """Add the words of `simulate`."""
    p = verbs.add_parser("simulate", help="physics samples in NanoAOD layout; without a name: what there is")
    p.add_argument("name", nargs="?")
    p.add_argument("parameters", nargs="*", metavar="key=value", help="parameters of the process")
    p.add_argument("-n", "--events", type=int, default=1000)
    p.add_argument("-o", "--output", help="ROOT file (default: NAME.root)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--layout", choices=("v15", "pfnano"), default="v15")
    p.add_argument("--workers", type=int, help="processes (default: all cores)")
    forcible(p)
    p.set_defaults(do=_simulate)


def add_skim_from(verbs: Any) -> None:
    """Add the words of `skim-from`."""
    p = verbs.add_parser("skim-from", help="public benchmark files to a skim; without files: what formats there are")
    p.add_argument("files", nargs="*", metavar="FILE|key=value", help="files, and options of the feature")
    p.add_argument("--format", help="lhco, lhco-raw, lhco-npy, darkmachines or adc2021")
    p.add_argument("-o", "--output", help="folder of the skim")
    p.add_argument("--dataset", help="name of events without label or process (default: that of their file)")
    p.add_argument("--signal", action="append", metavar="DATASET", help="which datasets are signals (default: signal)")
    p.add_argument("--events", type=int, help="at most so many of each file")
    forcible(p)
    p.set_defaults(do=_skim_from)


def add_ls(verbs: Any) -> None:
    """Add the words of `ls`."""
    p = verbs.add_parser("ls", help="processors and training recipes")
    p.set_defaults(do=_ls)


def add_features(verbs: Any) -> None:
    """Add the words of `features`."""
    p = verbs.add_parser("features", help="the table of features; with a name: one in full")
    p.add_argument("name", nargs="?")
    p.add_argument("options", nargs="*", metavar="key=value", help="options of the feature")
    p.add_argument("--collection", default="FatJet")
    p.add_argument("--all", action="store_true", help="all columns")
    p.set_defaults(do=_features)


def add_cp(verbs: Any) -> None:
    """Add the words of `cp`."""
    p = verbs.add_parser("cp", help="copy a recipe, to edit it")
    p.add_argument("name")
    p.add_argument("target")
    forcible(p)
    p.set_defaults(do=_cp)
