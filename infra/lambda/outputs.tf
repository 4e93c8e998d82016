output "url" {
  description = "The address that front ends are pointed at."
  value       = local.behind_cloudfront ? "https://${var.domain == null ? aws_cloudfront_distribution.this[0].domain_name : var.domain.name}/" : aws_lambda_function_url.this.function_url
}

output "repository" {
  description = "Where the image is pushed to."
  value       = module.repository.url
}

output "function" {
  description = "The function's name."
  value       = aws_lambda_function.this.function_name
}

output "role" {
  description = "The role that reads the tables, for a table's or a key's own policy."
  value       = aws_iam_role.this.arn
}
