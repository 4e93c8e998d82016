# The network: the operator's, or a small one of its own with public subnets and no NAT.

locals {
  own_network = var.network == null
  zones       = coalesce(var.availability_zones, ["${local.region}a", "${local.region}b"])
  cidr        = "10.0.0.0/24"

  network = var.network != null ? var.network : {
    vpc_id                = one(aws_vpc.this[*].id)
    vpc_cidr              = local.cidr
    load_balancer_subnets = aws_subnet.public[*].id
    task_subnets          = aws_subnet.public[*].id
    tasks_have_public_ips = true # how they reach the repository and the log without a NAT
  }
}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11:flow logs are the operator's choice; who connects is in the service's own log
  count                = local.own_network ? 1 : 0
  cidr_block           = local.cidr
  enable_dns_hostnames = true
  tags                 = { Name = local.name }
}

resource "aws_default_security_group" "this" {
  count  = local.own_network ? 1 : 0
  vpc_id = aws_vpc.this[0].id # with no rules: nothing can be left in it by mistake
}

resource "aws_internet_gateway" "this" {
  count  = local.own_network ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "public" {
  count             = local.own_network ? length(local.zones) : 0
  vpc_id            = aws_vpc.this[0].id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(local.cidr, 2, count.index)
  tags              = { Name = "${local.name}-${count.index}" }
}

resource "aws_route_table" "public" {
  count  = local.own_network ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_route" "out" {
  count                  = local.own_network ? 1 : 0
  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  count          = local.own_network ? length(local.zones) : 0
  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public[0].id
}

# Through it goes what the role allows, and only to the tables that are read.
resource "aws_vpc_endpoint" "dynamodb" {
  count             = local.own_network && var.dynamodb_endpoint ? 1 : 0
  vpc_id            = aws_vpc.this[0].id
  service_name      = "com.amazonaws.${local.region}.dynamodb"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.public[0].id]
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for statement in module.reader.tables : merge(statement, { Principal = "*" })]
  })
}

resource "aws_security_group" "load_balancer" {
  name        = "${local.name}-load-balancer"
  description = "Who may open streams"
  vpc_id      = local.network.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "viewers" {
  for_each          = local.public ? { "80" = 80, "443" = 443 } : { "80" = 80 }
  security_group_id = aws_security_group.load_balancer.id
  description       = local.public ? "Viewers" : "Whoever is in the VPC"
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
  cidr_ipv4         = local.public ? "0.0.0.0/0" : local.network.vpc_cidr
}

resource "aws_vpc_security_group_egress_rule" "to_tasks" {
  security_group_id            = aws_security_group.load_balancer.id
  description                  = "The tasks"
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
  referenced_security_group_id = aws_security_group.task.id
}

resource "aws_security_group" "task" {
  name        = "${local.name}-task"
  description = "The tasks: reached by the load balancer only"
  vpc_id      = local.network.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "from_load_balancer" {
  security_group_id            = aws_security_group.task.id
  description                  = "The load balancer"
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
  referenced_security_group_id = aws_security_group.load_balancer.id
}

resource "aws_vpc_security_group_egress_rule" "to_aws" {
  security_group_id = aws_security_group.task.id
  description       = "AWS's interfaces, and the keys of whoever issues tokens"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}
