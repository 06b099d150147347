#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""Development sessions. `make test` and friends run them in `.venv`; plain `nox` gives each its own environment."""

from __future__ import annotations

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
def minimums(session: nox.Session) -> None:
    """Tests without torch, Pythia and matplotlib: what a worker has."""
    session.install("--editable", ".", "--group", "test")
    session.run("pytest", "-m", "not torch and not simulate", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measurements; ratios within one run."""
    install(session)
    for name in ("features", "chain", "rmm_stream", "startup"):
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
    """The documentation, into build/docs."""
    install(session, "docs")
    session.run("mkdocs", "build", "--strict", "--site-dir", "build/docs")


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Wheel and source distribution."""
    session.install("build")
    session.run("python", "-m", "build")


if __name__ == "__main__":
    nox.main()
