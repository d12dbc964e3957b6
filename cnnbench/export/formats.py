"""The public import path of `network_in`; the code is in `cnnbench.analysis.export`."""

from cnnbench.analysis.export.formats import network_in

__all__ = ["network_in"]
