"""DeSTA2: the LLM that will be trained answers instructions about a clip that it reads; its answers become the targets.

Nothing is lost of the LLM's own style where `model` is the decoder that the study trains (DeSTA2.5: who writes the target matters more than
how well it writes). The training question is the instruction alone. The pool of instructions is our own.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from undertone.generate.protocol import Candidate, Request, prompt_lines
from undertone.generate.strategies.base import OnEvidence, drawing, usable_reply
from undertone.records import Clip

_POOL = "self_generated_instructions.jinja"


class SelfGenerated(OnEvidence):
    """The LLM answers instructions about the clip as it would have heard it; its answers are the targets (DeSTA2).

    Attributes:
        instructions: The pool to draw from; None for the shipped one.
        instructions_per_clip: So many different ones for each clip.
    """

    name: ClassVar[str] = "self_generated"
    templates: ClassVar[tuple[str, ...]] = ("self_generated.jinja", "clip.jinja", _POOL)

    evidence_form: str = "seed"
    instructions: tuple[str, ...] | None = Field(default=None, min_length=1)
    instructions_per_clip: int = Field(default=2, ge=1)

    def requests(self, clip: Clip, *, seed: int) -> list[Request]:
        """One request for each drawn instruction; none about a clip without words and labels."""
        if not clip.transcript.strip() and not any(one.labels for one in clip.segments):
            return []
        pool = list(dict.fromkeys(self.instructions or prompt_lines(_POOL)))
        drawn = drawing(self, clip, seed).sample(pool, min(self.instructions_per_clip, len(pool)))
        return [Request(prompt=self.rendered(clip, instruction=one), about={"instruction": one}) for one in drawn]

    def read(self, clip: Clip, request: Request, reply: str) -> list[Candidate]:
        """The answer as it is.

        Raises:
            ValueError: It is empty or refuses.
        """
        return [Candidate(kind="OPEN", question=request.about["instruction"], answer=usable_reply(reply))]
