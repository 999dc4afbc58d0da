"""An LLM judge behind a slow endpoint with faults: verdicts lost, bias of the mean, share of what latency allows, and kills in between.

    python benchmarks/bench_judge.py [--calls 10000] [--concurrency 50] [--latency-s 0.2] [--timeout-s 1] [--kills 3]

The endpoint is the bundled one, in a process of its own: 5 % of requests are turned away (429), 2 % fail (500), 3 % of replies are no
JSON, 1 % hang until the client gives up. It grades by a hash of the answer that it is shown, so that the same answer gets the same grade
however often it is asked about, and each verdict can be checked. The job is what the recipe does: `JudgeStage.ask_ahead`, then the stage.

Four jobs: without faults, with them, with them and `kill -9` in between, and with them by a client that neither tries again nor asks again,
as evaluation suites do that count what failed as 0.

The bound is calls x latency / concurrency, as if nothing ever failed. "The faults leave" is what remains of it when failed requests hold a
place for as long as they take: the replies that are asked for again, and the time-outs. The probe beside it is a bare loop of as many
sleeps, so that a busy machine can be told from a slow client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from undertone.evaluate.judges import LLMJudge
from undertone.evaluate.stage import JudgeStage
from undertone.execute import run_stage, write_rows
from undertone.records import Answer, QAPair, Verdict, content_hash
from undertone.tables import Fingerprint, open_table
from undertone.testing.fake_endpoint import FakeEndpoint, Faults

SEED = 3
FAULTS: dict[str, Any] = {"p429": 0.05, "p500": 0.02, "malformed": 0.03, "hang": 0.01}
WORDS = ("the", "man", "next", "room", "has", "said", "that", "we", "will", "not", "need", "any", "of", "this", "before", "noon")


def grade_of(text: str) -> int:
    """The grade of an answer."""
    return int(content_hash("grade", text), 16) % 6


def grader(body: dict[str, Any]) -> str:
    """The endpoint's reply: the grade of the answer between its marks."""
    found = re.search(r"<answer-[0-9a-f]{8}>\n(.*?)\n</answer-", body["messages"][-1]["content"], re.DOTALL)
    assert found is not None
    return json.dumps(
        {"explanation": "What the answer says, seen beside the reference, deserves this.", "grade": grade_of(found[1])}
    )


def rows(count: int) -> tuple[list[QAPair], list[Answer]]:
    """Questions of ordinary length, and an answer to each; no two say the same."""
    pairs, answers = [], []
    for number in range(count):
        rng = random.Random(number)
        question, reference, said = (" ".join(rng.choices(WORDS, k=rng.randint(*span))) for span in ((8, 20), (10, 30), (10, 40)))
        about = {
            "clip_id": f"{number:016x}@0-9000",
            "recording_id": f"{number:016x}",
            "source": "benchmark",
            "generator": "benchmark@1",
        }
        pairs.append(QAPair(**about, kind="C", question=f"{question}?", answer=reference))
        answers.append(Answer(subject="S30", pair_id=pairs[-1].id, text=f"{said} number {number}", raw=said))
    return pairs, answers


def serve(latency_s: float, *, faulty: bool) -> None:
    """The endpoint's process."""
    faults = Faults(latency_s=latency_s, **FAULTS) if faulty else Faults(latency_s=latency_s)
    with FakeEndpoint(faults.around(grader)) as served:
        print(served.url, flush=True)
        threading.Event().wait()


