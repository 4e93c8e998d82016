"""What the commands share at a terminal: a line of progress, and headers given as options."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress_line(*, shown: bool) -> Iterator[Callable[[str], None]]:
    """A line on stderr that is written again and again; nothing where nobody watches."""
    if not shown:
        yield lambda _: None
        return
    try:
        yield lambda text: click.echo(f"\r\033[K{text}", nl=False, err=True)
    finally:
        click.echo("\r\033[K", nl=False, err=True)


def header(text: str) -> tuple[str, str]:
    """A header written as `Name: value`. Raises click.BadParameter."""
    name, separator, value = text.partition(":")
    if not separator:
        raise click.BadParameter(f"{text!r} is no header: expected 'Name: value'", param_hint="--header")
    return name.strip(), value.strip()
