"""The wire format: what is written can be read (by Jupyter too), and nothing that is received can do harm."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jupyter_client.session import Session

import anykernel._protocol.wire
from anykernel import ArgumentError, Message
from anykernel._protocol.wire import DELIMITER, HEADER_LIMIT, BadMessageError, Codec, dumps, loads

from ..helpers.strategies import as_json, json_objects, json_values, quick, thorough

KEY = b"a key"
SCHEMES = sorted(f"hmac-{name}" for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))
HEADER = {"msg_id": "1", "msg_type": "status"}

words = st.text(max_size=20)
buffer_tuples = st.lists(st.binary(max_size=50) | st.binary(max_size=50).map(memoryview), max_size=3).map(tuple)
headers = st.fixed_dictionaries({"msg_id": words, "msg_type": words}, optional={"session": words, "version": words})
schemes = st.sampled_from(SCHEMES)
keys = st.binary(min_size=1, max_size=200)


def sign(parts, key=KEY):
    """Signed frames of parts that `Codec.encode` might not write."""
    return [DELIMITER, Codec(key)._sign(parts), *parts]


def frames_of(header=HEADER, parent=None, metadata=None, content=None):
    return sign([json.dumps(part).encode() for part in (header, parent or {}, metadata or {}, content or {})])


def numbered(number):
    return frames_of({"msg_id": str(number), "msg_type": "status"})


def decode(codec, frames):
    """The message, or the reason why it is none."""
    try:
        return codec.decode("iopub", frames)
    except BadMessageError as exc:
        return str(exc)


# Round trips.


@given(headers, json_objects, json_objects, json_objects, buffer_tuples, schemes, keys | st.just(b""))
@thorough
def test_a_message_survives_encoding_and_decoding(header, parent, metadata, content, buffers, scheme, key):
    parent.pop("msg_id", None)
    frames = Codec(key, scheme).encode(Message("shell", header, parent, metadata, content, buffers))
    received = Codec(key, scheme).decode("shell", frames)
    assert received.channel == "shell"
    assert received.header == header
    assert received.parent_header == as_json(parent)
    assert received.metadata == as_json(metadata)
    assert received.content == as_json(content)
    assert received.buffers == buffers
    assert received.size == len(frames[5]) + sum(map(len, buffers))


@given(json_objects, st.sampled_from(["plain", "half \ud800"]), st.sampled_from([math.nan, math.inf, -math.inf]))
@example({}, "half \ud800", math.nan)
@quick
def test_what_is_written_is_strict_json_and_numbers_that_json_lacks_are_refused(value, text, number):
    def reject(constant):
        raise AssertionError(f"{constant} is no JSON")

    written = dumps({"value": value, "text": text, "null": [None]})
    read = json.loads(written.decode("utf-8", "strict"), parse_constant=reject)
    assert read == {"value": as_json(value), "text": text, "null": [None]}
    for lost in (number, np.float32(number)):
        with pytest.raises(ValueError, match="NaN or infinity"):
            dumps({"value": value, "text": text, "number": [lost]})


def test_scalars_of_numpy_are_numbers_and_nothing_else_of_it_is():
    numbers = [np.int8(-1), np.uint64(2**64 - 1), np.float16(0.5), np.longdouble(2), np.bool_(True), np.array(3)]
    assert dumps({"n": [*numbers, np.str_("text")], "half": "plain"}) == (
        b'{"n":[-1,18446744073709551615,0.5,2.0,true,3,"text"],"half":"plain"}'
    )
    assert json.loads(dumps({"n": numbers, "half": "\ud800"})) == {
        "n": [-1, 2**64 - 1, 0.5, 2, True, 3],
        "half": "\ud800",
    }
    for other in (np.zeros(2), np.complex64(1), np.datetime64("2020"), np.bytes_(b"x"), np.void(b"x"), np):
        with pytest.raises(TypeError, match=r"numpy|module"):
            dumps({"a": other})


def test_frames_may_be_memoryviews():
    frames = [b"topic", *frames_of(content={"text": "é"}), b"buffer"]
    message = Codec(KEY).decode("iopub", [memoryview(frame) for frame in frames])
    assert (message.msg_type, message.content, message.buffers) == ("status", {"text": "é"}, (b"buffer",))


def _own(value):
    value["self"] = value
    return value


@pytest.mark.parametrize("field", ["content", "metadata"])
@pytest.mark.parametrize(
    "value",
    [{"a": object()}, {"a": object(), "half": "\ud800"}, {(1, 2): 3}, {"a": {None: 1}, "half": "\ud800"}, _own({})],
    ids=["object", "object_beside_half_a_pair", "tuple_key", "null_key", "in_itself"],
)
def test_what_has_no_json_form_is_refused_with_the_name_of_the_message(field, value):
    with pytest.raises(ArgumentError, match="status"):
        Codec(KEY).encode(Message("shell", HEADER, **{field: value}))


# Jupyter's own implementation reads what we write, and we read what it writes.


@given(headers, json_objects, json_objects, buffer_tuples, schemes, keys)
@quick
def test_jupyter_client_accepts_and_understands_our_messages(header, metadata, content, buffers, scheme, key):
    session = Session(key=key, signature_scheme=scheme)
    header = {**header, "version": "5.4"}  # older versions would be translated
    frames = Codec(key, scheme).encode(Message("shell", header, HEADER, metadata, content, buffers))
    identities, frames = session.feed_identities(frames)
    message = session.deserialize(frames)
    assert identities == []
    del message["header"]["date"]  # jupyter_client puts one in where there is none
    assert message["header"] == header
    assert message["parent_header"] == HEADER
    assert message["metadata"] == as_json(metadata)
    assert message["content"] == as_json(content)
    assert message["buffers"] == list(buffers)


@given(words, st.dictionaries(words, words | st.integers() | st.none()), buffer_tuples, schemes, keys)
@quick
def test_we_accept_and_understand_jupyter_clients_messages(msg_type, content, buffers, scheme, key):
    session = Session(key=key, signature_scheme=scheme)
    request = session.msg("execute_request")
    sent = session.msg(msg_type, content=content, parent=request, metadata={"é": 1})
    frames = [*session.serialize(sent, ident=[b"identity", b"another"]), *buffers]
    received = Codec(key, scheme).decode("shell", frames)
    assert (received.msg_type, received.msg_id) == (msg_type, sent["header"]["msg_id"])
    assert received.parent_id == request["header"]["msg_id"]
    assert received.metadata == {"é": 1}
    assert received.content == content
    assert received.buffers == buffers


@given(headers, json_objects, buffer_tuples, schemes, keys)
@quick
def test_the_signature_is_the_one_jupyter_client_makes_of_the_same_frames(header, content, buffers, scheme, key):
    frames = Codec(key, scheme).encode(Message("shell", header, content=content, buffers=buffers))
    assert frames[1] == Session(key=key, signature_scheme=scheme).sign(frames[2:6])


def test_jupyter_client_and_we_understand_each_other_unsigned():
    session = Session(key=b"")
    frames = Codec(b"").encode(Message("shell", HEADER, content={"a": 1}))
    assert session.deserialize(session.feed_identities(frames)[1])["content"] == {"a": 1}
    frames = session.serialize(session.msg("status", content={"a": 1}))
    assert Codec(b"").decode("iopub", frames).content == {"a": 1}


@pytest.mark.parametrize("scheme", ["", "sha256", "hmac-", "hmac-nonsense", "hmac-shake_128", "HMAC-sha256"])
def test_an_unknown_signature_scheme_is_refused(scheme):
    with pytest.raises(ValueError, match="signature scheme"):
        Codec(KEY, scheme)


# Hostile frames.


def check_types(message):
    assert isinstance(message.msg_id, str)
    assert isinstance(message.msg_type, str)
    assert message.parent_id is None or isinstance(message.parent_id, str)
    assert isinstance(message.metadata, dict)
    assert isinstance(message.content, dict)


_PARTS = [b"{}", b"null", b"[]", b"1", b'{"msg_id":"1","msg_type":"status"}', b'{"msg_id":1}', b"\xff", b"NaN", b""]
any_part = st.sampled_from(_PARTS) | st.binary(max_size=20) | json_values.map(lambda value: json.dumps(value).encode())
any_header = any_part | st.just(json.dumps(HEADER).encode())
any_frame = any_header | st.just(DELIMITER) | any_part.map(memoryview)


@given(st.lists(any_frame, max_size=9), st.sampled_from([b"", KEY]))
@thorough
def test_arbitrary_frames_give_a_message_or_a_bad_message_error(frames, key):
    outcome = decode(Codec(key), frames)
    if isinstance(outcome, Message):
        assert key == b""
        check_types(outcome)
    else:
        assert outcome in {"shape", "signature", "json", "header"}


@given(any_header, any_header, any_part, any_part, st.lists(any_part, max_size=2), st.lists(any_frame, max_size=2))
@thorough
def test_arbitrary_parts_of_a_kernel_that_has_the_key_give_a_message_or_a_bad_message_error(
    header, parent, metadata, content, topics, buffers
):
    topics = [topic for topic in topics if topic != DELIMITER]
    outcome = decode(Codec(KEY), [*topics, *sign([header, parent, metadata, content]), *buffers])
    if isinstance(outcome, Message):
        check_types(outcome)
        assert list(outcome.buffers) == buffers
    else:
        assert outcome in {"json", "header"}


def test_a_message_that_ends_too_early_has_no_shape():
    frames = [b"topic", *frames_of()]
    for length in range(len(frames)):
        assert decode(Codec(KEY), frames[:length]) == "shape"
    assert Codec(KEY).decode("iopub", frames).msg_id == "1"


def test_a_message_without_delimiter_has_no_shape():
    assert decode(Codec(KEY), frames_of()[1:]) == "shape"
    assert decode(Codec(b""), [b""] * 9) == "shape"


@pytest.mark.parametrize("topics", [[b"topic"], [b"one", b"two", b"three"], [b""], [b"<ids|msg>"]])
def test_frames_before_the_delimiter_are_passed_over(topics):
    message = Codec(KEY).decode("iopub", [*topics, *frames_of(content={"a": 1}), b"buffer"])
    assert (message.content, message.buffers) == ({"a": 1}, (b"buffer",))


@pytest.mark.parametrize("which", [0, 1], ids=["header", "parent_header"])
def test_an_oversized_header_is_not_even_parsed(which):
    parts = [json.dumps(HEADER).encode(), b"{}", b"{}", b"{}"]
    parts[which] = parts[which].ljust(HEADER_LIMIT)
    assert Codec(KEY).decode("iopub", sign(parts)).msg_id == "1"
    parts[which] += b" "
    assert decode(Codec(KEY), sign(parts)) == "size"


def test_metadata_and_content_may_be_larger_than_a_header():
    large = {"text": "x" * (2 * HEADER_LIMIT)}
    message = Codec(KEY).decode("iopub", frames_of(metadata=large, content=large))
    assert message.metadata == message.content == large


# Signatures.


def test_a_change_of_any_bit_of_what_is_signed_or_of_the_signature_is_noticed():
    frames = frames_of({**HEADER, "session": "s"}, {"msg_id": "2"}, {"a": 1}, {"b": "c"})
    codec = Codec(KEY)
    for index in range(1, 6):
        for position in range(len(frames[index])):
            for bit in range(8):
                tampered = bytearray(frames[index])
                tampered[position] ^= 1 << bit
                assert decode(codec, [*frames[:index], bytes(tampered), *frames[index + 1 :]]) == "signature"
    assert codec.decode("iopub", frames).content == {"b": "c"}


def test_parts_that_change_places_are_noticed():
    frames = frames_of(metadata={"a": 1}, content={"b": 2})
    frames[4], frames[5] = frames[5], frames[4]
    assert decode(Codec(KEY), frames) == "signature"


@pytest.mark.parametrize("signature", [b"", b"0" * 64, "é".encode() * 32, b"x" * 1_000_000])
def test_a_message_without_a_true_signature_is_refused(signature):
    frames = frames_of()
    frames[1] = signature
    assert decode(Codec(KEY), frames) == "signature"


def test_a_message_signed_with_another_key_or_scheme_is_refused():
    frames = frames_of()
    assert decode(Codec(b"another key"), frames) == "signature"
    assert decode(Codec(KEY, "hmac-sha512"), frames) == "signature"


def test_an_empty_key_means_that_nothing_is_signed_and_anything_accepted():
    codec = Codec(b"")
    assert codec.encode(Message("shell", HEADER))[1] == b""
    assert codec.decode("iopub", frames_of()).msg_id == "1"


def test_buffers_are_not_signed():
    # The protocol says so; a change of it would lock out every other implementation.
    frames = Codec(KEY).encode(Message("shell", HEADER, buffers=(b"one", b"two")))
    assert Codec(KEY).decode("shell", [*frames[:6], b"other"]).buffers == (b"other",)


# Repetition.


def test_a_repeated_message_is_refused_whatever_its_buffers_and_topic():
    codec = Codec(KEY)
    frames = frames_of()
    codec.decode("iopub", frames)
    assert decode(codec, frames) == "repeated"
    assert decode(codec, [b"topic", *frames, b"buffer"]) == "repeated"


def test_a_tampered_copy_that_comes_first_does_not_make_the_genuine_message_look_repeated():
    codec = Codec(KEY)
    frames = frames_of(content={"a": 1})
    assert decode(codec, [*frames[:5], b'{"a":2}']) == "signature"
    assert codec.decode("iopub", frames).content == {"a": 1}


def test_an_unsigned_message_may_be_repeated():
    # Without a key there is nothing to know a repetition by.
    codec = Codec(b"")
    assert codec.decode("iopub", frames_of()) == codec.decode("iopub", frames_of())


@given(st.lists(st.integers(0, 30), max_size=100))
@quick
def test_a_repetition_within_the_window_is_always_refused_and_memory_stays_bounded(numbers):
    window = 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anykernel._protocol.wire, "REPLAY_WINDOW", window)
        codec = Codec(KEY)
        accepted = []
        for number in numbers:
            if decode(codec, numbered(number)) == "repeated":
                assert number in accepted
            else:
                assert number not in accepted[-window:]
                accepted.append(number)
            assert len(codec._recent) + len(codec._older) <= 2 * window


# What is not JSON, or not the JSON it should be.


@pytest.mark.parametrize(
    "part",
    [
        *(b"", b" ", b"{", b'{"a":1}}', b'{"a":1},', b"{'a':1}", b"true", b"1", b'"text"', b"[]", b"[{}]"),
        *(b"NaN", b"\xff", b"\x00", b"\xef\xbb\xbf{}", b'{"a":' + b"9" * 5000 + b"}"),
        *(b'{"a":' * 10_000, b"[" * 10_000),
    ],
    ids=lambda part: repr(part[:12]),
)
def test_a_part_that_is_no_json_object_is_refused(part):
    for which in range(4):
        parts = [json.dumps(HEADER).encode(), b"{}", b"{}", b"{}"]
        parts[which] = part
        assert decode(Codec(KEY), sign(parts)) == "json"


def test_null_for_a_part_is_an_empty_one_but_a_header_is_needed():
    parts = [json.dumps(HEADER).encode(), b"null", b"null", b"null"]
    message = Codec(KEY).decode("iopub", sign(parts))
    assert (message.parent_header, message.metadata, message.content) == ({}, {}, {})
    parts[0] = b"null"
    assert decode(Codec(KEY), sign(parts)) == "header"


def test_nesting_of_any_depth_gives_a_message_or_a_bad_message_error():
    outcomes = set()
    for depth in [*range(1, 1100, 3), 2000, 5000, 20_000, 200_000]:
        frames = sign([json.dumps(HEADER).encode(), b"{}", b"{}", b'{"a":' * depth + b"1" + b"}" * depth])
        outcome = decode(Codec(KEY), frames)
        outcomes.add(outcome if isinstance(outcome, str) else "accepted")
    assert outcomes == {"accepted", "json"}


def test_what_pythons_json_module_writes_beyond_json_is_understood():
    assert loads(b'{"a":"\\ud800"}') == {"a": "\ud800"}
    assert loads(b'{"a":[Infinity,-Infinity,1e999]}') == {"a": [math.inf, -math.inf, math.inf]}
    assert math.isnan(loads(b'{"a":NaN}')["a"])


def test_bytes_that_are_no_utf8_are_replaced():
    # jupyter_client writes half a surrogate pair as the byte it stands for.
    assert loads(b'{"a":"b\xffc"}') == {"a": "b\ufffdc"}
    session = Session(key=KEY)
    frames = session.serialize(session.msg("stream", content={"text": "b\udcffc"}))
    assert Codec(KEY).decode("iopub", frames).content == {"text": "b\ufffdc"}


@given(st.none() | st.booleans() | st.integers() | st.lists(st.text()) | st.dictionaries(words, words))
@quick
def test_ids_and_types_that_are_no_text_are_refused(value):
    assert decode(Codec(KEY), frames_of({**HEADER, "msg_id": value})) == "header"
    assert decode(Codec(KEY), frames_of({**HEADER, "msg_type": value})) == "header"
    assert decode(Codec(KEY), frames_of(parent={"msg_id": value})) == "header"


@pytest.mark.parametrize("header", [{}, {"msg_id": "1"}, {"msg_type": "status"}])
def test_a_header_without_id_or_type_is_refused(header):
    assert decode(Codec(KEY), frames_of(header)) == "header"


def test_fields_of_a_header_that_nobody_needs_may_be_missing_or_strange():
    strange = {**HEADER, "session": [], "date": 7, "version": None, "username": {}, "unknown": "field"}
    message = Codec(KEY).decode("iopub", frames_of(strange, parent={"session": 1}))
    assert message.header == strange
    assert message.parent_id is None
