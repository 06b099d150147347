"""Memory and time of an autoencoder on a frozen encoder of sets.

    python benchmarks/sets.py [--rows 100000] [--slots 50] [--width 512] [--epochs 1]

Rows are sets of constituents, (slots, 3); the encoder embeds every constituent in `width` numbers, so that all rows at once would be
rows · slots · width numbers. Shown is the peak memory of a process that fits the transform, trains, makes the card and exports.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from coffea_ad import nn
from coffea_ad.features.spec import feature_spec
from coffea_ad.skims import Skim

LIMIT = 4 * 2**30


class SetEncoder(torch.nn.Module):
    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.shape = (slots, 3)
        self.inner = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.ReLU(), torch.nn.Linear(width, width))
        self.outer = torch.nn.Linear(width, 64)

    def forward(self, x):
        real = (x != 0).any(dim=2, keepdim=True).to(x.dtype)
        return self.outer((self.inner(x) * real).sum(dim=1) / real.sum(dim=1).clamp_min(1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--slots", type=int, default=50)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    x = rng.normal(size=(args.rows, args.slots, 3)).astype(np.float32)
    x[np.arange(args.slots)[None, :] >= rng.integers(0, args.slots, args.rows)[:, None]] = 0
    ids = {k: np.arange(args.rows) for k in ("run", "luminosityBlock", "event")}
    split = rng.choice(["train", "validation", "test"], args.rows)
    provenance = {
        "files": {},
        "rows": {"toy": args.rows},
        "flavours": [],
        "selection": {},
        "n_effective": float(args.rows),
    }
    spec = feature_spec("jet_constituents", {"n": args.slots, "columns": ["pt", "deta", "dphi"]})
    data = Skim(x, np.ones(args.rows), np.full(args.rows, "toy"), split, ids, spec, provenance)
    torch.manual_seed(1)
    model = nn.AE(
        64, hidden=(32,), latent=8, transform=nn.Representation(SetEncoder(args.slots, args.width), nn.Standard(64))
    )
    started = time.monotonic()
    history = nn.fit(model, data, nn.TrainConfig(epochs=args.epochs))
    card = nn.make_card(model, data, name="sets", config={}, metrics=history.best)
    with tempfile.TemporaryDirectory() as folder:
        nn.export(model, Path(folder) / "sets.onnx", card, x[:2000])
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    at_once = 4 * args.rows * args.slots * args.width
    print(f"{args.rows} sets of {args.slots}, width {args.width}: peak memory {peak / 2**30:.2f} GiB, of which rows {x.nbytes / 2**30:.2f}; "
          f"all at once would be {at_once / 2**30:.1f} GiB; {time.monotonic() - started:.0f} s")  # fmt: skip
    return 0 if peak < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
