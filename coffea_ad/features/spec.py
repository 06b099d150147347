"""FeatureSpec: a feature as a skim or a model has it, and whether this installation computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import model_validator

from coffea_ad import features
from coffea_ad.config import Frozen
from coffea_ad.errors import CardMismatch, listed

__all__ = ["ColumnSpec", "FeatureConfig", "FeatureSpec", "column_names", "feature_spec"]


class ColumnSpec(Frozen):
    """A column as it entered the training."""

    name: str
    unit: str = ""


class FeatureSpec(Frozen):
    """A feature as it entered the training: another version, option or order of columns is another input.

    `shape` is that of a row; without it, a row is its columns.
    """

    name: str
    version: int
    options: dict[str, Any] = {}
    columns: tuple[ColumnSpec, ...]
    shape: tuple[int, ...] | None = None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return (len(self.columns),) if self.shape is None else self.shape

    @property
    def key(self) -> str:
        """Name with options."""
        return features.get(self.name).key(self.options)

    def check(self) -> None:
        """Compare with the feature table of this installation.

        Raises
        ------
        CardMismatch
            Version, option or columns differ.
        """
        feature = features.get(self.name)
        if feature.version != self.version:
            raise CardMismatch(
                f"the card asks for {self.name} version {self.version}, this coffea-ad computes version "
                f"{feature.version}; install the coffea-ad the model was made with, or train again"
            )
        options = feature.resolve(self.options)
        computed = tuple(c.name for c in feature.columns(options))
        expected = tuple(c.name for c in self.columns)
        if computed != expected:
            raise CardMismatch(
                f"the card's columns of {self.name} are {listed(expected, 20)}, but the feature gives {listed(computed, 20)}"
            )
        if feature.row_shape(options) != self.row_shape:
            raise CardMismatch(
                f"the card's rows of {self.name} have the shape {self.row_shape}, but the feature's "
                f"{feature.row_shape(options)}"
            )


def feature_spec(name: str, options: dict[str, Any] | None = None) -> FeatureSpec:
    """Describe a feature of this installation, options resolved.

    >>> feature_spec("jet_substructure").columns[0].name
    'sigma1'
    """
    feature = features.get(name)
    resolved = feature.resolve(options or {})
    columns = tuple(ColumnSpec(name=c.name, unit=c.unit) for c in feature.columns(resolved))
    shape = feature.row_shape(resolved)
    return FeatureSpec(
        name=name,
        version=feature.version,
        options=resolved.model_dump(mode="json"),
        columns=columns,
        shape=None if shape == (len(columns),) else shape,
    )


def column_names(specs: Sequence[FeatureSpec]) -> list[str]:
    """Return the names of the columns of features side by side; those that are not unique begin with the feature's name.

    >>> column_names([feature_spec("jet_constituents")])
    ['pt', 'deta', 'dphi']
    """
    names = [c.name for f in specs for c in f.columns]
    full = [f"{f.name}.{c.name}" for f in specs for c in f.columns]
    return [long if names.count(short) > 1 else short for short, long in zip(names, full, strict=True)]


class FeatureConfig(Frozen):
    """A feature of the table `coffea_ad.features.FEATURES`, and its options."""

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """Take a name alone for a feature with its usual options."""
        if not isinstance(value, str):
            return value
        name, bracket, options = value.partition("[")
        if bracket:  # the key by which cards and columns of a skim name it; its values have lost their types
            listed = ", ".join(": ".join(option.split("=", 1)) for option in options.rstrip("]").split(","))
            raise ValueError(f"a feature with options is written {{name: {name}, options: {{{listed}}}}}")
        return {"name": value}

    @property
    def key(self) -> str:
        """What stands before the columns of the skim: the name, with options that are not the usual ones."""
        return features.get(self.name).stored_as(self.options)
