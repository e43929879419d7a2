"""What travels arrives exactly as it was, and what does not travel is refused."""

from __future__ import annotations

import ast
import contextlib
import enum
import math
import os
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from anykernel._protocol import SEPARATOR, served_source
from anykernel._protocol import values as _values
from anykernel._protocol.values import CannotTravelError, decode, describe, encode

from ..helpers.strategies import quick, thorough


def travelled(value, *, copy=False, received=bytearray):
    """A value as it comes out of the buffers that the other side receives."""
    return decode([received(buffer) for buffer in encode(value, copy=copy)])


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and type(a) is float:
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    if type(a) is complex:
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, np.ndarray):
        order = a.flags.f_contiguous and not a.flags.c_contiguous
        return (
            (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
            and a.dtype.byteorder == b.dtype.byteorder
            and order == (b.flags.f_contiguous and not b.flags.c_contiguous)
            and b.flags.writeable
        )
    if isinstance(a, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return a == b


text = st.text(st.characters(exclude_categories=()))  # lone surrogates included
hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.complex_numbers(allow_nan=False) | text | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
dtypes = (
    npst.scalar_dtypes()
    | npst.complex_number_dtypes()
    | npst.unicode_string_dtypes()
    | npst.byte_string_dtypes()
    | npst.array_dtypes()
    | npst.nested_dtypes(max_leaves=4, max_itemsize=64)
)
arrays = npst.arrays(dtypes, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
values = st.recursive(
    hashable | st.floats() | st.complex_numbers() | st.binary().map(bytearray) | st.sets(hashable, max_size=3) | arrays,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hashable, inner, max_size=4) | st.tuples(inner),
    max_leaves=8,
)


@thorough
@given(values, st.booleans(), st.sampled_from([bytes, bytearray, lambda buffer: memoryview(bytearray(buffer))]))
def test_any_value_travels_exactly(value, copy, received):
    assert same(value, travelled(value, copy=copy, received=received))


def test_values_at_the_edge_of_json_travel():
    for value in (10**5000, -(2**64), 2**64 - 1, -0.0, float("-inf"), "\ud83d\ude00", "\0", (), [[]]):
        assert same(value, travelled(value))


base = np.arange(24, dtype="<i4").reshape(2, 3, 4)


@pytest.mark.parametrize(
    "array",
    [
        base,
        np.asfortranarray(base),
        base.astype(">i4"),
        base[::2, ::-1],
        base.T[1:],
        np.broadcast_to(base, (5, 2, 3, 4)),
        np.zeros((0, 3), "M8[25s]"),
        np.zeros((3, 0), order="F"),
        np.array("2020-01-01", "M8[D]"),
        np.array(["NaT", 5], "m8[ns]"),
        np.zeros(3, np.dtype([("a", ">u2"), ("b", "f8", (2, 2)), (("title", "c"), "S3")], align=True)),
        np.zeros(2, {"names": ["b", "a"], "formats": ["i4", "i2"], "offsets": [4, 0], "itemsize": 16}),
        np.zeros(2, {"names": ["whole", "low"], "formats": ["u4", "u2"], "offsets": [0, 0]}),
        np.array([True, False]),
        np.zeros(2, np.longdouble),
        np.zeros(2, "V5"),
    ],
    ids=lambda a: f"{a.dtype.str}{a.shape}",
)
def test_arrays_of_any_layout_travel(array):
    array.flags.writeable = False
    back = travelled(array)
    assert back.dtype == array.dtype
    assert back.dtype.isalignedstruct == array.dtype.isalignedstruct
    assert (back.shape, back.tobytes(), back.flags.writeable) == (array.shape, array.tobytes(), True)
    if array.flags.forc:
        assert (back.flags.c_contiguous, back.flags.f_contiguous) == (
            array.flags.c_contiguous,
            array.flags.f_contiguous,
        )


@pytest.mark.parametrize(
    "scalar",
    [np.float64(0.1), np.bool_(True), np.datetime64("NaT", "s"), np.str_("a\0"), np.bytes_(b"a\0"), np.int8(-1)],
)
def test_numpy_scalars_stay_numpy_scalars(scalar):
    assert same(scalar, travelled(scalar))


def test_the_buffers_of_an_array_are_its_own_memory_unless_a_copy_is_asked_for():
    array = np.zeros(1000)
    view, copied = encode(array)[1], encode(array, copy=True)[1]
    array[0] = 1
    assert np.frombuffer(view)[0] == 1
    assert np.frombuffer(copied)[0] == 0
    received = bytearray(view)
    back = decode([encode(array)[0], received])
    back[1] = 2
    assert np.frombuffer(received)[1] == 2  # no copy either


FRAMES = {
    "numbers": pd.DataFrame({"a": [1, 2], "b": [1.5, np.nan], "c": np.array([1, 2], "f2"), "d": [True, False]}),
    "text": pd.DataFrame({"s": ["x", None]}),
    "categories": pd.DataFrame({"c": pd.Categorical(["a", "b"], categories=["b", "a", "z"], ordered=True)}),
    "times": pd.DataFrame({"t": pd.date_range("2020", periods=3, tz="Europe/Paris"), "d": pd.to_timedelta([1, 2, 3])}),
    "time index": pd.DataFrame({"v": [1, 2, 3]}, index=pd.date_range("2020", periods=3, freq="h", name="when")),
    "one column": pd.DataFrame({"v": [1.0, 2.0]}),
    "seconds": pd.DataFrame({"t": np.array(["2020", "NaT"], "M8[s]")}),
    "range index": pd.DataFrame({"v": [1, 2, 3]}, index=pd.RangeIndex(2, 8, 2, name="r")),
    "levels": pd.DataFrame({"v": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", None])),
    "column levels": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_product([["a"], ["x", "y"]], names=["p", "q"])),
    "number columns": pd.DataFrame([[1, 2], [3, 4]]),
    "nullable": pd.DataFrame({"a": pd.array([1, None], "Int16"), "b": pd.array([True, None], "boolean")}),
    "period": pd.DataFrame({"p": pd.period_range("2020", periods=2, freq="M"), "i": pd.interval_range(0, 2)}),
    "objects": pd.DataFrame(
        {"b": [b"x", None], "s": pd.Series(["x", "y"], dtype=object), "i": pd.Series([1, 2], dtype=object)}
    ),
    "empty": pd.DataFrame(),
    "no rows": pd.DataFrame({"a": np.array([], "i2")}),
}


@pytest.mark.parametrize("received", [bytes, bytearray])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_frames_travel_with_index_and_dtypes(frame, received):
    back = travelled([frame], received=received)[0]
    pd.testing.assert_frame_equal(frame, back, check_exact=True, check_freq=True)
    assert type(back.index) is type(frame.index)
    if len(frame) > 1:
        back.iloc[0, 0] = back.iloc[1, 0]  # it can be changed
    for name, column in frame.items():
        pd.testing.assert_series_equal(column, travelled(column), check_exact=True, check_freq=True)
        assert travelled(column).name == name
        assert travelled(column.rename(None)).name is None


def with_attrs(frame, attrs):
    frame.attrs = attrs
    return frame


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=["a", 1]),
        pd.DataFrame({"o": pd.Series([1, None], dtype=object)}),
        pd.DataFrame({"o": pd.Series(["a", 2], dtype=object)}),
        pd.DataFrame({"o": [[1], [2]]}),
        pd.DataFrame({"c": [1j]}),
        pd.DataFrame({"o": pd.Series(["\ud800"], dtype=object)}),
        pd.DataFrame({"o": [object()]}),
        pd.DataFrame({"o": [2**70, 1]}),
        pd.DataFrame({"v": [1]}).set_flags(allows_duplicate_labels=False),
        with_attrs(pd.DataFrame({"v": [1]}), {"k": (1, 2)}),
        with_attrs(pd.DataFrame({"v": [1]}), {1: 2}),
        with_attrs(pd.Series([1]), {"k": [np.float64(1)]}),
    ],
)
def test_frames_that_would_come_back_changed_are_refused(frame):
    with pytest.raises(CannotTravelError, match=r"by Arrow.*not come back"):
        encode(frame)


