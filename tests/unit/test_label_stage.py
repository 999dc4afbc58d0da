"""The label stage: one decode, windows with context, batches, words, and recordings that fail alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertone import audio, tables
from undertone.audio import Wave
from undertone.errors import ConfigError
from undertone.execute import run_stage, write_rows
from undertone.label import stage as stage_module
from undertone.label.protocol import LABELLERS, Category, Labeller, Listener, Scalar, Transcript, Value, category, labeller, scalar
from undertone.label.selftest import one_sided
from undertone.label.stage import LabelStage, Windows
from undertone.label.texts import NEAR_MS, Texts, nearest
from undertone.records import Recording, Segment, Word
from undertone.stages import Context, Dropped, Failed, Kept, Outcome
from undertone.tables import Fingerprint

RATE = 16_000


def voice(seconds: float, hz: float = 150.0, level: float = 0.2, rate: int = RATE) -> np.ndarray:
    """A buzz that the voice activity detector takes for speech."""
    t = np.arange(int(seconds * rate)) / rate
    return (level * sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 8)) / 2).astype(np.float32)


def quiet(seconds: float, rate: int = RATE) -> np.ndarray:
    return np.zeros(int(seconds * rate), np.float32)


def recording(folder: Path, name: str, *parts: np.ndarray, rate: int = RATE, **more: Any) -> Recording:
    file = folder / f"{name}.flac"
    audio.write(file, Wave(np.concatenate(parts), rate))
    probe = audio.probe(file)
    return Recording(uri=str(file), sha256=probe.sha256, rate_hz=rate, samples=probe.samples, source="test", **more)


def segments(outcome: Outcome[Segment]) -> tuple[Segment, ...]:
    assert isinstance(outcome, Kept), outcome
    return outcome.rows


def opened(stage: LabelStage) -> LabelStage:
    stage.open(Context(out_dir=Path(), seed=0, sides={}))
    return stage


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    """Registers labellers for one test."""
    names = []

    def registering(name: str, **more: Any) -> Any:
        names.append(name)
        return labeller(name, **more)

    yield registering
    for name in names:
        LABELLERS.remove(name)


def test_windows_have_context_as_far_as_the_segment_has_it(tmp_path: Path, register: Any):
    heard: list[int] = []

    @register("listen", version="1", emits=[Scalar("length")], hears="window")
    def listen(wave: Wave) -> list[Value]:
        heard.append(wave.duration_ms)
        return [scalar("length", wave.duration_ms)]

    stage = opened(LabelStage(labellers=("listen",), windows=Windows(length_ms=2_000, context_ms=1_000)))
    (one,) = segments(stage.process([recording(tmp_path, "a", quiet(1), voice(6), quiet(1))])[0])
    spans = [(label.start_ms - one.start_ms, label.end_ms - one.start_ms) for label in one.labels]
    assert spans[:2] == [(0, 2000), (2000, 4000)]
    assert spans[-1][1] == one.duration_ms
    assert [label.number for label in one.labels][:2] == [3000, 4000]
    assert heard[0] == 3000


def test_each_recording_is_decoded_once_however_many_labellers_hear_it(
    tmp_path: Path, register: Any, monkeypatch: pytest.MonkeyPatch
):
    decoded: list[str] = []
    real = audio.stream

    def counted(path: str, **more: Any) -> Iterator[Wave]:
        decoded.append(path)
        return real(path, **more)

    monkeypatch.setattr(stage_module.audio, "stream", counted)
    for name in ("x", "y", "z"):

        @register(name, version="1", emits=[Scalar(name)], hears="window" if name == "x" else "segment")
        def give(wave: Wave, name: str = name) -> list[Value]:
            return [scalar(name, 1.0)]

    rows = [recording(tmp_path, name, quiet(0.5), voice(3, hz), quiet(0.5)) for name, hz in [("a", 120), ("b", 200)]]
    opened(LabelStage(labellers=("x", "y", "z"))).process(rows)
    assert decoded == [row.uri for row in rows]


def test_a_batch_holds_one_recording_unless_it_may_be_shared(tmp_path: Path, register: Any):
    """Padding with another recording's window would make a score depend on how the corpus is cut into parts."""
    heard: list[list[float]] = []

    class Batched(Labeller):
        batch = 8

        def judge_many(self, waves: Sequence[Wave]) -> list[list[Value]]:
            heard.append([round(float(np.abs(one.samples).max()), 1) for one in waves])
            return [[scalar("level", 0.0)] for _ in waves]

    register("batched", version="1", emits=[Scalar("level")], hears="window")(Batched)
    rows = [recording(tmp_path, f"r{n}", quiet(0.5), voice(5, 120, level), quiet(0.5)) for n, level in enumerate((0.2, 0.5))]
    opened(LabelStage(labellers=("batched",))).process(rows)
    assert len(heard) == 2
    assert all(len(set(one)) == 1 for one in heard)


