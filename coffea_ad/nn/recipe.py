"""What training recipes share: where the rows come from, and how a trained model is published. The training is their own."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from coffea_ad import files
from coffea_ad.config import Frozen
from coffea_ad.errors import ConfigError, SkimError, unknown_text
from coffea_ad.features.spec import FeatureConfig
from coffea_ad.modelfiles.feeding import fed
from coffea_ad.modelfiles.feeds import Feeds
from coffea_ad.nn.described import describe
from coffea_ad.nn.encoded import FrozenGraph
from coffea_ad.nn.energy_based.energy import Sampling
from coffea_ad.nn.export import behind, export, make_card
from coffea_ad.nn.loading import load_model
from coffea_ad.nn.model import Model
from coffea_ad.nn.reconstruction.autoencoder import Activation
from coffea_ad.nn.scorable import Scorable
from coffea_ad.nn.self_supervised.encoder import PRESETS, Preset, SetEncoder, Space
from coffea_ad.nn.self_supervised.scores import OnVectors, ScoreName, score_on
from coffea_ad.nn.self_supervised.tokens import Tokens
from coffea_ad.nn.training.history import History
from coffea_ad.nn.training.loop import TrainConfig
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.nn.transforms.per_column import Preprocessing, preprocessing
from coffea_ad.nn.transforms.slots import Slots
from coffea_ad.scoring.specs import InputSpec
from coffea_ad.skims import Skim, WeightMode, load_skim
from coffea_ad.skims.filters import conditions
from coffea_ad.skims.rows import Keep

__all__ = ["ChainConfig", "EncoderConfig", "LatentConfig", "NetworkConfig", "RecipeConfig", "SetConfig", "publish"]

_FIXED = ("self", "slots", "tokens", "columns", "space")  # arguments of encoders that are no keys of a recipe
_COMPARED = 5000  # rows on which torch and onnxruntime are compared


class RecipeConfig(Frozen):
    """Keys of every training recipe: its rows, its folds, its regions."""

    data: str = Field(description="folder of a skim")
    datasets: tuple[str, ...] = Field((), description="the background; all datasets of the skim by default")
    feature: str = "jet_substructure"
    options: dict[str, Any] = {}
    features: tuple[FeatureConfig, ...] = Field(
        (), description="several flat features side by side, instead of `feature`: their names, or {name, options}"
    )
    weights: WeightMode = "xsec"
    filters: tuple[tuple[str, str, Any], ...] = Field(
        (), description='rows to keep, such as "met > 100", "abs(eta) < 2"'
    )
    preprocessing: Preprocessing = Field("quantile", description="quantile, standard, log or none; or by column")
    efficiencies: tuple[float, ...] = (1e-1, 1e-2, 1e-3)
    folds: int = Field(
        0, ge=0, description="cross-training: so many models, each without the events that it scores; 0: one model"
    )
    salt: str = Field("folds", description="of the hash that divides events into folds")
    resume: bool = False
    train: TrainConfig = TrainConfig()

    @field_validator("filters", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        try:
            return conditions(value)
        except SkimError as error:
            raise ValueError(str(error)) from None

    def rows(self, *, keep: Keep = "dense", out_of_core: Path | None = None) -> Skim:
        """Return the rows that the recipe trains on, as `load_skim` reads them."""
        feature = list(self.features) or self.feature
        return load_skim(
            self.data, feature, self.options, datasets=self.datasets, weights=self.weights, filters=self.filters,
            keep=keep, out_of_core=out_of_core,
        )  # fmt: skip

    def transform(self, data: Skim) -> Transform:
        """Return the preprocessing of flat rows, or of sets such as constituents, which the model makes flat.

        Of a set every slot is transformed alike, and flags (`mask`, `is_…`) are left as they are, unless `preprocessing` names
        the columns.

        Raises
        ------
        ConfigError
            Rows are neither flat nor sets.
        """
        shape, columns, spec = tuple(data.x.shape[1:]), data.columns, self.preprocessing
        if shape == (len(columns),):
            return preprocessing(spec, columns)
        if len(shape) != 2 or shape[1] != len(columns):
            raise ConfigError(
                f"rows of {self.feature} have the shape {shape}: this model takes flat rows, or sets of objects such as "
                "jet_constituents; the recipe autoencoder takes images, with network=image"
            )
        if isinstance(spec, str):
            flags = [name for name in columns if name == "mask" or name.startswith("is_")]
            spec = {**dict.fromkeys(flags, "none"), "*": spec}
        return Slots(shape[0], preprocessing(spec, columns))


class ChainConfig(RecipeConfig):
    """Keys of recipes whose models run Markov chains: NAE and WNAE."""

    preprocessing: Preprocessing = "standard"
    hidden: tuple[int, ...] = (32, 32)
    latent: int = 4
    activation: Activation = "silu"
    sampling: Sampling = Field("pcd", description="where chains start: pcd (a buffer), cd (data), omi (manifold)")
    steps: int | tuple[int, int] = Field(
        20, description="Langevin steps per batch, or from the first epoch to the last"
    )
    noise: float = Field(0.15, gt=0)
    temperature: float = Field(0.063, gt=0)
    metropolis: bool = Field(False, description="MALA instead of ULA")
    metric: Literal["data", "unit"] = Field("data", description="steps as long as the data are wide, or all alike")
    bounds: tuple[float, float] | None = Field(
        None, description="walls for every transformed input; by default the range of the training rows"
    )
    buffer_size: int = Field(10_000, ge=2)
    replay: float = Field(0.99, ge=0, le=1, description="the rest of a batch starts afresh from a normal distribution")
    energy_weight: float = Field(1e-3, ge=0, description="weight of the squared energies of data and chains")
    smear: float = Field(0.0, ge=0, description="noise on the training data, in units of their mean spread")
    long_steps: int = Field(
        500, ge=0, description="further steps of the long-run excess of every epoch; 0: at the end only"
    )
    long_run: tuple[int, ...] = Field(
        (0, 500, 2000), description="further steps after which the final model is measured"
    )
    train: TrainConfig = TrainConfig(learning_rate=1e-3, schedule="cosine", average=0.99, clip_gradient=1.0)

    def chains(self) -> dict[str, Any]:
        """Return the keys that an energy model is made with."""
        names = (
            "hidden", "latent", "activation", "sampling", "steps", "noise", "temperature", "metropolis", "metric", "bounds",
            "buffer_size", "replay", "energy_weight", "smear", "long_steps",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


class SetConfig(RecipeConfig):
    """Keys of recipes that train an encoder of sets."""

    feature: str = "jet_constituents"
    preset: Preset = Field(
        "small", description="sizes of the encoder: small, or darkclr as the authors of DarkCLR have them"
    )
    encoder: dict[str, Any] = Field({}, description="keys of SetEncoder that differ, such as pooling: mean")
    tokens: dict[str, Any] = Field({"scale": "log"}, description="keys of Tokens: how objects are scaled")

    def new_encoder(self, data: Skim) -> SetEncoder:
        """Return an encoder of the rows of a skim, before any training.

        Raises
        ------
        ConfigError
            The rows are no sets, a key is unknown, or columns cannot be scaled.
        """
        if data.x.ndim != 3 or len(data.features) != 1:
            names = ", ".join(f.name for f in data.features)
            raise ConfigError(
                f"an encoder takes sets, such as jet_constituents or event_objects, one feature alone; {names} has rows of "
                f"shape {tuple(data.x.shape[1:])}"
            )
        for what, keys, make in (("encoder", self.encoder, SetEncoder), ("tokens", self.tokens, Tokens)):
            known = [k for k in inspect.signature(make.__init__).parameters if k not in _FIXED]
            for key in keys:
                if key not in known:
                    raise ConfigError(f"{what}: {unknown_text('key', key, known)}")
        torch.manual_seed(self.train.seed)
        tokens = Tokens.of(data.features[0].columns, **self.tokens)
        return SetEncoder(data.x.shape[1], tokens, **{**PRESETS[self.preset], **self.encoder})


class EncoderConfig(SetConfig):
    """Keys of recipes that train an encoder of sets without labels, and a score on it."""

    preprocessing: Preprocessing = Field("standard", description="of the representation, before a score on it")
    pretrained: str = Field("", description="folder of an encoder that is trained already; only the score is trained")
    space: Space = Field("h", description="what scores are made on: the representation h, or z behind the head")
    score: ScoreName = Field(
        "neighbours", description="direct: that of the trained model itself; or of a model on h or z"
    )
    scorer: dict[str, Any] = Field({}, description="keys of that model, such as k: 50")
    score_train: TrainConfig = Field(TrainConfig(epochs=20), description="its training, where it has one")

    def begun(self, folder: Path) -> bool:
        """Say whether a training is to go on from the checkpoint in a folder."""
        return self.resume and (folder / "checkpoint.pt").exists()

    def pretrained_model(self, untrained: Model) -> tuple[Any, History]:
        """Return the trained model of `pretrained`, and how its training went.

        Parameters
        ----------
        untrained : Model
            What the keys of this recipe describe, which is what the card will say of the trained one.

        Raises
        ------
        ConfigError
            It was trained with other keys, or may have seen the events of every fold.
        """
        if self.folds:
            raise ConfigError("pretrained: an encoder that is trained already may have seen the events of every fold")
        model, history = load_model(self.pretrained)
        asked, trained = _flat(describe(untrained)), _flat(describe(model))
        for key in sorted({*asked, *trained}, key=lambda k: (k.count("."), k != "class", k)):
            if asked.get(key) != trained.get(key):
                raise ConfigError(
                    f"pretrained={self.pretrained}: its {key} is {trained.get(key, 'left out')}, that of this recipe "
                    f"{asked.get(key, 'left out')}; give recipe and keys that it was trained with, and the folder encoder/"
                )
        return model, history

    def new_score(self, encoder: SetEncoder) -> Model:
        """Return the score that is asked for, on a trained encoder and before its own training."""
        return score_on(
            encoder.giving(self.space), self.score, options=self.scorer, then=self.preprocessing, seed=self.score_train.seed
        )  # fmt: skip


def _flat(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of modules inside modules by their names, such as encoder.tokens.scale."""
    values = {"class": str(description["class"]).rpartition(".")[2]}
    for name, value in description["arguments"].items():
        nested = _flat(value) if isinstance(value, Mapping) and "class" in value else None
        values |= {name: value} if nested is None else {f"{name}.{key}": v for key, v in nested.items()}
    return values


