"""An ONNX file without the onnx package: nodes, constants, inputs and outputs, read from protobuf's wire format.

The field numbers are those of onnx.proto3 (ONNX 1.x, IR version 3 and later). What a plan has no use for, such as
subgraphs, is skipped or refused. Reading never runs or allocates anything that the file merely asks for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# TensorProto.DataType -> (dtype, number of the field that holds the values when raw_data does not).
TENSOR_TYPES: dict[int, tuple[np.dtype[Any], int]] = {
    1: (np.dtype("<f4"), 4),
    2: (np.dtype("u1"), 5),
    3: (np.dtype("i1"), 5),
    6: (np.dtype("<i4"), 5),
    7: (np.dtype("<i8"), 7),
}
DEFAULT_DOMAINS = ("", "ai.onnx")
MOST_RANK = 8

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Attribute = int | float | str | tuple[int, ...] | NDArray[Any]
Field = tuple[int, int | memoryview]


class Unreadable(ValueError):
    """The bytes are no ONNX graph of the kind that can be planned; the text says what is wrong, in a few words."""


@dataclass(frozen=True)
class Node:
    """One operator: its kind, the names of the values it takes and makes ("" for one left out), its attributes."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(frozen=True)
class Graph:
    """Nodes in the file's order, constants by name, inputs (constants left out) and outputs by name.

    `shapes`: of the inputs, as far as the file states them; None for a side that is open.
    """

    nodes: tuple[Node, ...]
    constants: dict[str, NDArray[Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: dict[str, tuple[int | None, ...]]


def read(path: Path) -> Graph:
    """The graph of an ONNX file. Raises Unreadable for anything else, OSError when the file cannot be read."""
    return parse(path.read_bytes())


def parse(data: bytes) -> Graph:
    """The graph of a serialized ModelProto. Raises Unreadable for anything else."""
    try:
        graphs = [_message(value) for number, value in _fields(memoryview(data)) if number == 7]
        if len(graphs) != 1:
            raise Unreadable("it holds no graph")
        return _graph(graphs[0])
    except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise error if isinstance(error, Unreadable) else Unreadable(str(error)) from None


def _fields(data: memoryview) -> Iterator[Field]:
    """(number, value) of every field of a message: an int for numbers, a view of the bytes for the rest."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind not in (BYTES, FIXED32, FIXED64):
            raise Unreadable("it is no protobuf message")
        size, position = _varint(data, position) if kind == BYTES else (4 if kind == FIXED32 else 8, position)
        if size > len(data) - position:
            raise Unreadable("it is cut short")
        yield number, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A base-128 number of at most ten bytes and the position behind it."""
    value, shift = 0, 0
    for byte in data[position : position + 10]:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position + shift // 7
    raise Unreadable("it is cut short, or no protobuf message")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise Unreadable("a field has the wrong kind")
    return value


def _text(value: int | memoryview) -> str:
    return str(_message(value), "utf-8")


def _signed(value: int | memoryview) -> int:
    """Two's complement of 64 bits, as int64 fields are written."""
    if not isinstance(value, int) or value >= 2**64:
        raise Unreadable("a field has the wrong kind")
    return value - 2**64 if value >= 2**63 else value


def _integers(value: int | memoryview) -> list[int]:
    """A repeated int64 field: one number, or many packed into bytes."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(_signed(number))
    return numbers


def _graph(data: memoryview) -> Graph:
    nodes: list[Node] = []
    constants: dict[str, NDArray[Any]] = {}
    shapes: dict[str, tuple[int | None, ...]] = {}
    outputs: list[str] = []
    for number, value in _fields(data):
        if number == 1:
            nodes.append(_node(_message(value)))
        elif number == 5:
            constants.update([_tensor(_message(value))])
        elif number == 11:
            shapes.update([_shape(_message(value))])
        elif number == 12:
            outputs.append(_shape(_message(value))[0])
    shapes = {name: shape for name, shape in shapes.items() if name not in constants}
    return Graph(tuple(nodes), constants, tuple(shapes), tuple(outputs), shapes)


def _shape(data: memoryview) -> tuple[str, tuple[int | None, ...]]:
    """Name and shape of a value: ValueInfo.type.tensor_type.shape.dim.dim_value."""
    name = "".join(_text(value) for number, value in _fields(data) if number == 1)
    dims = [data]
    for wanted in (2, 1, 2, 1):
        dims = [_message(value) for each in dims for number, value in _fields(each) if number == wanted]
    return name, tuple(next((_signed(v) for n, v in _fields(dim) if n == 1), None) for dim in dims)


def _node(data: memoryview) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 4: [], 7: []}
    attributes: dict[str, Attribute] = {}
    for number, value in _fields(data):
        if number in texts:
            texts[number].append(_text(value))
        elif number == 5:
            attributes.update(_attribute(_message(value)))
    kind, domain = "".join(texts[4]), "".join(texts[7])
    kind = kind if domain in DEFAULT_DOMAINS else f"{domain}.{kind}"
    return Node(kind, tuple(texts[1]), tuple(texts[2]), attributes)


def _attribute(data: memoryview) -> dict[str, Attribute]:
    """{name: value} of a number, text, tensor or list of integers; {} for kinds that no plan needs."""
    name, value, integers = "", None, []
    for number, field in _fields(data):
        if number == 1:
            name = _text(field)
        elif number == 2:
            (value,) = struct.unpack("<f", _message(field))
        elif number == 3:
            value = _signed(field)
        elif number == 4:
            value = _text(field)
        elif number == 5:
            value = _tensor(_message(field))[1]
        elif number == 8:
            integers += _integers(field)
    if value is None:
        value = tuple(integers)
    return {name: value}


def _tensor(data: memoryview) -> tuple[str, NDArray[Any]]:
    shape: list[int] = []
    name, kind, raw = "", 0, None
    values: dict[int, list[int | memoryview]] = {4: [], 5: [], 7: []}
    for number, value in _fields(data):
        if number == 1:
            shape += _integers(value)
        elif number == 2:
            kind = _signed(value)
        elif number in values:
            values[number].append(value)
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _message(value)
        elif number in (13, 14) and value:
            raise Unreadable("it keeps weights in another file")
    return name, _array(name, kind, shape, raw, values)


def _array(
    name: str, kind: int, shape: list[int], raw: memoryview | None, values: dict[int, list[int | memoryview]]
) -> NDArray[Any]:
    if kind not in TENSOR_TYPES:
        raise Unreadable(f"constant {name!r} has data type {kind}")
    dtype, field = TENSOR_TYPES[kind]
    flat = np.frombuffer(raw, dtype) if raw is not None else _listed(values[field], dtype)
    if len(shape) > MOST_RANK or min(shape, default=1) < 0 or prod(shape) != flat.size:
        raise Unreadable(f"constant {name!r} has not as many values as its shape says")
    return flat.reshape(shape)


def _listed(values: list[int | memoryview], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values written one by one rather than as raw_data."""
    if dtype.kind == "f":
        return np.concatenate([np.zeros(0, dtype), *(np.frombuffer(_message(v), dtype) for v in values)])
    return np.array([number for value in values for number in _integers(value)], np.int64).astype(dtype)
