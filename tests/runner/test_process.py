"""The runtime process in bad times: crashes, hangs, interrupts, dying parents. Nothing hangs and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from runner_models import affine, dense, endless, save

from irc.errors import RunnerError
from irc.runner import Runner
from irc.runner.process import one_line

FEED = {"x": np.float32([1])}
FOREVER = {"turns": np.array(2**60), "x": np.float32([1])}


@pytest.fixture
def runner() -> Iterator[Runner]:
    with Runner(threads=1) as runner:
        yield runner


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_crash_during_a_run_names_the_signal_and_the_next_run_works(runner: Runner, name: str) -> None:
    good, bad = runner.open(affine()), runner.open(endless())
    threading.Timer(0.3, os.kill, (runner.process.pid, getattr(signal, name))).start()
    with pytest.raises(RunnerError, match=f"died in 'run': {name}") as caught:
        bad.run(FOREVER)
    assert caught.value.crashed
    assert ("out of memory" in str(caught.value)) == (name == "SIGKILL")
    assert good.run(FEED)["y"].tolist() == [3], "models are opened again without notice"
    assert bad.run({"turns": np.array(1), "x": np.float32([0])})["y"].tolist() == [1]


def test_a_crash_between_two_runs_goes_unnoticed(runner: Runner) -> None:
    opened, other = runner.open(affine()), runner.open(dense())
    pid = runner.process.pid
    os.kill(pid, signal.SIGKILL)
    # Its first thread may be gone while others still end; only then can it be waited for.
    assert eventually(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    assert opened.run(FEED)["y"].tolist() == [3]
    other.close()
    opened.close()


def test_models_of_different_processes_are_brought_into_one(runner: Runner) -> None:
    first, second = runner.open(affine()), runner.open(affine(3.0))
    runner.process.kill()
    second.run(FEED)
    (found,) = runner.compare(first, second, [FEED])
    assert found.max_error == 1.0
    runner.process.kill()
    assert [len(times) for times in runner.latency([first, second], [FEED], seconds=0.01)] != [0, 0]


def test_the_last_words_of_the_library_are_in_the_message(runner: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    opened = runner.open(endless())
    # The library writes to the descriptors of the process, here through /proc, and none of it reaches the console.
    with Path(f"/proc/{runner.process.pid}/fd/1").open("a") as stdout:
        stdout.write("to stdout\n")
    with Path(f"/proc/{runner.process.pid}/fd/2").open("a") as stderr:
        stderr.write("terminate called: bad_alloc\n\n")
    threading.Timer(0.2, os.kill, (runner.process.pid, signal.SIGABRT)).start()
    with pytest.raises(RunnerError, match=r"SIGABRT.*last words: terminate called: bad_alloc"):
        opened.run(FOREVER)
    assert capfd.readouterr() == ("", "")


def test_a_hang_ends_with_the_timeout(runner: Runner) -> None:
    opened = runner.open(endless())
    start = time.monotonic()
    with pytest.raises(RunnerError, match="no answer within 1 s") as caught:
        runner.process.call("run", opened.handle, FOREVER, None, timeout=1)
    assert caught.value.crashed
    assert time.monotonic() - start < 5
    assert opened.run({"turns": np.array(0), "x": np.float32([5])})["y"].tolist() == [5]


def test_what_cannot_be_sent_does_not_confuse_the_next_answer(runner: Runner) -> None:
    opened = runner.open(affine())
    with pytest.raises((AttributeError, TypeError, RunnerError)):
        opened.run({"x": lambda: None})
    assert opened.run(FEED)["y"].tolist() == [3]


def test_threads_may_share_a_runner(runner: Runner) -> None:
    models = [runner.open(affine(scale)) for scale in (1.0, 2.0, 3.0, 4.0)]
    wrong: list[object] = []

    def use(index: int) -> None:
        for i in range(50):
            found = models[index].run({"x": np.full(1000, i, np.float32)})["y"]
            if not np.array_equal(found, np.full(1000, i * (index + 1) + 1, np.float32)):
                wrong.append((index, i))

    threads = [threading.Thread(target=use, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_close_ends_the_process_and_removes_its_files() -> None:
    runner = Runner()
    opened = runner.open(dense(600))
    pid, folder = runner.process.pid, runner.process.folder
    assert list(folder.iterdir())
    runner.close()
    runner.close()
    assert not alive(pid) and not folder.exists()
    opened.close()
    with pytest.raises(RunnerError, match="closed"):
        runner.open(affine())


def test_a_forgotten_runner_takes_its_process_along() -> None:
    runner = Runner()
    runner.open(affine())
    pid, folder = runner.process.pid, runner.process.folder
    del runner
    assert eventually(lambda: not alive(pid)) and not folder.exists()


def test_the_process_starts_without_the_compilers_imports(runner: Runner) -> None:
    code = (
        "import sys, irc.runner.worker; print([m for m in ('onnx', 'onnx_ir', 'torch', 'sympy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    runner.open(affine())
    assert 0 < runner.process.start_seconds < 10


def test_a_module_of_the_working_folder_does_not_shadow_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "random.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    with Runner() as runner:
        assert runner.open(affine()).run(FEED)["y"].tolist() == [3]


def test_a_process_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libfoo.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    with Runner() as runner, pytest.raises(RunnerError, match=r"libfoo\.so is missing") as caught:
        runner.open(affine())
    assert caught.value.crashed


SCRIPT = """
    import os, sys, time
    import numpy as np
    from irc.runner import Runner
    runner = Runner(threads=1)
    opened = runner.open(sys.argv[1])
    print(runner.process.pid, runner.process.folder, flush=True)
    {then}
"""
ENDLESS_RUN = 'opened.run({"turns": np.array(2**60), "x": np.float32([1])})'


def start_script(tmp_path: Path, then: str) -> tuple[subprocess.Popen[str], int, Path]:
    model = save(endless(), tmp_path / "endless.onnx")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(then=then))
    parent = subprocess.Popen(
        [sys.executable, str(script), str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pid, folder = parent.stdout.readline().split()
    return parent, int(pid), Path(folder)


@pytest.mark.parametrize("then", [ENDLESS_RUN, "time.sleep(100)"], ids=["running", "idle"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_dying_compiler_leaves_no_process_and_no_files(tmp_path: Path, then: str, how: signal.Signals) -> None:
    parent, pid, folder = start_script(tmp_path, then)
    time.sleep(0.2)
    assert alive(pid)
    # To the whole group, as a terminal does.
    os.killpg(parent.pid, how)
    parent.wait(10)
    assert eventually(lambda: not alive(pid))
    assert eventually(lambda: not folder.exists())
    if how is signal.SIGINT:
        assert parent.stderr.read().rstrip().endswith("KeyboardInterrupt")


def test_a_fork_of_the_compiler_ends_without_taking_the_process_along(tmp_path: Path) -> None:
    then = 'print(os.fork() and os.wait() and opened.run({"turns": np.array(0), "x": np.float32([7])})["y"][0], flush=True)'
    parent, pid, folder = start_script(tmp_path, then)
    out, err = parent.communicate(timeout=60)
    assert out.split()[-1] == "7.0", err
    assert eventually(lambda: not alive(pid)) and not folder.exists()


def test_one_line_is_bounded() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert len(one_line("x" * 10_000)) == 400
