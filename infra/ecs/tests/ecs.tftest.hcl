# What must hold of the plan, whatever else changes. Nothing of AWS is asked: the provider is a mock.

mock_provider "aws" {
  mock_resource "aws_ecr_repository" {
    defaults = {
      arn            = "arn:aws:ecr:eu-central-1:123456789012:repository/quartsse-dev"
      repository_url = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/quartsse-dev"
    }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/ecs/quartsse-dev" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/quartsse-dev" }
  }
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/quartsse-dev/1" }
  }
  mock_resource "aws_lb_target_group" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/quartsse-dev/1" }
  }
  mock_resource "aws_ecs_task_definition" {
    defaults = { arn = "arn:aws:ecs:eu-central-1:123456789012:task-definition/quartsse-dev:1" }
  }
}

variables {
  sentiments_table_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/sentiments"
  image_digest         = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}

run "two_variables_are_enough" {
  command = apply

  assert {
    condition     = module.watch.missing_data["feed-stale"] == "breaching"
    error_message = "Missing data must be trouble, and not calm."
  }
  assert {
    condition     = toset(keys(module.watch.missing_data)) == toset(["no-healthy-task", "refusals", "failed-connections", "nearly-full", "feed-stale", "late", "held-up"])
    error_message = "Dead tasks, refusals, viewers turned away and a stale feed must be told."
  }
  assert {
    condition     = one(jsondecode(aws_ecs_task_definition.this.container_definitions)).image == "123456789012.dkr.ecr.eu-central-1.amazonaws.com/quartsse-dev@${var.image_digest}"
    error_message = "The task must run the image by its digest, and nothing beside it."
  }
  assert {
    condition     = one(jsondecode(aws_ecs_task_definition.this.container_definitions)).user == "10001" && one(jsondecode(aws_ecs_task_definition.this.container_definitions)).readonlyRootFilesystem && one(jsondecode(aws_ecs_task_definition.this.container_definitions)).linuxParameters.capabilities.drop == ["ALL"]
    error_message = "The container must be nobody in particular, and able to write nothing."
  }
  assert {
    condition     = one(one(jsondecode(aws_ecs_task_definition.this.container_definitions)).ulimits).softLimit == 65535
    error_message = "The task must be able to open a file for each of its streams."
  }
  assert {
    condition     = one(jsondecode(aws_ecs_task_definition.this.container_definitions)).stopTimeout == 30
    error_message = "The task must have the time to end its streams."
  }
  assert {
    condition     = one(jsondecode(aws_ecs_task_definition.this.container_definitions)).logConfiguration.options.mode == "non-blocking"
    error_message = "A slow log must not hold up streams."
  }
  assert {
    condition     = aws_lb.this.idle_timeout == 70 && aws_lb.this.drop_invalid_header_fields && aws_lb.this.enable_deletion_protection
    error_message = "The load balancer must wait as long as the rule about heartbeats believes, and be careful."
  }
  assert {
    condition     = tonumber(local.environment.SSE_HEARTBEAT_INTERVAL) * 2 < aws_lb.this.idle_timeout
    error_message = "Two heartbeats must fit into the load balancer's patience."
  }
  assert {
    condition     = aws_lb.this.internal && one(values(aws_vpc_security_group_ingress_rule.viewers)).cidr_ipv4 == "10.0.0.0/24" && length(aws_lb_listener.secure) == 0
    error_message = "Without a certificate the load balancer must stay inside."
  }
  assert {
    condition     = tonumber(aws_lb_target_group.this.deregistration_delay) == 15 && aws_lb_target_group.this.load_balancing_algorithm_type == "least_outstanding_requests"
    error_message = "Streams must not hold up a deployment, and must be spread by their number."
  }
  assert {
    condition     = aws_lb_target_group.this.health_check[0].path == "/health" && aws_lb_target_group.this.health_check[0].matcher == "200"
    error_message = "Health must not depend on DynamoDB."
  }
  assert {
    condition     = aws_ecs_service.this.deployment_circuit_breaker[0].enable && aws_ecs_service.this.deployment_circuit_breaker[0].rollback && aws_ecs_service.this.deployment_minimum_healthy_percent == 100
    error_message = "A release that does not start must be taken back, and viewers must not notice."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.from_load_balancer.referenced_security_group_id == aws_security_group.load_balancer.id
    error_message = "Only the load balancer may reach the tasks: the service believes its X-Forwarded-For."
  }
  assert {
    condition     = local.environment.SSE_TRUSTED_HOPS == "1"
    error_message = "One proxy stands in front."
  }
  assert {
    condition     = aws_appautoscaling_policy.streams.target_tracking_scaling_policy_configuration[0].target_value == 1200 && aws_appautoscaling_policy.streams.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].statistic == "Average"
    error_message = "Tasks must be added by streams per task."
  }
  assert {
    condition     = aws_appautoscaling_target.this.min_capacity == 2 && aws_appautoscaling_target.this.max_capacity == 4
    error_message = "The bill must have a cap, and one task's end must not be everyone's."
  }
  assert {
    condition     = length(aws_vpc_endpoint.dynamodb) == 1 && toset(flatten([for statement in jsondecode(aws_vpc_endpoint.dynamodb[0].policy).Statement : statement.Action])) == toset(["dynamodb:Query"])
    error_message = "DynamoDB must be reached by the endpoint, for reading the one index only."
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.task.policy).Statement == [{ Sid = "QueryTheIndex", Effect = "Allow", Action = ["dynamodb:Query"], Resource = ["${var.sentiments_table_arn}/index/by_sentiment"] }]
    error_message = "The task must be allowed to Query the one index, and nothing else."
  }
  assert {
    condition     = toset(flatten([for statement in jsondecode(aws_iam_role_policy.execution.policy).Statement : statement.Action])) == toset(["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken", "ecr:GetDownloadUrlForLayer", "logs:CreateLogStream", "logs:PutLogEvents"])
    error_message = "ECS must be allowed to pull and to log, and nothing else."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.execution.policy).Statement : statement if statement.Sid == "PullTheImage"]).Resource == ["arn:aws:ecr:eu-central-1:123456789012:repository/quartsse-dev"]
    error_message = "ECS must pull from the one repository only."
  }
}

