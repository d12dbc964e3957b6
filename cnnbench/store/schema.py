"""What files of a run and of a sweep look like: the types of what is read. Other entries may stand there too."""

from base64 import b64decode
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt

Texts = list[str]
Metrics = dict[str, float | None]
Size = Annotated[list[NonNegativeInt], Field(min_length=3, max_length=3)]


class Stored(BaseModel):
    """Base: an entry that is missing is noticed when it is asked for, since each version wrote some more."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class DataRecord(Stored):
    """What a run records of its data."""

    fingerprint: str = ""
    classes: Texts = []
    size: Size | None = None
    window: Size | None = None
    mean: list[float] = []
    std: list[float] = []
    images: dict[str, int] = {}
    licence: str = ""
    citation: str = ""


class ParentRecord(Stored):
    """The run that another one continues."""

    folder: str = ""
    run: str | None = None


class Labels(Stored):
    """What users call a run."""

    name: str | None = None
    notes: str | None = None
    tags: Texts | None = None


class StoredRemark(Stored):
    """What a run may have meant otherwise, and the setting or part that it comes from."""

    about: str
    text: str


class Record(Stored):
    """`run.json`."""

    identity: str = ""
    status: str = ""
    command: str = ""
    started: str = ""
    ended: str | None = None
    error: str | None = None
    config: dict[str, Any] | None = None
    choices: dict[str, str] = {}
    origins: dict[str, str] = {}
    labels: Labels = Labels()
    departures: Texts = []
    notes: Texts = []
    remarks: list[StoredRemark] = []
    randomness: Texts = []
    damage: Texts = []
    checkpoints_removed: str = ""
    accepted: Texts = []
    plugins: Texts = []
    loggers: dict[str, str] | None = None
    code: dict[str, str] = {}
    sources: dict[str, str] = {}
    parent: ParentRecord | None = None
    init: dict[str, Any] = {}
    data: DataRecord = DataRecord()
    split: str = ""
    seconds: float = 0.0
    step: int = 0
    threads: int | None = None
    test_measured: int = 0
    sessions: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    packages: Texts = []
    memory: dict[str, int] = {}
    git: dict[str, Any] | None = None
    parameters: dict[str, int] = {}


class Rows(Stored):
    """How many rows were written, and their hash."""

    count: NonNegativeInt
    sha256: str


class Tested(Stored):
    """The checkpoint that a result is of."""

    epoch: int = 0
    step: int = 0
    kind: str = ""
    chosen: str = ""


class Result(Stored):
    """`result.json`."""

    identity: str = ""
    checkpoint: Tested
    train: Metrics = {}
    val: Metrics = {}
    test: Annotated[Metrics, Field(min_length=1)] | None = None  # not measured yet
    epochs: int = 0
    stopped_early: bool = False
    parameters: dict[str, int] = {}
    references: list[dict[str, Any]] = []
    watched: list[Annotated[list[str | bool], Field(min_length=2, max_length=2)]] = []
    higher_is_better: dict[str, bool] = {}
    reached: dict[str, str | float | None] | None = None
    departures: Texts = []
    seconds: dict[str, float] = {}
    images_per_second: float = 0.0
    notes: Texts = []
    remarks: list[StoredRemark] = []
    rows: Rows | None = None


def _whole_hashes(text: str) -> str:
    if len(b64decode(text, validate=True)) % 8:
        raise ValueError("its length is not that of whole hashes")
    return text


class SplitFile(Stored):
    """`split.json`: rows of the images of each split in their source, and the labels that are wrong on purpose.

    hashes: of the images that train and validate, 8 bytes each, little-endian, in base64; `train_before`, `val_before`:
    of others that the initial weights were trained and validated on. unknown_before: runs of which that is not known.
    """

    sha256: str = ""
    images_per_class: dict[str, list[int]] = {}
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    wrong_labels: dict[str, int] = {}
    hashes: dict[str, Annotated[str, AfterValidator(_whole_hashes)]] = {}
    unknown_before: Texts = []


class Best(Stored):
    """The best validation, as a manifest names it."""

    epoch: int
    step: int
    metrics: Metrics


class Manifest(Stored):
    """`checkpoints/step-N.json`."""

    format: int
    step: NonNegativeInt
    epoch: NonNegativeInt
    bytes: NonNegativeInt
    sha256: str
    file: str = ""
    identity: str = ""
    seconds: float = 0.0
    best: Best | None = None
    rows: Rows | None = None


class Job(Stored):
    """A job of a sweep; its folder is below that of all runs. number: from which run of this identity on it counts.

    after: the identity of the job whose run it begins with.
    """

    folder: str | None
    identity: str = ""
    command: str = ""
    number: int = 1
    after: str = ""


class Sweep(Stored):
    """`outputs/sweeps/NAME/sweep.json`; of earlier versions, `outputs/sweeps/NAME.json`."""

    jobs: list[Job]
    command: str | None = None
    started: str = ""
    cwd: str = ""
    threads: int = 1
    max_minutes: float | None = None
    at_once: int | None = 1
    plugins: Texts = []


class FrozenPlan(Stored):
    """`jobs/IDENTITY.json` of a sweep: a run as it was planned at launch."""

    identity: str
    config: dict[str, Any]
    command: str
    choices: dict[str, str]
    origins: dict[str, str] = {}
    typed: dict[str, str] = {}
    notes: Texts = []
    plugins: Texts = []
    code: dict[str, str] = {}
    rerun: bool = False


class Claim(Stored):
    """`claims/IDENTITY.N` of a sweep: who works on a job, or did, for the n-th time, and how that ended."""

    host: str
    process: int
    birth: str
    began: str
    ended: str | None = None
    outcome: str = ""
    reason: str = ""
