"""Combine scores of any kind in one file, by their ranks in the background."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from coffea_ad import features
from coffea_ad.errors import CardMismatch, ConfigError
from coffea_ad.modelfiles.joining import join_graphs
from coffea_ad.modelfiles.ranks import RULES, By, Nodes, add_logp, combined_logp
from coffea_ad.modelfiles.thresholds import new_regions
from coffea_ad.scoring.card import ModelCard, without_contributions, write_card
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Calibration, Folds, Golden
from coffea_ad.typing import Float32s
from coffea_ad.versions import versions

__all__ = ["By", "combine"]

_METHODS: dict[By, str] = {"rank": "rank average", "mean-logp": "mean logp", "max": "largest logp"}
_TRAINED = ("training_fraction", "training_salt")  # by which a run leaves out what trained the model


def read_members(models: Sequence[str | Path]) -> list[OnnxScorer]:
    """Read the members, and refuse what cannot stand together."""
    if len(models) < 2:
        raise ConfigError("a combination needs two models or more")
    members = [OnnxScorer(path) for path in models]
    first = members[0]
    for member in members:
        if not member.card.calibrations:
            raise ConfigError(
                f"{member.name}: its card has no calibration, and so its score no rank; coffea-ad regions makes one from a skim"
            )
        if member is not first and member.digest in {m.digest for m in members[: members.index(member)]}:
            raise ConfigError(f"{member.name}: the same model is given twice")
        for what, its_value, first_value in (
            ("level", member.card.level, first.card.level),
            ("collection", member.card.collection, first.card.collection),
            ("features", _features(member.card), _features(first.card)),
        ):
            if its_value != first_value:
                raise CardMismatch(
                    f"{member.name}: its {what} are not those of {first.name}: {its_value} and {first_value}"
                )
        if _computed(member.card) != _computed(first.card):
            raise CardMismatch(
                f"{member.name}: the versions, options or columns of its features are not those of {first.name}"
            )
        if member.card.windows is not None:
            raise ConfigError(f"{member.name}: it is a bundle of windows already; give the models that it was made of")
        member.sessions  # noqa: B018  a member whose golden rows fail must not get into another file
    return members


def _valid_together(members: Sequence[OnnxScorer]) -> None:
    """Refuse members that are valid in different places: their ranks are of different backgrounds."""
    first = members[0]
    for member in members:
        if member.card.domain != first.card.domain:
            its_validity, first_validity = (m.card.validity or "everywhere" for m in (member, first))
            raise CardMismatch(
                f"{member.name}: it is valid {its_validity}, but {first.name} {first_validity}; models of different windows are put together "
                "with --by window"
            )


def _computed(card: ModelCard) -> list[Any]:
    """Return what is computed: options that came after a card mean their defaults."""
    return [
        (f.name, f.version, features.get(f.name).resolve(f.options), f.columns, f.row_shape)
        for spec in card.inputs
        for f in spec.features
    ]


def _features(card: ModelCard) -> str:
    return " and ".join(", ".join(f.key for f in spec.features) for spec in card.inputs)


def shared_selection(members: Sequence[OnnxScorer]) -> dict[str, Any]:
    """Return what is the same in the members' selections; the events that trained them must be told in the same way."""
    first = members[0]
    for member in members:
        for key in _TRAINED:
            if member.card.selection.get(key) != first.card.selection.get(key):
                raise CardMismatch(
                    f"{member.name}: {key} of its training is {member.card.selection.get(key)}, and "
                    f"{first.card.selection.get(key)} in {first.name}; a run could not leave out what trained them"
                )
    shared = first.card.selection.items()
    return {k: v for k, v in shared if all(k in m.card.selection and m.card.selection[k] == v for m in members)}


def shared_folds(members: Sequence[OnnxScorer]) -> Folds | None:
    """Return the folds of the members that have some; those without score all folds."""
    folded = [m for m in members if m.card.folds is not None]
    for member in folded:
        if member.card.folds != folded[0].card.folds:
            raise CardMismatch(f"{member.name}: its folds are not those of {folded[0].name}")
    return folded[0].card.folds if folded else None


