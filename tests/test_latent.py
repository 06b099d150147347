"""A network made elsewhere, with inputs of its own layout and a vector as output: from a skim to scores of events."""

from __future__ import annotations

import warnings

import awkward as ak
import numpy as np
import pytest
import yaml
from toys import DATA, open_events

torch = pytest.importorskip("torch", reason="not installed: torch", exc_type=ImportError)

import onnxruntime as ort

import coffea_ad as ad
from coffea_ad import cli, nn, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import BadModel, CardMismatch, ConfigError
from coffea_ad.modelfiles.attach import AttachConfig, attach

pytestmark = pytest.mark.torch
SLOTS, WIDTH, LATENT = 12, 8, 6
OPTIONS = {
    "n": SLOTS, "center": "axis",
    "columns": ["pt", "eta", "phi", "energy", "deta", "dphi", "charge", "mask"],
}  # fmt: skip
FEEDS = {
    "variables": {
        "log_pt": "log(500 * pt / sum(pt))", "px": "pt * cos(phi)", "py": "pt * sin(phi)", "pz": "pt * sinh(eta)", "d0": 0,
    },
    "inputs": {
        "pf_features": [["log_pt", 1.7, 0.7], ["deta", 0, 4, -1, 1], "dphi", "charge", ["d0", None, 1, -5, 5, 2]],
        "pf_vectors": ["px", "py", "pz", "energy"],
        "pf_mask": ["mask"],
    },
}  # fmt: skip


class Attention(torch.nn.Module):
    """Particle attention in weaver's layout, biased by the angles and energies of pairs: features (N, F, P), vectors (N, 4, P), mask (N, 1, P)."""

    def __init__(self, ends: str = "latent") -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = torch.nn.Conv1d(5, WIDTH, 1)
        self.query, self.key, self.value = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head, self.ends = torch.nn.Linear(WIDTH, LATENT), ends

    def forward(self, pf_features, pf_vectors, pf_mask):
        pf_features, pf_vectors, pf_mask = (v.to(self.head.weight.dtype) for v in (pf_features, pf_vectors, pf_mask))
        h = self.embed(pf_features).transpose(1, 2)
        unit = pf_vectors[:, :2] / pf_vectors[:, :2].norm(dim=1, keepdim=True).clamp(min=1e-6)
        bias = unit.transpose(1, 2) @ unit + pf_vectors[:, 3:].clamp(min=1.0).log() / 10
        scores = self.query(h) @ self.key(h).transpose(1, 2) / WIDTH**0.5 + bias
        weights = torch.softmax(scores.masked_fill(pf_mask == 0, -1e9), dim=2)
        h = torch.relu(h + weights @ self.value(h)) * pf_mask.transpose(1, 2)
        latent = self.head(h.sum(dim=1) / pf_mask.sum(dim=2))
        if self.ends == "batch":
            latent = latent - latent.mean(dim=0)
        return {"score": latent[:, 0], "particles": h}.get(self.ends, latent)


def exported(path, network=None, *, opset=15, slots=SLOTS, dtype=torch.float32, dynamo=False):
    """Write a network as weaver does."""
    network = (network or Attention()).to(dtype).eval()
    shapes = {"pf_features": (5, slots), "pf_vectors": (4, slots), "pf_mask": (1, slots)}
    rows = torch.export.Dim("N")
    how = {"dynamic_shapes": ({0: rows},) * 3} if dynamo else {"dynamic_axes": {name: {0: "N"} for name in shapes}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, tuple(torch.ones(2, *shape, dtype=dtype) for shape in shapes.values()), str(path), opset_version=opset,
            input_names=list(shapes), output_names=["latent"], dynamo=dynamo, external_data=False, verbose=False, **how,
        )  # fmt: skip
    return path


def by_hand(x):
    """What FEEDS describe, written out in numpy: {input: array}."""
    c = {name: x[:, :, i].astype(np.float64) for i, name in enumerate(OPTIONS["columns"])}
    real = c["mask"] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        log_pt = np.log(500 * c["pt"] / c["pt"].sum(axis=1, keepdims=True))
    channels = {
        "pf_features": [
            np.clip((log_pt - 1.7) * 0.7, -5, 5), np.clip(4 * c["deta"], -1, 1), c["dphi"], c["charge"], 0 * c["pt"],
        ],
        "pf_vectors": [c["pt"] * np.cos(c["phi"]), c["pt"] * np.sin(c["phi"]), c["pt"] * np.sinh(c["eta"]), c["energy"]],
        "pf_mask": [c["mask"]],
    }  # fmt: skip
    pad = {("pf_features", 4): 2.0}
    return {
        name: np.stack([np.where(real, v, pad.get((name, i), 0)) for i, v in enumerate(values)], axis=1).astype(
            np.float32
        )
        for name, values in channels.items()
    }


def latent_by_hand(path, x):
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run(["latent"], by_hand(x))[0]


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent") / "skim"
    fileset = {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}
        for n in ("qcd", "ttbar")
    }
    words = [f"features={yaml.safe_dump([{'name': 'jet_constituents', 'options': OPTIONS}], default_flow_style=True)}"]
    ad.run(fileset, "skim_jets", overrides=[*words, "jets=each"], executor="iterative", output=folder)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("network") / "theirs.onnx")


def configured(skim, network, *words, feeds=FEEDS):
    module = recipes.load("latent")
    fixed = {
        "data": str(skim),
        "network": str(network),
        "options": OPTIONS,
        "weights": "none",
        "train": {"device": "cpu"},
    }
    overrides = [
        f"{k}={yaml.safe_dump(v, default_flow_style=True).removesuffix('...' + chr(10))}"
        for k, v in {**fixed, **feeds}.items()
    ]
    return module, load_config(module.Config, None, [*overrides, *words])


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
@pytest.mark.parametrize(
    "words", [["score=mahalanobis"], ["score=ae", "train.epochs=2"], ["score=neighbours", "scorer={k: 3, bank: 100}"]]
)
def test_a_file_scores_rows_and_events_as_both_parts_by_hand(skim, network, words, tmp_path):
    module, config = configured(skim, network, *words)
    module.train(config, tmp_path / "m.onnx")
    scorer, model, x = ad.OnnxScorer(tmp_path / "m.onnx"), nn.load(tmp_path / "m"), config.rows().x[:200]
    expected = model.scores(latent_by_hand(network, x))
    np.testing.assert_allclose(scorer(x), expected, rtol=1e-4, atol=1e-5)
