"""What the protocols of emotion corpora share: the test part of a corpus, asked for its emotion and for valence, arousal and dominance."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import Field, model_validator

from undertone.corpora.folder import FileSpec
from undertone.corpora.native import NativeCorpus
from undertone.corpora.plan import Planned
from undertone.errors import AudioError
from undertone.evaluate import mapping
from undertone.evaluate.benchmarks.building import Asked, Builder
from undertone.evaluate.benchmarks.class_judge import ClassJudge
from undertone.evaluate.benchmarks.protocol import Benchmark, Content, Wordings
from undertone.paths import Location
from undertone.records import DIMENSIONS, Emotion

FOUR: tuple[Emotion, ...] = ("angry", "happy", "neutral", "sad")
FIVE: tuple[Emotion, ...] = (*FOUR, "surprised")
"""The emotions of BLSP-Emo and RE-LLM: neutral, happy, angry, sad, surprise."""

WORDINGS = ("Which emotion does the speaker's voice express: {0}?", "How does the speaker feel, going by the voice: {0}?")
_POLES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "valence": ("How pleasant does the speaker feel", "very unpleasant", "very pleasant"),
        "arousal": ("How excited is the speaker", "very calm", "very excited"),
        "dominance": ("How much in control does the speaker sound", "very submissive", "very dominant"),
    }
)


class SpeechEmotion(Benchmark):
    """Base of the protocols. Weighted and unweighted accuracy are of the class that an answer names among those asked.

    Attributes:
        classes: The emotions that are asked for; recordings of others are left out (`other_class`).
        dimensions: Whether valence, arousal and dominance are asked too, on the corpus' scale (CCC and MAE, in 0..1).
        wordings: How the emotion is asked, with {0} where the classes stand.
    """

    classes: tuple[Emotion, ...] = Field(default=FOUR, min_length=2)
    dimensions: bool = False
    wordings: tuple[str, ...] = Field(default=WORDINGS, min_length=1)

    SCALE: ClassVar[tuple[float, float] | None] = None
    """The corpus' scale of ratings; None where it has none."""

    @model_validator(mode="after")
    def _asks_for_what_is_rated(self) -> SpeechEmotion:
        if self.dimensions and self.SCALE is None:
            raise ValueError(f"{self.title} has no ratings of valence, arousal and dominance; expected dimensions: false")
        return self

    def corpus(self) -> NativeCorpus:
        """The corpus with the protocol's split: for a study that trains on the rest (`corpora:`)."""
        raise NotImplementedError(f"{type(self).__name__} does not say which corpus it is of")

    def read(self, out: Location) -> Content:
        plan = self.corpus().plan_all()
        builder = Builder(source=self.title, out=out, language=None)
        wordings = Wordings(texts=tuple(one.format(_listed(self.classes)) for one in self.wordings))
        for row in plan.rows:
            if row.split == "test":
                self._ask(builder, row, wordings, out)
        tested = sum(row.split == "test" for row in plan.rows)
        return builder.content(where=self.path, notes=(plan.note, f"{tested} of {len(plan.rows)} are the test part"))

    def _ask(self, builder: Builder, row: Planned, wordings: Wordings, out: Location) -> None:
        try:
            recording = FileSpec.model_validate_json(row.spec).read(row, out).model_copy(update={"source": self.title})
        except AudioError as error:
            builder.drop(row.key, "bad_audio", str(error))
            return
        spoken = recording.references[0]
        emotion = spoken.category("emotion")
        if emotion not in self.classes:
            builder.drop(row.key, "other_class", f"{emotion} is none of {', '.join(self.classes)}")
            return
        clip = builder.heard(recording)
        builder.ask(
            row.key, clip, Asked("DE", wordings.of(self.title, row.key), f"The speaker sounds {emotion}.", "emotion", emotion)
        )
        for name, scale in self.scales().items():
            if (value := spoken.number(name)) is not None:
                builder.ask(row.key, clip, _rating(name, value, scale))

    def figures(self) -> tuple[str, ...]:
        return ("classes", "values", "overall") if self.dimensions else ("classes", "overall")

    def scoring(self) -> Mapping[str, Any]:
        return {"rubric": "binary", "wording": "plain", "runs": 1}

    def reference_judge(self) -> ClassJudge:
        return ClassJudge(attribute="emotion", classes=self.classes)

    def read_class(self, text: str, attribute: str) -> str | None:
        among = self.classes if attribute == "emotion" else None
        return mapping.to_label(text, attribute, among=among).label

    def scales(self) -> Mapping[str, tuple[float, float]]:
        return dict.fromkeys(DIMENSIONS, self.SCALE) if self.dimensions and self.SCALE else {}


def _rating(name: str, value: float, scale: tuple[float, float]) -> Asked:
    low, high = scale
    what, below, above = _POLES[name]
    question = f"{what}, on a scale from {low:g} ({below}) to {high:g} ({above})? Answer with a number."
    return Asked("OPEN", question, f"{low + value * (high - low):.4g}", name)


def _listed(classes: tuple[str, ...]) -> str:
    return f"{', '.join(classes[:-1])} or {classes[-1]}"
