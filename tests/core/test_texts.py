"""What a person reads of a kernel: its displays and help, its errors, and what it says when it cannot start."""

from __future__ import annotations

import sys

import pytest

from anykernel import ExecutionError, KernelStartError, UnsupportedError, open_kernel

from ..helpers.zoo import installed

SHOWN = """
from IPython.display import HTML, JSON, SVG, GeoJSON, Latex, Markdown, Math, display
display(Markdown('# T'), Latex('$x$'), Math('y'), HTML('<b>h</b><script>x</script><style>p {}</style>'))
display(JSON({'a': [1]}), GeoJSON({'b': 2}), SVG("<svg xmlns='http://www.w3.org/2000/svg'/>"))
display({'text/html': '<div><script>' + 'x' * 1_000_000 + '</script></div>'}, raw=True)
import pandas
pandas.DataFrame({'a': [1, 2]})
"""

READ = """\
# T
$x$
$\\displaystyle y$
h
{"a": [1]}
{"b": 2}
<image/svg+xml>
<text/html>
   a
0  1
1  2"""


async def test_displays_read_as_what_they_show(kernel):
    outputs = []
    result = await kernel.execute(SHOWN, on_output=outputs.append)
    assert result.text == READ
    assert result.render() == READ
    assert "\n".join(output.plain for output in outputs) == READ


async def test_outputs_come_with_control_sequences_and_without(kernel):
    outputs = []
    await kernel.execute("print('\\x1b[1m 10%\\r100%\\x1b[0m')\n1 / 0", on_output=outputs.append)
    stream, error = outputs
    assert (stream.text, stream.plain) == ("\x1b[1m 10%\r100%\x1b[0m\n", "100%\n")
    assert "\x1b" in error.text
    assert error.plain.endswith("ZeroDivisionError: division by zero")


async def test_a_long_result_is_rendered_with_the_frames_that_failed(kernel):
    code = "print(*range(100_000), sep='\\n')\ndef outer(n):\n    return outer(n - 1) if n else 1 / 0\nouter(20)"
    result = await kernel.execute(code)
    short = result.render(2000)
    assert len(short) <= 2000
    assert short.startswith("0\n1\n")
    assert "characters left out" in short
    assert "in outer(n)" in short
    assert short.endswith("ZeroDivisionError: division by zero")


async def test_a_script_that_fails_by_run_is_shown_and_fails_nothing(kernel, tmp_path):
    (tmp_path / "failing.py").write_text("1 / 0\n")
    result = await kernel.execute(f"%run {tmp_path / 'failing.py'}", check=True)
    assert (result.ok, result.error) == (True, None)
    assert "ZeroDivisionError" in result.text
    assert [output["output_type"] for output in result.to_nbformat()] == ["error"]


async def test_xeus_names_errors_as_others_do_and_tells_nothing_of_its_use():
    async with installed("xeus-python").open() as kernel:
        for code in ("1 / 0", "class Bad:\n    def __repr__(self): return 1 / 0\nBad()"):
            with pytest.raises(ExecutionError, match=r"^ZeroDivisionError: division by zero$") as caught:
                await kernel.execute(code, check=True)
            assert caught.value.ename == caught.value.result.outputs[-1].ename == "ZeroDivisionError"
        with pytest.raises(UnsupportedError, match="does not tell what it uses"):  # all zeros
            await kernel.usage()
        assert "Return the number of items" in (await kernel.execute("len?")).text


async def test_errors_of_bash_can_be_read():
    async with installed("bash_kernel").open() as kernel:
        with pytest.raises(ExecutionError, match=r"^the code failed: 1$") as caught:
            await kernel.execute("false", check=True)
        assert caught.value.result.text == "the code failed: 1"


async def test_what_a_kernel_says_when_it_cannot_start_does_no_harm_to_a_terminal():
    said = "\x1b]0;title\x07\x1b[31mcannot\x1b[0m\x9b2J start\x00\n"
    argv = [sys.executable, "-c", f"import sys; sys.stderr.write({said!r}); sys.exit(3)", "{connection_file}"]
    with pytest.raises(KernelStartError) as caught:
        async with open_kernel(argv):
            pytest.fail("it does not start")
    assert str(caught.value).endswith("cannot2J start")
    assert not any(ord(character) < 32 and character != "\n" for character in str(caught.value))
    assert "\x1b[31m" in caught.value.stderr
