"""The labellers that hear words: a random Whisper through the real loading code, and pocketsphinx with the model of its wheel."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.contract.checkpoints import asked, make_whisper
from undertone.audio import Wave
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.label.protocol import LABELLERS, Labeller
from undertone.label.spoken import pronounce, written

RATE = 16_000


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


sphinx = needs("pocketsphinx", "espeakng_loader")
whisper = needs("faster_whisper", "ctranslate2", "torch", "transformers", "tokenizers")


def noise(ms: int, seed: int = 0) -> Wave:
    return Wave((0.1 * np.random.default_rng(seed).standard_normal(RATE * ms // 1000)).astype(np.float32), RATE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper"))


def hears(model: Path, **config: object) -> Labeller:
    return LABELLERS.get("faster-whisper", {"model": str(model), "compute_type": "float32", "beam_size": 2, **config})


@whisper
@pytest.mark.parametrize("language", ["en", None])
def test_whisper_gives_text_words_in_recording_times_and_scores(tiny: Path, language: str | None) -> None:
    labeller = hears(tiny, language=language)
    heard = labeller.heard([asked(noise(3_000), 5_000)])[0]
    (label,) = heard.labels
    assert (label.attribute, label.reason, label.labeller) == ("transcript", None, "faster-whisper@1")
    assert label.revision is not None
    assert label.revision.startswith("sha256:")
    assert (label.start_ms, label.end_ms) == (5_000, 8_000)
    assert label.distribution is not None
    assert set(label.distribution) == {"compression_ratio", "no_speech", "mean_logprob", "repeated"}
    assert label.distribution["mean_logprob"] < -1  # random weights: kept nonetheless, no threshold is applied here
    assert label.category is not None
    assert "".join(word.text for word in heard.words) == label.category.replace(" ", "")
    assert heard.words
    starts = [word.start_ms for word in heard.words]
    assert starts == sorted(starts)
    assert all(5_000 <= word.start_ms <= word.end_ms <= 8_000 for word in heard.words)
    assert all(word.confidence is not None and 0 <= word.confidence <= 1 for word in heard.words)


@whisper
def test_whisper_hears_the_same_twice_alone_and_beside_others_and_in_another_process(tiny: Path) -> None:
    waves = [asked(noise(ms, seed)) for seed, ms in enumerate((4_000, 900, 2_000))]
    labeller = hears(tiny, language="en")
    together = labeller.heard(waves)
    assert together == labeller.heard(waves)
    assert together == [labeller.heard([wave])[0] for wave in waves]
    packed = pickle.dumps(labeller)
    assert len(packed) < 2_000  # no weights
    assert pickle.loads(packed).heard(waves) == together


@whisper
def test_whisper_says_why_it_abstains(tiny: Path, tmp_path: Path) -> None:
    assert [one.reason for one in hears(tiny).label(noise(50), start_ms=0)] == ["too_short"]
    broken = hears(make_whisper(tmp_path, nan=True), language="en")
    heard = broken.heard([asked(noise(1_000))])[0]
    assert [one.reason for one in heard.labels] == ["not_finite"]
    assert heard.words == ()


@whisper
def test_whisper_without_words(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labeller = hears(tiny)
    labeller.open()
    monkeypatch.setattr(labeller._loaded, "transcribe", lambda *_, **__: (iter(()), None))  # random weights are never silent
    assert [one.reason for one in labeller.label(noise(500), start_ms=0)] == ["no_words"]


@whisper
def test_whisper_names_what_does_not_fit(tiny: Path, tmp_path: Path) -> None:
    def changed(name: str, **files: str | None) -> Path:
        folder = Path(shutil.copytree(tiny, tmp_path / name))
        for stem, content in files.items():
            file = folder / f"{stem}.json"
            file.unlink() if content is None else file.write_text(content)
        return folder

    with pytest.raises(ModelError, match=r"lacks tokenizer\.json; expected a CTranslate2 model: ct2-transformers-converter"):
        hears(changed("bare", tokenizer=None)).open()
    with pytest.raises(ModelError, match=r"hear 80 mel bands, its preprocessor_config\.json gives 128"):
        hears(changed("mels", preprocessor_config=json.dumps({"feature_size": 128}))).open()
    other = json.loads((tiny / "tokenizer.json").read_text())
    other["added_tokens"] = [one for one in other["added_tokens"] if one["content"] != "<|transcribe|>"]
    with pytest.raises(ModelError, match=r"lacks <\|transcribe\|>; it is not Whisper's"):
        hears(changed("tokens", tokenizer=json.dumps(other))).open()
    (changed("empty") / "model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"the checkpoint in .*empty does not load"):
        hears(tmp_path / "empty").open()
    with pytest.raises(ConfigError, match="language: got 'xx', expected one of af, am"):
        hears(tiny, language="xx").open()


@whisper
def test_an_english_only_whisper_is_told_from_the_others(tmp_path: Path) -> None:
    english = make_whisper(tmp_path, languages=0)
    assert hears(english).label(noise(1_000), start_ms=0)[0].category
    with pytest.raises(ConfigError, match="language: got 'de', expected one of en"):
        hears(english, language="de").open()


def test_whisper_s_weights_are_pinned() -> None:
    assert LABELLERS.get("faster-whisper").revision == "Systran/faster-whisper-large-v3@edaa852ec7e145841d8ffdb056a99866b5f0a478"
    with pytest.raises(ConfigError, match="needs a revision"):
        _ = LABELLERS.get("faster-whisper", {"model": "Systran/faster-whisper-small"}).revision


@whisper
def test_weights_that_cannot_be_fetched_name_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **given: object) -> str:
        assert given["revision"] == "edaa852ec7e145841d8ffdb056a99866b5f0a478"
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        DependencyError, match=r"hf download Systran/faster-whisper-large-v3 --revision edaa.* config: \{model: DIR\}"
    ):
        LABELLERS.get("faster-whisper").open()


# ---- pocketsphinx --------------------------------------------------------------------------------------------------------------

SENTENCE = "The meeting starts at ten tomorrow morning and the report is ready."


def spoken(text: str, *, voice: int = 0, emotion: str = "neutral") -> tuple[Wave, list[tuple[int, int]]]:
    """A sentence of the demonstration corpus' voices between 300 ms of faint noise, and when each word begins and ends."""
    from undertone.corpora.voices import VOICES, speak

    said = speak(text, VOICES[voice], emotion)
    edge = (1e-4 * np.random.default_rng(0).standard_normal(300 * RATE // 1000)).astype(np.float32)
    wave = Wave(np.concatenate([edge, said.samples, edge]), said.rate_hz)
    return wave, [(word.start_ms + 300, word.end_ms + 300) for word in said.words]


@sphinx
def test_pocketsphinx_hears_words_in_recording_times_without_fillers() -> None:
    wave, _ = spoken(SENTENCE)
    labeller = LABELLERS.get("pocketsphinx")
    heard = labeller.heard([asked(wave, 2_000)])[0]
    (label,) = heard.labels
    assert label.revision is not None
    assert label.revision.startswith("pocketsphinx@")
    assert label.category == " ".join(word.text for word in heard.words)
    assert len({*label.category.split()} & {"meeting", "ten", "tomorrow", "morning", "report", "the", "and", "is"}) >= 3
    assert not any(mark in label.category for mark in "<[(")
    assert label.distribution is not None
    assert set(label.distribution) == {"posterior", "compression_ratio", "repeated"}
    assert all(2_000 <= word.start_ms < word.end_ms <= 2_000 + wave.duration_ms for word in heard.words)
    assert all(a.end_ms <= b.start_ms for a, b in zip(heard.words, heard.words[1:], strict=False))
    assert all(word.confidence is not None and 0 <= word.confidence <= 1 for word in heard.words)


@sphinx
def test_pocketsphinx_does_not_remember_what_it_heard_before() -> None:
    from undertone.label.sphinx import align

    wave, _ = spoken(SENTENCE)
    other, _ = spoken("The train leaves at nine in the evening.", voice=3, emotion="sad")
    labeller = LABELLERS.get("pocketsphinx")
    between = Wave(other.samples * 3, RATE)
    first, aligned = labeller.heard([asked(wave)]), align(wave, SENTENCE)
    for _ in range(2):
        labeller.judge(between)
        labeller.judge(noise(700))
        assert labeller.heard([asked(wave)]) == first
        assert align(between, "The train leaves at nine in the evening.")
        assert align(noise(200), SENTENCE) is None
        assert align(wave, SENTENCE) == aligned
    assert pickle.loads(pickle.dumps(labeller)).heard([asked(wave)]) == first


@sphinx
@pytest.mark.parametrize("sound", [np.zeros(RATE), np.full(RATE, 0.5), np.zeros(RATE // 10)], ids=["silence", "constant", "100 ms"])
def test_pocketsphinx_abstains_where_there_are_no_words(sound: np.ndarray) -> None:
    wave = Wave(sound.astype(np.float32), RATE)
    assert [one.reason for one in LABELLERS.get("pocketsphinx").label(wave, start_ms=0)] == ["no_words"]


@sphinx
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_a_known_text_is_aligned_more_closely_than_it_is_spread_by_letters(rate_hz: int) -> None:
    import soxr

    from undertone.corpora.plan import spread
    from undertone.label.sphinx import align

    wave, truth = spoken(SENTENCE)
    heard = Wave(soxr.resample(wave.samples, RATE, rate_hz), rate_hz)
    words = align(heard, SENTENCE)
    assert words is not None
    assert [word.text for word in words] == SENTENCE.split()
    assert all(word.confidence is not None and 0 < word.confidence <= 1 for word in words)

    def error_ms(found: tuple[object, ...]) -> float:
        return float(np.median([abs(word.start_ms - begin) for word, (begin, _) in zip(found, truth, strict=True)]))  # type: ignore[attr-defined]

    assert error_ms(words) < 50
    assert error_ms(words) < error_ms(spread(SENTENCE, 0, wave.duration_ms)) / 2


@sphinx
def test_aligned_words_keep_their_spelling_and_unknown_ones_are_sounded_out() -> None:
    from undertone.label.sphinx import align

    plain, truth = spoken("The meeting starts at ten tomorrow morning")
    text = "“The meating” — starts at 10 to-morrow MORNING…"
    words = align(plain, text)
    assert words is not None
    assert " ".join(word.text for word in words) == text
    assert [word.text for word in words] == ["“The", "meating” —", "starts", "at", "10", "to-morrow", "MORNING…"]
    assert all(abs(word.start_ms - begin) < 120 for word, (begin, _) in zip(words, truth, strict=True))


@sphinx
def test_what_does_not_fit_the_sound_is_not_aligned() -> None:
    from undertone.label.sphinx import align

    wave, _ = spoken("Good morning.")
    assert align(wave, f"{SENTENCE} {SENTENCE}") is None
    assert align(wave, "— … —") is None
    assert align(wave, "привет") is None
    assert align(wave.cut(0, 90), "Good morning.") is None
    assert align(Wave(np.zeros(RATE, np.float32), RATE), "Good morning.") is None
    assert align(wave, "Good morning.", min_confidence=1.0) is None
    assert align(wave, "Good morning.") is not None


@sphinx
def test_how_a_text_aligns_does_not_depend_on_those_before_it() -> None:
    """In capitals it is spelled letter by letter unless it is a word, and "meating" is made one for the other text."""
    from undertone.label import sphinx as module

    wave, _ = spoken("The meeting starts at ten tomorrow morning")
    texts = ("The meating starts at ten tomorrow morning", "The MEATING starts at ten tomorrow morning")
    found = []
    for order in (texts, texts[::-1]):
        module._engine.cache_clear()
        found.append({text: module.align(wave, text) for text in order})
    assert found[0] == found[1]
    assert found[0][texts[0]] is not None
    assert found[0][texts[1]] is None, "nobody spells it"


def test_pocketsphinx_understands_english_alone() -> None:
    assert LABELLERS.get("pocketsphinx").languages == {"en"}
    assert LABELLERS.get("faster-whisper").languages is None


CMU_PHONES = "AA AE AH AO AW AY B CH D EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UW V W Y Z ZH"
DICTIONARY = {"mr": "M IH S T ER", "cat": "K AE T", "j.": "JH EY", "horse": "HH AO R S"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Mr. Cat", "mr cat"),
        ("$1,250 and 20%", "one thousand two hundred fifty dollars and twenty percent"),
        ("in 1984, 2005 or 1905", "in nineteen eighty four two thousand five or nineteen oh five"),
        ("007 3.5 12345678", "zero zero seven three point five one two three four five six seven eight"),
        ("J. BBC b.b.c. hmm", "j. b. b. c. b. b. c. h. m. m."),
        ("café’s", "cafe's"),
        ("end.Next", "end next"),
    ],
)
def test_text_is_written_as_it_is_said(text: str, said: str) -> None:
    words = written(text, DICTIONARY.__contains__)
    assert " ".join(part for word in words for part in word.said) == said
    assert " ".join(word.text for word in words) == text


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("chatbot", "CH AE T B AA T"),
        ("vibe", "V AY B"),
        ("faceage", "F AE S IY JH"),
        ("cat's", "K AE T S"),
        ("horse's", "HH AO R S AH Z"),
        ("yay", "Y EY"),
        ("x", "K S"),
    ],
)
def test_unknown_words_are_sounded_out(word: str, phones: str) -> None:
    assert pronounce(word, DICTIONARY.get) == phones


def test_any_word_can_be_sounded_out() -> None:
    known = {"EY", "AE", "IY", "K", "S"}
    for first in "abcdefghijklmnopqrstuvwxyz":
        for second in "abcdefghijklmnopqrstuvwxyz":
            for word in (first, first + second, f"{first}{second}e", f"{first}'{second}", f"{first * 3}{second * 3}"):
                known |= {*(made := pronounce(word, lambda _: None).split())}
                assert made
    assert known <= set(CMU_PHONES.split())
