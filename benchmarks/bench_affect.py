"""`affect-small` against openSMILE eGeMAPS + logistic regression, in the same speaker folds and with corpora left out, in one run.

    python benchmarks/bench_affect.py --data ../shared/data --out runs/bench-affect [--workers 2] [--runs fold1,loco-nemo]

Needs `pip install opensmile` (non-commercial licence: for this comparison only, never a part of Undertone) and torch.
About 5 CPU minutes for each of the seven trainings, 5 for eGeMAPS; both are kept in --cache by what they are a function of.

Protocol: everything about the network was chosen on fold 0 and on TESS left out ("development"); folds 1 to 3, nEMO left out and
RAVDESS left out were scored once, with a fixed number of steps. Targets are judged on those. The baseline is fitted to the
corpus itself in a fold (its own classes, RAVDESS with `calm`), the network to all corpora; both answer only among the classes
that the corpus has.
"""

from __future__ import annotations

import argparse
import ast
import csv
import dataclasses
import hashlib
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

from affect_small import augment, measure, network, steady, train
from affect_small.data import CLASSES, DOMAINS, EVENTS, FOLDS, NO_VOICE, SPEECH, TO_OURS, Clip, fold_of, left_out, read_everything

DEVELOPMENT = ("fold0", "loco-tess")
RUNS = (*(f"fold{k}" for k in range(FOLDS)), *(f"loco-{corpus}" for corpus in SPEECH))
SEED = 0
COPIES = 2
MARGIN = {"fold": 0.08, "loco": 0.05}
BASELINE_C = 0.03  # the best of 0.003, 0.01, 0.03, 0.1, 1 for the baseline on fold 0, RAVDESS and nEMO together


def role(clip: Clip, run: str) -> str:
    """Whether a clip is "train", "test" or "unused" in a run."""
    return fold_of(clip, int(run[4:])) if run.startswith("fold") else left_out(clip, run[5:])


# ---------------------------------------------------------------------------------------------------------------------
# The network


def heard(run: str, clips: list[Clip], bank: augment.Bank, settings: train.Settings, cache: Path) -> dict[str, np.ndarray]:
    """Answers of a network trained for one run on its test clips; trained unless kept in the cache."""
    sources = [ast.dump(ast.parse(Path(module.__file__ or "").read_text())) for module in (augment, network, steady, train)]
    key = hashlib.sha256(repr((run, settings, SEED, augment.BANK_VERSION, bank.starts.tolist()[-1], sources)).encode())
    file = cache / f"{run}-{key.hexdigest()[:16]}.npz"
    items = [i for i, clip in enumerate(clips) if role(clip, run) == "test"]
    if not file.exists():
        chosen = [i for i, clip in enumerate(clips) if role(clip, run) == "train"]
        print(f"{run}: {len(chosen)} clips to learn from, {len(items)} to score", flush=True)
        answers = train.predict(train.train(clips, bank, chosen, settings), bank, items)
        held = file.with_suffix(".part")
        with held.open("wb") as out:
            np.savez(out, **answers)
        held.rename(file)
    return {"items": np.array(items), **np.load(file)}


def work(arguments: tuple[str, list[Clip], Path, train.Settings, Path]) -> tuple[str, dict[str, np.ndarray]]:
    """One run in a process of its own."""
    run, clips, stem, settings, cache = arguments
    import torch

    torch.set_num_threads(1)
    bank = augment.Bank(np.load(stem.with_suffix(".rows.npy"), mmap_mode="r"), np.load(stem.with_suffix(".starts.npy")))
    return run, heard(run, clips, bank, settings, cache)


# ---------------------------------------------------------------------------------------------------------------------
# The baseline


def egemaps(data: Path, corpus: str, cache: Path) -> np.ndarray:
    """The 88 functionals of eGeMAPSv02 for every clip of a corpus, in the order of its manifest."""
    import soundfile

    files = [row["file"] for row in csv.DictReader((data / corpus / "manifest.csv").open(encoding="utf-8"))]
    file = cache / f"egemaps-{corpus}.npz"
    if file.exists() and np.load(file)["files"].tolist() == files:
        return np.asarray(np.load(file)["X"])
    try:
        import opensmile
    except ImportError as error:
        raise SystemExit("bench_affect needs openSMILE (non-commercial licence): pip install opensmile") from error
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals, num_workers=1
    )
    rows = [smile.process_signal(*soundfile.read(data / corpus / name, dtype="float32")).values[0] for name in files]
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(file, X=np.array(rows), files=np.array(files))
    return np.array(rows)


