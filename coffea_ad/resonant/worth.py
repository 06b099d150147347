"""What the excesses of a search are worth: p-values from the same search on data without a signal, as numbers and as a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coffea_ad import files
from coffea_ad.errors import ConfigError
from coffea_ad.plotting import canvas
from coffea_ad.progress import progress, say
from coffea_ad.resonant.calibrating import (
    Excess,
    Permutations,
    PseudoData,
    calibrated_p,
    excess_of,
    permuted_excesses,
    pseudo_excesses,
)
from coffea_ad.resonant.goodness import goodness_of_fit
from coffea_ad.resonant.members import Member, Role, Task
from coffea_ad.resonant.search import window_rows
from coffea_ad.resonant.windows import mass_of
from coffea_ad.running.dispatch import Failure, dispatch
from coffea_ad.scoring.working_points import MIN_EFFECTIVE
from coffea_ad.skims.skim import Skim

__all__ = ["Null", "calibrated", "draw_worth", "in_words", "worth"]

Null = Literal["permutations", "half", "pseudo_data"]
_CLASSIFIED = ("cwola", "cathode", "salad", "transport", "iad", "supervised")
_AT_ONCE = 5  # permutations of one piece of work
_COMPARED = 4000  # rows of data and template whose goodness of fit is looked at
_KERNELS = 100
_FAILED = 0.05  # part of all that may fail before a p-value is refused


def worth(
    tasks: Sequence[Task], members: Mapping[str, Member], skims: Mapping[Role, Skim], folder: Path, *, null: Null, number: int,
    efficiencies: Sequence[float], cluster: Any = None,
) -> list[str]:  # fmt: skip
    """Count the data of a search in its regions, and calibrate p-values; write `worth.json` and `worth.png`, and say it in lines.

    Parameters
    ----------
    tasks, members, skims
        Of the search; windows without all their members are left out.
    folder : path
    null, number, efficiencies, cluster
        As for `calibrated`.
    """
    complete = [t for t in tasks if all(o.name in members for o in tasks if o.window == t.window)]
    rows = {t.window.name: window_rows(skims, t.window) for t in complete}
    summary = calibrated(complete, members, rows, null=null, number=number, efficiencies=efficiencies, cluster=cluster)
    summary["goodness"] = {name: _goodness(complete, members, rows[name]["data"], name) for name in rows}
    files.write(folder / "worth.json", json.dumps(summary, indent=1).encode())
    draw_worth(summary, folder / "worth.png")
    return in_words(summary)


def _goodness(tasks: Sequence[Task], members: Mapping[str, Member], data: Skim, name: str) -> float | None:
    """Return the p-value that data of a window are of its template, by some rows of each; None where there are too few."""
    ours = [t for t in tasks if t.window.name == name]
    window = ours[0].window
    inputs = [
        i for i, c in enumerate(data.columns) if c in (ours[0].settings.inputs or data.columns) and c != window.mass
    ]
    region = data.select(window.in_signal_region(mass_of(data, window.mass)))
    rng = np.random.default_rng(ours[0].seed)
    x = np.concatenate([members[t.name].template for t in ours])
    weight = np.concatenate([members[t.name].template_weight for t in ours])
    n = min(len(x), len(region.weight), _COMPARED)
    if n < 2 * _KERNELS:
        return None
    some = rng.choice(len(x), n, replace=False, p=weight / weight.sum())
    rows = region.x[rng.choice(len(region.weight), n, replace=False)]
    return goodness_of_fit(rows[:, inputs], x[some][:, inputs], permutations=99, kernels=_KERNELS, seed=ours[0].seed).p


def calibrated(
    tasks: Sequence[Task], members: Mapping[str, Member], skims: Mapping[str, Mapping[Role, Skim]], *, null: Null, number: int,
    efficiencies: Sequence[float], cluster: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Calibrate the p-values of a search by searches of data that hold no signal.

    Parameters
    ----------
    tasks : sequence of Task
        Of all windows and folds.
    members : {name of a task: Member}
    skims : {name of a window: {role: Skim}}
        As they were searched.
    null : "permutations", "half" or "pseudo_data"
        Data and template change places at random, and the classifier is trained again in all folds; the same with half of the
        data to train and half to count; or pseudo-data from the template go through the whole chain.
    number : int
        Of searches without signal, 300 or more for a p-value of some per cent.
    efficiencies : sequence of float
    cluster : optional

    Returns
    -------
    dict
        windows → efficiency → observed, expected, error, significance, p_value (as if nothing had been trained), calibrated, error of
        it, and the significances without signal; and the calibrated p-value of the largest significance of all.

    Raises
    ------
    ConfigError
        The method has no classifier to permute for, or too many searches failed.
    """
    rows = min(
        sum(len(members[t.name].template) for t in tasks if t.window.name == name) / 2
        for name in {t.window.name for t in tasks}
    )
    carried = [e for e in efficiencies if e * rows >= MIN_EFFECTIVE]
    for e in sorted(set(efficiencies) - set(carried)):
        say(f"the efficiency {e:g} is not counted: it would rest on {e * rows:.1f} rows of the template")
    if not carried:
        raise ConfigError(f"no efficiency rests on {MIN_EFFECTIVE:g} rows of the template: raise template_rows")
    efficiencies = carried
    plans: dict[str, Permutations | PseudoData] = {}
    for window in {t.window.name: t.window for t in tasks}.values():
        ours = [t for t in tasks if t.window.name == window.name]
        plans[window.name] = _plan(ours, [members[t.name] for t in ours], skims[window.name], null, efficiencies)
    observed: dict[str, list[Excess]] = {}
    nulls: dict[str, dict[int, list[Excess]]] = {name: {} for name in plans}
    first = 0 if null != "pseudo_data" else 1
    blocks = [
        (tuple(range(start, min(start + _size(null), number + 1))), name)
        for name in plans
        for start in range(first, number + 1, _size(null))
    ]
    failures: list[str] = []
    with progress("search without signal", len(blocks)) as advance:
        for (numbers, name), result in dispatch(_search, [((n, w), w) for n, w in blocks], plans, cluster):
            if isinstance(result, Failure):
                failures += [str(result)] * len(numbers)
            else:
                nulls[name] |= dict(zip(numbers, result, strict=True))
            advance(1, note=f"{len(failures)} failed" if failures else "")
    if len(failures) > _FAILED * number * len(plans):
        raise ConfigError(
            f"{len(failures)} of {number * len(plans)} searches without signal failed, such as: {failures[0]}"
        )
    if failures:
        say(
            f"{len(failures)} of {number * len(plans)} searches without signal failed and count for nothing: {failures[0]}"
        )
    for name in plans:
        counted = nulls[name].pop(0, None)
        of_window = [members[t.name] for t in tasks if t.window.name == name]
        observed[name] = counted if counted is not None else excess_of(of_window, efficiencies)
    return _summary(observed, nulls, null, len(failures))


