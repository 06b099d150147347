"""The bytes of a model file: named texts inside an ONNX protobuf, and a digest over all of them.

An ONNX file is a protobuf message whose top-level fields are all that is touched here, so that workers need no `onnx`
package and nothing but the network runtime ever parses the graph.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

from coffea_ad.errors import BadModel

__all__ = ["CARD_KEY", "network_digest", "opset_domains", "read_texts", "seal", "verify", "with_texts"]

CARD_KEY = "coffea_ad.card"
_DIGEST_KEY = "coffea_ad.digest"
_DIGEST_LENGTH = 64
_BLANK = "0" * _DIGEST_LENGTH
_OPSET_IMPORT, _METADATA_PROPS = 8, 14  # field numbers of onnx.ModelProto


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


def _fields(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field number, start, start of its payload, end) of a message's fields."""
    at = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
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
        if at > len(data):
            raise IndexError
        yield tag >> 3, start, payload, at


def _walk(data: bytes, name: str) -> list[tuple[int, int, int, int]]:
    try:
        return list(_fields(data))
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


def opset_domains(data: bytes, name: str = "model") -> dict[str, int]:
    """Return the operator domains of an ONNX file and their versions."""
    domains = {}
    for field, _, payload, end in _walk(data, name):
        if field == _OPSET_IMPORT:
            domain, version = "", 0
            body = data[payload:end]
            for number, _, p, e in _walk(body, name):
                if number == 1:
                    domain = body[p:e].decode(errors="replace")
                elif number == 2:
                    version = _varint(body, p)[0]
            domains[domain] = version
    return domains


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
