"""An evaluation as tables, JSON, CSV and figures."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad import files, plotting
from coffea_ad.evaluation.differences import Difference, difference
from coffea_ad.evaluation.latent_figure import draw_latent
from coffea_ad.evaluation.record import MIN_SEEDS, Estimate, Evaluation, Metrics, Row, both_directions
from coffea_ad.evaluation.sculpting import Sculpting
from coffea_ad.skims.filters import filters_in_words
from coffea_ad.tables import Listing

__all__ = ["as_dict", "differences", "listings", "write", "write_csv"]

_CSV_EFFICIENCIES = (1e-2, 1e-3, 1e-4)
_POINTS = 60  # of a curve in the JSON


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _text(e: Estimate, digits: int = 3) -> str:
    """Show a value with its error by events; with several models, their spread too, or, if they are few, their range."""
    if not math.isfinite(e.value):
        return "–"
    text = f"{e.value:.{digits}f}"
    text += f" ± {_number(e.error, digits)}" if math.isfinite(e.error) else ""
    if math.isfinite(e.spread):
        return f"{text} ± {_number(e.spread, digits)}"
    return f"{text} [{min(e.each):.{digits}f} to {max(e.each):.{digits}f}]" if e.each else text


def _label(row: Row) -> str:
    return row.score if row.models == 1 else f"{row.score} ({row.models} models)"


def _against(evaluation: Evaluation, signal: str, *, matched: bool) -> Listing:
    efficiencies = evaluation.settings.get("efficiencies", ())
    rows = []
    for row in (r for r in evaluation.rows if r.signal == signal):
        f = row.matched if matched else row.plain
        if f is not None:
            sic = f"{_text(f.significance_improvement, 2)} at {f.eps_b:.2g}" if math.isfinite(f.eps_b) else "–"
            rows.append((
                _label(row), _text(f.auc), *(_text(f.signal_efficiency[e], 4) for e in efficiencies), sic,
                f"{f.n_effective:.0f}", f"{row.undefined_background}, {row.undefined_signal}",
            ))  # fmt: skip
    what = f", background at the signal's spectrum of {evaluation.provenance.get('match') or 'pt'}" if matched else ""
    if any(row.models > 1 for row in evaluation.rows):
        what += f" (± events ± spread of seeds, or [range] of fewer than {MIN_SEEDS})"
    columns = ("score", "AUC", *(f"ε_S at ε_B = {e:g}" for e in efficiencies), "max ε_S/√ε_B", "N_eff", "undefined")
    return Listing(f"{signal}{what}", columns, tuple(rows))


def _filtered(evaluation: Evaluation) -> list[Listing]:
    """Return how many rows of every dataset pass the filters, one after another, if any were asked for."""
    about = evaluation.provenance.get("background", {})
    skims = (about, *evaluation.provenance.get("signals", {}).values())
    rows = {dataset: counts for skim in skims for dataset, counts in skim.get("rows_passing", {}).items()}
    if not rows:
        return []
    columns = ("dataset", "all", *filters_in_words(about["filters"]))
    return [
        Listing(
            "rows that pass, of all splits", columns, tuple((name, *map(str, counts)) for name, counts in rows.items())
        )
    ]


def _signals(evaluation: Evaluation) -> list[str]:
    """Return the signals that are no twins of background rows."""
    twins = evaluation.provenance.get("made", ())
    return [signal for signal in dict.fromkeys(row.signal for row in evaluation.rows) if signal not in twins]


def differences(evaluation: Evaluation) -> dict[tuple[str, str], dict[str, Difference]]:
    """Return {(model, signal): {"plain", "matched": AUC less that of the first model}}, paired over events.

    Parameters
    ----------
    evaluation : Evaluation
        Of models, as `evaluate_models` makes it; nothing for a single one.
    """
    models = list(evaluation.provenance.get("models", ()))
    rows = {(row.score, row.signal): row for row in evaluation.rows}
    out: dict[tuple[str, str], dict[str, Difference]] = {}
    for signal in _signals(evaluation):
        for name in models[1:]:
            row, first = rows[name, signal], rows[models[0], signal]
            out[name, signal] = {"plain": difference(row.plain, first.plain)}
            if row.matched is not None and first.matched is not None:
                out[name, signal]["matched"] = difference(row.matched, first.matched)
    return out


def _differences(evaluation: Evaluation) -> list[Listing]:
    rows = tuple(
        (signal, name, str(pair["plain"]), str(pair.get("matched", "–")))
        for (name, signal), pair in differences(evaluation).items()
    )
    first = next(iter(evaluation.provenance.get("models", ["?"])), "?")
    columns = ("signal", "score", "as it is", "at equal spectra")
    return [Listing(f"AUC less that of {first}, on the same events", columns, rows)] if rows else []


def _twins(evaluation: Evaluation) -> list[Listing]:
    """Return the AUC of anomalies that are simpler than the background, if there are any."""
    names = [n for n in evaluation.provenance.get("made", ()) if any(r.signal == n for r in evaluation.rows)]
    by_name = {(row.score, row.signal): row for row in evaluation.rows if row.signal in names}
    rows = tuple(
        (_label(by_name[score, names[0]]), *(_text(by_name[score, name].plain.auc) for name in names))
        for score in dict.fromkeys(score for score, _ in by_name)
    )
    return [Listing("anomalies that are simpler than the background: AUC", ("score", *names), rows)] if rows else []


def _latent(evaluation: Evaluation) -> list[Listing]:
    """Return what two axes of every encoder explain, and what they follow."""
    out = []
    for name, space in evaluation.latent.items():
        rows = tuple(
            (word, f"{space.explained[i]:.3f}", *(_number(rho[i]) for rho in space.correlations.values()))
            for i, word in enumerate(("first", "second"))
        )
        columns = ("axis", "part of the variance", *(f"ρ with {c}" for c in space.correlations))
        out.append(Listing(f"representation of {name}, background", columns, rows))
    return out


def _sculpted(evaluation: Evaluation) -> Listing:
    cuts = evaluation.settings.get("cuts", ())
    rows = []
    for name, s in evaluation.sculpting.items():
        shown = [
            text
            for eps in cuts
            for d in (s.divergence[eps],)
            for text in (_number(d.value, 4), _text(Estimate(d.random, d.random_error), 4))
        ]
        random = _number(s.distance_correlation_random)
        rows.append((name, *shown, _number(s.distance_correlation), random, _number(s.rank_correlation)))
    columns = [text for eps in cuts for text in (f"JSD at ε_B = {eps:g} [bit]", "random cut")]
    mass = evaluation.provenance.get("mass") or "mass"
    return Listing(
        f"sculpting of {mass} of the background", ("score", *columns, "dCor", "shuffled", "Spearman"), tuple(rows)
    )


def listings(evaluation: Evaluation) -> list[Listing]:
    """Return the tables: every signal as it is and at equal spectra, differences, both directions, sculpting.

    Parameters
    ----------
    evaluation : Evaluation

    Returns
    -------
    list of Listing
    """
    out = _filtered(evaluation)
    for signal in _signals(evaluation):
        tables = [_against(evaluation, signal, matched=matched) for matched in (False, True)]
        out += [table for table in tables if table.rows]
    out += _differences(evaluation)
    out += _twins(evaluation)
    if evaluation.reverse is not None:
        forward, backward = (" + ".join(e.provenance.get("datasets", ["?"])) for e in (evaluation, evaluation.reverse))
        rows = tuple((name, *map(_text, each)) for name, *each in both_directions(evaluation))
        columns = ("score", f"{forward} → {backward}", f"{backward} → {forward}", "the smaller")
        out.append(Listing("both directions: AUC", columns, rows))
    out += _latent(evaluation)
    return [*out, _sculpted(evaluation)] if evaluation.sculpting else out


def _finite(value: Any) -> Any:
    """Return plain JSON: no NaN, no numpy."""
    if isinstance(value, Mapping):
        return {f"{k:g}" if isinstance(k, float) else str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_finite(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _metrics_dict(f: Metrics | None) -> dict[str, Any] | None:
    if f is None:
        return None
    some = np.unique(np.linspace(0, len(f.curve.eps_b) - 1, _POINTS).astype(int))
    return {
        "auc": vars(f.auc),
        "signal_efficiency": {eps: vars(e) for eps, e in f.signal_efficiency.items()},
        "significance_improvement": {**vars(f.significance_improvement), "eps_b": f.eps_b},
        "n_effective": {"background": f.n_effective, "signal": f.n_effective_signal},
        "curve": {k: getattr(f.curve, k)[some] for k in ("eps_b", "eps_s", "n_effective")},
    }


def _sculpting_dict(s: Sculpting) -> dict[str, Any]:
    return {**vars(s), "divergence": {eps: vars(d) for eps, d in s.divergence.items()}}


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return everything in plain JSON; null is what could not be measured."""
    rows = [
        {**vars(row), "plain": _metrics_dict(row.plain), "matched": _metrics_dict(row.matched)}
        for row in evaluation.rows
    ]
    out: dict[str, Any] = {
        "settings": evaluation.settings,
        "provenance": evaluation.provenance,
        "notes": evaluation.notes,
        "tables": [vars(table) for table in listings(evaluation)],
        "rows": rows,
        "sculpting": {name: _sculpting_dict(s) for name, s in evaluation.sculpting.items()},
    }
    between = differences(evaluation)
    if between:
        out["differences"] = [
            {"score": score, "signal": signal, **{kind: vars(d) for kind, d in pair.items()}}
            for (score, signal), pair in between.items()
        ]
    if evaluation.latent:
        out["latent"] = {
            name: {"explained": space.explained, "correlations": space.correlations}
            for name, space in evaluation.latent.items()
        }
    if evaluation.reverse is not None:
        out["reverse"] = as_dict(evaluation.reverse)
        out["both_directions"] = {
            name: {"forward": vars(a), "reverse": vars(b), "smaller": vars(c)}
            for name, a, b, c in both_directions(evaluation)
        }
    return dict(_finite(out))


