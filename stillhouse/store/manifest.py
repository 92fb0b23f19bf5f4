"""What a label store says of itself: whose answers, to which question, about which views, and how a row is laid out.

``manifest.json`` is written once, before the first row, and never changed. It carries its own digest: a store whose
manifest was damaged or edited is refused. A person can read the rows with it and numpy alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.foundation.errors import CorruptError, StorageError, UserError
from stillhouse.foundation.files import digest_json, write_json
from stillhouse.store.checksum import row_bytes

FORMAT = 1
"""Raised with any change after which older code would misread a store."""

MANIFEST = "manifest.json"

Fields = Sequence[tuple[str, str, Sequence[int]]]
"""Name, numpy type (``<f2``) and shape of each part of a row."""

_KIND = "stillhouse label store"
_HOW_TO_READ = (
    "views/000007.rows holds view 7 (plain.rows: the samples as they are). Row i, at byte i * row_bytes, belongs to "
    "sample i: the fields in this order without gaps, zeros up to a multiple of 4 bytes, 8 bytes of checksum, all "
    "little-endian. A row whose checksum is 0 was never written. The checksum is 1 + 2 * (salt + a * i + b * view + "
    "sum of m[j] * word[j]) modulo 2^64 over the 32-bit words before it; salt is the first 16 hex digits of the "
    "identity's digest, halved; stillhouse/store/checksum.py makes a, b and m."
)


@dataclass(frozen=True)
class Identity:
    """Everything that fixes the bits of a row, as plain JSON values.

    Attributes:
        teacher: whose answers.
        question: what was asked, and the form in which answers are kept.
        views: the samples and how views are made of them.
        engine: how the teacher computes.
    """

    teacher: Mapping[str, Any]
    question: Mapping[str, Any]
    views: Mapping[str, Any]
    engine: Mapping[str, Any]

    @property
    def parts(self) -> dict[str, Any]:
        """The four parts as they come back from JSON."""
        parts = {"teacher": self.teacher, "question": self.question, "views": self.views, "engine": self.engine}
        plain: dict[str, Any] = json.loads(json.dumps({name: dict(part) for name, part in parts.items()}))
        return plain

    @property
    def digest(self) -> str:
        """Hex SHA-256; equal digests mean equal rows."""
        return digest_json(self.parts)

    @property
    def salt(self) -> int:
        """63 bits of the digest, for the checksums."""
        return int(self.digest[:16], 16) >> 1

    def differences(self, other: Identity) -> list[str]:
        """What differs, by dotted key: ``views.augment.pad_px: 4 there, 2 here``; here is this one."""
        here, there = flat(self.parts), flat(other.parts)
        return [
            f"{key}: {there.get(key, 'not set')} there, {here.get(key, 'not set')} here"
            for key in sorted(here.keys() | there.keys())
            if here.get(key) != there.get(key) or (key in here) != (key in there)
        ]


@dataclass(frozen=True)
class Manifest:
    """A store's description.

    Attributes:
        fields: the parts of a row's payload.
        samples: rows of a view; ids are 0 .. samples - 1.
        created: time in UTC, ISO 8601.
    """

    identity: Identity
    fields: Fields
    samples: int
    created: str

    @classmethod
    def new(cls, identity: Identity, fields: Fields, samples: int) -> Manifest:
        """A manifest made now; the fields as they come back from JSON."""
        dtype_of(fields)
        plain = [(name, kind, list(shape)) for name, kind, shape in fields]
        return cls(identity, plain, samples, datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def row_bytes(self) -> int:
        """Width of a row in the file."""
        return row_bytes(dtype_of(self.fields).itemsize)

    def differences(self, other: Manifest) -> list[str]:
        """What keeps the rows of one from being read as the other's; here is this one."""
        found = self.identity.differences(other.identity)
        if self.fields != other.fields:
            found.append(f"fields: {_told(other.fields)} there, {_told(self.fields)} here")
        if self.samples != other.samples:
            found.append(f"samples: {other.samples:,} there, {self.samples:,} here")
        return found


def dtype_of(fields: Fields) -> np.dtype[np.void]:
    """The numpy type of a row's payload, packed.

    Raises:
        ValueError: a type that numpy doesn't know or that holds Python objects, or a row of no bytes.
    """
    try:
        found = np.dtype([(name, kind, tuple(shape)) for name, kind, shape in fields])
    except TypeError as error:
        raise ValueError(f"fields {list(fields)} are no numpy type: {error}") from error
    if found.itemsize == 0 or found.hasobject:
        raise ValueError(f"fields {list(fields)} make no row of fixed width")
    return found


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; lists are values."""
    found: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, Mapping) and each:
            found |= flat(each, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = each
    return found


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``.

    Raises:
        StorageError: the disk refused.
    """
    content = {
        "kind": _KIND,
        "format": FORMAT,
        "how_to_read": _HOW_TO_READ,
        "created": manifest.created,
        "samples": manifest.samples,
        "row_bytes": manifest.row_bytes,
        "fields": [list(field) for field in manifest.fields],
        "identity_digest": manifest.identity.digest,
        "identity": manifest.identity.parts,
    }
    write_json(folder / MANIFEST, {**content, "digest_of_the_above": digest_json(content)})


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a store.

    Raises:
        UserError: no label store, or one of a newer version.
        CorruptError: the manifest was damaged or edited.
        StorageError: it can't be read.
    """
    path = folder / MANIFEST
    remove = (
        f"remove the store with 'stillhouse store prune {folder.parent} {folder.name}'; its answers are asked again"
    )
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder} is no label store: {path} is missing") from error
    except OSError as error:
        raise StorageError(f"{path} can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is damaged ({error}): {remove}") from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise UserError(f"{path} is not the manifest of a label store: give the folder of one, or remove this one")
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {content.get('format')}, this Stillhouse reads format {FORMAT}: use the version that "
            f"wrote it, or {remove}"
        )
    if content.pop("digest_of_the_above", None) != digest_json(content):
        raise CorruptError(f"{path} was damaged or edited (it doesn't match its own digest): {remove}")
    fields = [(name, kind, shape) for name, kind, shape in content["fields"]]
    return Manifest(Identity(**content["identity"]), fields, content["samples"], content["created"])


def _told(fields: Fields) -> str:
    return ", ".join(f"{name} {kind}{list(shape) or ''}" for name, kind, shape in fields)
