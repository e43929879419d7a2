"""Results: what a caller reads of an execution's outputs and reply, as text, images, errors or a notebook's outputs."""

from __future__ import annotations

import base64
import json
import pickle
import re
import time

import nbformat
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anykernel import (
    ArgumentError,
    DisplayData,
    ErrorOutput,
    ExecuteResult,
    ExecutionAbortedError,
    ExecutionError,
    Result,
    Stream,
)
from anykernel._protocol.fold import OutputFold
from anykernel._protocol.outputs import parse_output
from anykernel._protocol.result import Record
from anykernel._protocol.text import terminal_text

from ..helpers.strategies import json_objects, json_values, quick, texts, thorough

LIMIT = 2**20
PNG = b"\x89PNG\r\n\x1a\n picture"
ERROR = {"status": "error", "ename": "ValueError", "evalue": "no", "traceback": ["one", "two"]}


def result_of(*outputs, limit=LIMIT, reply=None):
    fold = OutputFold(limit)
    for output in outputs:
        fold.add(output, 10)
    record = Record(fold)
    record.reply = reply or {}
    return Result("the id", record)


def out(text, name="stdout"):
    return Stream(name, text)


def shown(text, mime="text/plain"):
    return DisplayData({mime: text})


# What the reply says.


@pytest.mark.parametrize("status", ["ok", "error", "aborted"])
def test_the_status_is_the_replys(status):
    result = result_of(reply={"status": status})
    assert result.status == status
    assert result.ok == (status == "ok")


@pytest.mark.parametrize("reply", [{}, {"status": "strange"}, {"status": None}, {"status": []}])
def test_there_is_no_status_without_a_reply_that_has_one(reply):
    result = result_of(reply=reply)
    assert result.status is None
    assert not result.ok
    assert result.raise_for_error() is result


def test_a_new_result_is_empty_and_incomplete():
    result = result_of()
    assert (result.outputs, result.stdout, result.stderr, result.text) == ([], "", "", "")
    assert (result.data, result.images, result.error, result.user_expressions, result.payload) == ({}, [], None, {}, [])
    assert (result.complete, result.truncated, result.duration, result.execution_count) == (False, False, None, None)
    assert (result.msg_id, result.to_nbformat()) == ("the id", [])


def test_raise_for_error_returns_the_result_of_code_that_ran_to_its_end():
    result = result_of(out("warning", "stderr"), reply={"status": "ok"})
    assert result.raise_for_error() is result


def test_raise_for_error_raises_what_the_code_raised_with_the_result():
    result = result_of(out("before"), reply=ERROR)
    with pytest.raises(ExecutionError, match="ValueError: no") as caught:
        result.raise_for_error()
    assert (caught.value.ename, caught.value.evalue, caught.value.traceback) == ("ValueError", "no", ["one", "two"])
    assert caught.value.result is result


def test_raise_for_error_says_that_aborted_code_never_ran():
    result = result_of(reply={"status": "aborted"})
    with pytest.raises(ExecutionAbortedError, match="never ran") as caught:
        result.raise_for_error()
    assert caught.value.result is result


def test_the_error_is_the_replys():
    assert result_of(reply=ERROR).error == ErrorOutput("ValueError", "no", ["one", "two"])
    assert result_of(reply={"status": "error"}).error == ErrorOutput("Error", "", [])


def test_the_error_is_the_last_that_was_published_while_there_is_no_reply():
    first, second = ErrorOutput("A", "1", []), ErrorOutput("B", "2", [])
    assert result_of(first, second, out("after")).error == second


def test_user_expressions_and_payload_are_the_replys():
    expressions = {"a": {"status": "ok", "data": {"text/plain": "1"}}}
    payload = [{"source": "ask_exit"}]
    result = result_of(reply={"status": "ok", "user_expressions": expressions, "payload": payload})
    assert (result.user_expressions, result.payload) == (expressions, payload)


@given(json_values, json_values)
@example([1], {"a": 1})
@quick
def test_user_expressions_are_an_object_and_payload_a_list_whatever_the_kernel_sends(expressions, payload):
    result = result_of(reply={"status": "ok", "user_expressions": expressions, "payload": payload})
    assert isinstance(result.user_expressions, dict)
    assert isinstance(result.payload, list)


# Outputs by kind.


