"""Verbs on model files: card, regions, combine, evaluate, quantise."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coffea_ad.cli.words import forcible
from coffea_ad.errors import ConfigError, listed
from coffea_ad.outputs import EVALUATION, check_file, check_folder, clear_figures

if TYPE_CHECKING:
    from coffea_ad.scoring.domains import Domain
from coffea_ad.cli.words import beside, out, read_model, say_left_out, table_of, verdict_of, write_model

__all__ = ["add_card", "add_combine", "add_evaluate", "add_quantise", "add_regions"]


def _card(args: argparse.Namespace) -> int:
    words = args.words
    if words[0] == "attach":
        return _attach(args)
    if len(words) != 1:
        raise ConfigError("card takes one model file, or: card attach MODEL CARD.yaml")
    from coffea_ad.scoring.tagger import Tagger

    tagger = Tagger(words[0])
    card = tagger.card
    session = tagger.scorer.session
    table = table_of(f"{words[0]}", "what", "value")
    table.add_row(
        "name",
        f"{card.name} ({card.method}, " + (f"jet level, {card.collection})" if card.level == "jet" else "event level)"),
    )
    table.add_row("digest", f"{tagger.scorer.digest[:16]}… verified")
    rows = len(card.golden.scores) // len(card.outputs) if card.golden else 0
    table.add_row("golden rows", f"{rows} re-evaluated, all right" if rows else "none")
    for spec in card.inputs:
        for f in spec.features:
            columns = listed((c.name + (f" [{c.unit}]" if c.unit else "") for c in f.columns), 60)
            table.add_row(
                f"input {spec.name}",
                f"{f.key} v{f.version}: {columns}",
            )
            table.add_row("  options", ", ".join(f"{k}={v}" for k, v in f.options.items()))
    table.add_row("graph", f"{len(session.get_inputs())} input, output {', '.join(card.outputs)}")
    if card.folds:
        table.add_row(
            "folds", f"{card.folds.k} members, salt {card.folds.salt!r}; each event by the one that never saw it"
        )
    if card.density:
        of = {"x": "of the inputs", "z": "of the transformed inputs"}[card.density]
        table.add_row("score", f"−log p, a density {of}; ad_logp is none: −log₁₀ of the background efficiency")
    if card.contributions:
        parts = listed(card.parts, 8)
        table.add_row(
            "contributions", f"{', '.join(card.contribution_outputs)}: add up to {card.contributions.of}; {parts}"
        )
    for condition in card.domain:
        table.add_row("domain", f"{condition}; no score elsewhere")
    for i, window in enumerate(card.windows.parts if card.windows else ()):
        folds = len(card.outputs) // len(card.windows.bounds) if card.windows else 1
        outputs = ", ".join(card.outputs[folds * i : folds * (i + 1)])
        table.add_row(f"window {i}", f"{window} by output {outputs}; no score outside of all windows")
    for calibration in card.calibrations:
        table.add_row("calibration", f"{calibration.derived_from}; N_eff {calibration.n_effective:.0f}")
    for r in card.regions:
        where = listed((f"{t:.3f}" for t in r.thresholds), 8)
        bins = f" in bins of {r.spectator} with edges {listed((f'{e:g}' for e in r.edges), 8)}" if r.edges else ""
        table.add_row(
            f"region {r.name}",
            f"ad_logp ≥ {where} ± {r.error:.3f}{bins}; ε_B {r.efficiency:g}, N_eff {r.n_effective:.0f}",
        )
    for label, about in card.provenance.get("flat_in", {"regions": {}})["regions"].items():
        table.add_row(f"  {label}", about["check"])
    for sentence in card.provenance.get("regions_left_out", ()):
        table.add_row("left out", sentence)
    table.add_row("verdict", verdict_of(card))
    table.add_row("NanoAOD", ", ".join(card.flavours))
    table.add_row("versions", ", ".join(f"{k} {v}" for k, v in card.provenance.get("versions", {}).items()))
    out.print(table)
    return 0


def _attach(args: argparse.Namespace) -> int:
    from coffea_ad.config import load_config
    from coffea_ad.modelfiles.attach import AttachConfig, attach
    from coffea_ad.scoring.card import read_card

    if len(args.words) != 3:
        raise ConfigError("card attach takes a model file and a YAML file")
    model, described = args.words[1:]
    output = args.output or beside(model, "card")
    check_file(output, suffix=".onnx", force=args.force, read=[model])
    config = load_config(AttachConfig, described)
    sealed = attach(read_model(model), config, background=args.background, datasets=args.datasets, name=model)
    card = read_card(sealed, model)
    if card.golden is not None and len(set(card.golden.scores)) == 1:
        what = f"all of {len(card.golden.scores)} rows that were tried have the score {card.golden.scores[0]:g}"
        out.print(f"note: {model}: {what}; a constant tells nothing apart", soft_wrap=True, markup=False)
    unscored = card.provenance.get("unscored", {"unscored": 0})
    if unscored["unscored"]:
        out.print(
            f"note: {model}: the score of {unscored['unscored']} of {unscored['rows']} background rows is no finite number; "
            "such rows are left out of the calibration, and in a run they are in no region",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    say_left_out(sealed)
    write_model(output, sealed)
    return 0


def _regions(args: argparse.Namespace) -> int:
    from coffea_ad.modelfiles.thresholds import new_regions
    from coffea_ad.scoring.card import read_card

    output = args.output or str(Path(args.model).with_name(Path(args.model).stem + "-regions.onnx"))
    check_file(output, suffix=".onnx", force=args.force, read=[args.model])
    sealed = new_regions(
        read_model(args.model), args.source, efficiencies=args.efficiency,
        visible_cross_sections=args.visible_cross_section, datasets=args.datasets, lumi=args.lumi, name=args.model,
        domain=[_interval(text) for text in args.domain], bins=args.in_bins and _named_numbers("--in-bins", args.in_bins),
        flat_in=args.flat_in,
    )  # fmt: skip
    say_left_out(sealed)
    for label, about in read_card(sealed).provenance.get("flat_in", {"regions": {}})["regions"].items():
        largest, smallest = max(about["errors"]), min(about["errors"])
        out.print(
            f"region {label}: a threshold of {about['coefficients']} coefficients, known to {smallest:.3f} … {largest:.3f}; "
            f"{about['check']}", soft_wrap=True, markup=False,
        )  # fmt: skip
    write_model(output, sealed)
    return 0


def _named_numbers(option: str, text: str) -> tuple[str, list[float]]:
    """Read a name and numbers, as in `mjj=1500,2500`."""
    name, _, numbers = text.partition("=")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    if not name or not values:
        raise ConfigError(f"{option} {text}: write a spectator and numbers, such as mjj=1500,2500")
    return name, values


def _interval(text: str) -> Domain:
    """Read a name and two numbers, as in `mjj=1500,2500`."""
    from coffea_ad.scoring.domains import Domain

    name, values = _named_numbers("--domain", text)
    if len(values) != 2 or not values[0] < values[1] or not all(map(math.isfinite, values)):
        raise ConfigError(f"--domain {text}: write a spectator, its lower and its upper end, such as mjj=1500,2500")
    return Domain(spectator=name, low=values[0], high=values[1])


def _evaluate(args: argparse.Namespace) -> int:
    from coffea_ad import evaluation

    check_folder(args.output, ("report.json", "manifest.json", *EVALUATION), force=args.force)  # also of other verbs
    evaluated = evaluation.evaluate_models(
        evaluation.parse_models(args.models), args.background, args.signal or args.background, datasets=args.datasets,
        signal_datasets=args.signal_datasets, splits=args.splits, filters=args.filters, reverse=evaluation.parse_models(args.reverse),
        untrained=args.untrained, mass=args.mass, match=args.match, with_baselines=args.baselines, seed=args.seed,
        n_bootstrap=args.bootstrap, encoders=_encoders(args.latent),
    )  # fmt: skip
    for listing in evaluation.listings(evaluated):
        table = table_of(listing.title, *listing.columns)
        for row in listing.rows:
            table.add_row(*row)
        out.print(table)
    for note in evaluated.notes:
        out.print(f"note: {note}", soft_wrap=True, markup=False)
    clear_figures(args.output)
    evaluation.write(evaluated, args.output)
    out.print(f"evaluation in {args.output}", soft_wrap=True, markup=False)
    return 0


def _encoders(words: Sequence[str]) -> dict[str, Any]:
    """Load the encoders whose representation is shown; torch is needed for them alone."""
    from coffea_ad import evaluation

    if not words:
        return {}
    from coffea_ad.nn.loading import load_encoder

    folders = evaluation.parse_models(words)
    several = [label for label, each in folders.items() if len(each) > 1]
    if several:
        raise ConfigError(f"--latent {several[0]}=…: every encoder is drawn by itself; give labels to each")
    return {label: load_encoder(folder) for label, (folder,) in folders.items()}


def _quantise(args: argparse.Namespace) -> int:
    output = args.output or beside(args.model, "fused" if args.fuse_linear else "int8")
    if args.calibration is None and not args.fuse_linear:
        raise ConfigError("quantise needs --calibration SKIM, or --fuse-linear")
    check_file(output, suffix=".onnx", force=args.force, read=[args.model])
    if args.fuse_linear:
        from coffea_ad.modelfiles.fuse import fuse_linear

        write_model(output, fuse_linear(read_model(args.model), args.model))
        return 0
    from coffea_ad.modelfiles.quantise import quantise
    from coffea_ad.scoring.card import read_card

    sealed = quantise(
        read_model(args.model), args.calibration, datasets=args.datasets, signal=args.signal,
        signal_datasets=args.signal_datasets, name=args.model,
    )  # fmt: skip
    int8 = read_card(sealed).provenance["int8"]
    golden = int8["largest_change_of_golden"]
    shift = f"shifted by {int8['shift']:.3f} half-widths" + (
        "" if golden is None else f", golden rows by up to {golden:.3f}"
    )
    out.print(
        f"{int8['layers']} layers in int8; rank correlation with the float32 score {int8['rank_correlation']:.4f}; scores "
        f"{shift}; change of ad_logp: 99 % of rows below {int8['change_of_ad_logp_99']:.3f}, largest "
        f"{int8['largest_change_of_ad_logp']:.2f}",
        soft_wrap=True,
    )
    if "auc" in int8:
        auc = int8["auc"]
        out.print(
            f"AUC {auc['float32']:.4f} → {auc['int8']:.4f}, loss {auc['loss']:.4f} ± {auc['error']:.4f}", soft_wrap=True
        )
    say_left_out(sealed)
    write_model(output, sealed)
    return 0


def _combine(args: argparse.Namespace) -> int:
    from coffea_ad import nn

    check_file(args.output, suffix=".onnx", force=args.force, read=args.models)
    options: dict[str, Any] = {
        "name": Path(args.output).stem, "background": args.background, "datasets": args.datasets,
        "efficiencies": args.efficiency,
    }  # fmt: skip
    if args.by == "window":
        sealed = nn.bundle(args.models, **options)
    else:
        sealed = nn.combine(args.models, by=args.by, **options)
    say_left_out(sealed)
    write_model(args.output, sealed)
    return 0


_CARD_EXAMPLE = """\
CARD.yaml of a model that was made elsewhere:
  name: theirs
  method: AE
  features:
    - {name: jet_substructure, options: {source: stored}}
  input: features      # names in the graph
  output: score
