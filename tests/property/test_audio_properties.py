"""Streams and regions do not depend on how the sound is chopped."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from undertone.audio import Wave, load, probe, stream, write
from undertone.label import vad


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.integers(1, 90_000),
    source_hz=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    rate_hz=st.sampled_from([8_000, 16_000, 24_000]),
    chunk_ms=st.integers(1, 4000),
    suffix=st.sampled_from([".wav", ".flac"]),
)
def test_chunks_joined_are_the_whole(folder: Path, samples: int, source_hz: int, rate_hz: int, chunk_ms: int, suffix: str):
    path = folder / f"a{suffix}"
    source = np.random.default_rng(samples).uniform(-0.5, 0.5, samples).astype(np.float32)
    write(path, Wave(source, source_hz))
    if round(samples * rate_hz / source_hz) < 2:
        return
    whole = load(path, rate_hz=rate_hz)
    chunks = list(stream(path, rate_hz=rate_hz, chunk_ms=chunk_ms))
    assert np.array_equal(np.concatenate([one.samples for one in chunks]), whole.samples)
    assert all(len(one.samples) == chunk_ms * rate_hz // 1000 for one in chunks[:-1])
    assert abs(len(whole.samples) - samples * rate_hz / source_hz) <= 1
    assert (probe(path).samples, probe(path).rate_hz) == (samples, source_hz)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    source_hz=st.sampled_from([8_000, 16_000, 44_100]),
    start_ms=st.integers(0, 5_900),
    length_ms=st.integers(1, 7_000),
)
def test_a_cut_is_a_part_of_the_whole(folder: Path, source_hz: int, start_ms: int, length_ms: int):
    path = folder / f"cut{source_hz}.flac"
    if not path.exists():
        write(path, Wave(np.random.default_rng(0).uniform(-0.5, 0.5, 6 * source_hz).astype(np.float32), source_hz))
    part = load(path, start_ms=start_ms, end_ms=start_ms + length_ms)
    expected = load(path).cut(start_ms, start_ms + length_ms)
    assert part.samples.shape == expected.samples.shape
    assert np.abs(part.samples - expected.samples).max() <= 1e-6


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    seconds=st.floats(0.05, 40),
    chunks_ms=st.lists(st.sampled_from([1, 37, 1000, 7000, 30_000]), min_size=1, max_size=3),
    max_segment_ms=st.sampled_from([2_000, 6_000, 15_000]),
)
def test_regions_do_not_depend_on_chunks(seed: int, seconds: float, chunks_ms: list[int], max_segment_ms: int):
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * 16_000)) / 16_000
    tone = sum(np.sin(2 * np.pi * k * (120 * t + np.sin(4 * t))) / k for k in range(1, 12))
    gates = np.repeat(rng.random(len(t) // 6400 + 1) < 0.6, 6400)[: len(t)]
    wave = Wave((0.1 * gates * tone + 0.002 * rng.standard_normal(len(t))).astype(np.float32), 16_000)
    expected = list(vad.regions([wave], max_segment_ms=max_segment_ms))
    for chunk_ms in chunks_ms:
        size = max(chunk_ms, wave.duration_ms // 200) * 16  # one millisecond at a time takes minutes
        parts = (Wave(wave.samples[at : at + size], 16_000) for at in range(0, len(t), size))
        assert list(vad.regions(parts, max_segment_ms=max_segment_ms)) == expected
    ends = [ms for region in expected for ms in region]
    assert ends == sorted(ends)
    assert all(0 < one.end_ms - one.start_ms <= max_segment_ms for one in expected)
    assert not expected or 0 <= ends[0] <= ends[-1] <= wave.duration_ms
