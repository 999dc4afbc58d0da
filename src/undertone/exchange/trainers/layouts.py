r"""The formats of other trainers, a class each: one dialogue as one row, and back.

    messages     {"messages": [{"role": "user", "content": "<audio>How does she feel?"}, {"role": "assistant", "content": "Sad."}],
                  "audios": ["audio/KEY.flac"]}                          ms-swift, LLaMA-Factory
    sharegpt     {"conversations": [{"from": "human", "value": "<audio>How ...?"}, {"from": "gpt", "value": "Sad."}],
                  "audios": ["audio/KEY.flac"], "sound": "audio/KEY.flac"}         LLaMA-Factory, ms-swift, NeMo (type: share_gpt)
    nemo-salm    {"id": ..., "conversations": [{"type": "audio", "from": "User", "value": "audio/KEY.flac", "duration": 3.2},
                  {"type": "text", "from": "User", "value": "How ...?"}, {"type": "text", "from": "Assistant", "value": "Sad."}]}
    desta        {"id": ..., "messages": [{"role": "user", "content": "<start_audio><|AUDIO|><end_audio>\nHow ...?",
                  "audios": [{"audio": "audio/KEY.flac", "text": "what is said"}]}], "response": "Sad."}

Read at source: ms-swift 3602360 (dataset/preprocessor/core.py, template/base.py), LLaMA-Factory ff6d4d1 (data/converter.py, parser.py,
mm_plugin.py), NeMo 8cfedd7 (common/data/lhotse/text_adapters.py), DeSTA2.5-Audio 5503dfc (trainer/data/simple_dataset.py, docs/train.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from undertone.errors import ConfigError
from undertone.exchange.trainers.dialogue import Dialogue, with_origin
from undertone.records import Turn

_MEDIA = ("<audio>", "<image>", "<video>", "<bbox>", "<ref-object>", "<cot-process>", "<start-image>")
"""What ms-swift puts something else for wherever it stands; LLaMA-Factory counts the first three against the files of a row."""


class Layout(Protocol):
    """One format.

    Attributes:
        name: Its name as an export.
        reserved: What no text may hold, because the trainer would take it for a place of its own.
        transcripts: Whether a row has room for what is said.
    """

    name: ClassVar[str]
    reserved: ClassVar[tuple[str, ...]]
    transcripts: ClassVar[bool]

    def row(self, one: Dialogue) -> dict[str, Any]:
        """The line of a dialogue. All lines have the same keys with the same types."""
        ...

    def dialogue(self, row: Mapping[str, Any]) -> Dialogue:
        """The dialogue of a line; KeyError, TypeError or ValueError where it is none."""
        ...

    def index(self, files: Sequence[str]) -> dict[str, Any] | None:
        """What `dataset_info.json` says of the files, for trainers that want one."""
        ...


class _Chat:
    """Alternating turns, the sound's place in the first, its file beside them; the keys and roles differ."""

    name: ClassVar[str]
    reserved: ClassVar[tuple[str, ...]] = _MEDIA
    transcripts: ClassVar[bool] = False
    turns: ClassVar[str]
    role: ClassVar[str]
    text: ClassVar[str]
    roles: ClassVar[tuple[str, str]]

    def row(self, one: Dialogue) -> dict[str, Any]:
        spoken: list[dict[str, Any]] = []
        for index, turn in enumerate(one.turns):
            spoken.append({self.role: self.roles[0], self.text: ("" if index else _MEDIA[0]) + turn.question})
            # ms-swift obeys `loss`; LLaMA-Factory does not know it and has mask_history.
            spoken.append({self.role: self.roles[1], self.text: turn.answer, "loss": index == len(one.history)})
        return {self.turns: spoken, "audios": [one.audio], **self._more(one), "undertone": one.origin}

    def _more(self, one: Dialogue) -> dict[str, Any]:
        del one
        return {}

    def dialogue(self, row: Mapping[str, Any]) -> Dialogue:
        (audio,) = row["audios"]
        spoken = [(one[self.role], one[self.text]) for one in row[self.turns]]
        if spoken and spoken[0][0] == "system":
            spoken = spoken[1:]
        return with_origin(_alternating(spoken, self.roles, _MEDIA[0]), row.get("undertone"), audio=audio)

    def index(self, files: Sequence[str]) -> dict[str, Any] | None:
        tags = {"role_tag": self.role, "content_tag": self.text, "user_tag": self.roles[0], "assistant_tag": self.roles[1]}
        about = {"formatting": "sharegpt", "columns": {"messages": self.turns, "audios": "audios"}, "tags": tags}
        return {f"undertone_{name.removesuffix('.jsonl')}": {"file_name": name, **about} for name in files}


class Messages(_Chat):
    """JSON lines of ms-swift's standard format, which LLaMA-Factory reads with the `dataset_info.json` beside them."""

    name = "messages"
    turns, role, text, roles = "messages", "role", "content", ("user", "assistant")


