"""Feature: a named, versioned map from events to rows of numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError

from coffea_ad.config import Frozen
from coffea_ad.errors import BadFeature, ConfigError, unknown_text
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.typing import Float32s

__all__ = ["Column", "Feature", "Names", "NonNegative", "Number", "Options", "Positive", "Rows", "at_once"]


def _number(value: Any) -> Any:
    """Return a number that YAML takes for a text, such as 1e3; what else is no number stays as it is."""
    return float(value) if isinstance(value, str) and _EXPONENTIAL.fullmatch(value) else value


_EXPONENTIAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
Number = Annotated[float, Field(strict=True), BeforeValidator(_number)]
Positive = Annotated[float, Field(strict=True, gt=0), BeforeValidator(_number)]
NonNegative = Annotated[float, Field(strict=True, ge=0), BeforeValidator(_number)]

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""Names in a list; one alone will do."""

Rows = Callable[[int, int], Float32s]
"""Rows start … stop of a feature: what is small is prepared once per chunk, what is large is made when asked for."""


class Options(Frozen):
    """Conventions that can be chosen; they stand in the card, and another choice is another input."""


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
        The columns, in the order of the last axis.
    reads : function of (collection, options)
        Alternatives, each a tuple of branches: a file that has all branches of one of them will do.
    rows : function of (objects, options)
        Prepares a chunk and returns a function of (start, stop) that gives (stop − start, *shape) float32; NaN where
        undefined.
    convention, reference : str
        What exactly is computed, and where it is defined.
    options : subclass of `Options`
    shape : function of the options, optional
        Shape of a row; (number of columns,) by default.
    sparse : bool
        Most numbers of a row are 0; a skim stores the others with their places.
    selects : str
        The option that picks columns and changes none of them, if there is one: a skim with more columns will do.
    """

    name: str
    version: int
    level: Literal["jet", "event"]
    columns: Callable[[Any], tuple[Column, ...]]
    reads: Callable[[str, Any], tuple[tuple[str, ...], ...]]
    rows: Callable[[Objects, Any], Rows]
    convention: str
    reference: str
    options: type[Options] = Options
    shape: Callable[[Any], tuple[int, ...]] | None = None
    sparse: bool = False
    selects: str = ""

    def resolve(self, options: Mapping[str, Any] | Options) -> Any:
        """Check options and fill in defaults.

        Raises
        ------
        ConfigError
            An option or its value does not exist.
        """
        if isinstance(options, self.options):
            return options
        try:
            return self.options.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                text = unknown_text("option", where, self.options.model_fields)
            else:
                text = f"option {where or 'set'} is {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
            raise ConfigError(f"{self.name}: {text}") from None

    def check(self) -> None:
        """Check what a feature says of itself, for one that is not ours.

        Raises
        ------
        BadFeature
        """
        if not re.fullmatch(r"[A-Za-z_]\w*", str(self.name)):
            raise BadFeature(
                f"feature {self.name!r}: a name has letters, digits and _ only, since columns of skims carry it"
            )
        if self.level not in ("jet", "event"):
            raise BadFeature(f"feature {self.name}: its level is {self.level!r}, but must be 'jet' or 'event'")
        if type(self.version) is not int or self.version < 1:
            raise BadFeature(f"feature {self.name}: its version is {self.version!r}, but must be 1, 2, …")
        try:
            options = self.options()
            names = [column.name for column in self.columns(options)]
            self.row_shape(options)
            reads: Any = self.reads("FatJet", options)
            right = bool(reads) and all(
                not isinstance(way, str) and len(way) > 0 and all(isinstance(branch, str) for branch in way)
                for way in reads
            )
        except Exception as error:
            sentence = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise BadFeature(f"feature {self.name} does not say its columns and branches: {sentence}") from error
        if not names or len(set(names)) < len(names):
            raise BadFeature(f"feature {self.name}: its columns are {names}, but must be different names, at least one")
        if not right:
            raise BadFeature(
                f"feature {self.name}: reads gives {reads!r}, but must give alternatives, each a tuple of branches"
            )

    def row_shape(self, options: Any) -> tuple[int, ...]:
        """Return the shape of a row."""
        return self.shape(options) if self.shape is not None else (len(self.columns(options)),)

    def size(self, options: Any) -> int:
        """Return how many numbers a row has."""
        return math.prod(self.row_shape(options))

    def prepare(self, objects: Objects, options: Any) -> Rows:
        """Return `rows(objects, options)`, whose answers are checked.

        Raises
        ------
        BadFeature
            A feature of another package gives something else than it says.
        """
        rows, shape = self.rows(objects, options), self.row_shape(options)

        def checked(start: int, stop: int) -> Float32s:
            values = rows(start, stop)
            if values.dtype != np.float32 or values.shape != (stop - start, *shape):
                raise BadFeature(
                    f"feature {self.name} gives {values.dtype} of shape {values.shape}, but should give float32 of shape "
                    f"{(stop - start, *shape)}"
                )
            return values

        return checked

    def listed(self, options: Any) -> bool:
        """Return whether a skim stores rows as lists of places and numbers, not as columns."""
        return self.sparse or self.row_shape(options) != (len(self.columns(options)),)

    def key(self, options: Mapping[str, Any] | Options) -> str:
        """Return name and options: `jet_substructure[source=stored]`."""
        return self._named(options, self.options.model_fields)

    def stored_as(self, options: Mapping[str, Any] | Options) -> str:
        """Return the key without the option that only picks columns: what stands before the columns of a skim."""
        return self._named(options, set(self.options.model_fields) - {self.selects})

    def _named(self, options: Mapping[str, Any] | Options, names: Iterable[str]) -> str:
        resolved, default = self.resolve(options), self.options()
        changed = {k: getattr(resolved, k) for k in sorted(names)}
        text = [f"{k}={_text(v)}" for k, v in changed.items() if v != getattr(default, k)]
        return self.name + (f"[{','.join(text)}]" if text else "")


def _text(value: Any) -> str:
    return "+".join(str(v) for v in value) if isinstance(value, tuple) else str(value)


def at_once(compute: Callable[[Objects, Any], Float32s]) -> Callable[[Objects, Any], Rows]:
    """Turn a function that gives all rows into `Feature.rows`: for features whose rows are small.

    >>> at_once(lambda objects, options: np.arange(4, dtype=np.float32))(None, None)(1, 3).tolist()
    [1.0, 2.0]
    """

    def rows(objects: Objects, options: Any) -> Rows:
        table = compute(objects, options)
        return lambda start, stop: table[start:stop]

    return rows
