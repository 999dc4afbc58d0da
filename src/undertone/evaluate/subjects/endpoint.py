"""Asking an endpoint: many questions at a time, every reply kept, time-outs and refusals typed."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import soundfile

from undertone.chat import Account, AudioPart, ChatClient, InputAudio, Message, Reply, TextPart, timed_out, without_thinking
from undertone.errors import AudioError, DataError, ServiceError
from undertone.evaluate.judging import worked_off
from undertone.evaluate.subjects.config import EndpointSubject
from undertone.evaluate.subjects.parts import parts_of, wave_of
from undertone.paths import Location, StoreError
from undertone.records import Answer, Clip, Example, Unanswered
from undertone.refusals import is_refusal
from undertone.stages import Failed, Kept, Outcome


class EndpointAsker:
    """Puts examples to an endpoint.

    A reply by which the model declines is an answer, which judges recognise (`refusals.is_refusal`). Where the server says that it
    declined and the text is none or would not be taken for that, the answer is `unanswered` as `refused`; one without any reply in time as
    `timed_out`.
    """

    def __init__(self, subject: EndpointSubject, clips: Mapping[str, Clip], *, cache_dir: Location | None = None) -> None:
        """Store the configuration.

        Args:
            subject: Where, and how.
            clips: What examples hear, by id.
            cache_dir: Where replies are kept; None for nowhere.
        """
        self.subject = subject
        self.clips = clips
        self.cache_dir = cache_dir

    def outcomes(self, examples: Sequence[Example]) -> list[Outcome[Answer]]:
        """One outcome for each example, in their order; asked `concurrency` at a time."""
        found: dict[int, Outcome[Answer]] = {}
        asyncio.run(self._each(examples, found.__setitem__, stops=False))
        return [found[number] for number in range(len(examples))]

    def ahead(self, examples: Iterable[Example], told: Callable[[int], None]) -> Account:
        """Fill the cache; examples are read as they are needed, so that memory does not grow with their number.

        Raises:
            ServiceError: The endpoint is down or refuses the key.
        """
        done = 0

        def count(number: int, made: Outcome[Answer]) -> None:
            nonlocal done
            done += 1
            told(done)

        return asyncio.run(self._each(examples, count, stops=True))

    async def _each(self, examples: Iterable[Example], told: Callable[[int, Outcome[Answer]], None], *, stops: bool) -> Account:
        async with ChatClient(self.subject, cache_dir=self.cache_dir) as chat:

            async def one(example: Example) -> Outcome[Answer]:
                return await self._one(chat, example, stops=stops)

            # Some wait before they try again, and clips are decoded meanwhile.
            await worked_off(one, examples, told, at_once=2 * self.subject.concurrency)
            return chat.account

    async def _one(self, chat: ChatClient, example: Example, *, stops: bool) -> Outcome[Answer]:
        try:
            messages = await asyncio.to_thread(self.messages, example)
        except (AudioError, DataError) as error:
            return Failed(f"{type(error).__name__}: {error}")
        began = time.monotonic()
        try:
            reply = await chat.ask(messages)
        except StoreError:
            raise  # the cache's store, which every other example would meet as well
        except ServiceError as error:
            if stops and chat.nobody_there(error):
                raise
            return _unanswered(example, "timed_out", str(error)) if timed_out(error) else Failed(f"ServiceError: {error}")
        return _outcome(example, reply, None if reply.cached else time.monotonic() - began)

    def messages(self, example: Example) -> list[Message]:
        """What is sent for an example: bare text where nothing is heard, since servers without audio take no parts.

        Raises:
            AudioError: A clip cannot be decoded.
            DataError: A clip is not there.
        """
        parts = parts_of(example, self.clips, instruction=self.subject.instruction)
        if all(isinstance(one, str) for one in parts):
            return [Message(role="user", content="\n".join(one for one in parts if isinstance(one, str)))]
        return [Message(role="user", content=tuple(TextPart(text=one) if isinstance(one, str) else _audio(one) for one in parts))]


def _audio(clip: Clip) -> AudioPart:
    wave, buffer = wave_of(clip), io.BytesIO()
    soundfile.write(buffer, wave.samples, wave.rate_hz, format="WAV", subtype="PCM_16")
    return AudioPart(input_audio=InputAudio(data=base64.b64encode(buffer.getvalue()).decode(), format="wav"))


def _outcome(example: Example, reply: Reply, seconds: float | None) -> Outcome[Answer]:
    said = reply.refusal or reply.text
    if reply.kind == "refused" and not is_refusal(said):
        return _unanswered(example, "refused", said or reply.finish)
    return Kept((Answer(subject=example.arm, pair_id=example.pair_id, text=without_thinking(said), raw=said, seconds=seconds),))


def _unanswered(example: Example, reason: Unanswered, raw: str) -> Outcome[Answer]:
    return Kept((Answer(subject=example.arm, pair_id=example.pair_id, text="", raw=raw, unanswered=reason),))
