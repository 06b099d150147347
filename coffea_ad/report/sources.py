"""The folders that a page is made of, and which of their content a page of blinded results may show."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coffea_ad import files
from coffea_ad.errors import BadFile
from coffea_ad.outputs import TRAINING, existing
from coffea_ad.results.folder import load_results
from coffea_ad.results.results import Results
from coffea_ad.search.listing import SearchResults, load_search
from coffea_ad.tables import Listing

__all__ = ["Evaluated", "Searched", "Sources", "data_in", "png_files", "read_sources"]


@dataclass(frozen=True)
class Searched:
    """The folder of a search."""

    folder: str
    content: SearchResults


@dataclass(frozen=True)
class Evaluated:
    """The folder of an evaluation."""

    folder: str
    content: dict[str, Any]
    tables: list[Listing]


@dataclass(frozen=True)
class Sources:
    """What a page is made of.

    Attributes
    ----------
    folder : str
        Of the results.
    results : Results
    searches, evaluations : list
    models : list of str
        Model files beside those that the results name.
    notes : list of str
        What is not on the page, and why.
    """

    folder: str
    results: Results
    searches: list[Searched] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def blinded(self) -> bool:
        """Whether events of any dataset are hidden."""
        return any(entry.get("blinded") for entry in self.results.report["datasets"].values())


def read_sources(folder: str | Path, others: Sequence[str | Path] = ()) -> Sources:
    """Read a results folder and folders of searches, evaluations and models, each known by what is in it.

    With blinded results, a search is shown only if it was made of the same histograms, and an evaluation only if its rows are all simulated:
    others may show what these results hide.

    Parameters
    ----------
    folder : path or URL
        Of results.
    others : sequence of path
        Folders with `search.json`, `evaluation.json` or model files, or that of a training beside its model.

    Raises
    ------
    BadFile
        A folder is none of these, or damaged.
    """
    if existing(folder, ("manifest.json",)):
        raise BadFile(f"{folder}: this is the folder of a skim, and a report is of results")
    sources = Sources(str(folder), load_results(folder))
    for other in map(str, others):
        present = existing(other, ("search.json", "evaluation.json", *TRAINING))
        models = _model_files(other)
        if "search.json" in present:
            _add_search(sources, other)
        elif "evaluation.json" in present:
            _add_evaluation(sources, other)
        elif models or (present and files.exists(f"{other.rstrip('/')}.onnx")):
            sources.models.extend(models or [f"{other.rstrip('/')}.onnx"])
        else:
            raise BadFile(
                f"{other}: this is no folder of a search (search.json), of an evaluation (evaluation.json), or of models (*.onnx)"
            )
    return sources


def _add_search(sources: Sources, folder: str) -> None:
    content = load_search(folder)
    ours = sources.results.report.get("histograms")
    if ours and content["input"].get("histograms") == ours:
        sources.searches.append(Searched(folder, content))
        return
    other = (
        f"{folder}: this search was made of {content['input']['path']}, and not of the histograms of {sources.folder}"
    )
    if sources.blinded:
        sources.notes.append(f"{other}; these are blinded, so it is not shown")
        return
    sources.notes.append(other)
    sources.searches.append(Searched(folder, content))


def _add_evaluation(sources: Sources, folder: str) -> None:
    path = files.join(folder, "evaluation.json")
    try:
        content = json.loads(files.read(path))
        tables = [_listing(table) for table in content["tables"]]
        about = content["provenance"]
        skims = [about.get("background", {}), *about.get("signals", {}).values()]
        list(map(data_in, skims))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(
            f"{path}: this was not written by coffea-ad evaluate ({type(error).__name__}: {str(error)[:100]})"
        ) from None
    if sources.blinded and any(data_in(skim) != [] for skim in skims):
        sources.notes.append(
            f"{folder}: not all rows of this evaluation are known to be simulated; these results are blinded, so it is not shown"
        )
        return
    sources.evaluations.append(Evaluated(folder, content, tables))


def _listing(table: dict[str, Any]) -> Listing:
    columns = tuple(map(str, table["columns"]))
    rows = tuple(tuple(map(str, row)) for row in table["rows"])
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"rows of {table['title']} have another length than its columns")
    return Listing(str(table["title"]), columns, rows)


def data_in(provenance: dict[str, Any]) -> list[str] | None:
    """Return which datasets of a skim are data, by what a card or an evaluation says of it; None if it does not say.

    >>> data_in({"simulated": {"qcd": True, "met": False}}), data_in({})
    (['met'], None)
    """
    simulated = provenance.get("simulated")
    return None if not simulated else [name for name, mc in simulated.items() if not mc]


def _model_files(folder: str) -> list[str]:
    return sorted(_matching(folder, "*.onnx"))


def png_files(folder: str | Path) -> dict[str, str]:
    """Return the PNG files of a folder, {name without the suffix: path}."""
    return {path.rpartition("/")[2].removesuffix(".png"): path for path in sorted(_matching(str(folder), "*.png"))}


def _matching(folder: str, pattern: str) -> list[str]:
    """Return the files of a folder, none if there is no such folder."""
    fs, root = files.located(folder)
    if not fs.isdir(root):
        return []
    names = [str(path).rstrip("/").rpartition("/")[2] for path in fs.ls(root, detail=False)]
    return [files.join(folder, name) for name in names if fnmatch.fnmatch(name, pattern)]
