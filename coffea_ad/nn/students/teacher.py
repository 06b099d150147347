"""Teacher: a finished model file, and what it has to say of the rows of a skim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.scoring.calibration import calibrate, logp
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Folds
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s

__all__ = ["Lesson", "Target", "Teacher"]

Target = Literal["logp", "score"]


class Lesson(NamedTuple):
    """Rows to train a student on.

    Attributes
    ----------
    rows : Skim
    targets : (n,) float32
    left_out : int
        How many rows have no score of the teacher, and are none of the lesson.
    """

    rows: Skim
    targets: Float32s
    left_out: int


class Teacher:
    """A model file whose scores a student learns.

    Parameters
    ----------
    path : path
        An ONNX file with its card: of one input, valid everywhere, with or without folds.

    Attributes
    ----------
    folds : Folds or None
        Of its card: the student of fold f learns from the member that has not seen fold f either.
    about : dict
        Name, method and digest, for the card of the student.

    Raises
    ------
    BadModel
        The file is damaged.
    ConfigError
        It has several inputs, or scores in a part of all rows only.

    Examples
    --------
    >>> Teacher(model_file).about["method"]
    'WNAE'
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.scorer = path, OnnxScorer(path)
        card = self.scorer.card
        if len(card.inputs) > 1 or card.validity:
            what = f"{len(card.inputs)} inputs" if len(card.inputs) > 1 else f"scores for {card.validity} only"
            raise ConfigError(
                f"teacher: {path} has {what}; a student learns from a model of one input that scores all rows"
            )
        self.features = card.inputs[0].features
        self.folds: Folds | None = card.folds
        self.about = {"name": card.name, "method": card.method, "digest": self.scorer.digest}

    def named_in(self, data: Skim) -> Skim:
        """Return rows whose provenance names this teacher, for the card of a student.

        Raises
        ------
        ConfigError
            Their features are not the teacher's, by name, version, options or columns.
        """
        if data.features != self.features:
            ours, theirs = (" and ".join(f"{f.key} v{f.version}" for f in fs) for fs in (self.features, data.features))
            raise ConfigError(f"teacher: {self.path} scores rows of {ours}, and these are rows of {theirs}")
        return replace(data, provenance={**data.provenance, "teacher": self.about})

    def member(self, data: Skim) -> int | None:
        """Return the member whose student rows with the splits of a fold train: that of the test fold; None without folds.

        Raises
        ------
        ConfigError
            The splits are not those of a fold.
        """
        if self.folds is None:
            return None
        test = np.unique(self.folds.of(data.spectators)[data.split == "test"])
        if len(test) != 1:
            raise ConfigError(
                f"teacher: {self.path} has {self.folds.k} folds, and needs rows with the splits of one of them"
            )
        return int(test[0])

    def lesson(self, data: Skim, target: Target = "logp") -> Lesson:
        """Return the rows that train and validate a student, and its targets.

        With s the teacher's score, and ε(s) the part of the training rows with at least that score, the target is one of

            logp:   −log₁₀ ε(s), which ends at the largest score of the training rows
            score:  s itself

        shifted and scaled to mean 0 and width 1 on the training rows.

        Parameters
        ----------
        data : Skim
            With the splits of a fold, if the teacher has folds.
        target : "logp" or "score"

        Raises
        ------
        ConfigError, SkimError
            The teacher scores no training row, or gives all the same score.
        """
        member, rows = self.member(data), data.splits("train", "validation")
        score = np.asarray(self.scorer(np.asarray(rows.x[:]), None if member is None else np.full(len(rows.x), member)))
        scored = np.isfinite(score)
        train = np.flatnonzero(scored & (rows.split == "train") & (rows.weight > 0))
        if not len(train):
            raise SkimError(f"teacher: {self.path} scores none of the training rows")
        table = calibrate(score[train], rows.weight[train], "the training rows")
        values = logp(table, score) if target == "logp" else score
        mean = np.average(values[train], weights=rows.weight[train])
        width = np.sqrt(np.average((values[train] - mean) ** 2, weights=rows.weight[train]))
        targets = np.asarray((values[scored] - mean) / width, np.float32)
        return Lesson(rows.select(scored), targets, int((~scored).sum()))