def write_csv(evaluation: Evaluation, path: str | Path, *, channel: str) -> None:
    """Write the columns of the Dark Machines challenge: Signal,Model,Chan,AUC,1e-2,1e-3,1e-4.

    A working point without enough background is left empty.

    Parameters
    ----------
    evaluation : Evaluation
        With ε_S at these efficiencies.
    path : path
    channel : str
        What stands under Chan.

    References
    ----------
    T. Aarrestad et al., "The Dark Machines anomaly score challenge", arXiv:2105.14027.
    """

    def cell(value: float) -> str:
        return f"{value:.6g}" if math.isfinite(value) else ""

    stream = io.StringIO(newline="")
    out = csv.writer(stream)
    out.writerow(["Signal", "Model", "Chan", "AUC", *("1e-2", "1e-3", "1e-4")])
    for row in evaluation.rows:
        known = row.plain.signal_efficiency
        efficiencies = [known[eps].value if eps in known else math.nan for eps in _CSV_EFFICIENCIES]
        out.writerow([row.signal, row.score, channel, *map(cell, (row.plain.auc.value, *efficiencies))])
    files.write(path, stream.getvalue().encode())


def write(evaluation: Evaluation, folder: str | Path) -> list[Path]:
    """Write `evaluation.json`, `evaluation.csv`, `table.md` and, with the extra `plot`, the figures.

    Parameters
    ----------
    evaluation : Evaluation
    folder : path

    Returns
    -------
    list of Path
    """
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in ("evaluation.json", "evaluation.csv", "table.md")]
    files.write(paths[0], json.dumps(as_dict(evaluation), indent=1, allow_nan=False).encode())
    write_csv(evaluation, paths[1], channel="+".join(evaluation.provenance.get("datasets", ["background"])))
    notes = [f"- {note}" for note in evaluation.notes]
    files.write(paths[2], "\n".join([*(t.markdown() for t in listings(evaluation)), *notes, ""]).encode())
    return paths if importlib.util.find_spec("mplhep") is None else [*paths, *_draw(evaluation, out / "figures")]


