"""How fast the authors' C++ computes the rapidity-mass matrix (RMM), and its values.

    git clone https://github.com/chekanov/ADFilter
    pip install --pre root
    python benchmarks/rmm_root.py --reference ADFilter

compiles `projectevent` from that checkout together with our own driver, rmm_root.cc, and runs it on toy events: T5N10,
51 × 51 cells, √s = 13 TeV; then our own kernel on the same events, and the ratio. Their code is not part of this repository. It is built on ROOT's TLorentzVector, so that
headers, libraries and root-config of ROOT and g++ are needed. The pip wheel keeps root-config in `ROOT/bin` of its
site-packages and not on PATH; it is found there if the wheel is installed beside this Python, otherwise extend PATH.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coffea_ad.features.objects import SelectedObjects
from coffea_ad.features.rmm import RMMOptions, matrix, rmm_rows

DRIVER = Path(__file__).with_suffix(".cc")
SIZE = 51  # MET, then ten slots each for light jets, b jets, muons, electrons and photons
MEANS = (8.0, 2.0, 0.7, 0.7, 0.3)
LEPTON_MASS = (0.0, 0.0, 0.1056583745, 0.00051099895, 0.0)
ANGLES = np.float32(0.15)  # the authors' `angNorm`, a float there as well
PASSES = 9
OPTIONS = ("-O2",)


class Events(NamedTuple):
    """Objects of event i are offsets[i]:offsets[i + 1], by kind and then by falling pT; GeV."""

    offsets: np.ndarray
    kind: np.ndarray  # 0 light jet, 1 b jet, 2 muon, 3 electron, 4 photon
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    mass: np.ndarray
    met: np.ndarray
    met_phi: np.ndarray


def toy_events(n, seed):
    """Events with uncorrelated objects: 8 light jets, 2 b jets, 0.7 muons and electrons and 0.3 photons on average."""
    rng = np.random.default_rng(seed)
    counts = np.minimum(rng.poisson(MEANS, (n, len(MEANS))), 10)
    kind = np.repeat(np.tile(np.arange(len(MEANS)), n), counts.ravel())
    event = np.repeat(np.arange(n), counts.sum(axis=1))
    pt = 30 + rng.exponential(60, len(kind))
    pt = pt[np.lexsort((-pt, kind, event))]
    mass = np.where(kind < 2, rng.uniform(0.05, 0.2, len(kind)) * pt, np.take(LEPTON_MASS, kind))
    met = rng.exponential(60, n)
    met[met < 30] = 0
    return Events(
        offsets=np.r_[0, np.cumsum(counts.sum(axis=1))].astype(np.int64),
        kind=kind.astype(np.int8),
        pt=pt,
        eta=rng.uniform(-2.4, 2.4, len(kind)),
        phi=rng.uniform(-np.pi, np.pi, len(kind)),
        mass=mass,
        met=met,
        met_phi=np.where(met > 0, rng.uniform(-np.pi, np.pi, n), 0),
    )


def selected(toys, slots):
    """Toy events as `SelectedObjects`."""
    event = np.repeat(np.arange(len(toys.met)), np.diff(toys.offsets))
    kind = toys.kind.astype(np.int64)
    order = np.arange(len(kind))
    first = np.maximum.accumulate(np.where(np.r_[True, (kind[1:] != kind[:-1]) | (event[1:] != event[:-1])], order, 0))
    keep = (order - first) < np.array(slots)[kind]
    columns = [getattr(toys, k)[keep] for k in ("pt", "eta", "phi", "mass")]
    counts = np.bincount(event[keep], minlength=len(toys.met))
    return SelectedObjects(
        np.r_[0, np.cumsum(counts)], kind[keep], (order - first)[keep], *columns, toys.met, toys.met_phi, np.ones(len(toys.met), bool)
    )  # fmt: skip


def weighted(matrices):
    """Multiply the cells below the diagonal by 0.15, in single precision, as the authors' event loop does."""
    return np.where(np.tri(SIZE, k=-1, dtype=bool), matrices * ANGLES, matrices)


def root():
    """Find root-config; return ROOT's version, compiler options and linker options."""
    found = shutil.which("root-config")
    if found is None and (spec := importlib.util.find_spec("ROOT")) and spec.submodule_search_locations:
        found = shutil.which("root-config", path=Path(spec.submodule_search_locations[0]) / "bin")
    if found is None:
        raise SystemExit("root-config is not on PATH: install ROOT, or `pip install --pre root` and add its ROOT/bin")

    def ask(option):
        return subprocess.run([found, option], check=True, capture_output=True, text=True).stdout.strip()

    include, lib, bin_ = (Path(ask(option)) for option in ("--incdir", "--libdir", "--bindir"))
    if not include.is_dir():  # root-config of the pip wheel names folders of the machine that built it
        prefix = Path(found).resolve().parent.parent
        include, lib, bin_ = prefix / "include", prefix / "lib", prefix / "bin"
    standard = [option for option in ask("--cflags").split() if option.startswith("-std=")]
    libraries = ["-lPhysics", "-lMathCore", "-lCore"]
    return {
        "version": ask("--version"),
        "rootcling": bin_ / "rootcling",
        "compile": [*standard, f"-I{include}"],
        "link": [f"-L{lib}", f"-Wl,-rpath,{lib}", *libraries],
    }


