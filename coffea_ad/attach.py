"""Give a card to an ONNX file that was made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from coffea_ad import features, regions
from coffea_ad.card import Golden, InputSpec, ModelCard, feature_spec, write_card
from coffea_ad.errors import BadModel, CardMismatch
from coffea_ad.modelfile import CARD_KEY, read_texts
from coffea_ad.recard import _background
from coffea_ad.scoring import OnnxScorer
from coffea_ad.skimming import FeatureConfig

__all__ = ["AttachConfig", "attach"]

_GOLDEN_ROWS = 8


class AttachConfig(BaseModel):
    """What a plain ONNX file cannot say of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    method: str
    features: tuple[FeatureConfig, ...] = Field(min_length=1)
    input: str = Field("features", description="name of the graph's input, float32 (rows, columns)")
    output: str = Field("score", description="name of the graph's output, (rows,) or (rows, 1)")
    collection: str = "FatJet"
    provenance: dict[str, Any] = {}


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

    Raises
    ------
    BadModel, CardMismatch
        The file has a card already, or its graph does not take these features.
    """
    if CARD_KEY in read_texts(data, name):
        raise BadModel(f"{name}: it has a card already; `coffea-ad regions` moves its thresholds")
    specs = tuple(feature_spec(f.name, f.options) for f in config.features)
    if len(specs) > 1 and any(len(spec.row_shape) != 1 for spec in specs):
        raise CardMismatch(f"{name}: a feature whose rows are not flat must be the only one of its input")
    card = ModelCard(
        name=config.name,
        method=config.method,
        level=features.get(specs[0].name).level,
        collection=config.collection,
        inputs=(InputSpec(name=config.input, features=specs),),
        output=config.output,
        provenance=config.provenance,
    )
    card.check()
    try:
        scorer = OnnxScorer(write_card(data, card, name))
    except (BadModel, CardMismatch) as error:
        raise type(error)(f"{name}{str(error).removeprefix('model')}") from None
    scorer.name = name
    rows = np.random.default_rng(1).random((_GOLDEN_ROWS, *card.inputs[0].shape), np.float32)
    update: dict[str, Any] = {}
    if background is not None:
        score, skim = _background(scorer, background, datasets)
        calibration = regions.calibrate(score, skim.weight, f"skim of {', '.join(sorted(skim.provenance['rows']))}")
        rows = skim.x[:_GOLDEN_ROWS] if len(specs) == 1 else rows
        update = {
            "calibration": calibration,
            "regions": regions.working_points(calibration, score, skim.weight, efficiencies),
            "flavours": tuple(skim.provenance["flavours"]),
            "selection": skim.provenance["selection"],
        }
    golden = Golden(
        inputs={config.input: tuple(tuple(float(v) for v in row.ravel()) for row in rows)},
        scores=tuple(float(s) for s in np.asarray(scorer(rows))),
    )
    sealed = write_card(data, card.model_copy(update={**update, "golden": golden}), name)
    OnnxScorer(sealed).session  # noqa: B018  a file whose own golden rows fail must not be written
    return sealed