def test_batches_hold_windows_of_several_recordings_and_do_not_change_what_is_said(tmp_path: Path, register: Any):
    sizes: list[int] = []

    class Mean(Labeller):
        def judge_many(self, waves: Sequence[Wave]) -> list[list[Value]]:
            sizes.append(len(waves))
            assert [len(one.samples) for one in waves] == sorted(len(one.samples) for one in waves)
            return [[scalar("level", float(np.abs(one.samples).mean()))] for one in waves]

    class Many(Mean):
        batch = 8

    register("single", version="1", emits=[Scalar("level")], hears="window")(Mean)
    register("batched", version="1", emits=[Scalar("level")], hears="window")(Many)
    rows = [recording(tmp_path, f"r{n}", quiet(0.5), voice(1 + n, 110 + 10 * n, 0.1 + 0.05 * n), quiet(0.5)) for n in range(6)]
    made = {}
    for name in ("single", "batched"):
        sizes.clear()
        found = opened(LabelStage(labellers=(name,), share_batches=True)).process(rows)
        made[name] = [[(one.number, one.start_ms, one.end_ms) for one in part.labels] for row in found for part in segments(row)]
        assert max(sizes) == {"single": 1, "batched": 8}[name]
    assert made["single"] == made["batched"]


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("raises", "RuntimeError: the model fell over"),
        ("class", "gave emotion 'bored', which it does not declare; expected one of sad, happy"),
    ],
)
def test_a_recording_that_a_labeller_fails_on_is_the_only_one_that_is_lost(
    tmp_path: Path, register: Any, trouble: str, message: str
):
    class Picky(Labeller):
        batch = 4

        def judge_many(self, waves: Sequence[Wave]) -> list[list[Value]]:
            loud = [float(np.abs(one.samples).max()) > 0.3 for one in waves]
            if trouble == "raises" and any(loud):
                raise RuntimeError("the model fell over")
            return [[category("emotion", {"bored" if one else "sad": 1.0})] for one in loud]

    register("picky", version="1", emits=[Category("emotion", ("sad", "happy"))], hears="window")(Picky)
    rows = [recording(tmp_path, f"r{n}", quiet(0.5), voice(2, 120 + n, 0.6 if n == 2 else 0.1), quiet(0.5)) for n in range(4)]
    found = opened(LabelStage(labellers=("picky",))).process(rows)
    assert [type(one) for one in found] == [Kept, Kept, Failed, Kept]
    assert isinstance(found[2], Failed)
    assert message in found[2].error


