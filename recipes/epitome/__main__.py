"""Train `epitome-small`, which reads how empathetic a reply is.

    python recipes/epitome --data ../shared/data --out models/epitome-small

Top to bottom: read EPITOME's Reddit part, choose by cross-validation on the training part, fit, export, score the exported file once on the
test part, write the card. Deterministic. `--card-only` writes the card anew from `model.json`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import sklearn

from epitome.card import write_card
from epitome.data import FOLDS, marked_sentences, read
from epitome.fit import STRENGTH, WEIGHTS, Fitted, cross_validate, fit, predict, read_all
from epitome.measure import RESAMPLES, on_test, sensitivity
from undertone.evaluate.epitome import BUCKETS, MECHANISMS, EpitomeSmall

VERSION = "1"
SEED = 0
"""Of bootstrap and shuffles; training has no randomness."""


def main() -> None:
    """Do everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("models/epitome-small"))
    parser.add_argument("--card-only", action="store_true", help="write README.md from model.json")
    options = parser.parse_args()
    if options.card_only:
        write_card(options.out, json.loads((options.out / "model.json").read_text(encoding="utf-8")))
        return
    folder = options.data / "text" / "epitome"
    if not folder.is_dir():
        raise SystemExit(
            f"{folder}: not a folder; expected EPITOME's three csv files there (--data is the folder of the shared corpora)"
        )
    began = time.perf_counter()
    posts = read(folder)
    data = read_all(posts, marked_sentences(posts))
    tried = cross_validate(data)
    chosen = max(tried, key=lambda one: one["mean_macro_f1"])
    if not chosen["by_sentence"]:
        raise SystemExit(f"the whole response alone was best ({chosen}), but EpitomeSmall reads sentences: look at the folds")
    training = ~posts.test
    model = fit(data, training, weight=chosen["weight"])
    options.out.mkdir(parents=True, exist_ok=True)
    export(model, options.out / "model.npz")
    exact = predict(data, posts.test, model).argmax(axis=-1)
    report: dict[str, Any] = {
        "name": "epitome-small",
        "version": VERSION,
        "licence": "research only: trained on EPITOME's Reddit posts",
        "sha256": hashlib.sha256((options.out / "model.npz").read_bytes()).hexdigest(),
        "mechanisms": list(MECHANISMS),
        "chosen": chosen,
        "cross_validation": tried,
        "data": {
            "pairs": len(posts.ids),
            "rows": _rows(folder),
            "train": int(training.sum()),
            "test": int(posts.test.sum()),
            "folds": FOLDS,
            "twentieth": round(0.05 * int((posts.levels[:, 0] == 2).sum())),
        },
    }
    (options.out / "model.json").write_text(json.dumps(report) + "\n", encoding="utf-8")  # what loading needs; complete below
    shipped = EpitomeSmall(options.out)
    report["test"] = on_test(shipped, posts, seed=SEED)
    report["sensitivity"] = sensitivity(shipped, posts, seed=SEED)
    rows = np.flatnonzero(posts.test)
    rounded = shipped.score([posts.seekers[index] for index in rows], [posts.responses[index] for index in rows]).levels
    report["training"] = {
        "buckets": BUCKETS,
        "strength": STRENGTH,
        "weights": list(WEIGHTS),
        "resamples": RESAMPLES,
        "rounded": int((rounded != exact).any(axis=1).sum()),
        "minutes": (time.perf_counter() - began) / 60,
        "sklearn": sklearn.__version__,
    }
    write_card(options.out, report)
    print(json.dumps({name: round(one["macro_f1"], 4) for name, one in report["test"].items()}))


def export(model: Fitted, file: Path) -> None:
    """Write the arrays as float16, buckets that no n-gram of training falls into as zeros."""
    seen = np.concatenate([model.idf > 0, np.ones(model.coefficients.shape[-1] - BUCKETS, dtype=bool)])
    np.savez_compressed(
        file,
        idf=model.idf.astype(np.float16),
        coefficients=np.where(seen, model.coefficients, 0).astype(np.float16),
        biases=model.biases.astype(np.float32),
    )


def _rows(folder: Path) -> int:
    with (folder / "explorations.csv").open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


if __name__ == "__main__":
    main()
