"""The two tables as they really are: made where there is none, in an emulator or in an account to try things in."""

from quartsse.tools.emulator import Client

INDEX = "by_sentiment"
EXPIRY = "ttl"


def create_sentiments(client: Client, name: str, *, index: str = INDEX, expiry: str | None = EXPIRY) -> None:
    """Make the sentiment table and wait until it can be used.

    `expiry` is the attribute by which items expire (Unix seconds); None for an emulator that has no expiry.
    """
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=_keys("source_id", "timestamp"),
        AttributeDefinitions=_strings("source_id", "timestamp", "sentiment"),
        GlobalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": _keys("sentiment", "timestamp"),
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    _wait(client, name)
    if expiry is not None:
        client.update_time_to_live(TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": expiry})


def create_users(client: Client, name: str) -> None:
    """Make the users table and wait until it can be used."""
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=_keys("PK", "SK"),
        AttributeDefinitions=_strings("PK", "SK"),
    )
    _wait(client, name)


def _keys(hashed: str, ranged: str) -> list[dict[str, str]]:
    return [{"AttributeName": hashed, "KeyType": "HASH"}, {"AttributeName": ranged, "KeyType": "RANGE"}]


def _strings(*names: str) -> list[dict[str, str]]:
    return [{"AttributeName": name, "AttributeType": "S"} for name in names]


def _wait(client: Client, name: str) -> None:
    """Half a minute at most: an emulator has a table at once, an account takes some seconds."""
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 0.25, "MaxAttempts": 120})
