"""Where the configuration files are."""

from pathlib import Path


def conf_dir() -> Path:
    """Return the folder of the configuration files: inside an installed package, beside it in a checkout."""
    here = Path(__file__).resolve().parents[1]
    return next(path for path in (here / "conf", here.parent / "conf") if (path / "config.yaml").is_file())
