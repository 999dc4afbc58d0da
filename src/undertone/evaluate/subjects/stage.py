"""Asking a subject with a chat template as a stage: examples in, answers out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from pydantic import PrivateAttr

from undertone import tables
from undertone.chat import Account, CacheDir
from undertone.evaluate.subjects.config import ChatSubject, EndpointSubject
from undertone.evaluate.subjects.endpoint import EndpointAsker
from undertone.paths import Location
from undertone.records import Answer, Clip, Example, Record
from undertone.stages import Context, Outcome, Stage


class Asker(Protocol):
    """Puts examples to a model."""

    def outcomes(self, examples: Sequence[Example]) -> list[Outcome[Answer]]:
        """One outcome for each example, in their order."""
        ...


class AskStage(Stage[Example, Answer]):
    """Asks a native audio LLM or an endpoint; the clips that are heard stand in the side table "clips".

    It is not `heavy`, because one process asks as much at once as model or endpoint take, and several would hold the model several times.

    Attributes:
        subject: Who is asked. What it hears and is shown stands in the examples.
        cache_dir: Where answers are kept, so that nothing is asked twice, whatever is started over; None for nowhere.
    """

    name: ClassVar[str] = "ask"
    version: ClassVar[str] = "2"
    reads: ClassVar[type[Record]] = Example
    writes: ClassVar[type[Record]] = Answer
    sides: ClassVar[Mapping[str, type[Record]]] = {"clips": Clip}

    subject: ChatSubject
    cache_dir: CacheDir | None = None

    _asker: Asker = PrivateAttr()

    def identity(self) -> dict[str, Any]:
        """Model and settings, without where it runs and where answers are kept."""
        return self.subject.identity()

    def open(self, context: Context) -> None:
        """Load the clips, and a model that runs here."""
        known = {one.id: one for one in context.sides["clips"].rows()}
        if isinstance(self.subject, EndpointSubject):
            self._asker = EndpointAsker(self.subject, known, cache_dir=self.cache_dir)
            return
        from undertone.evaluate.subjects.native import NativeAsker  # torch

        asker = NativeAsker(self.subject, known, cache_dir=self.cache_dir)
        asker.open()  # now, so that a model that does not load ends the command and not each row
        self._asker = asker

    def process(self, rows: Sequence[Example]) -> Sequence[Outcome[Answer]]:
        """One outcome for each example."""
        return self._asker.outcomes(rows)

    def ask_ahead(
        self,
        source: Location,
        *,
        clips: Location,
        limit: int | None = None,
        told: Callable[[int], None] = lambda done: None,
    ) -> Account | None:
        """Keep an endpoint busy over all examples, so that the stage finds the replies; None where there is none, or no cache.

        A stage works batch by batch, and the last slow reply of sixty-four would keep all others waiting.

        Args:
            source: Folder of the table of examples.
            clips: Folder of the table of clips.
            limit: Only the first so many examples.
            told: Told how many examples are done.

        Raises:
            ServiceError: The endpoint is down or refuses the key.
        """
        if not isinstance(self.subject, EndpointSubject) or self.cache_dir is None:
            return None
        known = {one.id: one for one in tables.open_table(clips, Clip).rows()}
        examples = itertools.islice(tables.open_table(source, Example).rows(), limit)
        return EndpointAsker(self.subject, known, cache_dir=self.cache_dir).ahead(examples, told)
