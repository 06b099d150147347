"""`coffea-ad acceptance`: what a signal of one's own has in the regions of a model."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from coffea_ad.cli.words import forcible, out, table_of
from coffea_ad.outputs import check_folder

if TYPE_CHECKING:
    from coffea_ad.search.acceptance import Acceptance

__all__ = ["add_acceptance"]

_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def _acceptance(args: argparse.Namespace) -> int:
    from coffea_ad.search.acceptance import acceptance
    from coffea_ad.search.bundle import BUNDLE, CONTENT, write_acceptance

    check_folder(args.output, (CONTENT, BUNDLE, "results", "report.json", "manifest.json"), force=args.force)
    overrides = [word for word in args.files if _OVERRIDE.match(word)]
    measured = acceptance(
        args.model, [word for word in args.files if not _OVERRIDE.match(word)], args.output, processor=args.processor,
        config=args.config, overrides=overrides, background=args.background, search=args.search, tree=args.tree,
        executor=args.executor, workers=args.workers,
    )  # fmt: skip
    write_acceptance(measured, args.model, args.output, search=args.search)
    _show(measured)
    out.print(f"acceptance and bundle in {args.output}", soft_wrap=True, markup=False)
    return 0


def _show(measured: Acceptance) -> None:
    """Print the regions, and what they exclude."""
    columns = ["region", "A × ε", "error", "N_eff"]
    with_background = any(r.background_efficiency is not None for r in measured.regions.values())
    table = table_of(
        f"{measured.processor}: {measured.events} events of {len(measured.files)} files, counted by {measured.counted_by}",
        *columns, *(["ε_B", "unique", "beside the cut"] if with_background else []), *(["σ < pb", "expected"] if measured.limits else []),
    )  # fmt: skip
    for name, region in measured.regions.items():
        row = [name, f"{region.value:.4g}", f"{region.error:.2g}", f"{region.n_effective:.1f}"]
        if with_background:
            least = region.least_unique
            row.append("–" if region.background_efficiency is None else f"{region.background_efficiency:.3g}")
            row += ["–", "–"] if least is None else [f"{least.value:.4g} ± {least.error:.2g}", _cut(least)]
        if measured.limits:
            limit = measured.limits.get(name)
            row += ["–", "–"] if limit is None else [_number(limit.observed), _number(limit.expected)]
        table.add_row(*row)
    out.print(table)
    if measured.best_region is not None:
        best = measured.limits[measured.best_region]
        observed = "no observed limit" if best.observed is None else f"σ < {best.observed:.4g} pb"
        out.print(
            f"{observed}, expected {best.expected:.4g} pb, in region {measured.best_region}, which expects the lowest; A × ε is known "
            f"to {100 * best.relative_error:.1f} %", soft_wrap=True, markup=False,
        )  # fmt: skip
    for note in measured.notes:
        out.print(f"note: {note}", soft_wrap=True, markup=False)


def _cut(unique: Any) -> str:
    sign = "≥" if unique.side == "above" else "≤"
    return f"{unique.observable} {sign} {unique.cut:.4g}, which takes {unique.cut_acceptance:.3g}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def add_acceptance(verbs: Any) -> None:
    """Add the words of `acceptance`."""
    p = verbs.add_parser(
        "acceptance", help="acceptance × efficiency of a signal in the regions of a model, from its NanoAOD"
    )
    p.add_argument("model")
    p.add_argument(
        "files",
        nargs="+",
        metavar="SIGNAL.root | key=value",
        help="files of one signal; keys of the processor's configuration",
    )
    p.add_argument("-o", "--output", required=True, help="folder for the numbers, the results and the bundle")
    p.add_argument("--processor", help="name or file (default: the one that is made for such a model)")
    p.add_argument("--config", help="of the processor, as for run")
    p.add_argument(
        "--background", metavar="RESULTS", help="of the same processor and model, for the unique efficiencies"
    )
    p.add_argument(
        "--search", metavar="FOLDER", help="of a search, with limits on visible cross-sections in limits.json"
    )
    p.add_argument("--tree", default="Events")
    p.add_argument("-e", "--executor", choices=("iterative", "futures", "dask"), default="iterative")
    p.add_argument("--workers", type=int, help="processes (default: 2)")
    forcible(p)
    p.set_defaults(do=_acceptance)
