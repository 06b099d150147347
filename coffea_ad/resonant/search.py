"""A search: rows by what they are for → windows × folds of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from coffea_ad.errors import ConfigError, SkimError, UnknownName, listed
from coffea_ad.resonant.classifiers import Classified
from coffea_ad.resonant.members import Role, Task
from coffea_ad.resonant.methods import METHODS
from coffea_ad.resonant.settings import Settings
from coffea_ad.resonant.trainings import Trained, train_all
from coffea_ad.resonant.windows import Window, mass_of, refuse_empty
from coffea_ad.skims.skim import Skim

__all__ = ["check_method", "in_roles", "mixture", "search", "tasks_of", "window_rows"]

_WITHOUT_MASS = ("cwola", "iad", "supervised")
_LEAST = 200  # rows that a signal region and each sideband must have


def check_method(method: str, roles: Sequence[str], settings: Settings | None = None, *, network: str = "") -> None:
    """Refuse a method that does not exist, that needs datasets which are not named, or that settings have no effect on.

    On the vectors of a network only methods whose scores are of classifiers on real rows go: they see no mass.

    Raises
    ------
    UnknownName, ConfigError
    """
    for name in method.split("+"):
        if name not in METHODS:
            raise UnknownName.of("method", name, METHODS)
        missing = [need for need in METHODS[name].needs if need not in ("sidebands", *roles)]
        if missing:
            raise ConfigError(f"method {name} needs {' and '.join(missing)}: name datasets of the skim for it")
        if network and name not in _WITHOUT_MASS:
            raise ConfigError(
                f"method {name} needs the mass among the inputs, and {network} gives a vector alone; take {', '.join(_WITHOUT_MASS)}"
            )
    if (
        settings is not None
        and settings.candidates
        and "+" not in method
        and not issubclass(METHODS[method], Classified)
    ):
        raise ConfigError(f"settings.candidates has no effect on method {method}, which has no classifier")


def in_roles(data: Skim, roles: Mapping[Role, Sequence[str]], mass: str) -> dict[Role, Skim]:
    """Divide the rows of a skim by what their datasets are for.

    Parameters
    ----------
    data : Skim
    roles : {"data", "simulation", "background" or "signal": names of datasets}
    mass : str
        The column of the resonant variable.

    Raises
    ------
    SkimError
        A dataset has no rows, or the mass is no column of x.
    """
    if mass not in data.columns:
        raise SkimError(
            f"the mass {mass} must be a column of the feature, since densities are conditional on it; there are "
            f"{listed(data.columns, 20)}"
        )
    out: dict[Role, Skim] = {}
    for role, names in roles.items():
        if not names:
            continue
        rows = data.select(np.isin(data.dataset, list(names)))
        absent = sorted(set(names) - set(np.unique(rows.dataset).tolist()))
        if absent:
            raise SkimError(f"{role}: there are no rows of {listed(absent, 10)} in the skim")
        out[role] = rows
    return out


def mixture(data: Skim, signal: Skim, n: int, seed: int) -> Skim:
    """Return data with n rows of a signal in it, drawn without replacement, each of weight 1: an injected mixture for studies.

    Raises
    ------
    SkimError
        There are fewer rows of the signal than that.
    """
    if n > len(signal.weight):
        raise SkimError(f"{n} rows of signal are to be injected, but there are only {len(signal.weight)}")
    places = np.sort(np.random.default_rng(seed).permutation(len(signal.weight))[:n])
    rows = signal.select(places)
    return data.joined(replace(rows, weight=np.ones(n), event_weight=np.ones(n))) if n else data


def window_rows(skims: Mapping[Role, Skim], window: Window) -> dict[Role, Skim]:
    """Return the rows of a window and its sidebands, in every role.

    Raises
    ------
    SkimError
        The data have too few of them.
    """
    refuse_empty(window, skims["data"], least=_LEAST)
    out: dict[Role, Skim] = {}
    for role, skim in skims.items():
        m = mass_of(skim, window.mass)
        rows = skim.select(window.in_signal_region(m) | window.in_sidebands(m))
        out[role] = replace(rows, x=np.asarray(rows.x[:], np.float32))
    return out


def tasks_of(
    method: str, settings: Settings, windows: Sequence[Window], *, k: int, salt: str, seed: int, template_rows: int
) -> list[Task]:
    """Return the trainings of a search, each with a seed of its own that depends on window and fold alone."""
    return [
        Task(method, settings, window, f, k, salt, seed + crc32(window.name.encode()) % 1_000_003 + f, template_rows)
        for window in windows
        for f in range(k)
    ]


def search(
    tasks: Sequence[Task], skims: Mapping[Role, Skim], folder: Path, *, cluster: Any = None
) -> tuple[Trained, dict[str, str]]:
    """Carry out the trainings of windows that have enough rows; say of the others why they have none.

    Returns
    -------
    Trained, {name of a window: sentence}
    """
    rows: dict[str, dict[Role, Skim]] = {}
    left_out: dict[str, str] = {}
    for window in {t.window.name: t.window for t in tasks}.values():
        try:
            rows[window.name] = window_rows(skims, window)
        except SkimError as error:
            left_out[window.name] = str(error)
    if not rows:
        raise SkimError("no window can be searched: " + "; ".join(left_out.values()))
    return train_all([t for t in tasks if t.window.name in rows], rows, folder, cluster=cluster), left_out
