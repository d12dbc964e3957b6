"""Where `network_in` is imported from by who uses an exported file; what it does is in `cnnbench.analysis.export`."""

from cnnbench.analysis.export.formats import network_in

__all__ = ["network_in"]
