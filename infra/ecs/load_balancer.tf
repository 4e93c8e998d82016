# The load balancer: on the internet with a certificate, inside the VPC without one.

locals {
  public = var.certificate_arn != null
}

resource "aws_lb" "this" {
  #checkov:skip=CKV2_AWS_20:without a certificate there is nothing to redirect to, and the load balancer is internal
  #checkov:skip=CKV2_AWS_76:a WAF is a variable (web_acl_arn); it counts requests and not the streams that stay open
  name                       = local.name
  load_balancer_type         = "application"
  internal                   = !local.public
  subnets                    = local.network.load_balancer_subnets
  security_groups            = [aws_security_group.load_balancer.id]
  idle_timeout               = var.idle_timeout
  drop_invalid_header_fields = true
  enable_deletion_protection = var.deletion_protection

  dynamic "access_logs" {
    for_each = compact([var.access_logs_bucket])
    content {
      bucket  = access_logs.value
      prefix  = local.name
      enabled = true
    }
  }
}

resource "aws_lb_target_group" "this" {
  #checkov:skip=CKV_AWS_378:TLS ends at the load balancer; its connections to the tasks stay inside the VPC
  name                          = local.name
  vpc_id                        = local.network.vpc_id
  target_type                   = "ip"
  protocol                      = "HTTP"
  port                          = local.port
  load_balancing_algorithm_type = "least_outstanding_requests" # an open stream is one
  deregistration_delay          = var.deregistration_delay

  health_check {
    path                = "/health" # says nothing about DynamoDB: a throttled table must not cost every task
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "plain" {
  load_balancer_arn = aws_lb.this.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type             = local.public ? "redirect" : "forward"
    target_group_arn = local.public ? null : aws_lb_target_group.this.arn

    dynamic "redirect" {
      for_each = local.public ? [443] : []
      content {
        protocol    = "HTTPS"
        port        = redirect.value
        status_code = "HTTP_301"
      }
    }
  }
}

# HTTP/2 to browsers: over HTTP/1.1 they open six connections to a name.
resource "aws_lb_listener" "secure" {
  count             = local.public ? 1 : 0
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

resource "aws_wafv2_web_acl_association" "this" {
  count        = var.web_acl_arn == null ? 0 : 1
  resource_arn = aws_lb.this.arn
  web_acl_arn  = var.web_acl_arn
}