def test_bad_input_is_accounted_for_and_the_rest_goes_on(tmp_path: Path, register: Any):
    @register("nan", version="1", emits=[Scalar("valence", low=0, high=1)], hears="window")
    def nan(wave: Wave) -> list[Value]:
        return [scalar("valence", math.nan)]

    good = recording(tmp_path, "good", quiet(0.5), voice(3), quiet(0.5))
    broken = recording(tmp_path, "broken", quiet(0.5), voice(30), quiet(0.5))
    content = Path(broken.uri).read_bytes()
    Path(broken.uri).write_bytes(content[: len(content) // 2])
    rows = [
        good,
        broken,
        recording(tmp_path, "silent", quiet(3)),
        recording(tmp_path, "blink", voice(0.1)),
        recording(tmp_path, "other-rate", quiet(0.5, 8000), voice(3, rate=8000), quiet(0.5, 8000), rate=8000),
        good.model_copy(update={"uri": str(tmp_path / "gone.flac")}),
    ]
    found = opened(LabelStage(labellers=("nan",))).process(rows)
    assert [type(one) for one in found] == [Kept, Failed, Dropped, Dropped, Kept, Failed]
    assert [one.reason for one in segments(found[0])[0].labels] == ["not_finite"] * len(segments(found[0])[0].labels)
    assert isinstance(found[2], Dropped)
    assert found[2].reason == "no_speech"


def test_values_with_times_count_from_the_sound_that_was_heard(tmp_path: Path, register: Any):
    """A click is at its place in the recording, in one window only, although the context of others holds it too."""

    @register("clicks", version="1", emits=[Category("event")], hears="window")
    def clicks(wave: Wave) -> list[Value]:
        at = int(np.abs(wave.samples).argmax()) * 1000 // RATE
        if np.abs(wave.samples).max() < 0.8:
            return []
        return [Value(attribute="event", category="click", start_ms=at, end_ms=at + 20)]

    sound = np.concatenate([quiet(1), voice(6), quiet(1)])
    sound[int(4.5 * RATE)] = 0.95
    (one,) = segments(opened(LabelStage(labellers=("clicks",))).process([recording(tmp_path, "a", sound)])[0])
    assert [(label.start_ms, label.end_ms) for label in one.of("event")] == [
        (pytest.approx(4500, abs=2), pytest.approx(4520, abs=2))
    ]
    assert {label.reason for label in one.labels if label.category is None} == {"no_value"}


def test_a_number_outside_of_its_scale_and_an_undeclared_probability_are_errors(tmp_path: Path, register: Any):
    @register("wild", version="1", emits=[Scalar("valence", low=0, high=1), Category("emotion", ("sad", "happy"))])
    def wild(wave: Wave) -> list[Value]:
        level = float(np.abs(wave.samples).max())
        if level > 0.5:
            return [scalar("valence", 5.3)]
        if level > 0.3:
            return [category("emotion", {"sad": 7.0, "happy": 1.0})]
        return [category("emotion", {"sad": 0.8, "bored": 0.2})]

    rows = [recording(tmp_path, f"r{n}", quiet(0.5), voice(2, 120, level), quiet(0.5)) for n, level in enumerate((0.7, 0.5, 0.1))]
    found = opened(LabelStage(labellers=("wild",))).process(rows)
    assert [one.error.partition("gave ")[2] for one in found if isinstance(one, Failed)] == [
        "valence = 5.3, outside of the scale that it declares, 0 to 1",
        "emotion 'sad' with 7; expected a probability, 0 to 1 (logits want a softmax)",
        "emotion 'bored', which it does not declare; expected one of sad, happy",
    ]


def test_a_labeller_that_hears_recordings_gives_every_segment_its_part(tmp_path: Path, register: Any):
    class Turns(Listener):
        def __init__(self) -> None:
            self.spans: list[tuple[int, int]] = []

        def hear(self, wave: Wave, start_ms: int) -> None:
            self.spans.append((start_ms, start_ms + wave.duration_ms))

        def finish(self) -> list[Value]:
            middle = sum(self.spans[0]) // 2
            end = self.spans[-1][1]
            return [
                Value(attribute="speaker", category="A", start_ms=0, end_ms=middle),
                Value(attribute="speaker", category="B", start_ms=middle, end_ms=end),
            ]

    class Hearer(Labeller):
        def listen(self) -> Listener:
            return Turns()

    register("turns", version="1", emits=[Category("speaker")], hears="recording")(Hearer)
    stage = opened(LabelStage(labellers=("turns",)))
    first, second = segments(stage.process([recording(tmp_path, "a", quiet(1), voice(3), quiet(2), voice(3), quiet(1))])[0])
    assert [(one.category, one.start_ms, one.end_ms) for one in first.labels] == [
        ("A", first.start_ms, (first.start_ms + first.end_ms) // 2),
        ("B", (first.start_ms + first.end_ms) // 2, first.end_ms),
    ]
    assert [(one.category, one.start_ms, one.end_ms) for one in second.labels] == [("B", second.start_ms, second.end_ms)]


# ---- words -----------------------------------------------------------------------------------------------------------------------


def spoken(text: str, start_ms: int, end_ms: int, *, confidence: float | None = None) -> Segment:
    tokens = text.split()
    step = (end_ms - start_ms) // len(tokens)
    words = tuple(
        Word(text=one, start_ms=start_ms + n * step, end_ms=start_ms + (n + 1) * step, confidence=confidence)
        for n, one in enumerate(tokens)
    )
    return Segment(recording_id="r", start_ms=start_ms, end_ms=end_ms, transcript=text, words=words)


def transcriber(register: Any, name: str = "asr") -> list[Wave]:
    asked: list[Wave] = []

    @register(name, version="1", emits=[Transcript()])
    def write(wave: Wave) -> list[Value]:
        asked.append(wave)
        return [
            Value(
                attribute="transcript", category="heard it", words=(Word(text="heard", start_ms=100, end_ms=400, confidence=0.9),)
            )
        ]

    return asked


def test_a_recogniser_is_asked_only_where_there_is_no_text(tmp_path: Path, register: Any):
    asked = transcriber(register)
    parts = (quiet(1), voice(3), quiet(1))
    rows = [
        recording(tmp_path, "told", *parts, references=(spoken("they said this", 1000, 4000),)),
        recording(tmp_path, "wild", *parts, voice(1, 100)),
        recording(tmp_path, "partly", *parts, voice(2, 100), references=(spoken("they said this", 1000, 4000),)),
    ]
    told, wild, partly = opened(LabelStage(labellers=("asr",))).process(rows)
    assert segments(told)[0].transcript == "they said this"
    assert segments(told)[0].of("transcript") == ()
    first, second = segments(wild)
    assert [(word.text, word.start_ms - first.start_ms) for word in first.words] == [("heard", 100)]
    assert [word.start_ms - second.start_ms for word in second.words] == [100]
    assert first.of("transcript")[0].category == "heard it"
    assert [one.transcript for one in segments(partly)] == ["they said this", "heard"]
    assert len(asked) == 3


def test_text_without_word_times_is_spread_and_what_ends_at_the_edge_stays(tmp_path: Path, register: Any):
    @register("texts", version="1", emits=[Transcript()])
    def texts(wave: Wave) -> list[Value]:
        if wave.duration_ms < 2_500:
            return [Value(attribute="transcript", category="no times here")]
        end = Word(text="end", start_ms=wave.duration_ms, end_ms=wave.duration_ms)
        return [Value(attribute="transcript", category="end", words=(end,))]

    found = opened(LabelStage(labellers=("texts",))).process(
        [recording(tmp_path, "a", quiet(1), voice(3), quiet(2), voice(1.5), quiet(1))]
    )
    first, second = segments(found[0])
    assert (first.transcript, second.transcript) == ("end", "no times here")
    assert (second.words[0].start_ms, second.words[-1].end_ms) == (second.start_ms, second.end_ms)


def test_a_labeller_abstains_on_a_language_that_it_does_not_know(tmp_path: Path, register: Any):
    class English(Labeller):
        languages = frozenset({"en"})

        def judge(self, wave: Wave) -> list[Value]:
            return [Value(attribute="transcript", category="yes")]

    register("english", version="1", emits=[Transcript()])(English)
    rows = [
        recording(tmp_path, name, quiet(1), voice(2, hz), quiet(1), language=name) for name, hz in [("pl", 120), ("en-GB", 150)]
    ]
    polish, english = opened(LabelStage(labellers=("english",))).process(rows)
    assert [one.reason for one in segments(polish)[0].labels] == ["other_language"]
    assert segments(english)[0].transcript == "yes"


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(200, 4000)), min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "word", "sentence,", "well"]), min_size=1, max_size=12),
    st.integers(0, 9000),
)
def test_no_word_of_a_text_is_lost_while_speech_is_near(gaps: list[tuple[int, int]], tokens: list[str], begin: int):
    regions, at = [], 0
    for gap, length in gaps:
        regions.append((at + gap + 1, at + gap + 1 + length))
        at = regions[-1][1]
    utterance = spoken(" ".join(tokens), begin, begin + 300 * len(tokens))
    row = Recording(uri="x", sha256="0" * 64, rate_hz=RATE, samples=RATE * 60, source="test", references=(utterance,))
    words = Texts(row, align="letters").words(regions)
    assert [word.text for word in words] == tokens
    overlaps = any(start < utterance.end_ms and end > utterance.start_ms for start, end in regions)
    owners = nearest(words, regions)
    if overlaps:
        assert all(owner is not None for owner in owners)
        assert owners == sorted(owners)  # the order of the words is the order of the segments
    for word, owner in zip(words, owners, strict=True):
        shared = [min(word.end_ms, end) - max(word.start_ms, start) for start, end in regions]
        assert (owner is None) == (max(shared) < -NEAR_MS)
        assert owner is None or shared[owner] == max(shared)


