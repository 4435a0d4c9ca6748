"""The command from outside: runs, sweeps, a distiller in two files, ranks, subcommands and exit codes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import joblib
import pytest
from safetensors.torch import load_file

import kdzoo as kdzoo_package
from kdzoo import contracts
from kdzoo.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_dkd"
TINY = ("debug=fast", "student.hidden=[8]", "teacher.hidden=[8]", "control=false")


def kdzoo(*arguments, folder, threads="1", module=("kdzoo",)):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "KDZOO_DATA")}
    environment |= {"OMP_NUM_THREADS": threads, "COLUMNS": "200", "COVERAGE_PROCESS_START": ""}
    if not threads:  # as many as PyTorch or the launcher chooses
        del environment["OMP_NUM_THREADS"]
    command = [sys.executable, "-m", *module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


def reports(folder):
    return {path.parent.name: path for path in (folder / "outputs").glob("*/report.json")}


def in_process(monkeypatch, capsys, *arguments):
    """Run the command in this process; return exit code, standard output and error."""
    monkeypatch.setattr(sys, "argv", ["kdzoo", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):  # which the command sets for its child processes
        monkeypatch.setenv(name, os.environ.get(name, ""))
    code = 0
    try:
        main.main()
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def own_distiller(tmp_path, monkeypatch):
    """A folder with a distiller in two files; its YAML holds only ``_target_``."""
    monkeypatch.delitem(sys.modules, "my_dkd", raising=False)  # of another test in this process, from another folder
    shutil.copy(EXAMPLE / "my_dkd.py", tmp_path)
    shutil.copytree(EXAMPLE / "conf", tmp_path / "conf")
    return tmp_path


# ---------------------------------------------------------------- runs and sweeps


def test_two_files_are_a_distiller_that_runs_sweeps_and_is_not_repeated(own_distiller):
    line = ("-m", "--config-dir", "conf", "distiller=my_dkd", "distiller.temperature=1,2", *TINY)
    first = kdzoo(*line, folder=own_distiller)
    assert first.returncode == 0, first.stderr
    before = {name: path.stat().st_mtime_ns for name, path in reports(own_distiller).items()}
    assert len(before) == 2
    wider = [word.replace("=1,2", "=1,2,3") for word in line]
    second = kdzoo(*wider, folder=own_distiller)
    assert second.returncode == 0, second.stderr
    after = {name: path.stat().st_mtime_ns for name, path in reports(own_distiller).items()}
    assert len(after) == 3
    assert before.items() <= after.items()
    assert second.stderr.count("student, seed 0") == 1
    table = second.stdout.rpartition("Sweep")[2]
    assert table.count(" done ") == 3
    assert "distiller.temperature=3" in table
    assert "distiller=my_dkd" not in table  # as all jobs have it
    report = json.loads(next(iter(reports(own_distiller).values())).read_text())
    assert report["distiller"] == "my_dkd"
    assert report["command"].startswith(
        f"kdzoo --config-dir {own_distiller}/conf distiller=my_dkd distiller.temperature="
    )


FRAGILE = """
import os, signal, sys
from pathlib import Path
from kdzoo.distillers import LogitKD

class Fragile(LogitKD):
    \"\"\"Ends its process, or tries to, unless a file says that it is mended.\"\"\"

    def __init__(self, student, teacher, *, ends_by="", **options):
        super().__init__(student, teacher, **options)
        if ends_by and not Path("mended").exists():
            {"exit": lambda: sys.exit(3), "error": lambda: {}["key"], "kill": self.kill}[ends_by]()

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def fragile_distiller(tmp_path):
    """A folder with a distiller that ends in the way that is asked for."""
    (tmp_path / "fragile.py").write_text(FRAGILE)
    (tmp_path / "conf" / "distiller").mkdir(parents=True)
    (tmp_path / "conf" / "distiller" / "fragile.yaml").write_text('_target_: fragile.Fragile\nends_by: ""\n')
    return tmp_path


def states(answer):
    """Return the state of each job in the table of a sweep, by its first setting."""
    rows = [line.split() for line in answer.stdout.rpartition("Sweep")[2].splitlines()]
    # The table of the scores of the jobs that are done comes below, with numbers in the place of states.
    rows = [row for row in rows if row[2:] and row[1].startswith("distiller.ends_by=") and row[2].isalpha()]
    return {row[1].partition("=")[2]: row[2] for row in rows}