def job(folder: Path, url: str, args: argparse.Namespace) -> None:
    """The client's process: what the recipe does for one judge."""
    again = {"retries": 0, "rereads": 0} if args.once else {"retries": 5, "rereads": 3}
    judge = LLMJudge(
        endpoint=url, model="fake", concurrency=args.concurrency, timeout_s=args.timeout_s, cache_dir=folder / "chat", **again
    )
    stage, answers, sides = JudgeStage(judge=judge), folder.parent / "answers", {"pairs": folder.parent / "pairs"}
    began, cpu = time.perf_counter(), time.process_time()
    account = stage.ask_ahead([answers], sides=sides)
    ahead_s, ahead_cpu_s = time.perf_counter() - began, time.process_time() - cpu
    assert account is not None
    # A client that never tries again is measured as it is: the stage would ask once more for what failed on the way.
    if not args.once:
        run_stage(stage, [answers], folder / "verdicts", sides=sides, max_failed_share=1.0)
    told = {"ahead_s": ahead_s, "ahead_cpu_s": ahead_cpu_s, "stage_s": time.perf_counter() - began - ahead_s}
    print(json.dumps({**told, "account": account.line("judge"), "failed": account.failed}))


@contextmanager
def endpoint(latency_s: float, *, faulty: bool) -> Iterator[tuple[str, int]]:
    """The endpoint's URL and process."""
    program = [sys.executable, __file__, "--serve", f"--latency-s={latency_s}", *(["--faulty"] if faulty else [])]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


