"""Run one target with atheris: ``fuzz.py TARGET [libFuzzer options]``; see the Makefile."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

INSTRUMENTED = ["asyncapy_core", "asyncapy_codecs", "configparser", "tomllib"]

with atheris.instrument_imports(include=INSTRUMENTED):
    from targets import TARGETS


def main() -> None:
    name, *options = sys.argv[1:]
    folders = [option for option in options if not option.startswith("-")]  # folders; the first gets the new inputs
    flags = [option for option in options if option.startswith("-")]
    corpus = Path(__file__).parent / "corpus" / name
    atheris.Setup([name, *folders, str(corpus), *flags], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
