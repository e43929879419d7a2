"""How a WebSocket carries messages: both framings, against strict decoders and against the servers' own."""

from __future__ import annotations

import itertools
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anykernel import ArgumentError, Message
from anykernel._protocol import BadMessageError, decode_legacy, decode_v1, encode_legacy, encode_v1

HEADER = {"msg_id": "a_1", "msg_type": "x_request"}
MESSAGE = Message(
    "shell", HEADER, {"msg_id": "p"}, {"m": 1}, {"text": "é\u2028", "n": [1, None]}, (b"raw", b"", b"x" * 300)
)
FRAMINGS = pytest.mark.parametrize(
    ("encode", "decode"), [(encode_v1, decode_v1), (encode_legacy, decode_legacy)], ids=["v1", "legacy"]
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
messages = st.builds(
    Message,
    channel=st.sampled_from(["shell", "control", "iopub", "stdin"]),
    header=st.just(HEADER),
    parent_header=st.sampled_from([{}, {"msg_id": "p"}]),
    metadata=st.dictionaries(st.text(max_size=5).filter(str.isascii), json_values, max_size=2),
    content=st.dictionaries(st.text(max_size=5).filter(str.isascii), json_values, max_size=3),
    buffers=st.lists(st.binary(max_size=50), max_size=4).map(tuple),
)


def parts_of(message):
    return (
        message.channel, message.header, message.parent_header, message.metadata, message.content,
        list(map(bytes, message.buffers)),
    )  # fmt: skip


@FRAMINGS
@given(message=messages)
def test_a_message_comes_out_as_it_went_in(encode, decode, message):
    assert parts_of(decode(encode(message))) == parts_of(message)


@FRAMINGS
@given(data=st.data())
def test_no_damage_to_a_frame_is_taken_for_anything_but_a_bad_message(encode, decode, data):
    frame = bytearray(encode(MESSAGE))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, 80))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(frame)))
    for damaged in (bytes(frame), bytes(frame[:cut])):
        try:
            decoded = decode(damaged)
        except BadMessageError:
            continue
        assert isinstance(decoded.msg_id, str)


def test_the_offsets_of_v1_are_those_that_servers_count():
    frame = encode_v1(MESSAGE)
    count, *offsets = struct.unpack_from("<10Q", frame)
    assert count == 9  # channel, four parts, three buffers, and the end
    assert offsets[0] == 8 * (count + 1)
    assert offsets[-1] == len(frame)
    assert frame[offsets[0] : offsets[1]] == b"shell"
    assert [frame[a:b] for a, b in itertools.pairwise(offsets[5:])] == [b"raw", b"", b"x" * 300]


def test_what_is_sent_is_read_by_a_jupyter_server_as_it_is_meant():
    base = pytest.importorskip("jupyter_server.services.kernels.connection.base")
    channel, parts = base.deserialize_msg_from_ws_v1(encode_v1(MESSAGE))
    assert channel == "shell"
    assert [json.loads(part) for part in parts[:4]] == [HEADER, {"msg_id": "p"}, {"m": 1}, MESSAGE.content]
    assert list(parts[4:]) == list(MESSAGE.buffers)
    legacy = base.deserialize_binary_message(encode_legacy(MESSAGE))
    assert (legacy["channel"], legacy["content"], legacy["buffers"]) == (
        "shell",
        MESSAGE.content,
        list(MESSAGE.buffers),
    )
    # And the other way.
    pack = lambda value: json.dumps(value).encode()  # noqa: E731
    plain = {"header": HEADER, "parent_header": {}, "metadata": {}, "content": {"a": 1}}
    assert decode_v1(base.serialize_msg_to_ws_v1(plain, "iopub", pack)).content == {"a": 1}
    back = decode_legacy(base.serialize_binary_message({**plain, "channel": "iopub", "buffers": [b"1", b"22"]}))
    assert parts_of(back) == ("iopub", HEADER, {}, {}, {"a": 1}, [b"1", b"22"])


@FRAMINGS
def test_the_size_of_a_message_counts_its_buffers(encode, decode):
    assert decode(encode(MESSAGE)).size >= 303


@FRAMINGS
def test_what_has_no_form_is_refused(encode, decode):
    for fields in ({"content": {"x": object()}}, {"metadata": {"x": {1j}}}, {"buffers": ("text",)}):
        with pytest.raises(ArgumentError):
            encode(Message("shell", HEADER, **fields))


@pytest.mark.parametrize(
    ("decode", "frame", "reason"),
    [
        (decode_v1, b"", "shape"),
        (decode_v1, (2**60).to_bytes(8, "little") + bytes(80), "shape"),
        (decode_v1, encode_v1(MESSAGE) + b"more", "shape"),
        (decode_v1, encode_v1(MESSAGE).replace(b"shell", b"shall"), "channel"),
        (decode_v1, encode_v1(Message("shell", {**HEADER, "x": "x" * 70_000})), "size"),
        (decode_v1, encode_v1(Message("shell", {"msg_id": 1, "msg_type": "x"})), "header"),
        (decode_v1, encode_v1(Message("shell", HEADER, {"msg_id": 1})), "header"),
        (decode_legacy, b"", "shape"),
        (decode_legacy, "", "json"),
        (decode_legacy, "[1]", "json"),
        (decode_legacy, '{"channel": "other"}', "channel"),
        (decode_legacy, '{"channel": "iopub"}', "header"),
        (decode_legacy, '{"channel": "iopub", "header": 1}', "json"),
        (decode_legacy, (2**31).to_bytes(4, "big") + bytes(80), "shape"),
    ],
)
def test_what_is_malformed_is_told_in_one_word(decode, frame, reason):
    with pytest.raises(BadMessageError, match=reason):
        decode(frame)
