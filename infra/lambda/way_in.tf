# The function's URL, and CloudFront in front of it if wished. The service answers CORS itself: one layer only.

locals {
  behind_cloudfront = var.way_in == "cloudfront"
}

resource "aws_lambda_function_url" "this" {
  function_name      = aws_lambda_function.this.function_name
  qualifier          = aws_lambda_alias.live.name
  authorization_type = local.behind_cloudfront ? "AWS_IAM" : "NONE"
  invoke_mode        = "RESPONSE_STREAM"
}

# A new URL needs two permissions. The first is for the URL …
resource "aws_lambda_permission" "url" {
  statement_id           = "CallTheUrl"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_function.this.function_name
  qualifier              = aws_lambda_alias.live.name
  principal              = local.behind_cloudfront ? "cloudfront.amazonaws.com" : "*"
  source_arn             = local.behind_cloudfront ? aws_cloudfront_distribution.this[0].arn : null
  function_url_auth_type = local.behind_cloudfront ? "AWS_IAM" : "NONE"
}

# … and the second for the function, by way of its URL only. The provider has no word for that condition, and without
# it everybody with an AWS account could invoke the function with an event of their own making.
resource "aws_cloudformation_stack" "invoke" {
  #checkov:skip=CKV_AWS_124:one permission, made once: nobody waits for news of this stack
  name          = "${local.name}-invoke"
  template_body = file("${path.module}/invoke-permission.yaml")
  parameters = {
    FunctionName = aws_lambda_alias.live.arn
    Principal    = local.behind_cloudfront ? "cloudfront.amazonaws.com" : "*"
    SourceArn    = local.behind_cloudfront ? aws_cloudfront_distribution.this[0].arn : ""
  }
}

resource "aws_cloudfront_origin_access_control" "this" {
  count                             = local.behind_cloudfront ? 1 : 0
  name                              = local.name
  description                       = "Signs what goes to the function's URL"
  origin_access_control_origin_type = "lambda"
  signing_behavior                  = "always"
  signing_protocol                  = "sigv4"
}

resource "aws_cloudfront_distribution" "this" {
  #checkov:skip=CKV2_AWS_47:a WAF is a variable (web_acl_arn); it counts requests and not the streams that stay open
  #checkov:skip=CKV_AWS_86:the service logs each stream's beginning and end; access logs need a bucket of the operator's
  #checkov:skip=CKV_AWS_310:there is one origin; a second region is a second installation
  #checkov:skip=CKV_AWS_374:who may read is the service's to say, not a map's
  #checkov:skip=CKV_AWS_305:there is no page at the root
  #checkov:skip=CKV2_AWS_32:the service sends its own security headers
  count           = local.behind_cloudfront ? 1 : 0
  comment         = local.name
  enabled         = true
  is_ipv6_enabled = true
  http_version    = "http2and3" # a browser opens six connections to a name over HTTP/1.1
  price_class     = "PriceClass_100"
  aliases         = var.domain == null ? [] : [var.domain.name]
  web_acl_id      = var.web_acl_arn

  origin {
    origin_id                = "function"
    domain_name              = replace(replace(aws_lambda_function_url.this.function_url, "https://", ""), "/", "")
    origin_access_control_id = aws_cloudfront_origin_access_control.this[0].id

    custom_origin_config {
      http_port                = 80
      https_port               = 443
      origin_protocol_policy   = "https-only"
      origin_ssl_protocols     = ["TLSv1.2"]
      origin_read_timeout      = var.origin_read_timeout # counted from byte to byte, not from the beginning
      origin_keepalive_timeout = 60
    }
  }

  default_cache_behavior {
    target_origin_id         = "function"
    viewer_protocol_policy   = "https-only"
    allowed_methods          = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] # POST comes in no smaller set
    cached_methods           = ["GET", "HEAD"]
    compress                 = false                                  # would hold events back
    cache_policy_id          = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad" # AWS's CachingDisabled
    origin_request_policy_id = "b689b0a8-53d0-40ab-baf2-68738e2966ac" # AWS's AllViewerExceptHostHeader: the URL has its own
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    cloudfront_default_certificate = var.domain == null
    acm_certificate_arn            = var.domain == null ? null : var.domain.certificate_arn
    ssl_support_method             = var.domain == null ? null : "sni-only"
    minimum_protocol_version       = var.domain == null ? "TLSv1" : "TLSv1.2_2021"
  }
}
