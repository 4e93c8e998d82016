"""The tables are as the real ones, and the tests' verbs do to them what the real system does."""

from typing import Any

import pytest

from quartsse.tools import emulator
from tests.dynamodb import SECRET, Tables, record

QUERY: dict[str, Any] = {
    "IndexName": "by_sentiment",
    "KeyConditionExpression": "#sentiment = :sentiment",
    "ExpressionAttributeNames": {"#sentiment": "sentiment"},
    "ReturnConsumedCapacity": "TOTAL",
}


@pytest.fixture(params=["table", "dynalite_table"])
def either(request: pytest.FixtureRequest) -> Tables:
    """The tables at one implementation, then at the other."""
    tables = request.getfixturevalue(request.param)
    assert isinstance(tables, Tables)
    return tables


def query(tables: Tables, sentiment: str, **more: Any) -> dict[str, Any]:
    values = {":sentiment": {"S": sentiment}}
    answer = tables.client.query(TableName=tables.sentiments, **QUERY, ExpressionAttributeValues=values, **more)
    assert isinstance(answer, dict)
    return answer


def found(tables: Tables, sentiment: str) -> list[str]:
    return [item["source_id"]["S"] for item in query(tables, sentiment)["Items"]]


def keys(schema: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(key["AttributeName"], key["KeyType"]) for key in schema]


def test_the_sentiment_table_has_its_keys_and_its_whole_index(either: Tables) -> None:
    described = either.client.describe_table(TableName=either.sentiments)["Table"]
    (index,) = described["GlobalSecondaryIndexes"]
    assert keys(described["KeySchema"]) == [("source_id", "HASH"), ("timestamp", "RANGE")]
    assert index["IndexName"] == "by_sentiment"
    assert keys(index["KeySchema"]) == [("sentiment", "HASH"), ("timestamp", "RANGE")]
    assert index["Projection"]["ProjectionType"] == "ALL"


def test_the_sentiment_table_has_a_stream_with_both_images_and_expires_items(table: Tables) -> None:
    described = table.client.describe_table(TableName=table.sentiments)["Table"]
    expiry = table.client.describe_time_to_live(TableName=table.sentiments)["TimeToLiveDescription"]
    assert described["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert (expiry["AttributeName"], expiry["TimeToLiveStatus"]) == ("ttl", "ENABLED")


def test_the_users_table_has_its_keys(either: Tables) -> None:
    described = either.client.describe_table(TableName=either.users)["Table"]
    assert keys(described["KeySchema"]) == [("PK", "HASH"), ("SK", "RANGE")]


async def test_an_item_is_in_the_index_only_once_it_is_analysed(either: Tables) -> None:
    key = await either.put("tiingo:1", "AAPL", age=21_600)
    assert found(either, "positive") == []
    await either.analyse(key, "positive")
    assert found(either, "positive") == ["tiingo:1"]


async def test_a_second_analysis_moves_an_item_and_a_deletion_takes_it_away(either: Tables) -> None:
    key = await either.put("tiingo:1", sentiment="positive")
    await either.analyse(key, "negative", score=-0.4, confidence=0.9)
    assert (found(either, "positive"), found(either, "negative")) == ([], ["tiingo:1"])
    await either.delete(key)
    assert found(either, "negative") == []


async def test_an_item_says_what_it_was_given_and_carries_secrets(table: Tables) -> None:
    await table.put("tiingo:1", "KO", "V", published="2026-01-02T03:04:05Z", sentiment="neutral", sources=["a", "b"])
    (item,) = query(table, "neutral")["Items"]
    assert item["timestamp"] == {"S": "2026-01-02T03:04:05Z"}
    assert item["matched_tickers"] == {"L": [{"S": "KO"}, {"S": "V"}]}
    assert item["sources"] == {"L": [{"S": "a"}, {"S": "b"}]}
    assert item["score"] == {"N": "0.8"}
    assert "confidence" not in item
    assert all(SECRET in item[name]["S"] for name in ("headline", "text"))


async def test_configurations_come_and_go(either: Tables) -> None:
    await either.configure("alice", "mine", "AAPL", name="Apples")
    (written,) = either.client.scan(TableName=either.users)["Items"]
    assert (written["PK"], written["SK"]) == ({"S": "USER#alice"}, {"S": "CONFIG#mine"})
    assert written["tickers"] == {"L": [{"M": {"symbol": {"S": "AAPL"}}}]}
    await either.unconfigure("alice", "mine")
    assert either.client.scan(TableName=either.users)["Count"] == 0


async def test_a_query_costs_by_what_it_reads(table: Tables) -> None:
    await table.fill([record(sentiment="positive", age=second) for second in range(60)])
    assert query(table, "negative")["ConsumedCapacity"]["CapacityUnits"] == 0.5
    assert query(table, "positive")["ConsumedCapacity"]["CapacityUnits"] == 7.5
    assert query(table, "positive", Limit=20)["ConsumedCapacity"]["CapacityUnits"] == 2.5


async def test_the_stream_tells_of_an_analysis_with_both_images(table: Tables) -> None:
    await table.analyse(await table.put("tiingo:1"), "negative")
    streams = emulator.connect(table.endpoint, "dynamodbstreams")
    arn = table.client.describe_table(TableName=table.sentiments)["Table"]["LatestStreamArn"]
    (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    place = streams.get_shard_iterator(StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
    inserted, modified = streams.get_records(ShardIterator=place["ShardIterator"])["Records"]
    assert (inserted["eventName"], modified["eventName"]) == ("INSERT", "MODIFY")
    assert "sentiment" not in modified["dynamodb"]["OldImage"]
    assert modified["dynamodb"]["NewImage"]["sentiment"] == {"S": "negative"}
    streams.close()


def test_a_process_finds_the_tables_by_its_environment(table: Tables) -> None:
    environment = table.environment()
    assert (
        environment["AWS_ENDPOINT_URL_DYNAMODB"] == environment["AWS_ENDPOINT_URL_DYNAMODB_STREAMS"] == table.endpoint
    )
    assert environment["AWS_ACCOUNT_ID_ENDPOINT_MODE"] == "disabled"
    assert environment["AWS_EC2_METADATA_DISABLED"] == "true"
    assert (environment["SENTIMENTS_TABLE"], environment["USERS_TABLE"]) == (table.sentiments, table.users)