class NetworkConfig(RecipeConfig, Feeds):
    """Keys of recipes that may train on the output of a network that was made elsewhere, and that nothing trains."""

    network: str = Field("", description="ONNX file, without a card: rows are its output vectors")
    output: str = Field("", description="of the network: the latent vector, (rows, numbers); by default the only one")
    part: tuple[int, int] | None = Field(
        None, description="numbers of the output: from one up to before another, such as [188, 316]; all by default"
    )

    def rows(self, *, keep: Keep = "dense", out_of_core: Path | None = None) -> Skim:
        """Return the rows that the network takes; the card says which file it was."""
        plain = files.read(self.network) if self.network else b""
        data = super().rows(keep=keep, out_of_core=out_of_core)
        digest = {"network_sha256": hashlib.sha256(plain).hexdigest()} if self.network else {}
        return replace(data, provenance={**data.provenance, **digest})

    def vectors(self, data: Skim, mass: str = "") -> tuple[FrozenGraph | None, Skim]:
        """Return the network with its inputs made of rows, and its vectors of them; without a network, the rows.

        With a mass, a spectator, that is the last column, and blank in the graph.

        Raises
        ------
        BadFile, BadModel, CardMismatch, ConfigError, SkimError
            There is no such file, it does not take these inputs, or gives no vectors.
        """
        if not self.network:
            return None, data
        spec = InputSpec(features=data.features)
        graph = fed(
            files.read(self.network), self, spec, self.output, result="latent", vector=True, part=self.part, blank=bool(mass),
            name=self.network,
        )  # fmt: skip
        network = FrozenGraph(graph, spec.shape, self.network)
        return network, network.rows(data, mass)


