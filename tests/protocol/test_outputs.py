"""Outputs: typed, folded as a front end shows them, and bounded in memory whatever comes."""

from __future__ import annotations

import gc
import itertools
import time
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anykernel import DisplayData, ErrorOutput, ExecuteResult, ProtocolError, Stream
from anykernel._protocol.displays import Displays
from anykernel._protocol.fold import OutputFold
from anykernel._protocol.outputs import parse_output

from ..helpers.strategies import json_objects, json_values, texts, thorough

LIMIT = 2**20

names = st.sampled_from(["stdout", "stderr"])


def utf8_size(text):
    return len(text.encode("utf-8", "surrogatepass"))


def out(text, name="stdout"):
    return Stream(name, text)


def shown(text, display_id=None):
    return DisplayData({"text/plain": text}, {}, display_id)


def fold_of(*outputs, limit=LIMIT):
    fold = OutputFold(limit)
    for output in outputs:
        fold.add(output, 10)
    return fold


def stdout(fold):
    return "".join(output.text for output in fold.outputs if isinstance(output, Stream))


# Messages become typed outputs.


def test_messages_become_typed_outputs():
    stream = {"name": "stderr", "text": "oh"}
    assert parse_output("stream", stream) == Stream("stderr", "oh")
    display = {"data": {"text/plain": "1"}, "metadata": {"a": 1}, "transient": {"display_id": "id"}}
    assert parse_output("display_data", display) == DisplayData({"text/plain": "1"}, {"a": 1}, "id")
    assert parse_output("update_display_data", display) == DisplayData({"text/plain": "1"}, {"a": 1}, "id")
    result = {**display, "execution_count": 3}
    assert parse_output("execute_result", result) == ExecuteResult({"text/plain": "1"}, {"a": 1}, 3, "id")
    error = {"ename": "ValueError", "evalue": "no", "traceback": ["one", "two"]}
    assert parse_output("error", error) == ErrorOutput("ValueError", "no", ["one", "two"])


@pytest.mark.parametrize(
    "ename", ["KeyError", "<class 'KeyError'>", "<class 'a.b.KeyError'>", "<class '__main__.f.<locals>.KeyError'>"]
)
def test_an_error_is_named_as_its_class_is(ename):
    assert parse_output("error", {"ename": ename, "evalue": "'x'"}) == ErrorOutput("KeyError", "'x'", [])


@pytest.mark.parametrize("transient", [None, {}, {"display_id": None}, {"display_id": 7}])
def test_a_display_without_an_id_that_is_text_has_none(transient):
    assert parse_output("display_data", {"data": {}, "metadata": {}, "transient": transient}) == DisplayData({})


def test_fields_that_kernels_leave_out_have_defaults():
    assert parse_output("stream", {"text": "a"}) == Stream("stdout", "a")
    assert parse_output("display_data", {"data": {"a": "b"}}) == DisplayData({"a": "b"}, {}, None)
    assert parse_output("execute_result", {"data": {}}) == ExecuteResult({}, {}, None, None)
    assert parse_output("error", {"ename": "E"}) == ErrorOutput("E", "", [])


@pytest.mark.parametrize(
    ("msg_type", "content"),
    [
        ("stream", {}),
        ("stream", {"name": "stdout"}),
        ("stream", {"name": "stdout", "text": None}),
        ("stream", {"name": 1, "text": "a"}),
        ("display_data", {}),
        ("display_data", {"data": None}),
        ("update_display_data", {"data": "text"}),
        ("execute_result", {"data": []}),
    ],
)
def test_a_message_without_what_makes_it_an_output_breaks_the_protocol(msg_type, content):
    with pytest.raises(ProtocolError):
        parse_output(msg_type, content)


output_types = ["stream", "display_data", "update_display_data", "execute_result", "error"]
known_fields = ["name", "text", "data", "metadata", "transient", "execution_count", "ename", "evalue", "traceback"]
any_content = json_objects | st.dictionaries(st.sampled_from(known_fields), json_values | json_objects, max_size=9)