def baseline(x: np.ndarray, y: np.ndarray, learn: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Standardise, fit a class-balanced logistic regression, answer."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=BASELINE_C, class_weight="balanced", max_iter=2000))
    return np.asarray(model.fit(x[learn], y[learn]).predict(x[test]))


def per_speaker(x: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Standardise every speaker by all of their own clips (which a user of one unknown clip cannot)."""
    out = x.copy()
    for speaker in np.unique(speakers):
        rows = speakers == speaker
        out[rows] = (x[rows] - x[rows].mean(axis=0)) / (x[rows].std(axis=0) + 1e-9)
    return out


def uar(truth: np.ndarray, guess: np.ndarray) -> float:
    return float(recall_score(truth, guess, labels=sorted(set(truth.tolist())), average="macro", zero_division=0))


# ---------------------------------------------------------------------------------------------------------------------
# Both, compared


def compare(run: str, clips: list[Clip], answers: dict[str, np.ndarray], tables: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """UAR of network and baselines on every corpus that a run scores."""
    items = answers["items"]
    corpora = np.array([c.corpus for c in clips])
    emotions = np.array([c.emotion for c in clips])
    voices = np.array([c.voice for c in clips])
    roles = np.array([role(c, run) for c in clips])
    found = []
    for corpus in SPEECH if run.startswith("fold") else (run[5:],):
        inside = np.isin(corpora, SPEECH) if run.startswith("loco") else corpora == corpus
        # Left out: the six emotions that all three corpora have, for both sides and in training of the baseline.
        common = sorted(set.intersection(*({int(e) for e in emotions[corpora == c]} for c in SPEECH)))
        classes = sorted({int(e) for e in emotions[corpora == corpus]}) if run.startswith("fold") else common
        use = np.flatnonzero(inside & np.isin(emotions, classes))
        x = np.concatenate([tables[c] for c in SPEECH])[np.searchsorted(np.flatnonzero(np.isin(corpora, SPEECH)), use)]
        learn, test = roles[use] == "train", (roles[use] == "test") & (corpora[use] == corpus)
        truth = emotions[use][test]
        scores = {
            "egemaps": uar(truth, baseline(x, emotions[use], learn, test)),
            "egemaps_per_speaker": uar(truth, baseline(per_speaker(x, voices[use]), emotions[use], learn, test)),
        }
        rows = np.searchsorted(items, use[test])
        probabilities = answers["emotion"][rows][:, classes]
        guess = np.array(classes)[probabilities.argmax(axis=1)]
        genders = np.array([clips[i].gender for i in use[test]])
        found.append(
            {
                "run": run, "corpus": corpus, "development": run in DEVELOPMENT, "clips": int(test.sum()),
                "speakers": len(set(voices[use][test])), "classes": len(classes), **scores, "affect_small": uar(truth, guess),
                "gender": float(np.mean(answers["gender"][rows].argmax(axis=1) == genders)),
                "recall": {CLASSES[c]: float(np.mean(guess[truth == c] == c)) for c in classes},
            }
        )  # fmt: skip
    return found


def summary(results: list[dict[str, Any]]) -> str:
    """The fold and leave-one-corpus-out tables in Markdown, with a verdict per corpus."""
    head = (
        "| run | corpus | clips | speakers | eGeMAPS + LR | affect-small | gain | eGeMAPS + LR, per-speaker normalised | gender |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]

    def line(name: str, rows: list[dict[str, Any]], note: str = "") -> str:
        mean = {k: float(np.mean([r[k] for r in rows])) for k in ("egemaps", "affect_small", "egemaps_per_speaker", "gender")}
        gain = mean["affect_small"] - mean["egemaps"]
        counts = f"{sum(r['clips'] for r in rows)} | {sum(r['speakers'] for r in rows)}"
        return (
            f"| {name} | {rows[0]['corpus']}, {rows[0]['classes']} classes | {counts} | {mean['egemaps']:.3f} | {mean['affect_small']:.3f} "
            f"| {100 * gain:+.1f}{note} | {mean['egemaps_per_speaker']:.3f} | {mean['gender']:.3f} |"
        )

    for corpus in SPEECH:
        rows = [r for r in results if r["corpus"] == corpus and r["run"].startswith("fold")]
        lines += [line(r["run"] + (" (development)" if r["development"] else ""), [r]) for r in rows]
        judged = [r for r in rows if not r["development"]]
        if judged:
            gain = np.mean([r["affect_small"] - r["egemaps"] for r in judged])
            verdict = "met" if gain >= MARGIN["fold"] else "missed"
            lines.append(line("**mean of folds 1-3**", judged, f" (target +8: {verdict})"))
    for r in (r for r in results if r["run"].startswith("loco")):
        verdict = "met" if r["affect_small"] - r["egemaps"] >= MARGIN["loco"] else "missed"
        name = f"{r['corpus']} left out" + (" (development)" if r["development"] else "")
        lines.append(line(name, [r], f" (target +5: {verdict})"))
    return "\n".join(lines)


def recalls(results: list[dict[str, Any]]) -> str:
    """Recall per class, mean over folds 1-3 and per corpus left out."""
    lines = ["| recall | " + " | ".join(CLASSES) + " |", "|---|" + "---|" * len(CLASSES)]
    groups = [
        (f"{c}, folds 1-3", [r for r in results if r["corpus"] == c and r["run"] in ("fold1", "fold2", "fold3")]) for c in SPEECH
    ]
    groups += [(f"{c} left out", [r for r in results if r["run"] == f"loco-{c}"]) for c in SPEECH]
    for name, rows in groups:
        if rows:
            cells = [f"{np.mean([r['recall'][e] for r in rows]):.2f}" if e in rows[0]["recall"] else "-" for e in CLASSES]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def calibration(clips: list[Clip], answers: dict[str, dict[str, np.ndarray]], runs: list[str]) -> measure.Reliability:
    """Reliability of the seven exported probabilities over the held-out speech of some runs."""
    confidence, right = [], []
    for run in runs:
        items, emotion = answers[run]["items"], measure.canonical(measure.tempered(answers[run]["emotion"]))
        for row, i in enumerate(items):
            if clips[i].corpus in SPEECH:
                confidence.append(emotion[row].max())
                right.append(emotion[row].argmax() == measure.canonical_class(clips[i].emotion))
    return measure.reliability(np.array(confidence), np.array(right))


def events(clips: list[Clip], answers: dict[str, np.ndarray], above: float) -> dict[str, Any]:
    """Recall per event and the share of held-out clips of a kind that would be called no voice."""
    items = answers["items"]
    kinds = np.array([clips[i].corpus if clips[i].corpus in (*SPEECH, "emogator") else EVENTS[clips[i].event] for i in items])
    silent = answers["event"][:, [EVENTS.index(n) for n in NO_VOICE]].sum(axis=1) > above
    guess = answers["event"].argmax(axis=1)
    known = np.array([clips[i].event for i in items])
    return {
        "recall": {EVENTS[e]: float(np.mean(guess[known == e] == e)) for e in sorted(set(known[known >= 0].tolist()))},
        "clips": {EVENTS[e]: int((known == e).sum()) for e in sorted(set(known[known >= 0].tolist()))},
        "no_voice": {kind: float(silent[kinds == kind].mean()) for kind in sorted(set(kinds.tolist()))},
    }


def main() -> None:
    """Train, fit, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench-affect"))
    parser.add_argument("--cache", type=Path, default=Path("runs/affect-cache"), help="features, answers of trained networks")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--runs", default=",".join(RUNS))
    options = parser.parse_args()
    if not (options.data / "ravdess" / "manifest.csv").exists():
        print(f"bench_affect: nothing measured, {options.data} does not hold the shared corpora")
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    runs = options.runs.split(",")
    full = read_everything(options.data, seed=SEED)
    stem = augment.feature_bank(full, options.data, copies=COPIES, seed=SEED, cache=options.cache).stem
    clips = [dataclasses.replace(clip, wave=np.zeros(0, dtype=np.float32)) for clip in full]
    del full
    tables = {corpus: egemaps(options.data, corpus, options.cache) for corpus in SPEECH}
    jobs = [(run, clips, stem, train.Settings(), options.cache) for run in runs]
    if options.workers > 1:
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
            answers = dict(pool.imap(work, jobs, chunksize=1))
    else:
        answers = dict(map(work, jobs))
    results = [row for run in runs for row in compare(run, clips, answers[run], tables)]
    judged = [run for run in runs if run.startswith("fold") and run not in DEVELOPMENT] or runs[:1]
    curve = calibration(clips, answers, judged)
    heard_events = {run: events(clips, answers[run], measure.NO_VOICE_ABOVE) for run in runs if run.startswith("fold")}
    options.out.mkdir(parents=True, exist_ok=True)
    report = {
        "settings": dataclasses.asdict(train.Settings()), "domains": DOMAINS, "baseline_C": BASELINE_C, "results": results,
        "reliability": dataclasses.asdict(curve), "reliability_runs": judged, "events": heard_events,
    }  # fmt: skip
    (options.out / "affect.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = [
        "Unweighted average recall. Everything was chosen on the rows marked development; the others were scored once.", summary(results),
        recalls(results), f"ECE {curve.ece:.3f} over {curve.count} held-out clips of {', '.join(judged)} (seven classes, 15 bins).",
        measure.events_table(heard_events),
    ]  # fmt: skip
    (options.out / "affect.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    measure.plot_reliability(curve, options.out / "reliability.svg")
    print("\n\n".join(text))
    print(f"\nwritten: {options.out / 'affect.md'}, affect.json, reliability.svg")


if __name__ == "__main__":
    assert set(TO_OURS.values()) <= set(CLASSES)
    main()
