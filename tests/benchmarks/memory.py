"""How much memory and time a training takes: `python tests/benchmarks/memory.py [--only NAMES] [--picture FILE.svg]`.

By the number of images, their size, the number of classes and of jobs. A point is a whole command of one epoch, with
its page, in a process of its own, next to one that trains the bare network on a ready batch. Images are random bytes in
a NumPy file, uint8 [N, C, H, W], which is mapped into memory.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

# Neither torch nor images in here: until a new process runs its program, its peak is that of the one that starts it.

HERE = Path(__file__).parent
MB = 1e6
BARE = """
import sys, torch
from torch import nn
from torchvision.models import resnet18
name, batch, channels, side, classes = sys.argv[1], *map(int, sys.argv[2:])
if name == "mlp":
    sizes = [channels * side**2, 300, 100]
    layers = [part for one, other in zip(sizes, sizes[1:]) for part in (nn.Linear(one, other), nn.ReLU())]
    network = nn.Sequential(nn.Flatten(), *layers, nn.Linear(100, classes))
else:
    network = resnet18(num_classes=classes).to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
images, labels = torch.randn(batch, channels, side, side), torch.arange(batch) % classes
images = images.to(memory_format=torch.channels_last)
for _ in range(5):
    loss = nn.functional.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


@dataclass(frozen=True)
class Point:
    """A training of one epoch on images of a shape; `jobs` of them at a time, with a seed each."""

    network: str
    images: int
    batch: int = 1024
    channels: int = 3
    side: int = 32
    classes: int = 10
    jobs: int = 1

    @property
    def data(self) -> int:
        """Bytes of all images."""
        return self.images * self.channels * self.side**2


NETWORKS = {"mlp": ["model=mlp"], "resnet18": ["model=torchvision", "model.architecture=resnet18"]}
AXES = {
    "images": [Point("mlp", number) for number in (10**3, 10**4, 10**5, 10**6)] + [Point("mlp", 10**7, channels=1)],
    "size": [Point("resnet18", 400, batch=32, side=side) for side in (32, 64, 128, 224)],
    "classes": [Point("mlp", 20_000, classes=classes) for classes in (10, 100, 1000)],
    "jobs": [Point("mlp", 100_000, jobs=jobs) for jobs in (1, 2)],
}


WRITE = """
import sys, numpy
shape = tuple(map(int, sys.argv[2:]))
pixels, draws = numpy.lib.format.open_memmap(sys.argv[1], "w+", numpy.uint8, shape), numpy.random.default_rng(0)
for first in range(0, len(pixels), 2**12):
    pixels[first : first + 2**12] = draws.integers(256, size=pixels[first : first + 2**12].shape, dtype=numpy.uint8)
"""


@dataclass(frozen=True)
class Measured:
    """What a point took: megabytes, and seconds of processors, which say the same on a busy machine."""

    bare: float
    memory: float
    processor: float
    training: float


