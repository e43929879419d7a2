"""Models of widgets as front ends keep them, bounded in bytes, linear in time."""

from __future__ import annotations

import base64
import itertools
import time

import pytest

from anykernel._protocol import Captures, Message, WidgetModels

NUMBERS = itertools.count()


def message(msg_type, content, buffers=(), left_out=None, size=0):
    header = {"msg_id": str(next(NUMBERS)), "msg_type": msg_type}
    return Message("iopub", header, {}, {}, content, tuple(buffers), size, 0, left_out)


def opened(comm_id, buffers=(), paths=(), target="jupyter.widget", **state):
    data = {"state": {"_model_name": "Model", "_model_module": "module", **state}, "buffer_paths": list(paths)}
    return message("comm_open", {"comm_id": comm_id, "target_name": target, "data": data}, buffers)


def changed(comm_id, buffers=(), paths=(), method="update", left_out=None, **state):
    data = {"method": method, "state": state, "buffer_paths": list(paths)}
    return message("comm_msg", {"comm_id": comm_id, "data": data}, buffers, left_out)


def output(comm_id, **state):
    return opened(comm_id, **{"_model_name": "OutputModel", "_model_module": "@jupyter-widgets/output", **state})


def stream(text):
    return message("stream", {"name": "stdout", "text": text}, size=len(text))


def models_of(*messages, limit=2**20):
    models = WidgetModels(limit)
    for each in messages:
        models.take(each)
    return models


def test_models_are_opened_changed_and_closed():
    models = models_of(
        opened("a", value=1, other=None),
        opened("b", children=["IPY_MODEL_a"]),
        opened("c"),
        changed("a", value=2),
        changed("a", method="echo_update", value=3),
        changed("a", method="custom", value=4),
        changed("unknown", value=5),
        opened("none", target="other"),
        message("comm_close", {"comm_id": "c"}),
    )
    assert [widget.model_id for widget in models.all()] == ["a", "b"]
    assert models.get(models.get("b").state["children"][0]).state["value"] == 3
    saved = models.saved()
    assert saved["state"]["a"] == {
        "model_name": "Model",
        "model_module": "module",
        "model_module_version": None,
        "state": {"_model_name": "Model", "_model_module": "module", "value": 3, "other": None},
    }
    assert (saved["version_major"], saved["version_minor"]) == (2, 0)


def test_buffers_stand_where_their_paths_say_and_go_with_what_they_belong_to():
    models = models_of(
        opened("a", [b"top", b"in", memoryview(b"deep")], [["data"], ["list", 1], ["dict", "x", 0]],
               list=[0, None, 2], dict={"x": [None], "y": 1}),
    )  # fmt: skip
    (widget,) = models.all()
    assert widget.state["data"] == b"top"
    assert widget.state["list"] == [0, b"in", 2]
    assert widget.state["dict"] == {"x": [b"deep"], "y": 1}
    saved = models.saved()["state"]["a"]
    assert saved["buffers"][1] == {"path": ["list", 1], "data": base64.b64encode(b"in").decode(), "encoding": "base64"}
    assert "data" not in saved["state"]
    assert saved["state"]["list"] == [0, None, 2]
    models.take(changed("a", list=[1], data=None))
    assert (widget.state["list"], widget.state["data"]) == ([1], None)
    assert [buffer["path"] for buffer in models.saved()["state"]["a"]["buffers"]] == [["dict", "x", 0]]
    models.take(changed("a", [b"again"], [["data"]]))
    assert widget.state["data"] == b"again"
    assert "data" not in models.saved()["state"]["a"]["state"]
    # What is given is a copy.
    widget.state["dict"]["y"] = 2
    models.saved()["state"]["a"]["state"]["dict"]["y"] = 2
    assert widget.state["dict"]["y"] == 1


@pytest.mark.parametrize(
    "malformed",
    [
        message("comm_open", {}),
        message("comm_open", {"comm_id": "b", "target_name": "jupyter.widget"}),
        message("comm_open", {"comm_id": "b", "target_name": "jupyter.widget", "data": {"state": 5}}),
        message("comm_msg", {"comm_id": "a"}),
        message("comm_msg", {"comm_id": "a", "data": [1]}),
        message("comm_msg", {"comm_id": 5, "data": {"state": {}}}),
        changed("a", [b"x"], [5]),
        changed("a", [b"x"], [[]]),
        changed("a", [b"x"], [[True, {}]]),
        changed("a", [b"x"], [["list", 0]]),
        changed("a", [b"x", b"x", b"x"], [["list", 7], ["list", "x"], ["list", 0, 1]], list=[1]),
        message("comm_close", {}),
    ],
)
def test_what_is_malformed_changes_nothing_that_is_shown(malformed):
    models = models_of(opened("a", list=[1]), malformed)
    assert [widget.model_id for widget in models.all()] == ["a"]
    assert models.all()[0].state["list"] == [1]


