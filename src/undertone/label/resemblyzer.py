"""The labeller `resemblyzer-speakers`: who spoke when, by the d-vectors of resemblyzer.

Measured by `benchmarks/bench_speakers.py`: diarisation error rate over 12 cuts of AMI of 30 s (2026-11-20; overlap counted, no collar;
the cuts on which the threshold was chosen, for the two others are too short to tell).

| speech by | one speaker | `resemblyzer-speakers` | speakers miscounted, of 35 |
|---|---|---|---|
| `energy` | 0.642 | 0.614 | 23, 17 |
| `silero` | 0.406 | 0.389 | 23, 18 |

So it gives a hint, not a count to rely on; most of the error is speech that is missed where several talk at once.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from undertone.audio import Wave, rms_db
from undertone.errors import ConfigError, ModelError
from undertone.label.diarise import RATE_HZ, Floats, check_counts, turn
from undertone.label.hub import needs
from undertone.label.protocol import Category, Listener, Value, abstain, labeller
from undertone.label.weights import Weights

_PACKAGE = "resemblyzer"
_WINDOW = 160  # frames of 10 ms: the length that the network was trained on
_HOP = 40
_LEAST = 30  # frames; less is not worth an embedding
_TRUSTED = 80  # frames; shorter ones are given to a speaker and make none
_POOL = 600  # clusters held at once; half of them are merged where there are more
_FFT, _STEP, _MELS = 400, 160, 40
_LEVEL_DB = -30.0


class _Piece(NamedTuple):
    """A stretch of the recording that has one speaker: that of a cluster, or the nearest to a vector, or none for a reason."""

    start_ms: int
    end_ms: int
    reason: str = ""
    cluster: int = -1
    vector: Floats | None = None


@labeller(
    "resemblyzer-speakers", version="1", emits=[Category("speaker")], hears="recording", rate_hz=RATE_HZ, licence="Apache-2.0"
)
class ResemblyzerLabeller(Weights):
    """Speakers by clustering the d-vectors of windows of 1.6 s: no overlap, and turns no finer than the hop of 0.4 s.

    Network and weights are those of the package resemblyzer (Apache-2.0), after Wan et al. (2018), "Generalized end-to-end loss for
    speaker verification", arXiv:1710.10467; clusters are merged by average linkage of cosines until none are as similar as
    `threshold`. Memory is bounded: where a recording has more than 600 clusters, the most similar are merged at once.
    Speech between 0.3 and 0.8 s is given to the most similar speaker and makes none; less abstains ("too_short").
    """

    packages = ("torch",)
    extra = "speakers"

    def __init__(
        self,
        *,
        threshold: float = 0.6,
        min_speaker_ms: int = 2_000,
        num_speakers: int | None = None,
        model: str | None = None,
        device: str = "cpu",
    ) -> None:
        """Store the configuration; the weights are loaded by `open` or with the first recording.

        Args:
            threshold: Clusters whose mean cosine is at least this are one speaker, 0 to 1.
            min_speaker_ms: A speaker who was heard for less is taken for the most similar other one.
            num_speakers: How many speakers there are, where that is known; the threshold is not used then.
            model: A file like the package's pretrained.pt; None takes that of the installed package.
            device: Of torch.
        """
        check_counts("resemblyzer-speakers", num_speakers=num_speakers)
        if not 0 < threshold < 1:
            raise ConfigError(f"labeller 'resemblyzer-speakers': threshold: got {threshold}, expected between 0 and 1")
        super().__init__(model=_PACKAGE if model is None else model, device=device)
        self.threshold = threshold
        self.min_speaker_ms = min_speaker_ms
        self.num_speakers = num_speakers

    @property
    def local(self) -> bool:
        return True

    @property
    def place(self) -> str:
        """The file; that of the installed package, which is found without running it (it wants librosa)."""
        if self.model != _PACKAGE:
            return str(Path(self.model).expanduser().absolute())
        needs(self.name, _PACKAGE, extra=self.extra)
        spec = importlib.util.find_spec(_PACKAGE)
        return str(Path(spec.origin).parent / "pretrained.pt") if spec and spec.origin else f"{_PACKAGE}/pretrained.pt"

    def load(self) -> Any:
        import torch

        device, path = self.torch_device(), self.place
        with self.fetching():
            state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
            lstm, linear = torch.nn.LSTM(_MELS, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
            for name, module in (("lstm", lstm), ("linear", linear)):
                own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
                if wrong := sorted(set(own) ^ set(module.state_dict())):
                    raise ModelError(
                        f"labeller {self.name!r}: {path} does not fit: {name} has missing or unknown {', '.join(wrong)}"
                    )
                module.load_state_dict(own)
        return torch.nn.ModuleList([lstm, linear]).eval().to(device)

    def embed(self, mels: Floats) -> Floats:
        """Unit vectors of shape (windows, 256) for mel spectrograms of shape (windows, frames, 40)."""
        import torch

        lstm, linear = self._loaded
        with torch.inference_mode():
            _, (hidden, _) = lstm(torch.from_numpy(mels).to(self.device))
            raw = torch.relu(linear(hidden[-1]))
            return np.asarray((raw / torch.linalg.norm(raw, dim=1, keepdim=True).clamp(min=1e-12)).cpu().numpy(), np.float32)

    def listen(self) -> Listener:
        """Begin to hear a recording."""
        return _Windows(self)


class _Windows(Listener):
    """Keeps an embedding for each cluster and a few numbers for each window; no sound."""

    def __init__(self, owner: ResemblyzerLabeller) -> None:
        self._owner = owner
        self._pieces: list[_Piece] = []
        self._clusters = Clusters(_POOL)

    def hear(self, wave: Wave, start_ms: int) -> None:
        frames = len(wave.samples) // _STEP
        end_ms = start_ms + wave.duration_ms
        if frames < _LEAST:
            self._pieces.append(_Piece(start_ms, end_ms, "too_short"))
            return
        quiet_db = min(0.0, rms_db(wave) - _LEVEL_DB)  # quiet speech is raised, as the network was trained
        mels = mel_40(wave.samples * np.float32(10.0 ** (-quiet_db / 20.0)))[:frames]
        starts = [0] if frames <= _WINDOW else [*range(0, frames - _WINDOW, _HOP), frames - _WINDOW]
        vectors = self._owner.embed(np.stack([mels[at : at + _WINDOW] for at in starts]))
        # Each window speaks for the time that is nearer to its middle than to that of its neighbours.
        edges = [0, *((first + second + _WINDOW) // 2 for first, second in itertools.pairwise(starts))]
        begins = [start_ms + 10 * edge for edge in edges]
        for begin, end, vector in zip(begins, [*begins[1:], end_ms], vectors, strict=True):
            if not np.isfinite(vector).all():
                self._pieces.append(_Piece(begin, end, "not_finite"))
            elif frames < _TRUSTED:
                self._pieces.append(_Piece(begin, end, vector=vector))
            else:
                self._pieces.append(_Piece(begin, end, cluster=self._clusters.add(vector)))

    def finish(self) -> Sequence[Value]:
        if not self._clusters.count:  # nothing but short segments: they have to make the speakers
            self._pieces = [
                one if one.vector is None else one._replace(cluster=self._clusters.add(one.vector), vector=None)
                for one in self._pieces
            ]
        known = self._owner.num_speakers
        self._clusters.merge(self._owner.threshold if known is None else -1.0, least=known or 1)
        speakers = self._speakers()
        while known is None and len(set(speakers)) > 1:
            heard = {
                name: sum(p.end_ms - p.start_ms for p, own in zip(self._pieces, speakers, strict=True) if own == name)
                for name in self._clusters.names
            }
            least = min(heard, key=lambda name: (heard[name], name))
            if heard[least] >= self._owner.min_speaker_ms:
                break
            self._clusters.dissolve(least)
            speakers = self._speakers()
        return _turns(self._pieces, speakers)

    def _speakers(self) -> list[int | None]:
        """The cluster of each piece."""
        return [
            None if one.reason else self._clusters.of(one.cluster) if one.vector is None else self._clusters.nearest(one.vector)
            for one in self._pieces
        ]


def _turns(pieces: Sequence[_Piece], speakers: Sequence[int | None]) -> list[Value]:
    """Pieces that follow each other without a gap and have one speaker are one turn; speakers are named as they appear."""
    names: dict[int, str] = {}
    made: list[Value] = []
    for piece, own in zip(pieces, speakers, strict=True):
        if own is None:
            made.append(abstain("speaker", piece.reason, start_ms=piece.start_ms, end_ms=piece.end_ms))
            continue
        name = names.setdefault(own, f"speaker_{len(names)}")
        if made and made[-1].category == name and made[-1].end_ms == piece.start_ms:
            made[-1] = replace(made[-1], end_ms=piece.end_ms)
        else:
            made.append(turn(name, piece.start_ms, piece.end_ms))
    return made


class Clusters:
    """Agglomerative clustering with average linkage of cosines, over unit vectors that arrive one by one.

    The mean cosine between the members of two clusters is the product of their mean vectors, so that the sums are all that is kept.
    Up to `pool` vectors the result is that of `scipy.cluster.hierarchy.linkage(..., "average", "cosine")`; when there are more
    clusters than that, the most similar are merged until half of them are left.
    """

    def __init__(self, pool: int) -> None:
        self._pool = pool
        self._sums: dict[int, Floats] = {}
        self._sizes: dict[int, int] = {}
        self._joined: list[int] = []  # for each vector, another one whose cluster it joined, or itself

    @property
    def count(self) -> int:
        """How many vectors have been added."""
        return len(self._joined)

    @property
    def names(self) -> tuple[int, ...]:
        """The clusters that there are."""
        return tuple(self._sums)

    def add(self, vector: Floats) -> int:
        """Add a vector of length 1; returns its number, for `of`."""
        number = self.count
        self._joined.append(number)
        self._sums[number], self._sizes[number] = vector, 1
        if len(self._sums) > self._pool:
            self.merge(-1.0, least=self._pool // 2)
        return number

    def of(self, number: int) -> int:
        """The cluster of a vector."""
        while self._joined[number] != number:
            number = self._joined[number]
        return number

    def nearest(self, vector: Floats) -> int:
        """The cluster whose mean has the greatest cosine with a vector."""
        return max(
            self._sums, key=lambda name: float(self._sums[name] @ vector) / max(float(np.linalg.norm(self._sums[name])), 1e-12)
        )

    def dissolve(self, name: int) -> None:
        """Give all members of a cluster to the one that is most similar to their mean."""
        lost = self._sums.pop(name)
        self._sizes.pop(name)
        self._joined[name] = self.nearest(lost)

    def merge(self, threshold: float, *, least: int) -> None:
        """Merge the most similar clusters until none are as similar as `threshold`, or `least` are left."""
        names = list(self._sums)
        means = np.array([self._sums[name] / self._sizes[name] for name in names], np.float32)
        alike = means @ means.T if names else np.zeros((0, 0), np.float32)
        np.fill_diagonal(alike, -np.inf)
        for _ in range(len(names) - least):
            first, second = divmod(int(alike.argmax()), len(names))
            if alike[first, second] < threshold:
                break
            kept, lost = names[first], names[second]
            self._sums[kept] = self._sums[kept] + self._sums.pop(lost)
            self._sizes[kept] += self._sizes.pop(lost)
            self._joined[lost] = kept
            means[first] = self._sums[kept] / self._sizes[kept]
            alive = np.isfinite(alike[first])
            alike[first] = alike[:, first] = np.where(alive, means @ means[first], -np.inf)
            alike[second] = alike[:, second] = -np.inf


def mel_40(samples: Floats) -> Floats:
    """The front end of the network: power in 40 Slaney mel bands of windows of 25 ms every 10 ms, shape (frames, 40); no logarithm."""
    padded = np.pad(samples, _FFT // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_STEP]
    spectrum = np.fft.rfft(windows * np.hanning(_FFT + 1)[:-1].astype(np.float32))
    return np.asarray((spectrum.real**2 + spectrum.imag**2) @ _mel_filters(), np.float32)


@functools.cache
def _mel_filters() -> npt.NDArray[np.float64]:
    """Triangles of area 1 on Slaney's mel scale (linear below 1 kHz, 27 steps for a factor of 6.4 above), 0 to 8 kHz; shape (201, 40)."""
    top = 15.0 + 27.0 * np.log(8.0) / np.log(6.4)
    mels = np.linspace(0.0, top, _MELS + 2)
    edges = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * 6.4 ** ((mels - 15.0) / 27.0))
    hz = np.arange(_FFT // 2 + 1)[:, None] * RATE_HZ / _FFT
    rise = (hz - edges[:-2]) / np.diff(edges)[:-1]
    fall = (edges[2:] - hz) / np.diff(edges)[1:]
    return np.asarray(np.maximum(0.0, np.minimum(rise, fall)) * 2.0 / (edges[2:] - edges[:-2]))