class ShareGpt(_Chat):
    """JSON lines of ShareGPT; NeMo reads `id` and `sound`, given audio_placeholders: "<audio>"."""

    name = "sharegpt"
    turns, role, text, roles = "conversations", "from", "value", ("human", "gpt")

    def _more(self, one: Dialogue) -> dict[str, Any]:
        return {"id": one.pair, "sound": one.audio}


class NemoSalm:
    """NeMo's multimodal conversations (`type: multimodal_conversation`), which train SALM.

    The sound is a turn of its own, and its file is all of it: NeMo's reader knows no offset. What stands for it in the text is the
    user's setting (`audio_locator_tag`); the one that NeMo's example sets is kept out of the text. `custom` is handed through.
    """

    name: ClassVar[str] = "nemo-salm"
    reserved: ClassVar[tuple[str, ...]] = ("<|audioplaceholder|>",)
    transcripts: ClassVar[bool] = False

    def row(self, one: Dialogue) -> dict[str, Any]:
        sound = {"type": "audio", "from": "User", "value": one.audio, "duration": (one.duration_ms or 0) / 1000}
        spoken = [
            {"type": "text", "from": role, "value": text}
            for turn in one.turns
            for role, text in (("User", turn.question), ("Assistant", turn.answer))
        ]
        return {"id": one.pair, "conversations": [sound, *spoken], "custom": {"undertone": one.origin}}

    def dialogue(self, row: Mapping[str, Any]) -> Dialogue:
        (sound,) = (one for one in row["conversations"] if one["type"] == "audio")
        spoken = [(one["from"].lower(), one["value"]) for one in row["conversations"] if one["type"] == "text"]
        if spoken and spoken[0][0] == "system":
            spoken = spoken[1:]
        about = {"audio": sound["value"], "duration_ms": round(sound["duration"] * 1000) if sound.get("duration") else None}
        return with_origin(_alternating(spoken, ("user", "assistant"), ""), (row.get("custom") or {}).get("undertone"), **about)

    def index(self, files: Sequence[str]) -> dict[str, Any] | None:
        del files
        return None


class Desta:
    """JSON lines of DeSTA2.5-Audio: the messages before the answer, the answer, and the transcript beside the sound.

    The marks around the sound stand in the training text itself; only `generate` puts them there by itself. A sound of which nobody
    knows what is said has one blank as text, as its dataset asks for.
    """

    name: ClassVar[str] = "desta"
    reserved: ClassVar[tuple[str, ...]] = ("<|AUDIO|>", "<start_audio>", "<end_audio>")
    transcripts: ClassVar[bool] = True
    _sound: ClassVar[str] = "<start_audio><|AUDIO|><end_audio>"

    def row(self, one: Dialogue) -> dict[str, Any]:
        spoken: list[dict[str, Any]] = []
        for turn in one.turns:
            spoken += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
        heard = [{"audio": one.audio, "text": one.transcript or " "}]
        spoken[0] = {"role": "user", "content": f"{self._sound}\n{spoken[0]['content']}", "audios": heard}
        return {"id": one.pair, "messages": spoken[:-1], "response": one.answer, "undertone": one.origin}

    def dialogue(self, row: Mapping[str, Any]) -> Dialogue:
        (heard,) = (sound for one in row["messages"] for sound in one.get("audios") or ())
        spoken = [(one["role"], one["content"]) for one in row["messages"] if one["role"] != "system"]
        turns = _alternating([*spoken, ("assistant", row["response"])], ("user", "assistant"), f"{self._sound}\n")
        transcript = heard["text"] if heard["text"].strip() else None
        return with_origin(turns, row.get("undertone"), audio=heard["audio"], transcript=transcript)

    def index(self, files: Sequence[str]) -> dict[str, Any] | None:
        del files
        return None


def _alternating(spoken: Sequence[tuple[str, str]], roles: tuple[str, str], sound: str) -> list[Turn]:
    """The turns of a conversation whose first text begins with the sound's place.

    Raises:
        ValueError: The roles do not alternate, or the sound is not in its place.
    """
    said = [role for role, _ in spoken]
    if said != [*roles] * (len(said) // 2):
        raise ValueError(f"the roles are {', '.join(said) or 'none'}; expected {roles[0]} and {roles[1]} in turn")
    texts = [text for _, text in spoken]
    if texts and not texts[0].startswith(sound):
        raise ValueError(f"the first text is {texts[0][:40]!r}; expected it to begin with {sound!r}")
    texts[:1] = [text.removeprefix(sound) for text in texts[:1]]
    return [Turn(question=question, answer=answer) for question, answer in zip(texts[::2], texts[1::2], strict=True)]


LAYOUTS: dict[str, Layout] = {one.name: one for one in (Messages(), ShareGpt(), NemoSalm(), Desta())}
"""The formats by name."""


def layout_of(name: str) -> Layout:
    """The format of a name; ConfigError for another."""
    if name not in LAYOUTS:
        raise ConfigError(f"format {name!r} is not a trainer's; expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
