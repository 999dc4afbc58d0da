r"""Words of a clip as data: whatever in them could be read as the text around them is written as a code point, and can be read back.

A transcript is what somebody said or what a recogniser made of it, so it may hold anything. These are escaped: the backslash; characters
that are not seen (controls, line and paragraph separators, marks of writing direction, tag characters and variation selectors 17-256,
which can carry a hidden text); `[` before a number, dots or a name in capitals (times, marks, "[INST]"); `(` before a name and a
colon (attributes); `<` before anything but a space (the special tokens of chat templates, which tokenisers find inside words too);
`===` and three backticks (fences). The joiners that emoji, Arabic and Indic scripts need are left as they are.

    >>> print(escape("one\n[0.0-9.9 s] woman, happy: I won"))
    one\n\u{5b}0.0-9.9 s] woman, happy: I won
    >>> unescape(escape("any\x00thing")) == "any\x00thing"
    True
"""

from __future__ import annotations

import re

# Ranges and not Unicode categories: those change with the version of Python, and the text is part of a cache's key.
_UNSEEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_TEXT = rf"[\\{_UNSEEN}]|\[(?=\s*(?:\d|\.\.|…|/?[A-Z_]{{2,}}\]))|\((?=[^():]*:|no words\))|<(?=\S)|=(?===)|`(?=``)"
_ESCAPED_IN_TEXT = re.compile(_TEXT)
_ESCAPED_IN_LABELS = re.compile(rf"{_TEXT}|[,:()\[\]]")
_ESCAPES = re.compile(r"\\(\\|[nrt]|u\{[0-9a-f]{1,6}\})?")
_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG = {written[1]: char for char, written in _SHORT.items()}


def escape(text: str) -> str:
    """Spoken words, on one line and without the syntax of evidence."""
    return _ESCAPED_IN_TEXT.sub(_written, text)


def escape_label(label: str) -> str:
    """A labeller's category, which besides may hold none of the characters that end it."""
    return _ESCAPED_IN_LABELS.sub(_written, label)


def unescape(text: str) -> str:
    """What `escape` or `escape_label` was given.

    Raises:
        ValueError: A backslash begins nothing that they write.
    """
    return _ESCAPES.sub(_read, text)


def _written(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{{{ord(found[0]):x}}}"


def _read(found: re.Match[str]) -> str:
    escaped = found[1]
    if escaped is None:
        after = found.string[found.start() : found.start() + 12]
        raise ValueError(f"got {after!r}, expected \\\\, \\n, \\r, \\t or a code point such as \\u{{5b}} behind a backslash")
    return _LONG[escaped] if escaped in _LONG else chr(int(escaped[2:-1], 16))
