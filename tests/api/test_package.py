"""What `import cnnbench` offers, and that it loads nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import cnnbench


def test_the_names_of_the_package_are_its_api():
    assert dir(cnnbench) == sorted([*cnnbench.__all__, "__version__"])
    assert all(getattr(cnnbench, name) is not None for name in cnnbench.__all__)
    documented = cnnbench.__doc__ or ""
    names = {"register_…" if name.startswith("register_") else name for name in cnnbench.__all__}
    assert [name for name in names if not re.search(rf"\b{name}", documented)] == []
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        _ = cnnbench.trane  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import cnnbench; dir(cnnbench); cnnbench.__all__; "
        "print({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "{'cnnbench'}"


def test_types_are_shipped():
    assert (Path(cnnbench.__file__).parent / "py.typed").is_file()