@given(st.sampled_from(output_types), any_content)
@example("display_data", {"data": {}, "transient": [1]})
@example("execute_result", {"data": {}, "transient": "text"})
@thorough
def test_arbitrary_content_gives_a_well_typed_output_or_a_protocol_error(msg_type, content):
    try:
        output = parse_output(msg_type, content)
    except ProtocolError:
        return
    if isinstance(output, Stream):
        assert isinstance(output.name, str)
        assert isinstance(output.text, str)
    elif isinstance(output, ErrorOutput):
        assert isinstance(output.ename, str)
        assert isinstance(output.evalue, str)
        assert all(isinstance(line, str) for line in output.traceback)
    else:
        assert isinstance(output.data, dict)
        assert isinstance(output.metadata, dict)
        assert output.display_id is None or isinstance(output.display_id, str)


# Folding.


def test_adjacent_text_of_one_stream_is_one_output():
    fold = fold_of(out("a"), out("b"), out("c", "stderr"), out("d"), out("e"))
    assert fold.outputs == [out("ab"), out("c", "stderr"), out("de")]


def test_text_around_another_output_stays_apart():
    assert fold_of(out("a"), shown("x"), out("b")).outputs == [out("a"), shown("x"), out("b")]


def test_reading_the_outputs_between_two_pieces_of_text_changes_nothing():
    fold = fold_of(out("a"), out("b"))
    assert fold.outputs == [out("ab")]
    fold.add(out("c"), 1)
    assert fold.outputs == [out("abc")]


def test_clear_forgets_everything_at_once():
    fold = fold_of(out("a"), shown("b", "id"))
    fold.clear()
    assert fold.outputs == []
    assert list(fold._displays) == []
    assert not fold.update("id", {}, {}, 1)
    fold.add(out("c"), 1)
    assert fold.outputs == [out("c")]


def test_clear_with_wait_forgets_everything_when_the_next_output_comes():
    fold = fold_of(out("a"), shown("b", "id"))
    fold.clear(wait=True)
    assert fold.outputs == [out("a"), shown("b", "id")]
    fold.add(out("c"), 1)
    assert fold.outputs == [out("c")]
    fold.add(out("d"), 1)
    assert fold.outputs == [out("cd")]


def test_clear_without_wait_after_clear_with_wait_does_not_forget_what_comes_next_but_one():
    fold = fold_of(out("a"))
    fold.clear(wait=True)
    fold.clear()
    fold.add(out("b"), 1)
    fold.add(out("c"), 1)
    assert fold.outputs == [out("bc")]


def test_an_update_does_not_count_as_the_output_that_a_clear_waits_for():
    fold = fold_of(shown("a", "id"))
    fold.clear(wait=True)
    assert fold.update("id", {"text/plain": "b"}, {}, 1)
    assert fold.outputs == [shown("b", "id")]
    fold.add(out("c"), 1)
    assert fold.outputs == [out("c")]


def test_an_update_replaces_data_and_metadata_of_every_output_with_the_id_and_nothing_else():
    result = ExecuteResult({"text/plain": "r"}, {"old": 1}, 5, "id")
    fold = fold_of(shown("a", "id"), shown("b", "other"), out("c"), result, shown("d"), shown("e", "id"))
    assert fold.outputs[-1] == shown("e", "id")
    assert fold.update("id", {"text/plain": "new"}, {"new": 2}, 10)
    new = DisplayData({"text/plain": "new"}, {"new": 2}, "id")
    new_result = ExecuteResult({"text/plain": "new"}, {"new": 2}, 5, "id")
    assert fold.outputs == [new, shown("b", "other"), out("c"), new_result, shown("d"), new]


def test_an_update_of_an_unknown_id_changes_nothing():
    fold = fold_of(shown("a", "id"))
    assert not fold.update("other", {"text/plain": "b"}, {}, 1)
    assert fold.outputs == [shown("a", "id")]


def test_outputs_that_were_handed_out_do_not_change():
    fold = fold_of(out("a"), shown("b", "id"))
    before = fold.outputs
    fold.update("id", {"text/plain": "c"}, {}, 1)
    fold.add(out("d"), 1)
    assert before == [out("a"), shown("b", "id")]


# Displays, across requests.


def update(displays, display_id, text="new", **content):
    transient = {"transient": {"display_id": display_id}}
    displays.update({"data": {"text/plain": text}, "metadata": {}, **transient, **content}, 10)


