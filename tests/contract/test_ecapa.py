"""The labeller ecapa-gender on random weights under the released names, and its front end against scipy and transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import get_window, stft

from tests.contract.checkpoints import CHANNELS, ecapa_weights
from undertone.audio import Wave
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.label.ecapa import GENDERS, EcapaGender, expected_shapes, log_mel, mel_filters
from undertone.label.protocol import LABELLERS, Category

torch = pytest.importorskip("torch", reason="torch is not installed: the ECAPA-TDNN is not tested")
save_file = pytest.importorskip("safetensors.torch", reason="safetensors is not installed").save_file

torch.set_num_threads(1)


def noise(seconds: float, seed: int = 0) -> Wave:
    return Wave((0.1 * np.random.default_rng(seed).normal(size=int(16_000 * seconds))).astype(np.float32), 16_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ecapa")
    save_file(ecapa_weights(), path / "model.safetensors")
    (path / "config.json").write_text(f'{{"C": {CHANNELS}}}')
    return path


def scores(values) -> np.ndarray:
    return np.array([list(value.distribution.values()) for value in values])


class Res2(torch.nn.Module):
    """The same block from torch's own modules, for one wave without padding: the reference that shares no code with ours."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        nn, width = torch.nn, CHANNELS // 8
        self.conv1, self.bn1 = nn.Conv1d(CHANNELS, CHANNELS, 1), nn.BatchNorm1d(CHANNELS)
        self.conv3, self.bn3 = nn.Conv1d(CHANNELS, CHANNELS, 1), nn.BatchNorm1d(CHANNELS)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(7))
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(7))
        gate = [nn.AdaptiveAvgPool1d(1), nn.Conv1d(CHANNELS, 128, 1), nn.ReLU(), nn.Conv1d(128, CHANNELS, 1), nn.Sigmoid()]
        self.se = nn.ModuleDict({"se": nn.Sequential(*gate)})

    def forward(self, x):
        *heard, last = self.bn1(self.conv1(x).relu()).split(CHANNELS // 8, dim=1)
        done, carried = [], 0
        for part, conv, norm in zip(heard, self.convs, self.bns, strict=True):
            carried = norm(conv(part + carried).relu())
            done.append(carried)
        y = self.bn3(self.conv3(torch.cat([*done, last], dim=1)).relu())
        return y * self.se["se"](y) + x


class Reference(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.conv1, self.bn1 = nn.Conv1d(80, CHANNELS, 5, padding=2), nn.BatchNorm1d(CHANNELS)
        self.layer1, self.layer2, self.layer3 = Res2(2), Res2(3), Res2(4)
        self.layer4 = nn.Conv1d(3 * CHANNELS, 1_536, 1)
        score = [nn.Conv1d(4_608, 256, 1), nn.ReLU(), nn.BatchNorm1d(256), nn.Tanh(), nn.Conv1d(256, 1_536, 1), nn.Softmax(dim=2)]
        self.attention = nn.Sequential(*score)
        self.bn5, self.fc6, self.bn6, self.fc7 = (
            nn.BatchNorm1d(3_072),
            nn.Linear(3_072, 192),
            nn.BatchNorm1d(192),
            nn.Linear(192, 2),
        )

    def forward(self, mel):
        x = self.bn1(self.conv1(mel).relu())
        first = self.layer1(x)
        second = self.layer2(x + first)
        third = self.layer3(x + first + second)
        x = self.layer4(torch.cat([first, second, third], dim=1)).relu()
        mean, spread = x.mean(dim=2, keepdim=True), x.var(dim=2, keepdim=True).clamp(min=1e-4).sqrt()
        share = self.attention(torch.cat([x, mean.expand_as(x), spread.expand_as(x)], dim=1))
        centre = (x * share).sum(dim=2)
        width = ((x**2 * share).sum(dim=2) - centre**2).clamp(min=1e-4).sqrt()
        return self.fc7(self.bn6(self.fc6(self.bn5(torch.cat([centre, width], dim=1)))).relu())


def test_the_answer_is_that_of_the_network_built_from_torch_modules(folder: Path) -> None:
    reference = Reference().eval()
    reference.load_state_dict(ecapa_weights())  # strict: the names are those of the modules
    waves = [noise(0.4, 1), noise(1.0, 2), noise(2.3, 3)]
    with torch.inference_mode():
        expected = np.array([reference(log_mel(wave.samples)[None]).softmax(dim=1)[0].numpy() for wave in waves])
    got = scores(answer[0] for answer in EcapaGender(model=str(folder)).judge_many(waves))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.ptp(got[:, 0]) > 1e-3, "the random network hears no difference, so this test could not fail"


def test_the_released_file_would_have_these_weights() -> None:
    shapes = expected_shapes(1_024)
    norms = sum(name.endswith("running_var") for name in shapes)
    size = 4 * sum(int(np.prod(shape)) for shape in shapes.values()) + 8 * norms  # float32, and one int64 counter a norm
    assert 0 < 61_907_512 - size < 30_000, "the released model.safetensors is 61,907,512 bytes with its header"


def test_the_mel_filters_are_those_of_transformers() -> None:
    utils = pytest.importorskip("transformers.audio_utils", reason="transformers is not installed: no second filter bank")
    expected = utils.mel_filter_bank(257, 80, 20.0, 7_600.0, 16_000, norm=None, mel_scale="htk")
    np.testing.assert_allclose(mel_filters(), expected, atol=1e-6)
    assert (mel_filters().max(axis=0) > 0).all()


def test_the_front_end_is_that_of_scipy() -> None:
    samples = noise(0.7, 5).samples.astype(np.float64)
    emphasised = np.concatenate([[samples[0] - 0.97 * samples[1]], samples[1:] - 0.97 * samples[:-1]])
    window = np.pad(get_window("hamming", 400), 56)
    padded = np.pad(emphasised, 256, mode="reflect")
    _, _, spectrum = stft(padded, window=window, nperseg=512, noverlap=352, boundary=None, padded=False, detrend=False)
    expected = np.log(mel_filters().T @ np.abs(spectrum * window.sum()) ** 2 + 1e-6)
    expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(log_mel(samples.astype(np.float32)).numpy(), expected, atol=2e-3)


def test_a_batch_says_what_each_wave_alone_says(folder: Path) -> None:
    made = EcapaGender(model=str(folder), batch=3)
    waves = [noise(seconds, seed) for seed, seconds in enumerate((0.3, 0.31, 0.9, 1.7, 4.0))]
    together = scores(answer[0] for answer in made.judge_many(waves))
    alone = scores(made.judge(wave)[0] for wave in waves)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(alone, scores(made.judge(wave)[0] for wave in waves))


def test_labels_through_the_registry(folder: Path) -> None:
    made = LABELLERS.get("ecapa-gender", {"model": str(folder)})
    (label,) = made.label(noise(1.0), start_ms=500)
    assert made.emits == (Category("gender", GENDERS),)
    assert (label.start_ms, label.end_ms, label.labeller) == (500, 1_500, "ecapa-gender@1")
    assert list(label.distribution) == ["male", "female"]
    assert label.category == max(label.distribution, key=label.distribution.get)
    assert sum(label.distribution.values()) == pytest.approx(1.0)
    assert label.revision.startswith("sha256:")
    assert [one.reason for one in made.label(noise(0.1), start_ms=0)] == ["too_short"]
    assert made.licence == "MIT"


def test_no_waves_are_no_answers(folder: Path) -> None:
    assert EcapaGender(model=str(folder)).judge_many([]) == []


def test_weights_that_are_not_numbers_abstain(tmp_path: Path) -> None:
    weights = ecapa_weights()
    weights["fc7.bias"] = torch.full((2,), torch.nan)
    save_file(weights, tmp_path / "model.safetensors")
    made = LABELLERS.get("ecapa-gender", {"model": str(tmp_path)})
    assert [(one.attribute, one.reason) for one in made.label(noise(1.0), start_ms=0)] == [("gender", "not_finite")]


def test_pytorch_model_bin_and_a_file_by_path(folder: Path, tmp_path: Path) -> None:
    torch.save(ecapa_weights(), tmp_path / "pytorch_model.bin")
    expected = EcapaGender(model=str(folder)).judge(noise(1.0))
    assert EcapaGender(model=str(tmp_path)).judge(noise(1.0)) == expected
    assert EcapaGender(model=str(folder / "model.safetensors")).judge(noise(1.0)) == expected


def test_missing_weights_are_named(tmp_path: Path) -> None:
    weights = ecapa_weights()
    del weights["layer2.se.se.3.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 of 202 weights do not fit: layer2\.se\.se\.3\.bias \(missing, expected \(16,\)\)"):
        EcapaGender(model=str(tmp_path)).open()


def test_a_head_of_another_size_is_refused(tmp_path: Path) -> None:
    weights = ecapa_weights()
    weights["fc7.weight"], weights["fc7.bias"] = torch.zeros(3, 192), torch.zeros(3)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"fc7\.weight \(\(3, 192\), expected \(2, 192\)\)"):
        EcapaGender(model=str(tmp_path)).open()


def test_a_folder_without_weights_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks model\.safetensors or pytorch_model\.bin; expected"):
        EcapaGender(model=str(tmp_path)).open()
    with pytest.raises(ConfigError, match="nothing is there"):
        EcapaGender(model=str(tmp_path / "no")).open()
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="does not load"):
        EcapaGender(model=str(tmp_path)).open()


def test_the_hub_needs_a_revision_and_its_absence_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

    def offline(*_args: object, **_kwargs: object) -> str:
        raise OSError("no route to the hub")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    made = EcapaGender()
    assert made.revision == "JaesungHuh/voice-gender-classifier@db1222153bd60337e900be22add7af180452adc0"
    with pytest.raises(DependencyError, match="hf download JaesungHuh/voice-gender-classifier"):
        made.open()
    with pytest.raises(ConfigError, match="needs a revision"):
        EcapaGender(model="someone/else").open()
