"""What tests share: doubles, servers, kernels, data."""
