"""The processes that compare pairs: a launcher that has imported Math-Verify, and workers that it forks.

`python -m ngrpo.grading.worker FD` is started by pool.py with a socket at FD and imports neither torch nor numpy. It
answers two requests, so that a killed worker costs a fork and not another import of sympy (0.7 s):
    {"start": {"memory_mb": …}} with one end of a socket attached → {"pid": …}
    {"stop": pid} → {"status": "signal 9"}                         (kills and reaps: a pid can't be reused before)
A worker reads one JSON line a pair and writes one JSON line back, until it is killed or its socket closes. It can't
write files or dump core, has a limit of memory, and dies with the launcher, as the launcher does with its parent.
"""

import ctypes
import gc
import json
import os
import resource
import signal
import socket
import sys

from ngrpo.grading.comparison import math_verify_all_boxes_verdict, math_verify_verdict
from ngrpo.grading.second import second_verdict

_PR_SET_PDEATHSIG = 1
KERNEL_FACTOR = 8  # pool.py kills at memory_mb; the kernel refuses at KERNEL_FACTOR times as much
# One of each shape: the parser and sympy build their tables as they meet new ones, and forked workers inherit them.
WARM_UP = (
    (r"\frac{1}{2}", "0.5"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{3})"),
    (r"x^2+2x-7", "(x+1)^2-8"),
    (r"2\sqrt{3}+1", r"\sqrt{12}"),
    (r"[-2,7)", r"(-\infty,7]\cup\{3\}"),
    (r"\begin{pmatrix} -1/3 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ("y = 2x + 1", "5x - 7y = 0"),
    (r"50\%", r"1,\, 2"),
    (r"\text{Evelyn}", r"10\text{ cm}^2"),
    (r"\cos 2x", "x < 3"),
)


def _limit_resources(memory_mb: int) -> None:
    """Limit the address space to what there is plus KERNEL_FACTOR × memory_mb; no files written, no core dumps."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with open("/proc/self/statm", "rb") as f:
        pages = int(f.read().split()[0])
    size = pages * resource.getpagesize() + KERNEL_FACTOR * memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(jobs: socket.socket) -> None:
    """Grade pairs, one JSON line each (pool.Pair → [equal, reason, out of memory]), until the socket closes."""
    stream = jobs.makefile("rw", encoding="ascii", newline="\n")
    reply: list[bool | str | None]
    for line in stream:
        gold, answer, way, tolerance, sets_equal_relations = json.loads(line)
        try:
            if way == "second":
                reply = [second_verdict(gold, answer), None, False]
            else:
                compare = math_verify_verdict if way == "math_verify" else math_verify_all_boxes_verdict
                reply = [*compare(gold, answer, tolerance, sets_equal_relations), False]
        except MemoryError:
            reply = [False, "out of memory", True]
        except Exception as error:  # noqa: BLE001  whatever a comparison raises is reported as a grader error
            reply = [False, f"{type(error).__name__}: {error}"[:300], False]
        stream.write(json.dumps(reply) + "\n")
        stream.flush()


def _fork_worker(jobs_fd: int, control: socket.socket, memory_mb: int) -> int:
    pid = os.fork()
    if pid:
        os.close(jobs_fd)
        return pid
    status = 1
    try:
        control.close()
        _limit_resources(memory_mb)
        _serve(socket.socket(fileno=jobs_fd))
        status = 0
    finally:
        os._exit(status)  # never return into the launcher's loop


def _stop_worker(pid: int) -> str:
    """Kill and reap a worker; how it had ended, if it had."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return "stopped"
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"


def launch(control: socket.socket) -> None:
    """Answer start and stop requests until the parent closes the socket; then kill what is left."""
    for pair in WARM_UP:
        math_verify_verdict(*pair)
        second_verdict(*pair)
    gc.freeze()
    running: set[int] = set()
    reply: dict[str, int | str]
    control.send(b"{}")
    while True:
        message, fds, _, _ = socket.recv_fds(control, 4096, 1)
        if not message:
            break
        request = json.loads(message)
        if "start" in request:
            pid = _fork_worker(fds[0], control, request["start"]["memory_mb"])
            running.add(pid)
            reply = {"pid": pid}
        else:
            running.discard(request["stop"])
            reply = {"status": _stop_worker(request["stop"])}
        control.send(json.dumps(reply).encode())
    for pid in running:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    launch(socket.socket(fileno=int(sys.argv[1])))
