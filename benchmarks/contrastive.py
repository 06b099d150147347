"""Contrastive learning apart from its network: losses against their twins, and views of jets and events per second.

    python benchmarks/contrastive.py [--repeats 7] [--twins 2]

One thread. Losses, forward and backward, of 256 rows with 512 numbers in single precision, against the slow twins that compare all
pairs as vectors side by side, as public code does; wall time. Views of toy jets, on average 35 of 50 constituents: the set of
DarkCLR — a rotation of all, then a translation, another rotation with a translation, and a drop with 0.1 to 0.6 — and each by
itself; of toy events, on average 10 of 19 objects: a positive and an anomalous view of AnomalyCLR, and each by itself; CPU time in
inference mode. All in turn, printed are medians over the repeats and their range.

Bars:

    losses                      100 times as fast as their twins
    three views of DarkCLR      300 000 jets a second of CPU time, in batches of 256 and of 4096
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from coffea_ad.nn.self_supervised import event_augmentations as events
from coffea_ad.nn.self_supervised import jet_augmentations as jets
from coffea_ad.nn.self_supervised import losses, naive
from coffea_ad.nn.self_supervised.augmentations import chain, one_of

ROWS, COLUMNS, TEMPERATURE, BAR = 256, 512, 0.1, 100
SLOTS, SAMPLE, BATCHES, RATE = 50, 40_960, (256, 4096), 300_000


def step(loss, views):
    """Seconds of a value and its gradients."""
    start = time.perf_counter()
    loss(*views).backward()
    return time.perf_counter() - start


def loss_table(repeats, twins):
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(ROWS, COLUMNS, generator=generator, requires_grad=True) for _ in range(3)]
    table = Table("loss", "ms", "range", "twin, ms", "range", "ratio", "bar", "difference")
    for name, twin in naive.LOSSES.items():
        inputs = views[: 3 if name.startswith("anom") else 2]
        ours, slow = getattr(losses, name), partial(twin, temperature=TEMPERATURE, row=torch.arange(ROWS))
        step(ours, inputs)
        theirs = 1e3 * np.array([step(slow, inputs) for _ in range(twins)])
        fast = 1e3 * np.array([step(ours, inputs) for _ in range(20 * repeats)]).reshape(repeats, 20).mean(axis=1)
        table.add_row(
            name, f"{np.median(fast):.2f}", f"{fast.min():.2f} to {fast.max():.2f}", f"{np.median(theirs):.0f}",
            f"{theirs.min():.0f} to {theirs.max():.0f}", f"{np.median(theirs) / np.median(fast):.0f}", f"{BAR}",
            f"{abs(ours(*inputs).item() - slow(*inputs).item()):.0e}",
        )  # fmt: skip
    return table


def toy_jets():
    """Constituents by falling pT in a cone of 0.8, 20 to 50 a jet."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(SLOTS) < torch.randint(20, SLOTS + 1, (SAMPLE, 1), generator=generator)
    pt = torch.empty(SAMPLE, SLOTS).exponential_(0.1, generator=generator).sort(dim=1, descending=True).values
    places = 0.2 * torch.randn(SAMPLE, SLOTS, 2, generator=generator)
    return torch.cat([pt[..., None], places], dim=2) * mask[..., None], mask


def toy_events():
    """Missing momentum, up to 4 leptons of a kind and up to 10 jets by falling pT, as far as detectors and triggers see them."""
    generator = torch.Generator().manual_seed(1)
    x, mask = torch.zeros(SAMPLE, 19, 4), torch.ones(SAMPLE, 19, dtype=torch.bool)
    for kind, slots in enumerate((slice(0, 1), slice(1, 5), slice(5, 9), slice(9, 19))):
        size = slots.stop - slots.start
        if kind:
            number = torch.randint(0, size + 1, (SAMPLE, 1), generator=generator)
            mask[:, slots] = torch.arange(size) < number
            x[:, slots, 1].uniform_(-events.ACCEPTANCE[kind - 1], events.ACCEPTANCE[kind - 1], generator=generator)
        pt = torch.empty(SAMPLE, size).exponential_(1 / 40, generator=generator) + (0, *events.THRESHOLDS)[kind]
        x[:, slots, 0] = pt.sort(dim=1, descending=True).values
        x[:, slots, 3] = kind + 1
    x[..., 2].uniform_(-np.pi, np.pi, generator=generator)
    return x * mask[..., None], mask


moved = chain(jets.rotation, jets.translation)


def three_views(x, mask, generator):
    x, mask = jets.rotation(x, mask, generator)
    return jets.translation(x, mask, generator), moved(x, mask, generator), jets.drop(x, mask, generator)


positive = chain(events.rotation, events.eta_phi_smear, events.energy_smear)
anomalous = one_of(
    [
        chain(events.multiplicity_shift, events.eta_phi_smear),
        chain(events.multiplicity_shift_constant, events.eta_phi_smear),
    ]
)


def rate(view, x, mask, batch, generator):
    """Rows a second of CPU time."""
    start = time.process_time()
    with torch.inference_mode():
        for i in range(0, len(x), batch):
            view(x[i : i + batch], mask[i : i + batch], generator)
    return len(x) / (time.process_time() - start)


def rate_table(what, views, x, mask, repeats, bars=()):
    table = Table(what, *(column for batch in BATCHES for column in (f"batches of {batch}", "range")), "bar")
    rates = {name: [] for name in views}
    generator = torch.Generator().manual_seed(1)
    for _ in range(repeats):
        for name, view in views.items():
            rates[name].append([rate(view, x, mask, batch, generator) / 1e3 for batch in BATCHES])
    for name, both in rates.items():
        cells = []
        for values in np.array(both).T:
            cells += [f"{np.median(values):.0f}", f"{values.min():.0f} to {values.max():.0f}"]
        table.add_row(name, *cells, f"{RATE / 1e3:.0f}" if name in bars else "")
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--twins", type=int, default=2, help="repeats of the slow twins, a minute or two each; 0: no losses"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    views = {"three views of DarkCLR": three_views, **jets.AUGMENTATIONS}
    console.print(rate_table("k jets / CPU s", views, *toy_jets(), arguments.repeats, ["three views of DarkCLR"]))
    views = {"positive": positive, "anomalous": anomalous, **events.AUGMENTATIONS}
    console.print(rate_table("k events / CPU s", views, *toy_events(), arguments.repeats))
    if arguments.twins:
        console.print(loss_table(arguments.repeats, arguments.twins))


if __name__ == "__main__":
    main()
