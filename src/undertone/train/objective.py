"""What a step lessens: the reply's loss against its tokens or a teacher's distribution, and those of the heads (RE-LLM, 2602.10716).

    L = reply * L_reply + category * L_category + dimensions * L_dimensions

Each L is a mean over the questions that have a target for it. What has none contributes nothing and is not counted, so that a question
without an emotion does not make those of the others weigh less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from undertone.errors import ModelError
from undertone.model.collate import IGNORE, Item, training_batch
from undertone.model.config import SpeechLLMConfig
from undertone.model.speech_llm import Output, item_means
from undertone.records import Example
from undertone.train.config import LOSSES, ObjectiveConfig


class Values(NamedTuple):
    """One part of a loss: a value (n,) for each question that has a target for it, and which these are (n,), counted in the batch."""

    values: Tensor
    items: Tensor


def kl(student: Tensor, teacher: Tensor, *, temperature: float, scaled: bool = False) -> Tensor:
    """KL(teacher || student) of each token (N,), of logits (N, V) that are divided by the temperature first.

    A vocabulary may be padded to another width for the teacher than for the student; what lies beyond the narrower is no token.
    """
    width = min(student.shape[-1], teacher.shape[-1])
    ours, theirs = ((one[:, :width] / temperature).log_softmax(-1) for one in (student, teacher))
    found = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    return found * temperature**2 if scaled else found


def squared(said: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of each row (N, dimensions) over those dimensions that are wanted, and which rows have one; NaN is not wanted.

    Rows without one have 0.
    """
    there = ~wanted.isnan()
    error = torch.where(there, said - wanted.nan_to_num(), 0.0) ** 2
    return error.sum(-1) / there.sum(-1).clamp(min=1), there.any(-1)


def comparable(wanted: Tensor) -> Tensor:
    """The columns (dimensions,) of targets (N, dimensions) in which a correlation can be told: two values that differ, NaN left out."""
    high, low = wanted.nan_to_num(nan=-torch.inf).amax(0), wanted.nan_to_num(nan=torch.inf).amin(0)
    return high > low


def concordance(said: Tensor, wanted: Tensor) -> Tensor:
    """Lin's concordance correlation coefficient of each column (N, dimensions) over its rows; where `comparable` says no, 0.

    Variances and covariance are those of the population, as in speech emotion recognition.
    """
    there = ~wanted.isnan()
    count = there.sum(0).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(there, values, 0.0).sum(0) / count

    target = wanted.nan_to_num()
    middle, aim = mean(said), mean(target)
    spread = mean((said - middle) ** 2) + mean((target - aim) ** 2) + (middle - aim) ** 2
    shared = 2 * mean((said - middle) * (target - aim))
    tells = comparable(wanted)
    return torch.where(tells, shared, 0.0) / torch.where(tells, spread, 1.0)


def losses(
    objective: ObjectiveConfig, output: Output, owners: Tensor, targets: Mapping[str, Any], teacher: Tensor | None
) -> dict[str, Values]:
    """The parts of a batch's loss that have a weight.

    Args:
        objective: A resolved one.
        output: Of the student.
        owners: The question of each answer token (N,).
        targets: As `targets_of` makes them.
        teacher: Logits of the teacher at the answer tokens of the questions that it teaches, in the student's order.

    Raises:
        ModelError: The teacher's answers have other tokens than the student's.
    """
    made: dict[str, Values] = {}
    if objective.reply:
        made["reply"] = _reply(objective, output, owners, targets, teacher)
    clips = targets["clips"]
    if objective.category and output.category is not None:
        (items,) = torch.nonzero(_told(targets["category"] != IGNORE, clips), as_tuple=True)
        said = _precise(output.category[clips[items]])
        made["category"] = Values(functional.cross_entropy(said, targets["category"][items], reduction="none"), items)
    if objective.dimensions and output.dimensions is not None:
        (items,) = torch.nonzero(_told(~targets["dimensions"].isnan().all(-1), clips), as_tuple=True)
        said = _precise(output.dimensions[clips[items]])
        wanted = targets["dimensions"][items].to(said.dtype)
        if objective.dimensions_loss == "mse":
            made["dimensions"] = Values(squared(said, wanted)[0], items)
        elif len(items) and (tells := comparable(wanted)).any():
            made["dimensions"] = Values((1 - concordance(said, wanted)[tells].mean()).expand(len(items)), items)
        else:
            made["dimensions"] = Values(said.new_zeros(0), items[:0])
    return made


