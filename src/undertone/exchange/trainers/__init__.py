"""Questions about speech as other trainers read them: ms-swift, LLaMA-Factory, NeMo, DeSTA.

    report = export(Path("runs/mine/condense"), Path("out"), format="messages", pairs=[Path("runs/mine/generate/cpqa")])
    for one in dialogues(Path("out"), format="messages"): ...

A pair becomes a line of `SPLIT.jsonl`: a clip's sound, the turns before the question, the question (with predicted labels where a `prompt`
writes them, `explicit.with_labels`) and the answer. `layouts.py` holds the formats.
"""

from undertone.exchange.trainers.dialogue import Dialogue, Prompt
from undertone.exchange.trainers.explicit import with_labels, with_labels_of
from undertone.exchange.trainers.layouts import LAYOUTS, Layout, layout_of
from undertone.exchange.trainers.writer import DialogueWriter, asked, dialogues

__all__ = [
    "LAYOUTS",
    "Dialogue",
    "DialogueWriter",
    "Layout",
    "Prompt",
    "asked",
    "dialogues",
    "layout_of",
    "with_labels",
    "with_labels_of",
]