def test_attrs_that_json_has_an_exact_form_for_travel():
    attrs = {"k": [1, {"x": 1.5}, None]}
    frame = with_attrs(pd.DataFrame({"v": [1, 2]}), attrs)
    assert travelled(frame).attrs == travelled(frame["v"]).attrs == attrs


def test_arrow_tables_travel():
    table = pa.table({"a": [1, None], "n": [{"x": [1]}, None]}).replace_schema_metadata({"k": "v"})
    batch = pa.record_batch({"d": pa.array(["a", "b", "a"]).dictionary_encode()})
    back = travelled({"t": table, "b": batch, "none": batch[:0]})
    assert back["t"].equals(table, check_metadata=True)
    assert type(back["b"]) is pa.RecordBatch
    assert back["b"].equals(batch)
    assert back["none"].num_rows == 0


class Text(str):
    __slots__ = ()


class Color(enum.IntEnum):
    RED = 1


REFUSED = [object(), Text("x"), Color.RED, OrderedDict(), len, range(3), memoryview(b""), pd.Timestamp(0), pd.NA]
REFUSED += [pd.Index([1]), np.ma.array([1]), np.array([1]).view(np.recarray), np.array(["x"], np.dtypes.StringDType())]
REFUSED += [np.array([None]), np.zeros(1, [("o", object)]), np.zeros(1, [("o", object, 2)])]
REFUSED += [np.zeros(1, np.dtype("i4", metadata={"k": 1}))]
record = np.dtype((np.record, [("a", "i4")]))  # which equals its plain dtype
REFUSED += [np.zeros(1, record)[0], np.zeros(1, record), np.zeros(1, [("inner", record)])]


