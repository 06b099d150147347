#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""Development sessions. `make test` and friends run them in `.venv`; plain `nox` gives each its own environment."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"

CONSTRAINTS = ("--constraint", "constraints.txt")


def install(session: nox.Session, *groups: str, extras: str = "all") -> None:
    if session.virtualenv.is_sandboxed:
        flags = [flag for group in groups for flag in ("--group", group)]
        session.install(*CONSTRAINTS, "--editable", f".[{extras}]", *flags)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, mypy strict, and the Scientific Python repository review."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("repo-review", ".")


@nox.session
def test(session: nox.Session) -> None:
    """All tests and doctests, two files at a time."""
    install(session, "test")
    session.run("pytest", "--numprocesses", "2", "--dist", "loadfile", *session.posargs)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Tests with coverage."""
    install(session, "test")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "report", "--show-missing")


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """2000 mutated files, models, cards, configurations, filesets: `nox -s fuzz -- --kind card --case 7` is one again."""
    install(session, "test")
    session.run("python", "tests/fuzz.py", *session.posargs)


@nox.session(default=False)
def minimums(session: nox.Session) -> None:
    """Tests without torch, Pythia and matplotlib: what a worker has."""
    session.install("--editable", ".", "--group", "test")
    session.run("pytest", "-m", "not torch and not simulate", *session.posargs)


def on_loopback(session: nox.Session, marker: str, programs: dict[str, str]) -> None:
    """Run the tests of a marker where the loopback is the only network; Debian's programs are installed when root."""

    def missing() -> set[str]:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        return {package for program, package in programs.items() if shutil.which(program, path=path) is None}

    if missing() and os.geteuid() == 0 and shutil.which("apt-get"):
        quietly = {  # without a network: skipped below; run level 1: no service is started
            "external": True,
            "silent": True,
            "success_codes": range(256),
            "env": {"RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"},
        }
        session.run("apt-get", "update", **quietly)
        session.run("apt-get", "install", "--yes", "--no-install-recommends", *sorted(missing()), **quietly)
    if missing():
        session.skip(f"not installed: {', '.join(sorted(missing()))}")
    install(session, "test")
    session.run(
        "python",
        "tests/loopback.py",
        "python",
        "-m",
        "pytest",
        "-m",
        marker,
        f"tests/test_{marker}.py",
        *session.posargs,
    )


@nox.session(default=False)
def servers(session: nox.Session) -> None:
    """Chain and skim through real XRootD and S3 servers; one of them is killed in the middle."""
    on_loopback(session, "servers", {"xrootd": "xrootd-server"})


@nox.session(default=False)
def slurm(session: nox.Session) -> None:
    """Chain and skim as jobs of a real Slurm; a job is cancelled, a node drained."""
    on_loopback(
        session, "slurm", {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
    )


@nox.session(default=False)
def wheels(session: nox.Session) -> None:
    """The wheel with all extras comes without compiling anything; nothing is installed."""
    session.install("build")
    folder = session.create_tmp()
    session.run("python", "-m", "build", "--wheel", "--outdir", folder)
    newest = max(pathlib.Path(folder).glob("*.whl"), key=lambda p: p.stat().st_mtime)
    report = pathlib.Path(folder) / "report.json"
    # without --only-binary: pip shall find the wheels by itself, as it does for everybody
    resolve = ("python", "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", f"{newest}[all]")
    session.run(*resolve, "--report", str(report))
    sources = [i["download_info"]["url"] for i in json.loads(report.read_text())["install"]]
    if compiled := [url for url in sources if not url.endswith(".whl")]:
        session.error(f"these have to be compiled: {', '.join(compiled)}")
    session.run(*resolve, "--only-binary", ":all:")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measurements; ratios within one run."""
    install(session)
    for name in ("features", "chain", "rmm_stream", "contrastive", "startup"):
        session.run("python", f"benchmarks/{name}.py")


@nox.session(default=False)
def bench_root(session: nox.Session) -> None:
    """The rapidity-mass matrix against the authors' C++: `nox -s bench_root -- --reference ADFilter` (ROOT, 250 MB)."""
    install(session)
    if session.virtualenv.is_sandboxed:
        session.install("--pre", "root")
    session.run("python", "benchmarks/rmm_root.py", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The documentation, into build/docs, with the page of the demo, which runs if it has not."""
    install(session, "docs")
    session.run("mkdocs", "build", "--strict", "--site-dir", "build/docs")
    page = pathlib.Path("build/demo/report.html")
    if not page.exists():
        session.run("coffea-ad", "demo", "-o", "build/demo")
    shutil.copy(page, "build/docs/demo_report.html")


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Wheel and source distribution."""
    session.install("build")
    session.run("python", "-m", "build")


if __name__ == "__main__":
    nox.main()
