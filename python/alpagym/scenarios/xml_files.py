"""XML of any format: parsed within bounds, numbers that are numbers."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

from alpagym.scenarios.files import ReadableFile
from alpagym.scenarios.scenario import ScenarioError

MAX_BYTES = 64 << 20
"""Larger files are refused before they are read [B]."""
MAX_MARKUP = 3_000_000
"""Tags, and attributes, of a file that is parsed: what bounds the memory of the tree."""


class Fault(ValueError):
    """An element holds what it must not; the message says what, the caller adds where."""


def parse(path: Path | ReadableFile, root_name: str, title: str) -> ET.Element:
    """The root element of a file.

    Args:
        path: the file, or a member of an archive that is no larger than `MAX_BYTES`.
        root_name: what the element must be called.
        title: the format, for messages.

    Raises:
        ScenarioError: a file that is too large, not well-formed, has a document type (which could
            define entities) or another root.
    """
    if isinstance(path, Path) and (size := path.stat().st_size) > MAX_BYTES:
        raise ScenarioError(f"{path}: {size} bytes of XML, at most {MAX_BYTES} are read")
    data = path.read_bytes()
    if b"\0" in data:
        raise ScenarioError(f"{path}: {title} must be UTF-8 text, but it holds zero bytes")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise ScenarioError(f"{path}: XML with a document type or entities is not read")
    markup = max(data.count(b"<"), data.count(b"="))
    if markup > MAX_MARKUP:
        raise ScenarioError(f"{path}: {markup} tags or attributes, at most {MAX_MARKUP} are read")
    try:
        root = ET.fromstring(data)  # without a document type nothing expands
    except (ET.ParseError, ValueError, LookupError) as error:
        raise ScenarioError(f"{path}: not valid XML, perhaps truncated ({error})") from error
    if root.tag.rpartition("}")[2] != root_name:
        raise ScenarioError(f"{path}: the root element must be {root_name}, got {root.tag[:40]}")
    if root.tag != root_name:  # a default namespace
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
    return root


def to_number(text: str | None, name: str) -> float:
    """The finite number that a text holds."""
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Fault(f"{name} must be a finite number, got '{(text or '').strip()[:40]}'")
    return number
