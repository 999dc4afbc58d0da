"""The embedded demonstration corpus as a corpus: planned conversations in, recordings with exact ground truth out."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from undertone.corpora.assemble import written
from undertone.corpora.demo import ConversationPlan, plan, render
from undertone.corpora.plan import Planned
from undertone.paths import Location
from undertone.records import Recording


class DemoCorpus(BaseModel):
    """Settings of the demonstration corpus: how many conversations for training and for the test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["demo"] = "demo"
    name: str = "demo"
    train: int = Field(default=60, gt=0)
    test: int = Field(default=20, ge=0)

    @property
    def title(self) -> str:
        return self.name

    def plan(self, *, seed: int) -> list[Planned]:
        """One planned recording per conversation."""
        conversations = plan(seed=seed, recordings_per_split={"train": self.train, "test": self.test})
        return [
            Planned(
                corpus=self.title,
                key=f"{one.split}-{number:05d}",
                reader="demo",
                spec=DemoSpec(conversation=one).model_dump_json(),
                split=one.split,
                language="en",
                licence="Apache-2.0 (synthesised by undertone; voices of espeak-ng, GPL-3.0-or-later)",
            )
            for number, one in enumerate(conversations)
        ]


class DemoSpec(BaseModel):
    """One conversation to render."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conversation: ConversationPlan

    def read(self, planned: Planned, out_dir: Location) -> Recording:
        """Render the conversation to `out_dir/audio/KEY.flac`."""
        rendered = render(self.conversation)
        return written(out_dir, planned, rendered.samples, lambda key, _: rendered.references_for(key))
