"""The bytes of a model file: named texts inside an ONNX protobuf, a digest over all of them, and what must not be there.

An ONNX file is a protobuf message, which is walked here by hand: workers need no `onnx` package, and nothing parses a
graph before it is known to be undamaged and to hold all that it needs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence

from coffea_ad.errors import BadModel

__all__ = [
    "CARD_KEY",
    "check_graph",
    "network_digest",
    "output_names",
    "part_for",
    "read_texts",
    "runtime_reason",
    "seal",
    "verify",
    "with_texts",
]

CARD_KEY = "coffea_ad.card"
_DIGEST_KEY = "coffea_ad.digest"
_DIGEST_LENGTH = 64
_BLANK = "0" * _DIGEST_LENGTH
_GRAPH, _METADATA_PROPS = 7, 14  # field numbers of onnx.ModelProto
_NODE, _INITIALIZER, _OUTPUT, _VALUE_INFO = 1, 5, 12, 13  # of onnx.GraphProto
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")

# Messages of onnx.proto, with the fields in which other messages stand that lead to operators or weights.
_MESSAGES = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "opset": {},
    "tensor": {},
}
_DOMAIN_FIELD = {"opset": 1, "node": 7, "function": 10}
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14


_NEWER = "; export it for an older one, or install a newer onnxruntime"


def runtime_reason(error: BaseException) -> str:
    """Return what onnxruntime says, in one line and without the place in its source.

    >>> runtime_reason(ValueError("[ONNXRuntimeError] : 1 : FAIL : /src/onnxruntime/model.cc:256 ort::Model(const X&) No such thing"))
    'No such thing'
    """
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip().partition("\n")[0])
    place = re.search(r"\S+\.(?:cc|h):\d+ ", text)
    if place:
        text = text[: place.start()] + _behind_signature(text[place.end() :])
    opset = re.search(r"Opset (\d+) is under development.* domain (\S+) is till opset (\d+)", text)
    if opset:
        number, domain, last = opset.groups()
        return f"it is of opset {number} of {domain}, but this onnxruntime knows those up to {last}{_NEWER}"
    version = re.search(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", text)
    if version:
        return f"it is of IR version {version[1]}, but this onnxruntime knows those up to {version[2]}{_NEWER}"
    return text


def _behind_signature(text: str) -> str:
    """Leave out the signature of a C++ function, which ends with the parenthesis of its arguments."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and depth == 0 and text[i + 1 : i + 2] == " ":
            return text[i + 1 :].removeprefix(" const").strip() or text
    return text


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field number, start, start of its payload, end) of the fields of a message, data[at:stop]."""
    while at < stop:
        start = at
        tag, at = _varint(data, at)
        if tag >> 32 or not tag >> 3:  # other readers would cut such a number off, and see another field
            raise IndexError
        kind = tag & 7
        payload = at
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 1:
            at += 8
        elif kind == 2:
            size, payload = _varint(data, at)
            at = payload + size
        elif kind == 5:
            at += 4
        else:
            raise IndexError
        if at > stop:
            raise IndexError
        yield tag >> 3, start, payload, at


def _walk(data: bytes, name: str, at: int = 0, stop: int | None = None) -> list[tuple[int, int, int, int]]:
    try:
        return list(_fields(data, at, len(data) if stop is None else stop))
    except IndexError:
        raise BadModel(f"{name}: this is not an ONNX file, or it is cut short") from None


def _encode(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text_entry(key: str, value: str) -> bytes:
    k, v = key.encode(), value.encode()
    body = b"\x0a" + _encode(len(k)) + k + b"\x12" + _encode(len(v)) + v
    return _encode(_METADATA_PROPS << 3 | 2) + _encode(len(body)) + body


def _texts(data: bytes, name: str) -> Iterator[tuple[str, str, int, int]]:
    for field, start, payload, end in _walk(data, name):
        if field == _METADATA_PROPS:
            body = data[payload:end]
            parts = {f: body[p:e] for f, _, p, e in _walk(body, name)}
            try:
                yield parts.get(1, b"").decode(), parts.get(2, b"").decode(), start, end
            except UnicodeDecodeError:
                raise BadModel(f"{name}: its metadata is damaged") from None


def read_texts(data: bytes, name: str = "model") -> dict[str, str]:
    """Return the metadata texts of an ONNX file.

    Raises
    ------
    BadModel
        The bytes are not an ONNX file.
    """
    return {key: value for key, value, _, _ in _texts(data, name)}


def with_texts(data: bytes, texts: dict[str, str], name: str = "model") -> bytes:
    """Return the file with these metadata texts set; other texts and the graph stay byte for byte."""
    out, at = bytearray(), 0
    for key, _, start, end in _texts(data, name):
        if key in texts:
            out += data[at:start]
            at = end
    out += data[at:]
    for key, value in texts.items():
        out += _text_entry(key, value)
    return bytes(out)


def check_graph(data: bytes, name: str = "model") -> None:
    """Check that a graph holds all its weights, and takes operators of ONNX's own domains only.

    All places are looked at: opset imports, nodes, functions, initializers, attributes and subgraphs.

    Raises
    ------
    BadModel
        A tensor lies in another file, or an operator is of a foreign domain; the message names it.
    """
    waiting = [("model", 0, len(data))]
    while waiting:
        kind, at, stop = waiting.pop()
        label, outside = "", False
        for field, _, payload, end in _walk(data, name, at, stop):
            inner = _MESSAGES[kind].get(field)
            if inner is not None:
                waiting.append((inner, payload, end))
            elif field == _DOMAIN_FIELD.get(kind):
                domain = data[payload:end].decode(errors="replace")
                if domain not in _DOMAINS:
                    raise BadModel(f"{name}: it uses operators of a foreign domain: {domain}")
            elif kind == "tensor" and field == _TENSOR_NAME:
                label = data[payload:end].decode(errors="replace")
            elif kind == "tensor" and field in (_EXTERNAL_DATA, _DATA_LOCATION):
                outside |= field == _EXTERNAL_DATA or data[payload:end].strip(b"\x00") != b""
        if outside:
            raise BadModel(f"{name}: the weights {label!r} lie in another file; a model must be one file")


def _names(data: bytes, name: str, span: tuple[int, int], field: int) -> list[str]:
    """Return the texts in one field of a message."""
    return [data[p:e].decode(errors="replace") for number, _, p, e in _walk(data, name, *span) if number == field]


def _graph(data: bytes, name: str) -> tuple[int, int, int]:
    """Return start, start of the payload, and end of the graph."""
    graphs = [(start, payload, end) for field, start, payload, end in _walk(data, name) if field == _GRAPH]
    if len(graphs) != 1:
        raise BadModel(f"{name}: it holds {len(graphs)} graphs, not one")
    return graphs[0]


def output_names(data: bytes, name: str = "model") -> list[str]:
    """Return the names of the graph's outputs."""
    _, at, stop = _graph(data, name)
    outputs = [(p, e) for field, _, p, e in _walk(data, name, at, stop) if field == _OUTPUT]
    return [text for span in outputs for text in _names(data, name, span, 1)]