def test_stdout_and_stderr_are_apart_and_whole():
    result = result_of(out("a"), out("b", "stderr"), shown("c"), out("d"), out("e", "stderr"))
    assert (result.stdout, result.stderr) == ("ad", "be")


def test_stdout_is_as_it_was_written():
    assert result_of(out("\x1b[31ma\x1b[0m\rb\b")).stdout == "\x1b[31ma\x1b[0m\rb\b"


def test_data_is_the_mime_bundle_of_the_last_expressions_value():
    value = ExecuteResult({"text/plain": "1", "text/html": "<b>1</b>"}, {}, 1)
    assert result_of(ExecuteResult({"text/plain": "0"}), value, shown("2")).data == value.data


def test_truncated_says_whether_the_limit_dropped_something():
    assert not result_of(out("x" * 100), limit=100).truncated
    assert result_of(out("x" * 101), limit=100).truncated


def encoded(data):
    return base64.encodebytes(data).decode()


def test_images_are_decoded_in_order_one_for_each_output():
    result = result_of(
        DisplayData({"image/jpeg": encoded(b"jpeg"), "image/png": encoded(PNG), "text/plain": "<Figure>"}),
        shown("no image"),
        DisplayData({"image/svg+xml": "<svg>é</svg>"}),
        out("text"),
        ExecuteResult({"image/webp": encoded(b"webp" * 100)}),
        DisplayData({"image/gif": encoded(b"gif")}),
    )
    assert result.images == [PNG, "<svg>é</svg>".encode(), b"webp" * 100, b"gif"]


@pytest.mark.parametrize("broken", ["a", "é", "\ud800", None, 7, ["aa=="], {}])
def test_an_image_that_cannot_be_decoded_is_passed_over_for_another_form_of_it(broken):
    assert result_of(DisplayData({"image/png": broken, "image/svg+xml": "<svg/>"})).images == [b"<svg/>"]
    assert result_of(DisplayData({"image/png": broken, "image/gif": encoded(b"gif")})).images == [b"gif"]
    assert result_of(DisplayData({"image/png": broken})).images == []


# Text.


def test_text_is_all_output_in_order_with_each_on_lines_of_its_own():
    result = result_of(
        out("a"),
        out("b\n", "stderr"),
        out("no newline"),
        shown("display"),
        ExecuteResult({"text/plain": "value"}),
        out("more\n"),
        ErrorOutput("E", "v", ["Traceback", "E: v"]),
    )
    assert result.text == "a\nb\nno newline\ndisplay\nvalue\nmore\nTraceback\nE: v"


def test_text_takes_the_form_that_reads_best():
    html, markdown = {"text/html": "<b>h</b>"}, {"text/markdown": "**m**"}
    assert result_of(DisplayData({**html, **markdown, "text/plain": "p"})).text == "p"
    assert result_of(DisplayData({**html, **markdown})).text == "**m**"
    assert result_of(DisplayData(html)).text == "h"
    assert result_of(DisplayData({"image/png": "aaaa", "a/b": 1})).text == "<image/png><a/b>"
    assert result_of(DisplayData({"text/plain": 7, "text/html": "h"})).text == "h"


def test_an_error_without_traceback_reads_as_name_and_value():
    assert result_of(ErrorOutput("ValueError", "no", [])).text == "ValueError: no"


def test_text_says_how_much_is_missing_and_where():
    result = result_of(out("h" * 50 + "m" * 1234 + "t" * 50), limit=100)
    assert result.text == "h" * 50 + "\n[... 1234 bytes of output left out ...]\n" + "t" * 50


def test_text_says_what_is_missing_before_a_display_too():
    result = result_of(*(shown(str(number)) for number in range(10)), limit=40)
    assert result.text.splitlines() == ["0", "1", "[... 60 bytes of output left out ...]", "8", "9"]


def test_text_says_what_is_missing_at_the_end_too():
    image = DisplayData({"image/png": "large"})
    for result in (result_of(image, limit=8), result_of(shown("small"), image, limit=20 - 1)):
        assert "10 bytes of output left out" in result.text
        # And so does a notebook.
        told = {"output_type": "stream", "name": "stderr", "text": "[... 10 bytes of output left out ...]\n"}
        assert told in result.to_nbformat()


