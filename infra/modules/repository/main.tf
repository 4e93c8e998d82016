# Where the image is kept: tags that never move, so that a digest and a tag mean the same for ever.

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
  description = "The repository's name."
  type        = string
}

variable "kept_images" {
  description = "How many images are kept; older ones expire."
  type        = number
  default     = 20
}

variable "lambda_function_arn" {
  description = "The function that may pull the image. Null on ECS, whose tasks pull with their execution role."
  type        = string
  default     = null
}

resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_136:the image holds no secret and no customer data; ECR's own AES-256 encryption is enough
  name                 = var.name
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  repository = aws_ecr_repository.this.name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Keep the newest images only"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = var.kept_images }
      action       = { type = "expire" }
    }]
  })
}

# Lambda pulls as itself. It would add this on its own if the caller could change the policy; said here, nobody needs to.
resource "aws_ecr_repository_policy" "lambda" {
  count      = var.lambda_function_arn == null ? 0 : 1
  repository = aws_ecr_repository.this.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "LambdaPullsTheImage"
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Condition = { StringLike = { "aws:sourceArn" = [var.lambda_function_arn, "${var.lambda_function_arn}:*"] } }
    }]
  })
}

output "url" {
  description = "The address to push to; an image is `<url>@<digest>`."
  value       = aws_ecr_repository.this.repository_url
}

output "arn" {
  description = "The repository's ARN."
  value       = aws_ecr_repository.this.arn
}
