"""How fast cnnbench trains on an NVIDIA GPU, next to the bare network: `python tests/benchmarks/gpu.py --out FOLDER`.

As in `throughput.py` all take turns in one process. The bare network computes on ready batches that lie on the GPU, in
the same layout and precision, step by step and, as what no loop in Python can reach, as one CUDA graph. FOLDER gets
the profiles. `--small` tries everything in seconds, on a processor too.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import torch
from preparation import report_augmentations
from throughput import only_logging, with_images
from timing import Works, seconds, synchronize, take_turns
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from cnnbench.config.compose import Composer
from cnnbench.config.run_config import RunConfig
from cnnbench.data.loader import Batch
from cnnbench.optim.schedules import Horizon
from cnnbench.plugins import register_everything
from cnnbench.store.provenance import cpu_model
from cnnbench.training.journal import Journal
from cnnbench.training.loop import Progress, fit
from cnnbench.training.plan import Plan, plan_run
from cnnbench.training.setup import TrainingSetup, make_schedule, set_up_torch, setup
from cnnbench.training.step import autocast, evaluate, train_step

BEGAN = time.perf_counter()
READY = 16  # batches of the bare network: more than the cache of a GPU holds
PROFILED = 20  # steps
LONGEST = 45.0  # seconds of a whole training; one that would take longer is extrapolated
CNNBENCH, FREE = "cnnbench", "cnnbench, deterministic=false"
BARE, GRAPH = "the bare network", "the bare network as a CUDA graph"
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


@dataclass(frozen=True)
class Case:
    """A network on images of a shape; an epoch has `images`, a whole training `epochs`; profiled: as well."""

    title: str
    words: str
    images: int
    batch: int
    epochs: int
    profiled: bool = False


GRAY = "data=synthetic data.num_train=4096 data.num_test=2048 data.image_size=28 data.channels=1"
COLOUR = "data=synthetic data.num_train=4096 data.num_test=2048 data.num_classes=100"
CASES = {
    "lenet": Case(
        "LeNet on 60 000 of 1x28x28", f"{GRAY} model=lenet optimizer=sgd_heavy scheduler=none", 60_000, 1024, 50, True
    ),
    "v4": Case(
        "minialexnet_v4 on 50 000 of 3x32x32, 100 classes", f"{COLOUR} model=minialexnet_v4", 50_000, 1024, 150, True
    ),
    "v4_tf32": Case("... in tf32", f"{COLOUR} model=minialexnet_v4 precision=tf32", 50_000, 1024, 150),
    "resnet18": Case(
        "resnet18_cifar in bf16 on 25 600 of 3x32x32, 100 classes",
        f"{COLOUR} model=resnet18_cifar precision=bf16 augmentation=pad_crop_flip optimizer=sgd", 25_600, 512, 60,
    ),
}  # fmt: skip


class Bench:
    """A case set up on a device, each variant with its own weights; a turn is one epoch."""

    def __init__(self, case: Case, device: torch.device, out: Path) -> None:
        words = [*case.words.split(), f"batch_size={case.batch}", f"device={device}", "data.val_fraction=0", "epochs=1"]
        words += ["precision=fp32"] if device.type == "cpu" and "tf32" in case.words else []
        words = list({word.partition("=")[0]: word for word in words}.values())
        config, free = (plan_of([*words, f"deterministic={word}"]).config for word in ("true", "false"))
        self.case, self.device, self.steps = case, device, -(-case.images // case.batch)
        set_up_torch(device, config, os.cpu_count() or 1)
        both = {CNNBENCH: config, FREE: free}
        self.trainings = {name: with_images(setup(one), case.images) for name, one in both.items()}
        self.bare, self.captured = setup(config), setup(config)
        self.ready = list(islice(batches_of(self.trainings[CNNBENCH]), min(READY, self.steps)))
        self.observer = only_logging(Journal(out, out / f"{device.type}.jsonl", Progress()))

    def works(self) -> Works:
        works: Works = {name: partial(self.train, name) for name in self.trainings} | {BARE: self.train_bare}
        if self.device.type == "cuda":
            try:
                works[GRAPH] = partial(self.replay, *self.capture())
            except RuntimeError as error:
                print(f"\n{GRAPH}: {error}")
        return works

    def train(self, name: str = CNNBENCH, epochs: int = 1) -> None:
        training = self.trainings[name]
        set_up_torch(self.device, training.config, os.cpu_count() or 1)
        horizon = Horizon(epochs, self.steps)
        training = replace(training, horizon=horizon, schedule=make_schedule(training.config, horizon))
        fit(training, Progress(), self.observer)
        synchronize(self.device)

    def train_bare(self) -> None:
        set_up_torch(self.device, self.bare.config, os.cpu_count() or 1)
        for batch in islice(cycle(self.ready), self.steps):
            bare_step(self.bare, batch.images, batch.labels)
        synchronize(self.device)

    def capture(self) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        """Return the step of a network as a graph, and where it finds its batch."""
        set_up_torch(self.device, self.captured.config, os.cpu_count() or 1)
        images, labels = self.ready[0].images.clone(), self.ready[0].labels.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # the first steps allocate and choose, which a graph must not
            for _ in range(3):
                bare_step(self.captured, images, labels)
        torch.cuda.current_stream().wait_stream(stream)
        self.captured.optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            bare_step(self.captured, images, labels)
        return graph, images, labels

    def replay(self, graph: torch.cuda.CUDAGraph, images: Tensor, labels: Tensor) -> None:
        for batch in islice(cycle(self.ready), self.steps):
            images.copy_(batch.images)
            labels.copy_(batch.labels)
            graph.replay()
        synchronize(self.device)


def batches_of(training: TrainingSetup) -> Iterator[Batch]:
    return training.train.epoch(training.order(1), training.config.batch_size, 1)


def plan_of(words: Sequence[str]) -> Plan:
    return plan_run(Composer(), words)


def bare_step(training: TrainingSetup, images: Tensor, labels: Tensor) -> None:
    with autocast(training.config, training.device):
        loss = nn.functional.cross_entropy(training.network(images).float(), labels)
    training.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    training.optimizer.step()


# Reports --------------------------------------------------------------------------------------------------------------


def report_case(bench: Bench, rounds: int) -> None:
    case = bench.case
    spent = take_turns(bench.works(), rounds)
    print(f"\n## {case.title}, {case.batch} a step\n\n| | s an epoch, median | lowest – highest | ms a step |")
    print("|---|---:|---:|---:|")
    for name, turns in spent.items():
        low, middle, high = min(turns), median(turns), max(turns)
        print(f"| {name} | {middle:.3f} | {low:.3f} – {high:.3f} | {1000 * middle / bench.steps:.2f} |")
    print("\n| | |\n|---|---:|")
    for name in (name for name in spent if name != CNNBENCH):
        ratio = median(other / own for other, own in zip(spent[name], spent[CNNBENCH], strict=True))
        print(f"| speed of cnnbench / {name}, median of {rounds} rounds | {ratio:.3f} |")
    training, test = bench.trainings[CNNBENCH], bench.trainings[CNNBENCH].batches("test")
    measure = partial(evaluate, training, training.network, test)
    measure()
    print(f"| measuring {len(test)} images | {seconds(measure):.3f} s |")
    epoch, what = median(spent[CNNBENCH]), f"{case.epochs} epochs of training"
    if case.epochs * epoch <= LONGEST:
        print(f"| {what}, measured | {seconds(partial(bench.train, epochs=case.epochs)):.1f} s |", flush=True)
    else:
        print(f"| {what}, extrapolated from {rounds} epochs | {case.epochs * epoch:.1f} s |", flush=True)


def report_profile(bench: Bench, out: Path, name: str) -> None:
    """Print what the GPU and the processor do in a step of cnnbench, its batch included."""
    training, steps = bench.trainings[CNNBENCH], min(PROFILED, bench.steps - 2)
    set_up_torch(bench.device, training.config, os.cpu_count() or 1)
    several_steps(training, steps)  # allocates memory and chooses kernels
    wall = seconds(partial(several_steps, training, steps)) / steps
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (bench.device.type == "cuda")
    with profile(activities=activities, acc_events=True) as profiler:
        several_steps(training, steps)
    events = profiler.events() or []
    called = {event.name for event in events if event.device_type == DeviceType.CPU}  # ranges, shown on the GPU as well
    on_gpu = [event for event in events if event.device_type == DeviceType.CUDA and event.name not in called]
    kernels = [event for event in on_gpu if not event.name.startswith(("Memcpy", "Memset"))]
    copies = Counter(event.name for event in on_gpu if event.name.startswith("Memcpy"))
    waits = Counter(event.name for event in events if event.name in WAITS)
    busy = sum(event.device_time_total for event in on_gpu) / 1e6 / steps
    averages = profiler.key_averages()
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    (out / f"profile-{name}.txt").write_text(
        f"{averages.table(sort_by=order, row_limit=40)}\n{averages.table(sort_by='self_cpu_time_total', row_limit=40)}"
    )
    profiler.export_chrome_trace(str(out / f"trace-{name}.json.gz"))
    print(f"\n### {steps} steps of {bench.case.title}, profiled\n\n| | a step |\n|---|---:|")
    print(f"| wall clock, not profiled | {1000 * wall:.2f} ms |")
    print(f"| the GPU computes or copies | {1000 * busy:.2f} ms, {busy / wall:.0%} of it |")
    print(f"| kernels | {len(kernels) / steps:.1f} |")
    for label, counts in (("copies", copies), ("waits", waits)):
        found = ", ".join(f"{key} {number}" for key, number in counts.items()) or "none"
        print(f"| {label}, in all {steps} steps and at their end | {found} |")
    longest = Counter[str]()
    for event in kernels:
        longest[event.name] += event.device_time_total
    for kernel, spent in longest.most_common(6):
        print(f"| {kernel[:90]} | {spent / 1000 / steps:.3f} ms |")
    sys.stdout.flush()


def several_steps(training: TrainingSetup, number: int) -> None:
    training.set_train_mode(1)
    for step, batch in enumerate(islice(batches_of(training), number)):
        train_step(training, batch, step, 1.0)
    synchronize(training.device)


def report_start(device: torch.device) -> None:
    """Print how long it takes until the first step of a plain `cnnbench` is done."""
    rows: dict[str, float] = {}
    configs: list[RunConfig] = []
    trainings: list[TrainingSetup] = []

    def clocked(name: str, work: Callable[[], object]) -> None:
        rows[name] = seconds(work)

    for module in ("torch", "cnnbench.training.trainer"):
        command = [sys.executable, "-c", f"import {module}"]
        clocked(f"a process that imports {module}", partial(subprocess.check_call, command))
    if device.type == "cuda":
        clocked("CUDA", lambda: torch.zeros(1, device=device).item())
    clocked("words to a plan", lambda: configs.append(plan_of([f"device={device}"]).config))
    clocked("data, network, optimizer", lambda: trainings.append(setup(configs[0])))
    set_up_torch(device, configs[0], os.cpu_count() or 1)
    clocked("first step", lambda: several_steps(trainings[0], 1))
    clocked("second step", lambda: several_steps(trainings[0], 1))
    print("\n## Start\n\n| | s |\n|---|---:|")
    for name, spent in rows.items():
        print(f"| {name} | {spent:.3f} |", flush=True)


def machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    libraries = {"python": platform.python_version(), "torch": torch.__version__, "CUDA": torch.version.cuda}
    if device.type == "cuda":
        libraries["cuDNN"] = str(torch.backends.cudnn.version())
    versions = ", ".join(f"{library} {version}" for library, version in libraries.items())
    return f"{name}; {os.cpu_count()} cores, {cpu_model()}; {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for profiles and traces")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=sorted(CASES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="only to try it: every number means nothing")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    device, rounds = torch.device(chosen.device), chosen.rounds
    cases = {chosen.only: CASES[chosen.only]} if chosen.only else CASES
    if chosen.small:
        few = "data.num_train=200 data.num_test=50 data.num_classes=4"
        cases = {
            name: replace(case, words=f"{case.words} {few}", images=96, batch=16, epochs=2)
            for name, case in cases.items()
        }
        rounds = 1
    register_everything()
    print(f"{time.strftime('%Y-%m-%d')}, {machine(device)}", flush=True)
    report_start(device)
    for name, case in cases.items():
        bench = Bench(case, device, chosen.out)
        if case.profiled:
            report_profile(bench, chosen.out, name)
        report_case(bench, rounds)
        del bench
        if device.type == "cuda":
            print(f"| most memory | {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB |", flush=True)
            torch.cuda.reset_peak_memory_stats(device)
            torch.cuda.empty_cache()
    if not chosen.small:
        report_augmentations(rounds, device)
    print(f"\n{time.perf_counter() - BEGAN:.0f} s in all")


if __name__ == "__main__":
    main()
