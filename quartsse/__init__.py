"""quartsse: a DynamoDB table, live in any number of browsers."""

__version__ = "0.1.0"
