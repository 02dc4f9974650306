"""Self-contained pages: one HTML file with its data, style and scripts inside, and no network.

Data reaches a page in two ways only: text through `escape`, and trees through `embed_json`, which
the scripts show with `textContent`. As a second wall, the page's content security policy admits
exactly the scripts written here, by hash, and forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def escape(value: object) -> str:
    """Text for an element or a quoted attribute."""
    # A lone surrogate, as an odd file name gives, cannot be written as UTF-8.
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return html.escape(text, quote=True)


def embed_json(value: Any) -> str:
    """JSON that is safe inside a script element.

    Raises:
        ValueError: the tree holds NaN or infinity.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, code in _UNSAFE.items():
        text = text.replace(character, code)
    return text.encode("utf-8", "backslashreplace").decode()


def build_page(
    *,
    title: str,
    body: str,
    replays: Sequence[dict[str, Any]],
    scripts: Sequence[str],
    styles: Sequence[str],
) -> str:
    """One HTML document.

    Args:
        title: Plain text.
        body: HTML, already escaped.
        replays: Trees of `replay_json`, embedded as `replays` for the scripts.
        scripts: Names of script files of this package, run in one scope in this order.
        styles: Names of style sheets of this package.
    """
    code = '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in scripts) + "\n})();\n"
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return Template(_asset("page_template.html")).substitute(
        title=escape(title),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        style="\n".join(_asset(name) for name in styles),
        body=body,
        replays=embed_json(list(replays)),
        code=code,
    )


def _asset(name: str) -> str:
    return files("alpagym.render").joinpath(name).read_text(encoding="utf-8")
