"""The command line: `coffea-ad VERB …`."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import traceback
from collections.abc import Sequence

from coffea_ad.cli.acceptance import add_acceptance
from coffea_ad.cli.displays import add_display
from coffea_ad.cli.events import add_events
from coffea_ad.cli.explain import add_explain
from coffea_ad.cli.filesets import add_fileset
from coffea_ad.cli.models import add_card, add_combine, add_evaluate, add_quantise, add_regions
from coffea_ad.cli.recipes import add_cp, add_demo, add_features, add_ls, add_simulate, add_skim_from
from coffea_ad.cli.report import add_report
from coffea_ad.cli.results import add_export, add_merge, add_plot
from coffea_ad.cli.runs import add_run, models_apart
from coffea_ad.cli.search import add_search
from coffea_ad.cli.words import Parser, refuse_url
from coffea_ad.errors import CoffeaADError

__all__ = ["main"]


_UNEXPECTED = 70  # exit code of an error that nobody has foreseen, as in sysexits.h
_EXTRAS = {
    "torch": "train", "onnx": "train", "onnxscript": "train", "sklearn": "train", "matplotlib": "plot", "mplhep": "plot",
    "pythia8mc": "simulate", "fastjet": "simulate", "dask_jobqueue": "batch", "h5py": "import", "iminuit": "search",
    "pyhf": "search", "hepdata_lib": "search", "scipy": "search", "jinja2": "report",
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    from coffea_ad._version import __version__

    parser = Parser(prog="coffea-ad", description="Anomaly detection for coffea.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    for add in (
        add_demo,
        add_simulate,
        add_skim_from,
        add_ls,
        add_features,
        add_cp,
        add_run,
        add_merge,
        add_export,
        add_events,
        add_display,
        add_explain,
        add_plot,
        add_search,
        add_report,
        add_fileset,
        add_card,
        add_regions,
        add_combine,
        add_evaluate,
        add_quantise,
        add_acceptance,
    ):
        add(verbs)
    for p in verbs.choices.values():
        p.set_defaults(parser=p)
        g = p.add_argument_group("all verbs")
        g.add_argument(
            "--plugin", action="append", default=[], metavar="FILE.py", help="file that registers features of your own"
        )
        g.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line; argparse ends the process where it is wrong."""
    parser = _parser()
    # argparse takes positional words in one piece only; key=value and the sources of a fileset may stand anywhere.
    args, rest = parser.parse_known_args(models_apart(words))
    name = {
        "run": "overrides",
        "search": "overrides",
        "plot": "overrides",
        "simulate": "parameters",
        "fileset": "sources",
        "features": "options",
        "skim-from": "files",
        "acceptance": "files",
        "display": "places",
        "report": "others",
        "card": "words",
    }.get(args.verb)
    wrong = [
        w
        for w in rest
        if w.startswith("-")
        or name is None
        or ("=" not in w and name not in ("sources", "words", "files", "places", "others"))
    ]
    if wrong:
        several = "; several models are --model A.onnx --model B.onnx" if args.verb == "run" and args.model else ""
        flags = re.findall(r"--[\w-]+", args.parser.format_usage())
        near = difflib.get_close_matches(wrong[0].partition("=")[0], flags, n=1) if wrong[0].startswith("-") else []
        hint = f"; did you mean {near[0]}?" if near else several
        args.parser.error(f"{' '.join(wrong)} is not understood{hint}")
    if rest and name is not None:
        setattr(args, name, [*getattr(args, name), *rest])
    args.words_of_command = list(words)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; what goes wrong is one sentence on standard error.

    Returns
    -------
    int
        0; 1 for an error with a name, 2 for words that are not understood, 70 for one that was not foreseen, 130 when
        interrupted.
    """
    args = _parse(sys.argv[1:] if argv is None else argv)
    try:
        if args.verb in ("demo", "simulate", "fileset", "evaluate", "cp", "acceptance"):
            refuse_url(args.target if args.verb == "cp" else args.output, args.verb)
        for plugin in args.plugin:
            _load_plugin(plugin)
        return int(args.do(args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # such as `coffea-ad ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001  nobody is to read a traceback who has not asked for it
        if args.traceback or os.environ.get("COFFEA_AD_TRACEBACK", "") not in ("", "0"):
            traceback.print_exception(error)
        sentence, code = _sentence(error, getattr(args, "output", None))
        print(f"error: {sentence}", file=sys.stderr)
        return code


def _load_plugin(path: str) -> None:
    from coffea_ad import recipes

    recipes.load_plugin(path)


def _sentence(error: Exception, output: str | None) -> tuple[str, int]:
    """Say what went wrong, and with which exit code this ends."""
    if isinstance(error, CoffeaADError):
        return str(error), 1
    if isinstance(error, OSError) and error.strerror:
        path = error.filename or output
        return f"{path}: {error.strerror}" if path else error.strerror, 1
    if isinstance(error, ImportError) and error.name and error.name.partition(".")[0] in _EXTRAS:
        package = error.name.partition(".")[0]
        return f"{package} is needed for this: pip install 'coffea-ad[{_EXTRAS[package]}]'", 1
    if isinstance(error, MemoryError):
        return f"out of memory{f' ({error})' if str(error) else ''}: smaller chunks or fewer rows need less", 1
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "site-packages" not in f.filename), frames[-1])
    text = " ".join(str(error).split())[:300]
    return (
        f"this should not happen: {type(error).__name__}: {text} (in {place.filename}, line {place.lineno}); "
        "--traceback shows all of it"
    ), _UNEXPECTED