@pytest.mark.parametrize("value", REFUSED, ids=lambda v: type(v).__name__)
def test_what_does_not_travel_is_refused_with_its_place_and_type(value):
    with pytest.raises(CannotTravelError) as caught:
        encode({"x": [1, (value,)]})
    assert caught.value.path == ["x", 1, 0]
    assert "dtype" in str(caught.value) or f"{type(value).__qualname__}; what travels:" in str(caught.value)
    assert describe("v", caught.value.path, caught.value).startswith("v['x'][1][0] cannot travel: ")


def test_objects_are_never_pickled():
    with pytest.raises(CannotTravelError, match="objects would have to be pickled, which runs code"):
        encode(np.array([print]))
    node, data = encode(np.zeros(1, "i8"))
    for dtype in (b'"|O8"', b'"O,i4"', b'["sub","O",[1]]', b'["fields",["a"],["O"],[0],[null],8,false]'):
        with pytest.raises(ValueError, match="dtype"):
            decode([node.replace(b'"<i8"', dtype), data])  # numbers taken for pointers would crash


def test_what_holds_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(CannotTravelError, match="holds itself") as caught:
        encode(endless)
    assert describe("x", caught.value.path, caught.value).startswith("x[0][0][0][0][0][...] cannot travel")


@quick
@given(st.lists(st.binary(), max_size=3), st.data())
def test_buffers_of_any_other_kind_raise_and_nothing_worse(buffers, data):
    good = encode([b"x", np.zeros(3), {"k": (1,)}])
    at = data.draw(st.integers(0, len(good[0]) - 1))
    broken = bytes([*good[0][:at], data.draw(st.integers(0, 255)), *good[0][at + 1 :]])
    for attempt in (buffers, [broken, *good[1:]], good[:2]):
        # (SyntaxError is what NumPy makes of some types' names.)
        with contextlib.suppress(ValueError, TypeError, LookupError, AttributeError, OverflowError, SyntaxError):
            decode(attempt)


SERVED = Path(_values.__file__).with_name("served.py")


def test_what_is_sent_to_kernels_needs_nothing_but_the_standard_library_of_an_old_python():
    assert served_source().split(SEPARATOR) == [Path(_values.__file__).read_text(), SERVED.read_text()]
    for part in served_source().split(SEPARATOR):
        ast.parse(part, feature_version=(3, 8))
    code = (
        "import sys\n"
        f"for file in ({_values.__file__!r}, {str(SERVED)!r}):\n"
        "    exec(compile(open(file).read(), 'x', 'exec'))\n"
        "assert decode(encode([1, (b'x',)])) == [1, (b'x',)]\n"
        "assert not {'numpy', 'pandas', 'pyarrow', 'anykernel', 'IPython'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-S", "-c", code], check=True, timeout=60)


SETS = """
import numpy as np
from anykernel._protocol.values import encode
letters = 'abcdefgh'
sets = [set(letters), set(map(str.encode, letters)), {*letters, *range(8), None, 1.5}, {8, 0, 16}, {16, 8, 0}]
sets += [{(a, b, b'x') for a in letters for b in letters}, {frozenset(letters), frozenset('xyz'), frozenset()}]
sets += [{(frozenset({('a', frozenset(letters))}), letter.encode()) for letter in letters}]
sets += [{np.str_('n'), 'm', np.float64(0.1), np.float32(0.1), 2**70, 2**99999}]
print([bytes(buffer) for buffer in encode(list(map(frozenset, sets)))])
"""


