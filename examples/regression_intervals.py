"""Regression: conformal prediction intervals that hold the label as often as promised, and a guard that abstains.

    python examples/regression_intervals.py

Scikit-learn's diabetes table: 442 patients, ten columns, progression of the disease after a year.
"""

import torch
from sklearn.datasets import load_diabetes
from torch import nn

from caveat.audits import audit_regression
from caveat.guard import RegressionGuard
from caveat.metrics.interval import interval_of_share

table = load_diabetes()
x, y = torch.tensor(table.data, dtype=torch.float32), torch.tensor(table.target, dtype=torch.float32)
order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
train, held_out, fresh = order.split([182, 160, 100])
mean, std = y[train].mean(), y[train].std()


class Gaussian(nn.Module):
    """A mean and a standard deviation for every patient, in the label's units."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Mean and standard deviation `(n, 2)`."""
        centre, width = self.body(inputs * 20).unbind(1)
        return torch.stack([mean + std * centre, std * nn.functional.softplus(width)], dim=1)


torch.manual_seed(0)
model = Gaussian()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(100):
    centre, deviation = model(x[train]).unbind(1)
    loss = -torch.distributions.Normal(centre, deviation).log_prob(y[train]).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval()

record = audit_regression(model, (x[held_out], y[held_out]), outputs="gaussian_std")
print(f"RMSE {record.rmse.value:.1f}; the labels' own standard deviation {record.label_std:.1f}")
for one in record.intervals:
    covered = f"{one.coverage.value:.1%} covered ({one.coverage.low:.1%} to {one.coverage.high:.1%})"
    print(f"{one.name:22} {1 - one.error:.0%} promised, {covered}, mean width {one.width:.0f}")

guard = RegressionGuard.fit(model, (x[held_out], y[held_out]), outputs="gaussian_std", keep=0.9, error=0.1)
verdict = guard(x[fresh])
inside = (verdict.lower <= y[fresh]) & (y[fresh] <= verdict.upper)
accepted = int(verdict.accepted.sum())
share = interval_of_share(int(inside[verdict.accepted].sum()), accepted)  # 95 % interval: so few patients are chance
print(f"fresh patients: {accepted} of {len(fresh)} accepted, of whose labels {share.value:.0%} are inside")
print(f"  of their intervals ({share.low:.0%} to {share.high:.0%})")
print(verdict.explain(0))
