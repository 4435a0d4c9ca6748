import jaxtyping
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function):
    """Under --jaxtyping-packages a wrong type is refused before the constructor can say so itself."""
    try:
        return (yield)
    except jaxtyping.TypeCheckError:
        if "refused" not in pyfuncitem.name:
            raise
        return pytest.skip("the runtime type checker was first")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a subclass of ``LanguageModelTests`` for each of the models that it builds."""
    if "model_name" in metafunc.fixturenames:
        assert metafunc.cls is not None
        metafunc.parametrize("model_name", list(metafunc.cls.build))
