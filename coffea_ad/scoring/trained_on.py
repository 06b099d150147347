"""What models of events say of the events that they were trained on: objects, jets, and which part of all events they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from coffea_ad import features
from coffea_ad.errors import ConfigError
from coffea_ad.features.object_options import ObjectOptions
from coffea_ad.scoring.card import ModelCard

__all__ = ["model_jets", "model_objects", "training_part"]

Kind = TypeVar("Kind", bound=ObjectOptions)


def _options(cards: Iterable[ModelCard]) -> Iterator[Any]:
    """Yield the options of all features of models, those that a card does not say with their defaults."""
    for card in cards:
        for feature in (f for spec in card.inputs for f in spec.features):
            yield features.get(feature.name).resolve(feature.options)


def model_objects(cards: Iterable[ModelCard], kind: type[Kind], recipe: str) -> Kind | None:
    """Return which objects count for models: the cuts of their features.

    Parameters
    ----------
    cards : iterable of ModelCard
    kind : ObjectOptions or AllObjectOptions
        Features with other options have no say.
    recipe : str
        For the message.

    Returns
    -------
    kind, or None
        None if no model has such a feature.

    Raises
    ------
    ConfigError
        The models have different objects.

    Examples
    --------
    >>> from coffea_ad.features.spec import feature_spec
    >>> from coffea_ad.scoring.specs import InputSpec
    >>> inputs = (InputSpec(features=(feature_spec("event_objects", {"jet_pt_min": 20.0}),)),)
    >>> card = ModelCard(name="toy", method="toy", level="event", inputs=inputs)
    >>> objects = model_objects([card], ObjectOptions, "mine")
    >>> objects.jet_pt_min, objects.muon_eta_max
    (20.0, 2.1)
    """
    of_models = [
        kind.model_validate({name: getattr(options, name) for name in kind.model_fields})
        for options in _options(cards)
        if isinstance(options, kind)
    ]
    if any(options != of_models[0] for options in of_models):
        raise ConfigError(f"{recipe}: the models have different objects; say with `objects` which ones count")
    return of_models[0] if of_models else None


def model_jets(cards: Iterable[ModelCard]) -> set[str]:
    """Return the collections of jets that models take: what the option `jets` of their features says, and Jet for others.

    Parameters
    ----------
    cards : iterable of ModelCard

    Examples
    --------
    >>> from coffea_ad.features.spec import feature_spec
    >>> from coffea_ad.scoring.specs import InputSpec
    >>> inputs = (InputSpec(features=(feature_spec("dijet"),)),)
    >>> model_jets([ModelCard(name="toy", method="toy", level="event", inputs=inputs)])
    {'FatJet'}
    """
    return {str(getattr(options, "jets", "Jet")) for options in _options(cards)}


def training_part(cards: Iterable[ModelCard], fraction: float | None, salt: str, recipe: str) -> float:
    """Return which part of all events a search leaves out: what its models say they were trained on, or more.

    Parameters
    ----------
    cards : iterable of ModelCard
    fraction : float or None
        The part that the search asks for; None leaves it to the models.
    salt : str
        How events are chosen, as in `skim_events`.
    recipe : str
        For the message.

    Raises
    ------
    ConfigError
        A model was trained on other events than those, or on more.

    Examples
    --------
    >>> training_part([], None, "training", "mine"), training_part([], 0.3, "training", "mine")
    (0.0, 0.3)
    """
    largest = 0.0
    for card in cards:
        part, its_salt = (card.selection.get(k) for k in ("training_fraction", "training_salt"))
        if part is not None and (its_salt != salt or part > (1 if fraction is None else fraction)):
            raise ConfigError(
                f"{recipe}: {card.name} was trained on a fraction {part:g} of the events chosen with training_salt={its_salt}, "
                f"which training_fraction={fraction} and training_salt={salt} do not leave out"
            )
        largest = max(largest, part or 0.0)
    return largest if fraction is None else fraction
