"""Named errors: each says in one sentence which file, branch, feature or key is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "BadFeature",
    "BadFile",
    "BadModel",
    "CardMismatch",
    "CoffeaADError",
    "ConfigError",
    "FitFailed",
    "IncompleteRun",
    "MissingBranch",
    "MissingIndex",
    "NotNormalisable",
    "NotWritten",
    "ProcessorFailed",
    "SimulationError",
    "SkimError",
    "TemplateRefused",
    "UnknownName",
]


class CoffeaADError(Exception):
    """Base of all errors of this package; the command line prints them as one sentence and exits with 1."""


class BadFile(CoffeaADError):
    """A file cannot be read, or is not what it should be."""


class NotWritten(CoffeaADError):
    """A file cannot be written: no space, no permission, or a server that does not answer."""


class BadFeature(CoffeaADError):
    """Another package announces a feature that cannot be loaded, or is none."""


class MissingBranch(CoffeaADError):
    """A file lacks branches that a feature or a processor needs."""


class MissingIndex(CoffeaADError):
    """A collection does not say where it came from, so its constituents cannot be found."""


class BadModel(CoffeaADError):
    """A model file is damaged, edited, unsafe, or carries no card."""


class CardMismatch(CoffeaADError):
    """A card and the code, or a card and its graph, disagree on what goes into the model."""


class ConfigError(CoffeaADError):
    """A configuration holds a wrong key or value."""


class FitFailed(CoffeaADError):
    """A spectrum cannot be fitted, or its fit did not converge."""


class SkimError(CoffeaADError):
    """A skim does not hold what the training needs."""


class TemplateRefused(CoffeaADError):
    """A template of the background does not describe the data, so that a search must not use what was learnt with it."""


class SimulationError(CoffeaADError):
    """The event generator refused a setting or could not start."""


class ProcessorFailed(CoffeaADError):
    """A processor raised; the message carries the user's own traceback lines."""


class IncompleteRun(CoffeaADError):
    """Files or chunks are missing from a result; `report` is the RunReport of what was processed."""

    report: Any = None


class NotNormalisable(CoffeaADError):
    """A dataset has no factor to a luminosity: its weights sum to 0, or were not collected. `report` as above."""

    report: Any = None


class UnknownName(CoffeaADError):
    """A feature, recipe, process or key of that name does not exist."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownName:
        """Return the error with the nearest right name.

        >>> str(UnknownName.of("feature", "jet_substructre", ["jet_substructure", "rmm"]))
        "unknown feature 'jet_substructre'; did you mean 'jet_substructure'? Known: jet_substructure, rmm"
        """
        return cls(unknown_text(kind, name, known))


def unknown_text(kind: str, name: str, known: Iterable[str]) -> str:
    """Return one sentence about a wrong name, with the nearest right one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}"


def listed(names: Iterable[str], most: int, *, rest: str = "") -> str:
    """Return names in one line, and how many there are where not all are shown.

    Parameters
    ----------
    names : iterable of str
    most : int
        So many are shown.
    rest : str
        What the others are called: with "more", "a, b and 3 more"; without, "a, b, … (5)".

    Examples
    --------
    >>> listed("abcde", 2), listed("abcde", 2, rest="more files"), listed("ab", 2)
    ('a, b, … (5)', 'a, b and 3 more files', 'a, b')
    """
    every = list(names)
    if len(every) <= most:
        return ", ".join(every)
    behind = f" and {len(every) - most} {rest}" if rest else f", … ({len(every)})"
    return ", ".join(every[:most]) + behind
