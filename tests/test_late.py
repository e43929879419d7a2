"""What needs an extra is loaded by its first use, and says what to install where that is missing."""

from __future__ import annotations

import pickle
import sys

import pytest

from anykernel import AnyKernelError, MissingDependencyError
from anykernel._late import late, load


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Modules of the package: one that works, one that lacks a library, one that is broken itself."""
    import anykernel

    (tmp_path / "works.py").write_text("def answer(x, *, y=1):\n    '''The answer.'''\n    return x + y\n")
    (tmp_path / "lacks.py").write_text("import a_library_that_nobody_has.inside\n")
    (tmp_path / "broken.py").write_text("from anykernel import _no_such_module\nimport anykernel._no_such_module\n")
    monkeypatch.setattr(anykernel, "__path__", [*anykernel.__path__, str(tmp_path)])
    yield
    for name in ("works", "lacks", "broken"):
        sys.modules.pop(f"anykernel.{name}", None)


def test_a_late_function_is_loaded_by_its_first_call(package):
    answer = late("works", "answer", "extra")
    assert (answer.__name__, "anykernel.works.answer" in answer.__doc__) == ("answer", True)
    assert "anykernel.works" not in sys.modules
    assert answer(1, y=2) == 3
    assert "anykernel.works" in sys.modules


def test_a_missing_library_is_told_with_its_cure(package):
    with pytest.raises(MissingDependencyError, match=r"pip install 'anykernel-client\[extra\]'") as caught:
        late("lacks", "anything", "extra")()
    assert isinstance(caught.value, AnyKernelError)
    assert isinstance(caught.value, ImportError)
    assert caught.value.name == "a_library_that_nobody_has"
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy)) == (MissingDependencyError, str(caught.value))


def test_a_fault_of_the_package_itself_is_no_missing_extra(package):
    with pytest.raises(ImportError) as caught:
        load("broken", "extra")
    assert not isinstance(caught.value, MissingDependencyError)