def _draw(evaluation: Evaluation, folder: Path) -> list[Path]:
    models = len(evaluation.provenance.get("models", {r.score for r in evaluation.rows}))
    minimum = evaluation.settings.get("n_effective_min", 0.0) * (1 - 1e-9)
    paths = []
    for signal in _signals(evaluation):
        rocs, improvements = {}, {}
        for row in (r for r in evaluation.rows if r.signal == signal):
            c = row.plain.curve
            safe = c.n_effective >= minimum
            rocs[row.score] = (c.eps_b[safe], c.eps_s[safe], row.plain.auc.value)
            improvements[row.score] = (c.eps_b, c.significance_improvement(), safe)
        paths += [folder / f"{kind}_{files.as_name(signal)}.png" for kind in ("roc", "sic")]
        plotting.roc(rocs, paths[-2], models=models)
        plotting.significance_improvement(improvements, paths[-1], models=models)
    paths.append(folder / "summary.png")
    plotting.auc_summary(_summary(evaluation.rows), paths[-1])
    for name, space in evaluation.latent.items():
        paths.append(folder / f"latent_{files.as_name(name)}.png")
        draw_latent(space, paths[-1])
    if evaluation.sculpting:
        paths.append(folder / "sculpting.png")
        spectra = {name: (s.edges, s.before, s.after) for name, s in evaluation.sculpting.items()}
        plotting.sculpted_spectra(spectra, paths[-1], xlabel=evaluation.provenance.get("mass") or "mass")
    return paths


def _summary(rows: Sequence[Row]) -> dict[str, dict[str, tuple[float, float, float, float]]]:
    """Return {signal: {score: AUC and error, matched AUC and error}}; errors by events, and the spread of models."""

    def both(f: Metrics | None) -> tuple[float, float]:
        if f is None:
            return math.nan, math.nan
        parts = [e for e in (f.auc.error, f.auc.spread) if math.isfinite(e)]
        return f.auc.value, math.hypot(*parts)

    out: dict[str, dict[str, tuple[float, float, float, float]]] = {}
    for row in rows:
        out.setdefault(row.signal, {})[row.score] = (*both(row.plain), *both(row.matched))
    return out
