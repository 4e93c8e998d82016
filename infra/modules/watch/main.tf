# Alarms and a dashboard.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

variable "name" {
  description = "What the alarms' and the dashboard's names begin with."
  type        = string
}

variable "region" {
  description = "Where the metrics are."
  type        = string
}

variable "actions" {
  description = "ARNs that are told when an alarm goes off and when it is over, such as an SNS topic's."
  type        = list(string)
}

variable "alarms" {
  description = "By name: what is watched, and from where on it is wrong. `missing` says what no data means."
  type = map(object({
    says       = string
    namespace  = string
    metric     = string
    dimensions = map(string)
    statistic  = string
    comparison = string
    threshold  = number
    minutes    = number
    missing    = string
  }))

  validation {
    condition     = alltrue([for alarm in var.alarms : contains(["breaching", "notBreaching"], alarm.missing)])
    error_message = "What missing data means is said for every alarm: breaching or notBreaching."
  }
}

variable "charts" {
  description = "The dashboard: a title and lines, each a namespace, a metric, its dimensions and a statistic."
  type = list(object({
    title = string
    lines = list(object({
      namespace  = string
      metric     = string
      dimensions = map(string)
      statistic  = string
    }))
  }))
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = var.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.statistic, "p") ? null : each.value.statistic
  extended_statistic  = startswith(each.value.statistic, "p") ? each.value.statistic : null
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = each.value.missing
  alarm_actions       = var.actions
  ok_actions          = var.actions
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for place, chart in var.charts : {
      type   = "metric"
      x      = place % 2 * 12
      y      = floor(place / 2) * 6
      width  = 12
      height = 6
      properties = {
        title  = chart.title
        region = var.region
        period = 60
        view   = "timeSeries"
        metrics = [for line in chart.lines : concat(
          [line.namespace, line.metric],
          flatten([for name, value in line.dimensions : [name, value]]),
          [{ stat = line.statistic }],
        )]
      }
    }]
  })
}

output "missing_data" {
  description = "By alarm: what missing data means."
  value       = { for name, alarm in aws_cloudwatch_metric_alarm.this : name => alarm.treat_missing_data }
}
