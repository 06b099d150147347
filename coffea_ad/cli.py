"""The command line: `coffea-ad VERB …`."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table

from coffea_ad import files
from coffea_ad.errors import BadModel, CoffeaADError, ConfigError
from coffea_ad.outputs import EVALUATION, TRAINING, check_file, check_folder, clear_figures, existing

if TYPE_CHECKING:
    from coffea_ad.scoring.domains import Domain

__all__ = ["main"]

_out = Console(markup=False, emoji=False)  # [source=stored] is part of a name, not a colour
_UNEXPECTED = 70  # exit code of an error that nobody has foreseen, as in sysexits.h
_EXTRAS = {
    "torch": "train", "onnx": "train", "onnxscript": "train", "sklearn": "train", "matplotlib": "plot", "mplhep": "plot",
    "pythia8mc": "simulate", "fastjet": "simulate", "dask_jobqueue": "batch",
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _demo(args: argparse.Namespace) -> int:
    import importlib.util

    from coffea_ad.demo import demo

    for package in ("pythia8mc", "torch", "onnx", "sklearn", "mplhep"):  # of all its steps, before the first
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(package, name=package)
    check_folder(args.output, ("report.json", "manifest.json", "evaluation.json"), force=args.force)  # of other verbs
    demo(Path(args.output), seed=args.seed, scale=args.scale, workers=args.workers)
    return 0


def _simulate(args: argparse.Namespace) -> int:
    from coffea_ad.config import parse_overrides
    from coffea_ad.simulation import PROCESSES, simulate

    if args.name is None:
        table = _table("processes", "name", "what", "parameters")
        for name, process in PROCESSES.items():
            parameters = ", ".join(f"{k}={v}" for k, v in process.parameters.items())
            table.add_row(name, process.title, parameters)
        _out.print(table)
        return 0
    output = args.output or f"{args.name}.root"
    if args.name in PROCESSES:
        check_file(output, suffix=".root", force=args.force)
    record = simulate(
        args.name, args.events, output, seed=args.seed, layout=args.layout,
        parameters=parse_overrides(args.parameters), workers=args.workers,
    )  # fmt: skip
    _out.print(f"{output}: {record['n_events']} events, cross-section {record['cross_section']:.4g} pb", soft_wrap=True)
    return 0


def _ls(_: argparse.Namespace) -> int:
    from coffea_ad import recipes

    title = (
        "recipes: run them by name, list their keys with `coffea-ad run NAME --help`, or take one with `coffea-ad cp`"
    )
    table = _table(title, "name", "kind", "what", "configurations")
    table.columns[-1].no_wrap = True
    for recipe in recipes.available():
        table.add_row(recipe.name, recipe.kind, recipe.title, "\n".join(recipe.configurations))
    _out.print(table)
    return 0


def _features(args: argparse.Namespace) -> int:
    from coffea_ad.config import parse_overrides
    from coffea_ad.features import listing

    if args.name is None:
        table, broken = listing.overview()
        _out.print(table)
        for sentence in broken:
            _out.print(f"note: {sentence}", soft_wrap=True)
    else:
        for table in listing.details(args.name, parse_overrides(args.options), args.collection, every=args.all):
            _out.print(table)
    return 0


def _cp(args: argparse.Namespace) -> int:
    from coffea_ad import recipes

    for path in recipes.copy(args.name, args.target, force=args.force):
        _out.print(str(path), soft_wrap=True)
    return 0


def _run(args: argparse.Namespace) -> int:
    from coffea_ad import recipes
    from coffea_ad.errors import IncompleteRun, NotNormalisable

    if args.help:
        return _help(args)
    if args.resubmit is not None:
        return _resubmit(args)
    if args.recipe is None:
        raise ConfigError("run needs a recipe: see coffea-ad ls")
    overrides = [*args.overrides, *(["unblind=true"] if args.unblind else [])]
    module = recipes.load(args.recipe)
    if recipes.kind_of(module) == "training":
        try:
            return _train(module, args, overrides)
        except KeyboardInterrupt:
            return _interrupted(args)
    if args.fileset is None:
        raise ConfigError(f"{args.recipe}: a processor needs --fileset")
    if args.output is None and not args.test:
        raise ConfigError(f"{args.recipe}: say where the results go with -o FOLDER; without, only --test runs")
    from coffea_ad.running import run

    try:
        report = run(
            args.fileset, args.recipe, model=args.model, config=args.config, overrides=overrides, output=args.output, force=args.force,
            chunksize=args.chunksize, lumi=args.lumi, test=args.test, limit_files=args.limit_files,
            limit_chunks=args.limit_chunks, checkpoints=args.checkpoints, preflight=args.preflight,
            providers=args.provider or ("CPUExecutionProvider",), duplicates=args.duplicates,
            generator_weight=args.generator_weight, **_execution(args),
        )  # fmt: skip
    except IncompleteRun as error:
        return _incomplete(args, error)
    except NotNormalisable as error:
        _show(error.report, args.output, figures=args.figures)
        raise
    except KeyboardInterrupt:
        place = args.checkpoints or (f"{args.output}/checkpoints" if args.output else "none")
        if args.checkpoints not in (None, "none") or Path(place).is_dir():
            print(f"finished chunks are kept in {place}; the same command goes on from there", file=sys.stderr)
        raise
    _show(report, args.output, figures=args.figures)
    return 0


def _help(args: argparse.Namespace) -> int:
    """Print the words of `run`, or all keys of a recipe."""
    if args.recipe is None:
        args.parser.print_help()
        return 0
    from coffea_ad.recipe_help import described

    for part in described(args.recipe):
        _out.print(part, soft_wrap=isinstance(part, str), markup=False)
    return 0


def _interrupted(args: argparse.Namespace) -> int:
    """Say how an interrupted training goes on, if an epoch of it was kept."""
    print("interrupted", file=sys.stderr)
    if Path(args.output).with_suffix("").joinpath("checkpoint.pt").is_file():
        words = [word for word in args.words_of_command if not word.startswith("resume=")]
        print(f"go on with: {shlex.join(['coffea-ad', *words, 'resume=true'])}", file=sys.stderr)
    return 130


def _resubmit(args: argparse.Namespace) -> int:
    from coffea_ad.errors import IncompleteRun, NotNormalisable
    from coffea_ad.running import resubmit

    given = [
        name
        for name in (
            "recipe", "overrides", "output", "fileset", "model", "config", "limit_files", "limit_chunks", "checkpoints", "test",
            "unblind", "provider", "force", "lumi", "generator_weight",
        )
        if getattr(args, name)
    ]  # fmt: skip
    given += [
        name
        for name, usual in (("chunksize", 100_000), ("preflight", True), ("duplicates", "note"))
        if getattr(args, name) != usual
    ]
    if given:
        raise ConfigError(f"--resubmit takes all that from the folder; leave out: {', '.join(given)}")
    try:
        report = resubmit(args.resubmit, **_execution(args))
    except IncompleteRun as error:
        return _incomplete(args, error)
    except NotNormalisable as error:
        _show(error.report, args.resubmit, figures=args.figures)
        raise
    _show(report, args.resubmit, figures=args.figures)
    return 0


def _execution(args: argparse.Namespace) -> dict[str, Any]:
    from coffea_ad.running.clusters.config import load_cluster

    batch = args.cluster is not None or args.site is not None or args.minimum is not None
    if batch and args.scheduler is not None:
        raise ConfigError("give either --scheduler or --cluster, not both")
    cluster = None
    if batch or args.scheduler is not None:
        kind = args.cluster or args.scheduler
        cluster = load_cluster(kind, workers=args.workers, minimum=args.minimum, site=args.site)
    return {
        "executor": args.executor,
        "workers": args.workers,
        "cluster": cluster,
        "allow_missing": args.allow_missing,
        "retries": args.retries,
        "timeout": args.timeout,
    }


def _incomplete(args: argparse.Namespace, error: Any) -> int:
    """Show what an incomplete run has done, and how to do the rest."""
    folder = args.resubmit or args.output
    _show(error.report, folder, figures=args.figures)
    print(f"error: {error}", file=sys.stderr)
    if folder is not None:
        print(f"what is missing can be run again with: coffea-ad run --resubmit {folder}", file=sys.stderr)
    return 1


def _show(report: Any, output: str | None, *, figures: bool = True) -> None:
    """Print what a run did: datasets, failures, notes, speed."""
    from coffea_ad.running.reports import missing_files

    t = report.throughput
    at = "" if report.lumi is None else f", at {report.lumi:g} fb⁻¹"
    table = _table(
        f"{report.processor}{at}: {t['event_rate_elapsed_khz']:.2f} kHz, {t['event_rate_cpu_total_khz']:.2f} kHz per CPU core",
        "dataset", "files", "chunks", "events", "sumw", "N_eff", "failed",
    )  # fmt: skip
    for name, d in report.datasets.items():
        chunks = f"{d['chunks_processed']}/{d['chunks_expected']}"
        table.add_row(name, str(len(d["files"])), chunks, str(d["events"]), _sumw(d), _effective(d),
                      str(len(d["failed"])))  # fmt: skip
    _out.print(table)
    for note in report.notes:
        _out.print(f"note: {note}", soft_wrap=True, markup=False)
    for model, seen in report.inputs.items():
        for dataset, counted in seen["datasets"].items():
            lost = ", ".join(f"{column} {n}" for column, n in counted["undefined"].items())
            if lost:
                _out.print(f"undefined inputs of {model} in {dataset}: {lost}", soft_wrap=True, markup=False)
    for sentence in missing_files(report.failed):
        _out.print(f"missing: {sentence}", soft_wrap=True, markup=False)
    if output is None:
        _out.print("nothing was written; -o FOLDER keeps the results", soft_wrap=True)
    else:
        drawn = _draw(output) if figures else 0
        _out.print(f"results in {output}" + (f", {drawn} figures" if drawn else ""), soft_wrap=True, markup=False)


def _sumw(entry: dict[str, Any]) -> str:
    return f"{entry['sumw']:.6g}" if entry.get("weighted", True) else "–"


def _effective(entry: dict[str, Any]) -> str:
    value = entry.get("n_effective")
    return "–" if value is None else f"{value:.6g}"


def _merge(args: argparse.Namespace) -> int:
    from coffea_ad.running.merging import merge

    results = merge(args.folders, args.output, force=args.force)
    table = _table("merged", "dataset", "files", "events", "sumw", "N_eff", "fb⁻¹")
    for name, d in results.report["datasets"].items():
        lumi = "–" if d["lumi"] is None else f"{d['lumi']:g}"
        table.add_row(name, str(len(d["files"])), str(d["events"]), _sumw(d), _effective(d), lumi)
    _out.print(table)
    for note in results.report["notes"]:
        _out.print(f"note: {note}", soft_wrap=True, markup=False)
    _out.print(args.output, soft_wrap=True, markup=False)
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
        _out.print(f"note: {note}", soft_wrap=True, markup=False)
    names = {part: dict.fromkeys(path.split("/")[part] for path in paths) for part in (0, 1)}
    _out.print(
        f"{len(paths)} histograms of {', '.join(names[0])} in {len(names[1])} regions", soft_wrap=True, markup=False
    )
    _out.print(args.output, soft_wrap=True, markup=False)
    return 0


def _draw(folder: str) -> int:
    """Draw every observable in every region; nothing without histograms or without the plot extra."""
    import importlib.util

    from coffea_ad.results.folder import load_results

    results = load_results(folder)
    if not results.in_regions or importlib.util.find_spec("mplhep") is None:
        return 0
    from coffea_ad import plotting
    from coffea_ad.progress import progress

    wanted = [(observable, region) for observable, of in plotting.drawable(results).items() for region in of]
    with progress("Drawing", len(wanted)) as advance:
        for observable, region in wanted:
            path = files.join(folder, "figures", files.as_name(f"{observable}_{region}") + ".png")
            plotting.stack(results, observable, region, path)
            advance()
    return len(wanted)


def _fileset(args: argparse.Namespace) -> int:
    from coffea_ad.filesets import building, is_fileset, sources, validation
    from coffea_ad.filesets.inspection import inspect_files

    if args.skip_bad and not args.validate:
        raise ConfigError("--skip-bad needs the files opened; leave out --no-validate")
    data, behind_data = _apart(args.data, lambda word: "=" not in word and not is_fileset(word))
    xsec, behind_xsec = _apart(args.xsec, lambda word: _is_number(word.rpartition("=")[2]))
    words = [*args.sources, *behind_data, *behind_xsec]
    if not words:
        raise ConfigError("fileset needs at least one NAME=SOURCE, or a fileset such as OLD.json")
    existing, found = sources.parse_sources(words)
    metadata = building.parse_metadata(xsec, data, args.meta)
    if args.output is not None:
        building.refuse_output(args.output, force=args.force)
    fileset = building.build_fileset(found, metadata=metadata, tree=args.tree, existing=existing)
    inspected = inspect_files(fileset, workers=args.workers) if args.validate else {}
    findings = validation.findings_of(fileset, inspected)
    fileset = validation.with_kinds(fileset, inspected)
    left_out = [f for f in findings if f.kind == "bad file" and args.skip_bad]
    if left_out:
        fileset = validation.without_bad_files(fileset, left_out)
    table = _table("fileset", "dataset", "files", "events", "kind", "xsec", "layout", "size")
    for row in validation.summary(fileset, inspected):
        table.add_row(*row)
    _out.print(table)
    for finding in [f for f in findings if f.kind == "note"]:
        _out.print(f"note: {finding.sentence}", soft_wrap=True, markup=False)
    for finding in left_out:
        _out.print(f"left out: {finding.sentence}", soft_wrap=True, markup=False)
    problems = [f for f in findings if f.kind != "note" and f not in left_out]
    for finding in problems:
        print(f"error: {finding.sentence}", file=sys.stderr)
    if problems:
        hint = "; --skip-bad leaves bad files out" if any(f.kind == "bad file" for f in problems) else ""
        print(f"error: nothing was written{hint}", file=sys.stderr)
        return 1
    if args.output is None:
        _out.print("nothing was written; say where with -o FILESET.json")
        return 0
    building.write_fileset(fileset, args.output, force=args.force)
    _out.print(args.output, soft_wrap=True, markup=False)
    return 0


def _apart(groups: Sequence[Sequence[str]], fits: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Part the words behind an option that takes several into its own, and sources of the fileset that follow them.

    The first word is always the option's, so that a wrong one is blamed on it.
    """
    own, others = [], []
    for first, *rest in groups:
        n = next((i for i, word in enumerate(rest) if not fits(word)), len(rest))
        own += [first, *rest[:n]]
        others += rest[n:]
    return own, others


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _train(module: Any, args: argparse.Namespace, overrides: Sequence[str]) -> int:
    from coffea_ad import recipes
    from coffea_ad.config import load_config
    from coffea_ad.scoring.card import read_card

    if args.output is None:
        raise ConfigError(f"{args.recipe}: say where the model goes with -o MODEL.onnx")
    _refuse_url(args.output, "a training")
    path = recipes.configuration(args.recipe, args.config)
    config = load_config(module.Config, path, overrides)
    _refuse_other_training(args, resumed=bool(getattr(config, "resume", False)))
    if path is None:
        shipped = sorted(recipes.find(args.recipe).with_suffix("").glob("*.yaml"))
        others = f"; there are {', '.join(f'{p.parent.name}/{p.name}' for p in shipped)}" if shipped else ""
        print(f"{args.recipe}: without --config, the defaults in its code are taken{others}", file=sys.stderr)
    summary = module.train(config, Path(args.output))
    _out.print(f"{args.output}: regions {', '.join(summary['regions']) or 'none'}", soft_wrap=True)
    sealed = _read(args.output)
    _left_out(sealed)
    _out.print("kept epoch: " + ", ".join(f"{k} {v:.4g}" for k, v in summary["best"].items()), soft_wrap=True)
    _out.print(f"effective number of rows: {summary['n_effective']:.0f}")
    _out.print(f"verdict: {_verdict(read_card(sealed, args.output))}", soft_wrap=True, markup=False)
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


