"""Generation by an LLM behind a slow endpoint with faults: rows lost, the share of what its latency allows, and a kill in between.

    python benchmarks/bench_chat.py [--clips 10000] [--concurrency 50] [--latency-s 0.2] [--timeout-s 2] [--kills 3]

The endpoint is the bundled one, in a process of its own: 5 % of requests are turned away (429), 2 % fail (500), 3 % of replies are no
JSON, 1 % hang until the client gives up. The job is what the recipe does: `ask_ahead_of` over all clips, then the stage, whose table is
checked row by row against the clips: each reply carries the mark of the clip that its prompt showed.

The bound is clips x latency / concurrency, as if nothing ever failed. "The faults leave" is what remains of it when failed requests hold a
place for as long as they take: the replies that are asked for again, and the time-outs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from undertone.chat import Endpoint
from undertone.execute import run_stage, write_rows
from undertone.generate.ask import ask_ahead_of
from undertone.generate.stage import GenerateStage
from undertone.records import Clip, Label, QAPair, Segment, Word, content_hash
from undertone.tables import Fingerprint, open_table

SEED = 3
FAULTS = {"p429": 0.05, "p500": 0.02, "malformed": 0.03, "hang": 0.01}
EMOTIONS = ("sad", "angry", "happy", "neutral")
WORDS = ("the", "man", "next", "room", "has", "said", "that", "we", "will", "not", "need", "any", "of", "this", "before", "noon")


def clip(number: int) -> Clip:
    """Three segments of six to twelve words, each with labels of its own; no two clips say the same."""
    rng, segments, at_ms = random.Random(number), list[Segment](), 0
    for _ in range(3):
        texts = [rng.choice(WORDS) for _ in range(rng.randint(6, 12))] + [f"number {number}"]
        words = tuple(Word(text=text, start_ms=at_ms + 300 * n, end_ms=at_ms + 300 * n + 280) for n, text in enumerate(texts))
        end_ms = at_ms + 300 * len(texts)
        span: dict[str, Any] = {"start_ms": at_ms, "end_ms": end_ms, "labeller": "benchmark@1"}
        labels = [
            Label(attribute="emotion", category=rng.choice(EMOTIONS), **span),
            Label(attribute="gender", category=rng.choice(("female", "male")), **span),
            *(Label(attribute=name, number=round(rng.random(), 2), **span) for name in ("valence", "arousal", "dominance")),
        ]
        bare = Segment(recording_id=f"{number:016x}", start_ms=at_ms, end_ms=end_ms, transcript=" ".join(texts), words=words)
        segments.append(bare.with_labels(labels))
        at_ms = end_ms + 200
    common: dict[str, Any] = {"recording_id": f"{number:016x}", "uri": f"{number}.wav", "source": "benchmark", "split": "train"}
    return Clip(**common, start_ms=0, end_ms=segments[-1].end_ms, segments=tuple(segments))


def job(folder: Path, url: str, concurrency: int, timeout_s: float) -> None:
    """The client's process: what the recipe does for one source."""
    at = Endpoint(endpoint=url, model="fake", concurrency=concurrency, timeout_s=timeout_s, rereads=3)
    stage = GenerateStage(strategy="cpqa", llm=at, cache_dir=folder / "chat")
    began, began_cpu = time.perf_counter(), _cpu_s()
    account = ask_ahead_of(stage, folder.parent / "clips", seed=SEED, workers=os.cpu_count() or 1)
    ahead_s, ahead_cpu_s = time.perf_counter() - began, _cpu_s() - began_cpu
    run_stage(stage, [folder.parent / "clips"], folder / "pairs", seed=SEED, workers=os.cpu_count() or 1)
    told = {"ahead_s": ahead_s, "stage_s": time.perf_counter() - began - ahead_s}
    told |= {"ahead_cpu_s": ahead_cpu_s, "stage_cpu_s": _cpu_s() - began_cpu - ahead_cpu_s}
    print(json.dumps({**told, "account": account.line("cpqa")}))


