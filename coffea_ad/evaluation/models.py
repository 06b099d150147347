"""Model files on skims: several models and what they have to beat, compared on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.evaluation.directions import TWINS, Direction, Options
from coffea_ad.evaluation.latent import Encode, latent_of
from coffea_ad.evaluation.processes import Process
from coffea_ad.evaluation.record import Evaluation
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.skims.files import skim_files
from coffea_ad.versions import versions

__all__ = ["evaluate_models", "parse_models"]

_MASS = {"jet": "mass", "event": "mjj"}
UNTRAINED = "untrained"


def parse_models(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read `FILE` or `LABEL=FILE[,FILE…]`; several files of a label differ by their seed.

    Parameters
    ----------
    words : sequence of str

    Returns
    -------
    {label: files}
        The label of a single file is its name.

    Raises
    ------
    ConfigError
        Two have the same label, or a file is missing after a label or a comma.

    Examples
    --------
    >>> parse_models(["models/ae.onnx", "wnae=w1.onnx,w2.onnx"])
    {'ae': ('models/ae.onnx',), 'wnae': ('w1.onnx', 'w2.onnx')}
    """
    out: dict[str, tuple[str, ...]] = {}
    for word in words:
        label, equals, listed = word.partition("=")
        files = tuple(listed.split(",")) if equals else (word,)
        label = label if equals else Path(word).stem
        if not label or not all(files):
            raise ConfigError(f"{word!r} is not of the form FILE or LABEL=FILE,FILE")
        if label in out:
            raise ConfigError(f"two models are called {label}; give labels: LABEL={files[0]}")
        out[label] = files
    return out