run "with_everything_asked_for" {
  command = apply

  variables {
    certificate_arn    = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
    users_table_arn    = "arn:aws:dynamodb:eu-central-1:123456789012:table/users"
    auth               = "jwt"
    jwt_key_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:key"
    ticket_secret_arn  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:tickets"
    stream_arn         = "arn:aws:dynamodb:eu-central-1:123456789012:table/sentiments/stream/2025-01-01T00:00:00.000"
    max_tasks          = 2
    tracing            = true
    network = {
      vpc_id                = "vpc-1"
      vpc_cidr              = "10.1.0.0/16"
      load_balancer_subnets = ["subnet-1", "subnet-2"]
      task_subnets          = ["subnet-3", "subnet-4"]
    }
  }

  assert {
    condition     = aws_lb_listener.secure[0].ssl_policy == "ELBSecurityPolicy-TLS13-1-2-2021-06" && aws_lb_listener.plain.default_action[0].redirect[0].protocol == "HTTPS" && !aws_lb.this.internal
    error_message = "With a certificate there must be HTTPS on the internet, and nothing but a redirect to it."
  }
  assert {
    condition     = length(aws_vpc.this) == 0 && length(aws_vpc_endpoint.dynamodb) == 0 && aws_ecs_service.this.network_configuration[0].assign_public_ip == false
    error_message = "In a VPC of the operator's nothing may be made, and tasks must stay private."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.task.policy).Statement : statement if statement.Sid == "ReadConfigurations"]) == { Sid = "ReadConfigurations", Effect = "Allow", Action = ["dynamodb:BatchGetItem", "dynamodb:GetItem"], Resource = [var.users_table_arn], Condition = { "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["USER#*"] } } }
    error_message = "Configurations must be readable by key, users' keys only."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.task.policy).Statement : statement if statement.Sid == "ReadTheStream"]) == { Sid = "ReadTheStream", Effect = "Allow", Action = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"], Resource = [var.stream_arn] }
    error_message = "The one stream must be readable."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.task.policy).Statement : statement if statement.Sid == "SendTraces"]).Action == ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
    error_message = "Traces must be allowed where there are some."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.execution.policy).Statement : statement if statement.Sid == "FetchSecrets"]) == { Sid = "FetchSecrets", Effect = "Allow", Action = ["secretsmanager:GetSecretValue"], Resource = [var.jwt_key_secret_arn, var.ticket_secret_arn] }
    error_message = "Those secrets must be fetched that are named, and no others."
  }
  assert {
    condition     = { for secret in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].secrets : secret.name => secret.valueFrom } == { SSE_JWT_KEY = var.jwt_key_secret_arn, SSE_TICKET_SECRET = var.ticket_secret_arn }
    error_message = "Secrets must come from where they are kept."
  }
  assert {
    condition     = length(setintersection(keys(local.environment), ["SSE_JWT_KEY", "SSE_TICKET_SECRET"])) == 0
    error_message = "Secrets must not stand in the task definition."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[1].essential == false && local.environment.SSE_TRACING == "xray"
    error_message = "The service must go on without its X-Ray daemon."
  }
  assert {
    condition     = local.environment.SSE_SOURCE == "streams" && local.environment.SSE_STREAM_ARN == var.stream_arn && aws_ecs_service.this.deployment_maximum_percent == 150
    error_message = "The stream must be followed, with no more readers than it has room for."
  }
}

run "times_that_do_not_go_together_are_refused" {
  command = plan
  variables {
    heartbeat_interval   = 35
    deregistration_delay = 300
  }
  expect_failures = [var.heartbeat_interval, var.deregistration_delay]
}

run "a_load_balancer_more_patient_than_the_service_is_refused" {
  command = plan
  variables {
    idle_timeout = 75
  }
  expect_failures = [var.idle_timeout]
}

run "sizes_that_do_not_go_together_are_refused" {
  command = plan
  variables {
    max_connections = 65000
    min_tasks       = 5
    full_at         = 0.9
    image_digest    = "latest"
  }
  expect_failures = [var.max_connections, var.min_tasks, var.full_at, var.image_digest]
}

run "no_rule_can_be_gone_round_by_the_other_settings" {
  command = plan
  variables {
    settings = { SSE_AUTH = "header" }
  }
  expect_failures = [var.settings]
}

run "more_tasks_than_a_stream_has_room_for_are_refused" {
  command = plan
  variables {
    stream_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/sentiments/stream/2025-01-01T00:00:00.000"
  }
  expect_failures = [var.max_tasks]
}

run "a_users_table_without_a_word_on_users_is_refused" {
  command = plan
  variables {
    users_table_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/users"
  }
  expect_failures = [var.auth]
}

run "a_user_header_from_the_internet_is_refused" {
  command = plan
  variables {
    certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
    auth            = "header"
  }
  expect_failures = [var.auth]
}

run "a_user_header_from_inside_is_not" {
  command = plan
  variables {
    auth = "header"
  }
}

run "tokens_without_a_key_are_refused" {
  command = plan
  variables {
    auth = "jwt"
  }
  expect_failures = [var.auth]
}