def _cpu_s() -> float:
    """Of this process and those that it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@contextmanager
def endpoint(latency_s: float) -> Iterator[str]:
    """The endpoint's URL."""
    options = [f"--{name}={share}" for name, share in FAULTS.items()]
    program = [sys.executable, "-m", "undertone.testing.fake_endpoint", f"--latency-s={latency_s}", *options]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def begun(folder: Path, url: str, args: argparse.Namespace) -> subprocess.Popen[str]:
    """The client's process, started."""
    options = ["--job", str(folder), "--url", url, f"--concurrency={args.concurrency}", f"--timeout-s={args.timeout_s}"]
    return subprocess.Popen([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True)


def checked(folder: Path, clips: dict[str, Clip]) -> str:
    """What is wrong with the table of pairs."""
    table = open_table(folder / "pairs", QAPair)
    counts, wrong = Counter[str](), 0
    for pair in table.rows():
        counts[pair.clip_id] += 1
        about = clips.get(pair.clip_id)
        marked = pair.question.endswith(content_hash(pair.evidence or ""))
        wrong += (
            about is None or not marked or f"number {int(about.recording_id, 16)}" not in (pair.evidence or "").replace(":", "")
        )
    failed = len(table.failed())
    lost = len(clips) - len(counts) - failed - len(table.dropped())
    twice = sum(count > 1 for count in counts.values())
    return f"{len(clips)} clips: {len(counts)} with a pair, {failed} failed, {lost} lost, {twice} duplicated, {wrong} misaligned"


def main() -> None:
    """Run it, with and without kills."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--timeout-s", type=float, default=2.0)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        job(args.job, args.url, args.concurrency, args.timeout_s)
        return
    bound_s = args.clips * args.latency_s / args.concurrency
    again = (FAULTS["malformed"] + FAULTS["p500"]) * args.latency_s + FAULTS["hang"] * args.timeout_s
    print(f"bound {bound_s:.1f} s; the faults leave {bound_s / (bound_s + args.clips * again / args.concurrency):.0%} of it")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        clips = {one.id: one for one in map(clip, range(args.clips))}
        made = Fingerprint(stage="benchmark", version="1", seed=SEED, config={"clips": args.clips}, inputs={})
        write_rows(root / "clips", list(clips.values()), record=Clip, fingerprint=made, parts=32, smallest=1)
        for kills in dict.fromkeys((0, args.kills)):
            (root / f"{kills}").mkdir()
            run(root / f"{kills}", clips, kills, bound_s, args)


def run(folder: Path, clips: dict[str, Clip], kills: int, bound_s: float, args: argparse.Namespace) -> None:
    """One job from nothing to its table, killed so often on the way."""
    rng = random.Random(kills)
    with endpoint(args.latency_s) as url:
        for _ in range(kills):
            client = begun(folder, url, args)
            time.sleep(rng.uniform(0.3, 1.0) * bound_s / kills)
            client.send_signal(signal.SIGKILL)
            client.communicate()
        told, _ = begun(folder, url, args).communicate()
        with urllib.request.urlopen(f"{url.removesuffix('/v1')}/counts") as answer:
            counts = json.load(answer)
    found = json.loads(told)
    print(f"\n== {kills} kills" if kills else "\n== one run")
    print(checked(folder, clips))
    print(f"{counts['requests']} requests, {counts['repeated']} of them answered before (allowed: {kills} x {args.concurrency})")
    print(found["account"])
    if not kills:
        share = bound_s / found["ahead_s"]
        print(f"asking: {found['ahead_s']:.1f} s = {share:.0%} of the bound, {found['ahead_cpu_s']:.1f} s of CPU in the client")
        print(f"replies into the table: {found['stage_s']:.1f} s, {found['stage_cpu_s']:.1f} s of CPU")
        print(
            f"both: {bound_s / (found['ahead_s'] + found['stage_s']):.0%} of the bound; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )


if __name__ == "__main__":
    main()
