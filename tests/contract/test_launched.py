"""Trainings on several processes: shards of weights on each give what one process gives, and none outlives the worker that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.contract.test_trainer import ROOT, config, fit, lines, weights
from tests.unit.test_train import MODEL, Toy
from undertone.model.config import LoRAConfig
from undertone.train.launched import WORKER_GONE, held_open

SHARDED = """
import sys
from pathlib import Path
import accelerate.state
from accelerate.utils import DistributedType

# accelerate takes FSDP on a CPU for DDP, without a word; told that the processes have GPUs it shards all the same, over gloo.
begun = accelerate.state.PartialState.__init__


def begin(self, *args, **kwargs):
    begun(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


accelerate.state.PartialState.__init__ = begin
from tests.contract.test_launched import *
import undertone.train.trainer as ours

going = ours._Run.go


def go(self, trainer, resumed):
    assert trainer.is_fsdp_enabled and (resumed is not None) == (sys.argv[3] == "again")
    going(self, trainer, resumed)
    shards = {name for name, one in trainer.model.named_parameters() if type(one).__name__ == "DTensor"}
    assert shards == {name for name, _ in trainer.model.named_parameters()}


ours._Run.go = go


def stop(line):
    if line.step == 4 and sys.argv[3] == "stop":
        sys.exit(0)


model, settings = KINDS[sys.argv[2]]
fit(Toy(12), Path(sys.argv[1]), settings, model=model, progress=stop)
"""

_STEPS = config(steps=5, group_size=3, save_every=2)
KINDS = {
    "whole": (MODEL, _STEPS.model_copy(update={"rows": "packed"})),
    "LoRA in float32 beside a frozen decoder in half precision": (
        MODEL.model_copy(
            update={
                "decoder": MODEL.decoder.model_copy(update={"dtype": "bfloat16"}),
                "frozen": ("encoder", "decoder"),
                "lora": LoRAConfig(r=4, targets=("q_proj", "v_proj")),
            }
        ),
        _STEPS,
    ),
    "the best of what is held out": (MODEL, _STEPS.model_copy(update={"held_out": 0.2, "eval_every": 2})),
}


def sharded(folder: Path, out: Path, kind: str, how: str) -> int:
    script = folder / "sharded.py"
    script.write_text(SHARDED)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), str(out), kind, how]
    # As accelerate sets them from configs/accelerate/fsdp.yaml.
    told = {"USE_FSDP": "true"}
    options = {"VERSION": "2", "AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "STATE_DICT_TYPE": "FULL_STATE_DICT"}
    options |= {"CPU_RAM_EFFICIENT_LOADING": "false", "OFFLOAD_PARAMS": "false", "RESHARD_AFTER_FORWARD": "true"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment |= {f"ACCELERATE_{key}": value for key, value in told.items()} | {
        f"FSDP_{key}": value for key, value in options.items()
    }
    done = subprocess.run(words, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert how == "stop" or done.returncode == 0, done.stderr[-3000:]
    return done.returncode


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_shards_on_two_processes_are_one_process_with_twice_the_accumulation(tmp_path: Path, kind: str) -> None:
    """FSDP2; tied embeddings stand in the checkpoint once, as one process writes them."""
    model, settings = KINDS[kind]
    alone = fit(Toy(12), tmp_path / "alone", settings.model_copy(update={"accumulate": 2}), model=model)
    sharded(tmp_path, tmp_path / "two", kind, "go")
    for one, other in zip(lines(alone), lines(tmp_path / "two"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    ours, theirs = weights(alone), weights(tmp_path / "two")
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        assert one.dtype == theirs[name].dtype
        torch.testing.assert_close(one.float(), theirs[name].float(), rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_shards_go_on_from_a_state_to_the_same_bytes(tmp_path: Path) -> None:
    sharded(tmp_path, tmp_path / "alone", "whole", "go")
    sharded(tmp_path, tmp_path / "stopped", "whole", "stop")
    assert [one.name for one in (tmp_path / "stopped/_steps").glob("checkpoint-*")]
    sharded(tmp_path, tmp_path / "stopped", "whole", "again")
    for name in ("model.safetensors", "losses.jsonl", "README.md"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


WATCHED = (
    "import sys, time; from pathlib import Path; from undertone.train.launched import end_with; end_with(Path(sys.argv[1])); {}"
)
HOLDS = """
import subprocess, sys, time
from pathlib import Path
from undertone.train.launched import held_open

pipe = Path(sys.argv[1])
with held_open(pipe):
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], str(pipe)], stdout=subprocess.PIPE)
    print(child.pid, child.stdout.readline().decode(), flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_training_ends_with_the_worker_that_started_it(tmp_path: Path) -> None:
    """kill -9 of the worker, which can tell nobody."""
    training = WATCHED.format("print('trains', flush=True); time.sleep(600)")
    worker = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "alive"), training], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pid, said = worker.stdout.readline().split()
    assert said == "trains"
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    for _ in range(600):
        if not runs(int(pid)):
            return
        time.sleep(0.1)
    os.kill(int(pid), signal.SIGKILL)
    pytest.fail("the training went on for a minute without its worker")


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended may stay in the list of processes until somebody asks for its code."""
    status = Path(f"/proc/{pid}/status")
    if status.parent.parent.is_dir():
        return status.is_file() and "\nState:\tZ" not in status.read_text()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_training_whose_worker_is_gone_before_it_begins_does_not_begin(tmp_path: Path) -> None:
    with held_open(tmp_path / "alive"):
        pass
    words = [sys.executable, "-c", WATCHED.format("time.sleep(600)"), str(tmp_path / "alive")]
    assert subprocess.run(words, check=False, timeout=300).returncode == WORKER_GONE


def test_a_training_whose_worker_lives_goes_on(tmp_path: Path) -> None:
    with held_open(tmp_path / "alive"):
        reads = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(BlockingIOError):
            os.read(reads, 1)
    assert os.read(reads, 1) == b""
    os.close(reads)
