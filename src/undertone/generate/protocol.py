"""What a generator is: a clip in, candidate question-answer pairs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from undertone.errors import ServiceError
from undertone.records import Clip, QAPair


class Generator(Protocol):
    """Writes question-answer pairs about a clip; implementations subclass this and implement `write`.

    The pairs are a function of the clip's content, the seed and the generator's own configuration. They do not depend on which clips
    came before: whatever is random is drawn from `seed` together with `clip.id`.

    Attributes:
        name: Of the generator; `name@version` stands in `QAPair.generator`.
        version: Changes whenever the same clip and seed would give other pairs.
    """

    name: str
    version: str

    def write(self, clip: Clip, *, seed: int) -> list[QAPair]:
        """The candidate pairs of one clip, unchecked; empty where nothing can be asked.

        Raises:
            ServiceError: The generator needs an endpoint that did not answer or whose answer could not be read.
        """
        ...

    def write_many(self, clips: Sequence[Clip], *, seed: int) -> list[list[QAPair] | ServiceError]:
        """`write` for several clips, one result for each and in their order; for generators that can work on several at once."""
        made: list[list[QAPair] | ServiceError] = []
        for clip in clips:
            try:
                made.append(self.write(clip, seed=seed))
            except ServiceError as error:
                made.append(error)
        return made
