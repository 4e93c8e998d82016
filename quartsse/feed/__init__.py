"""The feed: what DynamoDB says, turned into changes and handed to the hub. The only room with boto3."""
