"""A DynamoDB of one's own: moto's server as a program (`python -m quartsse.tools.emulator`), and how to talk to it.

It takes a free port on the loopback address and prints its address as its only line. Everything is kept in memory.
"""

import importlib.util
import json
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

REGION = "eu-west-1"
COMMAND = (sys.executable, "-m", "quartsse.tools.leash", "quartsse.tools.emulator")
"""Starts it as a child that ends with its parent; wants a pipe as standard input."""

ITEM_BYTES = 1024
"""What an item is taken to weigh when read units are counted."""

type Client = Any
"""A low-level boto3 client; its methods exist at run time only."""


def installed() -> bool:
    """Whether moto is there with what its server needs."""
    return all(importlib.util.find_spec(name) for name in ("moto", "flask", "flask_cors"))


def environment(endpoint: str) -> dict[str, str]:
    """The variables with which a process finds this DynamoDB and nothing else of AWS's.

    Without the account mode botocore would send streams requests to a host named for the account.
    """
    return {
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
        "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def connect(endpoint: str, service: str = "dynamodb") -> Client:
    """A client that reads and writes there, whatever the environment says about AWS."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # noqa: S106 (any will do)
        config=Config(
            connect_timeout=2,
            read_timeout=10,
            retries={"mode": "standard", "total_max_attempts": 2},
            proxies={},
            account_id_endpoint_mode="disabled",
        ),
    )


def main() -> None:
    """Serve until ended by a signal."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = mended(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


type Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
"""A WSGI application (PEP 3333)."""


def mended(application: Application) -> Application:
    """Moto with three things mended.

    Its tables are plain dictionaries and a Query walks them: so each request is answered alone. It says that every
    Query costs one read unit, and a budget would bound nothing: so units are counted. And two thirds of a Query's
    time go into looking for each type of value in each attribute: so those pass as they are, in DynamoDB's own JSON.
    """
    from moto.core.utils import get_service_model
    from werkzeug.wrappers import Response

    get_service_model("dynamodb")._service_description["shapes"]["AttributeValue"]["document"] = True

    turn = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with turn:
            response = Response.from_app(application, environ, buffered=True)
        if response.status_code == 200 and environ.get("HTTP_X_AMZ_TARGET", "").endswith(".Query"):
            _count_units(response)
        return response(environ, start_response)

    return answer


def _count_units(response: Any) -> None:
    """Put the units of an eventually consistent Query into its answer: half a one for each 4 KiB."""
    body = json.loads(response.get_data())
    if "ConsumedCapacity" not in body:
        return
    body["ConsumedCapacity"]["CapacityUnits"] = max(1, math.ceil(body["ScannedCount"] * ITEM_BYTES / 4096)) / 2
    response.set_data(json.dumps(body, separators=(",", ":")))
    response.headers.pop("x-amz-crc32", None)  # of the body as it was


if __name__ == "__main__":
    main()
