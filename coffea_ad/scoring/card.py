"""ModelCard: what a model file says of itself. The contract between training and processors.

The card is JSON inside the ONNX file. Unknown keys are refused, and a card of another schema version is refused by name;
versions 1, which knew one calibration only, 2, which did not know densities, and 3, which did not know contributions, are read.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from coffea_ad import features
from coffea_ad.config import Frozen
from coffea_ad.errors import BadModel, CardMismatch, CoffeaADError
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.scoring.domains import Column, Domain, Windows, in_words
from coffea_ad.scoring.listing import card_table
from coffea_ad.scoring.modelfile import CARD_KEY, part_for, read_texts, seal
from coffea_ad.scoring.specs import (
    Calibration,
    Contributions,
    Density,
    Folds,
    Golden,
    InputSpec,
    Name,
    Quantiles,
    RegionSpec,
)
from coffea_ad.tables import html_of
from coffea_ad.typing import Ints

__all__ = ["SCHEMA_VERSION", "ModelCard", "read_card", "without_contributions", "write_card"]


SCHEMA_VERSION = 4
_FORMER = (1, 2, 3)
"""1 knew one calibration only, 2 not whether a score is a density, and 3 no contributions: all are read."""


class ModelCard(Frozen):
    """All that is needed to apply a model, and to know where it came from.

    `calibrations` holds the table of the score, or with folds or windows one for each member: members rank the background
    differently, so that a threshold on their common scores would have another efficiency in every one. `calibration=` gives
    the only one when a card is made or copied, and reads it.

    `density` says whether the score is −log p(x) or −log p(z), where it is a density at all. `ad_logp` never is: it is −log₁₀ of the
    background's efficiency.

    `slots_vary` says that empty slots at the end of a row, (slots, columns), change nothing, and that the graph takes rows without them.

    `contributions` describes the outputs that say what each part of a row adds to its score, where the graph has them.

    A row has no score where it is outside `domain`, whose conditions all have to hold, or outside all `windows`. Each window
    has a member, or with folds k: member window · k + fold scores the row.
    """

    schema_version: Literal[4] = 4
    name: Name
    method: str
    level: Literal["jet", "event"] = "jet"
    collection: str = "FatJet"
    inputs: tuple[InputSpec, ...] = Field(min_length=1)
    output: str = "score"
    contributions: Contributions | None = None
    calibrations: tuple[Calibration, ...] = ()
    regions: tuple[RegionSpec, ...] = ()
    quantiles: Quantiles | None = None
    selection: dict[str, Any] = {}
    folds: Folds | None = None
    density: Density | None = None
    slots_vary: bool = False
    domain: tuple[Domain, ...] = ()
    windows: Windows | None = None
    flavours: tuple[str, ...] = ()
    provenance: dict[str, Any] = {}
    golden: Golden | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_calibration(cls, data: Any) -> Any:
        """Read cards of former schema versions, and the short form of a single calibration."""
        return _with_calibrations(data) if isinstance(data, dict) else data

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> ModelCard:
        """Copy with changes; `calibration` among them is the only one."""
        return super().model_copy(update=None if update is None else _with_calibrations(update), deep=deep)

    @model_validator(mode="after")
    def _one_calibration_or_one_a_member(self) -> ModelCard:
        if len(self.calibrations) not in {0, 1, self.members}:
            what = "fold" if self.windows is None else "window" if self.folds is None else "fold of every window"
            raise ValueError(f"{len(self.calibrations)} calibrations; there must be one, or one for every {what}")
        return self

    @model_validator(mode="after")
    def _one_condition_a_spectator(self) -> ModelCard:
        names = [d.spectator for d in self.domain] + ([] if self.windows is None else [self.windows.spectator])
        if len(set(names)) != len(names):
            raise ValueError(f"two conditions of the domain are on the same spectator: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _nested(self) -> ModelCard:
        names = [r.name for r in self.regions]
        if len(set(names)) != len(names):
            raise ValueError("two regions have the same name")
        if self.regions and not self.calibrations:
            raise ValueError("regions need a calibration")
        for loose, tight in zip(self.regions, self.regions[1:], strict=False):
            if tight.efficiency > loose.efficiency:
                raise ValueError("regions must run from loose to tight")
        return self

    @model_validator(mode="after")
    def _contributions_are_another_output(self) -> ModelCard:
        if set(self.outputs) & set(self.contribution_outputs):
            raise ValueError(f"contributions have the output of the score, {self.output}")
        if self.contributions is not None and not self.contributions.parts and len(self.inputs) > 1:
            raise ValueError(f"contributions to a score of {len(self.inputs)} inputs need names of their parts")
        return self

    @model_validator(mode="after")
    def _golden_scores_are_complete(self) -> ModelCard:
        if self.golden is None:
            return self
        members, scores = len(self.outputs), len(self.golden.scores)
        for name, rows in self.golden.inputs.items():
            if scores != members * len(rows):
                raise ValueError(
                    f"{len(rows)} golden rows of {name} need {members * len(rows)} scores ({members} a row), not {scores}"
                )
        return self

    def __repr__(self) -> str:
        """Name what the card is of; `model_dump` has everything, and `coffea-ad card FILE` prints it for people."""
        what = "whole events" if self.level == "event" else self.collection
        columns = sum(len(spec.columns) for spec in self.inputs)
        regions = ", ".join(region.name for region in self.regions) or "none"
        where = f", where {self.validity}" if self.validity else ""
        return f"ModelCard({self.name!r}, {self.method} of {what}{where}, {columns} columns, regions: {regions})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_of(repr(self), [card_table(self)])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs of the graph that are scores: one, or one for every fold, window, or fold of every window."""
        return self._of_members(self.output)

    @property
    def contribution_outputs(self) -> tuple[str, ...]:
        """Outputs of the graph that are contributions, one for every score; none if the card promises none."""
        return () if self.contributions is None else self._of_members(self.contributions.output)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what contributes to a score: numbers of a row, and terms; none if the card promises no contributions."""
        if self.contributions is None:
            return ()
        return (*(self.contributions.parts or self.inputs[0].entries), *self.contributions.terms)

    def _of_members(self, output: str) -> tuple[str, ...]:
        if self.folds is None and self.windows is None:
            return (output,)
        return tuple(f"{output}_{member}" for member in range(self.members))

    @property
    def members(self) -> int:
        """How many networks there are, of which one scores a row: number of windows times number of folds."""
        return (1 if self.windows is None else len(self.windows.bounds)) * (1 if self.folds is None else self.folds.k)

    @property
    def validity(self) -> str:
        """Where rows have a score, in words; empty if everywhere."""
        return in_words(self.domain, self.windows)

    @property
    def spectators(self) -> tuple[str, ...]:
        """Names of the spectators that the domain, the windows and the thresholds need."""
        names = [d.spectator for d in self.domain] + ([] if self.windows is None else [self.windows.spectator])
        return tuple(dict.fromkeys(names + [r.spectator for r in self.regions if r.spectator is not None]))

    def window_of(self, column: Column) -> Ints | None:
        """Return the window of every row, 0 without windows, and −1 where it has no score; None if all may have one.

        Parameters
        ----------
        column : callable
            Gives a spectator by its name, (n,), NaN where undefined.
        """
        if not self.validity:
            return None
        masks = [d.contains(column(d.spectator)) for d in self.domain]
        inside = np.logical_and.reduce(masks) if masks else np.True_
        window = np.int64(0) if self.windows is None else self.windows.index(column(self.windows.spectator))
        return np.asarray(np.where(inside, window, -1), np.int64)

    def member_names(self) -> list[str]:
        """Say of every member which rows it scores, for messages and calibrations: empty for the only one.

        >>> card = ModelCard.model_validate({
        ...     "name": "toy", "method": "AE", "folds": {"k": 2, "salt": "s"},
        ...     "inputs": [{"features": [{"name": "f", "version": 1, "columns": [{"name": "x"}]}]}],
        ... })
        >>> card.member_names()
        ['fold 0', 'fold 1']
        """
        windows = [""] if self.windows is None else [str(w) for w in self.windows.parts]
        folds = [""] if self.folds is None else [f"fold {f}" for f in range(self.folds.k)]
        return [", ".join(filter(None, pair)) for pair in itertools.product(windows, folds)]

    def check(self) -> None:
        """Compare all features with the table of this installation.

        Raises
        ------
        CardMismatch, UnknownName
        """
        for spec in self.inputs:
            for feature in spec.features:
                feature.check()
                level = features.get(feature.name).level
                if level != self.level:
                    raise CardMismatch(
                        f"the {self.level}-level model cannot take the {level}-level feature {feature.name}"
                    )

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of all scores, or None.

        Raises
        ------
        CardMismatch
            Every member has its own.
        """
        if len(self.calibrations) > 1:
            member = "fold" if self.windows is None else "window"
            raise CardMismatch(f"{self.name}: every {member} has a calibration of its own; see `calibrations`")
        return self.calibrations[0] if self.calibrations else None

    @property
    def calibration_digest(self) -> str:
        """SHA-256 of the calibrations: thresholds on `ad_logp` mean the same wherever they are the same."""
        text = "\n".join(c.model_dump_json() for c in self.calibrations)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def reads(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Alternatives of branches for each feature, and what tells the folds apart."""
        needs = {
            f"feature {f.key}": features.get(f.name).reads(self.collection, features.get(f.name).resolve(f.options))
            for spec in self.inputs
            for f in spec.features
        }
        return needs if self.folds is None else {**needs, "the folds": (EVENT_ID,)}


def _with_calibrations(data: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(data)
    if type(out.get("schema_version")) is int and out["schema_version"] in _FORMER:
        out["schema_version"] = SCHEMA_VERSION
    if "calibration" in out:
        if "calibrations" in out:
            raise ValueError("calibration and calibrations are given at once")
        only = out.pop("calibration")
        out["calibrations"] = () if only is None else (only,)
    return out


def parse_card(text: str, name: str = "model") -> ModelCard:
    """Read a card from JSON.

    Raises
    ------
    BadModel
        The JSON is no card, or one of another schema version; the message names the first wrong key.
    """
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if key == "schema_version":
            raise BadModel(
                f"{name}: its card has schema version {first['input']!r}, this coffea-ad reads 1 to {SCHEMA_VERSION}"
            ) from None
        raise BadModel(f"{name}: its card is wrong at {key or 'the top'}: {first['msg']}") from None
    except CoffeaADError as error:
        raise BadModel(f"{name}: {error}") from None


def read_card(data: bytes, name: str = "model") -> ModelCard:
    """Return the card in an ONNX file's bytes; the digest is the caller's business (`modelfile.verify`)."""
    texts = read_texts(data, name)
    if CARD_KEY not in texts:
        raise BadModel(f"{name}: it carries no card; give it one with `coffea-ad card attach MODEL CARD.yaml`")
    return parse_card(texts[CARD_KEY], name)


def without_contributions(data: bytes, card: ModelCard, name: str = "model") -> tuple[bytes, ModelCard]:
    """Return the part of a file's graph that gives scores, and the card without the promise of contributions."""
    if card.contributions is None:
        return data, card
    return part_for(data, card.outputs, name), card.model_copy(update={"contributions": None})


def write_card(data: bytes, card: ModelCard, name: str = "model") -> bytes:
    """Return the file with this card and a new digest, on the same network."""
    return seal(data, card.model_dump_json(), name)
