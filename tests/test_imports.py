"""Who may import whom, what --help may not import, and which calls that run foreign code there are."""

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kdzoo"
FILES = sorted(PACKAGE.rglob("*.py"))
LEVELS = (
    {"errors", "plotting"},
    {"core", "config"},
    {"storage", "text", "functional", "graphical_models", "layer_init"},
    {"metrics", "tensor_networks", "automata", "reports"},
    {"models", "data"},
    {"dataset_distillation"},
    {"distillers", "kinds"},
    {"runs"},
    {"contracts"},
    {"cli"},
)
"""The packages from the bottom up: a file imports only from its own package and from packages of lower levels."""
LEVEL_OF = {package: level for level, packages in enumerate(LEVELS) for package in packages}
AT_THE_ROOT = {"__init__.py": set(LEVEL_OF), "__main__.py": {"cli"}, "errors.py": set()}
"""What the three files beside the packages may import; the package's face hands names on when they are first used."""
LIGHT = (
    "cli/main.py",
    "cli/sweeps.py",
    "cli/sweep_jobs.py",
    "cli/__init__.py",
    "errors.py",
    "__init__.py",
    "__main__.py",
)
"""Files that --help and Tab import, beside all of ``config``, and that must not make them slow."""
HEAVY = ("torch", "pytorch_lightning", "lightning_fabric", "torchmetrics", "numpy", "matplotlib", "sklearn")


def imports(tree, *, lazily):
    """Yield the dotted names that a file imports; those inside of functions and TYPE_CHECKING only if ``lazily``."""
    nodes = ast.walk(tree) if lazily else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages_used(path):
    """Return the packages of kdzoo that a file imports from, anywhere in it, without its own."""
    names = [name.split(".") for name in imports(ast.parse(path.read_text()), lazily=True)]
    used = {parts[1] for parts in names if parts[0] == "kdzoo" and len(parts) > 1} & set(LEVEL_OF)
    return used - {path.relative_to(PACKAGE).parts[0]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_packages_below_its_own(path):
    first, *rest = path.relative_to(PACKAGE).parts
    if rest:
        assert first in LEVEL_OF, f"the package {first} has no level"
        allowed = {package for package, level in LEVEL_OF.items() if level < LEVEL_OF[first]}
    else:
        allowed = AT_THE_ROOT[first]
    assert packages_used(path) <= allowed


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_imports_itself_through_others():
    """Package faces that re-export names are left out: what they import is imported from the modules themselves."""
    modules = {module_name(path): path for path in FILES if path.name != "__init__.py"}
    graph = {
        name: {used for used in imports(ast.parse(path.read_text()), lazily=False) if used in modules}
        for name, path in modules.items()
    }
    assert tuple(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if str(path.relative_to(PACKAGE)) in LIGHT or path.parent.name == "config"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_a_light_module_imports_nothing_heavy(path):
    tree = ast.parse(path.read_text())
    assert not {name.split(".")[0] for name in imports(tree, lazily=False)} & set(HEAVY)


def loaded_by(statement):
    """Return the modules that a new process has loaded after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_the_command_imports_no_torch():
    assert not loaded_by("import kdzoo.cli.main, kdzoo.config.overrides, kdzoo.config") & set(HEAVY)


def test_importing_the_batch_loads_neither_data_nor_models():
    loaded = {name for name in loaded_by("import kdzoo.core.batch") if name.startswith("kdzoo")}
    assert loaded == {"kdzoo", "kdzoo.core", "kdzoo.core.batch", "kdzoo.core.precision", "kdzoo.errors"}


def test_the_run_reaches_methods_and_models_through_configuration():
    for path in (PACKAGE / "runs").glob("*.py"):
        names = set(imports(ast.parse(path.read_text()), lazily=True))
        assert not any(name.startswith(("kdzoo.distillers", "kdzoo.functional")) for name in names)
        # Loading weights into any module is the one thing that the run asks of the models' package.
        assert {name for name in names if name.startswith("kdzoo.models")} <= {
            "kdzoo.models",
            "kdzoo.models.load_weights",
        }


def calls(path):
    """Yield the source of what every call in a file calls, and its keywords that are True."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield (
                ast.unparse(node.func),
                {
                    word.arg
                    for word in node.keywords
                    if isinstance(word.value, ast.Constant) and word.value.value is True
                },
            )


def test_torch_load_is_called_where_it_is_guarded_and_nowhere_else():
    places = [str(path.relative_to(PACKAGE)) for path in FILES for name, _ in calls(path) if name == "torch.load"]
    assert places == ["models/pretrained.py", "storage/checkpoint.py"]
    guarded = [words for path in FILES for name, words in calls(path) if name == "torch.load"]
    assert all("weights_only" in words for words in guarded)


FORBIDDEN = ("pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "yaml.load", "yaml.unsafe_load")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_foreign_code(path):
    for name, words in calls(path):
        assert name not in FORBIDDEN
        assert not name.endswith((".extractall", ".extract"))
        assert not words & {"trust_remote_code", "allow_pickle", "shell"}


@pytest.fixture(scope="module")
def no_torch(tmp_path_factory):
    """Return an environment in which importing torch fails, with CPU time printed at the end."""
    folder = tmp_path_factory.mktemp("site")
    text = "import sys\nfor name in " + repr(HEAVY) + ":\n    sys.modules[name] = None\n"
    (folder / "sitecustomize.py").write_text(text)
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("arguments", "line", "expected"),
    [
        (["--help"], "", "kdzoo evaluate FOLDER"),
        (["--help"], "", "distiller: adversarial, adversarial_autoencoder, autoencoder_kd"),
        (["-sc", "install=bash"], "", "complete -o nospace"),
        (["-sc", "query=bash"], "kdzoo ", "list explain cite evaluate report sweep cache check matrix schema doctor"),
        (["-sc", "query=bash"], "kdzoo distiller=logit", "distiller=logit_kd distiller=logit_mse"),
        (["-sc", "query=bash"], "kdzoo distiller.temp", "distiller.temperature="),
        (["-sc", "query=bash"], "kdzoo evaluate outputs/x data=mn", "data=mnist"),
        (["-sc", "query=bash"], "kdzoo --config-dir {example}/conf distiller=my", "distiller=my_dkd"),
        (["--version"], "", "kdzoo 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_help_and_tab_need_nothing_heavy(arguments, line, expected, no_torch, tmp_path):
    line = line.format(example=PACKAGE.parent / "examples" / "my_dkd")
    environment = {**no_torch, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = [sys.executable, "-m", "kdzoo", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert expected in answer.stdout
    assert not list(tmp_path.iterdir())
