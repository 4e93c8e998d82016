output "address" {
  description = "The load balancer's name: point a name of one's own at it, one that the certificate is for."
  value       = aws_lb.this.dns_name
}

output "repository" {
  description = "Where the image is pushed to."
  value       = module.repository.url
}

output "task_role" {
  description = "The role that reads the tables, for a table's or a key's own policy."
  value       = aws_iam_role.task.arn
}

output "service" {
  description = "The cluster and the service."
  value       = { cluster = aws_ecs_cluster.this.name, service = aws_ecs_service.this.name }
}
