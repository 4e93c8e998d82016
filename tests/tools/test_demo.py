"""The demo as its user runs it: a command, a page that is live, and nothing left when it ends."""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from quartsse.settings import settings_from
from quartsse.tools import demo, emulator
from tests.processes import alive, children_of, clean_environment, eventually, free_port

DEMO = [sys.executable, "-W", "error", "-m", "quartsse", "demo"]


class Running:
    """A demo that is ready: what it printed, and its processes."""

    def __init__(self, process: subprocess.Popen[str], text: str, seconds: float) -> None:
        self.process = process
        self.text = text
        self.seconds = seconds
        self.url = re.findall(r"the page +(http://127\.0\.0\.1:\d+)/", text)[0]
        self.children = children_of(process.pid)

    def ended(self) -> tuple[int, str]:
        """Wait for its end: the exit status and what it wrote to standard error; and none of its processes is left."""
        _, errors = self.process.communicate(timeout=15)
        assert eventually(lambda: not any(map(alive, self.children)), 7)
        return self.process.returncode, errors

    def child(self, module: str) -> int:
        """The child that runs a module."""
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in self.children}
        return next(pid for pid, command in commands.items() if module in command)


@contextmanager
def started(*options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process group of its own, as a terminal starts it."""
    with subprocess.Popen(
        [*DEMO, *options],
        env=clean_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running(*options: str, **environment: str) -> Iterator[Running]:
    """The demo once it is ready; a small one on a free port."""
    began = time.monotonic()
    with started("--port", "0", "--items", "60", *options, **environment) as process:
        assert process.stdout is not None
        text = ""
        while "Ctrl-C" not in text:
            line = process.stdout.readline()
            assert line, process.communicate()
            text += line
        yield Running(process, text, time.monotonic() - began)


def get(url: str, **headers: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
        return json.load(response)


def total(url: str) -> int:
    return int(get(f"{url}/api/v2/stream/snapshot")["metrics"]["total"])


def first_events(command: str) -> str:
    """What a line to copy shows in its first seconds."""
    shown = subprocess.run(["sh", "-c", f"{command} -s -m 2"], capture_output=True, text=True, check=False)
    return shown.stdout


def test_it_is_ready_within_five_seconds_with_a_full_window() -> None:
    with running("--items", "600") as shown:
        assert shown.seconds < 5
        assert total(shown.url) >= 595
        with urllib.request.urlopen(f"{shown.url}/", timeout=10) as page:
            assert page.headers.get_content_type() == "text/html"


def test_the_lines_to_copy_show_the_streams() -> None:
    with running() as shown:
        everything, filtered = re.findall(r"curl -N .*", shown.text)
        assert "event: metrics" in first_events(everything)
        events = first_events(filtered)
        assert set(re.findall(r'"ticker":"(\w+)"', events)) == {"AAPL", "MSFT"}


def test_news_keeps_coming() -> None:
    with running("--rate", "20") as shown:
        before = total(shown.url)
        assert eventually(lambda: total(shown.url) > before, 20)


def test_its_users_have_configurations() -> None:
    with running() as shown:
        for user, config_id, name, tickers in demo.CONFIGURATIONS:
            snapshot = get(f"{shown.url}/api/v2/configurations/{config_id}/snapshot", **{"X-User-ID": user})
            assert snapshot["configuration"] == {"config_id": config_id, "name": name, "tickers": list(tickers)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_parent_ends_everything_in_silence(number: signal.Signals) -> None:
    with running() as shown:
        assert len(shown.children) == 2
        shown.process.send_signal(number)
        assert shown.ended() == (0, "")


def test_ctrl_c_in_a_terminal_ends_everything_in_silence() -> None:
    """A terminal sends SIGINT to the whole foreground process group; an impatient user sends it twice."""
    with running() as shown:
        os.killpg(shown.process.pid, signal.SIGINT)
        os.killpg(shown.process.pid, signal.SIGINT)
        assert shown.ended() == (0, "")


def test_only_the_demo_hears_the_terminal_so_that_its_parts_can_end_in_order() -> None:
    with running() as shown:
        assert {os.getpgid(pid) for pid in shown.children}.isdisjoint({os.getpgid(shown.process.pid)})


@pytest.mark.parametrize("after", [0.7, 0.9, 1.1, 1.3])
def test_ctrl_c_while_it_starts_ends_everything_in_silence(after: float) -> None:
    with started("--port", "0") as process:
        time.sleep(after)
        children = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=15)
        assert not any(map(alive, children))
        assert "Traceback" not in errors


def test_killed_it_leaves_no_process_behind() -> None:
    with running() as shown:
        shown.process.kill()
        status, _ = shown.ended()
        assert status == -signal.SIGKILL


@pytest.mark.parametrize(("module", "name"), [("serve", "the service"), ("emulator", "the table")])
def test_a_part_that_dies_ends_the_demo_with_its_name(module: str, name: str) -> None:
    with running() as shown:
        os.kill(shown.child(module), signal.SIGKILL)
        assert shown.ended() == (1, f"quartsse: {name} ended by itself (status -9), and so does the demo\n")


def test_a_taken_port_gives_one_line_that_names_it_and_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started("--port", str(port)) as process:
            _, errors = process.communicate(timeout=15)
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1
    assert all(word in errors for word in (f"port {port}", "--port", "DEMO_PORT"))


def test_the_port_can_come_from_the_environment() -> None:
    port = free_port()
    with started("--items", "10", DEMO_PORT=str(port)) as process:
        assert process.stdout is not None
        assert any(f"http://127.0.0.1:{port}/" in line for line in process.stdout)


def test_without_moto_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "moto" else find(name))
    assert demo.run(demo.DemoOptions(port=0)) == 2
    assert capsys.readouterr().err == "quartsse: the demo needs moto's server: pip install 'quartsse[demo]'\n"


def test_a_wrong_setting_of_the_users_is_named_by_the_service() -> None:
    with started("--port", "0", SSE_HEARTBEAT_INTERVAL="soon") as process:
        _, errors = process.communicate(timeout=15)
    assert process.returncode == 1
    assert "SSE_HEARTBEAT_INTERVAL" in errors.splitlines()[0]


def test_the_service_is_set_up_for_a_demo_and_keeps_the_users_settings() -> None:
    own = {"SSE_POLL_INTERVAL": "7", "LOG_LEVEL": "DEBUG", "SSE_SOURCE": "query"}
    settings = settings_from(demo.service_environment(own, "http://127.0.0.1:1", 8081))
    assert (settings.poll_interval, settings.log_level) == (7, "DEBUG")
    assert (settings.host, settings.port, settings.dashboard, settings.auth) == ("127.0.0.1", 8081, True, "header")
    assert settings.ticket_secret is not None


def test_nothing_of_the_users_aws_reaches_the_service() -> None:
    own = {"AWS_PROFILE": "work", "AWS_SESSION_TOKEN": "x", "AWS_LWA_PORT": "9", "DYNAMODB_TABLE": "theirs"}
    environment = demo.service_environment(own, "http://127.0.0.1:1", 8081)
    assert not own.keys() & environment.keys()
    assert environment.items() >= emulator.environment("http://127.0.0.1:1").items()