def _verdict(card: Any) -> str:
    """Return what a card says of its training."""
    doubts = card.provenance.get("verdict")
    if doubts is None:
        return "the card has none"
    return "; ".join(doubts) if doubts else "nothing doubtful was found"


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
    table = _table(f"{words[0]}", "what", "value")
    table.add_row(
        "name",
        f"{card.name} ({card.method}, " + (f"jet level, {card.collection})" if card.level == "jet" else "event level)"),
    )
    table.add_row("digest", f"{tagger.scorer.digest[:16]}… verified")
    rows = len(card.golden.scores) // len(card.outputs) if card.golden else 0
    table.add_row("golden rows", f"{rows} re-evaluated, all right" if rows else "none")
    for spec in card.inputs:
        for f in spec.features:
            shown = [c.name + (f" [{c.unit}]" if c.unit else "") for c in f.columns[:60]]
            columns = ", ".join(shown) + (f", … ({len(f.columns)})" if len(f.columns) > 60 else "")
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
    for condition in card.domain:
        table.add_row("domain", f"{condition}; no score elsewhere")
    for i, window in enumerate(card.windows.parts if card.windows else ()):
        folds = len(card.outputs) // len(card.windows.bounds) if card.windows else 1
        outputs = ", ".join(card.outputs[folds * i : folds * (i + 1)])
        table.add_row(f"window {i}", f"{window} by output {outputs}; no score outside of all windows")
    for calibration in card.calibrations:
        table.add_row("calibration", f"{calibration.derived_from}; N_eff {calibration.n_effective:.0f}")
    for r in card.regions:
        where = ", ".join(f"{t:.3f}" for t in r.thresholds)
        bins = f" in bins of {r.spectator} with edges {', '.join(f'{e:g}' for e in r.edges)}" if r.edges else ""
        table.add_row(
            f"region {r.name}",
            f"ad_logp ≥ {where} ± {r.error:.3f}{bins}; ε_B {r.efficiency:g}, N_eff {r.n_effective:.0f}",
        )
    for sentence in card.provenance.get("regions_left_out", ()):
        table.add_row("left out", sentence)
    table.add_row("verdict", _verdict(card))
    table.add_row("NanoAOD", ", ".join(card.flavours))
    table.add_row("versions", ", ".join(f"{k} {v}" for k, v in card.provenance.get("versions", {}).items()))
    _out.print(table)
    return 0


