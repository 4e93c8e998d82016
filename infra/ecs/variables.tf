# Two are required: what is read, and the image that reads it.

variable "sentiments_table_arn" {
  description = "The sentiment table's ARN. The service is made in its account and region."
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

variable "stream_arn" {
  description = "The sentiment table's stream: followed instead of querying the index. For at most two tasks: a shard has no more readers."
  type        = string
  default     = null

  validation {
    condition     = var.stream_arn == null || startswith(coalesce(var.stream_arn, "none"), "${var.sentiments_table_arn}/stream/")
    error_message = "Expected a stream of the sentiment table: <its ARN>/stream/<label>."
  }
}

variable "kms_key_arns" {
  description = "Keys of the tables, when they are encrypted with keys of one's own."
  type        = list(string)
  default     = []
}

variable "poll_interval" {
  description = "Seconds between reads. Null is for the service's own: 2, or 0.5 with a stream."
  type        = number
  default     = null
}

variable "read_budget" {
  description = "Read units that a poll may cost."
  type        = number
  default     = 100
}

# Where it runs

variable "network" {
  description = "A VPC of one's own, with subnets for the load balancer and for the tasks. Without it one is made, with public subnets only and no NAT."
  type = object({
    vpc_id                = string
    vpc_cidr              = string
    load_balancer_subnets = list(string)
    task_subnets          = list(string)
    tasks_have_public_ips = optional(bool, false)
  })
  default = null
}

variable "availability_zones" {
  description = "The zones of the VPC that is made. Null is for the region's a and b."
  type        = list(string)
  default     = null
}

variable "dynamodb_endpoint" {
  description = "Whether the VPC that is made reaches DynamoDB by a gateway endpoint: no NAT, no charge."
  type        = bool
  default     = true
}

# The way in

variable "certificate_arn" {
  description = "The load balancer's certificate. With one it is on the internet, by HTTPS; without one it is internal, by HTTP."
  type        = string
  default     = null
}

variable "idle_timeout" {
  description = "Seconds without a byte after which the load balancer gives a stream up."
  type        = number
  default     = 70

  validation {
    condition     = var.idle_timeout >= 1 && var.idle_timeout < 75
    error_message = "1 to 74: the service keeps a connection for 75 seconds, and a load balancer that keeps it longer sends requests into connections that are closing."
  }
}

variable "deregistration_delay" {
  description = "Seconds that a task which leaves may keep its streams. They hold up every deployment for so long, and end all the same."
  type        = number
  default     = 15

  validation {
    condition     = var.deregistration_delay >= 0 && var.deregistration_delay <= 60
    error_message = "0 to 60 seconds: streams do not end by themselves, so waiting longer only holds up the deployment."
  }
}

variable "deletion_protection" {
  description = "Whether the load balancer is protected from being deleted."
  type        = bool
  default     = true
}

variable "access_logs_bucket" {
  description = "A bucket for the load balancer's access logs."
  type        = string
  default     = null
}

variable "web_acl_arn" {
  description = "A WAF ACL (scope REGIONAL) for the load balancer. It counts requests, not open streams."
  type        = string
  default     = null
}

variable "cors_origins" {
  description = "The exact origins whose pages may read the streams."
  type        = list(string)
  default     = []
}

# Who the user is

variable "auth" {
  description = "Who says who the user is: `jwt`, a token that the service verifies; `header`, a layer in front (X-User-ID)."
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
    condition     = var.auth != "header" || var.certificate_arn == null || var.trust_user_header_from_anyone
    error_message = "A load balancer on the internet hands X-User-ID on as the caller wrote it: with auth = \"header\" anybody can be any user. Use jwt, or set trust_user_header_from_anyone if that is what you want."
  }

  validation {
    condition     = var.auth != "jwt" || (var.jwt_jwks_url == null) != (var.jwt_key_secret_arn == null)
    error_message = "auth = \"jwt\" needs either jwt_jwks_url or jwt_key_secret_arn, and not both."
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

variable "jwt_key_secret_arn" {
  description = "The secret (Secrets Manager) with the key itself, when there is no key set."
  type        = string
  default     = null
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

variable "ticket_secret_arn" {
  description = "The secret (Secrets Manager) that signs the tickets which let a browser's EventSource open a configuration's stream. At least 32 bytes."
  type        = string
  default     = null
}

# Time

variable "heartbeat_interval" {
  description = "Seconds between heartbeats."
  type        = number
  default     = 30

  validation {
    condition     = 2 * var.heartbeat_interval < var.idle_timeout
    error_message = "Twice the heartbeat must fit into idle_timeout: one may be late."
  }
}

variable "drain_seconds" {
  description = "Seconds that the readers of a task which ends are spread over when they come back."
  type        = number
  default     = 10
}

# Size and cost

variable "cpu" {
  description = "A task's processor, in 1/1024 of one."
  type        = number
  default     = 256
}

variable "memory" {
  description = "A task's memory in MB."
  type        = number
  default     = 512
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

variable "max_connections" {
  description = "Streams that one task may hold."
  type        = number
  default     = 2000

  validation {
    condition     = var.max_connections >= 1 && var.max_connections <= 60000
    error_message = "1 to 60000: a task may open 65535 files."
  }
}

variable "min_tasks" {
  description = "Tasks that always run."
  type        = number
  default     = 2

  validation {
    condition     = var.min_tasks >= 1 && var.min_tasks <= var.max_tasks
    error_message = "At least 1, and at most max_tasks."
  }
}

variable "max_tasks" {
  description = "Tasks that run at most: together with max_connections the cap of viewers and bill."
  type        = number
  default     = 4

  validation {
    condition     = var.stream_arn == null || var.max_tasks <= 2
    error_message = "A stream's shards have at most two readers: max_tasks = 2, or query the index."
  }
}

variable "full_at" {
  description = "The share of max_connections at which a further task is started."
  type        = number
  default     = 0.6

  validation {
    condition     = var.full_at > 0 && var.full_at <= 0.8
    error_message = "More than 0 and at most 0.8: a task takes a minute to start, and a full one turns viewers away."
  }
}

variable "tracing" {
  description = "Whether an X-Ray daemon runs beside the service."
  type        = bool
  default     = false
}

variable "xray_image" {
  description = "The X-Ray daemon's image."
  type        = string
  default     = "public.ecr.aws/xray/aws-xray-daemon:3.3.15"
}

variable "container_insights" {
  description = "Whether the cluster sends Container Insights."
  type        = bool
  default     = true
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
