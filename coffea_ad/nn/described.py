"""What a module was made with, so that a trained one can be made again: its class and its arguments."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from coffea_ad.errors import ConfigError

__all__ = ["Described", "describe", "remake"]

_OURS = "coffea_ad."
_PLAIN = (bool, int, float, str, type(None))


class Described(type):
    """Metaclass of modules that remember what they were made with.

    >>> from coffea_ad.nn.transforms.columns import Standard
    >>> describe(Standard(2, names=["pt", "mass"]))["arguments"]
    {'features': 2, 'names': ['pt', 'mass']}
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an instance, and note its arguments by name."""
        instance = super().__call__(*args, **kwargs)
        parameters = inspect.signature(cls.__init__)  # type: ignore[misc]
        bound = parameters.bind(instance, *args, **kwargs).arguments
        arguments: dict[str, Any] = {}
        for name, value in list(bound.items())[1:]:
            several = parameters.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            arguments |= value if several else {name: value}
        instance.__dict__["_arguments"] = {name: _plain(value) for name, value in arguments.items()}
        return instance


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; of a module, its description."""
    if isinstance(value, nn.Module):
        return describe(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return value if isinstance(value, _PLAIN) else {"unknown": type(value).__name__}


def describe(module: nn.Module) -> dict[str, Any]:
    """Return the class of a module and the arguments that it was made with, as JSON has them."""
    kind = type(module)
    arguments = vars(module).get("_arguments", {} if kind is nn.Identity else {"": {"unknown": kind.__name__}})
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "arguments": arguments}


def remake(description: Mapping[str, Any], classes: Mapping[str, type[nn.Module]], place: str) -> nn.Module:
    """Make a module from its description, with weights that are not trained.

    Parameters
    ----------
    description : mapping
        What `describe` returned.
    classes : {full name: class}
        Classes from elsewhere: those of plain torch modules are made without arguments. Others are taken from this package only:
        a file must not decide what is imported.
    place : str
        The file, for messages.

    Raises
    ------
    ConfigError
        A class is from elsewhere, is not there any more, or was made with something that has no description.
    """
    name = str(description["class"])
    if name in classes and "" in description["arguments"]:  # a module of torch, which does not remember its arguments
        return classes[name]()
    if name == "torch.nn.modules.linear.Identity":
        return nn.Identity()
    module, _, kind = name.rpartition(".")
    if name not in classes and (not name.startswith(_OURS) or module.startswith(f"{_OURS}_recipes")):
        raise ConfigError(f"{place}: it holds a {name}; give that class with classes=[{kind}]")
    arguments = {k: _argument(v, classes, f"{place}: {name}") for k, v in description["arguments"].items()}
    if name in classes:
        return classes[name](**arguments)
    model_class: Any = getattr(importlib.import_module(module), kind, None)
    if not isinstance(model_class, Described):
        raise ConfigError(f"{place}: there is no model or transform {name} in this version")
    instance: nn.Module = model_class(**arguments)
    return instance


def _argument(value: Any, classes: Mapping[str, type[nn.Module]], place: str) -> Any:
    if isinstance(value, Mapping) and "unknown" in value:
        raise ConfigError(f"{place} was made with a {value['unknown']}, which cannot be made again")
    if isinstance(value, Mapping) and set(value) == {"class", "arguments"}:
        return remake(value, classes, place.partition(": ")[0])
    if isinstance(value, Mapping):
        return {k: _argument(v, classes, place) for k, v in value.items()}
    return [_argument(v, classes, place) for v in value] if isinstance(value, list) else value