def sources(folder):
    """The files of the authors' checkout that the matrix needs.

    The repository holds several copies of its particle classes; those beside `projectevent.cxx` come first.
    """
    folder = Path(folder)
    routine = folder / "transform" / "Map2RMM" / "map2rmm" / "src" / "projectevent.cxx"
    if not routine.exists():
        raise SystemExit(f"{routine} does not exist: {folder} is not a checkout of github.com/chekanov/ADFilter")
    found = {"projectevent.cxx": routine}
    for name in ("LParticle.cxx", "CParticle.cxx", "LParticle.h", "CParticle.h", "SystemOfUnits.h"):
        places = [routine.parent.parent, *sorted((folder / "transform").glob("Map2RMM_*/**/lib"))]
        kind = "src" if name.endswith(".cxx") else "inc"
        paths = [path for place in places if (path := place / kind / name).exists()]
        if not paths:
            raise SystemExit(f"{name} is nowhere in {folder}")
        found[name] = paths[0]
    return found


def provenance(folder):
    """What the values were made with: commit, blob hashes as `git hash-object` gives them, ROOT and compiler."""
    git = ["git", "-C", str(folder), "rev-parse", "--show-toplevel", "HEAD"]
    answer = subprocess.run(git, check=False, capture_output=True, text=True).stdout.splitlines()
    # a copy without history inside some other repository must not get that one's commit
    commit = answer[1] if answer and Path(answer[0]).resolve() == Path(folder).resolve() else "unknown"
    compiler = subprocess.run(["g++", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    config = root()
    return {
        "repository": "https://github.com/chekanov/ADFilter",
        "commit": commit,
        "blobs": {
            path.relative_to(folder).as_posix(): hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
            for path in sources(folder).values()
            for text in [path.read_bytes()]
        },
        "root": config["version"],
        "compiler": compiler,
        "flags": " ".join([*OPTIONS, config["compile"][0]]),
    }


def build(folder, where):
    """Compile the driver with the authors' sources into `where`; return the program."""
    config, files = root(), sources(folder)
    includes = [f"-I{path}" for path in dict.fromkeys(path.resolve().parent for path in files.values())]
    (where / "LinkDef.h").write_text("#pragma link C++ class CParticle+;\n#pragma link C++ class LParticle+;\n")
    # their classes carry ClassDef, whose members only a ROOT dictionary defines
    headers = ["CParticle.h", "LParticle.h", "LinkDef.h"]
    cling = [config["rootcling"], "-f", "dictionary.cxx", *includes, *headers]
    subprocess.run(cling, check=True, cwd=where)
    code = [DRIVER.resolve(), "dictionary.cxx", *(path.resolve() for name, path in files.items() if name[-2:] != ".h")]
    command = ["g++", *OPTIONS, *config["compile"], *includes, *code, "-o", "rmm_root", *config["link"]]
    subprocess.run(command, check=True, cwd=where)
    return where / "rmm_root"


def reference(events, folder, passes=PASSES):
    """RMM of the authors' routine, before the factor 0.15, and its CPU seconds per event.

    Returns
    -------
    matrices : ndarray of float32, (n, 51, 51)
    seconds : ndarray, (2, passes)
        First inside the routine, with freeing its matrix; then with filling its vectors of particles from pT, η, φ
        and mass as well.
    """
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        program = build(Path(folder), where)
        n = len(events.met)
        integers = (n, len(events.pt)), events.offsets, events.kind
        with (where / "events").open("wb") as file:
            for values in integers:
                np.asarray(values, np.int64).tofile(file)
            for values in events[2:]:
                np.asarray(values, np.float64).tofile(file)
        command = [program, where / "events", where / "matrices", str(passes)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds = np.array(lines.split(), float).reshape(passes, 2) / n
        return np.fromfile(where / "matrices", np.float32).reshape(n, SIZE, SIZE), seconds.T


def own(events, passes=PASSES):
    """RMM of our own kernel in blocks of 1024, and its CPU seconds per event, (passes,)."""
    options = RMMOptions(preset="T5N10", sqrt_s=13000.0)
    objects, n = selected(events, options.shape), len(events.met)
    rmm_rows(objects, 0, min(n, 1024), options)  # compiles
    seconds = []
    for _ in range(passes):
        start = time.process_time()
        for first in range(0, n, 1024):
            rmm_rows(objects, first, min(first + 1024, n), options)
        seconds.append((time.process_time() - start) / n)
    return matrix(rmm_rows(objects, 0, n, options), options), np.array(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--reference", required=True, type=Path, help="checkout of github.com/chekanov/ADFilter")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--passes", type=int, default=PASSES)
    args = parser.parse_args()
    events = toy_events(args.events, seed=1)
    matrices, times = reference(events, args.reference, args.passes)
    info = provenance(args.reference)
    print(f"ROOT {info['root']}, {info['compiler']}, {info['flags']}")
    print(f"{args.events} events, {len(events.pt) / args.events:.2f} objects each", end=", ")
    print(f"{np.count_nonzero(matrices) / args.events:.1f} of {SIZE**2} cells not 0; CPU time, {args.passes} passes")
    ours, seconds = own(events, args.passes)
    print(f"largest difference of a cell: {np.abs(ours - weighted(matrices)).max():.2g}")
    names = ("projectevent", "and filling its input", "own kernel")
    for name, measured in zip(names, (*times, seconds), strict=True):
        low, middle, high = 1e6 * np.quantile(measured, [0, 0.5, 1])
        print(f"{name:22} {middle:7.2f} us/event ({low:.2f} to {high:.2f}), {1e6 / middle:9.0f} events/s")
    print(f"projectevent / own kernel: {np.median(times[0]) / np.median(seconds):.1f}")


if __name__ == "__main__":
    main()
