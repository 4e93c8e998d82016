# What the service reads, as the two things that must agree: the permissions of its role and the settings that name
# the same tables. There is no action here that changes anything.

terraform {
  required_version = ">= 1.9"
}

variable "sentiments_table_arn" {
  description = "The sentiment table's ARN."
  type        = string
}

variable "index" {
  description = "Its index by sentiment and timestamp."
  type        = string
}

variable "users_table_arn" {
  description = "The users table's ARN; null: no configuration streams."
  type        = string
}

variable "users_keys" {
  description = "The users table's hash and range key."
  type        = list(string)
}

variable "stream_arn" {
  description = "The sentiment table's stream, when that is the source; null: the index is queried."
  type        = string
  default     = null
}

variable "kms_key_arns" {
  description = "Keys of the tables' own, when they are encrypted with a customer's key."
  type        = list(string)
}

locals {
  region = split(":", var.sentiments_table_arn)[3]

  # The service asks with boto3's low-level client: `query`, `get_item`, `batch_get_item`, and the three of a stream.
  index = [{
    Sid      = "QueryTheIndex"
    Effect   = "Allow"
    Action   = ["dynamodb:Query"]
    Resource = ["${var.sentiments_table_arn}/index/${var.index}"]
  }]
  users = [for arn in compact([var.users_table_arn]) : {
    Sid       = "ReadConfigurations"
    Effect    = "Allow"
    Action    = ["dynamodb:BatchGetItem", "dynamodb:GetItem"]
    Resource  = [arn]
    Condition = { "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["USER#*"] } }
  }]
  stream = [for arn in compact([var.stream_arn]) : {
    Sid      = "ReadTheStream"
    Effect   = "Allow"
    Action   = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
    Resource = [arn]
  }]
  keys = [for arns in [var.kms_key_arns] : {
    Sid       = "DecryptTheTables"
    Effect    = "Allow"
    Action    = ["kms:Decrypt"]
    Resource  = arns
    Condition = { StringEquals = { "kms:ViaService" = ["dynamodb.${local.region}.amazonaws.com"] } }
  } if length(arns) > 0]
}

output "statements" {
  description = "The statements of the role's policy."
  value       = concat(local.index, local.users, local.stream, local.keys)
}

output "tables" {
  description = "Those of the statements that are about tables, for an endpoint's policy."
  value       = concat(local.index, local.users)
}

output "environment" {
  description = "The settings that name the same tables; null is for the service's own default."
  value = {
    SENTIMENTS_TABLE = split("/", var.sentiments_table_arn)[1]
    SSE_INDEX        = var.index
    USERS_TABLE      = var.users_table_arn == null ? null : split("/", var.users_table_arn)[1]
    SSE_USERS_KEYS   = var.users_table_arn == null ? null : join(",", var.users_keys)
    SSE_SOURCE       = var.stream_arn == null ? "query" : "streams"
    SSE_STREAM_ARN   = var.stream_arn
  }
}
