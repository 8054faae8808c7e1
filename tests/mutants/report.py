"""Report which mutants survived: ``report.py FOLDER``, for a folder that flatten.py made and mutmut has run in.

Writes ``FOLDER/report.md`` and prints a summary. A survivor is identified by its function and by the line that differs,
not by the number that mutmut gives it, which changes with the code around it. survivors.toml explains the accepted
survivors, and lists the modules in which each survivor needs an explanation. The exit status is 1 if one has none.
"""

from __future__ import annotations

import ast
import difflib
import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeAlias

ACCEPTED = Path(__file__).with_name("survivors.toml")

KILLED = frozenset({1, 3})
TIMED_OUT = frozenset({-24, 24, 36, 152, 255})
SURVIVED = frozenset({0, 5, 33})
"""Exit codes as mutmut keeps them; 5 and 33 mean that no test runs the function."""

Change: TypeAlias = tuple[str, str, str]
"""Function, the line as it is, and the line as mutated; empty where a line was removed."""


@dataclass
class Module:
    """The mutants of one module.

    Attributes:
        name: the dotted name of the module.
        strict: whether each survivor needs an explanation.
        figures: the number of mutants by outcome.
        survivors: the mutants that no test noticed.
    """

    name: str
    strict: bool
    figures: Counter[str] = field(default_factory=Counter)
    survivors: list[Change] = field(default_factory=list)


@dataclass
class Accepted:
    """The content of survivors.toml.

    Attributes:
        strict: patterns of the names of strict modules.
        changes: how many survivors with this change are explained.
        reasons: the explanations.
    """

    strict: list[str]
    changes: Counter[Change]
    reasons: dict[Change, str]

    @classmethod
    def read(cls, path: Path) -> Accepted:
        """Read the file.

        Raises:
            ValueError: a survivor has no explanation.
        """
        data = tomllib.loads(path.read_text())
        changes: Counter[Change] = Counter()
        reasons: dict[Change, str] = {}
        for survivor in data.get("survivor", ()):
            if not survivor["reason"].strip():
                raise ValueError(f"{path.name}: a survivor of {survivor['function']} has no reason")
            for mutant in survivor["mutants"]:
                change = (survivor["function"], survivor["line"], mutant)
                changes[change] += 1
                reasons[change] = survivor["reason"]
        return cls(data["strict"], changes, reasons)


def read_modules(folder: Path, strict: Iterable[str]) -> Iterator[Module]:
    """Yield the modules that have mutants, with the results of mutmut."""
    source = folder / "mutants" / "src"
    for meta in sorted(source.rglob("*.meta")):
        path = meta.with_suffix("")
        name = ".".join(path.relative_to(source).with_suffix("").parts)
        codes: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
        if codes:
            module = Module(name, any(fnmatch(name, pattern) for pattern in strict))
            functions = _functions(path)
            for key, code in codes.items():
                outcome = _outcome(code)
                module.figures[outcome] += 1
                if outcome == "survived":
                    module.survivors.append(_change(functions, key.rpartition(".")[2]))
            yield module


def _outcome(code: int | None) -> str:
    if code in KILLED:
        return "killed"
    if code in TIMED_OUT:
        return "timed out"
    return "survived" if code in SURVIVED else "unclear"


def _functions(path: Path) -> Mapping[str, list[str]]:
    """Return the lines of all functions of a mutated module, under the names that mutmut gave them."""
    text = path.read_text()
    lines = text.splitlines()
    return {
        node.name: [line.strip() for line in lines[node.lineno - 1 : node.end_lineno]]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def _change(functions: Mapping[str, list[str]], mutant: str) -> Change:
    """Return the difference between a function and a mutant of it, such as ``x_digest__mutmut_1``."""
    function = mutant.partition("__mutmut_")[0]
    original = _renamed(functions[f"{function}__mutmut_orig"], f"{function}__mutmut_orig")
    mutated = _renamed(functions[mutant], mutant)
    before: list[str] = []
    after: list[str] = []
    for kind, start, end, other_start, other_end in difflib.SequenceMatcher(
        None, original, mutated, autojunk=False
    ).get_opcodes():
        if kind != "equal":
            before += original[start:end]
            after += mutated[other_start:other_end]
    readable = function.removeprefix("x_") if function.startswith("x_") else function[2:].replace("ǁ", ".")
    return readable, " ".join(before), " ".join(after)


def _renamed(lines: list[str], name: str) -> list[str]:
    """Return the lines of a function under a name that all its mutants share."""
    return [lines[0].replace(name, "_", 1), *lines[1:]]


def unexplained(modules: Iterable[Module], accepted: Accepted) -> Iterator[tuple[Module, Change]]:
    """Yield the survivors in strict modules that survivors.toml does not list, or lists less often."""
    left = Counter(accepted.changes)
    for module in modules:
        for change in module.survivors if module.strict else ():
            if left[change] > 0:
                left[change] -= 1
            else:
                yield module, change


def as_toml(change: Change) -> str:
    """Return the entry of survivors.toml for a survivor, without its reason."""
    function, before, after = (json.dumps(part, ensure_ascii=False) for part in change)
    return f'[[survivor]]\nfunction = {function}\nline = {before}\nmutants = [{after}]\nreason = ""\n'


def write_report(path: Path, modules: list[Module], accepted: Accepted, new: list[Change]) -> None:
    """Write the figures, all survivors, and the explanations that no survivor needs."""
    columns = ("killed", "timed out", "survived", "unclear")
    lines = ["# Mutants", "", f"| module | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for module in modules:
        mark = " (strict)" if module.strict else ""
        lines.append(f"| {module.name}{mark} | {' | '.join(str(module.figures[each]) for each in columns)} |")
    for module in modules:
        if module.survivors:
            lines += ["", f"## Survivors in {module.name}", ""]
            for change in module.survivors:
                reason = accepted.reasons.get(change) if module.strict else None
                lines += ["```diff", f"@@ {change[0]} @@", f"- {change[1]}", f"+ {change[2]}", "```"]
                lines += [f"Accepted: {reason}"] if reason else []
    survivors = Counter(change for module in modules if module.strict for change in module.survivors)
    killed = list((accepted.changes - survivors).elements())
    lines += ["", f"## {len(killed)} explanations without a survivor", "", *(f"- {change}" for change in killed)]
    lines += ["", f"## {len(new)} survivors to be explained", "", "```toml", *map(as_toml, new), "```", ""]
    path.write_text("\n".join(lines))


def main(folder: Path) -> int:
    """Write the report, print a summary, and return the exit status."""
    accepted = Accepted.read(ACCEPTED)
    modules = list(read_modules(folder, accepted.strict))
    new = list(unexplained(modules, accepted))
    write_report(folder / "report.md", modules, accepted, [change for _, change in new])
    figures: Counter[str] = sum((module.figures for module in modules), Counter())
    print(f"{figures.total()} mutants: {', '.join(f'{count} {outcome}' for outcome, count in figures.most_common())}")
    print(f"All survivors are in {folder / 'report.md'}.")
    faults = [f"no module matches {each}" for each in accepted.strict if not _any_match(modules, each)]
    if figures["unclear"]:
        faults.append(f"{figures['unclear']} mutants were not tested to the end")
    faults += [f"{module.name}: {function}\n  - {before}\n  + {after}" for module, (function, before, after) in new]
    if faults:
        print("\nNeither killed by a test nor explained in survivors.toml:", *faults, sep="\n")
    return 1 if faults else 0


def _any_match(modules: Iterable[Module], pattern: str) -> bool:
    return any(fnmatch(module.name, pattern) for module in modules)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