def test_every_output_has_a_text():
    outputs = (out("a"), DisplayData({"text/plain": "b"}), ExecuteResult({"text/html": "c"}), ErrorOutput("D", "d", []))
    assert [output.text for output in outputs] == ["a", "b", "c", "D: d"]
    assert DisplayData({"image/png": "", "x/y": 1}).text == "<image/png><x/y>"


def test_images_tell_their_type():
    encoded = base64.b64encode(PNG).decode()
    result = result_of(DisplayData({"image/png": encoded}), DisplayData({"image/svg+xml": "<svg/>"}))
    assert [(image, image.mime) for image in result.images] == [(PNG, "image/png"), (b"<svg/>", "image/svg+xml")]
    assert pickle.loads(pickle.dumps(result.images[0])).mime == "image/png"


def test_a_progress_bar_reads_as_its_last_state():
    bar = "".join(f"\r{n:3}%|{'#' * (n // 10):<10}| {n}/100 [00:0{n // 20}<00:01]" for n in range(0, 101, 10))
    result = result_of(*(out(part, "stderr") for part in re.split("(?=\r)", bar)), out("\n", "stderr"), out("done\n"))
    assert result.text == "100%|##########| 100/100 [00:05<00:01]\ndone\n"


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("working |\b/\b-\b\\\bdone", "working done"),
        ("secret\b\b\b\b\b\b******", "******"),
        ("abc\b \b", "ab "),
        ("\b\b\ba", "a"),
        ("long line\rshort", "shortline"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("a\r\r\nb", "a\nb"),
        ("\r", ""),
        ("1\r2\n3\r4", "2\n4"),
        ("é€😀\rx", "x€😀"),
    ],
)
def test_carriage_returns_and_backspaces_are_carried_out(written, seen):
    assert terminal_text(written) == seen
    assert result_of(out(written)).text == seen


ERASURES = ("\x1b[K", "\x1b[0K", "\x1b[1K", "\x1b[2K")
VERTICAL = ("\x1b[A", "\x1b[2A", "\x1b[1B")


@given(st.lists(st.sampled_from(["a", "bc", "\r", "\b", "\b\b\b", "\n", *ERASURES, *VERTICAL]), max_size=30))
@thorough
def test_movements_and_erasures_do_what_they_do_in_a_terminal(parts):
    lines, row, column = [[]], 0, 0
    for character in (character for part in parts for character in ([part] if part[0] == "\x1b" else part)):
        line = lines[row]
        if character == "\n":
            row, column = row + 1, 0
            if row == len(lines):
                lines.append([])
        elif character in VERTICAL:
            count = int(character[2:-1] or 1)
            row = max(0, row - count) if character[-1] == "A" else min(row + count, len(lines) - 1)
        elif character == "\r":
            column = 0
        elif character == "\b":
            column = max(0, column - 1)
        elif character in ERASURES:
            start, end = {"1": (0, column + 1), "2": (0, len(line))}.get(character[2], (column, len(line)))
            line[start:end] = " " * (min(end, len(line)) - start)
        else:
            line.extend(" " * (column - len(line)))
            line[column : column + 1] = character
            column += 1
    shown = terminal_text("".join(parts)).split("\n")
    # What was erased at the end of a line may be there as blanks, or not.
    assert [line.rstrip() for line in shown] == ["".join(line).rstrip() for line in lines]


@pytest.mark.parametrize("repeated", ["\x1b[1Ky", "\x1b[2Ky", "y\x1b[1K", "\b\x1b[Ky", "\ry\x1b[2K"])
def test_a_line_with_many_erasures_takes_time_in_proportion_to_its_length(repeated):
    started = time.process_time()
    terminal_text("x" * 500_000 + repeated * 50_000)
    assert time.process_time() - started < 5  # a minute and more if each looked at the line


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("Downloading 100%\r\x1b[2KDone", "Done"),
        ("Downloading 100%\x1b[2K\rDone", "Done"),
        ("Downloading 100%\r\x1b[KDone", "Done"),
        ("Downloading 100%\r\x1b[0KDone\n", "Done\n"),
        # Nested bars, as tqdm writes them: the inner one is one line further down.
        ("outer 0\n\rinner 0\x1b[A\n\rinner 1\x1b[A\router 1\n\n", "outer 1\ninner 1\n"),
        ("a\nb\nc\x1b[2A\rA\x1b[9B\rC\nend", "A\nb\nC\nend"),
        ("only\x1b[99Aone\x1b[B line", "onlyone line"),
    ],
)
def test_what_a_progress_line_erases_is_gone(written, seen):
    assert terminal_text(written) == seen