class LatentConfig(NetworkConfig):
    """Keys of recipes that fit a score to the output of a network."""

    network: str = Field(description="ONNX file, without a card: rows are its output vectors")
    feature: str = "jet_constituents"
    preprocessing: Preprocessing = Field("standard", description="of the latent vector")
    score: OnVectors = Field("mahalanobis", description="of a model on the latent vector")
    scorer: dict[str, Any] = Field({}, description="keys of that model, such as k: 50")
    train: TrainConfig = Field(TrainConfig(epochs=20), description="of the score, where it is trained")

    def new_score(self, data: Skim) -> Model:
        """Return the score that is asked for on latent vectors, before its own training."""
        return score_on(data.columns, self.score, options=self.scorer, then=self.preprocessing, seed=self.train.seed)


def _means(best: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the means over folds of the metrics that all of them have."""
    return {k: float(np.mean([row[k] for row in best])) for k in best[0] if all(k in row for row in best)}


def publish(
    model: Scorable, data: Skim, config: RecipeConfig, histories: Sequence[History], output: Path,
    *, network: FrozenGraph | None = None, inputs: Skim | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Describe a trained model, and export it to `output`.

    Parameters
    ----------
    model : Scorable
    data : Skim
        The rows it was trained on.
    config : RecipeConfig
        Stands in the card, and says the efficiencies of the regions.
    histories : sequence of History
        One, or one for each fold: the metrics of the best epoch stand in the card; of folds their means, and those of each.
    output : path
        Of the model file.
    network, inputs : FrozenGraph, Skim
        Of a model on the vectors of a network: the network, and the rows that it takes.

    Returns
    -------
    dict
        What the command line prints: metrics of the best epoch, regions, effective number of rows.

    Raises
    ------
    ConfigError, BadModel
        As `make_card` and `export`.
    """
    best = [history.best for history in histories]
    metrics = best[0] if len(best) == 1 else _means(best)
    measured = histories[0].measured if len(best) == 1 else {"folds": [{**h.best, **h.measured} for h in histories]}
    card = make_card(
        model, data, name=output.stem, config=config.model_dump(mode="json"), metrics={**metrics, **measured},
        efficiencies=config.efficiencies,
    )  # fmt: skip
    if network is not None and inputs is not None:
        data = inputs
        model, card = behind(network, model, card, data)
    rows = data if model.folds is not None else data.splits("test", "validation")
    export(model, output, card, rows.x[:_COMPARED])
    return {"best": metrics, "regions": [r.name for r in card.regions], "n_effective": data.provenance["n_effective"]}