def test_only_one_may_transcribe_and_only_one_may_name_speakers(register: Any):
    transcriber(register)
    transcriber(register, "asr2")
    with pytest.raises(ConfigError, match="asr and asr2 both transcribe; expected at most one"):
        LabelStage(labellers=("asr", "asr2")).made()
    with pytest.raises(ConfigError, match="pyannote and resemblyzer-speakers both name speakers"):
        LabelStage(labellers=("pyannote", "resemblyzer-speakers")).made()

    class Whole(Labeller):
        pass

    register("whole", version="1", emits=[Transcript()], hears="recording")(Whole)
    with pytest.raises(ConfigError, match="'whole' transcribes whole recordings; expected hears 'segment' or 'window'"):
        LabelStage(labellers=("whole",)).made()


def test_a_name_stands_once_and_one_labeller_may_stand_under_several(register: Any):
    with pytest.raises(ValueError, match="the labeller 'prosody' stands twice; give each a name of its own"):
        LabelStage(labellers=("prosody", "prosody"))
    with pytest.raises(ValueError, match="name"):
        LabelStage.model_validate({"labellers": [{"use": "prosody", "name": "human"}]})
    with pytest.raises(ConfigError, match=r"'prosody': config\.min_voiced_ms: got 'long'"):
        LabelStage.model_validate({"labellers": [{"use": "prosody", "config": {"min_voiced_ms": "long"}}]}).made()
    stage = LabelStage.model_validate(
        {"labellers": ["prosody", {"use": "prosody", "name": "slow", "config": {"min_voiced_ms": 500}}]}
    )
    assert [one.name for one in stage.made()] == ["prosody", "slow"]
    assert stage.identity()["signed"] == ["prosody@1", "slow@1"]


