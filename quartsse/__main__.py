"""The commands."""

import gc
import logging
import sys
from importlib import import_module
from typing import NoReturn

import click

from quartsse import __version__
from quartsse.errors import SettingsError


class _Commands(click.Group):
    """The commands; what only one of them needs is imported when that one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Those that are here, and those that are elsewhere."""
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(f"quartsse.tools.{_ELSEWHERE[cmd_name]}"), cmd_name)
        return command


_ELSEWHERE = {"check": "check.command", "contract": "reference", "cost": "cost", "load": "load", "tail": "tail"}
"""The commands that are functions of that name in a module of the tools."""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quartsse")
def main() -> None:
    """A live DynamoDB table in front of many browsers."""


@main.command()
def serve() -> None:
    """Serve the streams, with the settings of the environment."""
    gc.disable()  # until the start is over, which leaves no garbage: a tenth of a cold start's time
    from quartsse.settings import settings_from
    from quartsse.telemetry.logs import log_to_stderr
    from quartsse.web.server import allow_files, event_loop, listening_socket

    try:
        settings = settings_from()
        log_to_stderr(settings.log_level)
        allow_files()
        sock = listening_socket(settings.host, settings.port)
    except (SettingsError, ValueError) as error:
        _refuse(error)
    from quartsse.service import serve as run

    try:
        with sock, event_loop() as runner:
            runner.run(run(settings, sock))
    except SettingsError as error:
        _refuse(error)
    logging.shutdown()


def _refuse(error: Exception) -> NoReturn:
    """Say in one line which setting is wrong, and end."""
    click.echo(f"quartsse: {error}", err=True)
    sys.exit(2)


@main.command()
@click.option("--port", default=8080, envvar="DEMO_PORT", show_default=True, help="The page's port.")
@click.option("--rate", default=1.5, show_default=True, help="News items per second.")
@click.option("--seed", type=int, help="A number that makes the run reproducible.")
@click.option("--items", default=600, show_default=True, help="Items of the last 24 hours to begin with.")
def demo(port: int, rate: float, seed: int | None, items: int) -> None:
    """Show it on this machine: a table, news, the service and its page."""
    from quartsse.tools.demo import DemoOptions, run

    sys.exit(run(DemoOptions(port=port, rate=rate, seed=seed, items=items)))


@main.command()
def settings() -> None:
    """Print every setting, as docs/settings.md has them."""
    from quartsse.settings import documented

    click.echo(documented(), nl=False)


if __name__ == "__main__":
    main()
