"""Tests of what is sent by OTLP."""