ansi_parts = [
    "\x1b[0m",
    "\x1b[1;38;5;196m",
    "\x1b[38:2::1:2:3m",
    "\x1b[?25l",
    "\x1b[10;10H",
    "\x1b[ q",
    "\x1b]0;title\x07",
    "\x1b]8;;http://example.org\x1b\\",
    "\x1bM",
]
plain = st.text(st.characters(exclude_characters="\x1b\r\b"), max_size=10)


@given(st.lists(plain | st.sampled_from(ansi_parts), max_size=10))
@thorough
def test_ansi_sequences_leave_no_trace(parts):
    written = "".join(parts)
    assert terminal_text(written) == "".join(part for part in parts if not part.startswith("\x1b"))


@pytest.mark.parametrize(
    "sequence", ["\x1b(B", "\x1b7", "\x1b8", "\x1b=", "\x1b>", "\x1bc", "\x1b#8", "\x1bPq#0\x1b\\"]
)
def test_escapes_of_other_kinds_leave_no_trace(sequence):
    # `tput sgr0` writes the first of them.
    assert terminal_text(f"a{sequence}b") == "ab"


@given(st.lists(texts | st.sampled_from([*ansi_parts, "\x1b[3", "\x1b]0;t", "\x1bP", "\x1b"]), max_size=8))
@example(["\x1b"])
@quick
def test_no_escape_character_is_ever_left_in_the_text(parts):
    assert "\x1b" not in result_of(out("".join(parts)), shown("".join(parts)), limit=100).text


# Arbitrary outputs.

mime_types = texts | st.sampled_from(
    ["text/plain", "text/html", "image/png", "image/svg+xml", "application/json", "application/x+json", "text/json"]
)
counts = st.none() | st.integers() | st.booleans() | texts
bundles = st.fixed_dictionaries(
    {"data": st.dictionaries(mime_types, json_values, max_size=4)},
    optional={"metadata": json_objects, "execution_count": counts},
)
errors = st.fixed_dictionaries(
    {}, optional={"ename": json_values, "evalue": json_values, "traceback": st.lists(texts) | json_values}
)
messages = (
    st.tuples(st.just("stream"), st.fixed_dictionaries({"text": texts}, optional={"name": texts}))
    | st.tuples(st.sampled_from(["display_data", "execute_result"]), bundles)
    | st.tuples(st.just("error"), errors)
)
replies = st.just({"status": "ok"}) | errors.map(lambda error: {"status": "error", **error})
results = st.builds(
    lambda messages, limit, reply: result_of(
        *(parse_output(*message) for message in messages), limit=limit, reply=reply
    ),
    st.lists(messages, max_size=5),
    st.sampled_from([30, LIMIT]),
    replies,
)


def as_notebook(result):
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.from_dict(output) for output in result.to_nbformat()])
    return nbformat.v4.new_notebook(cells=[cell])


def with_count(count):
    return result_of(parse_output("execute_result", {"data": {}, "execution_count": count}))


@given(results)
@example(with_count(-1))
@example(with_count(True))
@quick
def test_to_nbformat_is_valid_for_nbformat_itself_whatever_the_outputs(result):
    nbformat.validate(as_notebook(result), relax_add_props=False)


def test_to_nbformat_keeps_what_each_output_holds():
    result = result_of(
        out("text", "stderr"),
        DisplayData({"text/plain": "p", "application/json": {"a": [1]}}, {"m": 1}, "id"),
        ExecuteResult({"application/vnd.x+json": [1], "text/html": "h"}, {}, 7),
        ErrorOutput("E", "v", ["t"]),
    )
    assert result.to_nbformat() == [
        {"output_type": "stream", "name": "stderr", "text": "text"},
        {
            "output_type": "display_data",
            "data": {"text/plain": "p", "application/json": {"a": [1]}},
            "metadata": {"m": 1},
        },
        {
            "output_type": "execute_result",
            "data": {"application/vnd.x+json": [1], "text/html": "h"},
            "metadata": {},
            "execution_count": 7,
        },
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]},
    ]


