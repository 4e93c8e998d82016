# One image function behind a URL that streams: as many environments as there are viewers, and none without viewers.

locals {
  arn       = split(":", var.sentiments_table_arn)
  partition = local.arn[1]
  region    = local.arn[3]
  account   = local.arn[4]
  name      = "${var.name}-${var.environment}"

  # Known before anything is made, so that the repository's policy need not wait for the function.
  function_arn = "arn:${local.partition}:lambda:${local.region}:${local.account}:function:${local.name}"

  # Every setting that a variable of this root's says; null is for the service's own default.
  own_settings = merge(module.reader.environment, {
    ENVIRONMENT            = var.environment
    LOG_LEVEL              = var.log_level
    SSE_POLL_INTERVAL      = tostring(var.poll_interval)
    SSE_HEARTBEAT_INTERVAL = tostring(var.heartbeat_interval)
    SSE_MAX_STREAM_AGE     = tostring(var.max_stream_age)
    SSE_DEADLINE_MARGIN    = tostring(var.deadline_margin)
    SSE_CORS_ORIGINS       = length(var.cors_origins) == 0 ? null : join(",", var.cors_origins)
    SSE_AUTH               = var.auth
    SSE_JWT_JWKS_URL       = var.jwt_jwks_url
    SSE_JWT_KEY            = var.jwt_key
    SSE_JWT_ISSUER         = var.jwt_issuer
    SSE_JWT_AUDIENCE       = var.jwt_audience
    SSE_TICKET_SECRET      = var.ticket_secret
    SSE_METRICS            = "emf"
    SSE_TRACING            = "xray"
    # The image says these three as well. Without them streams are buffered, and an error counts as ready.
    AWS_LWA_INVOKE_MODE                    = "response_stream"
    AWS_LWA_READINESS_CHECK_PATH           = "/health"
    AWS_LWA_READINESS_CHECK_HEALTHY_STATUS = "200-299"
    # CloudFront signs what it sends with the Authorization header, so a viewer's own has to come by another.
    AWS_LWA_AUTHORIZATION_SOURCE = var.way_in == "cloudfront" ? "X-App-Authorization" : null
  })
  environment = merge(var.settings, { for name, value in local.own_settings : name => value if value != null })
}

module "reader" {
  source               = "../modules/reader"
  sentiments_table_arn = var.sentiments_table_arn
  index                = var.index
  users_table_arn      = var.users_table_arn
  users_keys           = var.users_keys
  kms_key_arns         = var.kms_key_arns
}

module "repository" {
  source              = "../modules/repository"
  name                = local.name
  lambda_function_arn = local.function_arn
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:log lines hold no item, no token and no ticket; CloudWatch's own encryption is enough
  #checkov:skip=CKV_AWS_338:how long is a variable; a year of stream logs is seldom worth its price
  name              = "/aws/lambda/${local.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_117:function URLs do not stream from within a VPC, and DynamoDB needs none
  #checkov:skip=CKV_AWS_116:a dead-letter queue is for asynchronous invocations; a stream is a synchronous one
  #checkov:skip=CKV_AWS_173:Lambda encrypts the variables with its own key; a key of one's own is another cost and permission
  #checkov:skip=CKV_AWS_272:code signing is for zip archives; an image is pinned by its digest
  function_name                  = local.name
  description                    = "Event streams of ${split("/", var.sentiments_table_arn)[1]}"
  role                           = aws_iam_role.this.arn
  package_type                   = "Image"
  image_uri                      = "${module.repository.url}@${var.image_digest}"
  architectures                  = [var.architecture]
  memory_size                    = var.memory_size
  timeout                        = var.timeout
  reserved_concurrent_executions = var.concurrency
  publish                        = true

  environment {
    variables = local.environment
  }

  tracing_config {
    mode = "Active"
  }

  depends_on = [aws_cloudwatch_log_group.this, aws_iam_role_policy.this]
}

# What the way in points at. A release publishes a version and moves this; a roll-back moves it back.
resource "aws_lambda_alias" "live" {
  name             = "live"
  description      = "What viewers reach"
  function_name    = aws_lambda_function.this.function_name
  function_version = aws_lambda_function.this.version
}
