"""Volumes of tasks: bind and tmpfs today; named volumes with their issue."""
