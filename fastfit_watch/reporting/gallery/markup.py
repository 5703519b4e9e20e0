"""HTML that cannot be injected into: text becomes markup in one place, and is escaped there."""

from __future__ import annotations

import hashlib
import html
import os
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import TypeAlias
from urllib.parse import quote

LAYOUT = 4
"""Counts up when the pages look different, so that those of an older version are written anew."""
_STAMP = '<meta name="fastfit-stamp" content="'
_VOID = frozenset({"img", "input", "meta", "br"})
# Joiners are invisible, but Persian, Indian scripts and emoji are misspelt without them.
_JOINERS = frozenset("\u200c\u200d")


class Markup(str):
    """HTML as it stands, made by `element` only."""

    __slots__ = ()


Child: TypeAlias = "str | Markup | Iterable[str | Markup | None] | None"


def element(tag: str, /, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """One element. Children that are no Markup are text, and escaped, as is every attribute.

    An attribute's `_` stands for `-`; a trailing one keeps it from being a Python word (`class_`). None and False leave
    it out, True gives it no value.
    """
    opening = tag + "".join(_attribute(key, value) for key, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """Children side by side."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(show(child)))
        elif child is not None:
            parts.append(join(child))
    return Markup("".join(parts))


def show(text: str) -> str:
    """Text as a page may show it: what is invisible, or turns the writing direction round, becomes visible.

    Control characters, bidirectional overrides and half characters are written like `\\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in _JOINERS else _spelled(letter) for letter in text)


def name(text: str) -> Markup:
    """A name from an upload, in its own writing direction."""
    return element("bdi", text)


def link(*parts: str) -> str:
    """A relative address of these names, each wholly percent-encoded."""
    return "/".join(quote(os.fsencode(part), safe="") for part in parts)


def shorten(text: str, most: int) -> str:
    """Text of at most so many characters, with an ellipsis where it was cut."""
    return text if len(text) <= most else text[: most - 1] + "…"


def document(title: str, stamp: str, body: Markup, refresh_s: int) -> str:
    """A whole page that loads nothing but pictures beside it. `refresh_s`: how soon to look for news; 0: no need."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{_STAMP}{html.escape(stamp)}">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f'<title>{html.escape(show(title))}</title><link rel="icon" href="data:,">'
        f"<style>{style}</style></head>"
        f'<body data-refresh="{refresh_s}">{body}<script>{script}</script></body></html>\n'
    )


def read_stamp(head: bytes) -> str | None:
    """The stamp of a page from its first bytes; None if that is no page of ours."""
    _, found, rest = head.partition(_STAMP.encode())
    return html.unescape(rest.partition(b'"')[0].decode("utf-8", "replace")) if found else None


@cache
def edition() -> str:
    """A short text that differs when pages of this version look different from those of another."""
    return hashlib.sha256(f"{LAYOUT}{_asset('page.css')}{_asset('page.js')}".encode()).hexdigest()[:8]


@cache
def _asset(file: str) -> str:
    return resources.files(__package__).joinpath(file).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _attribute(key: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    label = key.rstrip("_").replace("_", "-")
    return f" {label}" if value is True else f' {label}="{html.escape(show(str(value)))}"'


def _spelled(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 0x100 else f"\\u{ord(letter):04x}"
