"""Train `affect-small`, the small network that hears emotion, valence/arousal/dominance, gender and vocal events.

    python recipes/affect_small --data ../shared/data --out models/affect-small

Top to bottom: read the corpora, compute features (kept in a cache), train a fixed number of steps on everybody but the test
speakers, export to ONNX, score the exported file on the test speakers, write the card. Every number of the model card is
written here or by `benchmarks/bench_affect.py`, whose results are read from OUT/benchmark; `--card-only` writes the card anew.
About ten minutes on one CPU core; deterministic for one seed, one machine and one thread count.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from affect_small import augment, measure, steady, train
from affect_small.card import LICENCE, write_card
from affect_small.data import CLASSES, EMOTIONS, EVENTS, GENDERS, SPEECH, Clip, read_everything, shipped, vad_target
from affect_small.export import export
from undertone.label.affect import AffectSmall, probe_wave
from undertone.label.features import FRONT_END_VERSION, FUNCTIONALS, RATE_HZ

VERSION = "2"
COPIES = 2


def data_rows(clips: list[Clip]) -> list[dict[str, Any]]:
    """Who is in which part, with clips and hours."""
    rows = []
    for corpus in dict.fromkeys(c.corpus for c in clips):
        for part in ("train", "test"):
            some = [c for c in clips if c.corpus == corpus and shipped(c) == part]
            if not some:
                continue
            names = sorted({measure.spoken(c).split("/", 1)[1] for c in some})
            said = ", ".join(names) if corpus in (*SPEECH, "demo") else f"{len(names)}"
            hours = sum(c.samples for c in some) / RATE_HZ / 3600
            rows.append({"corpus": corpus, "part": part, "speakers": said, "clips": len(some), "hours": round(hours, 3)})
    return rows


def scored(model: AffectSmall, clips: list[Clip]) -> dict[str, Any]:
    """Measure the exported model on every acted corpus's test speakers, whole and two seconds."""
    found = {}
    for corpus in (*SPEECH, "demo"):
        held = [c for c in clips if c.corpus == corpus and shipped(c) == "test"]
        found[corpus] = measure.measure(model, held)
        found[f"{corpus}, 2 s"] = measure.measure(model, held, seconds=2.0)
    return found


def main() -> None:
    """Do everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("models/affect-small"))
    parser.add_argument("--cache", type=Path, default=Path("runs/affect-cache"))
    parser.add_argument("--steps", type=int, default=train.Settings().steps, help="fewer for a try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--card-only", action="store_true", help="write README.md from model.json and OUT/benchmark")
    options = parser.parse_args()
    if options.card_only:
        write_card(options.out, json.loads((options.out / "model.json").read_text(encoding="utf-8")))
        return
    if not (options.data / "ravdess" / "manifest.csv").exists():
        raise SystemExit(f"{options.data}: no ravdess/manifest.csv; expected the folder of the shared corpora (--data)")
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    began = time.perf_counter()
    clips = read_everything(options.data, seed=options.seed)
    bank = augment.feature_bank(clips, options.data, copies=COPIES, seed=options.seed, cache=options.cache)
    settings = train.Settings(steps=options.steps, seed=options.seed)
    chosen = [i for i, clip in enumerate(clips) if shipped(clip) == "train"]
    net = train.train(clips, bank, chosen, settings)
    net.temperature.fill_(measure.TEMPERATURE)
    options.out.mkdir(parents=True, exist_ok=True)
    differences = export(net, options.out / "model.onnx")
    minutes = (time.perf_counter() - began) / 60
    heard = sorted({c.voice for c in (clips[i] for i in chosen) if c.corpus not in ("acoustics", "music", "noise")})
    tested = sorted({measure.spoken(c) for c in clips if c.corpus in (*SPEECH, "demo") and shipped(c) == "test"})
    report: dict[str, Any] = {
        "name": "affect-small",
        "version": VERSION,
        "licence": LICENCE,
        "sha256": hashlib.sha256((options.out / "model.onnx").read_bytes()).hexdigest(),
        "front_end": FRONT_END_VERSION,
        "emotions": EMOTIONS,
        "genders": GENDERS,
        "events": EVENTS,
        "no_voice_above": measure.NO_VOICE_ABOVE,
        "temperature": measure.TEMPERATURE,
        "heard_speakers": heard,
        "test_speakers": tested,
        "parameters": sum(x.numel() for x in net.state_dict().values()),
        "functionals": FUNCTIONALS,
        **differences,
        "derived_targets": {
            "vad": {e: vad_target(e, 1.0) for e in CLASSES if vad_target(e, 1.0)},
            "source": "Russell & Mehrabian 1977, table 3",
        },
        "data": data_rows(clips),
        "training": {
            **dataclasses.asdict(settings), "copies_per_clip": COPIES, "steady_most": steady.MOST, "minutes": round(minutes, 1),
            "threads": options.threads, "torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine(),
        },
    }  # fmt: skip
    (options.out / "model.json").write_text(json.dumps(report) + "\n", encoding="utf-8")  # what loading needs; complete below
    model = AffectSmall(options.out)
    report["test"] = scored(model, clips)
    others = [c for c in clips if shipped(c) == "test"]
    report["event_test"] = measure.measure_events(model, others)
    report["x_real_time_one_thread"] = measure.throughput(model)
    probe = model.score(probe_wave())
    report["probe"] = {"scores": dataclasses.asdict(probe), "frames_abs_mean": float(np.abs(model.frames(probe_wave())).mean())}
    write_card(options.out, report)
    print(json.dumps({name: (r["emotion_uar"], r["gender_accuracy"]) for name, r in report["test"].items()}, indent=1))


if __name__ == "__main__":
    main()
