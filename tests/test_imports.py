"""Who may import whom, what --help may not import, and which calls that run foreign code there are."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kdzoo"
FILES = sorted(PACKAGE.rglob("*.py"))
BASE = {
    "errors",
    "checks",
    "batch",
    "terms",
    "hooks",
    "inference",
    "atomic",
    "strings",
    "language",
    "vocabulary",
    "reading",
}
"""Small modules without a room of their own, which every room may use."""
ROOMS = {
    "functional": {"functional", "errors", "checks"},
    "graphical": {"graphical", "functional", "inference", "plotting", "errors", "checks"},
    "tensor_networks": {"tensor_networks", "functional", "plotting", "atomic", "errors", "checks"},
    "models": {
        *("models", "functional", "graphical", "tensor_networks", "layer_init", "language", "strings"),
        *("reading", "vocabulary", "errors", "checks"),
    },
    "layer_init": {"layer_init", "inference", "plotting", "errors", "checks"},
    "metrics": {"metrics", "functional", "inference", "errors", "checks"},
    "automata": {"automata", "functional", "strings", "language", "errors", "checks", "atomic"},
    "data": {"data", "automata", "strings", "language", "vocabulary", "errors", "checks", "atomic"},
    "distillers": {
        *("distillers", "distiller", "fitted", "functional", "automata", "synthetic", "graphical", "tensor_networks"),
        *("data", "layer_init", "plotting"),
        *BASE,
    },
    "kinds": {
        *("kinds", "metrics", "plotting", "functional", "automata", "synthetic", "graphical", "models", "data"),
        *("layer_init", "tensor_networks"),
        *("checkpoint", *BASE),
    },
    "synthetic": {"synthetic", "functional", "models", "data", "plotting", *BASE},
    "distiller": {*BASE},
    "fitted": {"distiller", *BASE},
    "schedules": {"checks"},
    "reading": set(),
    "vocabulary": {"errors", "checks"},
    "errors": set(),
    "config": {"errors"},
    "signatures": {"config"},
    "mistakes": {"config", "errors", "signatures"},
    "command": {"config", "mistakes", "errors"},
    "registry": {"config", "errors"},
    "report": {"plotting", "errors"},
    "plotting": set(),
}
LIGHT = ("cli", "command", "config", "mistakes", "registry", "signatures", "errors", "__init__", "__main__")
"""Modules that --help and Tab import, or that must not make them slow."""
HEAVY = ("torch", "pytorch_lightning", "lightning_fabric", "torchmetrics", "numpy", "matplotlib", "sklearn")


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree, *, lazily):
    """Yield the dotted names that a file imports; those inside of functions and TYPE_CHECKING only if ``lazily``."""
    nodes = ast.walk(tree) if lazily else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(path, *, lazily=True):
    """Return the modules and packages of kdzoo that a file imports."""
    names = [name.split(".") for name in imports(ast.parse(path.read_text()), lazily=lazily)]
    return {parts[1] for parts in names if parts[0] == "kdzoo" and len(parts) > 1}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_may(path):
    room = module_of(path)
    known = {module_of(one) for one in FILES}
    used = rooms(path) & known
    if room in ROOMS:
        assert used <= ROOMS[room] | {room}
    if room not in ("cli", "__init__", "__main__", "pipeline", "doctor"):
        assert not used & {"pipeline", "cli"}


@pytest.mark.parametrize(
    "path", [path for path in FILES if module_of(path) in ("pipeline", "job")], ids=lambda p: p.stem
)
def test_the_pipeline_reaches_methods_and_models_through_configuration(path):
    assert not rooms(path) & {"distillers", "models", "functional"}


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_module_imports_nothing_heavy(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    assert not {one.split(".")[0] for one in imports(tree, lazily=False)} & set(HEAVY)


def test_importing_the_command_imports_no_torch():
    code = "import sys, kdzoo.cli.main, kdzoo.config.overrides, kdzoo.config; print([n for n in sys.argv[1:] if n in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


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
    assert places == ["checkpoint.py", "models/pretrained.py"]
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
        (["--help"], "", "distiller: baum_welch, continual, coreset"),
        (["-sc", "install=bash"], "", "complete -o nospace"),
        (["-sc", "query=bash"], "kdzoo ", "list cite evaluate check doctor"),
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
