"""On an NVIDIA GPU: everything trains there, to the same bits every time, and is of use on machines without one."""

import math
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import cnnbench as package
from cnnbench.analysis.evaluate import evaluate_run
from cnnbench.analysis.run import Run
from cnnbench.data.images import DataSpec, Images, Stream
from cnnbench.data.loader import Batches
from cnnbench.store import checkpoint
from cnnbench.training.step import evaluate, train_step
from tests.conftest import SMALL_FORMS, TINY, latest, only_run
from tests.end_to_end.test_every_part_resumes import CASES as PARTS
from tests.end_to_end.test_every_part_resumes import WORDS as PARTS_ON
from tests.models.test_models import TEXTS
from tests.support.interruption import WORDS, differences, finished, go, kill, outcome_of, read, rows_of, stop
from tests.support.training import SMALL, first_batch, plan_of, prepared, same, trained, weights_of
from tests.tasks.test_tasks import CASES as TASKS
from tests.training.test_pretended_gpu import CASES as STEPS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.usefixtures("one_second_a_session"),
]

GPU = "device=cuda"
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
CLOSE = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 3e-2, "fp16": 1e-2}  # relative, of losses that two devices compute
COLOUR = (*SMALL, "data.channels=3", "data.image_size=20", "data.crop=16", GPU)


