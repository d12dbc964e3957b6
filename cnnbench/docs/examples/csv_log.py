# csv_log.py
from cnnbench.registry import LOGGERS
from cnnbench.training.loggers.base import Logger


@LOGGERS.register("csv_log")
class CsvLog(Logger):
    """A file log.csv in the run folder: step, name, value."""

    def begin(self, run, known_as):  # run: .folder, .settings, …; may return a name, which is known_as when it goes on
        self.file = (run.folder / "log.csv").open("a", encoding="utf-8")

    def scalars(self, values, step):
        self.file.writelines(f"{step},{name},{value}\n" for name, value in values.items())

    def end(self, status, files):  # image, flush and result may be defined as well
        self.file.close()
