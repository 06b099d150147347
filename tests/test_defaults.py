"""One set of defaults: a constructor, a recipe's Config and the recipe's shipped YAML say the same."""

from __future__ import annotations

import functools
import inspect

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="not installed: torch")

from pydantic import BaseModel

from coffea_ad import nn, recipes
from coffea_ad.config import load_config

MODELS = {
    "autoencoder": [nn.AE], "nae": [nn.NAE], "nearest": [nn.Neighbours, nn.GaussianMixture], "pca": [nn.PCA], "svdd": [nn.DeepSVDDEnsemble], "vae": [nn.VAE],
    "wnae": [nn.WNAE],
}  # fmt: skip


@functools.cache
def config_of(recipe):
    return recipes.load(recipe).Config


def constructor_defaults(cls):
    """Keyword defaults of a class and of what it hands `**options` on to; the nearest class decides."""
    out = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            for p in parameters:
                if p.kind is p.KEYWORD_ONLY and p.default is not p.empty:
                    out.setdefault(p.name, p.default)
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return out


@pytest.mark.parametrize("recipe", sorted(MODELS))
def test_a_recipe_without_a_file_trains_as_with_its_shipped_one(recipe):
    config = config_of(recipe)
    shipped = load_config(config, recipes.find_config(f"{recipe}/svj.yaml"), ["data=skims"])
    assert config(data="skims").model_dump() == shipped.model_dump()


@pytest.mark.parametrize(("recipe", "cls"), [(r, c) for r, classes in MODELS.items() for c in classes])
def test_a_constructor_has_the_defaults_of_its_recipe(recipe, cls):
    config, signature = config_of(recipe)(data="skims").model_dump(), constructor_defaults(cls)
    shared = sorted(set(config) & set(signature) - {"transform"})
    assert len(shared) >= 2
    assert {name: config[name] for name in shared} == {name: signature[name] for name in shared}


@pytest.mark.parametrize("recipe", sorted(MODELS))
def test_one_key_of_a_nested_configuration_leaves_the_others_as_the_recipe_has_them(recipe):
    config = config_of(recipe)
    changed = load_config(config, None, ["data=skims", "train.epochs=7"]).model_dump()
    plain = config(data="skims").model_dump()
    assert changed == {**plain, "train": {**plain["train"], "epochs": 7}}


def test_defaults_are_laid_under_nested_keys_at_any_depth_and_null_still_counts():
    class Inner(BaseModel):
        a: int = 1
        b: int = 2

    class Outer(BaseModel):
        inner: Inner = Inner(a=5)

    class Config(BaseModel):
        outer: Outer = Outer(inner=Inner(b=7))
        maybe: Inner | None = Inner(a=9)

    got = load_config(Config, None, ["outer.inner.a=3", "maybe.b=4"])
    assert (got.outer.inner.a, got.outer.inner.b, got.maybe) == (3, 7, Inner(a=9, b=4))
    assert load_config(Config, None, ["maybe=null"]).maybe is None
