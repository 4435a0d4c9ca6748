"""Checks of the installation: what each finding depends on, and that one check cannot hide the others."""

from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

from kdzoo.cli import doctor


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("pytorch-lightning", "2.6.2", "malware"),
        ("pytorch-lightning", "2.6.3", "malware"),
        ("pytorch-lightning", "2.6.5", "older than 2.6.6"),
        ("pytorch-lightning", "3.0.0", "must be < 3"),
        ("hydra-core", "1.4.0.dev1", "pre-release"),
        ("omegaconf", "2.4.0rc1", "pre-release"),
        ("hydra-core", "1.3.2", "older than 1.3.8"),
        ("torch", "2.9.1+cpu", "older than 2.10"),
    ],
)
def test_doctor_fails_for_a_wrong_version(name, found, expected):
    right = {one: doctor._dotted(floor) for one, floor in doctor.MINIMUM_VERSIONS.items()}
    assert {status for status, _ in doctor.versions(right.__getitem__)} == {"ok"}
    findings = list(doctor.versions({**right, name: found}.__getitem__))
    assert [text for status, text in findings if status == "fail" and expected in text and name in text]


def test_doctor_names_a_second_lightning_and_a_missing_compiler(monkeypatch):
    assert next(doctor.second_lightning(lambda _: "2.5.0"))[0] == "warn"
    assert next(doctor.second_lightning(lambda _: "2.6.3"))[0] == "fail"
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    assert next(doctor.compiler())[0] == "warn"


def test_a_package_that_is_not_installed_is_a_failure():
    def installed(name):
        if name == "numpy":
            raise PackageNotFoundError(name)
        return version(name)

    failures = [text for status, text in doctor.versions(installed) if status == "fail"]
    assert failures == ["numpy is not installed; it must be >= 1.26"]


def test_without_a_second_lightning_all_is_well():
    def installed(name):
        raise PackageNotFoundError(name)

    assert list(doctor.second_lightning(installed)) == [("ok", "lightning is not installed beside pytorch-lightning")]


def test_a_system_without_a_limit_of_cores_has_those_of_the_machine(monkeypatch):
    monkeypatch.delattr(doctor.os, "sched_getaffinity")
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 64)
    assert "on 64 cores" in list(doctor.devices())[-1][1]


def test_more_threads_than_cores_are_a_warning(monkeypatch):
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert list(doctor.devices())[-1] == ("warn", "3 threads on 2 cores; set OMP_NUM_THREADS")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert list(doctor.devices())[-1] == ("ok", "2 threads on 2 cores")


def test_data_sets_are_found_in_the_folder_of_the_environment(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("KDZOO_DATA", str(tmp_path))
    assert ("ok", f"mnist: {tmp_path / 'mnist'}") in list(doctor.data_folders())
    monkeypatch.setenv("KDZOO_DATA", str(tmp_path / "nowhere"))
    assert next(doctor.data_folders()) == ("warn", f"KDZOO_DATA={tmp_path / 'nowhere'} is not a folder")


def test_a_folder_that_cannot_be_written_is_a_failure(monkeypatch, tmp_path):
    def denied(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.chdir(tmp_path)
    assert ("ok", f"{tmp_path} can be written") in list(doctor.writable_folders())
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", denied)
    assert ("fail", f"{tmp_path} cannot be written: Permission denied") in list(doctor.writable_folders())


def test_a_check_that_breaks_is_a_failure_and_the_others_still_run(monkeypatch, capsys):
    def broken():
        yield "ok", "so far"
        raise RuntimeError("no luck")

    def sound():
        yield "ok", "fine"

    monkeypatch.setattr(doctor, "CHECKS", (broken, sound))
    assert not doctor.diagnose()
    assert capsys.readouterr().out == "ok    so far\nfail  broken: RuntimeError: no luck\nok    fine\n"
    monkeypatch.setattr(doctor, "CHECKS", (sound,))
    assert doctor.diagnose()


@pytest.mark.parametrize(("text", "expected"), [("2.13.0+cpu", (2, 13, 0)), ("1.3.8", (1, 3, 8)), ("2.4.0rc1", (2, 4))])
def test_the_numbers_of_a_version(text, expected):
    assert doctor.numbers(text) == expected
