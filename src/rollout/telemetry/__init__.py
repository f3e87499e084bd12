"""Traces and metrics by OTLP, where OpenTelemetry's own variables ask for them. Needs the extra ``otel``."""
