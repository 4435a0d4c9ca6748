"""Where files are and how long they may be: every module has a test of its name, and every test a module."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "kdzoo"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [path.relative_to(PACKAGE) for path in FILES if path.name not in ("__init__.py", "__main__.py")]
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 50
WITHOUT_A_MODULE = {
    "test_documentation.py": "commands, links and names in README.md and docs/",
    "test_walkthroughs.py": "the files, commands and snippets of docs/tutorial.md and docs/howto.md",
    "test_imports.py": "imports and calls in all files of the package",
    "test_layout.py": "the names and lengths of all files of the package",
    "config/test_experiments.py": "the files of conf/experiment",
    "contracts/test_contracts.py": "the exemptions of all registered distillers, and the report of all checks",
    "core/test_accelerator_steps.py": "a property of batch, loss_terms, finite_check and base together",
    "data/test_conf.py": "the files of conf/data",
    "data/test_resume.py": "the position in the training stream, of data modules and samplers under a real trainer",
    "examples/test_methods.py": "the methods of examples/methods",
    "examples/test_my_kind.py": "the kind of examples/my_kind",
    "functional/test_accuracy.py": "the accuracy of losses on logits, of several modules",
    "functional/test_certificate.py": "the certificate of losses, which is in tests/functional/certificate.py",
    "functional/test_refused_arguments.py": "all losses on logits refuse the same arguments with the same messages",
    "functional/unroll/test_linear_regression.py": "a property of unrolling that holds for all engines",
    "graphical_models/test_declarations.py": "the graphs of examples/graphs",
    "graphical_models/test_properties.py": "bounds and special cases of the surrogate loss, of several modules",
    "models/test_batched_weights.py": "all image models under torch.func.vmap",
    "models/test_common.py": "what all models of fixed-size inputs promise",
    "models/test_conf.py": "the files of conf/teacher and conf/student",
    "test_attacks.py": "files that try to run code or to write elsewhere",
    "test_lock.py": "requirements.lock",
    "test_damaged_files.py": "damaged files of every format that is read",
    "scripts/test_check_words.py": "scripts/check_words.py",
    "scripts/test_mutants.py": "scripts/mutants.py and its list of faults",
}
"""Tests that mirror no module, with what they are about."""


def mirror_of(module):
    """Return the path of the test of a module, both relative to their folders."""
    return module.with_name(f"test_{module.name}")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_a_test_of_its_name(module):
    assert (TESTS / mirror_of(module)).is_file(), f"there is no tests/{mirror_of(module)}"


def test_a_test_has_a_module_or_a_reason():
    mirrors = {mirror_of(module).as_posix() for module in MODULES}
    tests = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    assert tests - mirrors == set(WITHOUT_A_MODULE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(node.name, node.end_lineno - node.lineno + 1) for node in functions]
    assert [(name, length) for name, length in lengths if length > MOST_LINES_OF_A_FUNCTION] == []
