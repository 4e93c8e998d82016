# Alarms and a dashboard. No viewers, no environment, no data: for a function missing data is calm, so what must be
# told is taken from Lambda's own counts as well.

locals {
  function = { FunctionName = local.name }
  service  = { Service = "quartsse", Environment = var.environment, Transport = "lambda" }
}

module "watch" {
  source  = "../modules/watch"
  name    = local.name
  region  = local.region
  actions = var.alarm_actions

  alarms = {
    errors = {
      says       = "Invocations fail: the service ended, or a stream was cut off at its deadline."
      namespace  = "AWS/Lambda", metric = "Errors", dimensions = local.function, statistic = "Sum"
      comparison = "GreaterThanThreshold", threshold = 0, minutes = 3, missing = "notBreaching"
    }
    throttles = {
      says       = "Viewers are turned away: as many invocations run as concurrency allows."
      namespace  = "AWS/Lambda", metric = "Throttles", dimensions = local.function, statistic = "Sum"
      comparison = "GreaterThanThreshold", threshold = 0, minutes = 1, missing = "notBreaching"
    }
    nearly-full = {
      says       = "More than 80 % of concurrency is in use: soon viewers are turned away."
      namespace  = "AWS/Lambda", metric = "ConcurrentExecutions", dimensions = local.function, statistic = "Maximum"
      comparison = "GreaterThanThreshold", threshold = floor(var.concurrency * 0.8), minutes = 5, missing = "notBreaching"
    }
    feed-stale = {
      says       = "The feed is stale: viewers see a table that is not read any more."
      namespace  = "quartsse", metric = "FeedStale", dimensions = local.service, statistic = "Maximum"
      comparison = "GreaterThanThreshold", threshold = 0, minutes = 3, missing = "notBreaching"
    }
  }

  charts = [
    { title = "Viewers", lines = [
      { namespace = "AWS/Lambda", metric = "ConcurrentExecutions", dimensions = local.function, statistic = "Maximum" },
      { namespace = "AWS/Lambda", metric = "Throttles", dimensions = local.function, statistic = "Sum" },
    ] },
    { title = "Failures", lines = [
      { namespace = "AWS/Lambda", metric = "Errors", dimensions = local.function, statistic = "Sum" },
    ] },
    { title = "How late readers get a change: since it was read, and since its own time", lines = [
      { namespace = "quartsse", metric = "DeliveryLatency", dimensions = local.service, statistic = "p99" },
      { namespace = "quartsse", metric = "SourceLatency", dimensions = local.service, statistic = "p50" },
    ] },
    { title = "What is billed: milliseconds of streams", lines = [
      { namespace = "AWS/Lambda", metric = "Duration", dimensions = local.function, statistic = "Sum" },
      { namespace = "AWS/Lambda", metric = "Invocations", dimensions = local.function, statistic = "Sum" },
    ] },
    { title = "The feed: its age, and how long a read takes", lines = [
      { namespace = "quartsse", metric = "FeedAge", dimensions = local.service, statistic = "Maximum" },
      { namespace = "quartsse", metric = "PollDuration", dimensions = local.service, statistic = "p99" },
    ] },
  ]
}
