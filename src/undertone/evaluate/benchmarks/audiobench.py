r"""AudioBench's emotion, gender and accent sets (AudioLLMs/AudioBench): one label per clip, asked in words, judged by an LLM.

A real row, as its logs keep it (iemocap_emotion_test, Qwen2-Audio-7B-Instruct, judge Llama-3-70B):

    question           "What is the emotional tone of the speaker's speech (frustration, anger, excited, neutral, happiness, surprise, sad)?"
    reference          "The speaker's tone sounds excited."
    model_prediction   "The emotional tone of the speaker's speech is happy."
    judge_response     "Explanation: The reference answer is 'excited', while ... not a perfect match to the reference answer.\n\nRating: 1"
    rate_score         1.0
    success            1

and as the data sets hold it: Parquet with `context` {bytes, path}, `instruction` and `answer` (in older ones structs of `audio` and `text`).

The emotion and VoxCeleb sets come without questions: AudioBench draws one of ten paraphrases by an unseeded generator, so no two of its runs
ask the same. Here a row's question is a function of the row; the wordings are ours, and theirs can be given (`wordings`, from its
`src/dataset_src/SET.py`). Audio longer than 30 s is cut there to its first 30 s; here `model.max_audio_s` says.

Its scorer takes the last word of the judge's reply as the grade. Where that is no number the row counts 0 and only "success_rate" tells; a
grade that the rubric does not offer is taken as it is ("Rating: 4" of a binary rubric is 400 points). `audiobench_logs` counts both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field

from undertone.errors import ConfigError
from undertone.evaluate import mapping
from undertone.evaluate.benchmarks.building import Asked, Builder
from undertone.evaluate.benchmarks.class_judge import ClassJudge
from undertone.evaluate.benchmarks.protocol import Benchmark, Content, Wordings
from undertone.evaluate.benchmarks.rows import Columns, NativeRows
from undertone.evaluate.judges import ReferenceJudge
from undertone.paths import Location
from undertone.records import Kind


@dataclass(frozen=True)
class _Set:
    """One data set: what it asks, the classes that its references name, and how it is asked where its rows do not say.

    `own` is true where the classes are not ours. `cut` is what AudioBench takes off the beginning of references. `readable` is false where
    classes cannot be read from answers by keywords.
    """

    attribute: str
    classes: tuple[str, ...] = ()
    own: bool = False
    kind: Kind = "DE"
    rubric: Literal["binary", "graded"] = "binary"
    asks: tuple[str, ...] = ()
    cut: str = ""
    readable: bool = True


_EMOTION = ("Which emotion does the speaker's voice express: {0}?", "How does the speaker feel, going by the speech: {0}?")
_GENDER = ("Is the speaker female or male?", "Going by the voice, is a woman or a man speaking?")
_ACCENT = ("Going by the accent, which country is the speaker from?", "Which country does the speaker's accent belong to?")

SETS: Mapping[str, _Set] = MappingProxyType(
    {
        "iemocap-emotion": _Set(
            "emotion", ("frustration", "anger", "excited", "neutral", "happiness", "surprise", "sad"), own=True, asks=_EMOTION
        ),
        "meld-emotion": _Set("emotion", ("neutral", "joy", "disgust", "sadness", "surprise", "anger", "fear"), asks=_EMOTION),
        "meld-sentiment": _Set(
            "sentiment",
            ("neutral", "positive", "negative"),
            own=True,
            asks=("Is the sentiment of what the speaker says {0}?", "Which sentiment does the speaker show: {0}?"),
        ),
        "iemocap-gender": _Set("gender", ("female", "male"), kind="DG", asks=_GENDER),
        "voxceleb-gender": _Set("gender", ("female", "male"), kind="DG", asks=_GENDER),
        "voxceleb-accent": _Set(
            "accent",
            kind="OPEN",
            rubric="graded",  # in AudioBench's list of metrics, and by the grades in its logs
            asks=_ACCENT,
            cut="From the audio, I guess the speaker is from ",
            readable=False,
        ),
        "imda-gr-sentence": _Set("gender", ("female", "male"), kind="DG"),
        "imda-gr-dialogue": _Set("genders", kind="DG"),
        "imda-ar-sentence": _Set("accent", kind="OPEN", readable=False),
        "imda-ar-dialogue": _Set("accent", kind="OPEN", readable=False),
    }
)
"""Data set of AudioBench, its name without "_test" -> what it is. Those of IMDA (MNSC) have questions in their rows."""

DEFECT = (
    "the grade is the last word of the judge's reply; where that is no number the row counts 0, and only the success rate tells. A grade "
    "that is not offered counts as it stands."
)


class AudioBench(Benchmark):
    """One of AudioBench's emotion, gender and accent sets.

    Attributes:
        columns: Which column holds what.
        wordings: How it is asked, with {0} where the classes stand; empty for ours. Rows with a question of their own keep it.
        rubric: Of an LLM judge; None for the set's.
    """

    name: Literal[
        "audiobench-iemocap-emotion",
        "audiobench-meld-emotion",
        "audiobench-meld-sentiment",
        "audiobench-iemocap-gender",
        "audiobench-voxceleb-gender",
        "audiobench-voxceleb-accent",
        "audiobench-imda-gr-sentence",
        "audiobench-imda-gr-dialogue",
        "audiobench-imda-ar-sentence",
        "audiobench-imda-ar-dialogue",
    ]
    columns: Columns = Columns()
    wordings: tuple[str, ...] = ()
    rubric: Literal["binary", "graded"] | None = None
    split: str = "test"
    licence: str | None = Field(default=None)

    ABOUT: ClassVar[str] = (
        "AudioBench's emotion, gender and accent sets: IEMOCAP (1,004 clips), MELD, VoxCeleb (4,874), IMDA's National Speech Corpus (3,000). "
        "One label per clip; the answer is judged against a sentence, 0/1 x 100 (VoxCeleb accents: 0-5 x 20)."
    )
    DEFECT: ClassVar[str | None] = DEFECT

    @property
    def about(self) -> _Set:
        """The data set."""
        return SETS[self.name.removeprefix("audiobench-")]

    def read(self, out: Location) -> Content:
        about = self.about
        asks = self.wordings or about.asks
        builder = Builder(source=self.title, out=out, licence=self.licence, language="en")
        wordings = Wordings(texts=tuple(one.format(_listed(about.classes)) for one in asks)) if asks else None
        for row in NativeRows(self.path, columns=self.columns, split=self.split, asks=wordings is None):
            clip = builder.sound(row.where, row.sound, name=row.name, transcript=row.transcript)
            if clip is None:
                continue
            answer = (row.answer or "").removeprefix(about.cut)
            question = row.question or (wordings.of(self.title, row.where) if wordings else "")
            label = None if about.own or not about.readable else mapping.to_label(answer, about.attribute).label
            builder.ask(row.where, clip, Asked(about.kind, question, answer, about.attribute if label else None, label))
        return builder.content(where=self.path)

    def figures(self) -> tuple[str, ...]:
        return ("overall", "classes") if self.about.readable else ("overall",)

    def scoring(self) -> Mapping[str, Any]:
        return {"rubric": self.rubric or self.about.rubric, "wording": "plain", "runs": 1}

    def reference_judge(self) -> ReferenceJudge | ClassJudge:
        if not self.about.readable:
            raise ConfigError(
                f"{self.title} needs an LLM judge: answers name an accent in other words than its references do ('American', 'USA.'). Set "
                "evaluate.judge.judge: {kind: llm, endpoint: ..., model: ...}"
            )
        return ClassJudge(attribute=self.about.attribute, classes=self.about.classes) if self.about.own else ReferenceJudge()

    def attribute(self) -> str | None:
        return self.about.attribute if self.about.own else None

    def read_class(self, text: str, attribute: str) -> str | None:
        if attribute != self.about.attribute or not self.about.own:
            return super().read_class(text, attribute)
        return mapping.to_label(text, attribute, among=self.about.classes).label


def _listed(classes: tuple[str, ...]) -> str:
    return f"{', '.join(classes[:-1])} or {classes[-1]}" if len(classes) > 1 else ""
