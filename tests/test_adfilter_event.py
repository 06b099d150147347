"""The event of ADFilter's example: its matrix by four-vectors, and the score of a network that reconstructs nothing.

ADFilter's manual says ln(loss) = −9.822 for it, with the trained network of its authors, which is not public. One electron of 100 GeV, one muon of
50 GeV, two jets of pT = m = 100 GeV, the second at φ = 1, a b jet of pT = m = 50 GeV; all at η = 0 and, but for the second jet, at
φ = 0; no missing momentum; 13 TeV.
"""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest

import coffea_ad as ad
from coffea_ad.features.rmm import RMMOptions, cell_names
from coffea_ad.modelfiles.attach import AttachConfig, attach

SQRT_S = 13000.0
OBJECTS = {
    "j1": (100.0, 0.0, 100.0), "j2": (100.0, 1.0, 100.0), "b1": (50.0, 0.0, 50.0),
    "mu1": (50.0, 0.0, 0.1056583745), "e1": (100.0, 0.0, 0.00051099895),
}  # fmt: skip
"""pT, φ, mass."""
OPTIONS = {"sqrt_s": SQRT_S, "btag": "btagUParTAK4B", "btag_min": 0.5, "cleaning": 0.0}
PUBLISHED = -9.822


def event():
    """The event as NanoAOD has it, the b jet among the jets."""

    def of(names, **fields):
        columns = {"pt": 0, "phi": 1, "mass": 2}
        rows = {k: [OBJECTS[n][i] for n in names] for k, i in columns.items()} | {"eta": [0.0] * len(names)} | fields
        return ak.unflatten(ak.zip({k: np.array(v) for k, v in rows.items()}), [len(names)])

    return ak.zip(
        {
            "Jet": of(("j1", "j2", "b1"), btagUParTAK4B=[0.0, 0.0, 1.0]),
            "Muon": of(("mu1",), mediumId=[True], pfRelIso04_all=[0.0]),
            "Electron": of(("e1",), mvaIso_WP90=[True]),
            "Photon": of((), mvaID_WP90=np.zeros(0, bool)),
            "PuppiMET": ak.zip({"pt": np.zeros(1), "phi": np.zeros(1)}),
        },
        depth_limit=1,
    )


def by_hand():
    """Cells that are not 0: nothing has rapidity or missing momentum, and both jets have the same E_T."""
    cells = {}
    for name, (pt, _, mass) in OBJECTS.items():
        cells[f"et({name})"] = np.hypot(pt, mass)
    del cells["et(j2)"]  # of the second of a kind it is the imbalance
    names = list(OBJECTS)
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            pairs = [OBJECTS[n] for n in (one, two)]
            energy = sum(np.hypot(pt, m) for pt, _, m in pairs)
            px, py = (sum(pt * f(phi) for pt, phi, _ in pairs) for f in (np.cos, np.sin))
            cells[f"m({one},{two})"] = np.sqrt(energy**2 - px**2 - py**2)
    return {name: value / SQRT_S for name, value in cells.items()}


def test_the_whole_matrix_is_that_of_four_vectors():
    row = ad.features.compute("rmm", event(), preset="T5N10", **OPTIONS)[0][0]
    names = cell_names(RMMOptions(preset="T5N10", **OPTIONS))
    assert len(names) == 2601
    cells = {name: float(value) for name, value in zip(names, row, strict=True) if value}
    # m(mu1,e1) is 0.2 GeV out of energies of 150: its square carries their rounding
    assert cells == pytest.approx(by_hand(), rel=1e-6, abs=1e-8)
    assert len(cells) == 14


def test_of_the_1287_inputs_eight_are_not_zero():
    """Of the nine masses in which bumps are looked for the event has six, and they are left out."""
    row = ad.features.compute("rmm", event(), preset="ATLAS", **OPTIONS)[0][0]
    names = cell_names(RMMOptions(preset="ATLAS", **OPTIONS))
    assert len(names) == 1287
    expected = {n: by_hand()[n] for n in (
        "et(j1)", "et(b1)", "et(mu1)", "et(e1)", "m(j2,b1)", "m(j2,mu1)", "m(j2,e1)", "m(mu1,e1)"
    )}  # fmt: skip
    got = {name: float(value) for name, value in zip(names, row, strict=True) if value}
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-8)


@pytest.mark.torch  # the onnx package comes with it
def test_a_network_that_reconstructs_nothing_is_within_ten_percent_of_the_published_loss(tmp_path):
    """ln(Σ |x| / 1287) = −9.912 by an attached network: 9 % below the published loss, which is with weights that are not public."""
    import onnx
    from onnx import helper

    features = ({"name": "rmm", "options": OPTIONS},)
    zero = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    info = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["rows", 1287]) for n in ("features", "decoded")]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["features", "zero"], ["decoded"])], "nothing", info[:1], info[1:], [zero]
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    card = AttachConfig(name="nothing", method="AE", features=features, output="decoded", score="ln_mae")
    path = tmp_path / "nothing.onnx"
    path.write_bytes(attach(network, card))
    score = float(ad.OnnxScorer(path)(ad.features.compute("rmm", event(), preset="ATLAS", **OPTIONS)[0])[0])
    inputs = sum(by_hand()[n] for n in by_hand() if not n.startswith(("m(j1", "m(b1")))
    assert score == pytest.approx(np.log(inputs / 1287), abs=1e-5)
    assert score == pytest.approx(-9.912, abs=1e-3)
    assert np.exp(PUBLISHED - score) == pytest.approx(1.094, abs=0.002)