def test_sets_are_encoded_alike_in_every_process():
    texts = {
        subprocess.run(
            [sys.executable, "-c", SETS], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3", "4")
    }
    assert len(texts) == 1


def test_what_nobody_comes_to_await_is_dropped_at_last():
    async def result():
        return 1

    kernel = SimpleNamespace(get_parent=lambda: {"header": {"msg_id": f"request {i}"}})
    served = {}
    for part in served_source().split(SEPARATOR):  # as the kernel runs it
        exec(compile(part, "<anykernel>", "exec"), served)
    for i in range(served["_MOST_AWAITABLES"] + 2):
        assert served["_keep"](kernel, result()) == f"request {i}"
    kept = served["_awaitables"]
    for coroutine in kept.values():
        coroutine.close()
    assert len(kept) == served["_MOST_AWAITABLES"]
    assert f"request {i}" in kept


def test_members_of_sets_that_do_not_travel_are_refused_and_not_asked_for_their_text():
    class Mute:
        def __repr__(self):
            raise AssertionError

    deep = ()
    for _ in range(2000):
        deep = (deep,)
    for member, reason in ((Mute(), "of type .*Mute"), ((1, (Mute(),)), "of type .*Mute"), (deep, "nested more than")):
        with pytest.raises(CannotTravelError, match=reason):
            encode({member, "text"})


def test_arrow_data_that_lies_about_itself_is_refused():
    table = pa.table({"text": ["first", "second", "third"]})
    for value in (table, table.to_batches()[0]):
        buffers = encode(value)
        data = bytearray(buffers[-1])
        offsets = struct.pack("<4i", 0, 5, 11, 16)
        assert decode([*buffers[:-1], bytes(data)]) is not None
        where = data.index(offsets)
        data[where : where + 16] = struct.pack("<4i", 0, 5, 2**30, 2**30 + 5)  # far behind the data
        with pytest.raises(ValueError, match=r"offset|length"):
            decode([*buffers[:-1], bytes(data)])


ARROW = pa.table(
    {
        "text": ["first", "second", None],
        "lists": [[1], [], [2, 3]],
        "category": pa.array(["a", "b", "a"]).dictionary_encode(),
        "records": [{"a": 1, "b": b"x"}, None, {"a": 2, "b": b""}],
        "flags": [True, None, False],
    }
)


@thorough
@given(st.data())
def test_arrow_data_that_is_changed_anywhere_is_refused_or_can_be_used(data):
    node, stream = encode(ARROW)
    words = list(struct.unpack(f"<{len(stream) // 4}i", stream))
    at = data.draw(st.integers(0, len(words) - 1))
    words[at] = data.draw(st.sampled_from([0, 1, -1, 7, 2**30, 2**31 - 1, -(2**31)]) | st.integers(-(2**31), 2**31 - 1))
    with contextlib.suppress(ValueError, TypeError, LookupError, OSError, OverflowError, NotImplementedError):
        decode([node, struct.pack(f"<{len(words)}i", *words)]).to_pylist()


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ('"|V0"', "[-1]"),  # NumPy divides the buffer's length by the item's
        ('"<i4"', "[-1]"),
        ('"<i4"', "[-2,-1]"),
        ('"<i4"', "[1]"),  # another's memory would stay hidden behind it
        ('"<i4"', "[3]"),
        ('"<i4"', "[4294967296,4294967296]"),
        ('"<i4"', "[0,-1]"),
        ('"<i4"', "[true,2]"),
        ('"<i4"', "[2.0]"),
        ('["sub","<i4",[3]]', "[1]"),
        ('["fields",["a"],["<i4"],[8],[null],12,false]', "[1]"),
        ('["fields",["a"],["<i4"],[-4],[null],8,false]', "[1]"),
        ('["fields",["a"],["<i4"],[8],[null],8,false]', "[1]"),
    ],
)
def test_numpy_data_that_lies_about_itself_is_refused(dtype, shape):
    node, data = encode(np.zeros(2, "i4"))
    assert node == b'["array","<i4",[2],"C",0]'
    lie = node.replace(b'"<i4"', dtype.encode()).replace(b"[2]", shape.encode())
    with pytest.raises(ValueError, match=r"shape|bytes for|offset|itemsize"):
        decode([lie, data])


@pytest.mark.parametrize("dtype", ["<U2", ">U2", [("a", "i2"), ("b", "<U2", (2,))]])
def test_text_of_numpy_is_looked_at_for_what_is_no_character(dtype):
    array = np.zeros(3, dtype)
    (array if array.dtype.names is None else array["b"])[1] = "\U0010ffff\ud800"
    node, data = encode(array)
    assert same(decode([node, bytearray(data)]), array)
    last = "\U0010ffff".encode("utf-32-be" if array.dtype.str[0] == ">" else "utf-32-le")
    with pytest.raises(ValueError, match="no character"):
        decode([node, bytes(data).replace(last, last.replace(b"\x10", b"\x11"))])


def test_an_arrow_that_runs_code_of_what_it_reads_is_not_used(monkeypatch):
    buffers = encode(pa.table({"n": [1]}))
    monkeypatch.setattr(pa, "__version__", "14.0.0")
    with pytest.raises(ImportError, match=r"14\.0\.1 or newer"):
        decode(buffers)
