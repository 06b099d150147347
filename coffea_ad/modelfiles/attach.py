"""Give a card to an ONNX file that was made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from coffea_ad import features
from coffea_ad.errors import BadModel, CardMismatch, ConfigError
from coffea_ad.features.spec import FeatureConfig, feature_spec
from coffea_ad.modelfiles.feeds import Feeds
from coffea_ad.modelfiles.reconstruction import Comparison, adapted
from coffea_ad.scoring import regions
from coffea_ad.scoring.agreement import allowed
from coffea_ad.scoring.card import ModelCard, write_card
from coffea_ad.scoring.domains import Domain
from coffea_ad.scoring.modelfile import CARD_KEY, read_texts
from coffea_ad.scoring.neighbours import depends, rescored
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Contributions, Golden, InputSpec
from coffea_ad.skims.background import background as background_rows
from coffea_ad.skims.background import rows_in_words
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = ["AttachConfig", "attach", "check_rows"]

_GOLDEN_ROWS = 8
_PROBE_ROWS = 64
_BLOCK = 4096


class AttachConfig(Feeds):
    """What a plain ONNX file cannot say of itself.

    `inputs` make the inputs of the network from the features, where it takes them otherwise than features come.
    """

    name: str
    method: str
    features: tuple[FeatureConfig, ...] = Field(min_length=1)
    input: str = Field("features", description="name of the graph's input, (rows, columns)")
    output: str = Field("score", description="name of the graph's output, (rows,) or (rows, 1), or a reconstruction")
    score: Comparison | None = Field(None, description="the output is a reconstruction: how it is compared")
    target: str | None = Field(
        None, description="what is reconstructed: a tensor of the graph; else the input as it is"
    )
    collection: str = "FatJet"
    domain: tuple[Domain, ...] = Field((), description="where the model is valid: {spectator, low, high}, all of them")
    provenance: dict[str, Any] = {}

    @model_validator(mode="after")
    def _compared(self) -> AttachConfig:
        if self.target is not None and self.score is None:
            raise ValueError(
                "a target is compared with a reconstruction; say how with score: mse, mae, ln_mse or ln_mae"
            )
        if self.inputs and (self.score is not None or "input" in self.model_fields_set):
            raise ValueError(
                "with inputs, which are made of the features, the output is a score; leave out input and score"
            )
        if self.variables and not self.inputs:
            raise ValueError("variables are for the channels of inputs, and none are listed")
        return self


def attach(
    data: bytes,
    config: AttachConfig,
    *,
    background: str | Path | None = None,
    datasets: Sequence[str] = (),
    efficiencies: Sequence[float] = (1e-1, 1e-2, 1e-3),
    name: str = "model",
) -> bytes:
    """Give a card to an ONNX file that was made elsewhere.

    Parameters
    ----------
    data : bytes
        The plain model.
    config : AttachConfig
    background : path, optional
        A skim, for calibration and regions; without it the model gives scores only, until `coffea-ad regions`.
    datasets, efficiencies
        Of the background.
    name : str
        For messages.

    Returns
    -------
    bytes
        The sealed file. `provenance["unscored"]` of its card says how many background rows have no finite score.

    Raises
    ------
    BadModel, CardMismatch
        The file has a card already, its graph does not take these features, the score of a row depends on other rows,
        or no row has a finite score.
    ConfigError
        The background is not of these features or of this collection, or the graph needs a change and onnx is missing.
    """
    if CARD_KEY in read_texts(data, name):
        raise BadModel(f"{name}: it has a card already; `coffea-ad regions` moves its thresholds")
    specs = tuple(feature_spec(f.name, f.options) for f in config.features)
    if len(specs) > 1 and any(len(spec.row_shape) != 1 for spec in specs):
        raise CardMismatch(f"{name}: a feature whose rows are not flat must be the only one of its input")
    spec = InputSpec(features=specs)
    data, into, output, parts = _with_one_input(data, config, spec, name)
    of: Any = "score" if config.score in ("mse", "mae") else "exp(score)"
    card = ModelCard(
        name=config.name,
        method=config.method,
        level=features.get(specs[0].name).level,
        collection=config.collection,
        inputs=(InputSpec(name=into, features=specs),),
        output=output,
        contributions=Contributions(output=parts, of=of) if parts else None,
        domain=config.domain,
        provenance=_provenance(config),
    )
    card.check()
    scorer = OnnxScorer(write_card(data, card, name), name=name)
    update: dict[str, Any] = {}
    if background is None:
        rows = np.random.default_rng(1).random((_PROBE_ROWS, *spec.shape), np.float32)
        score, what = (
            np.asarray(scorer(rows)),
            "rows of random numbers between 0 and 1; give real ones with --background",
        )
    else:
        skim = background_rows(card, background, datasets)
        _check_collection(card, skim, background, name)
        blocks = [np.asarray(scorer(np.asarray(skim.x[i : i + _BLOCK]))) for i in range(0, len(skim.weight), _BLOCK)]
        score, what = np.concatenate([np.zeros(0, np.float32), *blocks]), f"background rows of {background}"
        rows = np.asarray(skim.x[np.sort(_some(score))])
    defined = np.isfinite(score)
    if not defined.any():
        raise BadModel(f"{name}: its score is no finite number for any of {len(score)} {what}")
    check_rows(scorer, rows)
    if background is not None:
        update = _calibrated(card, score, skim, efficiencies, name)
    golden = rows[np.isfinite(np.asarray(scorer(rows)))][:_GOLDEN_ROWS]
    update["golden"] = Golden.of({into: golden}, np.asarray(scorer(golden)))
    sealed = write_card(data, card.model_copy(update=update), name)
    OnnxScorer(sealed, name=name).session  # noqa: B018  a file whose own golden rows fail must not be written
    return sealed


def _with_one_input(data: bytes, config: AttachConfig, spec: InputSpec, name: str) -> tuple[bytes, str, str, str]:
    """Return a graph with one float32 input and a float32 score, and the names of the two and of contributions, if there are any."""
    if not config.inputs:
        return adapted(
            data, config.input, config.output, spec.shape, score=config.score, target=config.target, name=name
        )
    try:
        from coffea_ad.modelfiles.feeding import fed  # workers do without onnx
    except ImportError as error:
        raise ConfigError(f"{name}: its inputs are made in the graph, which takes onnx: pip install onnx") from error
    return fed(data, config, spec, config.output, result="score", vector=False, name=name), "features", "score", ""


def _provenance(config: AttachConfig) -> dict[str, Any]:
    if config.inputs:
        keys = set(Feeds.model_fields)
        return {**config.provenance, "feeds": config.model_dump(mode="json", include=keys)}
    if config.score is None:
        return config.provenance
    return {**config.provenance, "comparison": {"score": config.score, "target": config.target or config.input}}


def _some(score: Float32s) -> Ints:
    """Return the places of a few rows, those with a finite score first."""
    return np.argsort(~np.isfinite(score), kind="stable")[:_PROBE_ROWS]


def _calibrated(
    card: ModelCard, score: Float32s, skim: Skim, efficiencies: Sequence[float], name: str
) -> dict[str, Any]:
    try:
        calibration = regions.calibrate(score, skim.event_weight, rows_in_words(card, skim))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    specs, left_out = regions.derive([calibration], score, skim.event_weight, efficiencies)
    unscored = {"rows": len(score), "unscored": int((~np.isfinite(score)).sum())}
    return {
        "calibration": calibration,
        "regions": specs,
        "flavours": tuple(skim.provenance["flavours"]),
        "selection": skim.provenance["selection"],
        "provenance": {**card.provenance, "unscored": unscored, "regions_left_out": left_out},
    }


def _check_collection(card: ModelCard, skim: Skim, folder: str | Path, name: str) -> None:
    collection = skim.provenance.get("collection", card.collection)
    if card.level == "jet" and collection != card.collection:
        raise ConfigError(
            f"{name}: its card is for {card.collection}, but the skim {folder} is of {collection}; say "
            f"collection: {collection} in the card's YAML, or give another skim"
        )


def check_rows(scorer: OnnxScorer, rows: Mapping[str, npt.NDArray[Any]] | npt.NDArray[Any]) -> None:
    """Check that the score of a row is the same each time, alone, among others, in another order and in a full batch.

    It is not with dropout, batch normalisation in training mode, a softmax, ranks or a maximum over rows, the number of rows, or
    what subtracts a mean over the batch; in a run, where a batch is what a chunk left of the events, such scores would mean
    nothing. The full batch has as many rows as in a run, `OnnxScorer.batch`, so that what begins with many rows is seen; what
    begins beyond, or depends on other rows by less than is allowed, is not.

    Parameters
    ----------
    scorer : OnnxScorer
    rows : (n, *shape) float32, or {input: (n, *shape)}
        A few different rows; each is scored by itself.

    Raises
    ------
    BadModel
        A score is random, or changes by more than 10⁻³ of the spread of the scores and 10⁻⁵ of itself; of a density, by more
        than 10⁻³ and 10⁻⁴ of itself as well.

    Examples
    --------
    >>> check_rows(OnnxScorer(model_file), np.random.default_rng(1).random((5, 8), np.float32))
    """
    batch = rows if isinstance(rows, Mapping) else {scorer.card.inputs[0].name: rows}
    for member in range(scorer.card.folds.k) if scorer.card.folds else (None,):
        _check_member(scorer, batch, member)


def _check_member(scorer: OnnxScorer, rows: Mapping[str, npt.NDArray[Any]], member: int | None) -> None:
    def score(some: Mapping[str, npt.NDArray[Any]]) -> Float64s:
        folds = None if member is None else np.full(len(next(iter(some.values()))), member)
        return np.asarray(scorer(some, folds), np.float64)

    together = score(rows)
    if not np.array_equal(together, score(rows), equal_nan=True):
        raise BadModel(
            f"{scorer.name}: the same rows get other scores each time, as with dropout or batch normalisation in training "
            "mode, or a latent vector that is drawn; export the network for inference, with means in place of draws"
        )
    finite = together[np.isfinite(together)]
    usual = 1e-3 * (finite.std() if len(finite) else 0.0) + 1e-5 * np.abs(together)
    bounds = allowed(together, usual, scorer.card.density)
    for other, how in rescored(score, rows, scorer.batch, extremes=True):
        same = (np.abs(other - together) <= bounds) | (np.isnan(other) & np.isnan(together))
        if not same.all():
            worst = int(np.argmin(same))
            raise BadModel(depends(scorer.name, together[worst], len(together), other[worst], how))