@pytest.mark.parametrize("chunk_ms", [1_000, 1_700, 30_000])
def test_utterances_are_aligned_with_exactly_their_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_ms: int):
    from undertone.label import sphinx

    given: list[tuple[Wave, str]] = []

    def align(wave: Wave, text: str) -> tuple[Word, ...] | None:
        given.append((wave, text))
        return None if text == "cannot be aligned" else (Word(text="yes", start_ms=250, end_ms=750, confidence=0.5),)

    monkeypatch.setattr(sphinx, "align", align)
    references = (
        spoken("yes", 1000, 4000),
        spoken("cannot be aligned", 5000, 8000),
        spoken("known times", 9000, 12_000, confidence=1.0),
    )
    row = recording(tmp_path, "a", quiet(1), voice(3), quiet(1), voice(3, 200), quiet(1), voice(3), quiet(1), references=references)
    stage = opened(LabelStage(labellers=("prosody",), align="pocketsphinx", chunk_ms=chunk_ms))
    words = [word for one in segments(stage.process([row])[0]) for word in one.words]
    assert [word.text for word in words] == ["yes", "cannot", "be", "aligned", "known", "times"]
    assert [word.start_ms for word in words if word.confidence is not None] == [1250, 9000, 10_500]
    assert all(4_800 < word.start_ms < word.end_ms < 8_200 for word in words if word.confidence is None)
    assert [text for _, text in given] == ["yes", "cannot be aligned"]
    whole = audio.load(row.uri)
    for (wave, _), start in zip(given, (1000, 5000), strict=True):
        np.testing.assert_array_equal(wave.samples, whole.cut(start, start + 3000).samples)


# ---- the self-test ---------------------------------------------------------------------------------------------------------------


def test_a_labeller_that_says_the_same_for_everything_is_named(tmp_path: Path, register: Any):
    @register("stuck", version="1", emits=[Category("emotion", ("neutral", "sad")), Scalar("valence")], hears="window")
    def stuck(wave: Wave) -> list[Value]:
        return [category("emotion", {"neutral": 0.9, "sad": 0.1}), scalar("valence", len(wave.samples) + wave.samples[100])]

    @register("mute", version="1", emits=[Scalar("arousal")], hears="window", min_ms=60_000)
    def mute(wave: Wave) -> list[Value]:
        return [scalar("arousal", 0.5)]

    rows = [recording(tmp_path, f"r{n}", *(quiet(1), voice(4, 110 + n, 0.1 + 0.01 * n)) * 3, quiet(1)) for n in range(6)]
    made = Fingerprint(stage="toy", version="1", seed=0, config={}, inputs={})
    write_rows(tmp_path / "corpus", rows, record=Recording, fingerprint=made)
    run_stage(LabelStage(labellers=("stuck", "mute")), [tmp_path / "corpus"], tmp_path / "raw")
    warnings = list(one_sided(tables.open_table(tmp_path / "raw", Segment)))
    assert len(warnings) == 2
    assert warnings[0].startswith("mute@1 gives no arousal for ")
    assert "mostly because of 'too_short'" in warnings[0]
    assert warnings[1].startswith("stuck@1 gives emotion = neutral for 36 of the 36 stretches")


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0.0), ("cuda", 1.0), ("cuda:1", 2.0)])
def test_a_cluster_is_asked_for_the_gpus_that_labellers_run_on(device: str, gpus: float):
    made = LabelStage(labellers=("prosody", {"use": "emotion2vec", "config": {"model": "folder", "device": device}}))  # type: ignore[arg-type]
    assert made.gpus == gpus