def test_of_several_widgets_that_capture_a_request_the_last_one_does():
    captures = Captures()
    captures.take(output("a", msg_id="m"))
    captures.take(output("b", msg_id=""))
    assert captures.by("m") == "a"
    captures.take(changed("b", msg_id="m"))
    captures.take(changed("b", msg_id="m"))
    assert captures.by("m") == "b"
    captures.take(changed("b", value=1))
    captures.take(changed("c", msg_id=""))
    assert captures.by("m") == "b"
    captures.take(changed("b", msg_id=""))
    assert captures.by("m") == "a"
    captures.take(changed("a", msg_id="another"))
    assert (captures.by("m"), captures.by("another"), captures.by(None)) == (None, "a", None)
    captures.take(message("comm_close", {"comm_id": "a"}))
    assert captures.by("another") is None
    for number in range(5000):
        captures.take(changed(f"{number}", msg_id=f"{number}"))
    captures.take(changed("x" * 5000, msg_id="long"))
    assert (captures.by("0"), captures.by("4999"), captures.by("long")) == (None, "4999", None)
    assert len(captures._widgets) <= 1024
    captures.clear()
    assert captures.by("4999") is None


def test_an_output_widget_shows_what_it_captures_and_what_the_kernel_sets():
    models = models_of(output("a", outputs=[], msg_id="m"), opened("b"))
    assert models.capture("a", stream("one ")) is True
    models.capture("a", stream("two"))
    assert models.capture("b", stream("none")) is False
    assert models.capture("unknown", stream("none")) is False
    assert models.get("a").state["outputs"] == [{"output_type": "stream", "name": "stdout", "text": "one two"}]
    models.take(changed("a", method="echo_update", outputs=[]))
    assert models.get("a").outputs()
    models.capture("a", message("clear_output", {"wait": True}))
    assert models.get("a").outputs()
    models.capture("a", message("display_data", {"data": {"text/plain": "x"}, "metadata": {}}, size=9))
    assert models.get("a").outputs() == [{"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}]
    models.capture("a", message("clear_output", {}))
    assert models.get("a").outputs() == []
    given = [
        {"output_type": "stream", "name": "stderr", "text": ["a\n", "b"]},
        {"output_type": "execute_result", "data": {"text/plain": "1"}, "metadata": {}, "execution_count": 3},
        {"output_type": "error", "ename": "E", "evalue": "", "traceback": []},
        {"output_type": "stream", "name": "stdout"},
        {"output_type": "unknown"},
        5,
    ]
    models.take(changed("a", outputs=given))
    assert models.get("a").outputs() == [{**given[0], "text": "a\nb"}, *given[1:3]]
    models.take(changed("a", outputs=None))
    assert models.saved()["state"]["a"]["state"]["outputs"] == []


def test_models_are_bounded_each_and_together():
    models = models_of(*(opened(str(i), data="x" * 20_000) for i in range(20)), limit=100_000)
    assert [widget.model_id for widget in models.all()] == [str(i) for i in range(12, 20)]
    assert models.dropped == 12
    models.take(changed("12", value=1))
    models.take(opened("next", [b"x" * 20_000], [["data"]]))
    assert models.get("12") is not None  # it changed lately
    assert models.get("13") is None
    for number in range(10):
        models.take(changed("next", **{f"key {number}": "x" * 20_000}))
    assert models.get("next") is None
    models = models_of(output("a"), limit=100_000)
    for _ in range(100):
        models.capture("a", stream("x" * 9999 + "\n"))
    assert 0 < sum(len(out["text"]) for out in models.get("a").outputs()) <= 100_000
    models.take(changed("a", left_out="too large"))
    assert models.get("a") is None
    assert models_of(opened("a"), limit=0).all() == []


def test_a_model_that_is_changed_or_closed_gives_its_room_back():
    models = models_of(limit=100_000)
    for number in range(200):
        models.take(opened(str(number), [b"x" * 20_000], [["data"]]))
        models.take(changed(str(number), [b"x" * 30_000], [["data"]], text="x" * 30_000))
        models.take(changed(str(number), text=""))
        models.take(message("comm_close", {"comm_id": str(number)}))
    assert (models.dropped, models._size, models._sizes) == (0, 0, {})


def test_time_grows_with_the_number_of_changes():
    def seconds(count):
        messages = [changed("a", value=i, **{f"key {i % 50}": [i]}) for i in range(count)]
        models, best = models_of(opened("a"), output("b")), float("inf")
        for _ in range(3):
            begin = time.process_time()
            for each in messages:
                models.take(each)
                models.capture("b", stream("x"))
            best = min(best, time.process_time() - begin)
        return best

    few, many = seconds(5_000), seconds(20_000)
    assert many < 8 * few