def _reply(
    objective: ObjectiveConfig, output: Output, owners: Tensor, targets: Mapping[str, Any], teacher: Tensor | None
) -> Values:
    each = torch.unique(owners)
    if objective.loss == "ce":
        return Values(item_means(output.nll, owners), each)
    taught = targets["taught"]
    by_teacher = torch.isin(owners, taught)
    found, items = [], []
    if len(taught):
        if teacher is None or len(teacher) != int(by_teacher.sum()):
            count = 0 if teacher is None else len(teacher)
            raise ModelError(f"the teacher reads {count} answer tokens, and the student {int(by_teacher.sum())}; expected as many")
        values = kl(
            _precise(output.logits[by_teacher]), _precise(teacher), temperature=objective.temperature, scaled=objective.scaled
        )
        found.append(item_means(values, owners[by_teacher]))
        items.append(taught)
    if objective.untaught == "ce" and not by_teacher.all():
        found.append(item_means(output.nll[~by_teacher], owners[~by_teacher]))
        items.append(torch.unique(owners[~by_teacher]))
    if not found:
        return Values(output.nll.new_zeros(0), each[:0])
    return Values(torch.cat(found), torch.cat(items))


def _precise(values: Tensor) -> Tensor:
    """In single precision at least, whatever the model computes in."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def _told(there: Tensor, clips: Tensor) -> Tensor:
    return there & (clips >= 0)


def counts(objective: ObjectiveConfig, targets: Mapping[str, Any], questions: int) -> dict[str, int]:
    """How many questions of a batch each part of the loss is a mean over; known before the model sees it."""
    clips = targets["clips"]
    left_out = objective.loss == "kl" and objective.untaught == "leave_out"
    made = {"reply": len(targets["taught"]) if left_out else questions}
    made["category"] = int(_told(targets["category"] != IGNORE, clips).sum())
    there = _told(~targets["dimensions"].isnan().all(-1), clips)
    tells = objective.dimensions_loss == "mse" or bool(there.any() and comparable(targets["dimensions"][there]).any())
    made["dimensions"] = int(there.sum()) if tells else 0
    return {name: made[name] if getattr(objective, name) else 0 for name in LOSSES}


def targets_of(
    groups: Sequence[Sequence[Example]],
    clips: Tensor,
    objective: ObjectiveConfig,
    parts: SpeechLLMConfig,
    *,
    read: Callable[[Example, str], Item],
    pad_id: int,
) -> dict[str, Any]:
    """What a batch's questions (N) are to come to.

    Args:
        groups: Examples, row by row.
        clips: (N,) the row of `frames` that holds a question's clip, -1 where nothing is heard.
        objective: A resolved one.
        parts: The model's, for the order of its heads.
        read: Tokenises a teacher's text and the answer of an example.
        pad_id: Token that fills rows.

    Returns:
        "clips"; "category" (N,) of class numbers or `IGNORE`; "dimensions" (N, dimensions), NaN where there is none; "taught", the
        questions that a teacher reads, and "teacher", its input, or None where it reads nothing.
    """
    examples = [one for group in groups for one in group]
    classes = parts.aux.classes if parts.aux is not None else ()
    names = parts.aux.dimensions if parts.aux is not None else ()
    category = [classes.index(one.category) if one.category in classes else IGNORE for one in examples]
    dimensions = [[(one.dimensions or {}).get(name, float("nan")) for name in names] for one in examples]
    taught: list[int] = []
    rows: list[list[Item]] = []
    number = 0
    for group in groups:
        row = []
        for one in group:
            text = (one.teacher or {}).get(objective.tells) if objective.loss == "kl" and objective.reply else None
            if text is not None:
                taught.append(number)
                row.append(read(one, text))
            number += 1
        if row:
            rows.append(row)
    teacher = None
    if rows:
        made = training_batch(rows, pad_id=pad_id)
        teacher = {
            "input_ids": made.input_ids,
            "attention_mask": made.attention_mask,
            "position_ids": made.position_ids,
            "labels": made.labels,
        }
    return {
        "clips": clips,
        "category": torch.tensor(category, dtype=torch.long),
        "dimensions": torch.tensor(dimensions, dtype=torch.float32).reshape(len(examples), len(names)),
        "taught": torch.tensor(taught, dtype=torch.long),
        "teacher": teacher,
    }
