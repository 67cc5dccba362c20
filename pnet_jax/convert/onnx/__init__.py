"""Networks as ONNX graphs, written node by node from their weights: no PyTorch, no tracing."""
