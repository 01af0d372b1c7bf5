"""Secrets and configs on the worker: arrives with its issue."""
