"""`coffea-ad run` of a training."""

from __future__ import annotations

import argparse
import inspect
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coffea_ad.cli.words import cluster_of, out, read_model, refuse_url, say_left_out
from coffea_ad.errors import ConfigError
from coffea_ad.outputs import TRAINING, check_file, clear_figures, existing

__all__ = ["interrupted", "train"]


def interrupted(args: argparse.Namespace) -> int:
    """Say how an interrupted training goes on, if an epoch of it is on disk."""
    print("interrupted", file=sys.stderr)
    folder = Path(args.output).with_suffix("")
    if any(any(folder.glob(name)) for name in ("checkpoint.pt", "fold_*/checkpoint.pt")):
        words = [word for word in args.words_of_command if not word.startswith("resume=")]
        print(f"go on with: {shlex.join(['coffea-ad', *words, 'resume=true'])}", file=sys.stderr)
    elif finished := len(list(folder.glob("*_fold_*.npz"))):
        print(
            f"{finished} finished trainings are kept in {folder}; the same command goes on from there", file=sys.stderr
        )
    return 130


def train(module: Any, args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Train a model by a recipe, and say what came of it."""
    from coffea_ad import recipes
    from coffea_ad.config import load_config
    from coffea_ad.scoring.card import read_card
    from coffea_ad.scoring.listing import verdict_of

    if args.output is None:
        raise ConfigError(f"{args.recipe}: say where the model goes with -o MODEL.onnx")
    refuse_url(args.output, "a training")
    path = recipes.configuration(args.recipe, args.config)
    config = load_config(module.Config, path, overrides)
    taken = inspect.signature(module.train).parameters
    _refuse_other_training(args, resumed=bool(getattr(config, "resume", False)), search="force" in taken)
    if path is None:
        shipped = sorted(recipes.find(args.recipe).with_suffix("").glob("*.yaml"))
        others = f"; there are {', '.join(f'{p.parent.name}/{p.name}' for p in shipped)}" if shipped else ""
        print(f"{args.recipe}: without --config, the defaults in its code are taken{others}", file=sys.stderr)
    force = {"force": args.force} if "force" in taken else {}
    summary = module.train(config, Path(args.output), **_where(module, args), **force)
    outputs = summary.get("outputs", [args.output])
    for output in outputs:
        sealed = read_model(output)
        card = read_card(sealed, output)
        out.print(f"{output}: regions {', '.join(r.name for r in card.regions) or 'none'}", soft_wrap=True)
        say_left_out(sealed)
        if len(outputs) > 1:
            out.print(f"verdict: {verdict_of(card)}", soft_wrap=True, markup=False)
    measured = ", ".join(f"{k} {v:.4g}" for k, v in summary["best"].items())
    out.print(f"{'best epoch' if len(outputs) == 1 else 'means'}: {measured}", soft_wrap=True)
    out.print(f"effective number of rows: {summary['n_effective']:.0f}")
    for line in summary.get("told", ()):
        out.print(line, soft_wrap=True, markup=False)
    if len(outputs) == 1:
        out.print(f"verdict: {verdict_of(card)}", soft_wrap=True, markup=False)
    return 0


def _where(module: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return the cluster for a recipe of many trainings; others train in this process, and take no such words."""
    from coffea_ad.running.clusters.config import load_cluster

    words = [name for name in ("cluster", "site", "scheduler", "minimum", "workers") if getattr(args, name) is not None]
    if "cluster" not in inspect.signature(module.train).parameters:
        if words:
            raise ConfigError(
                f"{args.recipe}: --{words[0]} is for processors and searches, and this trains one model here"
            )
        return {}
    if args.executor == "iterative":
        return {"cluster": None}
    if args.executor == "futures":
        raise ConfigError(f"{args.recipe}: a search runs on dask, or with --executor iterative in this process")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cluster": cluster_of(args) or load_cluster(workers=args.workers or cores)}


def _refuse_other_training(args: argparse.Namespace, *, resumed: bool, search: bool = False) -> None:
    """Refuse to train over another model; a training that is resumed goes on in its own files.

    A search of many trainings knows itself what is its own, and goes on when it is the same.
    """
    check_file(args.output, suffix=".onnx", force=args.force or resumed or search)
    folder = Path(args.output).with_suffix("")
    present = existing(folder, TRAINING)
    if present and not (args.force or resumed):
        raise ConfigError(
            f"{folder}: there is a training in it already ({present[0]}); go on with resume=true, choose another name, or "
            "overwrite it with --force"
        )
    if not resumed and not search:
        clear_figures(folder, "*.png")
