"""What is measured: calibration, abstention, and the exported file through the code that users run."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score, recall_score

from affect_small.data import CLASSES, EMOTIONS, EVENTS, GENDERS, SPEECH, Clip
from undertone.label.affect import Abstained, AffectScores, AffectSmall, probe_wave
from undertone.label.features import RATE_HZ

NO_VOICE_ABOVE = 0.5  # P(music) + P(noise) above which the model abstains; chosen on fold 0
TEMPERATURE = 0.7  # of the emotion output, so that confidence matches accuracy; the best likelihood on fold 0


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How often the likeliest emotion was right, by how sure the model was.

    Attributes:
        count: clips.
        ece: expected calibration error, the mean distance of confidence and accuracy over bins, weighted by clips.
        bins: clips, mean confidence and accuracy of each of 15 equal bins that holds any.
    """

    count: int
    ece: float
    bins: list[tuple[int, float, float]]


def tempered(emotion: np.ndarray) -> np.ndarray:
    """Probabilities at TEMPERATURE (Guo et al., 2017), as the exported graph computes them."""
    scaled = np.log(emotion + 1e-6) / TEMPERATURE
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def canonical(emotion: np.ndarray) -> np.ndarray:
    """Add `calm` to neutral: (N, 8) to (N, 7)."""
    merged = emotion[:, : len(EMOTIONS)].copy()
    merged[:, EMOTIONS.index("neutral")] += emotion[:, CLASSES.index("calm")]
    return merged


def canonical_class(emotion: int) -> int:
    """The same for a target."""
    return EMOTIONS.index("neutral") if CLASSES[emotion] == "calm" else emotion


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> Reliability:
    """Expected calibration error (Guo et al., 2017) in equal bins of confidence."""
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    filled = [
        (int((where == b).sum()), float(confidence[where == b].mean()), float(right[where == b].mean()))
        for b in range(bins)
        if (where == b).any()
    ]
    error = sum(n * abs(sure - accuracy) for n, sure, accuracy in filled) / max(1, len(confidence))
    return Reliability(len(confidence), round(error, 4), [(n, round(s, 4), round(a, 4)) for n, s, a in filled])