def _read_by(data: bytes, name: str, node: tuple[int, int]) -> set[str]:
    """Return all values that a node may read, those that its subgraphs take from outside included."""
    read: set[str] = set()
    waiting = [("node", *node)]
    while waiting:
        kind, at, stop = waiting.pop()
        for field, _, payload, end in _walk(data, name, at, stop):
            if kind == "node" and field == 1:
                read.add(data[payload:end].decode(errors="replace"))
            elif kind == "graph" and field == _OUTPUT:
                read |= set(_names(data, name, (payload, end), 1))
            elif _MESSAGES[kind].get(field) in ("attribute", "graph", "node"):
                waiting.append((_MESSAGES[kind][field], payload, end))
    return read


def part_for(data: bytes, output: str | Sequence[str], name: str = "model") -> bytes:
    """Return the file with the part of its graph that one output needs, or several do.

    The runtime executes a whole graph, whatever it is asked for: its option for less works in training builds only.
    """
    start, at, stop = _graph(data, name)
    entries = _walk(data, name, at, stop)
    wanted_outputs = {output} if isinstance(output, str) else set(output)
    needed, dropped = set(wanted_outputs), set()
    for field, begin, payload, end in reversed(entries):  # nodes stand after what they read
        if field == _NODE:
            if needed.isdisjoint(_names(data, name, (payload, end), 2)):
                dropped.add(begin)
            else:
                needed |= _read_by(data, name, (payload, end)) - {""}
    named = {_OUTPUT: 1, _INITIALIZER: _TENSOR_NAME, _VALUE_INFO: 1}
    for field, begin, payload, end in entries:
        if field in named:
            wanted = wanted_outputs if field == _OUTPUT else needed
            if wanted.isdisjoint(_names(data, name, (payload, end), named[field])):
                dropped.add(begin)
    graph = b"".join(data[begin:end] for _, begin, _, end in entries if begin not in dropped)
    return data[:start] + _encode(_GRAPH << 3 | 2) + _encode(len(graph)) + graph + data[stop:]


def network_digest(data: bytes, name: str = "model") -> str:
    """Return a digest of the file without its metadata: the same for all cards on one network."""
    out, at = hashlib.sha256(), 0
    for field, start, _, end in _walk(data, name):
        if field == _METADATA_PROPS:
            out.update(data[at:start])
            at = end
    out.update(data[at:])
    return out.hexdigest()


def _digest_position(data: bytes) -> int:
    entry = _text_entry(_DIGEST_KEY, _BLANK)
    head = entry[:-_DIGEST_LENGTH]
    at = data.find(head)
    if at < 0 or data.find(head, at + 1) >= 0 or at + len(entry) > len(data):
        return -1
    return at + len(head)


def _digest(data: bytes, at: int) -> str:
    return hashlib.sha256(data[:at] + _BLANK.encode() + data[at + _DIGEST_LENGTH :]).hexdigest()


def seal(data: bytes, card_json: str, name: str = "model") -> bytes:
    """Put a card into an ONNX file and write the digest of the whole file, computed with its own field blanked."""
    blank = with_texts(data, {CARD_KEY: card_json, _DIGEST_KEY: _BLANK}, name)
    at = _digest_position(blank)
    if at < 0:
        raise BadModel(f"{name}: the digest cannot be placed")
    return blank[:at] + _digest(blank, at).encode() + blank[at + _DIGEST_LENGTH :]


def verify(data: bytes, name: str = "model") -> str:
    """Check the digest and return it.

    Raises
    ------
    BadModel
        The file was edited or damaged, or never sealed.
    """
    at = _digest_position(data)
    if at < 0:
        if CARD_KEY.encode() in data or _DIGEST_KEY.encode() in data:
            raise BadModel(f"{name}: its digest is damaged; the file was edited or cut short, export or copy it again")
        _walk(data, name)
        raise BadModel(f"{name}: it carries no card; give it one with `coffea-ad card attach MODEL CARD.yaml`")
    stored = data[at : at + _DIGEST_LENGTH]
    actual = _digest(data, at)
    if not hmac.compare_digest(stored, actual.encode()):
        raise BadModel(f"{name}: the content does not match its digest; the file was edited or damaged")
    return actual
