"""Feature: a named, versioned map from events to columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nanoaod import Objects

__all__ = ["Column", "Feature"]

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of a feature."""

    name: str
    unit: str = ""
    label: str = ""


@dataclass(frozen=True)
class Feature:
    """What goes into a model: events in, float32 rows out.

    Attributes
    ----------
    name, version : str, int
        A change of meaning changes the version; a card that asks for another version is refused.
    level : "jet" or "event"
        One row per object of a collection, or per event.
    columns : function of the options
        The columns, in the order in which they leave `compute`.
    reads : function of (collection, options)
        Alternatives, each a tuple of branches: a file that has all branches of one of them will do.
    compute : function of (objects, options)
        (n, columns) float32; NaN where undefined.
    options : {name: (default, allowed values or None)}
        Conventions that can be chosen; they stand in the card.
    convention, reference : str
        What exactly is computed, and where it is defined.
    """

    name: str
    version: int
    level: Literal["jet", "event"]
    columns: Callable[[Options], tuple[Column, ...]]
    reads: Callable[[str, Options], tuple[tuple[str, ...], ...]]
    compute: Callable[[Objects, Options], npt.NDArray[np.float32]]
    convention: str
    reference: str
    options: Mapping[str, tuple[Any, tuple[Any, ...] | None]] = field(default_factory=dict)

    def resolve(self, options: Options) -> dict[str, Any]:
        """Fill in defaults.

        Raises
        ------
        ConfigError
            An option or its value does not exist.
        """
        for name, value in options.items():
            if name not in self.options:
                raise ConfigError(f"{self.name}: " + unknown_text("option", name, self.options))
            allowed = self.options[name][1]
            if allowed is not None and value not in allowed:
                raise ConfigError(f"{self.name}: option {name} is {value!r}, but must be one of {list(allowed)}")
            if allowed is None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
                raise ConfigError(f"{self.name}: option {name} is {value!r}, but must be a positive number")
        return {name: options.get(name, default) for name, (default, _) in self.options.items()}

    def key(self, options: Options) -> str:
        """Return name and options as used for the columns of a skim: `jet_substructure[source=stored]`."""
        chosen = self.resolve(options)
        changed = [f"{k}={v}" for k, v in sorted(chosen.items()) if v != self.options[k][0]]
        return self.name + (f"[{','.join(changed)}]" if changed else "")
