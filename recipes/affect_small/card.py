"""The model card: README.md, model.json and LICENSE.md, from measured numbers only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from affect_small.data import EMOTIONS

LICENCE = "CC-BY-NC-SA-4.0"
LICENCES = {
    "ravdess": "CC BY-NC-SA 4.0", "tess": "CC BY-NC-ND 4.0", "nemo": "CC BY-NC-SA 4.0", "emogator": "Apache-2.0",
    "deeply-nonverbal": "CC BY-NC-ND 4.0", "acoustics": "Apache-2.0, MIT, CC BY 3.0", "demo": "synthetic", "music": "synthetic",
    "noise": "synthetic",
}  # fmt: skip

CARD = """# affect-small {version}

Hears emotion (7 classes), valence/arousal/dominance, gender and {events} vocal events in 0.3 s and more of one voice, 16 kHz
mono; {parameters:,} numbers, {size_mb:.1f} MB ONNX, {speed:.0f}x real time on one CPU thread, front end included. Use:
`undertone.label.affect.AffectSmall`. Written by `recipes/affect_small` together with every number below; do not edit.

**Licence: {licence}** (attribution, non-commercial, share alike), because it learned from corpora under that licence;
TESS and the non-verbal sounds of Deeply are CC BY-NC-ND 4.0.

## Meant for

Labelling acted or expressive speech in research, tests and demonstrations, and as frozen frame encoder of a toy
speech-LLM (50 frames/s, 260 dims: 128 hidden, 128 log-mel, 4 pitch). Not for judging real people: the emotions are those of
{actors} acting and {synthetic} synthetic voices, and it says what an actor would have meant. It knows no "other" and no
"unknown" emotion. It abstains, with the reason, below 0.3 s (`too_short`), on `silence`, where a tenth of the samples sits at
the peak (`clipped`), and where P(music) + P(noise) is above {no_voice_above:g} (`no_voice`).

## Data

{data_table}

Emotion words are mapped to ours; ravdess `calm` has an output of its own in training, which the exported file adds to
neutral. Ten kinds of EmoGator bursts name one of the emotions and train it; the others train the events only (some voice, not
music or noise). Synthetic speech is espeak-ng by `undertone.corpora.voices`; music, hum, hiss and clicks are made by
`recipes/affect_small/sounds.py`, so that "music" here means synthetic music. **Valence, arousal and dominance targets are
derived, not annotated:** the mean ratings of the emotion term (Russell & Mehrabian, 1977, table 3), scaled for ravdess by
intensity (normal 0.85, strong 1.15: our choice) and mapped to 0..1; `calm` has none. Their CCC therefore measures recognition
of the category on a scale, not agreement with listeners.

## Results on speakers that were never heard (scored after training; nothing was chosen on this split)

{test_table}

"2 s" scores only the middle two seconds of each clip. Guessing gives a UAR of 0.143 (one seventh; nemo lacks `disgusted`: the
model is not told so here, in the benchmark below it is).

{test_recall}

Weakest: {weakest}. Check the classes that matter to you before you trust this model with them.

## Events and abstention on clips that were not trained on

{event_table}

## Against openSMILE eGeMAPS + logistic regression

{benchmark}

## Training