def test_to_nbformat_writes_as_json_what_may_only_be_text():
    (output,) = result_of(DisplayData({"text/plain": {"a": 1}, "image/png": None})).to_nbformat()
    assert output["data"] == {"text/plain": '{"a": 1}', "image/png": "null"}


@given(results)
@example(result_of(DisplayData({"application/json": "\ud800"})))
@example(result_of(DisplayData({"\ud800": ""})))
@example(result_of(DisplayData({}, {"a": "\ud800"})))
@example(result_of(Stream("\ud800", "")))
@quick
def test_to_nbformat_can_be_written_to_a_file(result):
    json.dumps(result.to_nbformat(), ensure_ascii=False).encode()


@given(results)
@example(result_of(out("\ud800"), shown("\udfff"), ErrorOutput("\ud800", "\ud800", ["\ud800"])))
@quick
def test_text_can_always_be_written_to_a_file(result):
    result.text.encode()
    repr(result).encode()


@given(results)
@quick
def test_every_property_can_be_read_whatever_the_outputs(result):
    assert all(isinstance(image, bytes) for image in result.images)
    assert isinstance(result.data, dict)
    assert isinstance(result.stdout + result.stderr, str)
    assert result.truncated == (result._record.fold.dropped > 0)
    if result.status == "error":
        assert isinstance(result.error, ErrorOutput)
        with pytest.raises(ExecutionError):
            result.raise_for_error()


def test_a_result_shows_status_count_and_the_beginning_of_its_text():
    result = result_of(out("x" * 100), reply={"status": "ok"})
    result._record.execution_count = 3
    assert repr(result) == f"<Result ok [3] '{'x' * 57}...'>"
    assert repr(result_of(out("short"))) == "<Result partial [None] 'short'>"


def test_an_object_that_has_no_text_of_its_own_is_read_in_the_richest_form_there_is():
    display = "<IPython.core.display.{} object>"
    for data, text in (
        ({"text/plain": display.format("Markdown"), "text/markdown": "# T"}, "# T"),
        ({"text/plain": display.format("Latex"), "text/latex": "$x$"}, "$x$"),
        ({"text/plain": display.format("HTML"), "text/html": "<script>x</script><b>seen</b>"}, "seen"),
        ({"text/plain": display.format("JSON"), "application/json": {"a": [1]}}, '{"a": [1]}'),
        ({"text/plain": display.format("Image"), "image/png": "aGk="}, "<image/png>"),
        ({"text/plain": "<__main__.Thing at 0x7f00>", "text/html": "<i>rich</i>"}, "rich"),
        ({"text/plain": "<__main__.Thing at 0x7f00>"}, "<__main__.Thing at 0x7f00>"),
        ({"text/plain": "   a\n0  1", "text/html": "<table></table>"}, "   a\n0  1"),
        (
            {"application/vnd.plotly.v1+json": {}, "text/html": f"<div><script>{'x' * 5_000_000}</script></div>"},
            "<application/vnd.plotly.v1+json>",
        ),
    ):
        assert result_of(DisplayData(data)).text == text
        assert DisplayData(data).plain == text


def test_outputs_have_their_text_raw_and_as_a_terminal_would_show_it():
    assert (out("\x1b[1m 10%\r100%").text, out("\x1b[1m 10%\r100%").plain) == ("\x1b[1m 10%\r100%", "100%")
    error = ErrorOutput("E", "v", ["\x1b[31mline"])
    assert (error.text, error.plain) == ("\x1b[31mline", "line")


def test_an_error_that_was_only_shown_is_an_output_and_not_the_results():
    shown_error = ErrorOutput("ValueError", "shown", ["t"])
    result = result_of(shown_error, reply={"status": "ok"})
    assert (result.ok, result.error, result.outputs) == (True, None, [shown_error])
    assert result.raise_for_error() is result
    reply = {"status": "error", "ename": "NoneType", "evalue": "None"}
    published = ErrorOutput("ZeroDivisionError", "division by zero", ["t"])
    assert result_of(shown_error, published, reply=reply).error == published
    with pytest.raises(ExecutionError, match="ZeroDivisionError"):
        result_of(published, reply=reply).raise_for_error()
    interrupted = {"status": "error", "ename": "KeyboardInterrupt", "evalue": ""}
    assert result_of(shown_error, reply=interrupted).error.ename == "KeyboardInterrupt"
    assert result_of(published).error == published  # no reply yet


