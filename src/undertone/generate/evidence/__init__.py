"""A clip as text, for a generator to read: what is said, and how each stretch of it sounds; and that text read back.

Forms: `words` (2505.13338), `dimensional` (2508.07273), `seed` (DeSTA2) and `metadata` (LTU-AS); a form of one's own is a class (`Form`).
Words are data: whatever in them looks like evidence is escaped (`escape`), so that no clip can forge a line.
"""

from undertone.generate.evidence.budget import estimated_tokens, fitted
from undertone.generate.evidence.escape import escape, escape_label, unescape
from undertone.generate.evidence.form import Form, from_spoken, spoken
from undertone.generate.evidence.levels import Intensity, Level, intensity
from undertone.generate.evidence.lines import Evidence, Gap, Line, Tone, Voice, lines_of, tones, whole_tone
from undertone.generate.evidence.rendering import FORMS, form_named, gather, known_forms, parse, register, render

__all__ = [
    "FORMS",
    "Evidence",
    "Form",
    "Gap",
    "Intensity",
    "Level",
    "Line",
    "Tone",
    "Voice",
    "escape",
    "escape_label",
    "estimated_tokens",
    "fitted",
    "form_named",
    "from_spoken",
    "gather",
    "intensity",
    "known_forms",
    "lines_of",
    "parse",
    "register",
    "render",
    "spoken",
    "tones",
    "unescape",
    "whole_tone",
]
