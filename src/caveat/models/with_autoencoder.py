"""Any network and any autoencoder as one model, for the scores that look at reconstructions."""

from torch import Tensor, nn

__all__ = ["WithAutoencoder"]


class WithAutoencoder(nn.Module):
    """Answers as `network` does, and reconstructs as `autoencoder` does; neither knows of the other.

    Example
    -------
    >>> import torch
    >>> joined = WithAutoencoder(nn.Flatten(), nn.Sigmoid())
    >>> joined(torch.zeros(1, 1, 1, 2)).tolist(), joined.reconstruct(torch.zeros(1, 1, 1, 2)).flatten().tolist()
    ([[0.0, 0.0]], [0.5, 0.5])
    """

    def __init__(self, network: nn.Module, autoencoder: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.autoencoder = autoencoder

    def forward(self, inputs: Tensor) -> Tensor:
        """The network's logits."""
        return self.network(inputs)

    def reconstruct(self, inputs: Tensor) -> Tensor:
        """What the autoencoder makes of the inputs, of the same shape."""
        return self.autoencoder(inputs)

    def both(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and reconstructions."""
        return self.network(inputs), self.autoencoder(inputs)
