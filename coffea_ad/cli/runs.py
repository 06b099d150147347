"""`coffea-ad run`: a processor or a training, by name or by path."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coffea_ad.cli.results import show
from coffea_ad.cli.training import interrupted, train
from coffea_ad.cli.words import cluster_of, forcible, out
from coffea_ad.errors import ConfigError

__all__ = ["add_run", "models_apart"]


def _run(args: argparse.Namespace) -> int:
    from coffea_ad import recipes
    from coffea_ad.errors import IncompleteRun, NotNormalisable

    if args.help:
        return _help(args)
    if args.resubmit is not None:
        return _resubmit(args)
    if args.recipe is None:
        raise ConfigError("run needs a recipe: see coffea-ad ls")
    keep = [] if args.keep is None else [f"top_events={args.keep}"]
    overrides = [*args.overrides, *(["unblind=true"] if args.unblind else []), *keep]
    module = recipes.load(args.recipe)
    if recipes.kind_of(module) == "training":
        folds = [] if args.folds is None else [f"folds={args.folds}"]
        try:
            return train(module, args, [*overrides, *folds])
        except KeyboardInterrupt:
            return interrupted(args)
    if args.folds is not None:
        raise ConfigError(f"{args.recipe}: --folds is for trainings, and this is a processor")
    if args.fileset is None:
        raise ConfigError(f"{args.recipe}: a processor needs --fileset")
    if args.output is None and not args.test:
        raise ConfigError(f"{args.recipe}: say where the results go with -o FOLDER; without, only --test runs")
    from coffea_ad.running import run

    if args.style is not None:  # what is wrong with it is said before the run, not after
        from coffea_ad.plotting.drawing import style_of

        style_of(args.style)
    try:
        report = run(
            args.fileset, args.recipe, **{**_keywords(args), "overrides": overrides, "cluster": cluster_of(args)}
        )
    except IncompleteRun as error:
        return _incomplete(args, error)
    except NotNormalisable as error:
        show(error.report, args.output, figures=args.figures, style=args.style)
        raise
    except KeyboardInterrupt:
        place = args.checkpoints or (f"{args.output}/checkpoints" if args.output else "none")
        if args.checkpoints not in (None, "none") or Path(place).is_dir():
            print(f"finished chunks are kept in {place}; the same command goes on from there", file=sys.stderr)
        raise
    show(report, args.output, figures=args.figures, style=args.style)
    return 0


def _help(args: argparse.Namespace) -> int:
    """Print the words of `run`, or all keys of a recipe."""
    if args.recipe is None:
        args.parser.print_help()
        return 0
    from coffea_ad.cli.recipe_help import described

    for part in described(args.recipe):
        out.print(part, soft_wrap=isinstance(part, str), markup=False)
    return 0


def _resubmit(args: argparse.Namespace) -> int:
    from coffea_ad.errors import IncompleteRun, NotNormalisable
    from coffea_ad.running import resubmit
    from coffea_ad.running.options import RunOptions

    words, taken = _keywords(args), inspect.signature(resubmit).parameters
    others = [name for name in ("recipe", "fileset", "unblind", "folds") if getattr(args, name)]
    others += ["keep"] if args.keep is not None else []
    others += [n for n, word in words.items() if n not in taken and word != RunOptions.model_fields[n].default]
    if others:
        raise ConfigError(f"--resubmit takes all that from the folder; leave out: {', '.join(others)}")
    try:
        how = {name: word for name, word in words.items() if name in taken}
        report = resubmit(args.resubmit, **how, cluster=cluster_of(args))
    except IncompleteRun as error:
        return _incomplete(args, error)
    except NotNormalisable as error:
        show(error.report, args.resubmit, figures=args.figures)
        raise
    show(report, args.resubmit, figures=args.figures)
    return 0


def _keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Return the words that are keywords of `run`, without those of the cluster."""
    from coffea_ad.running.options import RunOptions

    names = RunOptions.model_fields.keys() - {"cluster", "scheduler"}
    return {name: word for name, word in vars(args).items() if name in names and word not in (None, [])}


def _incomplete(args: argparse.Namespace, error: Any) -> int:
    """Show what an incomplete run has done, and how to do the rest."""
    folder = args.resubmit or args.output
    show(error.report, folder, figures=args.figures)
    print(f"error: {error}", file=sys.stderr)
    if folder is not None:
        print(f"what is missing can be run again with: coffea-ad run --resubmit {folder}", file=sys.stderr)
    return 1


_RUN_EXAMPLES = """\
examples:
  coffea-ad run skim_jets --fileset backgrounds.json -o skims/
  coffea-ad run wnae --config wnae/svj.yaml data=skims/ train.epochs=20 -o wnae.onnx
  coffea-ad run semivisible_jets --fileset all.json --model wnae.onnx --lumi 59.8 -o results/
  coffea-ad run semivisible_jets --help

a configuration file (--config) holds keys of the recipe:
  datasets: [qcd, ttbar]
  train: {epochs: 20, learning_rate: 1.0e-3}

settings of a site (--site, or --cluster FILE.yaml):
  kind: slurm
  workers: 200
  memory: 2GB
  walltime: "02:00:00"
"""


