"""What the demo does besides serving, for `docker compose up`: the tables, the users' configurations, and the news."""

# ruff: noqa: INP001 - a script, mounted into a container

import os
import socket
import threading
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

from quartsse.tools import emulator
from quartsse.tools.demo import GROWTH, SENTIMENTS, USERS, DemoOptions, configuration_records
from quartsse.tools.news import Newsroom, Writer
from quartsse.tools.tables import create_sentiments, create_users

PATIENCE = 60.0
"""Seconds until the emulator has to answer."""


def wait_for(endpoint: str) -> None:
    """Return when somebody listens there. Raises TimeoutError."""
    address = urlsplit(endpoint)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            socket.create_connection((address.hostname or "", address.port or 80), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"{endpoint} does not answer")


def fill(endpoint: str, options: DemoOptions) -> Writer:
    """Make the tables, if they are not there yet, and what is in them; returns who goes on writing."""
    client = emulator.connect(endpoint)
    for create, table in ((create_sentiments, SENTIMENTS), (create_users, USERS)):
        try:
            create(client, table)
        except client.exceptions.ResourceInUseException:
            continue  # this container was started again
    for record in configuration_records():
        client.put_item(TableName=USERS, Item=record)
    writer = Writer(client, SENTIMENTS, Newsroom(options.seed), options.rate, most=options.items + GROWTH)
    writer.seed(datetime.now(UTC), options.items)
    return writer


def main() -> None:
    """Write until the container ends."""
    endpoint = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
    wait_for(endpoint)
    fill(endpoint, DemoOptions()).run(threading.Event())


if __name__ == "__main__":
    main()
