"""`coffea-ad run` of a training."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coffea_ad.cli.words import out, read_model, refuse_url, say_left_out, verdict_of
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
    return 130


def train(module: Any, args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Train a model by a recipe, and say what came of it."""
    from coffea_ad import recipes
    from coffea_ad.config import load_config
    from coffea_ad.scoring.card import read_card

    if args.output is None:
        raise ConfigError(f"{args.recipe}: say where the model goes with -o MODEL.onnx")
    refuse_url(args.output, "a training")
    path = recipes.configuration(args.recipe, args.config)
    config = load_config(module.Config, path, overrides)
    _refuse_other_training(args, resumed=bool(getattr(config, "resume", False)))
    if path is None:
        shipped = sorted(recipes.find(args.recipe).with_suffix("").glob("*.yaml"))
        others = f"; there are {', '.join(f'{p.parent.name}/{p.name}' for p in shipped)}" if shipped else ""
        print(f"{args.recipe}: without --config, the defaults in its code are taken{others}", file=sys.stderr)
    summary = module.train(config, Path(args.output))
    out.print(f"{args.output}: regions {', '.join(summary['regions']) or 'none'}", soft_wrap=True)
    sealed = read_model(args.output)
    say_left_out(sealed)
    out.print("best epoch: " + ", ".join(f"{k} {v:.4g}" for k, v in summary["best"].items()), soft_wrap=True)
    out.print(f"effective number of rows: {summary['n_effective']:.0f}")
    out.print(f"verdict: {verdict_of(read_card(sealed, args.output))}", soft_wrap=True, markup=False)
    return 0


def _refuse_other_training(args: argparse.Namespace, *, resumed: bool) -> None:
    """Refuse to train over another model; a training that is resumed goes on in its own files."""
    check_file(args.output, suffix=".onnx", force=args.force or resumed)
    folder = Path(args.output).with_suffix("")
    present = existing(folder, TRAINING)
    if present and not (args.force or resumed):
        raise ConfigError(
            f"{folder}: there is a training in it already ({present[0]}); go on with resume=true, choose another name, or "
            "overwrite it with --force"
        )
    if not resumed:
        clear_figures(folder, "*.png")
