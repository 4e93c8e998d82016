# What must hold of the plan, whatever else changes. Nothing of AWS is asked: the provider is a mock.

mock_provider "aws" {
  mock_resource "aws_ecr_repository" {
    defaults = { repository_url = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/quartsse-dev" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/quartsse-dev" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/quartsse-dev" }
  }
  mock_resource "aws_lambda_alias" {
    defaults = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:quartsse-dev:live" }
  }
  mock_resource "aws_lambda_function_url" {
    defaults = { function_url = "https://abcdefgh.lambda-url.eu-central-1.on.aws/" }
  }
  mock_resource "aws_cloudfront_distribution" {
    defaults = {
      arn         = "arn:aws:cloudfront::123456789012:distribution/E1"
      domain_name = "d1.cloudfront.net"
    }
  }
}

variables {
  sentiments_table_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/sentiments"
  image_digest         = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}

run "two_variables_are_enough" {
  command = apply

  assert {
    condition     = module.watch.missing_data["feed-stale"] == "notBreaching"
    error_message = "Without viewers there is no data, and nothing is wrong."
  }
  assert {
    condition     = toset(keys(module.watch.missing_data)) == toset(["errors", "throttles", "nearly-full", "feed-stale"])
    error_message = "Failures, viewers turned away and a stale feed must be told."
  }
  assert {
    condition     = aws_lambda_function.this.image_uri == "123456789012.dkr.ecr.eu-central-1.amazonaws.com/quartsse-dev@${var.image_digest}"
    error_message = "The function must run the image by its digest."
  }
  assert {
    condition     = aws_lambda_function.this.package_type == "Image" && aws_lambda_function.this.publish
    error_message = "The function must be an image, with a version published for the alias."
  }
  assert {
    condition     = aws_lambda_function_url.this.invoke_mode == "RESPONSE_STREAM"
    error_message = "Without RESPONSE_STREAM no stream arrives before its end."
  }
  assert {
    condition     = aws_lambda_function_url.this.qualifier == "live" && aws_lambda_permission.url.qualifier == "live"
    error_message = "The URL and its permission must belong to the alias."
  }
  assert {
    condition     = aws_lambda_permission.url.action == "lambda:InvokeFunctionUrl" && aws_lambda_permission.url.function_url_auth_type == aws_lambda_function_url.this.authorization_type
    error_message = "The URL must be callable with the authorisation that it asks for."
  }
  assert {
    condition     = aws_cloudformation_stack.invoke.parameters.FunctionName == aws_lambda_alias.live.arn && aws_cloudformation_stack.invoke.parameters.Principal == "*"
    error_message = "The second permission must be for the alias."
  }
  assert {
    condition     = strcontains(aws_cloudformation_stack.invoke.template_body, "Action: lambda:InvokeFunction\n") && strcontains(aws_cloudformation_stack.invoke.template_body, "InvokedViaFunctionUrl: true")
    error_message = "The function must be invocable by way of its URL, and by no other."
  }
  assert {
    condition     = aws_lambda_function.this.reserved_concurrent_executions == 25
    error_message = "The bill must have a cap."
  }
  assert {
    condition     = aws_lambda_function.this.tracing_config[0].mode == "Active"
    error_message = "X-Ray must be on."
  }
  assert {
    condition     = aws_cloudwatch_log_group.this.name == "/aws/lambda/${aws_lambda_function.this.function_name}" && aws_cloudwatch_log_group.this.retention_in_days == 30
    error_message = "The log group must be the function's own, and not for ever."
  }
  assert {
    condition     = local.environment.AWS_LWA_INVOKE_MODE == "response_stream" && local.environment.AWS_LWA_READINESS_CHECK_PATH == "/health" && local.environment.AWS_LWA_READINESS_CHECK_HEALTHY_STATUS == "200-299"
    error_message = "The adapter must stream, and only 200-299 of /health may count as ready."
  }
  assert {
    condition     = !contains(keys(local.environment), "USERS_TABLE") && !contains(keys(local.environment), "SSE_AUTH") && !contains(keys(local.environment), "AWS_LWA_AUTHORIZATION_SOURCE")
    error_message = "What is not asked for must not be set."
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.this.policy).Statement[0] == { Sid = "QueryTheIndex", Effect = "Allow", Action = ["dynamodb:Query"], Resource = ["${var.sentiments_table_arn}/index/by_sentiment"] }
    error_message = "The role must be allowed to Query the one index."
  }
  assert {
    condition     = toset(flatten([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Action])) == toset(["dynamodb:Query", "logs:CreateLogStream", "logs:PutLogEvents", "xray:PutTelemetryRecords", "xray:PutTraceSegments"])
    error_message = "The role must be allowed what is needed and nothing else."
  }
  assert {
    condition     = length(aws_cloudfront_distribution.this) == 0
    error_message = "A distribution only where one is wished for."
  }
  assert {
    condition     = output.url == "https://abcdefgh.lambda-url.eu-central-1.on.aws/"
    error_message = "The URL itself is the way in."
  }
}

