import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a subclass of ``LanguageModelTests`` for each of the models that it builds."""
    if "model_name" in metafunc.fixturenames:
        assert metafunc.cls is not None
        metafunc.parametrize("model_name", list(metafunc.cls.build))
