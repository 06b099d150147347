"""What a million events cost: rapidity-mass matrices streamed from NanoAOD files through the search's autoencoder.

    python benchmarks/rmm_stream.py [--events 1000000] [--network]

writes a file of toy events in NanoAOD layout into a temporary folder and tags it in chunks of 100 000 events, as coffea
does, with an ONNX model of the search's size (1287-800-400-200-400-800-1287, random weights; without --network a single
layer, so that the memory and time of everything else are seen). It prints the rate and the peak of the resident memory of
the whole process. A million dense matrices would be 5.2 GB.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
from pathlib import Path

import awkward as ak
import numpy as np
import onnx
import uproot
from coffea.nanoevents import NanoEventsFactory
from onnx import TensorProto, helper, numpy_helper
from rmm_root import toy_events

import coffea_ad as ad
from coffea_ad.features.spec import FeatureConfig
from coffea_ad.modelfiles.attach import AttachConfig, attach

CHUNK = 100_000
NAMES = ("Jet", "Jet", "Muon", "Electron", "Photon")
_NUMBERS = {"sqrt_s": 13000.0, "btag": "btagUParTAK4B", "btag_min": 0.1272}  # toys are of no campaign


def write(path, n, seed=1):
    """Toy events as NanoAOD."""
    toys = toy_events(n, seed)
    event = np.repeat(np.arange(n), np.diff(toys.offsets))
    columns = {
        "run": np.ones(n, np.uint32), "luminosityBlock": np.ones(n, np.uint32), "event": np.arange(n, dtype=np.uint64),
        "PuppiMET_pt": toys.met.astype(np.float32), "PuppiMET_phi": toys.met_phi.astype(np.float32),
        "genWeight": np.ones(n, np.float32),
    }  # fmt: skip
    charge = np.ones(len(event), np.int32)
    more = {
        "Jet": {"btagUParTAK4B": (toys.kind == 1).astype(np.float32)},
        # coffea's leptons insist on a charge
        "Muon": {
            "charge": charge,
            "mediumId": np.ones(len(event), bool),
            "pfRelIso04_all": np.zeros(len(event), np.float32),
        },
        "Electron": {"charge": charge, "mvaIso_WP90": np.ones(len(event), bool)},
        "Photon": {"mvaID_WP90": np.ones(len(event), bool)},
    }
    for name in dict.fromkeys(NAMES):
        mine = np.array(NAMES)[toys.kind] == name
        counts = np.bincount(event[mine], minlength=n)
        fields = {k: getattr(toys, k)[mine].astype(np.float32) for k in ("pt", "eta", "phi", "mass")}
        fields |= {k: v[mine] for k, v in more[name].items()}
        columns[name] = ak.zip({k: ak.unflatten(v, counts) for k, v in fields.items()})
    with uproot.recreate(path, compression=uproot.ZSTD(3)) as file:
        types = {k: v.dtype if isinstance(v, np.ndarray) else ak.type(v).content for k, v in columns.items()}
        file.mktree("Events", types).extend(columns)


def model(widths):
    """ln of the mean absolute error of a dense autoencoder with random weights, as ONNX with a card."""
    rng = np.random.default_rng(1)
    nodes, weights, last = [], [], "features"
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        weights += [
            numpy_helper.from_array(rng.normal(0, a**-0.5, (a, b)).astype(np.float32), f"w{i}"),
            numpy_helper.from_array(np.zeros(b, np.float32), f"b{i}"),
        ]
        nodes += [
            helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"h{i}"]),
            helper.make_node("LeakyRelu", [f"h{i}"], [f"a{i}"]),
        ]
        last = f"a{i}"
    weights.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    nodes += [
        helper.make_node("Sub", ["features", last], ["difference"]),
        helper.make_node("Abs", ["difference"], ["absolute"]),
        helper.make_node("ReduceMean", ["absolute", "axis"], ["mean"], keepdims=0),
        helper.make_node("Log", ["mean"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes, "rmm", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", widths[0]])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])], weights,
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(proto)
    config = AttachConfig(name="rmm-ae", method="AE", features=(FeatureConfig(name="rmm", options=_NUMBERS),))
    return attach(proto.SerializeToString(), config)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--network", action="store_true", help="the search's network instead of one layer")
    args = parser.parse_args()
    tagger = ad.Tagger(model((1287, 800, 400, 200, 400, 800, 1287) if args.network else (1287, 1, 1287)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toys.root"
        write(path, CHUNK)
        ready = peak()
        scored, start = 0, time.process_time()
        while scored < args.events:
            events = NanoEventsFactory.from_root(f"{path}:Events", schemaclass=ad.NanoAODSchema).events()
            tagged = tagger(events)
            assert ak.all(tagged["ad_region"] >= 0)
            scored += len(events)
            del events, tagged
        seconds = time.process_time() - start
    print(
        f"{scored} events in {seconds:.1f} s of CPU time: {scored / seconds:.0f} events/s, {1e6 * seconds / scored:.1f} µs each"
    )
    print(f"peak resident memory {peak():.2f} GiB; {ready:.2f} GiB before the first event was read")


if __name__ == "__main__":
    main()
