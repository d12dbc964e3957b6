"""A run by what is said of it, with the plugins that it was trained with."""

from collections.abc import Sequence
from os import PathLike

from cnnbench.analysis.run import Run
from cnnbench.data.prepare import read_anew
from cnnbench.plugins import register_everything
from cnnbench.store.folder import RunFolder
from cnnbench.store.lookup import run_named, word_of


def load_run(path: str | PathLike[str], plugins: str | Sequence[str] = ()) -> Run:
    """Return a run: by its folder, by one opened before, as `last`, or by a part of its path.

    plugins: Python files that register what it was trained with. Raises UserError if there is no such run.
    """
    read_anew()
    return opened(run_named(word_of(path)), plugins)


def opened(folder: RunFolder, plugins: str | Sequence[str] = ()) -> Run:
    """Return the run of a folder, with the data that this process has read, if it has."""
    modules = register_everything(plugins)  # before the settings of what they register are read
    return Run(folder, folder.run_config(), modules)
