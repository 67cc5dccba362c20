"""What networks cost: parameters and multiply-adds."""