"""


def add_card(verbs: Any) -> None:
    """Add the words of `card`."""
    p = verbs.add_parser(
        "card", help="print and re-check a model's card; card attach MODEL CARD.yaml: give it one", epilog=_CARD_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("words", nargs="+", metavar="MODEL | attach MODEL CARD.yaml")
    p.add_argument("-o", "--output")
    p.add_argument("--background", help="skim that calibrates an attached model")
    p.add_argument("--datasets", nargs="+", default=(), help="datasets of the background")
    forcible(p)
    p.set_defaults(do=_card)


def add_regions(verbs: Any) -> None:
    """Add the words of `regions`."""
    p = verbs.add_parser("regions", help="new thresholds on the same network")
    p.add_argument("model")
    p.add_argument("--from", dest="source", required=True, help="results folder or skim")
    p.add_argument("--efficiency", type=float, nargs="+", default=())
    p.add_argument("--visible-cross-section", type=float, nargs="+", default=(), help="pb")
    p.add_argument("--datasets", nargs="+", default=(), help="datasets of the background")
    p.add_argument("-o", "--output")
    p.add_argument("--lumi", type=float, help="fb⁻¹, of all the data that a skim was made from")
    p.add_argument(
        "--in-bins",
        metavar="NAME=EDGE,…",
        help="a threshold for each bin of a spectator, by its inner edges: mjj=1500,2500",
    )
    p.add_argument(
        "--flat-in",
        metavar="NAME",
        help="thresholds that follow a spectator, so that the efficiency does not depend on it: mjj",
    )
    p.add_argument(
        "--domain", nargs="+", default=(), metavar="NAME=LOW,HIGH",
        help="where the model is valid from now on: mjj=1500,2500; its calibration is derived anew",
    )  # fmt: skip
    forcible(p)
    p.set_defaults(do=_regions)


def add_combine(verbs: Any) -> None:
    """Add the words of `combine`."""
    p = verbs.add_parser("combine", help="one model from several: the average of their ranks, or one for each window")
    p.add_argument("models", nargs="+", metavar="MODEL")
    p.add_argument("-o", "--output", required=True)
    p.add_argument(
        "--by", choices=("rank", "mean-logp", "max", "window"), default="rank",
        help="window: each member in its domain, such as a window of mjj",
    )  # fmt: skip
    p.add_argument("--background", metavar="SKIM", help="skim that calibrates the combination")
    p.add_argument("--datasets", nargs="+", default=(), help="datasets of the background")
    p.add_argument("--efficiency", type=float, nargs="+", default=(1e-1, 1e-2, 1e-3), help="of its regions")
    forcible(p)
    p.set_defaults(do=_combine)


def add_evaluate(verbs: Any) -> None:
    """Add the words of `evaluate`."""
    p = verbs.add_parser("evaluate", help="models and what they have to beat, in tables and figures")
    p.add_argument("models", nargs="+", metavar="MODEL | LABEL=MODEL,MODEL", help="several of a label: seeds")
    p.add_argument("--background", required=True, metavar="SKIM")
    p.add_argument("--datasets", nargs="+", default=(), help="of the background (default: all that are no signals)")
    p.add_argument("--signal", metavar="SKIM", help="default: the skim of the background")
    p.add_argument("--signal-datasets", nargs="+", default=(), help="each is a signal of its own")
    p.add_argument("--splits", nargs="+", default=["test"], help="of the background (default: test)")
    p.add_argument(
        "--filters", nargs="+", default=(), metavar='"pt > 150"', help='rows to keep: "pt > 150" "abs(eta) < 2"'
    )
    p.add_argument("--reverse", nargs="+", default=(), metavar="MODEL", help="trained on the signal, in the same order")
    p.add_argument("--untrained", nargs="+", default=(), metavar="MODEL", help="the same network without training")
    p.add_argument("--mass", help="column that a cut must not sculpt (default: mass of jets, mjj of events)")
    p.add_argument("--match", help="column whose spectrum is matched (default: pt)")
    p.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument(
        "--latent", nargs="+", default=(), metavar="FOLDER", help="of encoders: two axes of what they make of the first model's rows"
    )  # fmt: skip
    p.add_argument("--bootstrap", type=int, default=100, help="replicas, for the errors")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("-o", "--output", default="evaluation")
    forcible(p)
    p.set_defaults(do=_evaluate)


def add_quantise(verbs: Any) -> None:
    """Add the words of `quantise`."""
    p = verbs.add_parser(
        "quantise", help="dense layers in int8, with a calibration of their own; or fuse a preprocessing"
    )
    p.add_argument("model")
    p.add_argument("--calibration", metavar="SKIM", help="rows of the background")
    p.add_argument("--datasets", nargs="+", default=(), help="datasets of the background")
    p.add_argument("--signal", metavar="SKIM", help="measure the loss in AUC")
    p.add_argument("--signal-datasets", nargs="+", default=(), help="default: all that is not background")
    p.add_argument("--fuse-linear", action="store_true",
                   help="only fuse a linear preprocessing into the first layer, in float32")  # fmt: skip
    p.add_argument("-o", "--output")
    forcible(p)
    p.set_defaults(do=_quantise)
