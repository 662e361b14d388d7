"""Nothing leaves the machine: what runs the models is kept from reporting its use."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import MODELS, ROOT

OPENVINO = pytest.param(
    "openvino",
    marks=pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino"),
)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", OPENVINO])
def test_the_runtimes_leave_no_identifiers_and_no_reports(runtime: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # Without what a CI sets: there the runtimes are silent of themselves.
    environment = {
        "HOME": str(home), "PYTHONPATH": str(ROOT), "RERANK_PREPARED": str(tmp_path / "prepared"),
    }  # fmt: skip
    command = [
        *(sys.executable, "-m", "rerank_cli", "--runtime", runtime, "-m", str(MODELS / "bert")),
        *("refund", "-d", "one", "-d", "another"),
    ]
    process = subprocess.run(
        command, env=environment, capture_output=True, cwd=tmp_path, check=False
    )
    assert process.returncode == 0, process.stderr
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_the_hub_is_told_nothing_of_this_machine() -> None:
    code = (
        "import rerank_cli.models.hub; from huggingface_hub import constants;"
        "print(constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.stdout == "True\n"
