"""Python values as binary buffers and back. No I/O.

How this works. `encode` gives a list of buffers: the first is JSON, a tree in which everything that JSON has no exact
form for is a list that starts with a tag; the others are the data of bytes, arrays and tables, which the tree refers
to by their number. `decode` makes the value of them. Nothing is ever pickled, and only values of exactly the known
types travel: reading what came runs no code of the other side.

**This module's text is sent to the kernel** and runs there, with that of ``served`` behind it. So it imports nothing of
this package, imports other libraries only where they are used, and keeps to what any Python from 3.8 on understands.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module
from typing import Any

__all__ = ["MAIL", "MISSING", "CannotTravelError", "decode", "describe", "encode"]

TRAVELLING = (
    "None, bool, int, float, complex, str, bytes and bytearray, lists, tuples, sets, frozensets and dicts of them, "
    "NumPy arrays and scalars, pandas DataFrames and Series, and Arrow tables and record batches"
)

# How many bits an int may have to be written in decimal: beyond, Python's limit of digits would come into play.
_INT_BITS = 64
# How deep values may be nested, so that neither side runs out of stack.
_DEPTH = 100
# Kinds of NumPy data that are what their bytes say; objects ("O") would be pointers, and are never pickled.
_KINDS = frozenset("biufcmMSUV")

# What names the request in the data of a comm's message that brings its buffers.
MAIL = "anykernel_request"
# The name of the error of kernels that lack what it takes; nothing else raises such.
MISSING = "AnykernelMissing"


class CannotTravelError(TypeError):
    """Raised by `encode` for a value that has no exact form; ``str()`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[Any] = []
        """The keys and indices that lead to it, from the outermost."""


def encode(value: Any, *, copy: bool = False) -> list[Any]:
    """The buffers of a value: bytes, and memoryviews of the value's own memory.

    Args:
        value: of the types that `TRAVELLING` names, exactly: a subclass would come back as something else.
        copy: leave no view of memory that can change; for where the buffers are sent later.

    Raises:
        CannotTravelError: it holds something that has no exact form.
    """
    encoder = _Encoder(copy)
    tree = encoder.node(value)
    return [json.dumps(tree, separators=(",", ":")).encode(), *encoder.buffers]


def describe(subject: str, path: Any, error: CannotTravelError) -> str:
    """What cannot travel, and why: the error for people."""
    shown = [f"[{step!r}]" for step in path[:5]] + ["[...]"] * (len(path) > 5)
    return f"{subject}{''.join(shown)} cannot travel: {error}"


def decode(buffers: Any) -> Any:
    """The value of buffers that `encode` made. Arrays view the buffers that are writable, and copy the others.

    Raises:
        ImportError: a library that it needs is not installed.
        Exception: the buffers are not what `encode` makes.
    """
    return _Decoder(buffers[1:]).value(json.loads(bytes(buffers[0])))


class _Encoder:
    def __init__(self, copy: bool) -> None:
        self.copy = copy
        self.buffers: list[Any] = []
        self.depth = 0

    def add(self, data: Any, *, copy: bool = False) -> int:
        """Append a buffer; its number."""
        self.buffers.append(bytes(data) if copy else data)
        return len(self.buffers) - 1

    def node(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is float:
            return value
        if kind is int:
            return value if value.bit_length() <= _INT_BITS else ["int", hex(value)]
        if kind is str:
            try:
                if not value.isascii():
                    value.encode()
                return value
            except UnicodeEncodeError:  # JSON would join two lone surrogates to one character
                return ["str", self.add(value.encode("utf-8", "surrogatepass"))]
        if kind is list or kind is tuple:
            return [kind.__name__, self.nodes(value, range(len(value)))]
        if kind is set or kind is frozenset:
            return [kind.__name__, self.nodes(_in_order(value))]
        if kind is dict:
            return ["dict", self.nodes(value), self.nodes(value.values(), list(value))]
        if kind is bytes:
            return ["bytes", self.add(value)]
        if kind is bytearray:
            return ["bytearray", self.add(memoryview(value), copy=self.copy)]
        if kind is complex:
            return ["complex", value.real, value.imag]
        for library, method in (("numpy", self.numpy), ("pandas", self.pandas), ("pyarrow", self.arrow)):
            module = sys.modules.get(library)  # only if it is there already can a value be of one of its types
            node = method(value, kind, module) if module else None
            if node is not None:
                return node
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        raise CannotTravelError(f"it is of type {name}; what travels: {TRAVELLING}")

    def nodes(self, values: Any, steps: Any = None) -> list[Any]:
        nodes: list[Any] = []
        self.depth += 1
        if self.depth > _DEPTH:
            raise CannotTravelError(f"it is nested more than {_DEPTH} times, or holds itself")
        try:
            for value in values:
                nodes.append(value if type(value) is float else self.node(value))  # noqa: PERF401 - see below
        except CannotTravelError as exc:
            if steps is not None:
                exc.path.insert(0, steps[len(nodes)])
            raise
        self.depth -= 1
        return nodes

    def numpy(self, value: Any, kind: Any, np: Any) -> Any:
        if kind is np.ndarray:
            return ["array", *self.array(value, np)]
        if not issubclass(kind, np.generic) or kind.__module__ != "numpy":
            return None
        if kind is np.str_ or kind is np.bytes_:  # an array would cut trailing zeros off
            return [kind.__name__, self.node(value[:])]  # the slice is a plain str or bytes
        return ["scalar", *self.array(np.asarray(value), np)]

    def array(self, array: Any, np: Any) -> list[Any]:
        dtype = _dtype_node(array.dtype, np)
        if _dtype(dtype, np) != array.dtype:  # such as those of other libraries
            raise CannotTravelError(f"its dtype {array.dtype} is not one of NumPy's own")
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        flat = array.T if order == "F" else array
        own = flat if flat.flags.c_contiguous else np.ascontiguousarray(flat)
        data: Any = memoryview(own.reshape(-1).view(np.uint8)) if own.nbytes else b""
        return [dtype, list(array.shape), order, self.add(data, copy=self.copy and own is flat)]

    def pandas(self, value: Any, kind: Any, pd: Any) -> Any:
        if kind is pd.Series:
            return ["Series", self.node(value.name), *self.frame(value.to_frame("values"), pd)]
        return ["DataFrame", *self.frame(value, pd)] if kind is pd.DataFrame else None

    def frame(self, frame: Any, pd: Any) -> list[Any]:
        try:
            pa = import_module("pyarrow")
        except ImportError:
            raise CannotTravelError("pandas values travel by Arrow, and pyarrow is not installed here") from None
        # Arrow makes strings of objects that are all strings: which columns held objects must be told.
        objects = [i for i, dtype in enumerate(frame.dtypes) if str(dtype) == "object"]
        has_freq = isinstance(frame.index, (pd.DatetimeIndex, pd.TimedeltaIndex))
        freq = frame.index.freqstr if has_freq else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # what Arrow warns of would change the labels
                table = pa.Table.from_pandas(frame)
            _check_same(frame, _frame_of(table, objects, freq), objects)
        except Exception as exc:  # whatever Arrow, extension types and objects in columns raise
            raise CannotTravelError(
                f"pandas values travel by Arrow, and this one would not come back the same: {exc}"
            ) from exc
        return [objects, freq, self.table(table, pa)]

    def arrow(self, value: Any, kind: Any, pa: Any) -> Any:
        if kind is pa.Table or kind is pa.RecordBatch:
            return [kind.__name__, self.table(value, pa)]
        return None

    def table(self, table: Any, pa: Any) -> int:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write(table)
        return self.add(memoryview(sink.getvalue()).cast("B"))


def _in_order(members: Any) -> Any:
    # Text and bytes are hashed anew in each process, and a replay finds requests by their buffers.
    natural = set(map(type, members)) in ({str}, {bytes}, {int})
    return sorted(members, key=None if natural else _rank)


def _rank(member: Any, depth: int = 0) -> str:
    """Text to sort the members of a set by, the same in every process."""
    kind = type(member)
    if kind.__module__ not in ("builtins", "numpy") or depth > _DEPTH:
        return ""  # it will be refused
    if kind is tuple or kind is frozenset:
        ranks = [_rank(inner, depth + 1) for inner in member]
        return f"{kind.__name__}({','.join(ranks if kind is tuple else sorted(ranks))})"
    return hex(member) if kind is int else f"{kind.__name__} {member!r}"


# Older ones unpickle what an extension type in a stream's schema says.
_SAFE_ARROW = (14, 0, 1)


def _validated(data: Any) -> Any:
    """Arrow data whose offsets and lengths have all been looked at: Arrow itself trusts what it reads, and would read on."""
    data.validate(full=True)
    return data


class _Decoder:
    def __init__(self, buffers: Any) -> None:
        self.buffers = buffers

    def value(self, node: Any) -> Any:
        if type(node) is not list:
            return node
        tag, *rest = node
        return _DECODERS[tag](self, *rest)

    def values(self, nodes: Any) -> Any:
        return (self.value(node) if type(node) is list else node for node in nodes)

    def dict(self, keys: Any, values: Any) -> Any:
        return dict(zip(self.values(keys), self.values(values)))  # noqa: B905 - Python 3.9 has no strict=

    def array(self, dtype: Any, shape: Any, order: str, number: int) -> Any:
        np = import_module("numpy")
        data, dtype = memoryview(self.buffers[number]), _dtype(dtype, np)
        _check_size(shape, dtype.itemsize, data.nbytes)
        array = np.ndarray(shape, dtype, bytearray(data) if data.readonly else data, order=order)
        _check_text(array, np)
        return array

    def frame(self, objects: Any, freq: Any, number: int) -> Any:
        return _frame_of(self.table(number), objects, freq)

    def series(self, name: Any, *frame: Any) -> Any:
        return self.frame(*frame)["values"].rename(self.value(name))

    def table(self, number: int) -> Any:
        return _validated(self.stream(number).read_all())

    def batch(self, number: int) -> Any:
        return _validated(self.stream(number).read_next_batch())

    def stream(self, number: int) -> Any:
        pa = import_module("pyarrow")
        version = tuple(int(part) for part in pa.__version__.split(".")[:3] if part.isdigit())
        if version < _SAFE_ARROW:
            raise ImportError(
                "pyarrow " + pa.__version__ + " runs code that is hidden in what it reads (CVE-2023-47248); "
                "14.0.1 or newer is needed"
            )
        return pa.ipc.open_stream(pa.py_buffer(self.buffers[number]))


_DECODERS: dict[str, Any] = {
    "int": lambda _, text: int(text, 16),
    "str": lambda d, number: str(d.buffers[number], "utf-8", "surrogatepass"),
    "bytes": lambda d, number: bytes(d.buffers[number]),
    "bytearray": lambda d, number: bytearray(d.buffers[number]),
    "complex": lambda _, real, imag: complex(real, imag),
    "list": lambda d, nodes: list(d.values(nodes)),
    "tuple": lambda d, nodes: tuple(d.values(nodes)),
    "set": lambda d, nodes: set(d.values(nodes)),
    "frozenset": lambda d, nodes: frozenset(d.values(nodes)),
    "dict": _Decoder.dict,
    "array": _Decoder.array,
    "scalar": lambda d, *array: d.array(*array)[()],
    "str_": lambda d, node: import_module("numpy").str_(d.value(node)),
    "bytes_": lambda d, node: import_module("numpy").bytes_(d.value(node)),
    "DataFrame": _Decoder.frame,
    "Series": _Decoder.series,
    "Table": _Decoder.table,
    "RecordBatch": _Decoder.batch,
}


def _dtype_node(dtype: Any, np: Any) -> Any:
    """The tree of a NumPy dtype: its code, or for structures and subarrays what they are made of."""
    if dtype.hasobject:
        raise CannotTravelError(
            f"it is a NumPy array of dtype {dtype}: objects would have to be pickled, which runs code"
        )
    is_plain = dtype.kind != "V" or dtype.type is np.void  # not np.record, which equals it
    if dtype.kind not in _KINDS or dtype.metadata or not is_plain:
        raise CannotTravelError(f"NumPy data of {dtype!r} have no exact form")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ["sub", _dtype_node(base, np), list(shape)]
    if dtype.names is None:
        return dtype.str
    fields = [(*dtype.fields[name], None)[:3] for name in dtype.names]  # a field without a title has two items
    formats, offsets, titles = [_dtype_node(f[0], np) for f in fields], [f[1] for f in fields], [f[2] for f in fields]
    return ["fields", dtype.names, formats, offsets, titles, dtype.itemsize, dtype.isalignedstruct]


def _check_size(shape: Any, itemsize: int, size: int) -> None:
    """Raise a ValueError where an array would have other bytes than came for it.

    NumPy looks at that too, but takes a negative length for a question, and divides by an item's size for the answer.
    """
    for length in shape:
        if type(length) is not int or length < 0:
            raise ValueError(f"shape {shape}")
        itemsize *= length
    if itemsize != size:
        raise ValueError(f"{size} bytes for an array of {itemsize}")


def _check_text(array: Any, np: Any) -> None:
    """Raise a ValueError where text holds what is no character: NumPy trusts it, and Python's functions for text do."""
    dtype = array.dtype
    for name in dtype.names or ():
        _check_text(array[name], np)
    if dtype.kind == "U" and array.size and dtype.itemsize:
        codes = np.ascontiguousarray(array).view(np.dtype("u4").newbyteorder(dtype.byteorder))
        if codes.max() > sys.maxunicode:
            raise ValueError("text of NumPy's with what is no character")


def _dtype(node: Any, np: Any) -> Any:
    if isinstance(node, str):
        dtype = np.dtype(node)
        if dtype.kind not in _KINDS or dtype.hasobject:  # a buffer would be taken for pointers
            raise ValueError(f"dtype {node}")
        return dtype
    if node[0] == "sub":
        return np.dtype((_dtype(node[1], np), tuple(node[2])))
    _, names, formats, offsets, titles, itemsize, align = node
    spec: Any = {"names": names, "offsets": offsets, "itemsize": itemsize}
    spec["formats"] = [_dtype(f, np) for f in formats]
    if any(title is not None for title in titles):
        spec["titles"] = titles
    return np.dtype(spec, align=align)


def _frame_of(table: Any, objects: Any, freq: Any) -> Any:
    frame = table.to_pandas()
    changed = {frame.columns[i]: object for i in objects if str(frame.dtypes.iloc[i]) != "object"}
    if changed:
        frame = frame.astype(changed)
    for i, dtype in enumerate(frame.dtypes):
        if str(dtype) == "category":  # whose codes Arrow leaves read-only
            frame.isetitem(i, frame.iloc[:, i].copy())
    if freq is not None:
        frame.index.freq = freq
    return frame


def _check_same(frame: Any, back: Any, objects: Any) -> None:
    """Raise a ValueError where Arrow gives another frame back: dtypes, labels, attrs, or objects of another type."""
    for what in ("columns", "index"):
        before, after = getattr(frame, what), getattr(back, what)
        if not (before.equals(after) and before.names == after.names and _dtypes(before) == _dtypes(after)):
            raise ValueError(f"its {what} would change")
    if frame.flags != back.flags or encode(frame.attrs) != encode(back.attrs):
        raise ValueError("its flags or attrs would change")
    for i, (before, after) in enumerate(zip(frame.dtypes, back.dtypes)):  # noqa: B905
        same = before == after
        if i in objects:
            pairs = zip(frame.iloc[:, i], back.iloc[:, i])  # noqa: B905
            same = same and all(type(a) is type(b) and (a == b or a != a) for a, b in pairs)  # noqa: PLR0124 - NaN
        if not same:
            raise ValueError(f"the column {frame.columns[i]!r} of dtype {before} would change")


def _dtypes(index: Any) -> Any:
    return list(index.dtypes) if hasattr(index, "dtypes") else index.dtype