_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def models_apart(words: Sequence[str]) -> list[str]:
    """Put --model before each of several models that follow it: `--model a.onnx b.onnx`.

    >>> models_apart(["run", "skim_jets", "--model", "a.onnx", "b.onnx", "met_min=0"])
    ['run', 'skim_jets', '--model', 'a.onnx', '--model', 'b.onnx', 'met_min=0']
    """
    if not words or words[0] != "run":
        return list(words)
    out: list[str] = []
    behind = False  # a model, or what may be one
    for i, word in enumerate(words):
        value = i > 0 and words[i - 1] == "--model"
        if behind and not value and word.endswith(".onnx") and not _OVERRIDE.match(word) and not word.startswith("-"):
            out.append("--model")
        behind = value or word.startswith("--model=") or (behind and out[-1:] == ["--model"])
        out.append(word)
    return out


def add_run(verbs: Any) -> None:
    """Add the words of `run`."""
    p = verbs.add_parser(
        "run", help="run a processor or a training recipe, by name or by path", add_help=False, epilog=_RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("recipe", nargs="?", help="a name of coffea-ad ls, or a Python file")
    p.add_argument(
        "overrides", nargs="*", metavar="key=value", help="keys of the recipe: coffea-ad run RECIPE --help lists them"
    )
    g = p.add_argument_group("processors and trainings")
    g.add_argument("-h", "--help", action="store_true", help="with a recipe: all its keys, with defaults")
    g.add_argument(
        "--config",
        help="YAML or JSON file, or a shipped one such as wnae/svj.yaml (default: NAME.yaml beside the recipe; none: no file)",
    )
    g.add_argument("-o", "--output", help="results folder of a processor, or model file of a training")
    g = p.add_argument_group("trainings only")
    g.add_argument(
        "--folds", type=int, metavar="K",
        help="cross-training: K models, at least 3, each without the events that it scores, trained on all cores",
    )  # fmt: skip
    g = p.add_argument_group("processors only: what is processed")
    g.add_argument("--fileset", help="JSON: dataset → files and metadata; coffea-ad fileset makes one")
    g.add_argument("--model", action="append", default=[], metavar="MODEL.onnx", help="one file or several")
    g.add_argument("--lumi", metavar="FB⁻¹|ERA=FB⁻¹,…|CSV", help="fb⁻¹, for normalised histograms (default: 1; data need it); by era; "
                   "or a table of brilcalc by luminosity section: of what was processed")  # fmt: skip
    g.add_argument("--style", metavar="STYLE.yaml", help="how the figures look: see coffea-ad plot --help")
    g.add_argument("--unblind", action="store_true", help="show data in the tightest region")
    g.add_argument(
        "--keep",
        type=int,
        metavar="N",
        help="list the N most anomalous events of each dataset and region (top_events=N)",
    )
    g.add_argument(
        "--provider",
        dest="providers",
        action="append",
        default=[],
        metavar="PROVIDER",
        help="onnxruntime's, such as CUDAExecutionProvider",
    )
    g.add_argument("-t", "--test", action="store_true", help="one file and one chunk per dataset")
    g.add_argument("--limit-files", type=int, help="at most so many files per dataset")
    g.add_argument("--limit-chunks", type=int, help="at most so many chunks per dataset")
    g.add_argument("--preflight", action=argparse.BooleanOptionalAction, default=True,
                   help="process the first events of every dataset before anything is sent out")  # fmt: skip
    g = p.add_argument_group("processors, and searches of many trainings: where, and how much at a time")
    g.add_argument("-e", "--executor", choices=("iterative", "futures", "dask"), default="dask")
    g.add_argument("--workers", type=int, help="processes (default: 2)")
    g.add_argument(
        "--cluster", help="local, htcondor, slurm, lpc, lxplus, or a YAML file (default: local, loopback only)"
    )
    g.add_argument("--site", help="YAML file with the settings of a site")
    g.add_argument("--minimum", type=int, help="scale the cluster between this and --workers")
    g.add_argument("--scheduler", help="address of an existing dask scheduler: tls://… or tcp://…")
    g.add_argument("-c", "--chunksize", type=int, default=100_000, help="events per chunk")
    g = p.add_argument_group("processors only: what fails or is interrupted")
    g.add_argument(
        "--checkpoints",
        metavar="URL",
        help="keep finished chunks there, and go on from what is there (by default in the "
        "results folder until all is done, where no other machines work; none: keep none)",
    )
    g.add_argument("--resubmit", metavar="DIR", help="run what is missing in a results folder, and add it there")
    g.add_argument("--figures", action=argparse.BooleanOptionalAction, default=True,
                   help="draw every observable in every region")  # fmt: skip
    g.add_argument("--allow-missing", action="store_true", help="take an incomplete run for a good one")
    g.add_argument("--retries", type=int, default=2, help="how often a remote file is tried again")
    g.add_argument(
        "--timeout", type=float, default=60.0, help="s to wait for an answer of an XRootD server (default: 60)"
    )
    g.add_argument("--duplicates", choices=("note", "drop", "ignore"), default="note",
                   help="events that are there twice: said, left out of data, or not looked for")  # fmt: skip
    g.add_argument("--generator-weight", choices=("stored", "sign"),
                   help="what simulated events weigh: genWeight, or its sign (default: by the fileset, else stored)")  # fmt: skip
    forcible(p)
    p.set_defaults(do=_run)
