"""From the process's start to a stream's first byte: `make bench-start`, or `python -m tests.bench.cold_start`.

The service, with a table that cannot be reached, beside a bare Quart app under Hypercorn that streams one line: both
from compiled bytecode, turn by turn, medians of the runs. Wall clock says what a viewer waits for, here and now; the
CPU seconds are what holds on a busy machine. Prints a table, or JSON with `--json`.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from quartsse.tools.emulator import environment

NOWHERE = "http://127.0.0.1:9"
REQUEST = b"GET /api/v2/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
PATIENCE = 30.0
BARE = """
import asyncio, sys
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart
app = Quart(__name__, static_folder=None)
@app.get("/api/v2/stream")
async def stream():
    async def body():
        yield b"retry: 3000\\n\\n"
        await asyncio.sleep(60)
    return body(), {"Content-Type": "text/event-stream"}
config = Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
config.errorlog = None
asyncio.run(serve(app, config))
"""
SERVED = "quartsse.__main__, quartsse.web.server, quartsse.service"

type Figures = dict[str, float]


def service(port: int) -> list[str]:
    """The command of the service; its port is in the environment."""
    del port
    return [sys.executable, "-m", "quartsse", "serve"]


def bare(port: int) -> list[str]:
    """The command of the bare app."""
    return [sys.executable, "-c", BARE, str(port)]


def start(command: Sequence[str], port: int, env: Mapping[str, str]) -> Figures:
    """Start a server, open a stream. Milliseconds from the start until it listens and until the first byte is here."""
    began = time.perf_counter()
    with subprocess.Popen(command, env={**env, "PORT": str(port)}) as process:
        try:
            with connected(port, process) as connection:
                listens, listens_cpu = time.perf_counter() - began, cpu_seconds(process.pid)
                connection.sendall(REQUEST)
                said = b""
                while b"retry:" not in said:
                    more = connection.recv(65536)
                    if not more:
                        raise RuntimeError(f"no stream, but {said!r}")
                    said += more
                first, first_cpu = time.perf_counter() - began, cpu_seconds(process.pid)
        finally:
            process.kill()
    return {
        "listens_ms": listens * 1000,
        "listens_cpu_ms": listens_cpu * 1000,
        "first_byte_ms": first * 1000,
        "first_byte_cpu_ms": first_cpu * 1000,
    }


def connected(port: int, process: subprocess.Popen[bytes]) -> socket.socket:
    """A connection to a server that is just starting."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        except ConnectionRefusedError:
            time.sleep(0.001)
    raise RuntimeError("the server does not listen")


def cpu_seconds(pid: int) -> float:
    """CPU that the threads of a process have had so far, to the nanosecond (Linux, sched-stats.txt)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def imports(env: Mapping[str, str]) -> Figures:
    """Milliseconds that each library's modules take, without what they import in turn: the largest ones."""
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {SERVED}"],
        env=env, stderr=subprocess.PIPE, text=True, check=True,
    ).stderr  # fmt: skip
    libraries: Counter[str] = Counter()
    for line in said.splitlines():
        own, _, module = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            libraries[module.strip().partition(".")[0]] += int(own)
    return {name: round(spent / 1000, 1) for name, spent in libraries.most_common(12)}


def interpreter(env: Mapping[str, str]) -> float:
    """Milliseconds of CPU that Python itself takes to start."""
    done = "import time; print(time.process_time())"
    said = subprocess.run([sys.executable, "-c", done], env=env, stdout=subprocess.PIPE, check=True).stdout
    return float(said) * 1000


def medians(runs: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return {name: round(median(run[name] for run in runs), 1) for name in runs[0]}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def measure(runs: int) -> dict[str, object]:
    """Everything, after one start of each that compiles its bytecode."""
    with tempfile.TemporaryDirectory() as bytecode:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SSE_"))}
        env |= environment(NOWHERE) | {
            "SENTIMENTS_TABLE": "news",
            "LOG_LEVEL": "ERROR",
            "PYTHONPYCACHEPREFIX": bytecode,
            "PYDANTIC_DISABLE_PLUGINS": "__all__",
        }
        commands = {"quartsse": service, "bare": bare}
        measured: dict[str, list[Figures]] = {name: [] for name in commands}
        for turn in range(runs + 1):
            for name, command in commands.items():
                figures = start(command(port := free_port()), port, env)
                if turn:
                    measured[name].append(figures)
        whole = {name: medians(figures) for name, figures in measured.items()}
        return {
            "runs": runs,
            "interpreter_cpu_ms": round(median(interpreter(env) for _ in range(runs)), 1),
            "imports_ms": imports(env),
            **whole,
            "ratio_cpu": round(whole["quartsse"]["first_byte_cpu_ms"] / whole["bare"]["first_byte_cpu_ms"], 2),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures = measure(asked.runs)
    if asked.json:
        print(json.dumps(figures, indent=1))
        return
    for name, figure in figures.items():
        told = figure.items() if isinstance(figure, dict) else [("", figure)]
        print(f"{name:20}", "  ".join(f"{what} {value}".strip() for what, value in told))


if __name__ == "__main__":
    main()
