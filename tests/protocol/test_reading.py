"""Outputs as a person or a language model reads them: in the richest text there is, and in so many characters."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anykernel import ArgumentError, DisplayData, ErrorOutput, Stream
from anykernel._protocol.bundles import bundle_text

from ..helpers.strategies import quick, thorough
from .test_result import result_of

NOTE = re.compile(r"\[\.\.\. (\d+) characters left out \.\.\.\]\n")


def out(text):
    return Stream("stdout", text)


def lines(count, word="line"):
    return "".join(f"{word} {n}\n" for n in range(count))


def display(name):
    return f"<IPython.core.display.{name} object>"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"text/plain": display("JSON"), "application/json": {"é": [1, None, True]}}, '{"é": [1, null, true]}'),
        ({"text/plain": "<IPython.display.GeoJSON object>", "application/geo+json": {"a": 1}}, '{"a": 1}'),
        ({"text/plain": display("SVG"), "image/svg+xml": "<svg/>"}, "<image/svg+xml>"),
        ({"text/plain": display("Video"), "text/html": "<video src='data:...'>no</video>"}, display("Video")),
        ({"text/plain": display("Javascript"), "application/javascript": "x"}, "<application/javascript>"),
        ({"text/plain": "<__main__.f.<locals>.C object at 0x7f>", "text/markdown": "*m*"}, "*m*"),
        ({"text/plain": "<a.b.Styler at 0x7F>\n", "text/html": "<table><td>1<td>2</table>"}, "1 | 2"),
        ({"text/plain": display("Latex"), "text/latex": " ", "text/html": "h"}, "h"),
        # What says something stays, however rich the rest is.
        ({"text/plain": "<Figure size 640x480 with 1 Axes>", "image/png": ""}, "<Figure size 640x480 with 1 Axes>"),
        ({"text/plain": "  a\n0 1", "text/html": "<table><td>1</table>"}, "  a\n0 1"),
        ({"text/plain": "x**2", "text/latex": "$x^{2}$"}, "x**2"),
        ({"text/plain": "IntSlider(value=3)", "application/vnd.jupyter.widget-view+json": {}}, "IntSlider(value=3)"),
        ({"text/plain": "", "text/html": "<b>h</b>"}, ""),
        # Where there is no text of any kind.
        ({"text/plain": display("Image"), "image/png": "", "image/jpeg": ""}, "<image/png><image/jpeg>"),
        ({"text/html": "<script>x</script>"}, "<text/html>"),
        ({"text/x-rst": "*rst*", "image/png": ""}, "*rst*"),
        ({"text/javascript": "x()", "text/css": "p {}"}, "<text/javascript><text/css>"),
        ({"text/markdown": None, "text/html": 1, "text/plain": []}, "<text/markdown><text/html><text/plain>"),
        ({}, ""),
    ],
)
def test_a_bundle_is_read_in_the_richest_text_there_is(data, text):
    assert bundle_text(data) == text
    assert DisplayData(data).text == text


def test_json_that_nobody_could_read_is_named_and_nothing_worse():
    nested = {}
    for _ in range(100_000):
        nested = {"a": nested}
    try:
        assert result_of(DisplayData({"application/json": nested})).text == "<application/json>"
    finally:
        while nested:  # or the interpreter would free it level within level
            nested = nested["a"]


@pytest.mark.parametrize("start", ["<", "<a", "<a.", "<a object", "<a at 0x", "<a >"])
def test_time_to_read_a_text_grows_with_its_length_and_not_with_its_square(start):
    def seconds(count):
        begin = time.process_time()
        bundle_text({"text/plain": start + "a." * count, "text/html": "h"})
        return time.process_time() - begin

    assert min(seconds(80_000) for _ in range(2)) < 12 * max(0.002, min(seconds(20_000) for _ in range(2)))


# In so many characters.

TRACEBACK = ["---------", *(f"File {n}\n----> {n} call_{n}()\n" for n in range(20)), "ValueError: the last line"]


def test_of_a_long_text_both_ends_are_rendered_in_whole_lines_and_what_is_missing_is_said():
    text = lines(1000)
    short = result_of(out(text)).render(500)
    first, note, last = re.split(r"(\[.*\]\n)", short)
    assert text.startswith(first)
    assert text.endswith(last)
    assert first.endswith("\n")
    assert re.match(r"line \d+\n", last)
    assert 150 < len(first) < 250
    assert 150 < len(last) < 250
    assert int(NOTE.fullmatch(note)[1]) == len(text) - len(first) - len(last)


def test_the_last_frames_are_kept_before_anything_else():
    error = ErrorOutput("ValueError", "the last line", TRACEBACK)
    result = result_of(out(lines(1000)), error, out(lines(1000, "after")))
    for limit in (400, 200):
        short = result.render(limit)
        assert len(short) <= limit
        assert "File 19\n----> 19 call_19()\n\nValueError: the last line" in short
        assert "File 0" not in short
    short = result.render(2000)
    assert error.text in short  # all of them
    assert short.startswith("line 0\n")
    assert short.endswith("after 999\n")
    assert len(NOTE.findall(short)) == 2
    # Where it is the last output, what came before it is cut, once.
    short = result_of(out(lines(1000)), error).render(1000)
    assert short.endswith(error.text)
    assert len(NOTE.findall(short)) == 1
    assert short.startswith("line 0\n")


def test_only_so_many_frames_are_kept_as_there_is_room_for_and_none_is_cut():
    short = result_of(ErrorOutput("ValueError", "v", [f"\x1b[31m{item}\x1b[0m" for item in TRACEBACK])).render(300)
    kept = re.findall(r"^File (\d+)\n----> \1 call_\1\(\)$", short, re.MULTILINE)
    assert kept == [str(n) for n in range(20 - len(kept), 20)]
    assert len(kept) > 4


def test_of_a_last_line_that_is_too_long_its_beginning_is_kept():
    result = result_of(out(lines(100)), ErrorOutput("ValueError", "", ["frame", f"ValueError: {'x' * 1000}"]))
    assert "ValueError: xxx" in result.render(200)
    assert result.render(30).startswith("[...]ValueError: xxx")


def test_a_bound_is_kept_that_leaves_no_room_for_words():
    result = result_of(out(lines(100)))
    assert [result.render(limit) for limit in (1, 3, 5, 6, 8)] == ["[", "[..", "[...]", "l[...]", "li[...]\n"]
    assert result.render(60).count("[...]") == 1


pieces = st.text("ab \n", max_size=300)


@given(
    st.lists(pieces | pieces.map(lambda text: ErrorOutput("E", "v", text.split(" "))), max_size=4),
    st.integers(1, 400),
)
@example([ErrorOutput("E", "v", ["", "", ""]), "a" * 100], 40)
@thorough
def test_nothing_is_rendered_longer_than_asked_for_and_what_is_left_out_is_counted(parts, limit):
    result = result_of(*(out(part) if isinstance(part, str) else part for part in parts))
    text, short = result.text, result.render(limit)
    assert len(short) <= limit
    if len(text) <= limit:
        assert short == text
        return
    assert "[..." in short or limit < 5
    if notes := NOTE.findall(short):
        kept = NOTE.split(short)[::2]
        # A line that is cut ends before the note.
        missing = sum(map(int, notes))
        assert len(text) - missing <= sum(map(len, kept)) <= len(text) - missing + len(notes)


@pytest.mark.parametrize("wrong", [0, -1, 1.0, "10", True, np.float32(3), float("nan")])
def test_nonsense_is_no_number_of_characters(wrong):
    with pytest.raises(ArgumentError, match="max_chars must be None or a positive integer"):
        result_of(out("x")).render(wrong)
    assert result_of(out("xyz" * 10)).render(np.int64(8)) == "xy[...]z"


@given(st.lists(pieces, max_size=3))
@quick
def test_without_a_bound_all_is_rendered(parts):
    result = result_of(*map(out, parts))
    assert result.render() == result.text == result.render(10**9)