def _size(null: Null) -> int:
    return 1 if null == "pseudo_data" else _AT_ONCE


def _search(item: tuple[tuple[int, ...], str], plan: Permutations | PseudoData) -> list[list[Excess]]:
    numbers, _ = item
    if isinstance(plan, Permutations):
        return permuted_excesses(plan, numbers)
    return [pseudo_excesses(plan, n) for n in numbers]


def _plan(
    tasks: Sequence[Task],
    members: Sequence[Member],
    skims: Mapping[Role, Skim],
    null: Null,
    efficiencies: Sequence[float],
) -> Permutations | PseudoData:
    task, data = tasks[0], skims["data"]
    x = np.concatenate([m.template for m in members])
    weight = np.concatenate([m.template_weight for m in members])
    others = {
        k: np.zeros(len(x), v.dtype) for k, v in data.spectators.items() if k not in ("run", "luminosityBlock", "event")
    }
    template = data.replaced(x, dataset="template", weight=weight, spectators=others)
    if null == "pseudo_data":
        return PseudoData(tuple(tasks), dict(skims), template, tuple(efficiencies), task.seed)
    for name in task.method.split("+"):
        if name not in _CLASSIFIED:
            raise ConfigError(f"method {name} does not tell data from a template; calibrate it with pseudo_data")
    region = data.select(task.window.in_signal_region(mass_of(data, task.window.mass)))
    # rows without weights, as many as the classifier had, each once where all weigh the same
    rng = np.random.default_rng(task.seed)
    n = min(len(x), int(task.settings.oversampling * len(region.weight)))
    equal = bool(np.ptp(weight) < 1e-9 * weight.mean())
    places = rng.choice(len(x), n, replace=not equal, p=None if equal else weight / weight.sum())
    template = replace(template.select(places), weight=np.ones(n), event_weight=np.ones(n))
    columns = data.columns
    inputs = task.settings.inputs or tuple(c for c in columns if c != task.window.mass)
    return Permutations(
        replace(region, weight=np.ones(len(region.weight))), template, inputs, task.settings.tried,
        2 if null == "half" else task.k, task.salt, tuple(efficiencies), task.seed,
    )  # fmt: skip


