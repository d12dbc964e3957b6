"""What is learnt. A task owns the batch, the loss, the metrics, and which of them is watched; the loop knows none."""