@contextmanager
def nothing_is_waited_for() -> Iterator[None]:
    """Raise where the processor waits for the GPU."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains(task, outputs):
    assert go(*SMALL, *TASKS[task], GPU) == 0
    run = only_run(outputs)
    assert read(run / "run.json")["machine"]["device"] == "cuda"
    assert all(math.isfinite(row["loss/train"]) for row in rows_of(run))
    assert math.isfinite(read(run / "result.json")["test"]["loss"])


@pytest.mark.parametrize("part", [part for part in PARTS if not part.startswith("scheduler=")])
def test_every_part_trains_to_the_same_bits_every_time(part):
    (one, recorder, _), (other, *_) = (trained(*PARTS_ON, *PARTS[part], GPU) for _ in range(2))
    assert same(weights_of(one), weights_of(other))
    assert {weight.device.type for weight in one.network.parameters()} == {"cuda"}
    assert all(math.isfinite(row["loss/train"]) for row in recorder.steps)


@pytest.mark.parametrize("model", TEXTS)
def test_every_network_trains_to_the_same_bits_every_time(model):
    words = ("data=synthetic", "data.num_train=48", "data.num_test=12", "data.num_classes=3", f"model={model}")
    words += ("batch_size=16", "epochs=1", *SMALL_FORMS.get(model, ()))
    losses = []
    for device in ("device=cpu", GPU):
        training = prepared(*words, device)
        losses.append(evaluate(training, training.network, training.batches("test"))["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    (one, *_), (other, *_) = (trained(*words, GPU) for _ in range(2))
    assert same(weights_of(one), weights_of(other))


@pytest.mark.parametrize("option", [part for part in PARTS if part.startswith("augmentation=")])
def test_every_augmentation_gives_the_images_of_a_cpu(option):
    words = (*PARTS_ON, *PARTS[option])
    one, other = (first_batch(prepared(*words, device)) for device in ("device=cpu", GPU))
    differing = (one.images - other.images.cpu()).abs() > 1e-2
    assert differing.float().mean() < 0.01  # rounding may take a pixel from the place next to it
    assert torch.equal(one.labels, other.labels.cpu())
    if one.mixed is not None:
        assert torch.equal(one.mixed.labels, other.mixed.labels.cpu())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_first_steps_are_close_to_those_of_a_cpu(precision):
    words = (*PARTS_ON, "epochs=1", "regularization.dropout=0")
    losses = [
        [row["loss/train"] for row in trained(*words, *more)[1].steps]
        for more in (("device=cpu",), (GPU, f"precision={precision}"))
    ]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=CLOSE[precision])
    if precision == "fp32":  # in the others small differences grow at once
        assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_threads_that_prepare_batches_change_nothing():
    (one, *_), (other, *_) = (trained(*PARTS_ON, GPU, f"num_workers={number}") for number in (0, 2))
    assert same(weights_of(one), weights_of(other))


def test_images_that_are_loaded_on_demand_are_those_in_memory():
    pixels = torch.randint(0, 256, (40, 3, 12, 12), generator=torch.Generator().manual_seed(0)).byte()
    stream, labels = Stream(lambda rows: pixels[rows], torch.arange(40), (3, 12, 12)), torch.arange(40) % 3
    settings = (DataSpec(3, 8, 8, tuple("abc")), (0.4,) * 3, (0.2,) * 3, torch.device("cuda"))
    order = torch.arange(40).flip(0)
    expected = list(Batches(Images(pixels, labels), *settings).epoch(order, 8))
    for num_workers in (0, 2):
        batches = Batches(Images(stream, labels), *settings).epoch(order, 8, num_workers=num_workers)
        got = [next(batches)]
        with nothing_is_waited_for():
            got += list(batches)
        for one, other in zip(got, expected, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)


MORE_STEPS = {
    "bounded gradients": ("regularization.clip.norm=0.1", "regularization.clip.value=0.1"),
    "dropout and batch norm": ("model=lenet_v2", "regularization.dropout=0.5", "regularization.batchnorm=true"),
    **{precision: (f"precision={precision}",) for precision in PRECISIONS},
    **{name: (f"optimizer={name}",) for name in ("adam", "adamw", "nadam", "radam", "rmsprop", "adagrad", "adadelta")},
    "muon": ("optimizer=muon",),
}


@pytest.mark.parametrize("case", STEPS | MORE_STEPS)
def test_a_step_waits_for_nothing(case):
    training = prepared(*COLOUR, *(STEPS | MORE_STEPS)[case])
    batches = training.train.epoch(training.order(1), training.config.batch_size, 1)
    for step in range(2):
        train_step(training, next(batches), step, 1.0)
    with nothing_is_waited_for():
        sums = train_step(training, next(batches), 2, 1.0)
    assert torch.isfinite(sums).all()


# Interrupted ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_killed_run_ends_in_the_same_bits(precision, outputs, tmp_path):
    words = (*WORDS, GPU, f"precision={precision}")
    unbroken = finished(words, tmp_path / "unbroken")
    kill(plan_of(*words), after_step=8, saves_every=3)
    assert go(*words) == 0
    assert differences(outcome_of(only_run(outputs)), outcome_of(unbroken)) == []


@pytest.mark.parametrize("parts", [("optimizer=muon",), ("optimizer=adamw",), ("regularization.average.kind=ema",)])
def test_every_state_is_brought_back_to_the_gpu(parts, outputs, tmp_path):
    words = (*WORDS, GPU, *parts)
    unbroken = finished(words, tmp_path / "unbroken")
    kill(plan_of(*words), after_step=8, saves_every=3)
    assert go(*words) == 0
    assert differences(outcome_of(only_run(outputs)), outcome_of(unbroken)) == []


def test_a_process_that_is_killed_ends_in_the_same_bits(outputs, start, tmp_path):
    words = (*WORDS, GPU, "epochs=30", "regularization.early_stopping.patience=null", "checkpoint.every_seconds=0")
    unbroken = finished(words, tmp_path / "unbroken")
    process, until = start(words), time.monotonic() + 60
    while not list(outputs.glob("*/*/*/checkpoints/step-*9.json")) and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    run = only_run(outputs)
    assert 0 < checkpoint.steps_in(run / "checkpoints")[-1] < 150
    resumed = start(words)
    _, error = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, error
    one, other = outcome_of(run), outcome_of(unbroken)
    assert differences(one["checkpoint"], other["checkpoint"]) == []
    assert differences(one["result"], other["result"]) == []


@pytest.mark.parametrize("devices", [("device=cpu", GPU), (GPU, "device=cpu")], ids=" then ".join)
def test_a_run_may_move_to_another_device(devices, outputs, capsys):
    stop(plan_of(*WORDS, devices[0]), at_check=9)
    assert go(*WORDS, devices[1]) == 0
    run = only_run(outputs)
    assert [session["machine"]["device"] for session in read(run / "run.json")["sessions"]] == [
        word.partition("=")[2] for word in devices
    ]


# Afterwards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_of_a_gpu_is_evaluated_without_one(precision, outputs, monkeypatch):
    run = finished((*PARTS_ON, GPU, f"precision={precision}"), outputs)
    measured, result = evaluate_run(package.load_run(run), "test").metrics, read(run / "result.json")["test"]
    assert measured["loss"] == result["loss"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    elsewhere = evaluate_run(package.load_run(run), "test").metrics
    assert elsewhere["loss"] == pytest.approx(result["loss"], rel=CLOSE[precision])


def test_a_run_of_a_cpu_is_evaluated_on_a_gpu(outputs):
    opened = package.load_run(finished(PARTS_ON, outputs))
    moved = Run(opened.folder, opened.config.model_copy(update={"device": "cuda"}))
    assert moved.prepare_device().type == "cuda"
    assert evaluate_run(moved, "test").metrics["loss"] == pytest.approx(opened.result["test"]["loss"], rel=1e-4)


@pytest.fixture(scope="module")
def of_a_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished((*PARTS_ON, "augmentation=crop_flip_jitter", GPU), tmp_path_factory.mktemp("gpu"))


COMMANDS = {
    "predict": ("--split", "test", "--index", "0,1"),
    "explain": (),
    "evaluate": ("--split", "val"),
    "export safetensors": ("--format", "safetensors"),
    "export onnx": ("--format", "onnx"),
    "export torch_export": ("--format", "torch_export"),
    "report": (),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_run_of_a_gpu(command, of_a_gpu, command_of):
    if command == "export onnx":
        pytest.importorskip("onnxscript")
    done = command_of(command.split()[0], str(of_a_gpu), *COMMANDS[command])
    assert done.code == 0, done.err


@pytest.mark.parametrize("word", ["dry_run=true", "lr_find=true"])
def test_a_training_is_tried_out(word, cnnbench):
    done = cnnbench(*TINY, "model=lenet_v2", "data.image_size=20", "report=false", GPU, word)
    assert done.code in ((0, 1) if word == "lr_find=true" else (0,)), done.err  # 1: the loss fell at no rate


def test_a_sweep_gives_each_job_the_gpu(outputs, start):
    process = start(["-m", *latest((*WORDS, GPU)), "seed=0,1"])
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert "2 of 2 runs completed" in out
    devices = [read(path)["machine"]["device"] for path in outputs.glob("*/*/*/run.json")]
    assert devices == ["cuda", "cuda"]


def test_a_gpu_is_chosen_by_number_and_one_that_is_not_there_is_refused(cnnbench, outputs):
    assert go(*SMALL, "device=cuda:0") == 0
    assert read(only_run(outputs) / "run.json")["machine"]["device"] == "cuda:0"
    refused = cnnbench(*TINY, f"device=cuda:{torch.cuda.device_count()}")
    assert refused.code == 2
    assert "is not on this machine; there are cpu, cuda, cuda:0" in refused.err
