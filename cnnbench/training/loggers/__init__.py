"""Loggers show a run elsewhere while it trains: TensorBoard, MLflow, W&B, or one of a plugin."""