def begun(folder: Path, url: str, args: argparse.Namespace, *, once: bool = False) -> subprocess.Popen[str]:
    """The client's process, started."""
    options = ["--job", str(folder), "--url", url, f"--concurrency={args.concurrency}", f"--timeout-s={args.timeout_s}"]
    options += ["--once"] if once else []
    return subprocess.Popen([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True)


def verdicts(folder: Path, answers: dict[str, Answer]) -> tuple[dict[str, float], str]:
    """The scores by pair, and what is wrong with the table."""
    table = open_table(folder / "verdicts", Verdict)
    found = list(table.rows())
    scores = {one.pair_id: one.score for one in found if one.score is not None}
    wrong = sum(score != 20 * grade_of(answers[pair].text) for pair, score in scores.items())
    failed, unscored = len(table.failed()), sum(one.score is None for one in found)
    lost = len(answers) - len({one.pair_id for one in found}) - failed
    twice = len(found) - len({one.pair_id for one in found})
    return (
        scores,
        f"{len(scores)} scored, {unscored} unscored, {failed} failed, {lost} lost, {twice} doubled, {wrong} not the answer's own",
    )


async def probe(calls: int, concurrency: int, latency_s: float) -> float:
    """Seconds that a bare loop of sleeps takes."""
    left = iter(range(calls))
    began = time.perf_counter()

    async def worker() -> None:
        for _ in left:
            await asyncio.sleep(latency_s)

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return time.perf_counter() - began


def cpu_s(process: int) -> float:
    """Of another process."""
    used = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")


def counted(url: str) -> dict[str, int]:
    """What the endpoint was asked."""
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/counts") as answer:
        made: dict[str, int] = json.load(answer)
    return made


def mean(scores: dict[str, float]) -> float:
    """Of scores."""
    return sum(scores.values()) / len(scores)


def main() -> None:
    """Run all jobs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--timeout-s", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=3)
    for name in ("--job", "--url"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--serve", "--faulty", "--once"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.latency_s, faulty=args.faulty)
    elif args.job:
        job(Path(args.job), args.url, args)
    else:
        run_all(args)


def run_all(args: argparse.Namespace) -> None:
    """The parent's process."""
    bound_s = args.calls * args.latency_s / args.concurrency
    again = (FAULTS["malformed"] + FAULTS["p500"]) * args.latency_s + FAULTS["hang"] * args.timeout_s
    leaves = bound_s / (bound_s + args.calls * again / args.concurrency)
    few = args.calls // 10
    idle = few * args.latency_s / args.concurrency / asyncio.run(probe(few, args.concurrency, args.latency_s))
    print(f"{args.calls} calls, {args.concurrency} in flight, {args.latency_s:g} s; bound {bound_s:.1f} s")
    print(
        f"the faults leave {leaves:.0%} of it; bare sleeps reach {idle:.0%}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    pairs, answers = rows(args.calls)
    by_pair = {one.pair_id: one for one in answers}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        made = Fingerprint(stage="benchmark", version="1", seed=SEED, config={"calls": args.calls}, inputs={})
        write_rows(root / "pairs", pairs, record=QAPair, fingerprint=made, parts=8, smallest=1)
        write_rows(root / "answers", answers, record=Answer, fingerprint=made, parts=8, smallest=1)
        for name in ("clean", "faulty", "once", "killed"):
            (root / name).mkdir()
        with endpoint(0.0, faulty=False) as (url, _):
            begun(root / "clean", url, args).communicate()
        clean, told = verdicts(root / "clean", by_pair)
        print(f"\n== without faults\n{told}; mean {mean(clean):.3f}")
        faulty_job(root, by_pair, clean, bound_s, args)
        once_job(root, clean, args)
        if args.kills:
            killed_job(root, by_pair, clean, bound_s, args)


def faulty_job(root: Path, answers: dict[str, Answer], clean: dict[str, float], bound_s: float, args: argparse.Namespace) -> None:
    """One job from nothing to its table."""
    with endpoint(args.latency_s, faulty=True) as (url, process):
        found = json.loads(begun(root / "faulty", url, args).communicate()[0])
        counts, server_s = counted(url), cpu_s(process)
    scores, told = verdicts(root / "faulty", answers)
    print(f"\n== with faults\n{told}; mean {mean(scores):.3f}, bias {mean(scores) - mean(clean):+.3f}")
    print(f"{found['account']}; {counts['requests']} requests, {counts['repeated']} of them answered before")
    share, each = bound_s / found["ahead_s"], 1000 / args.calls
    print(
        f"asking: {found['ahead_s']:.1f} s = {share:.0%} of the bound; CPU a call: client {found['ahead_cpu_s'] * each:.2f} ms,",
        end=" ",
    )
    print(f"endpoint {server_s * each:.2f} ms; replies into the table: {found['stage_s']:.1f} s")
    whole = bound_s / (found["ahead_s"] + found["stage_s"])
    print(f"both: {whole:.0%} of the bound; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def once_job(root: Path, clean: dict[str, float], args: argparse.Namespace) -> None:
    """What comes of the same where nobody tries again: read from the cache, in which only replies are."""
    with endpoint(args.latency_s, faulty=True) as (url, _):
        begun(root / "once", url, args, once=True).communicate()
    got = []
    for entry in (root / "once" / "chat").rglob("*.json"):
        try:
            got.append(20.0 * json.loads(json.loads(entry.read_text())["text"])["grade"])
        except ValueError:
            continue  # no JSON, or half of it
    zero, left_out = sum(got) / args.calls, sum(got) / len(got)
    print("\n== with faults, and nothing is tried again")
    print(f"{len(got)} of {args.calls} scored ({len(got) / args.calls:.1%})")
    print(
        f"counting the others as 0: mean {zero:.3f}, bias {zero - mean(clean):+.3f}; leaving them out: {left_out - mean(clean):+.3f}"
    )


def killed_job(root: Path, answers: dict[str, Answer], clean: dict[str, float], bound_s: float, args: argparse.Namespace) -> None:
    """The same job, killed so often on the way."""
    rng, folder = random.Random(args.kills), root / "killed"
    with endpoint(args.latency_s, faulty=True) as (url, _):
        for _ in range(args.kills):
            client = begun(folder, url, args)
            time.sleep(rng.uniform(0.3, 0.9) * bound_s / args.kills + 2)
            client.send_signal(signal.SIGKILL)
            client.communicate()
        begun(folder, url, args).communicate()
        counts = counted(url)
    scores, told = verdicts(folder, answers)
    allowed = args.kills * args.concurrency
    print(f"\n== with faults and {args.kills} kills\n{told}; mean {mean(scores):.3f}, bias {mean(scores) - mean(clean):+.3f}")
    print(f"{counts['requests']} requests, {counts['repeated']} of them answered before (allowed: those in flight, {allowed})")


if __name__ == "__main__":
    main()
