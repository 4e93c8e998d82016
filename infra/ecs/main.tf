# Tasks that each hold thousands of streams, with one reader of the table in each.

locals {
  arn       = split(":", var.sentiments_table_arn)
  partition = local.arn[1]
  region    = local.arn[3]
  name      = "${var.name}-${var.environment}"
  port      = 8080

  # Every setting that a variable of this root's says; null is for the service's own default.
  own_settings = merge(module.reader.environment, {
    ENVIRONMENT             = var.environment
    LOG_LEVEL               = var.log_level
    HOST                    = "0.0.0.0"
    PORT                    = tostring(local.port)
    SSE_POLL_INTERVAL       = var.poll_interval == null ? null : tostring(var.poll_interval)
    SSE_READ_BUDGET         = tostring(var.read_budget)
    SSE_HEARTBEAT_INTERVAL  = tostring(var.heartbeat_interval)
    SSE_DRAIN_SECONDS       = tostring(var.drain_seconds)
    SSE_MAX_CONNECTIONS     = tostring(var.max_connections)
    SSE_TRUSTED_HOPS        = "1" # the load balancer adds the client's address to X-Forwarded-For
    SSE_CORS_ORIGINS        = length(var.cors_origins) == 0 ? null : join(",", var.cors_origins)
    SSE_AUTH                = var.auth
    SSE_JWT_JWKS_URL        = var.jwt_jwks_url
    SSE_JWT_KEY             = null # among the secrets
    SSE_JWT_ISSUER          = var.jwt_issuer
    SSE_JWT_AUDIENCE        = var.jwt_audience
    SSE_TICKET_SECRET       = null # among the secrets
    SSE_METRICS             = "emf"
    SSE_TRACING             = var.tracing ? "xray" : "off"
    AWS_REGION              = local.region
    AWS_DEFAULT_REGION      = local.region
    AWS_XRAY_DAEMON_ADDRESS = var.tracing ? "127.0.0.1:2000" : null
  })
  environment = merge(var.settings, { for name, value in local.own_settings : name => value if value != null })

  secrets = { for name, arn in {
    SSE_JWT_KEY       = var.jwt_key_secret_arn
    SSE_TICKET_SECRET = var.ticket_secret_arn
  } : name => arn if arn != null }

  logs = {
    logDriver = "awslogs"
    options = {
      awslogs-group         = aws_cloudwatch_log_group.this.name
      awslogs-region        = local.region
      awslogs-stream-prefix = "task"
      # A log that does not keep up must not hold up the streams: lines are lost instead.
      mode            = "non-blocking"
      max-buffer-size = "4m"
    }
  }

  service_container = {
    name                   = "service"
    image                  = "${module.repository.url}@${var.image_digest}"
    essential              = true
    user                   = "10001"
    readonlyRootFilesystem = true
    stopTimeout            = 30
    portMappings           = [{ containerPort = local.port, protocol = "tcp" }]
    environment            = [for name, value in local.environment : { name = name, value = value }]
    secrets                = [for name, arn in local.secrets : { name = name, valueFrom = arn }]
    ulimits                = [{ name = "nofile", softLimit = 65535, hardLimit = 65535 }]
    linuxParameters        = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
    logConfiguration       = local.logs
    healthCheck = {
      command     = ["CMD", "python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:${local.port}/health', timeout=3)"]
      interval    = 15
      timeout     = 5
      retries     = 3
      startPeriod = 15
    }
  }
  xray_container = {
    name                   = "xray"
    image                  = var.xray_image
    essential              = false # without traces the streams go on
    user                   = "1337"
    readonlyRootFilesystem = true
    stopTimeout            = 10
    portMappings           = [{ containerPort = 2000, protocol = "udp" }]
    linuxParameters        = { capabilities = { drop = ["ALL"] } }
    logConfiguration       = local.logs
  }
}

module "reader" {
  source               = "../modules/reader"
  sentiments_table_arn = var.sentiments_table_arn
  index                = var.index
  users_table_arn      = var.users_table_arn
  users_keys           = var.users_keys
  stream_arn           = var.stream_arn
  kms_key_arns         = var.kms_key_arns
}

module "repository" {
  source = "../modules/repository"
  name   = local.name
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:log lines hold no item, no token and no ticket; CloudWatch's own encryption is enough
  #checkov:skip=CKV_AWS_338:how long is a variable; a year of stream logs is seldom worth its price
  name              = "/ecs/${local.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_ecs_cluster" "this" {
  name = local.name

  setting {
    name  = "containerInsights"
    value = var.container_insights ? "enabled" : "disabled"
  }
}

resource "aws_ecs_task_definition" "this" {
  family                   = local.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = upper(var.architecture)
  }

  container_definitions = jsonencode(concat(
    [local.service_container],
    [for container in [local.xray_container] : container if var.tracing],
  ))
}

resource "aws_ecs_service" "this" {
  name                               = local.name
  cluster                            = aws_ecs_cluster.this.id
  task_definition                    = aws_ecs_task_definition.this.arn
  desired_count                      = var.min_tasks
  launch_type                        = "FARGATE"
  availability_zone_rebalancing      = "ENABLED"
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = var.stream_arn == null ? 200 : 150 # a shard has two readers
  health_check_grace_period_seconds  = 30
  propagate_tags                     = "SERVICE"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = local.network.task_subnets
    security_groups  = [aws_security_group.task.id]
    assign_public_ip = local.network.tasks_have_public_ips
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.this.arn
    container_name   = "service"
    container_port   = local.port
  }

  depends_on = [aws_lb_listener.plain, aws_lb_listener.secure, aws_iam_role_policy.task]

  lifecycle {
    ignore_changes = [desired_count] # the scaling's
  }
}

# By streams: they cost neither requests nor, while nothing happens, processor.
resource "aws_appautoscaling_target" "this" {
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.this.name}"
  min_capacity       = var.min_tasks
  max_capacity       = var.max_tasks
}

resource "aws_appautoscaling_policy" "streams" {
  name               = "${local.name}-streams"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension
  resource_id        = aws_appautoscaling_target.this.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = floor(var.max_connections * var.full_at)
    scale_out_cooldown = 60
    scale_in_cooldown  = 900 # a task that goes sends its readers away

    customized_metric_specification {
      namespace   = "quartsse"
      metric_name = "Connections"
      statistic   = "Average" # each task says its own number once a minute, so this is the number per task

      dynamic "dimensions" {
        for_each = local.service
        content {
          name  = dimensions.key
          value = dimensions.value
        }
      }
    }
  }
}
