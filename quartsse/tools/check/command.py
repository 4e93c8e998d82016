"""The command: chooses what to look at, tells findings as they come, and ends with a status that sums them up."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

import click

from quartsse.errors import SettingsError
from quartsse.settings import Settings, settings_from
from quartsse.tools.check.aws import Look
from quartsse.tools.check.report import Progress, Report, Style, Told, printable
from quartsse.tools.check.server import Asked, Visit
from quartsse.tools.terminal import header, progress_line


@click.command()
@click.argument("url", required=False)
@click.option(
    "-s", "--seconds", default=35.0, show_default=True, type=click.FloatRange(1, 3600), help="How long to watch URL."
)
@click.option(
    "--heartbeat", default=30.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Seconds between heartbeats."
)
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header to send to URL.")
@click.option("--origin", help="A page's origin that should be able to read URL, as https://app.example.com.")
@click.option("--limit", default=0, type=click.IntRange(0, 10_000), help="Open up to so many streams until refused.")
@click.option(
    "--units", default=200.0, show_default=True, type=click.FloatRange(1), help="Read units for the table's window."
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--strict", is_flag=True, help="End with status 1 on warnings too.")
@click.option("-v", "--verbose", is_flag=True, help="Show every setting, also those by default.")
@click.option("--no-color", envvar="NO_COLOR", is_flag=False, flag_value="1", default="", help="No colours.")
def check(
    url: str | None,
    seconds: float,
    heartbeat: float,
    headers: tuple[str, ...],
    origin: str | None,
    limit: int,
    units: float,
    no_color: str,
    *,
    as_json: bool,
    strict: bool,
    verbose: bool,
) -> None:
    """Look at what `quartsse serve` would meet here; or, with URL, at a running server, any that sends events.

    The first takes the settings of the environment and only reads. Status 0: all well; 1: something failed; 2: wrong
    settings or options.
    """
    report = Report(url or "the settings of this environment")
    style = None if as_json else _style(plain=bool(no_color))
    with progress_line(shown=sys.stderr.isatty()) as progress:
        if url is None:
            settings = _settings(as_json=as_json)
            found = Look(settings, units=units, verbose=verbose, progress=progress, facts=report.facts).run()
        else:
            asked = Asked(url, seconds, heartbeat, dict(map(header, headers)), origin, limit)
            found = Visit(asked, progress=progress, facts=report.facts).run()
        _listen(found, report, style, progress)
    click.echo(json.dumps(report.document(strict=strict)) if style is None else f"\n{style.summary(report)}")
    sys.exit(report.status(strict=strict))


def _listen(found: AsyncGenerator[Told], report: Report, style: Style | None, progress: Progress) -> None:
    """Tell each finding as soon as it is there. Ctrl-C ends it, with what was found so far."""

    async def listen() -> None:
        if style is not None:
            click.echo(f"quartsse check: {printable(report.subject)}")
        async with aclosing(found):
            async for told in found:
                report.take(told)
                if style is not None:
                    progress("")
                    click.echo("\n".join(style.lines(told)))

    try:
        asyncio.run(listen())
    except KeyboardInterrupt:
        report.interrupted = True


def _settings(*, as_json: bool) -> Settings:
    """The settings; ends the program with status 2 if `quartsse serve` would refuse them."""
    try:
        settings = settings_from()
        asyncio.run(_made_of(settings))
    except SettingsError as error:
        if as_json:
            click.echo(json.dumps({"status": 2, "error": str(error), "findings": []}))
        click.echo(f"quartsse: {error}", err=True)
        click.echo("`quartsse check URL` looks at a running server; `quartsse settings` lists all settings", err=True)
        sys.exit(2)
    return settings


async def _made_of(settings: Settings) -> None:
    """Make the parts as a start does: some settings are only judged there. Raises SettingsError."""
    from quartsse.service import make_parts, make_private

    make_private(settings, make_parts(settings))


def _style(*, plain: bool) -> Style:
    """Colours and folded lines at a terminal only, signs where they can be written."""
    if not sys.stdout.isatty():
        return Style()
    signs = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return Style(not plain, signs, shutil.get_terminal_size().columns - 1)