def plot_reliability(curve: Reliability, file: Path) -> None:
    """Draw accuracy over confidence, with the share of clips below."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "affect-small"  # equal figures have equal bytes
    from matplotlib import pyplot

    figure, (top, low) = pyplot.subplots(2, 1, figsize=(4.2, 5), sharex=True, height_ratios=(3, 1), layout="constrained")
    counts, sure, accuracy = (np.array(x) for x in zip(*curve.bins, strict=True))
    top.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    top.plot(sure, accuracy, marker="o", color="#2a6f97")
    top.set(ylabel="accuracy", ylim=(0, 1), title=f"emotion, {curve.count} clips of unheard speakers, ECE {curve.ece:.3f}")
    top.title.set_fontsize(9)
    low.bar(sure, counts / counts.sum(), width=0.05, color="#a9c6d8")
    low.set(xlabel="confidence", ylabel="share", xlim=(0, 1))
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def events_table(runs: dict[str, dict[str, Any]]) -> str:
    """Render recall per event and abstention, one column per fold."""
    lines = ["| held out | " + " | ".join(runs) + " |", "|---|" + "---|" * len(runs)]
    for part, title in (("recall", "recall of {}"), ("no_voice", "abstains on {}")):
        for kind in sorted({k for r in runs.values() for k in r[part]}):
            cells = (f"{r[part][kind]:.2f}" if kind in r[part] else "-" for r in runs.values())
            lines.append(f"| {title.format(kind)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def concordance(said: np.ndarray, wanted: np.ndarray) -> float:
    """Concordance correlation coefficient (Lin, 1989)."""
    together = np.mean((said - said.mean()) * (wanted - wanted.mean()))
    return float(2 * together / (said.var() + wanted.var() + (said.mean() - wanted.mean()) ** 2 + 1e-9))


def middle(wave: np.ndarray, seconds: float | None) -> np.ndarray:
    """The middle part of a wave."""
    if seconds is None or len(wave) <= seconds * RATE_HZ:
        return wave
    start = (len(wave) - int(seconds * RATE_HZ)) // 2
    return wave[start : start + int(seconds * RATE_HZ)]


def measure(model: AffectSmall, clips: list[Clip], *, seconds: float | None = None) -> dict[str, Any]:
    """Score acted clips with the exported model and compare with their targets.

    Args:
        model: the exported model.
        clips: what to score.
        seconds: score only the middle part of this length; None scores whole clips.

    Returns:
        Numbers for `model.json`: counts, accuracy (wa), unweighted average recall (uar), macro F1, recall per emotion,
        confusion counts (rows truth, columns answer, order of EMOTIONS), ECE, gender accuracy, CCC of the derived targets.
    """
    scored = [(c, model.score(middle(c.wave, seconds))) for c in clips]
    pairs = [(c, s) for c, s in scored if isinstance(s, AffectScores)]
    truth = np.array([canonical_class(c.emotion) for c, _ in pairs])
    emotion = np.array([[s.emotion[e] for e in EMOTIONS] for _, s in pairs])
    guess = emotion.argmax(axis=1)
    present = sorted(set(truth.tolist()))
    confusion = np.zeros((len(EMOTIONS), len(EMOTIONS)), dtype=int)
    np.add.at(confusion, (truth, guess), 1)
    rated = [(c.vad, (s.valence, s.arousal, s.dominance)) for c, s in pairs if c.vad is not None]
    wanted, said = np.array([pair[0] for pair in rated]), np.array([pair[1] for pair in rated])
    return {
        "utterances": len(clips),
        "abstained": len(clips) - len(pairs),
        "speakers": sorted({spoken(c) for c in clips}),
        "emotion_wa": round(float(np.mean(truth == guess)), 4),
        "emotion_uar": round(float(recall_score(truth, guess, labels=present, average="macro", zero_division=0)), 4),
        "emotion_f1": round(float(f1_score(truth, guess, labels=present, average="macro", zero_division=0)), 4),
        "emotion_recall": {EMOTIONS[c]: round(float(np.mean(guess[truth == c] == c)), 4) for c in present},
        "emotion_confusion": confusion.tolist(),
        "ece": reliability(emotion.max(axis=1), truth == guess).ece,
        "gender_accuracy": round(float(np.mean([s.gender[GENDERS[c.gender]] > 0.5 for c, s in pairs])), 4),
        "derived_vad_ccc": {
            n: round(concordance(said[:, d], wanted[:, d]), 4) for d, n in enumerate(("valence", "arousal", "dominance"))
        },
    }


def spoken(clip: Clip) -> str:
    """The voice under the name that the rest of the code knows: synthetic test voices without their mark."""
    return clip.voice.replace("demo/test:", "demo/")


def measure_events(model: AffectSmall, clips: list[Clip]) -> dict[str, Any]:
    """Recall per event and abstention per kind of sound, of the exported model on clips that it was not trained on."""
    hits: dict[str, list[bool]] = {}
    silent: dict[str, list[bool]] = {}
    for clip in clips:
        score = model.score(clip.wave)
        kind = clip.corpus if clip.corpus in (*SPEECH, "demo", "emogator") else EVENTS[clip.event]
        silent.setdefault(kind, []).append(isinstance(score, Abstained))
        if clip.event >= 0 and score.event is not None:
            hits.setdefault(EVENTS[clip.event], []).append(max(score.event, key=score.event.__getitem__) == EVENTS[clip.event])
    return {
        "clips": {kind: len(values) for kind, values in sorted(silent.items())},
        "recall": {kind: round(float(np.mean(values)), 4) for kind, values in sorted(hits.items())},
        "abstained": {kind: round(float(np.mean(values)), 4) for kind, values in sorted(silent.items())},
    }


def throughput(model: AffectSmall) -> float:
    """Seconds of audio scored per second on one thread, in windows of 4 s, front end included."""
    wave = np.tile(probe_wave(), 2)
    model.score(wave)
    seconds = []
    for _ in range(25):
        began = time.perf_counter()
        model.score(wave)
        seconds.append(time.perf_counter() - began)
    return round(4.0 / float(np.median(seconds)), 1)
