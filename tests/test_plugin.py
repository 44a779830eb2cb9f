"""A pass from somebody else's distribution, installed for real, is found, runs and is verified as our own are."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import onnx.parser
import pytest

SOURCE = Path(__file__).parent / "plugin"
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
repeats (float[N, 4] x) => (float[N, 4] z) {
  a = Relu (x)
  b = Relu (a)
  c = Neg (b)
  d = Floor (c)
  z = Floor (d)
}
"""


def install(source: Path, target: Path) -> None:
    """Installs a distribution into a folder of its own, without looking anything up outside this machine."""
    try:
        recent = int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        recent = False
    if not recent:
        pytest.skip("setuptools 77 or newer is not installed in this environment")
    options = [
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--no-compile",
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)],
        check=True,
        capture_output=True,
        text=True,
    )


def python(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder the plugin is installed in."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(
        SOURCE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    )
    install(source, folder / "site")
    return folder / "site"


def test_runs_by_name_through_the_pass_manager(site: Path, tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(GRAPH), tmp_path / "repeats.onnx")
    script = f"""
import irc
from irc.pass_base import Context
model = irc.load({str(tmp_path / "repeats.onnx")!r})
result = irc.PassManager(["collapse-repeats{{operators=Relu+Floor}}"]).run(model, Context())
print([node.op_type for node in result.model.graph], [value.name for value in result.model.graph.outputs])
print([entry.site for entry in result.ledger["collapse-repeats"].rewritten], result.ledger.verification_runs)
"""
    done = python("-c", script, path=site)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['Relu', 'Neg', 'Floor'] ['z']", "['b', 'z'] 1"]


def test_runs_from_the_command_line(site: Path, tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(GRAPH), tmp_path / "repeats.onnx")
    done = python(
        "-m",
        "irc",
        "optimize",
        str(tmp_path / "repeats.onnx"),
        "--passes",
        "collapse-repeats{operators=Floor}",
        path=site,
    )
    assert done.returncode == 0, done.stderr
    written = onnx.load(tmp_path / "repeats.irc.onnx")
    assert [node.op_type for node in written.graph.node] == ["Relu", "Relu", "Neg", "Floor"]


def test_is_listed_beside_ours(site: Path) -> None:
    done = python("-m", "irc", "passes", path=site)
    assert done.returncode == 0, done.stderr
    assert "collapse-repeats" in done.stdout
    assert "fold-batch-norm" in done.stdout


def test_option_refused_by_the_pass_is_a_usage_error(site: Path, tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(GRAPH), tmp_path / "repeats.onnx")
    done = python(
        "-m",
        "irc",
        "optimize",
        str(tmp_path / "repeats.onnx"),
        "--passes",
        "collapse-repeats{operators=Neg}",
        path=site,
    )
    assert done.returncode == 2
    assert "'Neg', which is not idempotent" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "repeats.irc.onnx").exists()


def test_two_distributions_with_one_name_are_both_named(site: Path, tmp_path: Path) -> None:
    rival = tmp_path / "rival"
    rival.mkdir()
    metadata = (SOURCE / "pyproject.toml").read_text(encoding="utf-8")
    metadata = metadata.replace("irc-collapse-repeats", "irc-rival").replace("collapse_repeats", "rival_repeats")
    (rival / "pyproject.toml").write_text(metadata, encoding="utf-8")
    shutil.copy(SOURCE / "collapse_repeats.py", rival / "rival_repeats.py")
    install(rival, tmp_path / "site")
    shutil.copytree(site, tmp_path / "site", dirs_exist_ok=True)
    done = python("-m", "irc", "passes", path=tmp_path / "site")
    assert done.returncode == 2
    for name in ("collapse-repeats", "irc-collapse-repeats 1.2.3", "irc-rival 1.2.3"):
        assert name in done.stderr
