"""A folder belongs to one search: the same one goes on in it, and another one does not overwrite it unasked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coffea_ad import files
from coffea_ad.errors import ConfigError, listed
from coffea_ad.resonant.members import Role
from coffea_ad.resonant.trainings import digest_of
from coffea_ad.skims.skim import Skim

__all__ = ["SEARCH", "claim"]

SEARCH = "search.json"
_APART = ("data", "resume", "count", "null")  # where rows come from, and what changes neither trainings nor models


def claim(
    folder: Path, outputs: Sequence[Path], config: Mapping[str, Any], skims: Mapping[Role, Skim], *, force: bool = False
) -> None:
    """Take a folder and model files for a search, or refuse if they are another one's.

    Parameters
    ----------
    folder : path
        Of the trainings; `search.json` in it says what search it is.
    outputs : sequence of path
        The model files that will be written.
    config : mapping
        Resolved. The same configuration on the same rows is the same search.
    skims : {role: Skim}
        All rows.
    force : bool
        Take them in any case; trainings that are the same are used even then.

    Raises
    ------
    ConfigError
        Names what differs.
    """
    ours = {
        "config": {k: v for k, v in json.loads(json.dumps(dict(config))).items() if k not in _APART},
        "rows": {role: digest_of({role: skim}) for role, skim in skims.items()},
    }
    path = folder / SEARCH
    theirs = _read(path)
    if theirs == ours:
        return
    if not force:
        how = "choose another name, or overwrite it with --force; trainings that are the same are not done again"
        if theirs is not None:
            raise ConfigError(f"{folder}: there is another search in it already ({_differing(theirs, ours)}); {how}")
        present = [p for p in outputs if p.exists()] or sorted(folder.glob("*_fold_*.npz"))
        if present:
            raise ConfigError(f"{present[0]} exists already, and is not known to be of this search; {how}")
    folder.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(ours, indent=1).encode())


def _read(path: Path) -> dict[str, Any] | None:
    """Return what search a folder is of: None if of none, and nothing if it is not to be read."""
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        return {"config": dict(stored["config"]), "rows": dict(stored["rows"])}
    except (ValueError, KeyError, TypeError):
        return {"config": {}, "rows": {}}


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    one, two = theirs["config"], ours["config"]
    keys = [k for k in dict.fromkeys((*two, *one)) if one.get(k) != two.get(k)]
    said = [
        f"{k}: {one[k]}, not {two[k]}" if _short(one.get(k)) and _short(two.get(k)) else f"another {k}" for k in keys
    ]
    return listed(said, 3, rest="more") if said else "of other rows"


def _short(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and len(str(value)) < 40
