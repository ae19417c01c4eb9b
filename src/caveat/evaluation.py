"""What evaluation mode means, and how a network is left as it was."""