def test_an_update_reaches_every_request_that_shows_the_display():
    displays, folds = Displays(), [fold_of(shown("old", "id")) for _ in range(3)]
    other = fold_of(shown("old", "other"))
    for fold in folds:
        displays.add("id", fold)
    displays.add("other", other)
    update(displays, "id")
    assert [fold.outputs for fold in folds] == [[shown("new", "id")]] * 3
    assert other.outputs == [shown("old", "other")]


def test_what_is_shown_under_an_id_again_is_what_all_with_the_id_show():
    displays, first, second = Displays(), OutputFold(LIMIT), OutputFold(LIMIT)
    for text, fold in (("a", first), ("b", first), ("c", second)):
        displays.show(shown(text, "id"), 1, fold, None)
        displays.show(shown(text, "other" if fold is first else "another"), 1, fold, None)
    result = ExecuteResult({"text/plain": "r"}, {}, 5, "id")
    displays.show(result, 1, second, None)
    new, other = shown("r", "id"), shown("b", "other")
    assert first.outputs == [new, other, new, other]
    assert second.outputs == [new, shown("c", "another"), result]


def test_what_is_shown_again_comes_after_the_clear_that_waits_for_it():
    displays, fold = Displays(), OutputFold(100)
    displays.show(shown("a", "id"), 60, fold, None)
    fold.clear(wait=True)
    displays.show(shown("b", "id"), 90, fold, None)
    assert (fold.outputs, fold.dropped) == ([shown("b", "id")], 0)


def test_what_is_shown_again_and_has_no_room_in_all_places_leaves_what_was_there():
    fold = OutputFold(100)
    for number in range(3):
        fold.add(shown(str(number), "id"), 10)
    fold.add(shown("large", "id"), 40)
    assert fold.outputs == [*[shown("2", "id")] * 3, shown("large", "id")]
    assert fold.dropped == 40
    fold.add(shown("small", "id"), 1)
    assert fold.outputs == [shown("small", "id")] * 5


def test_an_id_that_is_shown_often_takes_time_in_proportion():
    def seconds(count):
        displays, fold = Displays(), OutputFold(64 * LIMIT)
        gc.collect()
        gc.disable()  # which looks at all that other tests have left
        try:
            start = time.process_time()
            for number in range(count):
                displays.show(shown(str(number), "id"), 10, fold, None)
            assert fold.outputs == [shown(str(count - 1), "id")] * count
            return time.process_time() - start
        finally:
            gc.enable()

    assert min(seconds(30_000) for _ in range(3)) < 10 * max(0.002, min(seconds(7_500) for _ in range(3)))


