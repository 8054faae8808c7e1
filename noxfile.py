"""Sessions of nox: lint once, the test suite on each supported Python that is installed, and with the oldest releases.

The sessions run targets of the Makefile.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Check format, rules, types and import order."""
    session.run("make", "lint")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the test suite in its own environment."""
    session.run("make", "test", f"VENV={session.virtualenv.location}", "PYTHON=python", external=True)


@nox.session(python=PYTHONS[0], venv_backend="none")
def floors(session: nox.Session) -> None:
    """Run the suite with the oldest allowed release of each dependency, on the oldest supported Python."""
    session.run("make", "floors", f"PYTHON=python{PYTHONS[0]}", external=True)
