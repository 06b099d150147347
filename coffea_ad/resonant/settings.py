"""Settings that the methods share: inputs, background density, classifier."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from coffea_ad.config import Frozen
from coffea_ad.nn.training.loop import TrainConfig

__all__ = ["ClassifierConfig", "FlowConfig", "Settings"]

Count = Annotated[int, Field(ge=1)]


class FlowConfig(Frozen):
    """Density of the background, p(x | m), and how it is trained."""

    kind: Literal["nsf", "maf"] = "nsf"
    coupling: bool = False
    transforms: Count = 3
    hidden: tuple[int, ...] = (64, 64)
    bins: Count = 8
    preprocessing: str = Field("quantile", description="of the inputs; the mass is standardised")
    epochs: Count = 8
    batch_size: int = Field(512, ge=2)
    learning_rate: float = Field(2e-3, gt=0)
    keep: Count = Field(4, description="epochs of the best likelihood whose densities are averaged")

    def training(self, rows: int, seed: int) -> TrainConfig:
        """Return how to train on so many rows: every epoch as many as there are."""
        return TrainConfig(
            epochs=self.epochs, batch_size=self.batch_size, samples_per_epoch=max(rows, 2), learning_rate=self.learning_rate,
            schedule="cosine", clip_gradient=1.0, keep=self.keep, validation_rows=10_000, seed=seed, device="cpu",
        )  # fmt: skip


class ClassifierConfig(Frozen):
    """What tells data from a template."""

    kind: Literal["lightgbm", "sklearn", "mlp"] = "lightgbm"
    inputs: tuple[str, ...] = Field((), description="columns that it sees; those of the settings by default")
    members: Count = Field(10, description="trees only: of the ensemble")
    attributes: float = Field(1.0, gt=0, le=1, description="trees only: share of the inputs that each member sees")
    options: dict[str, Any] = Field({}, description="trees only: of the library's own classifier")
    epochs: Count = Field(20, description="mlp only")
    keep: Count = Field(10, description="mlp only: epochs whose scores are averaged")
    hidden: tuple[int, ...] = Field((64, 64, 64), description="mlp only")


class Settings(Frozen):
    """What a method needs to know."""

    inputs: tuple[str, ...] = Field((), description="columns that are told apart; all but the mass by default")
    oversampling: float = Field(4.0, gt=0, description="template rows per row of the signal region")
    flow: FlowConfig = FlowConfig()
    signal_flow: FlowConfig = FlowConfig(kind="nsf", epochs=20, transforms=4, keep=5)
    classifier: ClassifierConfig = ClassifierConfig()
    candidates: tuple[ClassifierConfig, ...] = Field(
        (), description="instead of one classifier: each fold takes the one of the largest ARGOS on its validation rows"
    )
    short_sidebands: float | None = Field(
        None, gt=0, description="cwola: width of the sidebands in units of the mass; null: the whole ones"
    )
    signal_fractions: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="r_anode: w is one of these, that of the best validation loss; none: it is learnt"
    )

    @property
    def tried(self) -> tuple[ClassifierConfig, ...]:
        """The classifiers to select from: one, or the candidates."""
        return self.candidates or (self.classifier,)
