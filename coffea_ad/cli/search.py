"""`coffea-ad search`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from coffea_ad.cli.words import cluster_of, forcible, out, refuse_url, table_of
from coffea_ad.errors import ConfigError
from coffea_ad.outputs import check_folder

__all__ = ["add_search"]

_EXAMPLES = """\
examples:
  coffea-ad search results/ -o search/
  coffea-ad search results/ -o search/ observables=[mjj] toys=5000 fit.family=ua2 --workers 8
  coffea-ad search results/ -o search/ 'abcd=[{observable: met, region: loose_2tag, cut: 240}]'
  coffea-ad search spectra.root -o search/ sqrt_s=13000
"""


def _search(args: argparse.Namespace) -> int:
    from coffea_ad.config import keys_of, load_config
    from coffea_ad.search.config import SearchConfig
    from coffea_ad.search.search import search

    if args.keys:
        table = table_of("search", "key", "default", "what it is")
        for key in keys_of(SearchConfig):
            table.add_row(key.name, str(key.default), key.description)
        out.print(table)
        return 0
    if args.folder is None or args.output is None:
        raise ConfigError("say which results, and where the search goes: coffea-ad search results/ -o search/")
    refuse_url(args.output, "search")
    config = load_config(SearchConfig, args.config, args.overrides)
    check_folder(args.output, ("search.json",), force=args.force)
    content = search(args.folder, args.output, config, cluster=_cluster(args), figures=args.figures)
    show(content)
    out.print(f"search in {args.output}", soft_wrap=True, markup=False)
    return 0


def _cluster(args: argparse.Namespace) -> Any:
    from coffea_ad.running.clusters.config import load_cluster

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = cluster_of(args)
    if asked is not None:
        return asked
    workers = cores if args.workers is None else args.workers
    return None if workers <= 1 else load_cluster(workers=workers)


def show(content: dict[str, Any]) -> None:
    """Print what came of a search."""
    of = content["statistic"]
    table = table_of(
        f"{len(content['spectra'])} spectra of {content['source']}",
        "spectrum",
        "events",
        "fit",
        "largest excess",
        "p in spectrum",
    )
    for name, s in content["spectra"].items():
        bump, worth, fit = s["bumps"][of], s["global"][of], s["fit"]
        excess = "none" if bump is None else (
            f"{bump['local']:.1f}σ, {bump['low']:.0f}–{bump['high']:.0f} GeV: {bump['events']:g} for {bump['expected']:.1f}"
        )  # fmt: skip
        described = f"{fit['family']} {fit['order']} from {s['edges'][0]:.0f} GeV, p {fit['goodness']['p_value']:.2f}"
        table.add_row(
            name, f"{sum(s['counts']):.0f}", described, excess, "–" if worth is None else f"{worth['p_value']:.2g}"
        )
    if content["spectra"] or not content["templates"]:
        out.print(table)
    _templates(content["templates"])
    for sentence in content["skipped"].values():
        out.print(f"left out: {sentence}", soft_wrap=True, markup=False)
    for note in content["notes"]:
        out.print(f"note: {note}", soft_wrap=True, markup=False)
    for place in content["confirmed"]:
        told = place["said"] or (
            f"{place['events']:g} events, {place['expected']:.1f} ± {place['error']:.1f} expected, {place['significance']:.1f}σ, "
            f"p = {place['p_value']:.2g} with the number of places"
        )
        out.print(
            f"in the rest, {place['spectrum']} at {place['low']:.0f} to {place['high']:.0f} GeV: {told}",
            soft_wrap=True,
            markup=False,
        )
    _limits(content["limits"])
    for estimate in content["abcd"]:
        for sentence in estimate["sentences"]:
            out.print(sentence, soft_wrap=True, markup=False)
    if (worth := content["global"][of]) is not None:
        out.print(
            f"5σ global need {worth['local_for_5_sigma']:.1f}σ local ({worth['trials_at_5_sigma']:.0f} trials: {len(content['spectra'])} spectra, "
            "all positions and widths)",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    out.print(content["verdict"], soft_wrap=True, markup=False)


def _templates(counts: list[dict[str, Any]]) -> None:
    """Print counts against templates."""
    if not counts:
        return
    table = table_of("counted against templates", "region", "window", "events", "expected", "significance")
    for c in counts:
        table.add_row(
            c["region"], f"{c['spectator']} {c['low']:g}–{c['high']:g}", f"{c['events']:g}", f"{c['expected']:.1f} ± {c['error']:.1f}",
            f"{c['significance']:+.1f}σ",
        )  # fmt: skip
    out.print(table)


def _limits(limits: list[dict[str, Any]]) -> None:
    """Print the range of the limits of every spectrum, and those of simulated signals."""
    table = table_of("95 % CLs limits", "spectrum", "signal", "observed", "expected", "unit", "by")
    for limit in limits:
        if limit["expected"] and limit["signal"]:
            pb = limit.get("signal_cross_section") or limit.get("cross_section")
            observed, expected = (
                (pb["observed"], pb["expected"][2]) if pb else (limit["observed"], limit["expected"][2])
            )
            table.add_row(
                limit["spectrum"],
                limit["signal"],
                f"{observed:.3g}",
                f"{expected:.3g}",
                "pb" if pb else "events",
                limit["method"],
            )
    if table.row_count:
        out.print(table)


def add_search(verbs: Any) -> None:
    """Add the words of `search`."""
    p = verbs.add_parser(
        "search", help="bumps in the spectra of results: background fits, scans, global p-values", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("folder", nargs="?", metavar="RESULTS", help="results folder, .root file or UHI .json")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="of the configuration; --keys lists them")
    p.add_argument("-o", "--output")
    p.add_argument("--config", metavar="FILE.yaml")
    p.add_argument("--keys", action="store_true", help="list all keys of the configuration")
    p.add_argument("--workers", type=int, help="processes for pseudo-experiments (default: one of each core)")
    p.add_argument("--cluster", help="local, slurm, htcondor, …, or a YAML of one")
    p.add_argument("--site", help="lpc or lxplus")
    p.add_argument("--scheduler", help="address of a dask scheduler")
    p.add_argument("--minimum", type=int, help="scale between this and --workers")
    p.add_argument("--no-figures", dest="figures", action="store_false")
    forcible(p)
    p.set_defaults(do=_search)
