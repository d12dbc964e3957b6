"""What there is of the data sets on this machine; nothing is fetched."""

from pathlib import Path

from cnnbench.config.schema import DataConfig
from cnnbench.data.files import Source, data_root, missing
from cnnbench.data.prepare import PreparedData, prepare
from cnnbench.errors import UserError
from cnnbench.registry import DATASETS


def source_of(name: str) -> Source | None:
    """Return the files that a data set is read from, or None where it needs none."""
    source = DATASETS[name].facts.get("source")
    assert source is None or isinstance(source, Source)
    return source


def missing_files(name: str, root: Path) -> list[str]:
    """Return the names of the files that a data set lacks."""
    source = source_of(name)
    return [] if source is None else missing(source, root / source.folder)


def prepare_what_is_there(config: DataConfig) -> PreparedData:
    """Prepare a data set without fetching it. Raises UserError where files are missing, or as preparing does."""
    root, source = data_root(config.root), source_of(config.name)
    lacking = missing_files(config.name, root)
    if source is not None and lacking:
        raise UserError(
            f"{source.title} is not in {root / source.folder}: missing are {', '.join(lacking)}.\n"
            f"  to bring it: cnnbench-data prepare {config.name} --from FOLDER; or let a training download it\n"
            f"  another folder: data.root=FOLDER, or the environment variable CNNBENCH_DATA"
        )
    return prepare(config)
