"""Graphs of flows multiply by fewer zeros, and give the same scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")
zuko = pytest.importorskip("zuko", reason="not installed: zuko")

from coffea_ad import nn
from coffea_ad.nn import graph
from coffea_ad.nn.density.masked import Blocks, blocked


def maps_of(columns, conditions, hidden, **options):
    torch.manual_seed(1)
    flow = zuko.flows.MAF(columns, conditions, transforms=2, hidden_features=tuple(hidden), **options)
    return [
        each.hyper.double() for each in flow.transform.transforms
    ]  # columns in their order, and the other way round


def between(network):
    return [layer for layer in network if isinstance(layer, Blocks)]


@given(
    columns=st.integers(2, 12),
    conditions=st.integers(0, 3),
    hidden=st.lists(st.integers(40, 200), min_size=1, max_size=3),
    coupling=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_outputs_are_the_same_for_any_widths_and_conditions(columns, conditions, hidden, coupling):
    x = torch.randn(20, columns + conditions, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for network in maps_of(columns, conditions, hidden, **({"passes": 2} if coupling else {})):
        expected = network(x)
        torch.testing.assert_close(blocked(network)(x), expected, rtol=1e-9, atol=1e-12)
        assert torch.equal(network(x), expected)


@pytest.mark.parametrize("hidden", [(256, 256), (250, 300), (512, 320, 257)])
def test_half_of_the_multiplications_between_hidden_units_are_left(hidden):
    for network in maps_of(8, 1, hidden):
        before = [layer.mask for layer in network if hasattr(layer, "mask")][1:-1]
        layers = between(blocked(network))
        assert len(layers) == len(before)
        for mask, layer in zip(before, layers, strict=True):
            done = sum(part.weight.numel() for part in layer.parts)
            assert mask.sum() <= done < 0.68 * mask.numel()
            assert sum(int((part.weight == 0).sum()) for part in layer.parts) < 0.3 * int((~mask).sum())


def test_what_would_not_get_faster_stays_as_it_is():
    for network in (
        *maps_of(8, 0, (200,)),
        *maps_of(8, 0, (400, 64)),
        *maps_of(8, 0, (200, 200), passes=2),
        *maps_of(2, 0, (200, 200)),
    ):
        assert blocked(network) is network


@pytest.mark.parametrize(
    "within", [lambda flow: flow, lambda flow: nn.AE(5, hidden=(8,), latent=2, transform=nn.FlowLatent(flow))]
)
def test_the_graph_has_the_blocks_and_the_scores_and_takes_weights_of_other_epochs(within, monkeypatch):
    import onnx
    import onnxruntime

    x = np.random.default_rng(1).normal(size=(300, 6)).astype(np.float32)
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        transform = nn.Logit(6).fit(x, np.ones(len(x)))
        flow = nn.Flow(6, kind="maf", context=[2], transforms=2, hidden=(150, 131), transform=transform)
        models.append(within(flow).eval())
    names = [list(model.state_dict()) for model in models]
    exported = []
    monkeypatch.setattr(type(models[0]), "graph", lambda *a: exported.append(a) or graph.torch_graph(*a))
    data = graph.epoch_graphs(models)
    assert len(exported) == 1
    assert [list(model.state_dict()) for model in models] == names
    for model, each in zip(models, data, strict=True):
        scores = onnxruntime.InferenceSession(each).run(None, {"features": x})[0]
        np.testing.assert_allclose(scores.reshape(-1), model.scores(x), rtol=1e-5, atol=1e-5)
    sizes = {t.name: list(t.dims) for t in onnx.load_from_string(data[1]).graph.initializer}
    assert [131, 150] not in sizes.values()
    assert sum(len(size) == 2 and "blocks" in name for name, size in sizes.items()) == 2 * 2