def _graph(members: Sequence[OnnxScorer], card: ModelCard, by: By) -> bytes:
    """Put the members side by side, and their ranks and the rule behind them."""

    def rule(add: Nodes) -> None:
        for f, output in enumerate(card.outputs):
            scores = [add("Cast", flat_score(add, i, m, f), to=onnx.TensorProto.DOUBLE) for i, m in enumerate(members)]
            values = [add_logp(add, s, calibration_of(m, f)) for s, m in zip(scores, members, strict=True)]
            total = add("Sum", *scores)
            zero = add("Sub", total, total)  # or NaN, if any member has no score: minima and maxima may lose a NaN
            result = add("Where", add("IsNaN", zero), zero, RULES[by](add, values))
            add("Cast", result, to=onnx.TensorProto.FLOAT, output=output)

    return side_by_side(members, card, rule)


def flat_score(add: Nodes, place: int, member: OnnxScorer, fold: int, output: str | None = None) -> str:
    """Add the score of a member among others, (rows,): that of a fold, if it has folds."""
    name = member.card.outputs[fold if member.card.folds is not None else 0]
    return add("Reshape", f"member_{place}_{name}", add.constant([-1], np.int64), output=output)


def side_by_side(members: Sequence[OnnxScorer], card: ModelCard, behind: Callable[[Nodes], None]) -> bytes:
    """Put members side by side in one graph, with the inputs and outputs of a card, and nodes behind them.

    Parameters
    ----------
    members : sequence of OnnxScorer
        The values of member i are called `member_i_…`.
    card : ModelCard
    behind : callable
        Adds the nodes that give the outputs.
    """
    feeds = [{ours.name: theirs.name for ours, theirs in zip(card.inputs, m.card.inputs, strict=True)} for m in members]
    inputs = {spec.name: spec.shape for spec in card.inputs}
    graphs = [without_contributions(m.data, m.card, m.name)[0] for m in members]
    return join_graphs(graphs, [m.name for m in members], feeds, inputs, card.outputs, behind)


def calibration_of(member: OnnxScorer, fold: int) -> Calibration:
    """Return the calibration of a member's score: the only one, or that of a fold."""
    calibrations = member.card.calibrations
    return calibrations[fold if len(calibrations) > 1 else 0]


def golden_rows(members: Sequence[OnnxScorer], card: ModelCard) -> dict[str, Float32s]:
    """Return the golden rows of all members as inputs of the new card, {input: (n, *shape)}; nothing if no member has any."""
    with_rows = [(m.card.golden, m.card.inputs) for m in members if m.card.golden is not None]
    if not with_rows:
        return {}
    return {
        spec.name: np.concatenate([golden.rows(inputs[i]) for golden, inputs in with_rows])
        for i, spec in enumerate(card.inputs)
    }


def golden_batch(member: OnnxScorer, card: ModelCard, rows: Mapping[str, Float32s]) -> dict[str, Float32s]:
    """Return rows under the names of a member's inputs."""
    return {theirs.name: rows[ours.name] for ours, theirs in zip(card.inputs, member.card.inputs, strict=True)}


def _golden(members: Sequence[OnnxScorer], card: ModelCard, by: By) -> Golden | None:
    """Take the members' golden rows, with what their scores give: a session of the new file recomputes it."""
    rows = golden_rows(members, card)
    if not rows:
        return None
    n, scores = len(rows[card.inputs[0].name]), []
    for f in range(len(card.outputs)):
        values = []
        for m in members:
            folds = np.full(n, f) if m.card.folds is not None else None
            values.append(np.asarray(m(golden_batch(m, card, rows), folds)))
        scores += combined_logp([calibration_of(m, f) for m in members], values, by).tolist()
    return Golden.of(rows, scores)


