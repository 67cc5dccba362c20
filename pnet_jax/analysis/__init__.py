"""What networks cost (parameters and multiply-adds), and the paper's tables and figures."""
