"""The emotion nuance module: embeddings joined to frames at the right times, of the right width, and errors that say what differs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pydantic import ValidationError

from undertone.audio import Wave
from undertone.errors import ConfigError, ModelError
from undertone.label.affect import EMBEDDING_DIM, FRAME_DIM, HIDDEN
from undertone.label.embedding import Embedding, in_pieces, mean_of
from undertone.label.protocol import LABELLERS, Labeller, Scalar, Value, labeller, scalar
from undertone.model.config import AuxConfig, EncoderConfig, LoRAConfig, NuanceConfig, SpeechLLMConfig
from undertone.model.encode import EncodeStage
from undertone.model.encoders import RATE_HZ, AffectEncoder, load_encoder
from undertone.model.nuance import EmotionEncoder, beside, resampled, with_nuance

AFFECT = EncoderConfig.affect_small()
WHISPER_LIKE = EncoderConfig(config={"model_type": "whisper"})


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).normal(size=int(seconds * RATE_HZ))).astype(np.float32)


class Loudness(Labeller):
    """An emotion encoder whose every number can be checked: the mean level, and the level of each tenth of a second."""

    def judge(self, wave: Wave) -> list[Value]:
        return [scalar("level", float(np.abs(wave.samples).mean()))]

    def embed(self, wave: Wave) -> Embedding:
        frames = np.abs(wave.samples[: len(wave.samples) // 1600 * 1600]).reshape(-1, 1600).mean(1, keepdims=True)
        return Embedding(np.array([np.abs(wave.samples).mean(), wave.duration_ms], np.float32), frames.astype(np.float32))


class Strange(Loudness):
    """Its embedding has as many numbers as the wave has seconds."""

    def embed(self, wave: Wave) -> Embedding:
        return Embedding(np.ones(len(wave.samples) // RATE_HZ, np.float32))


@pytest.fixture(autouse=True)
def plugins() -> Iterator[None]:
    settings = {"emits": [Scalar("level")], "version": "1", "min_ms": 200}
    made = {
        "loudness": labeller("loudness", **settings)(type("One", (Loudness,), {})),
        "telephone": labeller("telephone", **settings, rate_hz=8_000)(type("Two", (Loudness,), {})),
        "strange": labeller("strange", **settings)(type("Three", (Strange,), {})),
    }
    yield
    for name in made:
        LABELLERS.remove(name)


# --- what is joined -----------------------------------------------------------------------------------------------------------------


def test_the_embedding_of_the_whole_stands_behind_every_frame() -> None:
    samples = sound(1.0)
    encoder = load_encoder(AFFECT)
    made = with_nuance(encoder, NuanceConfig())
    frames = made.frames(samples)
    assert made.dim == frames.shape[1] == FRAME_DIM + EMBEDDING_DIM
    np.testing.assert_array_equal(frames[:, :FRAME_DIM], encoder.frames(samples))
    emotion = frames[:, FRAME_DIM:]
    assert (emotion == emotion[0]).all()
    assert not np.array_equal(emotion[0], with_nuance(encoder, NuanceConfig()).frames(sound(1.0, 1))[0, FRAME_DIM:])
    assert with_nuance(encoder, None) is encoder


def test_affect_small_embeds_what_it_hears_and_what_it_makes_of_it() -> None:
    model = LABELLERS.get("affect-small")
    samples = sound(1.3)
    made = model.embed(Wave(samples, RATE_HZ))
    assert made.frames.shape == (33, HIDDEN)  # 130 hops of 10 ms, four to a frame
    np.testing.assert_allclose(made.utterance[:HIDDEN], made.frames.mean(0), rtol=1e-5, atol=1e-6)
    assert np.isclose(made.utterance[2 * HIDDEN : -3].sum(), 1.0, atol=1e-4), "seven probabilities"
    assert ((made.utterance[-3:] >= 0) & (made.utterance[-3:] <= 1)).all()


def test_frames_of_both_are_of_one_time() -> None:
    # silence, then sound: the level must rise at the same frame as affect-small's own log-mel does
    samples = np.concatenate([np.zeros(RATE_HZ, np.float32), sound(1.0)])
    made = with_nuance(load_encoder(AFFECT), NuanceConfig(encoder="loudness", frames=True))
    frames = made.frames(samples)
    assert frames.shape == (100, FRAME_DIM + 3)
    assert (frames[:, FRAME_DIM] == frames[0, FRAME_DIM]).all()
    level = frames[:, -1]
    assert level[:45].max() == 0
    assert level[55:].min() > 0.2
    only = with_nuance(load_encoder(AFFECT), NuanceConfig(encoder="loudness", utterance=False, frames=True))
    np.testing.assert_array_equal(only.frames(samples), frames[:, [*range(FRAME_DIM), FRAME_DIM + 2]])


def test_resampling_keeps_times_and_ends_with_the_sound() -> None:
    ramp = np.arange(50, dtype=np.float32)[:, None] + 0.5  # middles of 20 ms frames, in frames
    up = resampled(ramp, 100, seconds=1.0, covers_s=1.0)
    np.testing.assert_allclose(up[1:-1, 0], ((np.arange(100) + 0.5) / 2)[1:-1], rtol=1e-6)
    assert up[0, 0] == 0.5  # at the ends the nearest
    np.testing.assert_array_equal(resampled(ramp, 50, seconds=1.0, covers_s=1.0), ramp)
    padded = resampled(ramp, 150, seconds=1.0, covers_s=3.0)
    np.testing.assert_array_equal(padded[:50], ramp)
    assert not padded[50:].any()
    assert resampled(ramp[:0], 4, seconds=0.1, covers_s=0.1).tolist() == [[0.0]] * 4


def test_what_is_too_short_to_be_embedded_is_zeros_and_what_is_empty_is_empty() -> None:
    made = with_nuance(load_encoder(AFFECT), NuanceConfig(encoder="loudness", frames=True))
    frames = made.frames(sound(0.1))
    assert frames.shape == (5, FRAME_DIM + 3)
    assert not frames[:, FRAME_DIM:].any()
    assert frames[:, :FRAME_DIM].any()
    assert made.frames(sound(0.2))[:, FRAME_DIM:].all()
    assert made.frames(sound(0)).shape == (0, FRAME_DIM + 3)


def test_long_audio_has_one_embedding_or_one_per_window(monkeypatch: pytest.MonkeyPatch) -> None:
    config = AFFECT.model_copy(update={"long_audio": "chunk"})
    samples = np.concatenate([sound(1.0), 0.1 * sound(1.0, 1), sound(0.5, 2)])
    emotions = {}
    for span in ("heard", "window"):
        encoder = AffectEncoder(config)
        encoder.window_s = 1.0
        emotions[span] = with_nuance(encoder, NuanceConfig(encoder="loudness", span=span)).frames(samples)[:, FRAME_DIM:]
    assert len(np.unique(emotions["heard"], axis=0)) == 1
    assert emotions["heard"][0, 1] == 2_500
    assert emotions["window"][:, 1].tolist() == [1_000] * 100 + [500] * 25
    first, second = emotions["window"][0, 0], emotions["window"][60, 0]
    assert first > 5 * second


def test_averaged_frames_keep_the_embedding() -> None:
    plain, pooled = (
        with_nuance(load_encoder(AFFECT.model_copy(update={"pool": pool})), NuanceConfig(encoder="loudness")) for pool in (1, 4)
    )
    samples = sound(1.0)
    assert pooled.frames(samples).shape == (13, FRAME_DIM + 2)
    np.testing.assert_allclose(pooled.frames(samples)[:, FRAME_DIM:], plain.frames(samples)[:13, FRAME_DIM:], rtol=1e-6)


def test_pieces_of_a_long_wave_weigh_the_same() -> None:
    wave = Wave(np.arange(10_000, dtype=np.float32), RATE_HZ)
    made = in_pieces(wave, lambda piece: mean_of(piece.samples[:, None]), longest_ms=200)
    np.testing.assert_array_equal(made.frames[:, 0], wave.samples)
    assert made.utterance[0] == pytest.approx(wave.samples.mean())
    assert in_pieces(wave, lambda piece: Embedding(piece.samples[:1]), longest_ms=200).frames is None
    assert in_pieces(wave, lambda piece: Embedding(piece.samples[:1]), longest_ms=None).utterance[0] == 0


def test_rows_beside_inputs_hold_an_embedding() -> None:
    assert beside(np.arange(1, 6, dtype=np.float32), 2).tolist() == [[1, 2], [3, 4], [5, 0]]
    assert beside(np.arange(3, dtype=np.float32), 1).shape == (3, 1)


# --- fingerprints -------------------------------------------------------------------------------------------------------------------


def test_frames_of_another_nuance_are_other_frames() -> None:
    encoder = load_encoder(AFFECT)
    options = [None, NuanceConfig(), NuanceConfig(encoder="loudness"), NuanceConfig(encoder="loudness", frames=True)]
    found = [with_nuance(encoder, one).fingerprint for one in options]
    assert len(set(found)) == len(found)
    assert with_nuance(load_encoder(AFFECT), NuanceConfig()).fingerprint == found[1]


def test_a_stage_without_nuance_is_what_it_was() -> None:
    plain, fused = EncodeStage(), EncodeStage(nuance=NuanceConfig())
    assert "nuance" not in plain.identity()
    assert plain.identity()["fingerprint"] == load_encoder(AFFECT).fingerprint != fused.identity()["fingerprint"]


def test_a_configuration_without_nuance_is_written_as_it_was() -> None:
    written = SpeechLLMConfig(lora=LoRAConfig(), frozen=("encoder", "decoder")).model_dump()
    assert not {"nuance", "aux"} & set(written)
    assert "where" not in written["lora"]
    full = SpeechLLMConfig(
        nuance=NuanceConfig(encoder="audeering-dim", config={"device": "cuda"}, width=1024),
        aux=AuxConfig(classes=()),
        lora=LoRAConfig(where="speech"),
        frozen=("encoder", "decoder", "dimensions_head"),
    )
    assert SpeechLLMConfig.model_validate(full.model_dump(mode="json")) == full


# --- what does not fit --------------------------------------------------------------------------------------------------------------


def test_an_emotion_encoder_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"'telephone' hears 8000 Hz, but the speech encoder is given 16000 Hz; expected an emotion"
    ):
        EmotionEncoder(NuanceConfig(encoder="telephone"))
    with pytest.raises(
        ModelError, match=r"nuance\.width=1024, but an embedding of labeller 'loudness' has 2 numbers; set nuance\.width to 2"
    ):
        EmotionEncoder(NuanceConfig(encoder="loudness", width=1024))
    with pytest.raises(ModelError, match=r"labeller 'prosody' has no embeddings; expected affect-small, audeering-dim"):
        EmotionEncoder(NuanceConfig(encoder="prosody"))
    with pytest.raises(ModelError, match=r"'strange' has no embedding of frames, only of the whole; set nuance\.frames to false"):
        EmotionEncoder(NuanceConfig(encoder="strange", frames=True))
    with pytest.raises(ModelError, match="'strange' gave 2 numbers for 2000 ms, expected 1 as for all others"):
        with_nuance(load_encoder(AFFECT), NuanceConfig(encoder="strange")).frames(sound(2.0))
    with pytest.raises(ConfigError, match="labeller: got 'affectsmall', did you mean 'affect-small'"):
        EmotionEncoder(NuanceConfig(encoder="affectsmall"))
    with pytest.raises(ConfigError, match="labeller 'affect-small' does not take this configuration"):
        EmotionEncoder(NuanceConfig(config={"modle": "x"}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nuance": {"utterance": False}}, "utterance and frames are both false: nothing would be joined"),
        ({"nuance": {"utterance": False, "frames": True, "width": 3}}, "width=3 is of the embedding of the utterance"),
        ({"nuance": {"span": "window"}}, "nuance.span='window' is of the windows of encoder.long_audio='chunk'"),
        ({"nuance": {}, "encoder": WHISPER_LIKE, "frozen": ()}, "nuance.width is needed where the encoder is trained inside"),
        (
            {"nuance": {"frames": True, "width": 3}, "encoder": WHISPER_LIKE, "frozen": ()},
            "nuance.frames=True and nuance.span='heard' need frames of a frozen encoder",
        ),
        ({"aux": {"classes": ["happy", "glad"]}}, "classes: got 'glad', expected some of angry, disgusted"),
        ({"aux": {"dimensions": ["arousal", "arousal"]}}, "dimensions names one twice"),
        ({"aux": {"classes": ["happy"]}}, "expected two at least, or none"),
        ({"aux": {"classes": [], "dimensions": []}}, "there would be no head"),
        ({"frozen": ["encoder", "category_head"]}, "frozen names category_head, which this model does not have"),
        ({"frozen": ["encoder", "dimensions_head"], "aux": {"dimensions": []}}, "frozen names dimensions_head"),
        (
            {"encoder": WHISPER_LIKE, "encoder_lora": {"where": "speech"}},
            "encoder_lora.where='speech' is of a decoder: all that an encoder hears is speech",
        ),
    ],
)
def test_a_configuration_that_makes_no_sense_says_why(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("(", r"\(")):
        SpeechLLMConfig.model_validate(given)
