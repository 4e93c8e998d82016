# Alarms and a dashboard. Every task reports once a minute, so missing data is trouble and not calm.

locals {
  service  = { Service = "quartsse", Environment = var.environment, Transport = "ecs" }
  balancer = { LoadBalancer = aws_lb.this.arn_suffix }
  targets  = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.this.arn_suffix }
}

module "watch" {
  source  = "../modules/watch"
  name    = local.name
  region  = local.region
  actions = var.alarm_actions

  alarms = {
    no-healthy-task = {
      says       = "No task is healthy: nobody can open a stream."
      namespace  = "AWS/ApplicationELB", metric = "HealthyHostCount", dimensions = local.targets, statistic = "Minimum"
      comparison = "LessThanThreshold", threshold = 1, minutes = 2, missing = "breaching"
    }
    refusals = {
      says       = "The service answers with 5xx: it is full, starting, or broken."
      namespace  = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.targets, statistic = "Sum"
      comparison = "GreaterThanThreshold", threshold = 10, minutes = 3, missing = "notBreaching" # no error is no number
    }
    failed-connections = {
      says       = "The load balancer answers with 5xx itself: tasks are gone or close connections that it wants to use."
      namespace  = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = local.balancer, statistic = "Sum"
      comparison = "GreaterThanThreshold", threshold = 10, minutes = 3, missing = "notBreaching" # no error is no number
    }
    nearly-full = {
      says       = "The fullest task holds more than 80 % of its streams: soon viewers are turned away."
      namespace  = "quartsse", metric = "ConnectionsShare", dimensions = local.service, statistic = "Maximum"
      comparison = "GreaterThanThreshold", threshold = 80, minutes = 3, missing = "breaching"
    }
    feed-stale = {
      says       = "A task's feed is stale: its viewers see a table that is not read any more."
      namespace  = "quartsse", metric = "FeedStale", dimensions = local.service, statistic = "Maximum"
      comparison = "GreaterThanThreshold", threshold = 0, minutes = 3, missing = "breaching"
    }
    late = {
      says       = "Changes take more than 5 s from the read that saw them to their readers."
      namespace  = "quartsse", metric = "DeliveryLatency", dimensions = local.service, statistic = "p99"
      comparison = "GreaterThanThreshold", threshold = 5000, minutes = 5, missing = "notBreaching" # no change is no number
    }
    held-up = {
      says       = "Something holds a task's event loop up for more than a second: every stream waits."
      namespace  = "quartsse", metric = "LoopLag", dimensions = local.service, statistic = "Maximum"
      comparison = "GreaterThanThreshold", threshold = 1000, minutes = 5, missing = "breaching"
    }
  }

  charts = [
    { title = "Streams: the fullest task and all", lines = [
      { namespace = "quartsse", metric = "Connections", dimensions = local.service, statistic = "Maximum" },
      { namespace = "quartsse", metric = "Connections", dimensions = local.service, statistic = "Sum" },
    ] },
    { title = "The feed: its age, and how long a read takes", lines = [
      { namespace = "quartsse", metric = "FeedAge", dimensions = local.service, statistic = "Maximum" },
      { namespace = "quartsse", metric = "PollDuration", dimensions = local.service, statistic = "p99" },
    ] },
    { title = "How late readers get a change: since it was read, and since its own time", lines = [
      { namespace = "quartsse", metric = "DeliveryLatency", dimensions = local.service, statistic = "p99" },
      { namespace = "quartsse", metric = "SourceLatency", dimensions = local.service, statistic = "p50" },
    ] },
    { title = "What readers get", lines = [
      { namespace = "quartsse", metric = "EventsDelivered", dimensions = local.service, statistic = "Sum" },
      { namespace = "quartsse", metric = "DeliveredBytes", dimensions = local.service, statistic = "Sum" },
    ] },
    { title = "Tasks", lines = [
      { namespace = "AWS/ApplicationELB", metric = "HealthyHostCount", dimensions = local.targets, statistic = "Minimum" },
      { namespace = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = local.targets, statistic = "Maximum" },
    ] },
    { title = "Failures", lines = [
      { namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.targets, statistic = "Sum" },
      { namespace = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = local.balancer, statistic = "Sum" },
    ] },
    { title = "Processor and memory", lines = [
      { namespace = "AWS/ECS", metric = "CPUUtilization", dimensions = { ClusterName = local.name, ServiceName = local.name }, statistic = "Average" },
      { namespace = "AWS/ECS", metric = "MemoryUtilization", dimensions = { ClusterName = local.name, ServiceName = local.name }, statistic = "Average" },
    ] },
    { title = "What the feed reads, and how late the loop is", lines = [
      { namespace = "quartsse", metric = "ReadUnits", dimensions = local.service, statistic = "Sum" },
      { namespace = "quartsse", metric = "LoopLag", dimensions = local.service, statistic = "Maximum" },
    ] },
    { title = "Connections at the load balancer", lines = [
      { namespace = "AWS/ApplicationELB", metric = "ActiveConnectionCount", dimensions = local.balancer, statistic = "Sum" },
      { namespace = "AWS/ApplicationELB", metric = "RejectedConnectionCount", dimensions = local.balancer, statistic = "Sum" },
    ] },
  ]
}
