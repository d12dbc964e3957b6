"""Public import path for reading exported files: `from cnnbench.export.formats import network_in`."""