@pytest.mark.parametrize(
    ("ename", "evalue", "text"), [("", "1", "the code failed: 1"), ("", "", "the code failed"), ("E", "", "E")]
)
def test_errors_without_a_name_or_value_can_be_read(ename, evalue, text):
    assert ErrorOutput(ename, evalue, []).text == text
    assert str(ExecutionError(ename, evalue, [])) == text


def test_a_result_is_rendered_in_so_many_characters_with_its_ends():
    text = "".join(f"line {n}\n" for n in range(1000))
    result = result_of(out(text))
    assert result.render() == result.render(10**6) == text
    for limit in (1, 10, 50, 100, 1000, 5000):
        short = result.render(limit)
        assert 0 < len(short) <= limit
    short = result.render(500)
    assert short.startswith("line 0\n")
    assert short.endswith("line 999\n")
    left_out = int(re.search(r"\[\.\.\. (\d+) characters left out \.\.\.\]", short)[1])
    assert len(short.replace(f"[... {left_out} characters left out ...]\n", "")) + left_out == len(text)
    failed = result_of(out(text), ErrorOutput("E", "last", ["frame\n" * 50, "E: last"]), reply=ERROR)
    assert "E: last" in failed.render(60)
    assert failed.render(1000).count("frame") >= 40
    for wrong in (0, -1, 1.5, "10", True):
        with pytest.raises(ArgumentError):
            result.render(wrong)


# What a notebook shows.


def shown_of(*outputs, **kwargs):
    return result_of(*outputs, **kwargs)._repr_mimebundle_(include=None, exclude=None)


def test_a_notebook_shows_a_result_without_output_by_its_repr():
    assert shown_of() == ({}, {})


def test_a_notebook_shows_text_with_its_colours():
    error = ErrorOutput("E", "no", ["\x1b[31mone", "two\x1b[0m"])
    data, metadata = shown_of(out("a"), ExecuteResult({"text/plain": "1"}), out("\rb\n"), error)
    assert (data, metadata) == ({"text/plain": "a\n1b\n\x1b[31mone\ntwo\x1b[0m"}, {})


def test_a_notebook_shows_what_stands_alone_as_it_is_but_no_widget_of_another_kernel():
    data = {"text/plain": "<F>", "image/png": "aGk=", "application/vnd.plotly.v1+json": {"data": []}}
    metadata = {"image/png": {"width": 3}}
    assert shown_of(DisplayData(data, metadata)) == (data, metadata)
    widget = {"text/plain": "IntSlider()", "application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    assert shown_of(ExecuteResult(widget)) == ({"text/plain": "IntSlider()"}, {})
    assert shown_of(DisplayData({**data, **widget}))[0] == {**data, "text/plain": "IntSlider()"}


def test_a_notebook_shows_several_outputs_below_each_other():
    result = result_of(
        out("<a>"),
        out("warning", "stderr"),
        shown("<b>bold</b>", "text/html"),
        DisplayData({"text/plain": "<F>", "image/png": "aGk="}, {"image/png": {"width": 30, "height": "'>"}}),
        shown("<svg/>", "image/svg+xml"),
        shown("# title", "text/markdown"),
        ErrorOutput("E", "<no>", []),
    )
    data, metadata = result._repr_mimebundle_()
    assert (data["text/plain"], metadata) == (result.text, {})
    first, warning, bold, png, svg, markdown, error = data["text/html"].split("\n<")
    assert first == "<pre>&lt;a&gt;</pre>"
    assert warning.startswith("pre style=")
    assert warning.endswith(">warning</pre>")
    assert bold == "div><b>bold</b></div>"
    assert png == 'img src="data:image/png;base64,aGk=" width="30">'
    assert svg.startswith('img src="data:image/svg+xml;base64,')
    assert markdown == "pre># title</pre>"
    assert "E: &lt;no&gt;" in error


def test_a_notebook_is_told_what_the_limit_cost():
    data, _ = shown_of(*(out(f"{i}" * 50, name) for i in range(9) for name in ("stdout", "stderr")), limit=200)
    assert "left out" in data["text/plain"]
