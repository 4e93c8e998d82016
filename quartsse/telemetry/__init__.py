"""Telemetry: what happened, said in metrics, traces and logs."""
