"""The labeller `faster-whisper`: text and word times by a Whisper model under CTranslate2, with the scores that tell inventions.

Word times come from the cross-attention of the decoder, as in Whisper. Nothing is thrown away here: what silence made the model
say is kept with its scores, and `label.transcripts.Hallucination` refuses it later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from undertone.audio import Wave
from undertone.errors import ConfigError, ModelError
from undertone.label.protocol import Transcript, Value, abstain, labeller
from undertone.label.transcripts import repeated_share
from undertone.label.weights import Weights
from undertone.records import Word

MODEL = "Systran/faster-whisper-large-v3"
REVISION = "edaa852ec7e145841d8ffdb056a99866b5f0a478"
"""Whisper large-v3 (MIT, 99 languages) as converted by Systran; the commit that others pin too."""

_SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>")


@labeller("faster-whisper", version="1", emits=[Transcript()], hears="segment", rate_hz=16_000, min_ms=100, licence="MIT")
class FasterWhisper(Weights):
    """Transcribes a segment; longer ones than 30 s window by window, without the text of the window before.

    The value's `distribution` holds, of the worst window: `compression_ratio` (of all that was decoded), `no_speech` (probability),
    `mean_logprob` (of the tokens, natural), and for the text `repeated` (share of words in loops). Word confidences are mean token
    probabilities. Decoding is at temperature 0 and so deterministic; Whisper's second try at a higher one is random and left out.
    A licence of other weights than the default's is the user's to know.
    """

    packages = ("faster_whisper", "ctranslate2")
    extra = "asr"
    files = (("config.json",), ("tokenizer.json",), ("model.bin",))  # without a tokenizer the package would fetch another model's
    expected = (
        "a CTranslate2 model: ct2-transformers-converter --model CHECKPOINT --output_dir FOLDER --copy_files tokenizer.json "
        "preprocessor_config.json"
    )
    revisions: ClassVar[Mapping[str, str]] = {MODEL: REVISION}

    def __init__(
        self,
        *,
        model: str = MODEL,
        revision: str | None = None,
        language: str | None = None,
        beam_size: int = 5,
        compute_type: str = "default",
        device: str = "cpu",
    ) -> None:
        """Store the configuration; the weights are loaded with the first wave.

        Args:
            model: A folder with a CTranslate2 model (config.json, model.bin, tokenizer.json, vocabulary), or its name on the hub.
            revision: Commit of a hub's model; the default model has a default revision.
            language: Code such as "en"; None detects it for each segment.
            beam_size: Hypotheses kept while decoding.
            compute_type: CTranslate2's, such as "float32", "int8", "float16"; "default" is that of the weights where the device has it.
            device: "cpu", "cuda" or "cuda:1".
        """
        super().__init__(model=model, revision=revision, device=device)
        self.language = language
        self.beam_size = beam_size
        self.compute_type = compute_type

    def load(self) -> Any:
        import ctranslate2

        kind, _, index = self.device.partition(":")
        if kind == "cuda" and not ctranslate2.get_cuda_device_count():
            raise ModelError(
                f"labeller {self.name!r}: device: got {self.device!r}, but CTranslate2 sees no CUDA device; expected cpu"
            )
        with self.fetching():
            from faster_whisper import WhisperModel

            loaded = WhisperModel(
                self.place, device=kind, device_index=int(index or 0), compute_type=self.compute_type, revision=self.pin
            )
        self._check(loaded)
        return loaded

    def _check(self, loaded: Any) -> None:
        bands = loaded.feature_extractor.mel_filters.shape[0]
        if bands != loaded.model.n_mels:
            raise ModelError(
                f"labeller {self.name!r}: the weights of {self.model} hear {loaded.model.n_mels} mel bands, its preprocessor_config.json "
                f"gives {bands}; copy that file from the model's own hub"
            )
        if missing := [token for token in _SPECIAL if loaded.hf_tokenizer.token_to_id(token) is None]:
            raise ModelError(
                f"labeller {self.name!r}: tokenizer.json of {self.model} lacks {', '.join(missing)}; it is not Whisper's"
            )
        if self.language is not None and self.language not in loaded.supported_languages:
            raise ConfigError(
                f"labeller {self.name!r}: language: got {self.language!r}, expected one of {', '.join(loaded.supported_languages)}"
            )

    def judge_many(self, waves: Sequence[Wave]) -> Sequence[Sequence[Value]]:
        return [self._transcribed(wave) for wave in waves]

    def _transcribed(self, wave: Wave) -> list[Value]:
        """Of one wave; "no_words" where nothing was heard, "not_finite" where the model gave no numbers."""
        found, _ = self._loaded.transcribe(
            wave.samples,
            language=self.language,
            beam_size=self.beam_size,
            temperature=0.0,
            word_timestamps=True,
            condition_on_previous_text=False,  # a loop would go on into the next window
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,  # all thresholds are applied later
        )
        parts = list(found)
        text = "".join(part.text for part in parts).strip()
        if not text:
            return [abstain("transcript", "no_words" if self._counts(wave) else "not_finite")]
        words = [word for part in parts for word in part.words or ()]
        scores = {
            "compression_ratio": float(max(part.compression_ratio for part in parts)),
            "no_speech": float(max(part.no_speech_prob for part in parts)),
            "mean_logprob": float(min(part.avg_logprob for part in parts)),
            "repeated": repeated_share(text),
        }
        if not all(math.isfinite(number) for number in [*scores.values(), *(word.probability for word in words)]):
            return [abstain("transcript", "not_finite")]
        return [Value(attribute="transcript", category=text, distribution=scores, words=_words(words, wave.duration_ms))]

    def _counts(self, wave: Wave) -> bool:
        """Whether the model gives numbers for a wave: with broken weights it says nothing, which looks like silence."""
        from faster_whisper.audio import pad_or_trim

        whisper = self._loaded
        encoded = whisper.encode(pad_or_trim(whisper.feature_extractor(wave.samples)))
        start = whisper.hf_tokenizer.token_to_id("<|startoftranscript|>")
        decoded = whisper.model.generate(encoded, [[start]], max_length=2, return_scores=True, return_no_speech_prob=True)[0]
        return all(math.isfinite(number) for number in [decoded.no_speech_prob, *decoded.scores])


def _words(found: Iterable[Any], total_ms: int) -> tuple[Word, ...]:
    """Words with times within the wave: attention looks past its end into the padding to 30 s."""
    made = []
    for word in found:
        start_ms = min(max(0, round(1000 * float(word.start))), total_ms)
        end_ms = min(max(start_ms, round(1000 * float(word.end))), total_ms)
        if text := word.word.strip():
            made.append(Word(text=text, start_ms=start_ms, end_ms=end_ms, confidence=float(word.probability)))
    return tuple(made)
