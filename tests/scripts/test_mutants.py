"""The list of faults fits the package: its texts are where they are looked for, and its tests exist."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
specification = importlib.util.spec_from_file_location("mutants", ROOT / "scripts" / "mutants.py")
mutants = importlib.util.module_from_spec(specification)
sys.modules["mutants"] = mutants  # dataclasses look their module up here
specification.loader.exec_module(mutants)
FAULTS = mutants.read_faults()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_changes_one_place_and_names_its_tests(fault):
    text = (ROOT / "kdzoo" / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.text) == 1
    compile(text.replace(fault.text, fault.put), fault.file, "exec")  # a syntax error would be caught by any test
    assert fault.put != fault.text
    for test in fault.tests:
        path, *names = test.split("::")
        text = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert all(f"def {name}(" in text or f"class {name}" in text for name in names)


def test_names_are_unique_and_the_families_many():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) >= 60
    assert len({fault.family for fault in FAULTS}) >= 10


def test_outcomes_are_counted():
    faults = FAULTS[:3]
    outcomes = [
        mutants.Outcome(faults[0].name, "caught", "tests/a.py::test_b[1]", 2.4),
        mutants.Outcome(faults[1].name, "survived", seconds=3.0),
        mutants.Outcome(faults[2].name, mutants.NOT_TRIED),
    ]
    lines = mutants.table(faults, outcomes).splitlines()
    assert lines[0] == "1 of 2 faults were caught. 1 more are in the list and were not tried."
    assert lines[-3].endswith("| caught | `a.py::test_b` | 2 |")
    assert lines[-2].endswith("| survived |  |  |")
    assert lines[-1].endswith("| not tried |  |  |")
