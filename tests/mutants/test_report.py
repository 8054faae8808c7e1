"""The report of `make mutants`, for a module with two mutants."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import report  # in the folder of this file

MUTATED = """\
class Door:
    @_mutmut_mutated(mutants_xǁDoorǁopens__mutmut)
    async def opens(self, key):
        return key > 1
    async def xǁDoorǁopens__mutmut_orig(self, key):
        return key > 1
    async def xǁDoorǁopens__mutmut_1(self, key):
        return key >= 1
    async def xǁDoorǁopens__mutmut_2(self, key):
        return key > 2
"""

REASON = 'reason = "Keys are never 1."'
ENTRY = f"""\
[[survivor]]
function = "Door.opens"
line = "return key > 1"
mutants = ["return key >= 1"]
{REASON}
"""


def reported(folder: Path, monkeypatch: pytest.MonkeyPatch, *codes: int | None, accepted: str) -> tuple[int, str]:
    """Return the exit status and the report for these exit codes of the mutants."""
    source = folder / "mutants" / "src" / "house"
    source.mkdir(parents=True)
    (source / "door.py").write_text(MUTATED)
    keys = {f"house.door.xǁDoorǁopens__mutmut_{number}": code for number, code in enumerate(codes, 1)}
    (source / "door.py.meta").write_text(json.dumps({"exit_code_by_key": keys}))
    (folder / "survivors.toml").write_text(accepted)
    monkeypatch.setattr(report, "ACCEPTED", folder / "survivors.toml")
    return report.main(folder), (folder / "report.md").read_text()


def test_a_survivor_in_a_strict_module_without_an_explanation_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = reported(tmp_path, monkeypatch, 0, 1, accepted='strict = ["*.door"]\n')
    assert status == 1
    assert ENTRY.replace(REASON, 'reason = ""') in text
    out = capsys.readouterr().out
    assert "2 mutants: 1 survived, 1 killed" in out
    assert "house.door: Door.opens\n  - return key > 1\n  + return key >= 1" in out


def test_a_survivor_with_an_explanation_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = reported(tmp_path, monkeypatch, 0, 36, accepted=f'strict = ["*.door"]\n{ENTRY}')
    assert status == 0
    assert "| house.door (strict) | 0 | 1 | 1 | 0 |" in text
    assert "Accepted: Keys are never 1." in text


def test_an_explanation_holds_for_one_mutation_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = reported(tmp_path, monkeypatch, 0, 33, accepted=f'strict = ["*.door"]\n{ENTRY}')
    assert status == 1
    assert 'mutants = ["return key > 2"]' in text


def test_a_survivor_in_another_module_is_listed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = reported(tmp_path, monkeypatch, 0, 1, accepted="strict = []\n")
    assert status == 0
    assert "+ return key >= 1" in text


def test_an_explanation_without_a_survivor_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = reported(tmp_path, monkeypatch, 1, 1, accepted=f'strict = ["*.door"]\n{ENTRY}')
    assert status == 0
    assert "1 explanations without a survivor" in text


@pytest.mark.parametrize("code", [None, 2, -9])
def test_a_mutant_that_was_not_tested_to_the_end_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    assert reported(tmp_path, monkeypatch, code, 1, accepted="strict = []\n")[0] == 1


def test_a_pattern_that_matches_no_module_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reported(tmp_path, monkeypatch, 1, 1, accepted='strict = ["*.window"]\n')[0] == 1


def test_an_explanation_without_a_reason_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ENTRY.replace(REASON, 'reason = " "')
    with pytest.raises(ValueError, match=r"survivors.toml: a survivor of Door.opens has no reason"):
        reported(tmp_path, monkeypatch, 1, 1, accepted=f"strict = []\n{entry}")