def test_a_job_that_fails_in_any_way_does_not_stop_the_others(fragile_distiller):
    line = ("-m", "--config-dir", "conf", "distiller=fragile", "distiller.ends_by=exit,error,''", "seed=0", *TINY)
    answer = kdzoo(*line, "hydra.sweeper.max_batch_size=1", folder=fragile_distiller)
    assert answer.returncode == 1
    assert states(answer) == {"''": "done", "exit": "failed", "error": "failed"}
    assert len(reports(fragile_distiller)) == 1
    assert "kdzoo: job 1 failed: its code called sys.exit(3)" in answer.stderr
    assert "kdzoo: job 2 failed: KeyError: 'key'" in answer.stderr
    assert "Error executing job" not in answer.stderr  # which Hydra prints of the first one


# One job after the other, so that the first one is done when the second one is killed.
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.launcher.pre_dispatch=1")
WITHOUT_SUBMITIT = pytest.mark.skipif(find_spec("submitit") is None, reason="needs kdzoo[submitit]")


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(JOBLIB, id="joblib"),
        pytest.param(("hydra/launcher=submitit_local",), id="submitit", marks=WITHOUT_SUBMITIT),
    ],
)
def test_a_sweep_whose_worker_is_killed_knows_its_jobs_and_continues(launcher, fragile_distiller, monkeypatch):
    # A run is named by the temperature 2.0; only the class in the user's module says that it is not an integer.
    settings = ("distiller=fragile", "distiller.temperature=2", "seed=0", *TINY)
    line = ("-m", "--config-dir", "conf", "distiller.ends_by='',kill", *settings, *launcher)
    killed = kdzoo(*line, folder=fragile_distiller)
    assert killed.returncode == 1
    assert states(killed) == {"''": "done", "kill": "interrupted"}, killed.stderr
    assert "Traceback" not in killed.stderr
    assert "kdzoo: 1 of 2 jobs are not done; the same command runs only these" in killed.stderr
    (sweep,) = (fragile_distiller / "outputs").glob("sweep-*")
    assert states(kdzoo("sweep", str(sweep), folder=fragile_distiller)) == states(killed)

    before = {name: path.stat().st_mtime_ns for name, path in reports(fragile_distiller).items()}
    monkeypatch.syspath_prepend(fragile_distiller)
    alone = kdzoo_package.compose(*settings, config_dir=fragile_distiller / "conf")
    assert list(before) == [Path(alone.output_dir).name]
    (fragile_distiller / "mended").touch()
    continued = kdzoo(*line, folder=fragile_distiller, threads="")
    assert continued.returncode == 0, continued.stderr
    assert states(continued) == {"''": "done", "kill": "done"}
    after = {name: path.stat().st_mtime_ns for name, path in reports(fragile_distiller).items()}
    assert (len(before), len(after)) == (1, 2)
    assert before.items() <= after.items()  # what was done is not computed again
    threads = {json.loads(path.read_text())["threads"] for path in reports(fragile_distiller).values()}
    if launcher == JOBLIB:
        assert threads == {1, max(1, joblib.cpu_count() // 2)}  # what was chosen, and what two processes have each


@pytest.mark.skipif(find_spec("optuna") is None, reason="needs kdzoo[optuna]")
def test_a_search_continues_with_what_is_missing_and_prints_its_best_run(fragile_distiller, monkeypatch, capsys):
    monkeypatch.chdir(fragile_distiller)
    line = ("-m", "--config-dir", "conf", "distiller=fragile", "seed=0", "hydra/sweeper=optuna", *TINY)
    space = ("distiller.temperature=tag(log,interval(1,20))", "distiller.ends_by=error,''")
    code, out, error = in_process(monkeypatch, capsys, *line, *space, "hydra.sweeper.n_trials=4")
    failed = out.count(" failed  ")
    assert (code, failed > 0, error.count("student, seed 0")) == (1, True, 4 - failed)
    (fragile_distiller / "mended").touch()
    code, out, error = in_process(monkeypatch, capsys, *line, *space, "hydra.sweeper.n_trials=5")
    assert (code, out.count(" done  "), error.count("student, seed 0")) == (0, 5, failed + 1)
    best = out.rpartition("Best: ")[2]
    assert best.startswith(f"kdzoo --config-dir {fragile_distiller}/conf distiller=fragile seed=0 ")
    assert "distiller.temperature=" in best


def test_mistakes_in_a_job_are_printed_without_a_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, error = in_process(monkeypatch, capsys, "-m", "distiller.temperature=-1", *TINY)
    assert (code, out.count(" failed ")) == (1, 1)
    assert "kdzoo: job 1 failed: temperature must be finite and > 0, got -1" in error
    assert 'File "' not in error


def test_ranks_have_the_settings_of_their_job(tmp_path):
    short = ("trainer.limit_train_batches=2", "trainer.max_epochs=1", "seed=0", *TINY[1:])
    answer = kdzoo("-m", "trainer=ddp", "distiller.temperature=1,2", *short, folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.count("GLOBAL_RANK: 1, MEMBER: 2/2") == 2
    assert len(reports(tmp_path)) == 2
    assert not list(tmp_path.rglob("rank_settings.json"))


def test_two_nodes_with_one_process_each_end_with_the_weights_of_one_process(tmp_path):
    """Two agents of torchrun that meet at one address, as on two machines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    agent = ["torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
    agent += ["--master-port", port, "--node-rank"]

    def run(name, *settings, module=("kdzoo",)):
        folders = (f"output_dir={name}", f"cache_dir={name}_cache")
        return kdzoo(*TINY, *folders, *settings, folder=tmp_path, module=module)

    nodes = ("trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2")
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda node: run("two", *nodes, module=[*agent, node, "-m", "kdzoo"]), "01"))
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    assert "Run folder: two" in results[0].stdout
    assert results[1].stdout.strip() == ""  # only the first process prints
    assert run("one").returncode == 0
    one, two = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("one", "two"))
    # In float32, whose sums over the halves of a batch are rounded in another order.
    assert max(float((one[key] - two[key]).abs().max()) for key in one) <= 1e-6


def test_a_run_that_was_begun_by_one_process_is_continued_by_two(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = (*TINY, "seed=0", "checkpoint_every_n_steps=1", "cache_dir=cache")
    assert in_process(monkeypatch, capsys, *line, "output_dir=whole")[0] == 0
    steps = []

    def interrupt(_, trainer, *__, **___):
        steps.append(trainer.global_step)
        if len(steps) == 4:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:  # the teacher is in the cache, so that these are steps of the student
        patch.setattr("kdzoo.runs.training.Progress.on_train_batch_end", interrupt)
        assert in_process(patch, capsys, *line, "output_dir=divided")[0] == 143
    answer = kdzoo(*line, "output_dir=divided", "trainer=ddp", folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "student, seed 0: continues after step 4" in answer.stderr
    one, two = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("whole", "divided"))
    # In float32, whose sums over the halves of a batch are rounded in another order.
    assert 0 < max(float((one[key] - two[key]).abs().max()) for key in one) <= 1e-6


def test_processes_of_torchrun_fill_one_cache_that_the_run_reads(tmp_path):
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "kdzoo"]
    settings = [*TINY, "max_samples=1200"]
    answer = kdzoo("cache", *settings, folder=tmp_path, module=torchrun)
    assert answer.returncode == 0, answer.stderr
    (store,) = (tmp_path / "outputs" / "cache" / "teacher_outputs").iterdir()
    written = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}
    assert {"manifest.json", "rows_000000000-000001023.safetensors"} <= written.keys()
    assert answer.stdout.count(f"{store.relative_to(tmp_path)}: ") == 2
    assert kdzoo(*settings, folder=tmp_path).returncode == 0
    assert {path.name: path.stat().st_mtime_ns for path in store.iterdir()} == written


def test_a_sweep_that_fills_caches_goes_on_after_a_job_that_has_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ("cache", "-m", "distiller=supervised,logit_kd", "seed=0", *TINY)
    code, out, error = in_process(monkeypatch, capsys, *line)
    assert (code, "Traceback" in error) == (1, False)
    assert "kdzoo: job 1 failed: Supervised on Digits stores no outputs of a teacher: its losses must read " in error
    (store,) = (tmp_path / "outputs" / "cache" / "teacher_outputs").iterdir()
    assert f"{store.relative_to(tmp_path)}: " in out


def test_ranks_need_a_launcher_that_can_start_them(tmp_path):
    line = ("-m", "trainer=ddp", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "seed=0")
    answer = kdzoo(*line, folder=tmp_path)
    assert answer.returncode == 1
    assert "needs hydra/launcher=basic, got joblib" in answer.stderr


# ---------------------------------------------------------------- mistakes


def test_mistakes_are_lines_without_a_traceback_and_leave_nothing(tmp_path):
    answer = kdzoo("distiler=dkd", "student.hiden=[3]", "seed=abc", "seeds=0,1", "data=mnits", folder=tmp_path)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert [line.startswith("kdzoo: ") for line in answer.stderr.splitlines()] == [True] * 5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("distiller.temperature=-1", "kdzoo: temperature must be finite and > 0, got -1\n"),
        ("optimizer.lr=-1", "kdzoo: cannot build torch.optim.Adam: Invalid learning rate: -1\n"),
        ("data.val_size=2.5", "val_size"),
        ("trainer.accelerator=abacus", "invalid accelerator name"),
        ("student.activation=rellu", "activation"),
    ],
)
def test_a_value_out_of_range_is_one_line_before_any_training(override, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, error = in_process(monkeypatch, capsys, override, *TINY)
    assert code == 2
    announcement, *lines = error.splitlines(keepends=True)
    assert announcement == "kdzoo: logit_kd on digits, from mlp to mlp\n"
    assert len(lines) == 1
    assert expected in lines[0]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_value_error_of_a_users_constructor_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "picky.py").write_text(
        "from kdzoo.distillers import LogitKD\n"
        "class Picky(LogitKD):\n"
        "    def __init__(self, student, teacher, *, width: int = 1, **options):\n"
        "        super().__init__(student, teacher, **options)\n"
        "        raise ValueError(f'width must be odd, got {width}')\n"
    )
    (tmp_path / "conf" / "distiller").mkdir(parents=True)
    (tmp_path / "conf" / "distiller" / "picky.yaml").write_text("_target_: picky.Picky\n")
    monkeypatch.chdir(tmp_path)
    line = ("--config-dir", "conf", "distiller=picky", "distiller.width=2", *TINY)
    code, _, error = in_process(monkeypatch, capsys, *line)
    assert code == 2
    assert error.splitlines()[1:] == ["kdzoo: cannot build picky.Picky: width must be odd, got 2"]


# ---------------------------------------------------------------- subcommands


def test_list_shows_packaged_and_own_distillers(own_distiller, monkeypatch, capsys):
    monkeypatch.chdir(own_distiller)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = in_process(monkeypatch, capsys, "list", "--config-dir", "conf")
    assert code == 0
    assert "my_dkd" in out
    assert "Match the teacher's softened probabilities" in out


def test_cite_names_what_is_used_even_where_values_are_missing(monkeypatch, capsys):
    code, out, _ = in_process(monkeypatch, capsys, "cite", "distiller=dkd", "data=arrays")
    assert code == 0
    assert out.startswith("@inproceedings{zhao2022decoupled,")
    assert "hinton" not in out


@pytest.mark.parametrize(("name", "entry"), [("dkd", "zhao2022decoupled"), ("hinton2015_mnist", "hinton2015distill")])
def test_cite_takes_the_name_of_a_method_or_an_experiment(name, entry, monkeypatch, capsys):
    code, out, _ = in_process(monkeypatch, capsys, "cite", name)
    assert code == 0
    assert f"{{{entry}" in out


def test_cite_takes_a_users_own_method_and_says_if_it_has_no_entry(own_distiller, monkeypatch, capsys):
    monkeypatch.chdir(own_distiller)
    code, out, error = in_process(monkeypatch, capsys, "cite", "--config-dir", "conf", "my_dkd")
    assert (code, out) == (0, ""), error
    assert error == "kdzoo: nothing to cite: the distiller declares no bibtex in its MethodInfo\n"


def test_evaluate_measures_an_exported_model_and_refuses_one_that_does_not_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert in_process(monkeypatch, capsys, *TINY)[0] == 0
    ((name, path),) = reports(tmp_path).items()
    code, out, _ = in_process(monkeypatch, capsys, "evaluate", f"outputs/{name}")
    measured, before = json.loads(out), json.loads(path.read_text())["student"]
    assert code == 0
    assert measured["parameters"] == before["parameters"]
    assert measured["metrics"] == {key: before["metrics"][key] for key in measured["metrics"]}
    numpy = pytest.importorskip("numpy")
    numpy.savez("wide.npz", x=numpy.zeros((20, 9), "float32"), y=numpy.arange(20) % 10)
    other = ("data=arrays", "data.train_file=wide.npz", "data.test_file=wide.npz", "data.batch_size=4")
    code, _, error = in_process(monkeypatch, capsys, "evaluate", f"outputs/{name}", *other)
    assert code == 2
    assert "model MLP cannot take an input of shape (8, 9)" in error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate"], "kdzoo evaluate needs the folder"),
        (["report"], "kdzoo report takes folders with finished runs, got none"),
        (["report", "conf", "seed=1"], "kdzoo report takes folders with finished runs, got conf seed=1"),
        (["report", "nowhere"], "kdzoo report nowhere: there is no such folder"),
        (["sweep"], "kdzoo sweep takes the folder of one sweep, got none"),
        (["sweep", "conf"], "conf is not the folder of a sweep"),
        (["evaluate", "nowhere"], "kdzoo evaluate nowhere: there is no such folder"),
        (["cite", "distiller=dkdd"], "did you mean 'dkd'?"),
        (["cite", "dkdd"], "did you mean 'dkd'?; it takes a distiller, an experiment or settings of a run"),
        (["docter"], "did you mean 'doctor'?"),
        (["doctor", "now"], "kdzoo doctor takes no arguments"),
        (["-sc", "query=bash"], "completion is asked for by the shell"),
    ],
)
def test_a_wrong_subcommand_is_one_line(arguments, expected, monkeypatch, capsys):
    monkeypatch.delenv("COMP_LINE", raising=False)
    code, _, error = in_process(monkeypatch, capsys, *arguments)
    assert code in (1, 2)
    assert expected in error
    assert len(error.splitlines()) == 1


def test_check_hands_over_the_configuration_and_the_names_that_may_be_built(own_distiller, monkeypatch, capsys):
    seen = {}

    def report_checks(cfg, *, allow=()):
        seen.update(target=cfg.distiller._target_, allow=set(allow))
        return False

    monkeypatch.setattr("kdzoo.contracts.report_checks", report_checks)
    monkeypatch.chdir(own_distiller)
    code, _, _ = in_process(monkeypatch, capsys, "check", "--config-dir", "conf", "distiller=my_dkd")
    assert (code, seen["target"]) == (1, "my_dkd.MyDKD")
    assert "my_dkd.MyDKD" in seen["allow"]


def test_the_worked_example_keeps_its_contract(own_distiller, monkeypatch, capsys):
    ranks_and_resume = {"resume", "data_parallel"}  # slow, and tried on every registered distiller
    kept = {name: one for name, one in contracts.CHECKS.items() if name not in ranks_and_resume}
    monkeypatch.setattr(contracts, "CHECKS", kept)
    monkeypatch.chdir(own_distiller)
    code, out, _ = in_process(monkeypatch, capsys, "--config-dir", "conf", "check", "distiller=my_dkd")
    assert code == 0, out
    assert out.count("passed") == len(kept)


def test_doctor_finds_this_installation_sound(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, _ = in_process(monkeypatch, capsys, "doctor")
    assert code == 0
    assert "smoke training: teacher, control and student" in out
    assert not list(tmp_path.iterdir())


def test_doctor_leaves_with_1_when_a_check_breaks(monkeypatch, capsys):
    def broken():
        raise RuntimeError("no luck")
        yield

    monkeypatch.setattr("kdzoo.cli.doctor.CHECKS", (broken,))
    code, out, _ = in_process(monkeypatch, capsys, "doctor")
    assert code == 1
    assert out == "fail  broken: RuntimeError: no luck\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_report_is_printed_in_every_encoding(encoding):
    code = (
        "import sys\n"
        "from kdzoo.cli import main\n"
        "from kdzoo.reports import terminal\n"
        "from tests.reports.example import report\n"
        "sys.argv = ['kdzoo', '--version']\n"
        "main.main()\n"
        "terminal.show(report())\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    answer = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)
    assert answer.returncode == 0, answer.stderr.decode()
    printed = answer.stdout.decode(encoding)
    assert ("accuracy \u2191" if encoding == "utf-8" else "accuracy ?") in printed
    assert "closes 80%" in " ".join(printed.split())


def test_an_interrupt_before_the_training_is_one_line(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_run_hydra", interrupted)
    assert in_process(monkeypatch, capsys, "seed=0") == (130, "", "kdzoo: interrupted\n")


def test_a_reader_that_leaves_early_is_no_error():
    code = "from kdzoo.cli.main import main; import sys; sys.argv = ['kdzoo', '--help']; main()"
    pipe = f'"{sys.executable}" -c "{code}" | head -n 1'
    answer = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert answer.stdout.startswith("kdzoo: distil a frozen teacher")
    assert answer.stderr == ""


def test_a_finished_run_is_shown_again_and_says_that_nothing_is_logged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert in_process(monkeypatch, capsys, *TINY)[0] == 0
    code, out, error = in_process(monkeypatch, capsys, *TINY)
    assert (code, error) == (0, "kdzoo: logit_kd on digits, from mlp to mlp\n")
    assert "accuracy" in out
    code, _, error = in_process(monkeypatch, capsys, *TINY, "logger=csv")
    assert (code, error.splitlines()[1:]) == (
        0,
        ["kdzoo: this run has finished before; nothing is trained, and nothing logged"],
    )
