terraform {
  required_version = ">= 1.9" # validation rules that look at several variables
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

# The table's ARN says where everything is: account and region are not asked for a second time.
provider "aws" {
  region = local.region

  default_tags {
    tags = {
      Service     = var.name
      Environment = var.environment
    }
  }
}