@pytest.mark.parametrize("way", ["update", "show"])
def test_what_was_replaced_under_an_id_is_not_kept(way):
    fold = OutputFold(LIMIT)
    tracemalloc.start()
    try:
        for _ in range(200):
            fold.add(DisplayData({"text/plain": "x" * (LIMIT // 10)}, {}, "id"), LIMIT // 10)
            if way == "update":
                fold.update("id", {"text/plain": "small"}, {}, 10)
            else:
                fold.add(shown("small", "id"), 10)
        assert tracemalloc.get_traced_memory()[0] < 2 * LIMIT
    finally:
        tracemalloc.stop()
    assert fold.outputs[-1] == shown("small", "id")


@pytest.mark.parametrize("transient", [None, {}, {"display_id": None}, {"display_id": "unknown"}])
def test_an_update_of_nothing_that_is_shown_is_passed_over(transient):
    displays, fold = Displays(), fold_of(shown("old", "id"), shown("old"))
    displays.add("id", fold)
    update(displays, "id", transient=transient)
    assert fold.outputs == [shown("old", "id"), shown("old")]


def test_an_update_without_data_breaks_the_protocol():
    with pytest.raises(ProtocolError):
        Displays().update({"transient": {"display_id": "id"}}, 1)


def test_an_update_after_the_output_was_cleared_or_evicted_is_passed_over():
    displays = Displays()
    cleared, evicted = fold_of(shown("old", "id")), OutputFold(100)
    cleared.clear()
    evicted.add(out("x" * 60), 60)
    evicted.add(shown("old", "id"), 10)
    evicted.add(out("y" * 100), 100)
    for fold in (cleared, evicted):
        displays.add("id", fold)
    before = list(evicted.outputs)
    update(displays, "id")
    assert cleared.outputs == []
    assert evicted.outputs == before
    assert list(evicted._displays) == []


def test_a_display_is_forgotten_with_the_results_that_show_it():
    displays = Displays()
    kept = fold_of(shown("old", "kept"))
    displays.add("kept", kept)
    for number in range(1000):
        displays.add(f"id {number}", fold_of(shown("old", f"id {number}")))
    assert len(displays._folds) < 200
    update(displays, "kept")
    assert kept.outputs == [shown("new", "kept")]


@pytest.mark.parametrize("way", ["evicted", "cleared"])
def test_a_display_is_forgotten_when_the_result_that_showed_it_does_so_no_longer(way):
    displays, fold = Displays(), OutputFold(100)
    for number in range(1000):
        if way == "cleared":
            fold.clear()
        fold.add(shown("x", f"id {number}"), 40)
        displays.add(f"id {number}", fold)
    assert len(displays._folds) < 200
    update(displays, "id 999")
    assert fold.outputs[-1] == shown("new", "id 999")


# Limits.


def test_what_fits_the_limit_exactly_is_kept_whole():
    fold = fold_of(out("x" * 100), limit=100)
    assert (fold.outputs, fold.dropped, fold.gap) == ([out("x" * 100)], 0, None)


def test_of_one_text_that_is_too_long_both_ends_are_kept():
    fold = fold_of(out("h" * 50 + "m" * 1000 + "t" * 50), limit=100)
    assert fold.outputs == [out("h" * 50), out("t" * 50)]
    assert (fold.dropped, fold.gap) == (1000, 1)


def test_of_many_outputs_the_first_and_the_last_are_kept():
    fold = fold_of(*(shown(str(number)) for number in range(100)), limit=100)
    assert fold.outputs == [*(shown(str(number)) for number in range(5)), *(shown(str(n)) for n in range(95, 100))]
    assert (fold.dropped, fold.gap) == (900, 5)


@given(st.lists(texts, max_size=30), st.integers(0, 120))
@example(["a\ud800bcdefghij"], 12)
@example(["éé", "€€€€", "😀😀😀😀"], 13)
@thorough
def test_of_one_stream_a_prefix_and_a_suffix_of_nearly_half_the_limit_each_are_kept(pieces, limit):
    text = "".join(pieces)
    fold = fold_of(*map(out, pieces), limit=limit)
    if fold.gap is None:
        assert stdout(fold) == text
        return
    head = "".join(output.text for output in fold.outputs[: fold.gap])
    tail = "".join(output.text for output in fold.outputs[fold.gap :])
    assert text.startswith(head)
    assert text.endswith(tail)
    # A character has up to 4 bytes, and is kept whole or not at all.
    assert utf8_size(head) >= limit // 2 - 3
    assert utf8_size(tail) >= limit // 2 - 3
    assert utf8_size(head) + utf8_size(tail) + fold.dropped == utf8_size(text)


serial = itertools.count()


def sized(kind, size, display_id):
    """An output that tells its size, and differs from every other."""
    data = {"size": size, "serial": next(serial)}
    return kind(data, {}, display_id=display_id)


display_ids = st.sampled_from([None, "a", "b"])
streams = st.builds(Stream, names, texts)
others = st.builds(sized, st.sampled_from([DisplayData, ExecuteResult]), st.integers(1, 60), display_ids)
kept = st.builds(sized, st.sampled_from([DisplayData, ExecuteResult]), st.integers(1, 60), st.none())
outputs = streams | others  # which have no text: those that do are cut, see below
clears = st.builds(lambda wait: ("clear", wait), st.booleans())
updates = st.builds(lambda display_id, size: ("update", display_id, size), st.sampled_from("ab"), st.integers(1, 130))


def size_of(output):
    if isinstance(output, Stream):
        return utf8_size(output.text)
    return output.data["size"]


def atoms(outputs):
    """What cannot be divided: characters of streams, and other outputs."""
    for output in outputs:
        if isinstance(output, Stream):
            yield from ((output.name, character) for character in output.text)
        else:
            yield output


@given(st.lists(outputs | clears | updates, max_size=40), st.integers(0, 150))
@example([sized(DisplayData, 10, "a"), ("update", "a", 95), Stream("stdout", "x" * 1000)], 100)
@thorough
def test_whatever_comes_no_more_than_the_limit_is_kept(steps, limit):
    fold = OutputFold(limit)
    for step in steps:
        if isinstance(step, tuple) and step[0] == "clear":
            fold.clear(wait=step[1])
        elif isinstance(step, tuple):
            fold.update(step[1], {"size": step[2]}, {}, step[2])
        else:
            fold.add(step, size_of(step))
        assert sum(map(size_of, fold.outputs)) <= limit
        assert set(fold._displays) == {getattr(output, "display_id", None) for output in fold.outputs} - {None}


@given(st.lists(streams | kept | clears, max_size=40), st.integers(0, 150))  # nothing replaces another
@example([sized(DisplayData, 60, None)], 100)
@example([sized(DisplayData, 101, None), sized(DisplayData, 10, None)], 100)
@example([Stream("stdout", "x" * 50), Stream("stderr", "x" * 50)], 100)
@thorough
def test_what_is_kept_is_the_beginning_and_the_end_of_what_came_with_the_gap_between_them(steps, limit):
    fold, came, pending = OutputFold(limit), [], False
    for step in steps:
        if isinstance(step, tuple):
            fold.clear(wait=step[1])
            pending = step[1]
            came = came if pending else []
        else:
            fold.add(step, size_of(step))
            came = [step] if pending else [*came, step]
            pending = False
        total = sum(map(size_of, came))
        assert fold.dropped == total - sum(map(size_of, fold.outputs))
        # Nothing is dropped while there is room.
        assert fold.dropped == 0 or total > limit
        if fold.gap is None:
            assert fold.dropped == 0
            assert list(atoms(fold.outputs)) == list(atoms(came))
        else:
            assert fold.dropped > 0
            every, head = list(atoms(came)), list(atoms(fold.outputs[: fold.gap]))
            tail = list(atoms(fold.outputs[fold.gap :]))
            assert head == every[: len(head)]
            assert tail == every[len(every) - len(tail) :]
        for index, (one, other) in enumerate(itertools.pairwise(fold.outputs), 1):
            if isinstance(one, Stream) and isinstance(other, Stream):
                assert one.name != other.name or index == fold.gap


def size_of_error(error):
    return sum(map(utf8_size, (error.ename, error.evalue, *error.traceback)))


@given(st.lists(texts, max_size=5), texts, st.integers(0, 100), st.integers(0, 200))
@thorough
def test_an_error_that_is_too_large_loses_its_middle_and_what_came_before_it_as_little_as_may_be(
    lines, evalue, before, limit
):
    error = ErrorOutput("Error", evalue, lines)
    size = size_of_error(error) + 2 * len(lines)
    fold = fold_of(out("x" * before), limit=limit)
    fold.add(error, size)
    kept = fold.outputs[-1] if fold.outputs else None
    if before + size <= limit:
        assert (kept, fold.dropped) == (error, 0)
    elif limit >= 200:  # room for ten times what tells that something is missing
        assert isinstance(kept, ErrorOutput)
        for one, other in ((kept.evalue, evalue), ("\n".join(kept.traceback), "\n".join(lines))):
            first, cut, last = one.partition("[...]")
            assert (other.startswith(first) and other.endswith(last)) if cut else one == other
        assert fold.dropped > 0
    assert sum(utf8_size(o.text) if isinstance(o, Stream) else size_of_error(o) for o in fold.outputs) <= limit


@pytest.mark.parametrize("kind", [DisplayData, ExecuteResult])
def test_text_that_is_displayed_is_cut_and_what_is_no_text_is_left_out(kind):
    text = "a" * 1000 + "b" * 1000
    fold = fold_of(out("before"), limit=100)
    fold.add(kind({"text/plain": text, "text/html": text, "image/png": text}, {"image/png": {}}), 6500)
    before, shown = fold.outputs
    assert before == out("before")
    assert shown.text.startswith("a" * 20)
    assert shown.text.endswith("b" * 20)
    assert 50 < len(shown.text) + len(before.text) <= 100
    assert shown.data.keys() == {"text/plain"}
    assert fold.dropped == 6500 - len(shown.text)
    fold.add(kind({"image/png": text}), 2000)
    assert fold.outputs == [before]


def test_what_clears_a_widget_clears_only_what_that_widget_captured():
    fold = fold_of(out("header\n"))
    for number in range(3):
        fold.clear("one", wait=True)
        fold.add(out(f"one {number}\n"), 10, "one")
        fold.add(shown("x", "shown in it"), 10, "one")
        fold.add(out(f"mine {number}\n"), 10)
        fold.clear("two")
        fold.add(out(f"two {number}\n"), 10, "two")
    texts = [output.text for output in fold.outputs]
    assert "".join(texts) == "header\nmine 0\nmine 1\none 2\nxmine 2\ntwo 2\n"
    assert fold.uncaptured() == ([out("header\nmine 0\nmine 1\nmine 2\n")], None)
    assert set(fold._displays) == {"shown in it"}
    fold.clear()
    assert fold.outputs == []
    assert not fold._displays


def test_the_gap_stands_among_what_no_widget_captured():
    fold = fold_of(out("a" * 40), shown("b"), limit=100)
    for _ in range(20):
        fold.add(out("c" * 9 + "\n"), 10, "one")
        fold.add(out("d" * 9 + "\n"), 10)
    (head, display, tail), gap = fold.uncaptured()
    assert (head, display, gap) == (out("a" * 40), shown("b"), 2)
    assert set(tail.text) == {"d", "\n"}


def test_an_update_that_does_not_fit_leaves_the_old_data_and_says_that_something_is_missing():
    fold = fold_of(shown("a", "id"), shown("b"), limit=20)
    assert fold.update("id", {"text/plain": "large"}, {}, 15)
    assert fold.outputs == [shown("a", "id"), shown("b")]
    assert fold.dropped == 15


def test_an_update_that_does_not_fit_leaves_no_gap():
    fold = fold_of(shown("a", "id"), out("x" * 90), limit=100)
    fold.update("id", {"text/plain": "large"}, {}, 15)
    assert fold.outputs == [shown("a", "id"), out("x" * 90)]
    assert fold.gap is None


def test_an_update_that_is_smaller_makes_room():
    fold = OutputFold(100)
    fold.add(shown("a", "id"), 50)
    fold.add(out("x" * 50), 50)
    fold.update("id", {}, {}, 10)
    fold.update("id", {}, {}, 20)
    assert fold.dropped == 0


def test_a_clear_makes_room_and_forgets_that_something_was_dropped():
    fold = fold_of(out("x" * 1000), limit=100)
    fold.clear()
    assert (fold.dropped, fold.gap) == (0, None)
    fold.add(out("y" * 100), 100)
    assert (fold.outputs, fold.dropped) == ([out("y" * 100)], 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda number: (out(f"{number:04}"[-2:]), 2),
        lambda number: (out("\n", ["stdout", "stderr"][number % 2]), 1),
        lambda number: (out("", ["stdout", "stderr"][number % 2]), 0),
        lambda number: (DisplayData({"a": number}), 10),
    ],
    ids=["one stream", "two streams", "empty text", "displays"],
)
def test_memory_is_a_small_multiple_of_the_limit_however_small_the_outputs(make):
    limit = 32 * 1024
    fold = OutputFold(limit)
    tracemalloc.start()
    try:
        for number in range(30_000):
            fold.add(*make(number))
        assert tracemalloc.get_traced_memory()[0] < 12 * limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("character", ["x", "é"])
@pytest.mark.parametrize("read", [False, True])
def test_adding_a_little_to_a_full_fold_does_not_copy_all_of_it(character, read):
    fold = fold_of(out(character * LIMIT))
    fold.add(out("more"), 4)
    if read:
        assert stdout(fold).endswith("more")
    tracemalloc.start()
    try:
        fold.add(out("even more"), 9)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stdout(fold).endswith("moreeven more")
    assert peak < LIMIT / 8


@pytest.mark.parametrize("limit", [0, 1])
def test_a_limit_too_small_for_anything_drops_everything(limit):
    fold = fold_of(out("text"), shown("longer than that"), limit=limit)
    assert stdout(fold) == ""
    assert not any(isinstance(output, DisplayData) for output in fold.outputs)
    assert fold.dropped == 14
