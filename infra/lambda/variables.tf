# Two are required: what is read, and the image that reads it.

variable "sentiments_table_arn" {
  description = "The sentiment table's ARN. The function is made in its account and region."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:[0-9]{12}:table/[A-Za-z0-9_.-]+$", var.sentiments_table_arn))
    error_message = "Expected a table's ARN: arn:aws:dynamodb:<region>:<account>:table/<name>."
  }
}

variable "image_digest" {
  description = "The image in this root's repository, by its digest (sha256:…): a tag can move, a digest cannot."
  type        = string

  validation {
    condition     = can(regex("^sha256:[0-9a-f]{64}$", var.image_digest))
    error_message = "Expected sha256: and 64 hexadecimal digits, as the push printed it."
  }
}

variable "name" {
  description = "What everything made here is called, together with the environment."
  type        = string
  default     = "quartsse"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*$", var.name)) && length("${var.name}-${var.environment}") <= 32
    error_message = "Expected a-z, 0-9 and -, and with the environment no more than 32 characters: AWS's bound for some names."
  }
}

variable "environment" {
  description = "Which of several installations this is; a dimension of the metrics."
  type        = string
  default     = "dev"

  validation {
    condition     = can(regex("^[a-z0-9-]{1,20}$", var.environment))
    error_message = "Expected 1-20 characters a-z, 0-9 or -."
  }
}

# What is read

variable "index" {
  description = "The sentiment table's index by sentiment and timestamp."
  type        = string
  default     = "by_sentiment"
}

variable "users_table_arn" {
  description = "The users table's ARN. Without it there are no configuration streams."
  type        = string
  default     = null
}

variable "users_keys" {
  description = "The users table's hash and range key."
  type        = list(string)
  default     = ["PK", "SK"]

  validation {
    condition     = length(var.users_keys) == 2
    error_message = "Expected two names."
  }
}

variable "kms_key_arns" {
  description = "Keys of the tables, when they are encrypted with keys of one's own."
  type        = list(string)
  default     = []
}

variable "poll_interval" {
  description = "Seconds between reads of the index. Every viewer is a reader of its own here."
  type        = number
  default     = 5
}

# The way in

variable "way_in" {
  description = "`url`: the function's own URL, open to everyone; `cloudfront`: only a distribution may call the URL."
  type        = string
  default     = "url"

  validation {
    condition     = contains(["url", "cloudfront"], var.way_in)
    error_message = "Expected `url` or `cloudfront`."
  }
}

variable "cors_origins" {
  description = "The exact origins whose pages may read the streams."
  type        = list(string)
  default     = []
}

variable "origin_read_timeout" {
  description = "Seconds without a byte after which CloudFront gives a stream up. 1 to 120; more needs a quota increase."
  type        = number
  default     = 60

  validation {
    condition     = var.origin_read_timeout >= 1 && var.origin_read_timeout <= 120
    error_message = "CloudFront takes 1 to 120 seconds."
  }
}

variable "domain" {
  description = "A name of one's own for the distribution, with its certificate in us-east-1."
  type        = object({ name = string, certificate_arn = string })
  default     = null

  validation {
    condition     = var.domain == null || var.way_in == "cloudfront"
    error_message = "Only a distribution can have a name of its own: set way_in to cloudfront."
  }
}

variable "web_acl_arn" {
  description = "A WAF ACL (scope CLOUDFRONT) for the distribution. It counts requests, not open streams."
  type        = string
  default     = null
}

# Who the user is

variable "auth" {
  description = "Who says who the user is: `jwt`, a token that the service verifies; `header`, whoever calls (X-User-ID)."
  type        = string
  default     = null

  validation {
    condition     = var.auth == null || contains(["jwt", "header"], coalesce(var.auth, "jwt"))
    error_message = "Expected `jwt` or `header`."
  }

  validation {
    condition     = var.users_table_arn == null || var.auth != null
    error_message = "With a users table it must be said who the user is: set auth."
  }

  validation {
    condition     = var.auth != "header" || var.trust_user_header_from_anyone
    error_message = "Both ways in are public and hand X-User-ID on as the caller wrote it: with auth = \"header\" anybody can be any user. Use jwt, or set trust_user_header_from_anyone if that is what you want."
  }

  validation {
    condition     = var.auth != "jwt" || (var.jwt_jwks_url == null) != (var.jwt_key == null)
    error_message = "auth = \"jwt\" needs either jwt_jwks_url or jwt_key, and not both."
  }
}

