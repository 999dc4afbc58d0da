"""A run of Undertone: evaluate/verdicts of all judges of questions, with evaluate/answers and evaluate/benchmark beside it."""

from __future__ import annotations

from undertone import tables
from undertone.errors import DataError
from undertone.evaluate.judges import ReferenceJudge
from undertone.evaluate.validate.rows import Judged, JudgedTable
from undertone.evaluate.verdicts import verdicts_on_questions
from undertone.paths import Location
from undertone.records import Answer, QAPair

NAME = "undertone"
LIKE = "a run's folder with evaluate/verdicts"

_CIRCULAR = (
    "The reference judge scores labelled questions by the very classes that it is checked against here: that it agrees with them is no "
    "finding. Judge the answers with an LLM (evaluate.judge.judge.kind=llm) to check that one."
)


def mine(folder: Location) -> bool:
    """Whether a folder is an evaluated run."""
    return (folder / "evaluate" / "verdicts" / "_done.json").is_file()


def read(folder: Location) -> JudgedTable:
    """All verdicts of a run; the dataset is the question's kind.

    Raises:
        DataError: A verdict is about a question that is not in the benchmark.
    """
    evaluated = folder / "evaluate"
    pairs = {pair.id: pair for pair in tables.open_table(evaluated / "benchmark", QAPair).rows()}
    # A table that is not finished is of somebody whom the run did not judge.
    folders: list[Location] = [one for one in (evaluated / "answers").glob("*") if (one / "_done.json").is_file()]
    answers = {answer.id: answer.text for one in sorted(folders, key=str) for answer in tables.open_table(one, Answer).rows()}
    rows = []
    for verdict in verdicts_on_questions(folder):
        pair = pairs.get(verdict.pair_id)
        if pair is None:
            raise DataError(f"{folder}: verdict {verdict.id} is about a question that evaluate/benchmark does not hold")
        rows.append(
            Judged(
                dataset=pair.kind,
                item=verdict.pair_id,
                recording=pair.recording_id,
                system=verdict.subject,
                judge=verdict.judge,
                run=verdict.run,
                question=pair.question,
                reference=pair.answer,
                answer=answers.get(f"{verdict.subject}:{verdict.pair_id}", ""),
                score=verdict.score,
                unscored=verdict.unscored,
                attribute=pair.label_attribute,
                label=pair.label,
                mapped=verdict.mapped_label,
                raw=verdict.raw,
            )
        )
    circular = any(row.judge == ReferenceJudge().name for row in rows)
    return JudgedTable(source=str(folder), format=NAME, rows=rows, notes=[_CIRCULAR] if circular else [])