def _read(path: str) -> bytes:
    if files.is_url(path):
        return files.read(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadModel(f"{path}: cannot be read ({error.strerror})") from None


def _write(path: str | Path, data: bytes) -> None:
    files.write(path, data)
    _out.print(str(path), soft_wrap=True, markup=False)


def _beside(model: str, what: str) -> str:
    """Return a name beside a model file: wnae.onnx → wnae-int8.onnx."""
    return f"{model.removesuffix('.onnx')}-{what}.onnx"


def _refuse_url(path: str | None, who: str) -> None:
    """Raise for what is written to local paths only: a folder called `root:` is never meant."""
    if path is not None and files.is_url(path):
        raise ConfigError(f"{path}: {who} writes to local paths only")


def _attach(args: argparse.Namespace) -> int:
    from coffea_ad.config import load_config
    from coffea_ad.modelfiles.attach import AttachConfig, attach
    from coffea_ad.scoring.card import read_card

    if len(args.words) != 3:
        raise ConfigError("card attach takes a model file and a YAML file")
    model, described = args.words[1:]
    output = args.output or _beside(model, "card")
    check_file(output, suffix=".onnx", force=args.force, read=[model])
    config = load_config(AttachConfig, described)
    sealed = attach(_read(model), config, background=args.background, datasets=args.datasets, name=model)
    card = read_card(sealed, model)
    if card.golden is not None and len(set(card.golden.scores)) == 1:
        what = f"all of {len(card.golden.scores)} rows that were tried have the score {card.golden.scores[0]:g}"
        _out.print(f"note: {model}: {what}; a constant tells nothing apart", soft_wrap=True, markup=False)
    unscored = card.provenance.get("unscored", {"unscored": 0})
    if unscored["unscored"]:
        _out.print(
            f"note: {model}: the score of {unscored['unscored']} of {unscored['rows']} background rows is no finite number; "
            "such rows are left out of the calibration, and in a run they are in no region",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    _left_out(sealed)
    _write(output, sealed)
    return 0


def _regions(args: argparse.Namespace) -> int:
    from coffea_ad.modelfiles.thresholds import new_regions

    output = args.output or str(Path(args.model).with_name(Path(args.model).stem + "-regions.onnx"))
    check_file(output, suffix=".onnx", force=args.force, read=[args.model])
    sealed = new_regions(
        _read(args.model), args.source, efficiencies=args.efficiency,
        visible_cross_sections=args.visible_cross_section, datasets=args.datasets, lumi=args.lumi, name=args.model,
        domain=[_interval(text) for text in args.domain], bins=args.in_bins and _named_numbers("--in-bins", args.in_bins),
    )  # fmt: skip
    _left_out(sealed)
    _write(output, sealed)
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


def _left_out(sealed: bytes) -> None:
    """Say which regions a new card has not, and why."""
    from coffea_ad.scoring.card import read_card

    for sentence in read_card(sealed).provenance.get("regions_left_out", ()):
        _out.print(f"note: {sentence}", soft_wrap=True, markup=False)


def _evaluate(args: argparse.Namespace) -> int:
    from coffea_ad import evaluation

    check_folder(args.output, ("report.json", "manifest.json", *EVALUATION), force=args.force)  # also of other verbs
    found = evaluation.evaluate_models(
        evaluation.parse_models(args.models), args.background, args.signal or args.background, datasets=args.datasets,
        signal_datasets=args.signal_datasets, splits=args.splits, reverse=evaluation.parse_models(args.reverse),
        untrained=args.untrained, mass=args.mass, match=args.match, with_baselines=args.baselines, seed=args.seed,
        n_bootstrap=args.bootstrap,
    )  # fmt: skip
    for listing in evaluation.listings(found):
        table = _table(listing.title, *listing.columns)
        for row in listing.rows:
            table.add_row(*row)
        _out.print(table)
    for note in found.notes:
        _out.print(f"note: {note}", soft_wrap=True, markup=False)
    clear_figures(args.output)
    evaluation.write(found, args.output)
    _out.print(f"evaluation in {args.output}", soft_wrap=True, markup=False)
    return 0


def _quantise(args: argparse.Namespace) -> int:
    output = args.output or _beside(args.model, "folded" if args.fold_linear else "int8")
    if args.calibration is None and not args.fold_linear:
        raise ConfigError("quantise needs --calibration SKIM, or --fold-linear")
    check_file(output, suffix=".onnx", force=args.force, read=[args.model])
    if args.fold_linear:
        from coffea_ad.modelfiles.fuse import fold_linear

        _write(output, fold_linear(_read(args.model), args.model))
        return 0
    from coffea_ad.modelfiles.quantise import quantise
    from coffea_ad.scoring.card import read_card

    sealed = quantise(
        _read(args.model), args.calibration, datasets=args.datasets, signal=args.signal,
        signal_datasets=args.signal_datasets, name=args.model,
    )  # fmt: skip
    made = read_card(sealed).provenance["int8"]
    _out.print(
        f"{made['layers']} layers in int8; rank correlation with the float32 score {made['rank_correlation']:.4f}; change "
        f"of ad_logp: 99 % of rows below {made['change_of_ad_logp_99']:.3f}, largest {made['largest_change_of_ad_logp']:.2f}",
        soft_wrap=True,
    )
    if "auc" in made:
        auc = made["auc"]
        _out.print(
            f"AUC {auc['float32']:.4f} → {auc['int8']:.4f}, loss {auc['loss']:.4f} ± {auc['error']:.4f}", soft_wrap=True
        )
    _left_out(sealed)
    _write(output, sealed)
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
    _left_out(sealed)
    _write(args.output, sealed)
    return 0


_RUN_EXAMPLES = """\
examples:
  coffea-ad run skim --fileset backgrounds.json -o skims/
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
_CARD_EXAMPLE = """\
CARD.yaml of a model that was made elsewhere:
  name: theirs
  method: AE
  features:
    - {name: jet_substructure, options: {source: stored}}
  input: features      # names in the graph
  output: score
"""


def _forcible(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="overwrite what is there")


def _parser() -> argparse.ArgumentParser:
    from coffea_ad._version import __version__

    parser = _Parser(prog="coffea-ad", description="Anomaly detection for coffea.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    p = verbs.add_parser("demo", help="the whole chain on simulated events")
    p.add_argument("-o", "--output", default="build/demo")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of events and epochs")
    p.add_argument("--workers", type=int, default=2)
    _forcible(p)
    p.set_defaults(do=_demo)

    p = verbs.add_parser("simulate", help="physics samples in NanoAOD layout; without a name: what there is")
    p.add_argument("name", nargs="?")
    p.add_argument("parameters", nargs="*", metavar="key=value", help="parameters of the process")
    p.add_argument("-n", "--events", type=int, default=1000)
    p.add_argument("-o", "--output", help="ROOT file (default: NAME.root)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--layout", choices=("v15", "pfnano"), default="v15")
    p.add_argument("--workers", type=int, help="processes (default: all cores)")
    _forcible(p)
    p.set_defaults(do=_simulate)

    p = verbs.add_parser("ls", help="processors and training recipes")
    p.set_defaults(do=_ls)

    p = verbs.add_parser("features", help="the table of features; with a name: one in full")
    p.add_argument("name", nargs="?")
    p.add_argument("options", nargs="*", metavar="key=value", help="options of the feature")
    p.add_argument("--collection", default="FatJet")
    p.add_argument("--all", action="store_true", help="all columns")
    p.set_defaults(do=_features)

    p = verbs.add_parser("cp", help="copy a recipe, to edit it")
    p.add_argument("name")
    p.add_argument("target")
    _forcible(p)
    p.set_defaults(do=_cp)

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
    g = p.add_argument_group("processors only: what is processed")
    g.add_argument("--fileset", help="JSON: dataset → files and metadata; coffea-ad fileset makes one")
    g.add_argument("--model", action="append", default=[], metavar="MODEL.onnx", help="one file or several")
    g.add_argument("--lumi", metavar="FB⁻¹|ERA=FB⁻¹,…|CSV", help="fb⁻¹, for normalised histograms (default: 1; data need it); by era; "
                   "or a table of brilcalc by luminosity section: of what was processed")  # fmt: skip
    g.add_argument("--unblind", action="store_true", help="show data in the tightest region")
    g.add_argument("--provider", action="append", default=[], help="onnxruntime's, such as CUDAExecutionProvider")
    g.add_argument("-t", "--test", action="store_true", help="one file and one chunk per dataset")
    g.add_argument("--limit-files", type=int, help="at most so many files per dataset")
    g.add_argument("--limit-chunks", type=int, help="at most so many chunks per dataset")
    g.add_argument("--preflight", action=argparse.BooleanOptionalAction, default=True,
                   help="process the first events of every dataset before anything is sent out")  # fmt: skip
    g = p.add_argument_group("processors only: where, and how much at a time")
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
    _forcible(p)
    p.set_defaults(do=_run)

    p = verbs.add_parser("merge", help="add results folders, such as those of several years")
    p.add_argument("folders", nargs="+")
    p.add_argument("-o", "--output", required=True, help="a new folder")
    _forcible(p)
    p.set_defaults(do=_merge)

    p = verbs.add_parser("export", help="results as ROOT histograms with the names of combine")
    p.add_argument("folder", help="results folder")
    p.add_argument("-o", "--output", required=True, help="a .root file")
    p.add_argument("--observable", action="append", default=[], help="may be repeated (default: all)")
    p.add_argument("--region", action="append", default=[], help="may be repeated (default: all)")
    p.add_argument("--era", help="one only (default: all are added)")
    p.add_argument("--asimov", action="store_true", help="data_obs is the sum of the backgrounds")
    _forcible(p)
    p.set_defaults(do=_export)

    p = verbs.add_parser("fileset", help="make a fileset from globs, folders, lists and addresses, and check its files")
    p.add_argument("sources", nargs="*", metavar="NAME=SOURCE | OLD.json", help="file, 'glob', folder, @list, address")
    p.add_argument("-o", "--output", help="fileset (default: only check)")
    p.add_argument(
        "--xsec", action="append", nargs="+", default=[], metavar="NAME=PB", help="cross-sections of simulations"
    )
    p.add_argument(
        "--data", action="append", nargs="+", default=[], metavar="NAME", help="datasets that are no simulation"
    )
    p.add_argument("--meta", action="append", default=[], metavar="NAME.key=value", help="more metadata")
    p.add_argument("--tree", default="Events")
    p.add_argument("--validate", action=argparse.BooleanOptionalAction, default=True, help="open every file")
    p.add_argument("--workers", type=int, default=8, help="files that are open at the same time")
    p.add_argument("--skip-bad", action="store_true", help="leave bad files out, and name them")
    p.add_argument("--force", action="store_true", help="overwrite the output")
    p.set_defaults(do=_fileset)

    p = verbs.add_parser(
        "card", help="print and re-check a model's card; card attach MODEL CARD.yaml: give it one", epilog=_CARD_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("words", nargs="+", metavar="MODEL | attach MODEL CARD.yaml")
    p.add_argument("-o", "--output")
    p.add_argument("--background", help="skim that calibrates an attached model")
    p.add_argument("--datasets", nargs="+", default=(), help="datasets of the background")
    _forcible(p)
    p.set_defaults(do=_card)

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
        "--domain", nargs="+", default=(), metavar="NAME=LOW,HIGH",
        help="where the model is valid from now on: mjj=1500,2500; its calibration is derived anew",
    )  # fmt: skip
    _forcible(p)
    p.set_defaults(do=_regions)

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
    _forcible(p)
    p.set_defaults(do=_combine)

    p = verbs.add_parser("evaluate", help="models and what they have to beat, in tables and figures")
    p.add_argument("models", nargs="+", metavar="MODEL | LABEL=MODEL,MODEL", help="several of a label: seeds")
    p.add_argument("--background", required=True, metavar="SKIM")
    p.add_argument("--datasets", nargs="+", default=(), help="of the background (default: all that are no signals)")
    p.add_argument("--signal", metavar="SKIM", help="default: the skim of the background")
    p.add_argument("--signal-datasets", nargs="+", default=(), help="each is a signal of its own")
    p.add_argument("--splits", nargs="+", default=["test"], help="of the background (default: test)")
    p.add_argument("--reverse", nargs="+", default=(), metavar="MODEL", help="trained on the signal, in the same order")
    p.add_argument("--untrained", nargs="+", default=(), metavar="MODEL", help="the same network without training")
    p.add_argument("--mass", help="column that a cut must not sculpt (default: mass of jets, mjj of events)")
    p.add_argument("--match", help="column whose spectrum is matched (default: pt)")
    p.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--bootstrap", type=int, default=100, help="replicas, for the errors")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("-o", "--output", default="evaluation")
    _forcible(p)
    p.set_defaults(do=_evaluate)
    p = verbs.add_parser(
        "quantise", help="dense layers in int8, with a calibration of their own; or fold a preprocessing"
    )
    p.add_argument("model")
    p.add_argument("--calibration", metavar="SKIM", help="rows of the background")
    p.add_argument("--datasets", nargs="+", default=(), help="datasets of the background")
    p.add_argument("--signal", metavar="SKIM", help="measure the loss in AUC")
    p.add_argument("--signal-datasets", nargs="+", default=(), help="default: all that is not background")
    p.add_argument("--fold-linear", action="store_true",
                   help="only fold a linear preprocessing into the first layer, in float32")  # fmt: skip
    p.add_argument("-o", "--output")
    _forcible(p)
    p.set_defaults(do=_quantise)
    for p in verbs.choices.values():
        p.set_defaults(parser=p)
        g = p.add_argument_group("all verbs")
        g.add_argument(
            "--plugin", action="append", default=[], metavar="FILE.py", help="file that registers features of your own"
        )
        g.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def _models_apart(words: Sequence[str]) -> list[str]:
    """Put --model before each of several models that follow it: `--model a.onnx b.onnx`.

    >>> _models_apart(["run", "skim", "--model", "a.onnx", "b.onnx", "met_min=0"])
    ['run', 'skim', '--model', 'a.onnx', '--model', 'b.onnx', 'met_min=0']
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


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line; argparse ends the process where it is wrong."""
    parser = _parser()
    # argparse takes positional words in one piece only; key=value and the sources of a fileset may stand anywhere.
    args, rest = parser.parse_known_args(_models_apart(words))
    name = {
        "run": "overrides",
        "simulate": "parameters",
        "fileset": "sources",
        "features": "options",
        "card": "words",
    }.get(args.verb)
    wrong = [
        w for w in rest if w.startswith("-") or name is None or ("=" not in w and name not in ("sources", "words"))
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
        if args.verb in ("demo", "simulate", "fileset", "evaluate", "cp"):
            _refuse_url(args.target if args.verb == "cp" else args.output, args.verb)
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
