"""Sending what runs wrote into their journals to MLflow."""