variable "trust_user_header_from_anyone" {
  description = "Let every caller of the internet say who they are, by the header X-User-ID. For trying things out."
  type        = bool
  default     = false
}

variable "jwt_jwks_url" {
  description = "Where the keys of whoever issues the tokens are."
  type        = string
  default     = null
}

variable "jwt_key" {
  description = "The key itself, when there is no key set."
  type        = string
  default     = null
  sensitive   = true
}

variable "jwt_issuer" {
  description = "Who must have issued a token."
  type        = string
  default     = null
}

variable "jwt_audience" {
  description = "Whom a token must be for."
  type        = string
  default     = null
}

variable "ticket_secret" {
  description = "Signs the tickets that let a browser's EventSource open a configuration's stream. At least 32 bytes."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.ticket_secret == null || length(coalesce(var.ticket_secret, "none")) >= 32
    error_message = "At least 32 bytes."
  }
}

# Time

variable "timeout" {
  description = "Seconds that one invocation may take: the longest a stream can be. Lambda's own bound is 900."
  type        = number
  default     = 900

  validation {
    condition     = var.timeout >= 60 && var.timeout <= 900
    error_message = "60 to 900 seconds."
  }
}

variable "deadline_margin" {
  description = "Seconds before the end of an invocation that a stream is ended, so that its last event arrives."
  type        = number
  default     = 5

  validation {
    condition     = var.deadline_margin >= 2
    error_message = "At least 2 seconds: what is cut off instead of ended is lost, and the environment with it."
  }
}

variable "max_stream_age" {
  description = "Seconds after which a stream is ended. Lambda does not hear a viewer leave: this is what that costs at most."
  type        = number
  default     = 300

  validation {
    condition     = var.max_stream_age > 0 && var.max_stream_age <= var.timeout - var.deadline_margin
    error_message = "More than 0, and at most timeout less deadline_margin: an invocation that times out ends its environment."
  }
}

variable "heartbeat_interval" {
  description = "Seconds between heartbeats."
  type        = number
  default     = 25

  validation {
    condition     = 2 * var.heartbeat_interval < var.origin_read_timeout
    error_message = "Twice the heartbeat must fit into origin_read_timeout: one may be late."
  }

  validation {
    condition     = var.heartbeat_interval < var.max_stream_age
    error_message = "A stream must live to see its second heartbeat: less than max_stream_age."
  }
}

# Size and cost

variable "memory_size" {
  description = "MB of memory; the processor's share goes with it. Below 512 the start takes too long."
  type        = number
  default     = 512

  validation {
    condition     = var.memory_size >= 256 && var.memory_size <= 10240
    error_message = "256 to 10240 MB."
  }
}

variable "architecture" {
  description = "`arm64` or `x86_64`: what the image was built for."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "Expected `arm64` or `x86_64`."
  }
}

variable "concurrency" {
  description = "How many invocations may run at once. One viewer is one of them, so this caps both viewers and bill."
  type        = number
  default     = 25

  validation {
    condition     = var.concurrency >= 1
    error_message = "At least 1: -1 would lift the cap, and 0 would switch the function off."
  }
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30
}

variable "log_level" {
  description = "DEBUG, INFO, WARNING or ERROR."
  type        = string
  default     = "INFO"
}

variable "alarm_actions" {
  description = "ARNs that are told of alarms, such as an SNS topic's."
  type        = list(string)
  default     = []
}

variable "settings" {
  description = "More settings of the service, by the names of their environment variables."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setintersection(keys(var.settings), keys(local.own_settings))) == 0
    error_message = "Some of these are said by variables of their own: ${join(", ", setintersection(keys(var.settings), keys(local.own_settings)))}."
  }
}
