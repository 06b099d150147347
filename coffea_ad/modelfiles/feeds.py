"""How the inputs of a network that was made elsewhere are made of features: keys of a card's YAML and of the recipe `latent`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from coffea_ad.config import Frozen

__all__ = ["Channel", "Feeds"]


class Channel(Frozen):
    """One channel of an input: (x − center) · scale within [min, max], and `pad` in empty slots.

    Without a center the column goes in as it is, but for `pad`. A list is read as weaver writes it,
    `[column, center, scale, min, max, pad]`, what is left out at its default, and a name alone is a column.

    >>> Channel.model_validate(["log_pt", 1.7, 0.7])
    Channel(column='log_pt', center=1.7, scale=0.7, min=-5.0, max=5.0, pad=0.0)
    """

    column: str
    center: float | None = None
    scale: float = 1.0
    min: float = -5.0
    max: float = 5.0
    pad: float = 0.0

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"column": value}
        if not isinstance(value, list | tuple):
            return value
        if len(value) > len(cls.model_fields):
            raise ValueError(f"{list(value)} has more than [{', '.join(cls.model_fields)}]")
        return dict(zip(cls.model_fields, value, strict=False))

    @model_validator(mode="after")
    def _meaningful(self) -> Channel:
        if self.min > self.max:
            raise ValueError(f"{self.column}: min {self.min:g} lies above max {self.max:g}")
        if self.center is None and (self.scale, self.min, self.max) != (1.0, -5.0, 5.0):
            raise ValueError(
                f"{self.column}: without a center it is neither scaled nor clipped; give center 0 for that"
            )
        return self


class Feeds(Frozen):
    """Inputs of a network, each by its channels."""

    inputs: dict[str, tuple[Channel, ...]] = Field(
        {}, description="each input of the network: its channels, a column or [column, center, scale, min, max, pad]"
    )
    variables: dict[str, str | float] = Field(
        {}, description="further columns by formulas of others, such as px: pt * cos(phi)"
    )
    layout: Literal["channels_first", "slots_first"] = Field(
        "channels_first", description="of a set in an input: (rows, channels, slots), or (rows, slots, channels)"
    )

    @model_validator(mode="after")
    def _with_channels(self) -> Feeds:
        for name, channels in self.inputs.items():
            if not channels:
                raise ValueError(f"inputs: {name} has no channels")
        return self
