"""Where results go: checked before the work, and nothing is overwritten unless asked for. The same rule for all verbs."""

from __future__ import annotations

import contextlib
import glob
import json
from collections.abc import Iterable
from pathlib import Path

from coffea_ad import files
from coffea_ad.errors import ConfigError

__all__ = ["EVALUATION", "RESULTS", "TRAINING", "check_file", "check_folder", "clear_figures", "existing", "skimmed"]

RESULTS = (
    "report.json",
    "histograms.zip",
    "histograms.json",
    "histograms.root",
    "manifest.json",
    "sections",
    "events",
    "figures",
    "evaluation.json",
)
"""What a run leaves in its folder, and what tells that the folder is an evaluation's."""
EVALUATION = ("evaluation.json", "evaluation.csv", "table.md", "figures")
"""What an evaluation leaves in its folder."""
TRAINING = ("metrics.jsonl", "checkpoint.pt", "folds.json", "fold_0")
"""What a training leaves in the folder beside its model."""


def existing(folder: str | Path, names: Iterable[str]) -> list[str]:
    """Return which of some files and folders are in a folder, a local one or an fsspec URL."""
    fs, root = files.located(folder)
    return [name for name in names if fs.exists(f"{root}/{name}")]


def check_file(path: str | Path, *, suffix: str = "", force: bool = False, read: Iterable[str | Path] = ()) -> None:
    """Refuse a file that cannot be written, that is there already, or that is read to make it.

    Parameters
    ----------
    path : path or fsspec URL
        Its folder is made.
    suffix : str
        How its name must end.
    force : bool
        Overwrite what is there.
    read : iterable of path
        What the file is made from, which it does not replace, even by force and under another spelling of its path.

    Raises
    ------
    ConfigError
    """
    if suffix and not str(path).endswith(suffix):
        raise ConfigError(f"{path}: this must be a file whose name ends in {suffix}")
    fs, place = files.located(path)
    if fs.isdir(place):
        raise ConfigError(f"{path}: this is a folder, but a file is to be written")
    for source in read:
        if _same_file(path, source):
            raise ConfigError(f"{path}: this is {source}, from which it would be made; write to another file")
    if fs.exists(place) and not force:
        raise ConfigError(f"{path} exists already; choose another name, or overwrite it with --force")
    files.require_writable(*files.parted(path))


def _same_file(one: str | Path, two: str | Path) -> bool:
    if files.is_url(one) or files.is_url(two):
        return files.absolute(one) == files.absolute(two)
    first, second = (Path(files.located(path)[1]) for path in (one, two))
    with contextlib.suppress(OSError):
        return first.samefile(second)
    return first.resolve() == second.resolve()


def check_folder(path: str | Path, names: Iterable[str], *, force: bool = False) -> None:
    """Refuse a folder that cannot be written, or that holds results already: a folder belongs to one run.

    Parameters
    ----------
    path : path or fsspec URL
        It is made.
    names : iterable of str
        What will be written into it; other files do not matter.
    force : bool
        Overwrite what is there.

    Raises
    ------
    ConfigError
    """
    fs, place = files.located(path)
    if fs.isfile(place):
        raise ConfigError(f"{path}: results cannot be written there (it is a file, and must be a folder)")
    present = [] if force else existing(path, names)
    if present:
        raise ConfigError(
            f"{path}: there are results in it already ({present[0]}); choose another folder, or overwrite them with --force"
        )
    files.require_writable(path, "results")


def skimmed(folder: str | Path) -> set[str]:
    """Return the datasets of a skim, by its manifest; none if there is no skim."""
    fs, root = files.located(folder)
    try:
        with fs.open(f"{root}/manifest.json", "rb") as file:
            return set(json.loads(file.read())["datasets"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def clear_figures(folder: str | Path, pattern: str = "figures/*.png") -> None:
    """Remove the figures that were drawn from what is now overwritten; there may be none."""
    fs, root = files.located(folder)
    for path in fs.glob(f"{glob.escape(root)}/{pattern}"):
        with contextlib.suppress(OSError):
            fs.rm_file(path)