def _choose(
    background: str | Path, signal: str | Path, datasets: Sequence[str], signal_datasets: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the datasets of background and signals: those that were asked for, else all that are left."""
    same = Path(background).resolve() == Path(signal).resolve()
    if not signal_datasets and same:
        raise ConfigError(f"{signal}: say which datasets are signals, since the background is in the same skim")
    signals = list(signal_datasets) or sorted(skim_files(signal))
    backgrounds = list(datasets) or [d for d in sorted(skim_files(background)) if not (same and d in signals)]
    twice = sorted(set(backgrounds) & set(signals)) if same else []
    if twice or not backgrounds:
        raise ConfigError(f"{background}: {', '.join(twice) or 'every dataset'} is background and signal at once")
    return backgrounds, signals


def _loaded(models: Mapping[str, Sequence[str | Path]]) -> dict[str, list[OnnxScorer]]:
    loaded = {label: [OnnxScorer(f) for f in files] for label, files in models.items()}
    levels = {m.card.level: m.name for scorers in loaded.values() for m in scorers}
    if len(levels) > 1:
        raise ConfigError(f"{levels['jet']} scores jets and {levels['event']} events; they cannot stand in one table")
    return loaded


def _column(process: Process, asked: str | None, usual: str, purpose: str) -> tuple[str | None, list[str]]:
    """Return a spectator's name; what was asked for must be there, what is usual need not."""
    if process.spectator(asked or usual) is not None:
        return asked or usual, []
    if asked is not None:
        raise ConfigError(f"{process.folder}: " + unknown_text("spectator", asked, process.rows.spectators))
    return None, [f"{process.folder}: there is no column {usual}, so {purpose}"]


def evaluate_models(
    models: Mapping[str, Sequence[str | Path]],
    background: str | Path,
    signal: str | Path,
    *,
    datasets: Sequence[str] = (),
    signal_datasets: Sequence[str] = (),
    splits: Sequence[str] = ("test",),
    filters: Sequence[str | Sequence[Any]] = (),
    reverse: Mapping[str, Sequence[str | Path]] | None = None,
    untrained: Sequence[str | Path] = (),
    mass: str | None = None,
    match: str | None = None,
    with_baselines: bool = True,
    encoders: Mapping[str, Encode] | None = None,
    seed: int = 1,
    **settings: Any,
) -> Evaluation:
    """Compare model files on skims, with one another and with what they have to beat.

    Of the background the rows of `splits` count: validation chose the epoch and calibrates. Of the signals all rows
    count, except for the supervised ceiling, which is trained on their training split and evaluated on test rows. A
    model whose inputs are undefined in a row has no score there.

    Parameters
    ----------
    models : {label: files}
        Several files of a label differ by their seed. The inputs of the first file are those of the baselines.
    background, signal : path
        Skims; they may be the same.
    datasets, signal_datasets : sequence of str
        By default all of the skim; every signal dataset is a signal of its own.
    splits : sequence of str
        Of the background.
    filters : sequence of str or (column, operator, value)
        Rows of all processes to keep, such as "pt > 150" or "abs(eta) < 2", beside the filters of the first model's card.
        Everything else, baselines and spectra included, is of these rows.
    reverse : {label: files}, optional
        The same methods, in the same order, trained on the (one) signal: these look for the background.
    untrained : sequence of path
        The same network without training, one file or one per seed.
    mass, match : str, optional
        Spectators: what a cut must not sculpt (default: mass of jets, mjj of events), and what spectra are matched in
        (default: pt).
    with_baselines : bool
    encoders : {label: callable}, optional
        Rows of the first model's input → their representation, such as `nn.loading.load_encoder` gives it; two axes of it
        are found and drawn.
    seed : int
    **settings
        Arguments of `evaluate`.

    Returns
    -------
    Evaluation

    Raises
    ------
    ConfigError
        Datasets, splits, spectators or numbers of models do not fit.
    SkimError, BadModel
        A skim does not hold what a model needs; a model file is damaged.
    """
    if not models:
        raise ConfigError("there is no model to evaluate")
    background_names, signal_names = _choose(background, signal, datasets, signal_datasets)
    for name in TWINS:
        if name in signal_names:
            raise ConfigError(f"a signal dataset cannot be called {name}; that is an anomaly made by the evaluation")
    loaded = _loaded({**models, **({UNTRAINED: untrained} if untrained else {})})
    first = next(iter(loaded.values()))[0]
    process = Process(background, background_names, first, filters)
    mass, notes = _column(process, mass, _MASS[first.card.level], "sculpting is not measured")
    match, more = _column(process, match, "pt", "nothing is shown at equal spectra; name another with --match")
    notes += [*more, *_remarks(loaded, signal_names)]
    options = Options(tuple(splits), mass, match, with_baselines, {**settings, "seed": seed}, seed, tuple(filters))
    signals = {name: Process(signal, [name], first, filters) for name in signal_names}
    evaluation = Direction(loaded, process, signals, options).evaluate()
    spaces = {k: latent_of(encode, process, signals, first.card, splits) for k, encode in (encoders or {}).items()}
    provenance: dict[str, Any] = {
        "models": _described(loaded), "datasets": background_names, "splits": list(splits), "mass": mass, "match": match, "made": list(TWINS),
        "background": process.rows.provenance, "versions": versions("coffea-ad", "numpy", "onnxruntime", "scikit-learn", "scipy"),
        "signals": {name: p.rows.provenance for name, p in signals.items()},
    }  # fmt: skip
    other = None
    if reverse:
        other, provenance["reverse"] = _reverse(
            models, reverse, (background, background_names), (signal, signal_names), options
        )
    return replace(
        evaluation,
        notes=tuple(dict.fromkeys((*notes, *evaluation.notes))),
        provenance=provenance,
        reverse=other,
        latent=spaces,
    )


def _remarks(loaded: Mapping[str, Sequence[OnnxScorer]], signals: Sequence[str]) -> list[str]:
    """Say what does not fit between what models were trained on and what they are evaluated on."""
    every = [m for scorers in loaded.values() for m in scorers]
    notes = []
    for model in every:
        seen = sorted(set(signals) & set(model.card.provenance.get("rows", {})))
        if seen:
            notes.append(f"{model.name} was trained on {', '.join(seen)}, which is a signal here")
        filters = [list(m.card.provenance.get("filters", ())) for m in (every[0], model)]
        if filters[0] != filters[1]:
            notes.append(
                f"{model.name} was trained on rows with {filters[1]}, but is evaluated on rows with {filters[0]}"
            )
    return notes


def _described(loaded: Mapping[str, Sequence[OnnxScorer]]) -> dict[str, list[dict[str, str]]]:
    return {
        label: [{"file": m.name, "digest": m.digest, "name": m.card.name, "method": m.card.method} for m in scorers]
        for label, scorers in loaded.items()
    }


def _reverse(
    models: Mapping[str, Any], reverse: Mapping[str, Sequence[str | Path]], background: tuple[str | Path, list[str]],
    signal: tuple[str | Path, list[str]], options: Options,
) -> tuple[Evaluation, dict[str, Any]]:  # fmt: skip
    """Return the other direction, under the labels of the first."""
    if len(reverse) != len(models):
        raise ConfigError(f"there are {len(models)} models, but {len(reverse)} for the other direction; give pairs")
    if len(signal[1]) != 1:
        raise ConfigError(
            f"the other direction needs one signal dataset that its models were trained on, not {', '.join(signal[1])}"
        )
    loaded = dict(zip(models, _loaded(reverse).values(), strict=True))
    first = next(iter(loaded.values()))[0]
    background_name = "+".join(background[1])
    rows, others = (Process(*each, first, options.filters) for each in (signal, background))
    direction = Direction(loaded, rows, {background_name: others}, options)
    return replace(direction.evaluate(), provenance={"datasets": signal[1]}), _described(loaded)
