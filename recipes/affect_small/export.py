"""The ONNX file: what it computes, and the check that onnxruntime computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from affect_small.data import CLASSES, EMOTIONS
from affect_small.network import STRIDE, AffectNet
from undertone.label.features import FEATURES, FUNCTIONALS

OUTPUTS = ("emotion", "vad", "gender", "event", "hidden")


class Answers(nn.Module):
    """An `AffectNet` with `calm` added to neutral: emotion (B, 7)."""

    def __init__(self, net: AffectNet) -> None:
        super().__init__()
        self.net = net
        merge = torch.eye(len(CLASSES), len(EMOTIONS))
        merge[CLASSES.index("calm"), EMOTIONS.index("neutral")] = 1.0
        self.register_buffer("merge", merge)

    def forward(self, features: Tensor, functionals: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        emotion, vad, gender, event, hidden = self.net(features, functionals)
        return emotion @ self.merge, vad, gender, event, hidden


def export(net: AffectNet, file: Path) -> dict[str, float]:
    """Write the ONNX file (features (n, T, 66), T a multiple of 4; functionals (n, F)) and compare it with torch.

    Returns:
        The largest difference between onnxruntime and torch at lengths other than the exported one, and between
        onnxruntime's answers to the same stretch alone and in a batch of eight.
    """
    batch, quarter = torch.export.Dim("batch", min=1, max=1_000), torch.export.Dim("quarter", min=7, max=100_000)
    answers = Answers(net).eval()
    torch.onnx.export(
        answers,
        (torch.zeros(2, 200, FEATURES), torch.zeros(2, FUNCTIONALS)),
        file,
        input_names=["features", "functionals"],
        output_names=list(OUTPUTS),
        dynamic_shapes={"features": {0: batch, 1: STRIDE * quarter}, "functionals": {0: batch}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    worst, batched = 0.0, 0.0
    for frames in (28, 180, 412):
        chance = torch.Generator().manual_seed(frames)
        rows = torch.randn(8, frames, FEATURES, generator=chance)
        statistics = net.steady.mean + net.steady.std * torch.randn(8, FUNCTIONALS, generator=chance)
        together = session.run(None, {"features": rows.numpy(), "functionals": statistics.numpy()})
        for i in range(8):
            one = {"features": rows[i : i + 1].numpy(), "functionals": statistics[i : i + 1].numpy()}
            alone = session.run(None, one)
            with torch.no_grad():
                expected = answers(rows[i : i + 1], statistics[i : i + 1])
            worst = max(worst, *(float(np.abs(a - b.numpy()).max()) for a, b in zip(alone, expected, strict=True)))
            batched = max(batched, *(float(np.abs(a[0] - b[i]).max()) for a, b in zip(alone, together, strict=True)))
    if worst > 1e-3:
        raise SystemExit(f"export: onnxruntime differs from torch by {worst}")
    return {"onnx_minus_torch": worst, "batch_of_8_minus_single": batched}