Log-mel, pitch and {functionals} utterance statistics (`undertone.label.features`), numpy only. {member_text} Loss:
class-weighted cross-entropy + (1 - mean CCC) (MERaLiON-SER), masked where a target is missing, + cross-entropy of gender,
event and of which corpus acts so. {steps} steps of {batch} crops of {shortest}-{longest} s, AdamW, cosine, averaged weights, no
early stopping. Augmentation: speed, room, noise, codec, mixing, level, colour, tilt, tempo, vocal tract length, pitch, noise
floor, masks. Seed {seed}, {minutes:.0f} minutes on {threads} CPU thread(s), torch {torch}. Temperature {temperature:g}, chosen on
fold 0 of the benchmark. The same stretch alone and in a batch of eight differs by up to {batched:.1e}, so stretches run one by one.
"""

MEMBERS = (
    "The emotion output is a mixture of outputs per corpus, weighted by how much the voice sounds acted as in each, and of a common "
    "one; members are averaged. Where the statistics lie far from every corpus heard, a plain linear model over all of them takes "
    "over, up to a share of {most:g}."
)


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """Render measured sets as a Markdown table."""
    lines = [
        "| set | clips | abstained | WA | UAR | macro F1 | ECE | gender | V, A, D (CCC with derived targets) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        ccc = ", ".join(f"{x:.2f}" for x in r["derived_vad_ccc"].values())
        lines.append(
            f"| {name} | {r['utterances']} | {r['abstained']} | {r['emotion_wa']:.3f} | {r['emotion_uar']:.3f} "
            f"| {r['emotion_f1']:.3f} | {r['ece']:.3f} | {r['gender_accuracy']:.3f} | {ccc} |"
        )
    return "\n".join(lines)


def recall_table(results: dict[str, dict[str, Any]]) -> str:
    """Render recall per emotion as a Markdown table."""
    lines = ["| recall | " + " | ".join(EMOTIONS) + " |", "|---|" + "---|" * len(EMOTIONS)]
    for name, r in results.items():
        cells = (f"{r['emotion_recall'][e]:.2f}" if e in r["emotion_recall"] else "-" for e in EMOTIONS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def event_table(events: dict[str, Any]) -> str:
    """Render recall per event and abstention per kind as a Markdown table."""
    lines = ["| kind | clips | recall of the event | abstained |", "|---|---|---|---|"]
    for kind, clips in events["clips"].items():
        event = "speech" if kind in LICENCES and kind not in ("music", "noise", "emogator") else kind
        recall = f"{events['recall'][event]:.2f}" if event in events["recall"] else "-"
        lines.append(f"| {kind} | {clips} | {recall} | {events['abstained'][kind]:.3f} |")
    return "\n".join(lines)


def write_card(out: Path, report: dict[str, Any]) -> None:
    """Write model.json, README.md from the same numbers and from what the benchmark left in `out`/benchmark, and LICENSE.md."""
    (out / "model.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    weakest = sorted((x, e, n) for n, r in report["test"].items() if "2 s" not in n for e, x in r["emotion_recall"].items())
    compared = out / "benchmark" / "affect.md"
    if compared.exists():
        benchmark = (
            "Written by `benchmarks/bench_affect.py`, copied from `benchmark/affect.md`.\n\n"
            + compared.read_text(encoding="utf-8").strip()
        )
        benchmark += "\n\n![reliability](benchmark/reliability.svg)"
    else:
        benchmark = "Not measured for these weights: `python benchmarks/bench_affect.py --out models/affect-small/benchmark`."
    rows = ["| corpus | part | speakers | clips | hours | licence |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {d['corpus']} | {d['part']} | {d['speakers']} | {d['clips']} | {d['hours']:.2f} | {LICENCES[d['corpus']]} |"
        for d in report["data"]
    ]
    training = report["training"]
    text = CARD.format(
        version=report["version"],
        events=len(report["events"]),
        parameters=report["parameters"],
        size_mb=(out / "model.onnx").stat().st_size / 1e6,
        speed=report["x_real_time_one_thread"],
        licence=LICENCE,
        actors=sum(v.split("/")[0] in ("ravdess", "tess", "nemo") for v in report["heard_speakers"]),
        synthetic=sum(v.startswith("demo/") for v in report["heard_speakers"]),
        no_voice_above=report["no_voice_above"],
        data_table="\n".join(rows),
        test_table=results_table(report["test"]),
        test_recall=recall_table(report["test"]),
        weakest=", ".join(f"{emotion} in {name} (recall {recall:.2f})" for recall, emotion, name in weakest[:4]),
        event_table=event_table(report["event_test"]),
        benchmark=benchmark,
        functionals=report["functionals"],
        member_text=MEMBERS.format(most=training["steady_most"]),
        temperature=report["temperature"],
        batched=report["batch_of_8_minus_single"],
        **{k: training[k] for k in ("steps", "batch", "shortest", "longest", "seed", "minutes", "threads", "torch")},
    )
    (out / "README.md").write_text(text, encoding="utf-8")
    (out / "LICENSE.md").write_text(
        f"The weights in this folder (`model.onnx`) are under {LICENCE},\n"
        "https://creativecommons.org/licenses/by-nc-sa/4.0/, because they were trained on RAVDESS (Livingstone & Russo, 2018;\n"
        "CC BY-NC-SA 4.0), nEMO (Christop, 2024; CC BY-NC-SA 4.0), TESS (Pichora-Fuller & Dupuis, 2020; CC BY-NC-ND 4.0), the\n"
        "non-verbal vocal sounds of Deeply Inc. (CC BY-NC-ND 4.0) and EmoGator (Buhl, 2023; Apache-2.0). They contain no audio\n"
        "of these corpora. The code of Undertone that trains and runs them is Apache-2.0; the restriction is on these weights\n"
        "and on what is derived from them.\n",
        encoding="utf-8",
    )
