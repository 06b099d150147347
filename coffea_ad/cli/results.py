"""What a run did in words and figures; `coffea-ad merge` and `export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from coffea_ad import files
from coffea_ad.cli.words import forcible, out, show_table
from coffea_ad.errors import ConfigError

__all__ = ["add_export", "add_merge", "add_plot", "plot_figures", "show"]


def show(report: Any, output: str | None, *, figures: bool = True, style: str | None = None) -> None:
    """Print what a run did: datasets, failures, notes, speed."""
    from coffea_ad.results.listing import datasets_table
    from coffea_ad.running.reports import missing_files

    t = report.throughput
    at = "" if report.lumi is None else f", at {report.lumi:g} fb⁻¹"
    rates = f"{t['event_rate_elapsed_khz']:.2f} kHz, {t['event_rate_cpu_total_khz']:.2f} kHz per CPU core"
    show_table(datasets_table(report.datasets, f"{report.processor}{at}: {rates}"))
    for note in report.notes:
        out.print(f"note: {note}", soft_wrap=True, markup=False)
    for model, seen in report.inputs.items():
        for dataset, counted in seen["datasets"].items():
            lost = ", ".join(f"{column} {n}" for column, n in counted["undefined"].items())
            if lost:
                out.print(f"undefined inputs of {model} in {dataset}: {lost}", soft_wrap=True, markup=False)
    for sentence in missing_files(report.failed):
        out.print(f"missing: {sentence}", soft_wrap=True, markup=False)
    if output is None:
        out.print("nothing was written; -o FOLDER keeps the results", soft_wrap=True)
    else:
        drawn = plot_figures(output, style=style) if figures else 0
        if style and not figures:
            from coffea_ad.plotting.drawing import keep_style, style_of

            keep_style(output, style_of(style))
        out.print(f"results in {output}" + (f", {drawn} figures" if drawn else ""), soft_wrap=True, markup=False)


def _merge(args: argparse.Namespace) -> int:
    from coffea_ad.results.listing import datasets_table
    from coffea_ad.running.merging import merge

    results = merge(args.folders, args.output, force=args.force)
    show_table(datasets_table(results.report["datasets"], "merged"))
    for note in results.report["notes"]:
        out.print(f"note: {note}", soft_wrap=True, markup=False)
    out.print(args.output, soft_wrap=True, markup=False)
    return 0


def _export(args: argparse.Namespace) -> int:
    from coffea_ad import outputs
    from coffea_ad.results.folder import load_results
    from coffea_ad.results.root_export import write_root

    outputs.check_file(args.output, suffix=".root", force=args.force)
    paths, notes = write_root(
        load_results(args.folder), args.output, observables=args.observable, regions=args.region, era=args.era,
        asimov=args.asimov,
    )  # fmt: skip
    for note in notes:
        out.print(f"note: {note}", soft_wrap=True, markup=False)
    names = {part: dict.fromkeys(path.split("/")[part] for path in paths) for part in (0, 1)}
    out.print(
        f"{len(paths)} histograms of {', '.join(names[0])} in {len(names[1])} regions", soft_wrap=True, markup=False
    )
    out.print(args.output, soft_wrap=True, markup=False)
    return 0


def plot_figures(
    folder: str, *, style: str | None = None, words: Sequence[str] = (), observables: Sequence[str] = (), regions: Sequence[str] = ()
) -> int:  # fmt: skip
    """Draw the figures of results; nothing without the plot extra."""
    if not _can_draw():
        return 0
    from coffea_ad.plotting.drawing import draw_results

    return draw_results(folder, style=style, words=words, observables=observables, regions=regions)


def _can_draw() -> bool:
    import importlib.util

    return importlib.util.find_spec("mplhep") is not None


def _plot(args: argparse.Namespace) -> int:
    if not _can_draw():
        raise ConfigError("figures need mplhep: pip install 'coffea-ad[plot]'")
    n = plot_figures(
        args.folder, style=args.style, words=args.overrides, observables=args.observable, regions=args.region
    )
    out.print(f"{n} figures in {files.join(args.folder, 'figures')}", soft_wrap=True, markup=False)
    return 0


def add_plot(verbs: Any) -> None:
    """Add the words of `plot`."""
    p = verbs.add_parser("plot", help="draw the figures of results, without running")
    p.add_argument("folder", help="results folder")
    p.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the style, such as log=false")
    p.add_argument("--style", metavar="STYLE.yaml", help="labels, colours, order, groups, factor on signals, formats")
    p.add_argument("--observable", action="append", default=[], help="may be repeated (default: all)")
    p.add_argument("--region", action="append", default=[], help="may be repeated (default: all)")
    p.set_defaults(do=_plot)


def add_merge(verbs: Any) -> None:
    """Add the words of `merge`."""
    p = verbs.add_parser("merge", help="add results folders, such as those of several years")
    p.add_argument("folders", nargs="+")
    p.add_argument("-o", "--output", required=True, help="a new folder")
    forcible(p)
    p.set_defaults(do=_merge)


def add_export(verbs: Any) -> None:
    """Add the words of `export`."""
    p = verbs.add_parser("export", help="results as ROOT histograms with the names of combine")
    p.add_argument("folder", help="results folder")
    p.add_argument("-o", "--output", required=True, help="a .root file")
    p.add_argument("--observable", action="append", default=[], help="may be repeated (default: all)")
    p.add_argument("--region", action="append", default=[], help="may be repeated (default: all)")
    p.add_argument("--era", help="one only (default: all are added)")
    p.add_argument("--asimov", action="store_true", help="data_obs is the sum of the backgrounds")
    forcible(p)
    p.set_defaults(do=_export)
