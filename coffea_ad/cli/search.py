"""`coffea-ad search`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from coffea_ad.cli.words import cluster_of, forcible, out, refuse_url, show_table, table_of
from coffea_ad.errors import ConfigError
from coffea_ad.outputs import check_folder

if TYPE_CHECKING:
    from coffea_ad.search.listing import SearchResults

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


def show(content: SearchResults) -> None:
    """Print what came of a search, its verdict last."""
    from coffea_ad.search.listing import search_sentences, search_tables

    for table in search_tables(content):
        show_table(table)
    verdict, *others = search_sentences(content)
    for sentence in [*others, verdict]:
        out.print(sentence, soft_wrap=True, markup=False)


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
