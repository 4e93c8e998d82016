"""`quartsse check`: looks before one deploys, and at a running server; says what is wrong, why it matters, the cure."""