def measure(point: Point, folder: Path) -> Measured:
    """Return what a point takes; its images are written where they are not there."""
    shape = tuple(map(str, (point.images, point.channels, point.side, point.side)))
    file = folder / f"{'x'.join(shape)}.npy"
    if not file.exists():
        subprocess.run([sys.executable, "-c", WRITE, str(file), *shape], check=True)
    batch = min(point.batch, point.images * 8 // 10)
    bare, _ = peak([sys.executable, "-c", BARE, point.network, *map(str, (batch, *shape[1:3], point.classes))])
    with TemporaryDirectory() as outputs:
        words = [
            f"plugins={HERE / 'mapped.py'}", "data=mapped", f"data.file={file}", f"data.num_classes={point.classes}",
            *NETWORKS[point.network], f"batch_size={batch}", "epochs=1", "device=cpu",
            *(["-m", f"seeds={point.jobs}", f"jobs={point.jobs}"] if point.jobs > 1 else []),
        ]  # fmt: skip
        memory, processor = peak([sys.executable, "-m", "cnnbench", *words], os.environ | {"CNNBENCH_OUTPUTS": outputs})
        results = [json.loads(path.read_text()) for path in Path(outputs).rglob("result.json")]
        return Measured(bare, memory, processor, max(result["seconds"]["train"] for result in results))


def peak(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Return the most megabytes that a process and its own ones had in memory, and the seconds that they computed.

    What they share counts once, as it is spread over them; this is read ten times a second. The peak of a process that
    is alone is exact.
    """
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    sums, is_over = [0.0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.1):
            family = family_of(process.pid)
            if len(family) > 1:
                sums.append(sum(map(proportional, family)))

    watching = threading.Thread(target=watch)
    watching.start()
    _, status, usage = os.wait4(process.pid, 0)
    is_over.set()
    watching.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return max(usage.ru_maxrss * 1024 / MB, *sums), usage.ru_utime + usage.ru_stime


def family_of(root: int) -> list[int]:
    """Return a process and all that it, or one of these, has started."""
    children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            children[int(path.read_text().rpartition(")")[2].split()[1])].append(int(path.parent.name))
        except OSError:  # it is over
            continue
    family = [root]
    for one in family:
        family += children[one]
    return family


def proportional(process: int) -> float:
    """Return the megabytes of a process, where others share them only its part."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / MB


def draw(rows: dict[str, list[tuple[Point, Measured]]], file: Path) -> None:
    """Draw memory and time by the number of images."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text: a third of the size
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    points = [(point, measured) for point, measured in rows["images"] if point.channels == 3]
    numbers = [point.images for point, _ in points]
    for label, values in (
        ("cnnbench", [measured.memory for _, measured in points]),
        ("data + 1.3 × bare network", [limit(*row) for row in points]),
        ("data", [point.data / MB for point, _ in points]),
    ):
        left.plot(numbers, values, marker=".", label=label)
    for label, values in (
        ("whole command, of processors", [measured.processor for _, measured in points]),
        ("training part", [measured.training for _, measured in points]),
    ):
        right.plot(numbers, values, marker=".", label=label)
    for axes, what in ((left, "peak memory, MB"), (right, "seconds")):
        axes.set(xscale="log", yscale="log", xlabel="images of 3×32×32", ylabel=what)
        axes.minorticks_off()
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def limit(point: Point, measured: Measured) -> float:
    """Return the megabytes that are aimed at."""
    return point.jobs * (point.data / MB + 1.3 * measured.bare)


def row(point: Point, measured: Measured) -> str:
    size, images = f"{point.channels}×{point.side}×{point.side}", f"{point.images:,}".replace(",", " ")
    cells = [point.network, images, size, str(point.classes), str(point.jobs)]
    cells += [f"{number:.0f}" for number in (point.data / MB, measured.bare, measured.memory)]
    cells += [
        f"{measured.memory / limit(point, measured):.2f}",
        f"{measured.processor:.1f}",
        f"{measured.training:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=AXES, default=[*AXES], metavar="NAME")
    parser.add_argument(
        "--most", type=float, default=1e6, help="images; more need disk: 31 GB for 10 million in colour"
    )
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--in", dest="folder", type=Path, help="keeps the files of images")
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load {load:.1f}; MB and seconds\n")
    columns = (
        "network",
        "images",
        "size",
        "classes",
        "jobs",
        "data",
        "bare network",
        "cnnbench",
        "÷ aim",
        "processor s",
        "training s",
    )
    print(f"| {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) - 1)}")
    rows = defaultdict(list)
    with TemporaryDirectory() as scratch:
        folder = (chosen.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for axis in chosen.only:
            for point in (one for one in AXES[axis] if one.images <= chosen.most):
                measured = measure(point, folder)
                rows[axis].append((point, measured))
                print(row(point, measured), flush=True)
    if chosen.picture is not None and rows["images"]:
        draw(rows, chosen.picture)


if __name__ == "__main__":
    main()