def _summary(
    observed: Mapping[str, Sequence[Excess]],
    nulls: Mapping[str, Mapping[int, Sequence[Excess]]],
    null: Null,
    failed: int,
) -> dict[str, Any]:
    windows: dict[str, Any] = {}
    for name, several in observed.items():
        windows[name] = {}
        for i, excess in enumerate(several):
            without = [row[i].significance for row in nulls[name].values()]
            p, error = calibrated_p(excess.significance, without)
            windows[name][f"{excess.efficiency:g}"] = {
                **excess._asdict(), "calibrated_p": p, "calibrated_error": error, "without_signal": without,
            }  # fmt: skip
    numbers = set.intersection(*(set(rows) for rows in nulls.values()))
    most = [max(e.significance for name in nulls for e in nulls[name][n]) for n in sorted(numbers)]
    largest = max(e.significance for several in observed.values() for e in several)
    p, error = calibrated_p(largest, most)
    trials = sum(len(several) for several in observed.values())
    return {
        "null": null, "searches": len(most), "failed": failed, "trials": trials, "windows": windows,
        "largest_significance": largest, "global_p": p, "global_error": error,
    }  # fmt: skip


def draw_worth(summary: Mapping[str, Any], path: Path) -> None:
    """Draw the significances of searches without signal, and the observed ones, for every window and efficiency."""
    windows = summary["windows"]
    columns = max(len(rows) for rows in windows.values())
    with canvas(path, len(windows), columns, size=(4.6, 3.4)) as axes:
        for i, (name, rows) in enumerate(windows.items()):
            for j, (efficiency, row) in enumerate(rows.items()):
                ax = axes[i, j]
                values = np.asarray(row["without_signal"])
                edges = np.linspace(min(-3.5, values.min()), max(4.5, values.max(), row["significance"] + 0.3), 41)
                ax.hist(values, edges, histtype="stepfilled", alpha=0.4, label=f"{len(values)} searches without signal")
                z = np.linspace(edges[0], edges[-1], 200)
                normal = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * len(values) * (edges[1] - edges[0])
                ax.plot(z, normal, "k--", lw=1, label="standard normal")
                ax.axvline(row["significance"], color="C3", label=f"observed: p = {row['calibrated_p']:.3g}")
                ax.set_title(f"{name.replace('_', '–')} GeV, template efficiency {efficiency}")
                ax.set_xlabel("significance as if nothing was trained")
                ax.legend(loc="upper left", fontsize=8)


def in_words(summary: Mapping[str, Any]) -> list[str]:
    """Say in a line for every window and efficiency what was counted, and what it is worth."""
    lines = [
        f"{name.replace('_', '–')} GeV, efficiency {efficiency}: {row['observed']:.0f} events, {row['expected']:.1f} ± {row['error']:.1f} "
        f"expected, {row['significance']:+.1f}σ; p = {row['calibrated_p']:.3g} ± {row['calibrated_error']:.1g} calibrated, "
        f"{row['p_value']:.3g} if it were not"
        for name, rows in summary["windows"].items()
        for efficiency, row in rows.items()
    ]
    lines.append(
        f"largest of {summary['trials']}: {summary['largest_significance']:+.1f}σ, p = {summary['global_p']:.3g} ± "
        f"{summary['global_error']:.1g} by {summary['searches']} searches without signal"
    )
    for name, p in summary.get("goodness", {}).items():
        if p is not None:
            lines.append(f"{name.replace('_', '–')} GeV: goodness of fit of data to template, p = {p:.2g}")
    return lines
