"""What a search keeps of a signal depends on how much of it is there: trainings at injected strengths."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coffea_ad import files
from coffea_ad.errors import ConfigError
from coffea_ad.resonant.members import Member, Role, Task
from coffea_ad.resonant.search import mixture, search
from coffea_ad.resonant.windows import Window
from coffea_ad.scoring.calibration import calibrate, logp
from coffea_ad.skims.skim import Skim

__all__ = ["SignalEfficiency", "injected", "signal_efficiencies", "study"]


class SignalEfficiency(NamedTuple):
    """Which part of the injected signal of a window passes a region.

    Attributes
    ----------
    injected, in_window : int
        Signal events in the data, and those in the signal region.
    efficiency : float
        Nominal, of the template.
    signal_efficiency, error : float
        Of the events in the window, with the binomial error.
    """

    injected: int
    in_window: int
    efficiency: float
    signal_efficiency: float
    error: float


def signal_efficiencies(
    members: Sequence[Member], signal: Skim, injected: int, efficiencies: Sequence[float]
) -> list[SignalEfficiency]:
    """Return which part of the injected events passes, each scored by the member that has not seen it.

    Parameters
    ----------
    members : sequence of Member
        Of all folds.
    signal : Skim
        By whose datasets the injected events are known among all others.
    injected : int
    efficiencies : sequence of float
    """
    names = np.unique(signal.dataset)
    passed = np.zeros(len(efficiencies))
    n = 0
    for m in members:
        ours = np.isin(m.dataset, names)
        n += int(ours.sum())
        half = len(m.template_score) // 2
        if np.ptp(m.template_score[:half]) == 0:  # nothing was learnt in this fold, and nothing is selected
            continue
        table = calibrate(m.template_score[:half], m.template_weight[:half], "half of a template")
        values = logp(table, m.score[ours])
        passed += [(values >= -np.log10(eps)).sum() for eps in efficiencies]
    share = passed / max(n, 1)
    error = np.sqrt(np.maximum(share * (1 - share), 1 / max(n, 1)) / max(n, 1))
    return [
        SignalEfficiency(injected, n, *(float(v) for v in row)) for row in zip(efficiencies, share, error, strict=True)
    ]


def study(
    tasks: Sequence[Task], skims: Mapping[Role, Skim], strengths: Sequence[int], folder: Path, *, efficiencies: Sequence[float],
    seed: int, cluster: Any = None,
) -> list[str]:  # fmt: skip
    """Train again at several strengths of a signal; write `injected.json`, and say in lines what passes.

    Parameters
    ----------
    tasks : sequence of Task
    skims : {role: Skim}
        "data" without the signal, and "signal".
    strengths : sequence of int
        Numbers of signal events that are mixed into the data; the larger ones hold the smaller.
    folder : path
        Trainings are stored there by strength, and not done again.
    efficiencies : sequence of float
    seed : int
    cluster : optional

    Returns
    -------
    list of str
        `injected.json` holds {window: rows as `SignalEfficiency`}, by strength and efficiency.

    Raises
    ------
    ConfigError
        No signal is named, or a training failed.
    """
    windows: dict[str, Window] = {t.window.name: t.window for t in tasks}
    out: dict[str, list[dict[str, Any]]] = {name: [] for name in windows}
    for strength in sorted(set(strengths)):
        mixed = {**skims, "data": injected(skims, strength, seed)}
        trained, _ = search(tasks, mixed, folder / f"injected_{strength}", cluster=cluster)
        if trained.failed:
            name, why = next(iter(trained.failed.items()))
            raise ConfigError(
                f"{len(trained.failed)} trainings with {strength} signal events failed, such as {name}: {why}"
            )
        for name in windows:
            members = [trained.members[t.name] for t in tasks if t.window.name == name and t.name in trained.members]
            if members:
                rows = signal_efficiencies(members, skims["signal"], strength, efficiencies)
                out[name] += [row._asdict() for row in rows]
    files.write(folder / "injected.json", json.dumps(out, indent=1).encode())
    return [
        f"{name.replace('_', '–')} GeV with {row['injected']} signal events, {row['in_window']} of them in the window, efficiency "
        f"{row['efficiency']:g}: {row['signal_efficiency']:.3f} ± {row['error']:.3f} of them pass"
        for name, rows in out.items()
        for row in rows
    ]


def injected(skims: Mapping[Role, Skim], n: int, seed: int) -> Skim:
    """Return the data with n signal events.

    Raises
    ------
    ConfigError
        No signal is named.
    """
    if "signal" not in skims:
        raise ConfigError("inject: name the datasets of the signal with signal=[…]")
    return mixture(skims["data"], skims["signal"], n, seed)