def provenance_of(members: Sequence[OnnxScorer], by: str, windows_in: str | None = None) -> dict[str, Any]:
    """Say who the members are; `rows` and `filters` keep training rows out of later calibrations.

    Filters on the spectator of windows are left out: the windows say which rows count.
    """
    provenance: dict[str, Any] = {
        "by": by,
        "members": [
            {
                "file": Path(m.name).name,
                "name": m.card.name,
                "method": m.card.method,
                "digest": m.digest,
                "calibration": calibration_of(m, 0).derived_from.removesuffix(", fold 0"),
                "selection": m.card.selection,
            }
            for m in members
        ],
        "versions": versions("coffea-ad", "onnx", "onnxruntime", "numpy"),
    }
    judged = [m.card for m in members if "verdict" in m.card.provenance]
    if judged:
        provenance["verdict"] = [
            f"{card.name}: {sentence}" for card in judged for sentence in card.provenance["verdict"]
        ]
    trained = [m.card.provenance for m in members if "rows" in m.card.provenance]
    if trained:
        provenance["rows"] = functools.reduce(operator.or_, (p["rows"] for p in trained))
        filters = [[f for f in p.get("filters", []) if f[0] != windows_in] for p in trained]
        if any(f != filters[0] for f in filters):
            raise CardMismatch(
                f"the members were trained on rows chosen in different ways: {', '.join(map(str, filters))}"
            )
        provenance["filters"] = filters[0]
    return provenance


def combine(
    models: Sequence[str | Path],
    *,
    by: By = "rank",
    name: str = "combination",
    background: str | Path | None = None,
    datasets: Sequence[str] = (),
    efficiencies: Sequence[float] = (1e-1, 1e-2, 1e-3),
) -> bytes:
    """Write one model from several.

    Every member's score becomes ℓᵢ = −log₁₀ εᵢ by its own calibration, or that of the fold, ε being the background efficiency of "at least
    this score" and 1 − ε the rank. Beyond the largest calibrated score ℓ goes on in a straight line, so that anomalies
    stay distinguishable. The score of the combination is −log₁₀ of the mean of εᵢ, which orders rows as the mean of
    their ranks does, or the mean of ℓᵢ, or the largest ℓᵢ. A row that has no score from one member has none.

    Parameters
    ----------
    models : sequence of path
        Two or more model files with the same features, level and collection; if some have folds, the same ones.
    by : "rank", "mean-logp" or "max"
    name : str
        On the card.
    background : path, optional
        A skim, for calibration and regions; without it the model gives scores only, until `coffea-ad regions`.
    datasets, efficiencies
        Of the background.

    Returns
    -------
    bytes
        The new file.

    Raises
    ------
    ConfigError, CardMismatch, BadModel
        A member has no calibration, takes other inputs than the first, or cannot be merged.

    References
    ----------
    T. Aarrestad et al., "The Dark Machines anomaly score challenge", arXiv:2105.14027.

    Examples
    --------
    >>> combine([model_file])
    Traceback (most recent call last):
    coffea_ad.errors.ConfigError: a combination needs two models or more
    """
    members = read_members(models)
    _valid_together(members)
    first = members[0].card
    card = ModelCard(
        name=name,
        method=_METHODS[by],
        level=first.level,
        collection=first.collection,
        inputs=first.inputs,
        quantiles=next((m.card.quantiles for m in members if m.card.quantiles is not None), None),
        selection=shared_selection(members),
        folds=shared_folds(members),
        domain=first.domain,
        slots_vary=all(m.card.slots_vary for m in members),
        flavours=tuple(sorted({f for m in members for f in m.card.flavours})),
        provenance=provenance_of(members, by),
    )
    card = card.model_copy(update={"golden": _golden(members, card, by)})
    sealed = write_card(_graph(members, card, by), card, name)
    if background is not None:
        sealed = new_regions(sealed, background, efficiencies=efficiencies, datasets=datasets, name=name)
    OnnxScorer(sealed).sessions  # noqa: B018  a file whose own golden rows fail must not be written
    return sealed
