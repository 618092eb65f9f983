"""Sends the journals of runs to MLflow."""
