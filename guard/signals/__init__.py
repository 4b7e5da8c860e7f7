"""What can be read off a denoiser: pure functions of a Denoiser and tensors."""