run "configurations_are_read_by_key_and_only_those" {
  command = apply

  variables {
    users_table_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/users"
    auth            = "jwt"
    jwt_jwks_url    = "https://login.example.com/keys"
    ticket_secret   = "no secret, but as long as one has to be"
    kms_key_arns    = ["arn:aws:kms:eu-central-1:123456789012:key/1"]
  }

  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement if statement.Sid == "ReadConfigurations"]) == { Sid = "ReadConfigurations", Effect = "Allow", Action = ["dynamodb:BatchGetItem", "dynamodb:GetItem"], Resource = [var.users_table_arn], Condition = { "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["USER#*"] } } }
    error_message = "Configurations must be readable by key, users' keys only."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement if statement.Sid == "DecryptTheTables"]).Condition.StringEquals["kms:ViaService"] == ["dynamodb.eu-central-1.amazonaws.com"]
    error_message = "A key must be usable through DynamoDB only."
  }
  assert {
    condition     = local.environment.USERS_TABLE == "users" && local.environment.SSE_USERS_KEYS == "PK,SK" && local.environment.SSE_AUTH == "jwt" && local.environment.SSE_JWT_JWKS_URL == "https://login.example.com/keys" && local.environment.SSE_TICKET_SECRET == var.ticket_secret
    error_message = "The service must hear of the users table and of who its users are."
  }
}

run "only_the_distribution_may_call_the_url_behind_cloudfront" {
  command = apply

  variables {
    way_in = "cloudfront"
    domain = { name = "streams.example.com", certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/1" }
  }

  assert {
    condition     = aws_lambda_function_url.this.authorization_type == "AWS_IAM" && aws_lambda_permission.url.function_url_auth_type == "AWS_IAM"
    error_message = "Behind CloudFront the URL must ask for a signature."
  }
  assert {
    condition     = aws_lambda_permission.url.principal == "cloudfront.amazonaws.com" && aws_lambda_permission.url.source_arn == aws_cloudfront_distribution.this[0].arn
    error_message = "The URL's permission must be for this distribution."
  }
  assert {
    condition     = aws_cloudformation_stack.invoke.parameters.Principal == "cloudfront.amazonaws.com" && aws_cloudformation_stack.invoke.parameters.SourceArn == aws_cloudfront_distribution.this[0].arn
    error_message = "The function's permission must be for this distribution."
  }
  assert {
    condition     = aws_cloudfront_origin_access_control.this[0].origin_access_control_origin_type == "lambda" && aws_cloudfront_origin_access_control.this[0].signing_behavior == "always"
    error_message = "CloudFront must sign."
  }
  assert {
    condition     = one(aws_cloudfront_distribution.this[0].origin).custom_origin_config[0].origin_read_timeout == 60
    error_message = "The distribution must wait as long as the rule about heartbeats believes."
  }
  assert {
    condition     = aws_cloudfront_distribution.this[0].default_cache_behavior[0].compress == false && aws_cloudfront_distribution.this[0].default_cache_behavior[0].cache_policy_id == "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
    error_message = "A stream must be neither compressed nor cached."
  }
  assert {
    condition     = aws_cloudfront_distribution.this[0].default_cache_behavior[0].origin_request_policy_id == "b689b0a8-53d0-40ab-baf2-68738e2966ac"
    error_message = "Last-Event-ID and X-App-Authorization must reach the service, the viewer's Host must not."
  }
  assert {
    condition     = contains(aws_cloudfront_distribution.this[0].default_cache_behavior[0].allowed_methods, "POST")
    error_message = "A ticket is fetched with POST."
  }
  assert {
    condition     = local.environment.AWS_LWA_AUTHORIZATION_SOURCE == "X-App-Authorization"
    error_message = "A viewer's token must have a way around CloudFront's signature."
  }
  assert {
    condition     = aws_cloudfront_distribution.this[0].viewer_certificate[0].minimum_protocol_version == "TLSv1.2_2021" && output.url == "https://streams.example.com/"
    error_message = "A name of one's own must come with its certificate and TLS 1.2."
  }
}

run "a_heartbeat_that_cannot_come_twice_in_time_is_refused" {
  command = plan
  variables {
    heartbeat_interval = 30
  }
  expect_failures = [var.heartbeat_interval]
}

run "a_heartbeat_longer_than_a_stream_is_refused" {
  command = plan
  variables {
    max_stream_age = 20
  }
  expect_failures = [var.heartbeat_interval]
}

run "a_stream_older_than_its_invocation_is_refused" {
  command = plan
  variables {
    timeout        = 300
    max_stream_age = 296
  }
  expect_failures = [var.max_stream_age]
}

run "times_out_of_range_are_refused" {
  command = plan
  variables {
    timeout             = 901
    deadline_margin     = 1
    origin_read_timeout = 180
  }
  expect_failures = [var.timeout, var.deadline_margin, var.origin_read_timeout]
}

run "what_would_be_dangerous_is_refused" {
  command = plan
  variables {
    auth          = "header"
    ticket_secret = "short"
    concurrency   = -1
    image_digest  = "latest"
    domain        = { name = "streams.example.com", certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/1" }
  }
  expect_failures = [var.auth, var.ticket_secret, var.concurrency, var.image_digest, var.domain]
}

run "no_rule_can_be_gone_round_by_the_other_settings" {
  command = plan
  variables {
    settings = { SSE_AUTH = "header" }
  }
  expect_failures = [var.settings]
}

run "a_user_header_from_anyone_can_be_forced" {
  command = plan
  variables {
    auth                          = "header"
    trust_user_header_from_anyone = true
  }
}

run "a_users_table_without_a_word_on_users_is_refused" {
  command = plan
  variables {
    users_table_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/users"
  }
  expect_failures = [var.auth]
}

run "tokens_without_a_key_are_refused" {
  command = plan
  variables {
    auth = "jwt"
  }
  expect_failures = [var.auth]
}

run "tokens_with_two_keys_are_refused" {
  command = plan
  variables {
    auth         = "jwt"
    jwt_jwks_url = "https://login.example.com/keys"
    jwt_key      = "a key"
  }
  expect_failures = [var.auth]
}
